//! Defaults of pods and of the pod templates of every workload.

use serde_json::{Value, json};

use super::{made, with};
use crate::view::{Fill, View};

/// File mode of projected files: 0644.
const FILE_MODE: i64 = 0o644;
/// Life of a projected service account token, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// Time that a pod has to end, in seconds.
const GRACE_SECONDS: i64 = 30;

/// A pod: a template's defaults and what only a real pod gets.
pub(super) fn pod(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    for list in ["containers", "initContainers"] {
        spec.items_mut(list).iter_mut().for_each(requests_from_limits);
    }
    spec.fill_null("enableServiceLinks", true);
    if spec.flag("hostNetwork") == Some(true) {
        for list in ["containers", "initContainers"] {
            for port in spec.items_mut(list).iter_mut().flat_map(|c| c.items_mut("ports")) {
                let number = port.int("containerPort").unwrap_or(0);
                port.fill_zero("hostPort", number);
            }
        }
    }
    pod_spec(spec);
}

/// A pod template.
pub(super) fn template(template: &mut Value) {
    template.fill_null("metadata", json!({}));
    with(template, "metadata", |metadata| metadata.drop_key("creationTimestamp"));
    if let Some(spec) = made(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    spec.fill("dnsPolicy", "ClusterFirst");
    spec.fill("restartPolicy", "Always");
    spec.fill_null("securityContext", json!({}));
    spec.fill_null("terminationGracePeriodSeconds", GRACE_SECONDS);
    spec.fill("schedulerName", "default-scheduler");
    if !spec.text("serviceAccountName").is_empty() || !spec.text("serviceAccount").is_empty() {
        // The old name of the field mirrors the new one; the new one wins.
        let account = [spec.text("serviceAccountName"), spec.text("serviceAccount")];
        let account = account.into_iter().find(|a| !a.is_empty()).unwrap_or_default().to_owned();
        spec.put("serviceAccountName", account.clone());
        spec.put("serviceAccount", account);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        spec.items_mut(list).iter_mut().for_each(container);
    }
    spec.items_mut("volumes").iter_mut().for_each(volume);
}

fn container(container: &mut Value) {
    let image = container.text("image");
    if !image.is_empty() || container.has("image") {
        let policy = pull_policy(image);
        container.fill("imagePullPolicy", policy);
    } else {
        container.fill("imagePullPolicy", "IfNotPresent");
    }
    container.fill("terminationMessagePath", "/dev/termination-log");
    container.fill("terminationMessagePolicy", "File");
    container.fill_null("resources", json!({}));
    container.items_mut("ports").iter_mut().for_each(|port| port.fill("protocol", "TCP"));
    for env in container.items_mut("env") {
        with(env, "valueFrom.fieldRef", |field| field.fill("apiVersion", "v1"));
        with(env, "valueFrom.fileKeyRef", |file| file.fill_null("optional", false));
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        with(container, name, probe);
    }
    for path in ["lifecycle.postStart.httpGet", "lifecycle.preStop.httpGet"] {
        with(container, path, http_get);
    }
}

/// `Always` for the tag `latest` or none, else `IfNotPresent`.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        None if !digest => "Always",
        Some((_, "latest")) if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Value) {
    probe.fill_zero("timeoutSeconds", 1);
    probe.fill_zero("periodSeconds", 10);
    probe.fill_zero("successThreshold", 1);
    probe.fill_zero("failureThreshold", 3);
    with(probe, "httpGet", http_get);
    with(probe, "grpc", |grpc| grpc.fill_null("service", ""));
}

fn http_get(action: &mut Value) {
    action.fill("path", "/");
    action.fill("scheme", "HTTP");
}

/// A limit without a request is a request of the same size.
fn requests_from_limits(container: &mut Value) {
    let limits = container.entries("resources.limits").clone();
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = container.object("resources.requests") {
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

/// A volume without any source is an `emptyDir`.
fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|map| map.keys().all(|key| key == "name")) {
        volume.put("emptyDir", json!({}));
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        with(volume, kind, |source| source.fill_null("defaultMode", FILE_MODE));
    }
    with(volume, "hostPath", |source| source.fill_null("type", ""));
    with(volume, "iscsi", |source| source.fill("iscsiInterface", "default"));
    with(volume, "ephemeral.volumeClaimTemplate.spec", |spec| spec.fill_null("volumeMode", "Filesystem"));
    volume.items_mut("downwardAPI.items").iter_mut().for_each(downward_file);
    for source in volume.items_mut("projected.sources") {
        with(source, "serviceAccountToken", |token| token.fill_null("expirationSeconds", TOKEN_SECONDS));
        source.items_mut("downwardAPI.items").iter_mut().for_each(downward_file);
    }
    let image = volume.text("image.reference").to_owned();
    with(volume, "image", |source| source.fill("pullPolicy", pull_policy(&image)));
}

fn downward_file(item: &mut Value) {
    with(item, "fieldRef", |field| field.fill("apiVersion", "v1"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        let stories = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.21", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
        ];
        stories.iter().for_each(|(image, policy)| assert_eq!(pull_policy(image), *policy, "{image}"));
    }
}
