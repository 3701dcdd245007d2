//! What a node may touch (`NodeRestriction`), and the taint of a node that was just registered.

use serde_json::{Value, json};
use stead_api::{Kind, Subresource};
use stead_machinery::ApiError;

use super::pod::{is_mirror, push};
use crate::authz::node_of;
use crate::context::{Context, Lookup};
use crate::view::{Fill, View, same};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Labels under these domains that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The node that the caller is, if any.
fn caller<'a>(ctx: &Context<'a>) -> Option<&'a str> {
    node_of(ctx.user, ctx.groups)
}

/// `TaintNodesByCondition`: nothing is placed on a new node before it was seen ready.
pub(super) fn not_ready(node: &mut Value) {
    if !node.items("spec.taints").iter().any(|t| t.text("key") == NOT_READY && t.text("effect") == "NoSchedule")
        && node.object("spec").is_some()
        && let Some(spec) = node.at_mut("spec")
    {
        push(spec, "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

pub(super) fn restrict_create(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let Some(node) = caller(ctx) else { return Ok(()) };
    let name = object.text("metadata.name");
    let refuse = |why: String| Err(ApiError::forbidden(kind, name, &why));
    match (kind.group, kind.kind) {
        ("", "Pod") if !is_mirror(object) => refuse(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        )),
        ("", "Pod") if object.text("spec.nodeName") != node => {
            refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        }
        ("", "Node") if name != node => refuse(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "Node") => labels(kind, object, &Value::Null, node),
        ("coordination.k8s.io", "Lease") => lease(kind, object, node),
        ("storage.k8s.io", "CSINode") if name != node => {
            refuse("can only access CSINode with the same name as the requesting node".to_string())
        }
        _ => Ok(()),
    }
}

pub(super) fn restrict_update(
    kind: &Kind,
    new: &Value,
    old: &Value,
    sub: Option<Subresource>,
    ctx: &Context<'_>,
) -> Result<(), ApiError> {
    let Some(node) = caller(ctx) else { return Ok(()) };
    let name = new.text("metadata.name");
    let refuse = |why: String| Err(ApiError::forbidden(kind, name, &why));
    match (kind.group, kind.kind) {
        ("", "Pod") if sub != Some(Subresource::Status) => {
            refuse(format!("unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"))
        }
        ("", "Pod") if old.text("spec.nodeName") != node => {
            refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"))
        }
        ("", "Pod") if !same(new.at("metadata.labels"), old.at("metadata.labels")) => {
            refuse(format!("node {node:?} cannot update labels through pod status"))
        }
        ("", "Node") if name != node => refuse(format!("node {node:?} is not allowed to modify node {name:?}")),
        ("", "Node") if !same(new.at("spec.taints"), old.at("spec.taints")) => {
            refuse(format!("node {node:?} is not allowed to modify taints"))
        }
        ("", "Node") => labels(kind, new, old, node),
        ("coordination.k8s.io", "Lease") => lease(kind, new, node),
        _ => Ok(()),
    }
}

pub(super) fn restrict_delete(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let Some(node) = caller(ctx) else { return Ok(()) };
    if (kind.group, kind.kind) == ("", "Pod") && object.text("spec.nodeName") != node {
        let why = format!("node {node:?} can only delete pods with spec.nodeName set to itself");
        return Err(ApiError::forbidden(kind, object.text("metadata.name"), &why));
    }
    Ok(())
}

/// Whether the caller, if it is a node, may have a token of the account: only for a pod of its own. `reference` is the
/// request's `spec.boundObjectRef`.
///
/// # Errors
/// Forbidden (403) in upstream's words; `kind` and `account` are what it speaks of.
pub fn node_token(
    (user, groups): (&str, &[String]),
    (kind, namespace, account): (&Kind, &str, &str),
    reference: &Value,
    lookup: &dyn Lookup,
) -> Result<(), ApiError> {
    let Some(node) = node_of(user, groups) else { return Ok(()) };
    let refuse = |why: &str| Err(ApiError::forbidden(kind, account, why));
    let name = reference.text("name");
    if reference.text("kind") != "Pod" || reference.text("apiVersion") != "v1" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if reference.text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    match lookup.get("", "pods", namespace, name) {
        // A pod that is not there is refused where the token is bound.
        Some(pod) if pod.text("spec.nodeName") != node => {
            refuse("node requested token bound to a pod scheduled on a different node")
        }
        _ => Ok(()),
    }
}

fn lease(kind: &Kind, object: &Value, node: &str) -> Result<(), ApiError> {
    let (namespace, name) = (object.text("metadata.namespace"), object.text("metadata.name"));
    if namespace != "kube-node-lease" {
        let why = "can only access leases in the \"kube-node-lease\" system namespace";
        return Err(ApiError::forbidden(kind, name, why));
    }
    if name != node {
        return Err(ApiError::forbidden(
            kind,
            name,
            "can only access node lease with the same name as the requesting node",
        ));
    }
    Ok(())
}

/// A node may not give itself labels by which others decide what to trust it with.
fn labels(kind: &Kind, new: &Value, old: &Value, node: &str) -> Result<(), ApiError> {
    let before = old.entries("metadata.labels");
    let mut bad: Vec<&str> = new
        .entries("metadata.labels")
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, _)| key.as_str())
        .filter(|key| !may_set(key))
        .collect();
    bad.sort_unstable();
    if bad.is_empty() {
        return Ok(());
    }
    let why = format!("is not allowed to modify labels: {}", bad.join(", "));
    Err(ApiError::forbidden(kind, new.text("metadata.name"), &format!("node {node:?} {why}")))
}

fn may_set(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return true };
    let under = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if under("node-restriction.kubernetes.io") {
        return false;
    }
    if !under("kubernetes.io") && !under("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io")
}
