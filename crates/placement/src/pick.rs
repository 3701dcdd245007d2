//! Selectors of labels and of nodes, tolerations of taints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub(crate) type Labels = BTreeMap<String, String>;

/// Whether labels satisfy a selector. No selector matches nothing; an empty one everything; an unknown operator nothing.
pub(crate) fn selects(selector: Option<&LabelSelector>, labels: &Labels) -> bool {
    let Some(selector) = selector else { return false };
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let mut terms = selector.match_expressions.iter().flatten();
    equal && terms.all(|term| fits(&term.operator, labels.get(&term.key), term.values.as_deref().unwrap_or_default()))
}

fn fits(operator: &str, value: Option<&String>, values: &[String]) -> bool {
    let listed = || value.is_some_and(|value| values.contains(value));
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |than: fn(&i64, &i64) -> bool| {
        value.and_then(number).zip(values.first().and_then(number)).is_some_and(|(got, want)| than(&got, &want))
    };
    match operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

pub(crate) fn node_name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

/// The value of a label of a node.
pub(crate) fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Whether one of the terms fits the node.
pub(crate) fn node_selected(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term(term, node))
}

/// Whether all of a term fits the node; an empty term fits none.
pub(crate) fn node_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let name = node.metadata.name.as_ref();
    let expression = |requirement: &NodeSelectorRequirement, value: Option<&String>| {
        fits(&requirement.operator, value, requirement.values.as_deref().unwrap_or_default())
    };
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| expression(r, labels.and_then(|labels| labels.get(&r.key))))
        && fields.iter().all(|r| r.key == "metadata.name" && expression(r, name))
}

/// The required node affinity of a pod.
pub(crate) fn required_affinity(pod: &Pod) -> Option<&NodeSelector> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Whether the node has what the pod's node selector and required node affinity ask for.
pub(crate) fn node_fits(pod: &Pod, node: &Node) -> bool {
    let selector = pod.spec.iter().flat_map(|spec| spec.node_selector.iter().flatten());
    let mut selector = selector;
    selector.all(|(key, value)| label(node, key) == Some(value))
        && required_affinity(pod).is_none_or(|required| node_selected(required, node))
}

pub(crate) fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

pub(crate) fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let value = toleration.value.as_deref().unwrap_or_default();
        let have = taint.value.as_deref().unwrap_or_default();
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |than: fn(&i64, &i64) -> bool| {
            number(have).zip(number(value)).is_some_and(|(have, want)| than(&have, &want))
        };
        let by_value = match toleration.operator.as_deref().unwrap_or("Equal") {
            "" | "Equal" => value == have,
            "Exists" => true,
            // The taint's value compared with the toleration's.
            "Gt" => compare(i64::gt),
            "Lt" => compare(i64::lt),
            _ => false,
        };
        (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && by_value
    })
}

/// A taint that keeps new pods away.
pub(crate) fn repels(taint: &Taint) -> bool {
    taint.effect == "NoSchedule" || taint.effect == "NoExecute"
}

/// Whether the pod may run beside all taints of the node.
pub(crate) fn tolerates_node(pod: &Pod, node: &Node) -> bool {
    taints(node).filter(|taint| repels(taint)).all(|taint| tolerates(tolerations(pod), taint))
}
