//! Preemption: which less important pods to evict, from which node, so that a pod fits. A plan only.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filter::{Cycle, Refusal};
use crate::pick::selects;
use crate::place::not_available;
use crate::pod::PodInfo;
use crate::view::{NodeInfo, View};

/// At least this many nodes are tried; more only while they are a tenth of all.
const CANDIDATES_MIN: usize = 100;

/// Evict these, and the pod fits there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub node: String,
    /// `namespace/name` and uid, most important first.
    pub victims: Vec<(String, String)>,
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    /// Victims whose disruption budget does not allow it.
    violations: usize,
}

/// The best preemption, or what upstream says when there is none.
pub(crate) fn preempt(pod: &PodInfo, view: &View, refused: &BTreeMap<String, Refusal>) -> (String, Option<Preemption>) {
    if pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return ("not eligible due to preemptionPolicy=Never.".to_owned(), None);
    }
    if awaits_victims(pod, view) {
        return ("not eligible due to terminating pod on the nominated node.".to_owned(), None);
    }
    let mut reasons: Vec<String> = Vec::new();
    let mut candidates = Vec::new();
    let enough = CANDIDATES_MIN.max(refused.len() / 10);
    for (node, refusal) in refused {
        if refusal.helpless {
            reasons.push("Preemption is not helpful for scheduling".to_owned());
        } else if candidates.len() < enough {
            match candidate(pod, view, node) {
                Ok(candidate) => candidates.push(candidate),
                Err(why) => reasons.extend(why),
            }
        }
    }
    let said = not_available(refused.len(), reasons.iter().map(String::as_str));
    (said, candidates.into_iter().min_by_key(cost).map(plan))
}

/// The pod's victims are on their way out already.
fn awaits_victims(pod: &PodInfo, view: &View) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let node = nominated.and_then(|name| view.node(name));
    node.is_some_and(|info| info.pods.values().any(|other| other.is_terminating() && other.priority() < pod.priority()))
}

/// The fewest evictions that make room on a node: everybody less important goes, then as many as possible come back,
/// those protected by a disruption budget first, then the most important.
fn candidate(pod: &PodInfo, view: &View, node: &str) -> Result<Candidate, Vec<String>> {
    let none = || vec!["No preemption victims found for incoming pod".to_owned()];
    let info = view.node(node).ok_or_else(none)?;
    let mut less: Vec<Arc<PodInfo>> = info.pods.values().filter(|o| o.priority() < pod.priority()).cloned().collect();
    if less.is_empty() {
        return Err(none());
    }
    let mut left = NodeInfo::clone(info);
    less.iter().for_each(|other| left.remove(other.uid()));
    fits(pod, view, &left)?;
    less.sort_by_key(|other| (Reverse(other.priority()), started(other), other.name().to_owned()));
    let (protected, others) = split_by_budget(view, less);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (guarded, other) in protected.into_iter().map(|o| (1, o)).chain(others.into_iter().map(|o| (0, o))) {
        left.insert(other.clone());
        if fits(pod, view, &left).is_err() {
            left.remove(other.uid());
            violations += guarded;
            victims.push(other);
        }
    }
    victims.sort_by_key(|other| (Reverse(other.priority()), started(other), other.name().to_owned()));
    Ok(Candidate { node: node.to_owned(), victims, violations })
}

fn fits(pod: &PodInfo, view: &View, info: &NodeInfo) -> Result<(), Vec<String>> {
    let view = view.with_node(info.clone());
    let cycle = Cycle::prepare(&view, pod).map_err(|refusal| refusal.reasons)?;
    cycle.check_with_nominated(info).map(drop).map_err(|refusal| refusal.reasons)
}

/// Pods whose budget does not allow one more disruption, and the others.
fn split_by_budget(view: &View, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let allowed =
        |at: usize| view.budgets[at].status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
    let mut left: Vec<i32> = (0..view.budgets.len()).map(allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in view.budgets.iter().zip(&mut left) {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let same = budget.metadata.namespace.as_deref() == Some(pod.namespace());
            if same && !pod.labels().is_empty() && selects(selector, pod.labels()) {
                violates |= *left <= 0;
                *left -= 1;
            }
        }
        violates
    })
}

/// Less is better: violated budgets, the most important victim, the sum of their priorities, their number; then the
/// victims that started last, then the node's name.
fn cost(candidate: &Candidate) -> (usize, i32, i64, usize, Reverse<Option<String>>, String) {
    let priorities = || candidate.victims.iter().map(|victim| victim.priority());
    // Shifted so that a victim of negative priority still costs something.
    let sum = priorities().map(|priority| i64::from(priority) + i64::from(i32::MAX) + 1).sum();
    let highest = priorities().max().unwrap_or(i32::MIN);
    let important = candidate.victims.iter().filter(|victim| victim.priority() == highest);
    let earliest = important.map(|victim| started(victim)).min().flatten();
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest), candidate.node.clone())
}

/// When the pod started, in a form that sorts.
fn started(pod: &PodInfo) -> Option<String> {
    pod.pod.status.as_ref()?.start_time.as_ref().map(|time| time.0.to_string())
}

fn plan(candidate: Candidate) -> Preemption {
    let name = |victim: &Arc<PodInfo>| (format!("{}/{}", victim.namespace(), victim.name()), victim.uid().to_owned());
    Preemption { victims: candidate.victims.iter().map(name).collect(), node: candidate.node }
}
