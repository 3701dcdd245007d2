//! The line between one part and the API server: where requests, answers and watch events are lost, late or double.

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
use serde_json::{Value, json};
use stead_apiserver::InProcess;
use tokio::sync::Notify;
use tower::{BoxError, Service};

use crate::rng::Rng;
use crate::world::{ACTOR, Actor, Part, World};

/// How long a slow request takes at most, there and back each.
const SLOW_MAX_MS: u64 = 3000;
/// How long any request takes at most otherwise.
const USUAL_MAX_MS: u64 = 4;

pub(crate) type LineBody = UnsyncBoxBody<Bytes, BoxError>;

/// One process' way to the API server.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    inner: InProcess,
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
    pub(crate) fn new(inner: InProcess, world: Arc<World>, actor: Actor) -> Self {
        let rng = world.rng(&format!("line of {actor}"));
        Self { inner, world, actor, gate: Arc::new(Gate { dead: AtomicBool::new(false), crashed: Notify::new(), rng }) }
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
        let write = *method != Method::GET;
        let changes = write && *method != Method::POST;
        let is_node = matches!(self.actor.part, Part::Node(_));
        let chances = [
            (Fault::Lost, profile.lost, true),
            (Fault::Busy, profile.busy, true),
            (Fault::ReplyLost, profile.reply_lost, write),
            (Fault::Conflict, profile.conflict, changes && !is_node),
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

    async fn serve(mut self, request: Request<Body>) -> Result<Response<LineBody>, BoxError> {
        self.wait_if_dead().await;
        self.travel().await;
        self.wait_if_dead().await;
        if request.method() == Method::POST && request.uri().path().ends_with("/events") {
            // Nobody reads them here, and they are a third of all writes.
            let bytes = request.into_body().collect().await?.to_bytes();
            return Ok(full(StatusCode::CREATED, bytes));
        }
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let fault = self.draw(request.method(), watch);
        let told = (self.world.clone(), request.method().clone(), request.uri().path().to_owned());
        if let Some(fault) = fault {
            told.0.say(&format!("{} {} {}: {fault:?}", self.actor, told.1, told.2));
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
        let mut actor = self.actor;
        actor.evicts = told.2.ends_with("/eviction");
        let Ok(answer) = ACTOR.scope(actor, self.inner.call(request)).await;
        if watch {
            return Ok(answer.map(|body| self.watched(body)));
        }
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.map_err(|never| match never {})?.to_bytes();
        if told.1 != Method::GET && parts.status.is_success() {
            self.acknowledged(&bytes);
        }
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

    /// What the server says that it wrote must have been written.
    fn acknowledged(&self, body: &[u8]) {
        let object: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(revision) = object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok())
            && !self.world.model.lock().was_written(revision)
        {
            self.world.violated(format!("the server acknowledged revision {revision}, which was never written"));
        }
    }

    /// A watch with its faults.
    fn watched<B>(self, body: B) -> LineBody
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
    {
        let state = (self, Box::pin(body.into_data_stream()), None::<Bytes>, false);
        let stream = futures::stream::unfold(state, |(line, mut body, mut twice, over)| async move {
            if over {
                return None;
            }
            if let Some(again) = twice.take() {
                return Some((Ok(Frame::data(again)), (line, body, None, false)));
            }
            let frame = body.next().await?.ok()?;
            line.wait_if_dead().await;
            if let Some(until) = line.world.late_until(line.actor.part).filter(|_| line.faulty()) {
                tokio::time::sleep_until(until).await;
                line.wait_if_dead().await;
            }
            let (rng, profile) = (&line.gate.rng, &line.world.profile);
            if line.faulty() && rng.below(1000) < profile.watch_cut {
                return None;
            }
            if line.faulty() && rng.below(1000) < profile.watch_twice {
                let start = frame[..frame.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                twice = Some(frame.slice(start..));
            }
            Some((Ok::<_, BoxError>(Frame::data(frame)), (line, body, twice, over)))
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
