//! What a node is: its name, labels, taints, and whether it takes pods at all.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Taint};

use super::{Cause, Refusal};
use crate::pick::{node_fits, node_name, required_affinity, tolerates, tolerates_node, tolerations};
use crate::pod::PodInfo;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(super) fn unschedulable(pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true) {
        return Ok(());
    }
    let taint = Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
    match tolerates(tolerations(&pod.pod), &taint) {
        true => Ok(()),
        false => Err(Refusal::helpless(Cause::NodeUnschedulable, "node(s) were unschedulable")),
    }
}

pub(crate) fn name(pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
    match pod.node().is_none_or(|name| name == node_name(node)) {
        true => Ok(()),
        false => Err(Refusal::helpless(Cause::NodeName, "node(s) didn't match the requested node name")),
    }
}

pub(super) fn taints(pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
    match tolerates_node(&pod.pod, node) {
        true => Ok(()),
        false => Err(Refusal::helpless(Cause::TaintToleration, "node(s) had untolerated taint(s)")),
    }
}

pub(crate) fn affinity(pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
    match node_fits(&pod.pod, node) {
        true => Ok(()),
        false => Err(Refusal::helpless(Cause::NodeAffinity, "node(s) didn't match Pod's node affinity/selector")),
    }
}

/// The nodes that the required affinity asks for by name, if every one of its terms does: daemons' pods.
///
/// # Errors
/// When no node can have the names.
pub(super) fn named(pod: &PodInfo) -> Result<Option<BTreeSet<&str>>, Refusal> {
    let Some(required) = required_affinity(&pod.pod) else { return Ok(None) };
    let mut all = BTreeSet::new();
    for term in &required.node_selector_terms {
        match names(term) {
            Some(names) => all.extend(names),
            None => return Ok(None),
        }
    }
    match all.is_empty() && !required.node_selector_terms.is_empty() {
        true => Err(Refusal::helpless(Cause::NodeAffinity, "pod affinity terms conflict")),
        false => Ok(Some(all).filter(|all| !all.is_empty())),
    }
}

/// The names that fit all fields of a term; `None` when it does not ask for names.
fn names(term: &NodeSelectorTerm) -> Option<BTreeSet<&str>> {
    let fields = term.match_fields.iter().flatten();
    let asked = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    let sets = asked.map(|field| field.values.iter().flatten().map(String::as_str).collect::<BTreeSet<_>>());
    sets.reduce(|a, b| a.intersection(&b).copied().collect())
}
