//! On which nodes a pod of a DaemonSet belongs.
//!
//! Source: `NodeShouldRunDaemonPod` in `pkg/controller/daemon`, and `k8s.io/component-helpers/scheduling`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint,
    Toleration,
};

use crate::taints::tolerates;

/// What a node means to a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// A pod should be made there if there is none.
    pub run: bool,
    /// A pod that is there may stay.
    pub stay: bool,
}

/// Whether a pod of that spec belongs on `node`.
#[must_use]
pub fn fit(spec: &PodSpec, node: &Node) -> Fit {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let pinned = spec.node_name.as_deref().filter(|pinned| !pinned.is_empty());
    if pinned.is_some_and(|pinned| pinned != name) || !is_selected(spec, node) {
        return Fit { run: false, stay: false };
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let mut fit = Fit { run: true, stay: true };
    for taint in taints.filter(|taint| !is_tolerated(spec.tolerations.as_deref().unwrap_or_default(), taint)) {
        fit.run &= taint.effect == "PreferNoSchedule";
        fit.stay &= taint.effect != "NoExecute";
    }
    fit
}

/// `nodeSelector` and the required node affinity.
fn is_selected(spec: &PodSpec, node: &Node) -> bool {
    let none = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&none);
    let plain = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    plain && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| is_met(term, node, labels)))
}

/// A term without conditions meets nothing.
fn is_met(term: &NodeSelectorTerm, node: &Node, labels: &BTreeMap<String, String>) -> bool {
    let name = node.metadata.name.as_deref();
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let empty = expressions.is_empty() && fields.is_empty();
    !empty
        && expressions.iter().all(|one| holds(one, labels.get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| holds(one, name.filter(|_| one.key == "metadata.name")))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let pair = number(value).zip(number(values.first().map(String::as_str)));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => pair.is_some_and(|(have, want)| have > want),
        "Lt" => pair.is_some_and(|(have, want)| have < want),
        _ => false,
    }
}

fn is_tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Lets a pod be scheduled to that node only, and keeps the rest of its affinity.
pub(super) fn pin(spec: &mut PodSpec, node: &str) {
    let affinity = spec.affinity.get_or_insert_with(Affinity::default);
    let on_node = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    on_node.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![name]) }],
    });
}

/// The node that a pod is on, or is meant for by [`pin`].
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    named.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

/// What every daemon bears: the node being unready, under pressure or closed for scheduling.
pub(super) fn tolerate(spec: &mut PodSpec) {
    let mut all = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        all.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in all {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            effect: Some(effect.to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fits(spec: Value, node: Value) -> (bool, bool) {
        let mut spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        tolerate(&mut spec);
        let fit = fit(&spec, &serde_json::from_value(node).expect("a node"));
        (fit.run, fit.stay)
    }

    fn node(taint: Option<(&str, &str)>) -> Value {
        let taints: Vec<_> = taint.iter().map(|(key, effect)| json!({"key": key, "effect": effect})).collect();
        json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}}, "spec": {"taints": taints}})
    }

    #[test]
    fn taints_keep_pods_off_and_no_execute_drives_them_away() {
        let plain = || json!({"containers": []});
        assert_eq!(fits(plain(), node(None)), (true, true));
        assert_eq!(fits(plain(), node(Some(("role", "NoSchedule")))), (false, true));
        assert_eq!(fits(plain(), node(Some(("role", "NoExecute")))), (false, false));
        assert_eq!(fits(plain(), node(Some(("role", "PreferNoSchedule")))), (true, true));
        assert_eq!(fits(plain(), node(Some(("node.kubernetes.io/not-ready", "NoExecute")))), (true, true));
        assert_eq!(fits(plain(), node(Some(("node.kubernetes.io/unschedulable", "NoSchedule")))), (true, true));
        let everything = json!({"containers": [], "tolerations": [{"operator": "Exists"}]});
        assert_eq!(fits(everything, node(Some(("role", "NoExecute")))), (true, true));
    }

    #[test]
    fn selectors_and_affinity_choose_nodes() {
        let selector = |labels: Value| json!({"containers": [], "nodeSelector": labels});
        assert_eq!(fits(selector(json!({"disk": "ssd"})), node(None)), (true, true));
        assert_eq!(fits(selector(json!({"disk": "hdd"})), node(None)), (false, false));
        let affinity = |terms: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            }}})
        };
        let more_than =
            |cores: &str| json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": [cores]}]}]);
        assert_eq!(fits(affinity(more_than("4")), node(None)), (true, true));
        assert_eq!(fits(affinity(more_than("8")), node(None)), (false, false));
        assert_eq!(fits(affinity(json!([{}])), node(None)), (false, false), "an empty term meets nothing");
        assert_eq!(fits(json!({"containers": [], "nodeName": "n2"}), node(None)), (false, false));
    }

    #[test]
    fn a_pinned_pod_names_its_node() {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        assert_eq!(target(&pod), None);
        pin(pod.spec.as_mut().expect("spec"), "n1");
        assert_eq!(target(&pod), Some("n1"));
    }
}
