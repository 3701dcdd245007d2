//! The values that absent fields get, one file per family of kinds.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/*/v1/defaults.go`. Defaulting is idempotent and looks at nothing but the object.

mod apps;
mod batch;
mod core;
mod pod;
mod service;
mod storage;

use serde_json::{Value, json};
use stead_api::Kind;

use crate::view::{Fill, View};

/// Fields of the spec that upstream fills only where it stores the object: nobody is noted as having made them.
#[must_use]
pub fn filled_late(kind: &Kind) -> &'static [&'static str] {
    match (kind.group, kind.kind) {
        ("", "Service") => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
        ("", "Namespace") => &["finalizers"],
        _ => &[],
    }
}

/// Fills the absent fields of an object of a known kind; other kinds stay as they are.
pub fn apply(kind: &Kind, object: &mut Value) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::pod(object),
        ("", "PodTemplate") => with(object, "template", pod::template),
        ("", "ReplicationController") => apps::replication_controller(object),
        ("", "Service") => service::service(object),
        ("", "PersistentVolumeClaim") => storage::claim(object),
        ("", "PersistentVolume") => storage::volume(object),
        ("storage.k8s.io", "StorageClass") => storage::class(object),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver(object),
        ("", "Secret") => core::secret(object),
        ("", "Namespace") => core::namespace(object),
        ("", "Endpoints") => core::endpoints(object),
        ("", "LimitRange") => core::limit_range(object),
        ("", "Node") => core::node(object),
        ("discovery.k8s.io", "EndpointSlice") => core::endpoint_slice(object),
        ("apps", "StatefulSet") => apps::stateful_set(object),
        ("apps", "Deployment") => apps::deployment(object),
        ("apps", "ReplicaSet") => apps::replica_set(object),
        ("apps", "DaemonSet") => apps::daemon_set(object),
        ("batch", "Job") => batch::job(object),
        ("batch", "CronJob") => batch::cron_job(object),
        ("autoscaling", "HorizontalPodAutoscaler") => batch::autoscaler(object),
        ("networking.k8s.io", "NetworkPolicy") => service::network_policy(object),
        ("networking.k8s.io", "IngressClass") => service::ingress_class(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => core::binding(object),
        ("scheduling.k8s.io", "PriorityClass") => object.fill("preemptionPolicy", "PreemptLowerPriority"),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => core::definition(object),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => core::webhooks(object, true),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => core::webhooks(object, false),
        _ => {}
    }
}

/// Applies a rule to the value at a path when it is there.
fn with(object: &mut Value, path: &str, rule: impl FnOnce(&mut Value)) {
    if let Some(value) = object.at_mut(path) {
        rule(value);
    }
}

/// The object at a path, made when it is absent.
fn made<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    object.object(key)?;
    object.at_mut(key)
}

/// `metadata.labels` of a workload are those of its template when it has none itself.
fn labels_from_template(object: &mut Value) {
    let labels = object.entries("spec.template.metadata.labels");
    if !labels.is_empty() && object.entries("metadata.labels").is_empty() {
        let labels = json!(labels);
        if let Some(metadata) = object.object("metadata") {
            metadata.insert("labels".to_owned(), labels);
        }
    }
}
