//! `proxy`: the API server at an address of this machine, with the credentials of the kubeconfig.
//!
//! Not offered: static files beside it (`--www`), and connections that change their protocol (exec, attach, port-forward).
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/proxy`, `k8s.io/kubectl/pkg/proxy`.

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::Body;
use regex::Regex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::failure::{Failure, Result, plain, system};
use crate::session::Session;

/// The port that upstream takes.
const PORT: u16 = 8001;
/// How much a request may hold.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Headers that are about a connection, not about what it carries.
const OF_CONNECTION: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, UPGRADE];

/// Where, and what is let through.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// The port; 0 for any that is free.
    #[arg(short = 'p', long, default_value_t = PORT)]
    port: u16,
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// A socket of this machine instead.
    #[arg(short = 'u', long, default_value = "")]
    unix_socket: String,
    /// Where the API is to be found.
    #[arg(long, default_value = "/")]
    api_prefix: String,
    /// Paths that are let through, as regular expressions.
    #[arg(long, default_value = "^.*")]
    accept_paths: String,
    /// Paths that are not, even so.
    #[arg(long, default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach")]
    reject_paths: String,
    /// Names under which this machine may be asked.
    #[arg(long, default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$")]
    accept_hosts: String,
    /// Methods that are not let through.
    #[arg(long, default_value = "^$")]
    reject_methods: String,
    /// Let everything through.
    #[arg(long)]
    disable_filter: bool,
}

/// Serves until it is ended.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.port != PORT && !flags.unix_socket.is_empty() {
        return plain("cannot set --unix-socket and --port at the same time");
    }
    let proxy = Arc::new(Proxy {
        client: session.server().await?.client.clone(),
        prefix: format!("{}/", flags.api_prefix.trim_end_matches('/')),
        filter: Filter::new(session, &flags)?,
    });
    if flags.unix_socket.is_empty() {
        let shown = format!("{}:{}", flags.address, flags.port);
        let bad = |why: String| Failure::Plain(format!("listen tcp {shown}: {why}"));
        let address: IpAddr = match &*flags.address {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            address => address.parse().map_err(|_| bad("invalid address".to_owned()))?,
        };
        let listener = TcpListener::bind((address, flags.port)).await;
        let listener = listener.map_err(|error| bad(format!("bind: {}", system(&error))))?;
        session.out(&format!("Starting to serve on {}\n", listener.local_addr()?))?;
        loop {
            let (stream, _) = listener.accept().await?;
            serve(proxy.clone(), stream);
        }
    }
    let listener = socket(Path::new(&flags.unix_socket))?;
    session.out(&format!("Starting to serve on {}\n", flags.unix_socket))?;
    loop {
        let (stream, _) = listener.accept().await?;
        serve(proxy.clone(), stream);
    }
}

/// A socket that only this user may open; one that was left behind is replaced.
fn socket(path: &Path) -> Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)
        .map_err(|error| Failure::Plain(format!("listen unix {}: bind: {}", path.display(), system(&error))))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers the requests of a connection.
fn serve(proxy: Arc<Proxy>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let answer = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { Ok::<_, Infallible>(proxy.answer(request).await) }
    });
    tokio::spawn(async move {
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        // A connection that breaks is the client's business.
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    });
}

struct Proxy {
    client: kube::Client,
    /// Ends with a slash.
    prefix: String,
    filter: Option<Filter>,
}

impl Proxy {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(path) = target(&self.prefix, request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let lets = |filter: &Filter| filter.lets(request.method().as_str(), &path, host);
        if self.filter.as_ref().is_some_and(|filter| !lets(filter)) {
            return text(StatusCode::FORBIDDEN, "Forbidden");
        }
        if request.headers().contains_key(UPGRADE) {
            return text(StatusCode::NOT_IMPLEMENTED, "this proxy passes no connections on that change their protocol");
        }
        match self.pass(request, &path).await {
            Ok(response) => response,
            Err(why) => text(StatusCode::BAD_GATEWAY, &why),
        }
    }

    async fn pass(&self, request: Request<Incoming>, path: &str) -> std::result::Result<Response<Body>, String> {
        let (mut head, body) = request.into_parts();
        let query = head.uri.query().map_or(String::new(), |query| format!("?{query}"));
        head.uri = format!("{path}{query}").parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
        for name in OF_CONNECTION.iter().chain([&HOST, &CONTENT_LENGTH]) {
            head.headers.remove(name);
        }
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        let request = Request::from_parts(head, Body::from(body.to_bytes().to_vec()));
        let mut response = self.client.send(request).await.map_err(|error| error.to_string())?;
        for name in &OF_CONNECTION {
            response.headers_mut().remove(name);
        }
        Ok(response)
    }
}

/// The path at the API server; none when the request is for something else.
fn target(prefix: &str, path: &str) -> Option<String> {
    if prefix.starts_with("/api") {
        return path.starts_with(prefix).then(|| path.to_owned());
    }
    path.strip_prefix(prefix).map(|rest| format!("/{}", rest.trim_start_matches('/')))
}

fn text(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n").into_bytes()));
    *response.status_mut() = code;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Which requests are passed on.
#[derive(Debug)]
struct Filter {
    accept_paths: Vec<Regex>,
    reject_paths: Vec<Regex>,
    accept_hosts: Vec<Regex>,
    reject_methods: Vec<Regex>,
}

impl Filter {
    fn new(session: &Session, flags: &Flags) -> Result<Option<Self>> {
        if flags.disable_filter {
            if flags.unix_socket.is_empty() {
                session
                    .err("W: Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious\n");
            }
            return Ok(None);
        }
        if flags.reject_paths.is_empty() || flags.reject_methods.is_empty() {
            session.err(
                "W: Request filter has been relaxed, your proxy may be vulnerable to attacks, please be cautious\n",
            );
        }
        let expressions = |text: &str| {
            let parts = text.split(',').filter(|part| !part.is_empty());
            let compiled: std::result::Result<Vec<Regex>, regex::Error> = parts.map(Regex::new).collect();
            compiled.map_err(|error| Failure::Plain(format!("error compiling re: {error}")))
        };
        Ok(Some(Self {
            accept_paths: expressions(&flags.accept_paths)?,
            reject_paths: expressions(&flags.reject_paths)?,
            accept_hosts: expressions(&flags.accept_hosts)?,
            reject_methods: expressions(&flags.reject_methods)?,
        }))
    }

    fn lets(&self, method: &str, path: &str, host: &str) -> bool {
        let any = |expressions: &[Regex], text: &str| expressions.iter().any(|expression| expression.is_match(text));
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        !any(&self.reject_paths, path)
            && !any(&self.reject_methods, method)
            && any(&self.accept_paths, path)
            && any(&self.accept_hosts, name)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    #[test]
    fn only_this_machine_is_answered_and_nothing_is_run() {
        let session = Session::new(crate::arguments::Globals::default(), "v1.37.0");
        let flags = Line::parse_from(["proxy"]).flags;
        let filter = Filter::new(&session, &flags).expect("compiles").expect("there is one");
        for (method, path, host, wanted) in [
            ("GET", "/api/v1/pods", "127.0.0.1:8001", true),
            ("DELETE", "/api/v1/namespaces/n/pods/p", "localhost", true),
            ("GET", "/api/v1/pods", "[::1]:8001", true),
            ("GET", "/api/v1/pods", "evil.example:8001", false),
            ("POST", "/api/v1/namespaces/n/pods/p/exec", "localhost:8001", false),
            ("POST", "/api/v1/namespaces/n/pods/p/attach", "localhost:8001", false),
        ] {
            assert_eq!(filter.lets(method, path, host), wanted, "{method} {path} {host}");
        }
    }

    #[test]
    fn the_api_is_under_a_prefix() {
        for (prefix, path, wanted) in [
            ("/", "/api/v1", Some("/api/v1")),
            ("/custom/", "/custom/api/v1", Some("/api/v1")),
            ("/custom/", "/api/v1", None),
            ("/api/", "/api/v1", Some("/api/v1")),
            ("/api/", "/healthz", None),
        ] {
            assert_eq!(target(prefix, path).as_deref(), wanted, "{prefix} {path}");
        }
    }
}
