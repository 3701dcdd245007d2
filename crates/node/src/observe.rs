//! From the engine's words to those of a plan.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use stead_podlife::{Container, Exit, Sandbox, State, spec};
use stead_runtime as runtime;

use crate::Node;
use crate::ledger::{self, Page};
use crate::logs;

/// Longest termination message, as upstream.
const MESSAGE_BYTES_MAX: usize = 4096;
/// The same when it is taken from the log.
const MESSAGE_LOG_BYTES_MAX: usize = 2048;
const MESSAGE_LOG_LINES_MAX: usize = 80;

/// Sandboxes of a pod.
#[must_use]
pub(crate) fn sandboxes(page: &Page, uid: &str) -> Vec<Sandbox> {
    let found = page.sandboxes.get(uid).map(Vec::as_slice).unwrap_or_default();
    let one = |sandbox: &runtime::Sandbox| Sandbox {
        id: sandbox.id.clone(),
        ready: sandbox.state == runtime::SandboxState::Ready,
        attempt: sandbox.config.labels.get(ledger::SANDBOX_ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
    };
    found.iter().map(one).collect()
}

/// Containers of a pod. `known`: those of the look before, whose termination messages need not be read again.
pub(crate) async fn containers(node: &Node, pod: &Pod, page: &Page, uid: &str, known: &[Container]) -> Vec<Container> {
    let mut seen = Vec::new();
    for container in page.containers.get(uid).map(Vec::as_slice).unwrap_or_default() {
        let before = known.iter().find(|before| before.id == container.id);
        seen.push(one(node, pod, container, before).await);
    }
    seen
}

async fn one(node: &Node, pod: &Pod, container: &runtime::Container, before: Option<&Container>) -> Container {
    let wanted = spec::container(pod, &container.name).and_then(|spec| spec.image).unwrap_or_default();
    let (image, image_id) = match before {
        Some(before) => (before.image.clone(), before.image_id.clone()),
        None => names_of(node, &wanted, container).await,
    };
    let state = match (&container.state, before.and_then(Container::exit)) {
        (runtime::ContainerState::Created, _) => State::Created,
        (runtime::ContainerState::Starting, _) => State::Starting,
        (runtime::ContainerState::Running { started_at_unix_nanos, .. }, _) => {
            State::Running { started: time(*started_at_unix_nanos) }
        }
        (runtime::ContainerState::Exited(_), Some(exit)) => State::Exited(exit.clone()),
        (runtime::ContainerState::Exited(exit), None) => State::Exited(exited(node, pod, container, exit)),
    };
    Container {
        id: container.id.clone(),
        sandbox: container.sandbox.clone(),
        name: container.name.clone(),
        attempt: container.attempt,
        hash: container.labels.get(ledger::CONTAINER_HASH).cloned().unwrap_or_default(),
        image,
        image_id,
        state,
    }
}

/// The name and the digest under which the status shows the image.
async fn names_of(node: &Node, wanted: &str, container: &runtime::Container) -> (String, String) {
    let Some(image) = node.ledger.image(wanted, &container.image_id).await else {
        return (wanted.to_owned(), container.image_id.clone());
    };
    let tail = wanted.rsplit('/').next().unwrap_or(wanted);
    let name = image.references.iter().find(|name| name.ends_with(tail)).or_else(|| image.references.first());
    let digest = image.digests.first().cloned();
    (name.cloned().unwrap_or_else(|| wanted.to_owned()), digest.unwrap_or_else(|| image.id.clone()))
}

fn exited(node: &Node, pod: &Pod, container: &runtime::Container, exit: &runtime::Exit) -> Exit {
    Exit {
        started: time(exit.started_at_unix_nanos),
        finished: time(exit.finished_at_unix_nanos),
        code: exit.code,
        signal: exit.signal,
        oom_killed: exit.oom_killed,
        start_error: exit.start_error.clone(),
        message: message(node, pod, container, exit.code),
    }
}

/// The termination message: the file, else (when asked for) the end of the log of a container that failed.
fn message(node: &Node, pod: &Pod, container: &runtime::Container, code: i32) -> Option<String> {
    let file = container.termination_message_path.as_deref().and_then(|path| tail(path, MESSAGE_BYTES_MAX));
    if file.is_some() {
        return file;
    }
    let policy = spec::container(pod, &container.name).and_then(|spec| spec.termination_message_policy);
    if code == 0 || policy.as_deref() != Some("FallbackToLogsOnError") {
        return None;
    }
    let (name, namespace, uid) = spec::identity(pod);
    let path = node.config.pod_log_dir(namespace, name, uid).join(&container.log_path);
    logs::last_lines(&path, MESSAGE_LOG_LINES_MAX, MESSAGE_LOG_BYTES_MAX)
}

fn tail(path: &std::path::Path, bytes_max: usize) -> Option<String> {
    let bytes = std::fs::read(path).ok().filter(|bytes| !bytes.is_empty())?;
    let kept = &bytes[bytes.len().saturating_sub(bytes_max)..];
    Some(String::from_utf8_lossy(kept).into_owned())
}

/// A time of the engine.
#[must_use]
pub(crate) fn time(unix_nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
