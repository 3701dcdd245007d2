//! The line between one part and the API server: where requests, answers and watch events are lost, late or double.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use stead_apiserver::{ApiBody, Identity, InProcess};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use crate::plant::{Lens, resource_of};
use crate::rng::Rng;
use crate::world::{ACTOR, Actor, Part, World};

/// How long a slow request takes at most, there and back each.
const SLOW_MAX_MS: u64 = 3000;
/// So many changes of a thousand are refused while conflicts storm.
const STORM_CONFLICTS: u64 = 850;
/// How long any request takes at most otherwise.
const USUAL_MAX_MS: u64 = 4;

pub(crate) type LineBody = UnsyncBoxBody<Bytes, BoxError>;

/// One process' way to the API server.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) world: Arc<World>,
    pub(crate) actor: Actor,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    /// The process is dead: nothing that it asks or waits for happens any more.
    dead: AtomicBool,
    crashed: Notify,
    rng: Rng,
    /// What the process sees and does wrong, when a bug is planted in it.
    lens: Option<Lens>,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Lost,
    ReplyLost,
    Conflict,
    Busy,
    CrashBefore,
    CrashAfter,
    Gone,
}

impl Line {
    #[must_use]
    pub(crate) fn new(world: Arc<World>, actor: Actor) -> Self {
        let rng = world.rng(&format!("line of {actor}"));
        let lens = Lens::of(world.plant, actor.part, world.rng(&format!("lens of {actor}")));
        let gate = Gate { dead: AtomicBool::new(false), crashed: Notify::new(), rng, lens };
        Self { world, actor, gate: Arc::new(gate) }
    }

    /// Ends the process at this end.
    pub(crate) fn crash(&self) {
        self.gate.dead.store(true, Ordering::Relaxed);
        self.gate.crashed.notify_one();
    }

    /// Waits for that.
    pub(crate) async fn crashed(&self) {
        self.gate.crashed.notified().await;
    }

    fn faulty(&self) -> bool {
        self.actor.part != Part::User && !self.world.is_calm()
    }

