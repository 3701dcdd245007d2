//! `/containerLogs`: one container's log, from its file, as long as the reader wants.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use stead_podlife::{backoff, spec};
use stead_runtime::{Container, ContainerState, EngineEvent};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::streams::refused;
use super::{Body, Query, Refusal, internal};
use crate::Node;
use crate::logs::{Formatter, Reader, Wanted, Watch};

/// Pieces of log that may wait for a slow reader.
const PIECES_QUEUED_MAX: usize = 16;

/// The same log piece by piece over a WebSocket, as browsers take it.
pub(super) fn over_web_socket<B: Send + 'static>(
    mut request: Request<B>,
    log: Response<Body>,
) -> Result<Response<Body>, Refusal> {
    let (response, client) = stead_streaming::bytes(&mut request).map_err(refused)?;
    tokio::spawn(async move {
        let Ok(mut client) = client.await else { return };
        let mut pieces = log.into_body().into_data_stream();
        while let Some(Ok(piece)) = pieces.next().await {
            if client.send(piece).await.is_err() {
                return;
            }
        }
        client.close().await;
    });
    Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
}

impl Node {
    pub(super) async fn container_logs(
        self: &Arc<Self>,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let wanted = wanted(query, (self.clock)())?;
        let pod = self.pod_named(namespace, name)?;
        if spec::role(&pod, container).is_none() {
            let text = format!("container {container} is not valid for pod {name}");
            return Err(Refusal(StatusCode::BAD_REQUEST, text));
        }
        let found = self.chosen(&pod, container, query.is_set(&["previous"])).await?;
        let (_, _, uid) = spec::identity(&pod);
        let path = self.config.pod_log_dir(namespace, name, uid).join(&found.log_path);
        // Subscribed before the state is trusted, so that the end of the container cannot be missed.
        let events = self.engine.events();
        let runs = self
            .attempts(&pod, container)
            .await?
            .iter()
            .any(|one| one.id == found.id && matches!(one.state, ContainerState::Running { .. }));
        let reader = Reader::open(&path, wanted.tail_lines).map_err(|error| internal(&error))?;
        let follow = if wanted.follow && runs {
            let watch = Watch::new(&path).map_err(|error| internal(&error))?;
            Some(Follow { watch, events, container: found.id })
        } else {
            None
        };
        let (pieces, queue) = mpsc::channel(PIECES_QUEUED_MAX);
        tokio::spawn(copy(reader, Formatter::new(wanted), follow, pieces));
        let queue =
            futures::stream::unfold(
                queue,
                |mut queue| async move { queue.recv().await.map(|piece: Bytes| (piece, queue)) },
            );
        let body = StreamBody::new(queue.map(|piece| Ok(Frame::data(piece)))).boxed_unsync();
        Ok(Response::new(body))
    }

    /// The attempt whose log is wanted.
    async fn chosen(&self, pod: &Pod, container: &str, previous: bool) -> Result<Container, Refusal> {
        let (name, ..) = spec::identity(pod);
        let mut attempts = self.attempts(pod, container).await?;
        let newest = attempts.pop();
        if previous {
            let text = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
            // Between two attempts the one that has ended is the previous one.
            let before = attempts.pop();
            return before.ok_or(Refusal(StatusCode::BAD_REQUEST, text));
        }
        match newest {
            Some(newest) if !matches!(newest.state, ContainerState::Created | ContainerState::Starting) => Ok(newest),
            _ => {
                let reason = waiting_reason(pod, container).unwrap_or_else(|| "ContainerCreating".to_owned());
                let text = format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}");
                Err(Refusal(StatusCode::BAD_REQUEST, text))
            }
        }
    }
}

fn waiting_reason(pod: &Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let one: &ContainerStatus = lists.into_iter().flatten().flatten().find(|one| one.name == container)?;
    let waiting = one.state.as_ref()?.waiting.as_ref()?;
    // Upstream tells more of a refused image.
    match (&waiting.reason, &waiting.message) {
        (Some(reason), _) if reason == "ErrImagePull" => Some("image can't be pulled".to_owned()),
        (Some(reason), _) if reason == "ImagePullBackOff" => Some("trying and failing to pull image".to_owned()),
        (reason, _) => reason.clone(),
    }
}

fn wanted(query: &Query, now: Timestamp) -> Result<Wanted, Refusal> {
    let number = |name: &str| -> Result<Option<u64>, Refusal> {
        let Some(text) = query.first(name) else { return Ok(None) };
        let wrong = || Refusal(StatusCode::BAD_REQUEST, format!("{name}: invalid value \"{text}\""));
        text.parse().map(Some).map_err(|_| wrong())
    };
    let since_seconds = number("sinceSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let since_time = query.first("sinceTime").and_then(|text| text.parse::<Timestamp>().ok());
    let stream = query.first("stream").filter(|stream| !stream.eq_ignore_ascii_case("all"));
    Ok(Wanted {
        follow: query.is_set(&["follow"]),
        timestamps: query.is_set(&["timestamps"]),
        tail_lines: number("tailLines")?,
        since: since_seconds.map(|seconds| backoff::later(now, -SignedDuration::from_secs(seconds))).or(since_time),
        limit_bytes: number("limitBytes")?,
        stream: stream.map(str::to_lowercase),
    })
}

struct Follow {
    watch: Watch,
    events: broadcast::Receiver<EngineEvent>,
    container: String,
}

impl Follow {
    /// Waits for more of the log; `false` when the container has ended.
    async fn more(&mut self) -> bool {
        tokio::select! {
            () = self.watch.changed() => true,
            () = ended(&mut self.events, &self.container) => false,
        }
    }
}

async fn ended(events: &mut broadcast::Receiver<EngineEvent>, container: &str) {
    loop {
        match events.recv().await {
            Ok(EngineEvent::ContainerExited { container: other, .. }) if other == container => return,
            Ok(_) => {}
            // What was missed may have been the end: the last lines are read either way.
            Err(RecvError::Lagged(_) | RecvError::Closed) => return,
        }
    }
}

/// Copies the log to the queue until its end, the container's end, the byte limit, or until nobody reads any more.
async fn copy(mut reader: Reader, mut formatter: Formatter, mut follow: Option<Follow>, pieces: mpsc::Sender<Bytes>) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let lines = reader.lines();
            (reader, lines)
        });
        let Ok((back, Ok(lines))) = read.await else { return };
        reader = back;
        let mut out = Vec::new();
        lines.iter().for_each(|line| formatter.push(line, &mut out));
        if !out.is_empty() && pieces.send(out.into()).await.is_err() {
            return;
        }
        if formatter.is_full() {
            return;
        }
        if !lines.is_empty() {
            continue;
        }
        if reader.was_rotated() {
            reader.reopen();
            continue;
        }
        let Some(following) = &mut follow else { return };
        let more = tokio::select! {
            more = following.more() => more,
            () = pieces.closed() => return,
        };
        if !more {
            follow = None;
        }
    }
}
