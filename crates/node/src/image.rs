//! Makes sure that a container's image is there, by its pull policy, with the events that upstream tells
//! (`pkg/kubelet/images/image_manager.go`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use stead_informer::Severity;
use stead_podlife::spec;
use stead_runtime::{EngineError, Image, PullError, RegistryAuth};

use crate::context::Context;
use crate::objects::{Kind, Reference};
use crate::start::NotStarted;

/// The image of `container`, pulled when its policy asks for it.
///
/// # Errors
/// The reason and message of the waiting state.
pub(crate) async fn ensure(context: &Context, container: &Container) -> Result<Arc<Image>, NotStarted> {
    let reference = container.image.clone().unwrap_or_default();
    let engine = &context.node.engine;
    let present = match engine.image(&reference).await {
        Ok(found) => found,
        Err(EngineError::Invalid(cause)) => return Err(invalid(context, container, &reference, &cause)),
        Err(error) => {
            let text = format!("Failed to inspect image \"{reference}\": {error}");
            context.event_of(&container.name, Severity::Warning, "InspectFailed", &text);
            return Err(refused(context, container, "ImageInspectError", text));
        }
    };
    match (policy(container, &reference), present) {
        (Policy::IfNotPresent | Policy::Never, Some(image)) => {
            let text =
                format!("Container image \"{reference}\" already present on machine and can be accessed by the pod");
            context.event_of(&container.name, Severity::Normal, "Pulled", &text);
            Ok(Arc::new(image))
        }
        (Policy::Never, None) => {
            let text = format!("Container image \"{reference}\" is not present with pull policy of Never");
            context.event_of(&container.name, Severity::Warning, "ErrImageNeverPull", &text);
            Err(refused(context, container, "ErrImageNeverPull", text))
        }
        (Policy::Always, _) | (Policy::IfNotPresent, None) => pull(context, container, &reference).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    IfNotPresent,
    Never,
}

fn policy(container: &Container, reference: &str) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ if is_latest(reference) => Policy::Always,
        _ => Policy::IfNotPresent,
    }
}

/// Whether a reference has the tag `latest`, or neither tag nor digest.
fn is_latest(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    !reference.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

async fn pull(context: &Context, container: &Container, reference: &str) -> Result<Arc<Image>, NotStarted> {
    let name = &container.name;
    context.event_of(name, Severity::Normal, "Pulling", &format!("Pulling image \"{reference}\""));
    let auth = auth(context, reference).await;
    let began = std::time::Instant::now();
    let pulled = tokio::select! {
        pulled = context.node.engine.pull(reference, auth) => pulled,
        () = context.cancel.cancelled() => return Err(NotStarted::Cancelled),
    };
    match pulled {
        Ok(image) => {
            let took = go_millis(began.elapsed());
            let size = image.size_bytes;
            let text = format!(
                "Successfully pulled image \"{reference}\" in {took} ({took} including waiting). Image size: {size} bytes."
            );
            context.event_of(name, Severity::Normal, "Pulled", &text);
            context.node.ledger.forget_images();
            context.node.look.notify_one();
            Ok(Arc::new(image))
        }
        Err(PullError::InvalidName(cause)) => Err(invalid(context, container, reference, &cause)),
        Err(error) => {
            context.event_of(
                name,
                Severity::Warning,
                "Failed",
                &format!("Failed to pull image \"{reference}\": {error}"),
            );
            Err(refused(context, container, "ErrImagePull", error.to_string()))
        }
    }
}

fn invalid(context: &Context, container: &Container, reference: &str, cause: &str) -> NotStarted {
    let cause = cause.rsplit("\": ").next().unwrap_or(cause);
    let text = format!(
        "Failed to apply default image tag \"{reference}\": couldn't parse image reference \"{reference}\": {cause}"
    );
    context.event_of(&container.name, Severity::Warning, "InspectFailed", &text);
    refused(context, container, "InvalidImageName", text)
}

fn refused(context: &Context, container: &Container, reason: &str, message: String) -> NotStarted {
    context.event_of(&container.name, Severity::Warning, "Failed", &format!("Error: {reason}"));
    NotStarted::Waiting { reason: reason.to_owned(), message }
}

/// The first credentials for the image's registry among the pod's pull secrets.
async fn auth(context: &Context, reference: &str) -> Option<RegistryAuth> {
    let (_, namespace, uid) = spec::identity(&context.pod);
    let names = spec::pod_spec(&context.pod).image_pull_secrets.clone().unwrap_or_default();
    for name in names {
        let reference_to = Reference { kind: Kind::Secret, namespace: namespace.to_owned(), name: name.name };
        let Some(data) = context.node.objects.get(&reference_to, uid, &context.inbox).await else { continue };
        let found = data.values().find_map(|bytes| credentials(bytes, reference));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Reads `.dockerconfigjson` (or the older form without `auths`).
fn credentials(config: &[u8], reference: &str) -> Option<RegistryAuth> {
    let config: Value = serde_json::from_slice(config).ok()?;
    let auths = config.get("auths").unwrap_or(&config).as_object()?;
    let registry = registry(reference);
    let entry = auths.iter().find(|(key, _)| host_of(key) == registry).map(|(_, entry)| entry)?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(RegistryAuth { username, password });
    }
    let quoted = Value::String(text("auth")?);
    let decoded: k8s_openapi::ByteString = serde_json::from_value(quoted).ok()?;
    let pair = String::from_utf8(decoded.0).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(RegistryAuth { username: username.to_owned(), password: password.to_owned() })
}

fn registry(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => canonical(host),
        _ => "docker.io".to_owned(),
    }
}

fn host_of(key: &str) -> String {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    canonical(bare.split('/').next().unwrap_or(bare))
}

fn canonical(host: &str) -> String {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        host => host.to_owned(),
    }
}

/// A duration cut to milliseconds as Go prints it: `12ms`, `1.234s`, `1m2.5s`.
fn go_millis(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, rest) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let seconds =
        if fraction.is_empty() { format!("{}s", rest / 1000) } else { format!("{}.{fraction}s", rest / 1000) };
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_as_go_does() {
        for (millis, text) in [(12, "12ms"), (1234, "1.234s"), (2000, "2s"), (62_500, "1m2.5s")] {
            assert_eq!(go_millis(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn latest_is_what_has_no_other_tag() {
        for (reference, expected) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1", false),
            ("h:5000/nginx", true),
            ("nginx@sha256:1", false),
        ] {
            assert_eq!(is_latest(reference), expected, "{reference}");
        }
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = br#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.example:5000": {"username": "a", "password": "b"}}}"#;
        let user = |reference| credentials(config, reference).map(|auth| (auth.username, auth.password));
        assert_eq!(user("nginx:1"), Some(("u".to_owned(), "p".to_owned())));
        assert_eq!(user("r.example:5000/x"), Some(("a".to_owned(), "b".to_owned())));
        assert_eq!(user("other.example/x"), None);
    }
}
