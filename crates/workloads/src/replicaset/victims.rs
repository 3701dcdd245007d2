//! Which pods go when there are too many.
//!
//! The order of `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`: those whose loss costs least go first.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::{condition, is_active, is_ready, phase};

/// What the loss of a pod costs, as its owner sees it; lower goes first.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` pods of `active` that go.
#[must_use]
pub fn choose(active: &[&Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node(pod)).or_default() += 1;
    }
    let mut candidates: Vec<Candidate<'_>> =
        active.iter().map(|pod| Candidate::new(pod, on_node.get(node(pod)).copied().unwrap_or(0), now)).collect();
    candidates.sort_by(Candidate::order);
    candidates.into_iter().take(count).map(|candidate| candidate.pod.clone()).collect()
}

struct Candidate<'a> {
    pod: &'a Arc<Pod>,
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    /// How many related pods share its node.
    doubled: usize,
    /// Powers of two of seconds: those about equally old are equal.
    ready_age: Option<u32>,
    restarts: i32,
    age: Option<u32>,
    uid: &'a str,
}

impl<'a> Candidate<'a> {
    fn new(pod: &'a Arc<Pod>, doubled: usize, now: Timestamp) -> Self {
        let annotations = pod.metadata.annotations.as_ref();
        let cost = annotations.and_then(|all| all.get(DELETION_COST_ANNOTATION)).and_then(|cost| cost.parse().ok());
        let since =
            condition(pod, "Ready").filter(|c| c.status == "True").and_then(|c| c.last_transition_time.as_ref());
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        Self {
            pod,
            assigned: !node(pod).is_empty(),
            phase: match phase(pod) {
                "Pending" | "" => 0,
                "Running" => 2,
                _ => 1,
            },
            ready: is_ready(pod),
            cost: cost.unwrap_or(0),
            doubled,
            ready_age: since.map(|time| magnitude(time.0, now)),
            restarts: statuses.map(|status| status.restart_count).max().unwrap_or(0),
            age: pod.metadata.creation_timestamp.as_ref().map(|time| magnitude(time.0, now)),
            uid: pod.metadata.uid.as_deref().unwrap_or_default(),
        }
    }

    /// First those that are not assigned, not running, not ready, cheap, doubled up, young, restarting.
    fn order(&self, other: &Self) -> Ordering {
        let key = |c: &Self| (c.assigned, c.phase, c.ready, c.cost, Reverse(c.doubled));
        key(self)
            .cmp(&key(other))
            .then_with(|| self.ready_age.cmp(&other.ready_age))
            .then_with(|| other.restarts.cmp(&self.restarts))
            .then_with(|| self.age.cmp(&other.age))
            .then_with(|| self.uid.cmp(other.uid))
    }
}

fn magnitude(since: Timestamp, now: Timestamp) -> u32 {
    u64::try_from(now.duration_since(since).as_secs())
        .map_or(0, |seconds| seconds.checked_ilog2().map_or(0, |log| log + 1))
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, ready: bool, cost: i32, age: i64, restarts: i32) -> Arc<Pod> {
        let at = Timestamp::from_second(1_000_000 - age).expect("in range").to_string();
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {
                    "name": name, "uid": name, "creationTimestamp": at,
                    "annotations": {DELETION_COST_ANNOTATION: cost.to_string()},
                },
                "spec": {"nodeName": node, "containers": []},
                "status": {
                    "phase": phase,
                    "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": at}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": ready, "restartCount": restarts}],
                },
            }))
            .expect("a pod"),
        )
    }

    #[test]
    fn those_go_first_whose_loss_costs_least() {
        // In the order in which they are expected to go.
        let pods = [
            pod("unassigned", "", "Pending", false, 0, 5, 0),
            pod("pending", "n1", "Pending", false, 0, 5, 0),
            pod("unready", "n1", "Running", false, 0, 5, 0),
            pod("cheap", "n1", "Running", true, -1, 9000, 0),
            pod("doubled", "n2", "Running", true, 0, 9000, 0),
            pod("doubled-too", "n2", "Running", true, 0, 9000, 0),
            pod("young", "n3", "Running", true, 0, 10, 0),
            pod("restarting", "n4", "Running", true, 0, 9000, 3),
            pod("old", "n5", "Running", true, 0, 9000, 0),
            pod("dear", "n6", "Running", true, 7, 10, 0),
        ];
        let shuffled: Vec<_> = [3, 9, 0, 7, 5, 1, 8, 2, 6, 4].map(|n| &pods[n]).into();
        let related: Vec<_> = pods.iter().filter(|pod| node(pod) != "n1").cloned().collect();
        let now = Timestamp::from_second(1_000_000).expect("in range");
        let order: Vec<_> = choose(&shuffled, &related, 10, now)
            .iter()
            .map(|pod| pod.metadata.name.clone().unwrap_or_default())
            .collect();
        let expected: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap_or_default()).collect();
        assert_eq!(order, expected);
        assert_eq!(choose(&shuffled, &related, 2, now).len(), 2);
    }
}