    async fn wait_if_dead(&self) {
        if self.gate.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// The time that the way there or back takes.
    async fn travel(&self) {
        let (rng, profile) = (&self.gate.rng, &self.world.profile);
        if self.actor.part == Part::User {
            return;
        }
        let slow = self.faulty() && rng.below(1000) < profile.slow;
        let time = if slow { rng.spread(SLOW_MAX_MS) } else { Duration::from_millis(rng.below(USUAL_MAX_MS)) };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
    }

    fn draw(&self, method: &Method, watch: bool) -> Option<Fault> {
        if !self.faulty() {
            return None;
        }
        let profile = &self.world.profile;
        let conflict = if self.world.is_stormy(self.actor.part) { STORM_CONFLICTS } else { profile.conflict };
        let write = *method != Method::GET;
        let changes = write && *method != Method::POST;
        let is_node = matches!(self.actor.part, Part::Node(_));
        let chances = [
            (Fault::Lost, profile.lost, true),
            (Fault::Busy, profile.busy, true),
            (Fault::ReplyLost, profile.reply_lost, write),
            (Fault::Conflict, conflict, changes && !is_node),
            (Fault::CrashBefore, profile.crash, write && !is_node),
            (Fault::CrashAfter, profile.crash, write && !is_node),
            (Fault::Gone, profile.watch_gone, watch),
        ];
        let mut at = self.gate.rng.below(1000);
        for (fault, chance, possible) in chances {
            if !possible {
                continue;
            }
            if at < chance {
                return Some(fault);
            }
            at -= chance;
        }
        None
    }

    async fn serve(self, request: Request<Body>) -> Result<Response<LineBody>, BoxError> {
        self.wait_if_dead().await;
        self.travel().await;
        self.wait_if_dead().await;
        if request.method() == Method::POST && request.uri().path().ends_with("/events") {
            // Nobody reads them here, and they are a third of all writes.
            let bytes = request.into_body().collect().await?.to_bytes();
            return Ok(full(StatusCode::CREATED, bytes));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let fault = self.draw(&method, watch);
        if let Some(fault) = fault {
            self.world.say(&format!("{} {method} {path}: {fault:?}", self.actor));
        }
        match fault {
            Some(Fault::Lost) => return Err("the connection was refused".into()),
            Some(Fault::Busy) => return Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")),
            Some(Fault::Conflict) => return Ok(refusal(StatusCode::CONFLICT, "Conflict")),
            Some(Fault::Gone) => return Ok(full(StatusCode::OK, gone())),
            Some(Fault::CrashBefore) => {
                self.crash();
                self.wait_if_dead().await;
            }
            Some(Fault::ReplyLost | Fault::CrashAfter) | None => {}
        }
        if watch {
            let (answer, life) = self.ask(request).await?;
            return Ok(answer.map(|body| self.watched(body, life, path)));
        }
        let (parts, bytes) = self.exchange(request, &method, &path).await?;
        let fault = if self.world.springs() { Some(Fault::ReplyLost) } else { fault };
        match fault {
            Some(Fault::ReplyLost) => return Err("the connection was reset".into()),
            Some(Fault::CrashAfter) => {
                self.crash();
                self.wait_if_dead().await;
            }
            _ => {}
        }
        self.travel().await;
        self.wait_if_dead().await;
        Ok(Response::from_parts(parts, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
    }

    /// Asks the server that runs now; the answer, and the life of that server.
    async fn ask(&self, request: Request<Body>) -> Result<(Response<ApiBody>, CancellationToken), BoxError> {
        let (server, life) = self.world.server().ok_or("the connection was refused")?;
        let mut actor = self.actor;
        actor.evicts = request.uri().path().ends_with("/eviction");
        let mut door: InProcess = server.in_process(Identity::admin());
        let call = ACTOR.scope(actor, door.call(request));
        tokio::select! {
            biased;
            () = life.cancelled() => Err("the connection was reset".into()),
            answer = call => answer.map(|answer| (answer, life.clone())).map_err(|never| match never {}),
        }
    }

    /// One request and its whole answer, both seen through the lens of a planted bug, and judged.
    async fn exchange(
        &self,
        request: Request<Body>,
        method: &Method,
        path: &str,
    ) -> Result<(http::response::Parts, Bytes), BoxError> {
        let Some(lens) = &self.gate.lens else { return self.judged(request, method, path).await };
        if let Some((status, answer)) = lens.made_up(method, path) {
            let (parts, ()) = refusal(StatusCode::from_u16(status)?, "").map(|_| ()).into_parts();
            return Ok((parts, answer.to_string().into()));
        }
        let (head, body) = request.into_parts();
        let body = lens.sent(method, path, body.collect().await?.to_bytes());
        let (parts, bytes) = self.judged(Request::from_parts(head, Body::from(body)), method, path).await?;
        let bytes = if parts.status.is_success() { lens.answered(method, path, bytes) } else { bytes };
        let mut parts = parts;
        parts.headers.remove(header::CONTENT_LENGTH);
        Ok((parts, bytes))
    }

    async fn judged(
        &self,
        request: Request<Body>,
        method: &Method,
        path: &str,
    ) -> Result<(http::response::Parts, Bytes), BoxError> {
        let before = (method == Method::GET).then(|| self.world.model.lock().latest(&key_of(path, None))).flatten();
        if self.actor.part == Part::Sets && before.is_some() && resource_of(path) == "statefulsets" {
            let name = path.rsplit('/').next().unwrap_or("").to_owned();
            self.world.model.lock().asked.insert((self.actor, name), Instant::now());
        }
        let (answer, _) = self.ask(request).await?;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(|never| match never {})?.to_bytes();
        if parts.status.is_success() {
            match before {
                Some(before) => self.read(path, &bytes, before),
                None if method != Method::GET => self.acknowledged(path, &bytes),
                None => {}
            }
        }
        Ok((parts, bytes))
    }

    /// What the server says that it wrote must have been written.
    fn acknowledged(&self, path: &str, body: &[u8]) {
        let Told { metadata } = serde_json::from_slice(body).unwrap_or_default();
        let key = key_of(path, metadata.name.as_deref());
        if let Some(revision) = metadata.revision()
            && !self.world.model.lock().was_written(revision, &key)
        {
            self.world.violated(format!(
                "the server acknowledged to {} that {key} is of revision {revision}, which was never written",
                self.actor
            ));
        }
    }

    /// What the server shows is not older than what was there when it was asked.
    fn read(&self, path: &str, body: &[u8], before: u64) {
        let Told { metadata } = serde_json::from_slice(body).unwrap_or_default();
        if let Some(revision) = metadata.revision().filter(|revision| *revision < before) {
            self.world.violated(format!("the server shows {path} of revision {revision} after {before} was written"));
        }
    }

    /// A watch with its faults; it ends with the server.
    fn watched(self, body: ApiBody, life: CancellationToken, path: String) -> LineBody {
        // One wait for the end of the server, not one for each look at the watch.
        let end = Box::pin(life.cancelled_owned());
        let state = (self, Box::pin(body.into_data_stream().take_until(end)), None::<Bytes>, path);
        let stream = futures::stream::unfold(state, |(line, mut body, mut twice, path)| async move {
            if let Some(again) = twice.take() {
                return Some((Ok(Frame::data(again)), (line, body, None, path)));
            }
            let mut frame = body.next().await?.ok()?;
            line.wait_if_dead().await;
            if let Some(until) = line.world.late_until(line.actor.part, resource_of(&path)).filter(|_| line.faulty()) {
                tokio::time::sleep_until(until).await;
                line.wait_if_dead().await;
            }
            let (rng, profile) = (&line.gate.rng, &line.world.profile);
            if line.faulty() && rng.below(1000) < profile.watch_cut {
                return None;
            }
            if let Some(lens) = &line.gate.lens {
                frame = lens.watched(&path, &frame);
            }
            if line.faulty() && rng.below(1000) < profile.watch_twice {
                let end = frame.len().saturating_sub(1);
                let start = frame[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                twice = Some(frame.slice(start..));
            }
            Some((Ok::<_, BoxError>(Frame::data(frame)), (line, body, twice, path)))
        });
        StreamBody::new(stream).boxed_unsync()
    }

    /// One request with JSON, for parts that need no typed client: status and body.
    ///
    /// # Errors
    /// When the line broke.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value), BoxError> {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        self.send_as(method, path, kind, body).await
    }

    /// The same with a media type.
    ///
    /// # Errors
    /// When the line broke.
    pub(crate) async fn send_as(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value), BoxError> {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
        let answer = self.clone().serve(request.body(Body::from(bytes))?).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }
}

impl Service<Request<Body>> for Line {
    type Response = Response<LineBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

/// The key of the object that a path is about; `name` where the path does not say it.
fn key_of(path: &str, name: Option<&str>) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, rest) = match parts.split_first() {
        Some((&"api", rest)) => ("", rest.get(1..).unwrap_or_default()),
        Some((_, rest)) => (rest.first().copied().unwrap_or(""), rest.get(2..).unwrap_or_default()),
        None => ("", &[][..]),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (format!("{namespace}/"), rest),
        rest => (String::new(), rest),
    };
    let dot = if group.is_empty() { "" } else { "." };
    let name = rest.get(1).copied().or(name).unwrap_or("");
    format!("/registry/{}{dot}{group}/{namespace}{name}", rest.first().copied().unwrap_or(""))
}

/// What is looked at of an answer.
#[derive(Default, Deserialize)]
struct Told<'a> {
    #[serde(borrow, default)]
    metadata: Name<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Name<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    resource_version: Option<Cow<'a, str>>,
}

impl Name<'_> {
    fn revision(&self) -> Option<u64> {
        self.resource_version.as_ref()?.parse().ok()
    }
}

fn status(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("simulated {reason}"), "reason": reason, "code": code.as_u16(),
    })
}

fn refusal(code: StatusCode, reason: &str) -> Response<LineBody> {
    full(code, status(code, reason).to_string())
}

fn gone() -> String {
    format!("{}\n", json!({"type": "ERROR", "object": status(StatusCode::GONE, "Expired")}))
}

fn full(code: StatusCode, text: impl Into<Bytes>) -> Response<LineBody> {
    let mut answer = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_key() {
        for (path, name, key) in [
            ("/api/v1/namespaces/default/pods/web-0/status", None, "/registry/pods/default/web-0"),
            ("/api/v1/namespaces/default/pods", Some("web-0"), "/registry/pods/default/web-0"),
            ("/api/v1/nodes/node-1", None, "/registry/nodes/node-1"),
            ("/apis/apps/v1/namespaces/default/statefulsets/web", None, "/registry/statefulsets.apps/default/web"),
        ] {
            assert_eq!(key_of(path, name), key);
        }
    }
}
