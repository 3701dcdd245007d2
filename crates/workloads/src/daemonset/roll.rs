//! Roll-outs of a DaemonSet: old pods first, or with surge the new ones first.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ByNode, Observed, Plan, fits, is_alive, is_updated};
use crate::pod::{Health, health, is_ready};

/// How many nodes a roll-out may have without an available pod, or with two pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    unavailable: usize,
    surge: usize,
}

fn is_rolling(set: &DaemonSet) -> bool {
    set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
}

fn rolling(set: &DaemonSet) -> (Option<&IntOrString>, Option<&IntOrString>) {
    let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    (rolling.and_then(|r| r.max_unavailable.as_ref()), rolling.and_then(|r| r.max_surge.as_ref()))
}

/// Whether `maxSurge` is not zero.
pub(super) fn may_surge(set: &DaemonSet) -> bool {
    is_rolling(set) && resolve(rolling(set).1, 1, 0) > 0
}

/// A number, or a percentage of `total`, rounded up.
fn resolve(value: Option<&IntOrString>, total: usize, default: usize) -> usize {
    match value {
        None => default,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            total.saturating_mul(percent).div_ceil(100)
        }
    }
}

fn bounds(observed: &Observed<'_>) -> Bounds {
    let wanted = observed.nodes.iter().filter(|node| fits(observed.set, node).run).count();
    let (unavailable, surge) = rolling(observed.set);
    let bounds = Bounds { unavailable: resolve(unavailable, wanted, 1), surge: resolve(surge, wanted, 0) };
    // Something has to give.
    if bounds.unavailable == 0 && bounds.surge == 0 { Bounds { unavailable: 1, surge: 0 } } else { bounds }
}

/// The newer and the older pod of one node, where they exist.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// `None` when there are two of the same kind.
fn pair<'a>(observed: &Observed<'_>, pods: &[&'a Arc<Pod>]) -> Option<Pair<'a>> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().copied().filter(|pod| is_alive(pod)) {
        let slot = if is_updated(pod, observed.hash) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}

fn is_available(observed: &Observed<'_>, pod: &Pod) -> bool {
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    health(pod, min_ready, observed.now) == Health::Available
}

/// Adds the steps of the roll-out to a plan that has nothing else to do.
pub(super) fn roll_out(observed: &Observed<'_>, by_node: &ByNode<'_>, plan: &mut Plan) {
    if !is_rolling(observed.set) {
        return;
    }
    let bounds = bounds(observed);
    if bounds.surge == 0 {
        old_first(observed, by_node, bounds.unavailable, plan);
    } else {
        new_first(observed, by_node, bounds, plan);
    }
}

/// Deletes old pods: those that are not available anyway, and others as far as the bound allows.
fn old_first(observed: &Observed<'_>, by_node: &ByNode<'_>, most: usize, plan: &mut Plan) {
    let (mut unavailable, mut candidates) = (0, Vec::new());
    for pods in by_node.values() {
        match pair(observed, pods) {
            Some((Some(new), None)) => unavailable += usize::from(!is_available(observed, new)),
            Some((None, Some(old))) if !is_available(observed, old) => {
                plan.delete.push(old.clone());
                unavailable += 1;
            }
            Some((None, Some(old))) => candidates.push(old.clone()),
            Some((None, None) | (Some(_), Some(_))) | None => unavailable += 1,
        }
    }
    plan.delete.extend(candidates.into_iter().take(most.saturating_sub(unavailable)));
}

/// Makes new pods beside the old ones; an old one goes when its new one is available, or at once when it is not ready
/// itself and may be missing.
fn new_first(observed: &Observed<'_>, by_node: &ByNode<'_>, bounds: Bounds, plan: &mut Plan) {
    let (mut surging, mut needed, mut candidates) = (0, Vec::new(), Vec::new());
    for (node, pods) in by_node {
        match pair(observed, pods) {
            Some((None, Some(old))) if !is_available(observed, old) => needed.push((*node).to_owned()),
            Some((None, Some(_))) => candidates.push((*node).to_owned()),
            Some((Some(new), Some(old))) => {
                surging += 1;
                if is_available(observed, new) {
                    plan.delete.push(old.clone());
                }
            }
            Some((Some(_) | None, None)) => {}
            None => surging += 1,
        }
    }
    let room = bounds.surge.saturating_sub(surging);
    plan.create.extend(needed);
    plan.create.extend(candidates.into_iter().take(room));
}

/// With surge a node may have one old and one new pod: what is more than that, and the old one once it is not needed.
pub(super) fn surplus(observed: &Observed<'_>, running: &[&Arc<Pod>]) -> Vec<Arc<Pod>> {
    if running.len() < 2 {
        return Vec::new();
    }
    let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        running.iter().copied().partition(|pod| is_updated(pod, observed.hash));
    let mut surplus: Vec<Arc<Pod>> = new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| (*pod).clone()).collect();
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!is_ready(old) || is_available(observed, new))
    {
        surplus.push((*old).clone());
    }
    surplus
}
