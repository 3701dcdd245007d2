//! Is this object well formed: upstream's rules with upstream's texts, one file per family of kinds.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/*/validation` and `k8s.io/apimachinery/pkg/api/validation`.

mod advice;
mod apps;
mod autoscaler;
mod batch;
mod container;
mod core;
mod diff;
mod job;
mod meta;
mod network;
mod placement;
mod pod;
mod quota;
mod rbac;
mod scaling;
mod selector;
mod service;
mod stateful_set;
mod storage;
mod volume;
mod wishes;

use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::{FieldErrors, Path};

pub(crate) use meta::Raw;
pub(crate) use selector::matches;

use crate::names::between;

/// Where errors and warnings of one object are gathered.
pub(crate) struct Judge<'a> {
    pub errors: &'a mut FieldErrors,
    pub warnings: &'a mut Vec<String>,
}

/// Judges a new object.
pub(crate) fn create(kind: &Kind, object: &Value, errors: &mut FieldErrors, warnings: &mut Vec<String>) {
    meta::create(kind, object, errors);
    meta::warn(object, warnings);
    let judge = &mut Judge { errors, warnings };
    body(kind, object, None, judge);
    advice::advise(kind, object, None, judge);
}

/// Judges a change.
pub(crate) fn update(
    kind: &Kind,
    new: &Value,
    old: &Value,
    sub: Option<Subresource>,
    errors: &mut FieldErrors,
    warnings: &mut Vec<String>,
) {
    meta::update(new, old, errors);
    let judge = &mut Judge { errors, warnings };
    match sub {
        None => {
            body(kind, new, Some(old), judge);
            advice::advise(kind, new, Some(old), judge);
        }
        Some(Subresource::Resize) => pod::resize(new, old, judge),
        Some(Subresource::EphemeralContainers) => pod::ephemeral(new, old, judge),
        Some(Subresource::Status) => status(kind, new, old, judge),
        Some(Subresource::Finalize) => core::namespace(new, judge),
        Some(_) => {}
    }
}

/// Everything below `metadata`.
fn body(kind: &Kind, object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::pod(object, old, judge),
        ("", "Service") => service::service(object, old, judge),
        ("", "PersistentVolumeClaim") => storage::claim(object, old, judge),
        ("", "PersistentVolume") => storage::volume(object, old, judge),
        ("", "ConfigMap") => core::config_map(object, old, judge),
        ("", "Secret") => core::secret(object, old, judge),
        ("", "Namespace") => core::namespace(object, judge),
        ("", "Node") => core::node(object, old, judge),
        ("", "Endpoints") => network::endpoints(object, judge),
        ("", "LimitRange") => core::limit_range(object, judge),
        ("", "ResourceQuota") => quota::quota(object, old, judge),
        ("", "ReplicationController") => apps::replication_controller(object, judge),
        ("apps", "StatefulSet") => stateful_set::stateful_set(object, old, judge),
        ("apps", "Deployment") => apps::deployment(object, old, judge),
        ("apps", "ReplicaSet") => apps::replica_set(object, old, judge),
        ("apps", "DaemonSet") => apps::daemon_set(object, old, judge),
        ("apps", "ControllerRevision") => apps::revision(object, old, judge),
        ("batch", "Job") => batch::job(object, old, judge),
        ("batch", "CronJob") => batch::cron_job(object, judge),
        ("policy", "PodDisruptionBudget") => scaling::budget(object, judge),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::autoscaler(object, judge),
        ("networking.k8s.io", "Ingress") => network::ingress(object, judge),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(object, judge),
        ("discovery.k8s.io", "EndpointSlice") => network::slice(object, old, judge),
        ("storage.k8s.io", "StorageClass") => storage::class(object, old, judge),
        ("coordination.k8s.io", "Lease") => core::lease(object, judge),
        ("scheduling.k8s.io", "PriorityClass") => core::priority_class(object, old, judge),
        ("rbac.authorization.k8s.io", _) => rbac::rbac(kind, object, old, judge),
        _ => {}
    }
}

fn status(kind: &Kind, new: &Value, old: &Value, judge: &mut Judge<'_>) {
    match (kind.group, kind.kind) {
        ("", "Pod") => pod::status(new, old, judge),
        ("apps", "StatefulSet") => stateful_set::status(new, old, judge),
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") => apps::status(new, judge),
        _ => {}
    }
}

/// `must be greater than or equal to 0` for a number that is there.
pub(crate) fn non_negative(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    if let Some(n) = value.as_i64().filter(|n| *n < 0) {
        judge.errors.invalid(path, &n, "must be greater than or equal to 0");
    }
}

/// A port's number.
pub(crate) fn port_number(value: i64, path: &Path, judge: &mut Judge<'_>) {
    if !(1..=65535).contains(&value) {
        judge.errors.invalid(path, &value, &between(1, 65535));
    }
}

/// One of some texts; empty is `Required value`.
pub(crate) fn one_of(value: &str, allowed: &[&str], path: &Path, judge: &mut Judge<'_>) {
    if value.is_empty() {
        judge.errors.required(path, "");
    } else if !allowed.contains(&value) {
        judge.errors.not_supported(path, &value, allowed);
    }
}

/// A number or a percentage, as Go's `intstr`.
pub(crate) enum IntOrPercent {
    Int(i64),
    Percent(i64),
    Text,
    Absent,
}

pub(crate) fn int_or_percent(value: &Value) -> IntOrPercent {
    match value {
        Value::Number(n) => n.as_i64().map_or(IntOrPercent::Absent, IntOrPercent::Int),
        Value::String(text) => text
            .strip_suffix('%')
            .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map_or(IntOrPercent::Text, IntOrPercent::Percent),
        _ => IntOrPercent::Absent,
    }
}

/// Neither negative nor a text without `%`.
pub(crate) fn positive_int_or_percent(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    match int_or_percent(value) {
        IntOrPercent::Int(n) if n < 0 => judge.errors.invalid(path, &n, "must be greater than or equal to 0"),
        IntOrPercent::Text => judge.errors.invalid(
            path,
            value,
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
        _ => {}
    }
}

/// `must not be greater than 100%`.
pub(crate) fn at_most_all(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    if matches!(int_or_percent(value), IntOrPercent::Percent(p) if p > 100) {
        judge.errors.invalid(path, value, "must not be greater than 100%");
    }
}
