//! The node authoriser: a node may read what its own pods need, and nothing else of that kind.

use serde_json::Value;

use super::{Attributes, Decision, Resource, Target, bootstrap, rbac};
use crate::context::Lookup;
use crate::view::View;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// Decides for a node; `None` when the caller is none.
pub(super) fn authorize(attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Option<Decision> {
    let node = attributes.user.strip_prefix(PREFIX)?;
    if !attributes.groups.iter().any(|group| group == GROUP) {
        return None;
    }
    let Target::Resource(resource) = attributes.target else {
        return Some(Decision::NoOpinion(String::new()));
    };
    let reads = matches!(attributes.verb, "get" | "list" | "watch");
    let related = match (resource.group, resource.resource, resource.subresource) {
        ("", "secrets" | "configmaps", "") if reads => mentioned(&resource, node, lookup),
        ("", "persistentvolumeclaims", "" | "status") if attributes.verb != "create" => {
            mentioned(&resource, node, lookup)
        }
        ("", "persistentvolumes", "") if attributes.verb == "get" => holds_volume(resource.name, node, lookup),
        ("", "serviceaccounts", "token") if attributes.verb == "create" => runs_as(&resource, node, lookup),
        ("coordination.k8s.io", "leases", _) => {
            resource.namespace == "kube-node-lease" && own_name(&resource, node, attributes.verb)
        }
        ("storage.k8s.io", "csinodes", _) => own_name(&resource, node, attributes.verb),
        ("storage.k8s.io", "volumeattachments", "") => attributes.verb == "get",
        _ => {
            let allowed = bootstrap::node_rules().iter().any(|rule| rbac::covers(rule, attributes));
            return Some(if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) });
        }
    };
    Some(if related {
        Decision::Allow(String::new())
    } else {
        Decision::NoOpinion(format!("no relationship found between node '{node}' and this object"))
    })
}

/// The object is named like the node; a create has no name yet and is judged by admission.
fn own_name(resource: &Resource<'_>, node: &str, verb: &str) -> bool {
    resource.name == node || (verb == "create" && resource.name.is_empty())
}

fn pods_of(node: &str, namespace: &str, lookup: &dyn Lookup) -> impl Iterator<Item = std::sync::Arc<Value>> {
    let node = node.to_owned();
    let namespace = (!namespace.is_empty()).then_some(namespace);
    lookup.list("", "pods", namespace).into_iter().filter(move |pod| pod.text("spec.nodeName") == node)
}

/// Whether a pod of the node mentions the object.
fn mentioned(resource: &Resource<'_>, node: &str, lookup: &dyn Lookup) -> bool {
    if resource.name.is_empty() || resource.namespace.is_empty() {
        return false;
    }
    pods_of(node, resource.namespace, lookup).any(|pod| match resource.resource {
        "secrets" => secrets(&pod).any(|name| name == resource.name),
        "configmaps" => config_maps(&pod).any(|name| name == resource.name),
        _ => claims(&pod).any(|name| name == resource.name),
    })
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|list| pod.at("spec").items(list))
}

/// Values at paths below every container's environment and every volume, and below sources of projected volumes.
fn names<'a>(
    pod: &'a Value,
    env: [&'static str; 2],
    volume: &'static [&'static str],
    part: &'static str,
) -> impl Iterator<Item = &'a str> {
    let from_env = containers(pod).flat_map(move |c| {
        let one = c.items("env").iter().map(move |e| e.text(env[0]));
        one.chain(c.items("envFrom").iter().map(move |e| e.text(env[1])))
    });
    let volumes = pod.items("spec.volumes");
    let from_volumes = volumes.iter().flat_map(move |v| volume.iter().map(move |path| v.text(path)));
    let projected = volumes.iter().flat_map(move |v| v.items("projected.sources").iter().map(move |s| s.text(part)));
    from_env.chain(from_volumes).chain(projected).filter(|name| !name.is_empty())
}

fn secrets(pod: &Value) -> impl Iterator<Item = &str> {
    const VOLUME: &[&str] = &["secret.secretName", "csi.nodePublishSecretRef.name"];
    let pull = pod.items("spec.imagePullSecrets").iter().map(|secret| secret.text("name"));
    names(pod, ["valueFrom.secretKeyRef.name", "secretRef.name"], VOLUME, "secret.name").chain(pull)
}

fn config_maps(pod: &Value) -> impl Iterator<Item = &str> {
    names(pod, ["valueFrom.configMapKeyRef.name", "configMapRef.name"], &["configMap.name"], "configMap.name")
}

fn claims(pod: &Value) -> impl Iterator<Item = &str> {
    pod.items("spec.volumes").iter().map(|v| v.text("persistentVolumeClaim.claimName")).filter(|name| !name.is_empty())
}

/// Whether a pod of the node uses a claim that is bound to the volume, or the volume is tied to the node by affinity
/// (then the node may have to clean it up after its claim is gone).
fn holds_volume(name: &str, node: &str, lookup: &dyn Lookup) -> bool {
    let used = pods_of(node, "", lookup).any(|pod| {
        claims(&pod).any(|claim| {
            lookup
                .get("", "persistentvolumeclaims", pod.text("metadata.namespace"), claim)
                .is_some_and(|claim| claim.text("spec.volumeName") == name)
        })
    });
    used || lookup.get("", "persistentvolumes", "", name).is_some_and(|volume| tied(&volume, node))
}

fn tied(volume: &Value, node: &str) -> bool {
    volume.items("spec.nodeAffinity.required.nodeSelectorTerms").iter().any(|term| {
        term.items("matchExpressions").iter().any(|expression| {
            expression.text("key") == "kubernetes.io/hostname"
                && expression.items("values").iter().any(|value| value.as_str() == Some(node))
        })
    })
}

fn runs_as(resource: &Resource<'_>, node: &str, lookup: &dyn Lookup) -> bool {
    pods_of(node, resource.namespace, lookup).any(|pod| pod.text("spec.serviceAccountName") == resource.name)
}
