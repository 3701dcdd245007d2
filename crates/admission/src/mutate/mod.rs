//! What the built-in admission plugins change or refuse, in upstream's order.

mod allocate;
mod escalation;
pub(crate) mod lifecycle;
mod limits;
mod node;
mod pod;
pub(crate) mod pod_security;
mod quota;
mod runtime_class;
mod storage;
mod workload;

pub use node::node_token;
pub use pod::waits_for_account;
pub(crate) use pod::{is_mirror, qos_class};
pub use quota::{counts as quota_counts, usage as quota_usage};

use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::ApiError;

use crate::context::Context;

/// Before validation of a create.
pub(crate) fn create(kind: &Kind, object: &mut Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    node::restrict_create(kind, object, ctx)?;
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            limits::pod(kind, object, ctx)?;
            pod::account(kind, object, ctx)?;
            pod::priority(kind, object, ctx)?;
            pod::tolerations(object);
            runtime_class::apply(kind, object, ctx)?;
            pod::status(object);
        }
        ("", "PersistentVolumeClaim") => {
            limits::claim(kind, object, ctx)?;
            storage::protect(object, "kubernetes.io/pvc-protection");
            storage::default_class(object, ctx);
        }
        ("", "PersistentVolume") => {
            storage::protect(object, "kubernetes.io/pv-protection");
            storage::phase_time(object, None, ctx);
        }
        ("", "Node") => node::not_ready(object),
        ("networking.k8s.io", "Ingress") => workload::default_ingress_class(object, ctx),
        ("batch", "Job") => workload::job_selector(object),
        ("apps", "DaemonSet") => workload::template_generation(object, None),
        ("", "Namespace") => workload::namespace_finalizer(object),
        ("scheduling.k8s.io", "PriorityClass") => pod::one_default(kind, object, ctx)?,
        _ => {}
    }
    Ok(())
}

/// Before validation of an update.
pub(crate) fn update(
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    sub: Option<Subresource>,
    ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    node::restrict_update(kind, new, old, sub, ctx)?;
    match (kind.group, kind.kind) {
        ("", "Pod") if sub.is_none() => pod::tolerations(new),
        ("", "Service") if sub.is_none() => allocate::patch(new, old),
        ("", "PersistentVolume") => storage::phase_time(new, Some(old), ctx),
        ("apps", "DaemonSet") if sub.is_none() => workload::template_generation(new, Some(old)),
        ("scheduling.k8s.io", "PriorityClass") => pod::one_default(kind, new, ctx)?,
        _ => {}
    }
    Ok(())
}

/// Before a delete.
pub(crate) fn delete(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    lifecycle::delete(kind, object, ctx)?;
    node::restrict_delete(kind, object, ctx)
}

/// After validation of a create: what is only done for an object that is otherwise fine.
pub(crate) fn after_create(kind: &Kind, object: &mut Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    escalation::check(kind, object, None, ctx)?;
    if (kind.group, kind.kind) == ("", "Pod") {
        pod_security::enforce(kind, object, ctx)?;
    }
    quota::check(kind, object, None, ctx)?;
    if (kind.group, kind.kind) == ("", "Service") {
        allocate::create(kind, object, ctx)?;
    }
    Ok(())
}

/// After validation of an update.
pub(crate) fn after_update(
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    sub: Option<Subresource>,
    ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    if sub.is_none() {
        escalation::check(kind, new, Some(old), ctx)?;
    }
    match (kind.group, kind.kind, sub) {
        ("", "Pod", Some(Subresource::EphemeralContainers)) => pod_security::enforce(kind, new, ctx),
        ("", "PersistentVolumeClaim", None) => {
            storage::resize(kind, new, old, ctx)?;
            quota::check(kind, new, Some(old), ctx)
        }
        ("", "Service", None) => {
            quota::check(kind, new, Some(old), ctx)?;
            allocate::update(kind, new, old, ctx)
        }
        _ => Ok(()),
    }
}
