//! The node authoriser: a node may read what its own pods need, and nothing else of that kind.
//!
//! Which pods those are and what they refer to, the API server keeps as a [`Graph`](super::Graph), by events.

use serde_json::Value;

use super::{Attributes, Decision, Resource, Target, bootstrap, rbac};
use crate::context::Lookup;
use crate::view::View;

const PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";

/// What a pod refers to by name, in its own namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Referent {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
}

/// The name of the node that a user is, if any.
#[must_use]
pub fn node_of<'a>(user: &'a str, groups: &[String]) -> Option<&'a str> {
    groups.iter().any(|group| group == GROUP).then(|| user.strip_prefix(PREFIX))?
}

/// Decides for a node; `None` when the caller is none.
pub(super) fn authorize(attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Option<Decision> {
    let node = node_of(attributes.user, attributes.groups)?;
    let Target::Resource(resource) = attributes.target else {
        return Some(Decision::NoOpinion(String::new()));
    };
    let verb = attributes.verb;
    let reads = matches!(verb, "get" | "list" | "watch");
    let needs = |what| !resource.name.is_empty() && lookup.node_needs(node, resource.namespace, what, resource.name);
    let related = match (resource.group, resource.resource, resource.subresource) {
        ("", "secrets", "") if reads => {
            needs(Referent::Secret) || (verb == "get" && opens_volume(&resource, node, lookup))
        }
        ("", "configmaps", "") if reads => needs(Referent::ConfigMap),
        ("", "persistentvolumeclaims", "") if verb == "get" => needs(Referent::Claim),
        ("", "persistentvolumeclaims", "status") if matches!(verb, "get" | "patch" | "update") => {
            needs(Referent::Claim)
        }
        ("", "persistentvolumes", "") if verb == "get" => holds_volume(resource.name, node, lookup),
        ("", "serviceaccounts", "token") if verb == "create" => needs(Referent::ServiceAccount),
        ("", "nodes", "") if reads => {
            return Some(decided(resource.name == node, || {
                format!("node '{node}' cannot read '{}', only its own Node object", resource.name)
            }));
        }
        ("", "pods", "") if verb == "get" => {
            let pod = lookup.get("", "pods", resource.namespace, resource.name);
            pod.is_some_and(|pod| pod.text("spec.nodeName") == node)
        }
        ("", "pods", "") if reads => {
            return Some(decided(selects_own_pods(&resource, node), || {
                "can only list/watch pods with spec.nodeName field selector".to_owned()
            }));
        }
        ("coordination.k8s.io", "leases", _) => resource.namespace == LEASES && own_name(&resource, node, verb),
        ("storage.k8s.io", "csinodes", _) => own_name(&resource, node, verb),
        ("storage.k8s.io", "volumeattachments", "") => verb == "get",
        _ => {
            let allowed = bootstrap::node_rules().iter().any(|rule| rbac::covers(rule, attributes));
            return Some(decided(allowed, String::new));
        }
    };
    Some(decided(related, || format!("no relationship found between node '{node}' and this object")))
}

fn decided(allowed: bool, why_not: impl FnOnce() -> String) -> Decision {
    if allowed { Decision::Allow(String::new()) } else { Decision::NoOpinion(why_not()) }
}

/// The object is named like the node; a create has no name yet and is judged by admission.
fn own_name(resource: &Resource<'_>, node: &str, verb: &str) -> bool {
    resource.name == node || (verb == "create" && resource.name.is_empty())
}

/// The request asks for no other pods than those of the node.
fn selects_own_pods(resource: &Resource<'_>, node: &str) -> bool {
    resource.selector.split(',').any(|part| {
        let value = part.strip_prefix("spec.nodeName=").map(|value| value.strip_prefix('=').unwrap_or(value));
        value == Some(node)
    })
}

/// Whether a pod of the node uses the claim that the volume is bound to.
fn holds_volume(name: &str, node: &str, lookup: &dyn Lookup) -> bool {
    lookup.get("", "persistentvolumes", "", name).is_some_and(|volume| {
        let (namespace, claim) = (volume.text("spec.claimRef.namespace"), volume.text("spec.claimRef.name"));
        !claim.is_empty() && lookup.node_needs(node, namespace, Referent::Claim, claim)
    })
}

/// Whether a storage driver on the node has to be given the secret for a volume of one of the node's pods.
fn opens_volume(secret: &Resource<'_>, node: &str, lookup: &dyn Lookup) -> bool {
    const CALLS: [&str; 3] = ["nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    let named = |volume: &Value| {
        CALLS.iter().any(|call| {
            volume.text(&format!("spec.csi.{call}.name")) == secret.name
                && volume.text(&format!("spec.csi.{call}.namespace")) == secret.namespace
        })
    };
    let volumes = lookup.list("", "persistentvolumes", None);
    !secret.name.is_empty()
        && volumes.iter().any(|volume| named(volume) && holds_volume(volume.text("metadata.name"), node, lookup))
}

/// Looks through all pods of a namespace: [`Lookup::node_needs`] without a graph.
pub(crate) fn needs(node: &str, namespace: &str, what: Referent, name: &str, lookup: &(impl Lookup + ?Sized)) -> bool {
    let pods = lookup.list("", "pods", Some(namespace));
    let own = pods.iter().filter(|pod| pod.text("spec.nodeName") == node);
    own.flat_map(|pod| references(pod)).any(|reference| reference == (what, name.to_owned()))
}

/// What a pod refers to. Mirror pods, which nodes make themselves, give no rights.
#[must_use]
pub fn references(pod: &Value) -> Vec<(Referent, String)> {
    if crate::mutate::is_mirror(pod) {
        return Vec::new();
    }
    let secrets = secrets(pod).map(|name| (Referent::Secret, name.to_owned()));
    let maps = config_maps(pod).map(|name| (Referent::ConfigMap, name.to_owned()));
    let claims = claims(pod).map(|name| (Referent::Claim, name));
    let account = pod.text("spec.serviceAccountName");
    let account = (!account.is_empty()).then(|| (Referent::ServiceAccount, account.to_owned()));
    let mut all: Vec<_> = secrets.chain(maps).chain(claims).chain(account).collect();
    all.sort_unstable();
    all.dedup();
    all
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

/// Claims by name, and those that are made for the pod.
fn claims(pod: &Value) -> impl Iterator<Item = String> {
    pod.items("spec.volumes").iter().filter_map(|volume| {
        if volume.has("ephemeral") {
            return Some(format!("{}-{}", pod.text("metadata.name"), volume.text("name")));
        }
        Some(volume.text("persistentVolumeClaim.claimName").to_owned()).filter(|name| !name.is_empty())
    })
}
