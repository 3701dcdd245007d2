//! Lifecycle hooks: postStart and preStop (upstream: `pkg/kubelet/lifecycle/handlers.go`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use stead_podlife::spec;
use tokio::time::sleep;

use crate::probing::{Failed, Target, run};

/// Runs a hook within `limit`.
///
/// # Errors
/// Upstream's text of the event.
pub(crate) async fn execute(
    target: &Target<'_>,
    pod: &Pod,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    let name = &target.container.name;
    let place = format!("for Container \"{name}\" in Pod \"{}\" failed", spec::full_name(pod));
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default();
        let failed = |error: String, output: &str| {
            format!(
                "Exec lifecycle hook ([{}]) {place} - error: {error}, message: \"{}\"",
                command.join(" "),
                escaped(output)
            )
        };
        return match run(target.engine, target.container_id, &command, limit).await {
            Ok((0, _)) => Ok(()),
            Ok((code, output)) => {
                Err(failed(format!("command '{}' exited with {code}: {output}", command.join(" ")), &output))
            }
            Err(Failed::TimedOut) => Err(failed(format!("command '{}' timed out", command.join(" ")), "")),
            Err(Failed::Engine(error)) => Err(failed(error, "")),
        };
    }
    if let Some(action) = &hook.http_get {
        let path = action.path.clone().unwrap_or_default();
        let answer = target.http_get(action, limit).await;
        return answer.map(|_| ()).map_err(|error| format!("HTTP lifecycle hook ({path}) {place} - error: {error}"));
    }
    if let Some(action) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        sleep(wanted.min(limit)).await;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
