//! Even spread of pods over topology domains: what must hold (`DoNotSchedule`). What is only wished is in `score`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};

use super::{Cause, Refusal};
use crate::pick::{label, node_fits, selects, tolerates_node};
use crate::pod::PodInfo;
use crate::view::View;

/// The required constraints of a pod, each with the number of its pods in every domain.
#[derive(Debug, Default)]
pub(crate) struct Spread<'a> {
    constraints: Vec<Counted<'a>>,
}

#[derive(Debug)]
struct Counted<'a> {
    constraint: &'a TopologySpreadConstraint,
    /// Matching pods by value of the topology key; a domain without any is there with 0.
    domains: BTreeMap<&'a str, i64>,
    /// Whether the pod counts itself.
    own: i64,
}

impl<'a> Spread<'a> {
    pub(crate) fn required(view: &'a View, pod: &'a PodInfo) -> Self {
        let all: Vec<&TopologySpreadConstraint> = constraints(pod, "DoNotSchedule").collect();
        let constraints = all.iter().map(|constraint| count(view, pod, constraint, &all)).collect();
        Self { constraints }
    }

    pub(super) fn check(&self, _pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
        for Counted { constraint, domains, own } in &self.constraints {
            let Some(value) = label(node, &constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::helpless(Cause::PodTopologySpread, reason));
            };
            let few = i32::try_from(domains.len()).unwrap_or(i32::MAX) < constraint.min_domains.unwrap_or(1);
            let least = if few { 0 } else { domains.values().min().copied().unwrap_or(0) };
            let here = domains.get(value).copied().unwrap_or(0);
            if here + own - least > i64::from(constraint.max_skew) {
                let reason = "node(s) didn't match pod topology spread constraints";
                return Err(Refusal::new(Cause::PodTopologySpread, reason));
            }
        }
        Ok(())
    }
}

pub(crate) fn constraints<'a>(
    pod: &'a PodInfo,
    when: &'static str,
) -> impl Iterator<Item = &'a TopologySpreadConstraint> {
    let all = pod.spec().into_iter().flat_map(|spec| spec.topology_spread_constraints.iter().flatten());
    all.filter(move |constraint| constraint.when_unsatisfiable == when)
}

/// Whether a pod is one of those that a constraint of `pod` spreads.
pub(crate) fn is_spread(constraint: &TopologySpreadConstraint, pod: &PodInfo, other: &PodInfo) -> bool {
    let same = |key: &String| pod.labels().get(key).is_none_or(|value| other.labels().get(key) == Some(value));
    other.namespace() == pod.namespace()
        && !other.is_terminating()
        && selects(constraint.label_selector.as_ref(), other.labels())
        && constraint.match_label_keys.iter().flatten().all(same)
}

/// Whether the domains of a node count for a constraint.
pub(crate) fn counts(constraint: &TopologySpreadConstraint, pod: &PodInfo, node: &Node) -> bool {
    let honours = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
    (!honours(&constraint.node_affinity_policy, "Honor") || node_fits(&pod.pod, node))
        && (!honours(&constraint.node_taints_policy, "Ignore") || tolerates_node(&pod.pod, node))
}

fn count<'a>(
    view: &'a View,
    pod: &PodInfo,
    constraint: &'a TopologySpreadConstraint,
    all: &[&TopologySpreadConstraint],
) -> Counted<'a> {
    let mut domains: BTreeMap<&str, i64> = BTreeMap::new();
    for info in view.nodes() {
        let Some(node) = info.node.as_deref() else { continue };
        // Nodes that lack one of the keys are no domain of any constraint.
        let Some(value) = label(node, &constraint.topology_key) else { continue };
        if !all.iter().all(|other| label(node, &other.topology_key).is_some()) || !counts(constraint, pod, node) {
            continue;
        }
        let matching = info.pods.values().filter(|other| other.uid() != pod.uid() && is_spread(constraint, pod, other));
        *domains.entry(value).or_default() += i64::try_from(matching.count()).unwrap_or(i64::MAX);
    }
    let own = i64::from(selects(constraint.label_selector.as_ref(), pod.labels()));
    Counted { constraint, domains, own }
}
