//! The way of every request: who is it, may they, is there room; then the verb. One place turns errors into answers.

pub(crate) mod authn;
pub(crate) mod authz;
pub(crate) mod flow;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header, request::Parts};
use http_body::Body;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use stead_admission::authz::node_of;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::negotiate;
use crate::path::{Info, Query, Verb};
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::{join, nonresource, verbs};

/// Largest body of a request, in bytes (upstream's limit).
pub const REQUEST_BYTES_MAX: usize = 3 * 1024 * 1024;
const AUDIT_ID: &str = "audit-id";
/// What the log says when a part of stead itself is refused; tests look for it.
pub const REFUSED: &str = "a component was refused";

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in groups; every authenticated user is also in `system:authenticated`.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// The administrator, whom every rule allows.
    #[must_use]
    pub fn admin() -> Self {
        Self::new("system:admin", &["system:masters"])
    }

    /// Who sends no credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }
}

/// Where a request came from.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Over TLS, perhaps with a certificate of our authority.
    Tls(Option<Arc<Identity>>),
    /// From a component in this process.
    InProcess(Arc<Identity>),
}

impl Peer {
    pub(crate) fn user(&self) -> Option<&Identity> {
        match self {
            Self::Tls(user) => user.as_deref(),
            Self::InProcess(user) => Some(user),
        }
    }

    fn is_node(&self) -> bool {
        self.user().is_some_and(|user| node_of(&user.name, &user.groups).is_some())
    }

    /// Whether it is a part of stead itself, in this process or on another node.
    fn is_component(&self) -> bool {
        let ours = |name: &str| name == "system:kube-proxy" || name.starts_with("system:serviceaccount:kube-system:");
        match self {
            Self::InProcess(_) => true,
            Self::Tls(user) => self.is_node() || user.as_ref().is_some_and(|user| ours(&user.name)),
        }
    }
}

/// A part of stead that is refused something lacks a right: that is a fault of ours, and nobody may miss it. A namespace that
/// ends takes nothing new from anybody, which is no such fault.
fn refused(server: &ApiServer, peer: &Peer, error: &ApiError) {
    let ending = error.details["causes"][0]["reason"] == "NamespaceTerminating";
    if let Some(user) = peer.user().filter(|_| peer.is_component() && !ending) {
        server.0.metrics.refused.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(user = user.name, error = error.message, "{REFUSED}");
    }
}

/// A body that is passed on as it comes.
pub(crate) type Streamed = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn no_body() -> Streamed {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Where a connection comes from; with the requests that came over a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

/// A request with everything that is known before its verb runs.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) user: Arc<Identity>,
    pub(crate) query: Query,
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    /// The body as it comes, of requests that are passed on. The lock is never waited for: it lets a call be shared.
    pub(crate) stream: Mutex<Option<Streamed>>,
    /// There when the caller wants to go on with another protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Call {
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The body to pass on; empty the second time.
    pub(crate) fn take_stream(&self) -> Streamed {
        self.stream.lock().take().unwrap_or_else(no_body)
    }
}

/// Serves one request; never fails.
pub(crate) async fn handle<B>(server: &ApiServer, mut request: Request<B>, peer: &Peer) -> Answer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let metrics = &server.0.metrics;
    metrics.inflight.fetch_add(1, Ordering::Relaxed);
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let audit_id = parts.headers.get(AUDIT_ID).cloned();
    let takes_gzip = response::takes_gzip(&parts.headers);
    let head = parts.method == http::Method::HEAD;
    let form = negotiate::fallback(&parts.headers, &query);
    let mut answer = match route(server, peer, parts, query, body, upgrade).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.reason == Reason::Forbidden && peer.is_node() {
                refused(server, peer, &error);
            }
            response::error(form, &error)
        }
    };
    if takes_gzip {
        response::compress(&mut answer);
    }
    if head {
        response::drop_body(&mut answer);
    }
    finish(&mut answer, audit_id);
    metrics.inflight.fetch_sub(1, Ordering::Relaxed);
    metrics.request_done(answer.status().as_u16());
    answer
}

fn finish(answer: &mut Answer, audit_id: Option<HeaderValue>) {
    let headers = answer.headers_mut();
    let audit_id = audit_id.or_else(|| HeaderValue::from_str(&crate::source::uuid().to_string()).ok());
    if let Some(id) = audit_id {
        headers.insert(AUDIT_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

async fn route<B>(
    server: &ApiServer,
    peer: &Peer,
    parts: Parts,
    query: Query,
    body: B,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let info = Info::read(&parts.method, parts.uri.path(), &query);
    if matches!(&info, Info::Path(path) if join::is_ours(path)) {
        return join::serve(server, peer, &parts, body, upgrade).await;
    }
    let caller = authn::authenticate(server, peer, &parts.headers)?;
    let user = match authn::impersonated(server, &caller, &parts.headers)? {
        authn::Impersonation::None => caller,
        authn::Impersonation::As(user) => user,
        authn::Impersonation::Nonsense(why) => {
            let text = format!("Internal Server Error: {:?}: {why}\n", parts.uri.path());
            return Ok(response::text(http::StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    };
    if let Err(error) = authz::authorize(server, &user, &parts.method, &info) {
        refused(server, peer, &error);
        return Ok(response::forbidden(negotiate::fallback(&parts.headers, &query), &error));
    }
    match info {
        Info::Path(path) => nonresource::serve(server, &path, &query, &parts),
        Info::Resource(request) => {
            let _room = server.0.limits.enter(peer, &request, upgrade.is_some()).await?;
            let (mut read_now, mut stream) = (Bytes::new(), None);
            if request.subresource == "proxy" {
                stream = Some(body.map_err(Into::into).boxed_unsync());
            } else if request.verb.mutates() && upgrade.is_none() {
                read_now = read(body).await?;
            }
            let call = Call { user, query, parts, body: read_now, stream: Mutex::new(stream), upgrade };
            verbs::dispatch(server, request, call).await
        }
    }
}

/// The whole body, within the limit.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Box::pin(Limited::new(body, REQUEST_BYTES_MAX).collect()).await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            Reason::RequestEntityTooLarge,
            format!("Request entity too large: limit is {REQUEST_BYTES_MAX}"),
        )),
        Err(error) => Err(ApiError::bad_request(format!("cannot read the body of the request: {error}"))),
    }
}

/// The verbs that only read, for the two separate limits of concurrency.
pub(crate) fn reads(verb: Verb) -> bool {
    !verb.mutates()
}
