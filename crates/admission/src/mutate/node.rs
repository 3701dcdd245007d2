//! What a node may touch (`NodeRestriction`), and the taint of a node that was just registered.

use serde_json::{Value, json};
use stead_api::{Kind, Subresource};
use stead_machinery::ApiError;

use super::pod::{is_mirror, push};
use crate::authz::{self, Attributes, Resource, Target, node_of};
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
        ("", "PersistentVolumeClaim") => claim_status(kind, new, old, node),
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

/// Whether the caller, if it is a node, may have a token of the account: only for a pod of its own, and for somebody whom
/// that pod's volumes name (or RBAC, by the verb `request-serviceaccounts-token-audience`). `spec` is the TokenRequest's.
///
/// # Errors
/// Forbidden (403) in upstream's words; `kind` and `account` are what it speaks of.
pub fn node_token(
    (user, groups): (&str, &[String]),
    (kind, namespace, account): (&Kind, &str, &str),
    spec: &Value,
    lookup: &dyn Lookup,
) -> Result<(), ApiError> {
    let Some(node) = node_of(user, groups) else { return Ok(()) };
    let refuse = |why: &str| Err(ApiError::forbidden(kind, account, why));
    let reference = spec.at("boundObjectRef");
    let name = reference.text("name");
    if reference.text("kind") != "Pod" || reference.text("apiVersion") != "v1" || name.is_empty() {
        return refuse("node requested token not bound to a pod");
    }
    if reference.text("uid").is_empty() {
        return refuse("node requested token with a pod binding without a uid");
    }
    // A pod that is not there is refused where the token is bound.
    let Some(pod) = lookup.get("", "pods", namespace, name) else { return Ok(()) };
    if pod.text("spec.nodeName") != node {
        return refuse("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match spec.items("audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or(""),
        _ => return refuse("node may only request 0 or 1 audiences"),
    };
    let sources = pod.items("spec.volumes").iter().flat_map(|volume| volume.items("projected.sources"));
    let mut named = sources.filter(|s| s.has("serviceAccountToken")).map(|s| s.text("serviceAccountToken.audience"));
    if named.any(|name| name == audience) || may_ask_for(audience, (user, groups), (namespace, account), lookup) {
        return Ok(());
    }
    refuse(&format!("audience {audience:?} not found in pod spec volume"))
}

fn may_ask_for(
    audience: &str,
    (user, groups): (&str, &[String]),
    (namespace, name): (&str, &str),
    lookup: &dyn Lookup,
) -> bool {
    let target = Target::Resource(Resource { resource: audience, namespace, name, ..Resource::default() });
    let question = Attributes { user, groups, verb: "request-serviceaccounts-token-audience", target };
    !audience.is_empty() && authz::authorize(&question, lookup).allowed()
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

/// A node may not give itself labels by which others decide what to trust it with. `old` is null on creation.
fn labels(kind: &Kind, new: &Value, old: &Value, node: &str) -> Result<(), ApiError> {
    let (before, after) = (old.entries("metadata.labels"), new.entries("metadata.labels"));
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, _)| key.as_str());
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(String::as_str);
    let mut bad: Vec<&str> = set.chain(removed).filter(|key| !may_set(key)).collect();
    bad.sort_unstable();
    if bad.is_empty() {
        return Ok(());
    }
    let bad = bad.join(", ");
    let why = if old.is_null() {
        format!("node {node:?} is not allowed to set the following labels: {bad}")
    } else {
        format!("is not allowed to modify labels: {bad}")
    };
    Err(ApiError::forbidden(kind, new.text("metadata.name"), &why))
}

/// Of a claim a node says how large it has become, and nothing else.
fn claim_status(kind: &Kind, new: &Value, old: &Value, node: &str) -> Result<(), ApiError> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim.at_mut("metadata") {
            metadata.drop_key("resourceVersion");
            metadata.drop_key("managedFields");
        }
        if let Some(status) = claim.at_mut("status") {
            for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.drop_key(key);
            }
        }
        claim
    };
    if same(&rest(new), &rest(old)) {
        return Ok(());
    }
    let why = format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions");
    Err(ApiError::forbidden(kind, new.text("metadata.name"), &why))
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
