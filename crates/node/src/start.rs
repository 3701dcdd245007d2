//! Starts one container: image, configuration, process, postStart hook.

use std::time::Duration;

use stead_informer::Severity;
use stead_podlife::spec;
use stead_runtime::ContainerState;

use crate::container;
use crate::context::Context;
use crate::hooks;
use crate::image;
use crate::probing::Target;

/// Longest time that a postStart hook may take; upstream has no limit, a pod that is deleted has.
const POST_START_MAX: Duration = Duration::from_secs(24 * 3600);
/// What a container gets whose postStart hook has failed.
const GRACE_AFTER_FAILED_HOOK: Duration = Duration::from_secs(2);

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    Waiting {
        reason: String,
        message: String,
    },
    /// There is an ended container now, which tells the rest.
    Ended,
    Cancelled,
}

/// Starts the container `name` in `sandbox`.
///
/// # Errors
/// The reason and message of the waiting state.
pub(crate) async fn start(context: &Context, sandbox: &str, name: &str, attempt: u32) -> Result<(), NotStarted> {
    let engine = &context.node.engine;
    let Some(container) = spec::container(&context.pod, name) else { return Err(NotStarted::Cancelled) };
    let image = image::ensure(context, &container).await?;
    let made = tokio::select! {
        made = container::config(context, &container, attempt, &image) => made,
        () = context.cancel.cancelled() => return Err(NotStarted::Cancelled),
    };
    let config = made.map_err(|message| refused(context, name, "CreateContainerConfigError", message))?;
    let created = engine.create_container(sandbox, config).await;
    let id = created.map_err(|error| refused(context, name, "CreateContainerError", error.to_string()))?;
    context.event_of(name, Severity::Normal, "Created", "Container created");
    if context.cancel.is_cancelled() {
        let _ = engine.remove_container(&id).await;
        return Err(NotStarted::Cancelled);
    }
    if let Err(error) = engine.start_container(&id).await {
        context.event_of(name, Severity::Warning, "Failed", &format!("Error: {error}"));
        return Err(after_failure(context, &id, error.to_string()).await);
    }
    context.event_of(name, Severity::Normal, "Started", "Container started");
    post_start(context, &container, &id).await
}

/// A container that could not be started has ended and says so itself. One that did not even get there is removed.
async fn after_failure(context: &Context, id: &str, message: String) -> NotStarted {
    let page = context.node.ledger.fresh().await.unwrap_or_default();
    let of_pod = page.containers.get(&context.uid).map(Vec::as_slice).unwrap_or_default();
    let has_ended = of_pod.iter().any(|one| one.id == id && matches!(one.state, ContainerState::Exited(_)));
    if has_ended {
        return NotStarted::Ended;
    }
    let _ = context.node.engine.remove_container(id).await;
    NotStarted::Waiting { reason: "RunContainerError".to_owned(), message }
}

fn refused(context: &Context, name: &str, reason: &str, message: String) -> NotStarted {
    context.event_of(name, Severity::Warning, "Failed", &format!("Error: {message}"));
    NotStarted::Waiting { reason: reason.to_owned(), message }
}

async fn post_start(
    context: &Context,
    container: &k8s_openapi::api::core::v1::Container,
    id: &str,
) -> Result<(), NotStarted> {
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let engine = context.node.engine.as_ref();
    let target = Target { engine, container, container_id: id, pod_ip: context.node.pod_ip(&context.pod) };
    let ran = tokio::select! {
        ran = hooks::execute(&target, &context.pod, hook, POST_START_MAX) => ran,
        () = context.cancel.cancelled() => return Err(NotStarted::Cancelled),
    };
    let Err(message) = ran else { return Ok(()) };
    context.event_of(&container.name, Severity::Warning, "FailedPostStartHook", &message);
    context.event_of(&container.name, Severity::Normal, "Killing", "FailedPostStartHook");
    if let Err(error) = engine.stop_container(id, GRACE_AFTER_FAILED_HOOK).await {
        tracing::warn!(pod = %spec::full_name(&context.pod), container = container.name, %error, "stop after a failed hook");
    }
    Err(NotStarted::Ended)
}
