//! What a ReplicaSet should do next: how many pods to create, and which to delete.
//!
//! Behaviour is that of upstream's `pkg/controller/replicaset` at Kubernetes 1.37.

pub mod replication;
mod victims;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use crate::owner::controller_ref;
use crate::pod::{Health, available_at, health, is_active};
pub use victims::{DELETION_COST_ANNOTATION, choose};

/// Most pods that one plan creates or deletes.
pub const BURST_MAX: usize = 500;
/// The condition that says that pods could not be created or deleted.
const FAILURE: &str = "ReplicaFailure";

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// How many pods to create.
    pub create: usize,
    /// Which to delete.
    pub delete: Vec<Arc<Pod>>,
    /// When a pod becomes available although nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// What went wrong while a plan was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    pub message: String,
}

/// `spec.replicas`.
#[must_use]
pub fn replicas(set: &ReplicaSet) -> usize {
    usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// Decides. `pods`: those the set controls. `related`: the active pods of all ReplicaSets of the same Deployment, which
/// say where pods are doubled up.
#[must_use]
pub fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan { wake_at: wake_at(set, pods, now), ..Plan::default() };
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let wanted = replicas(set);
    plan.create = wanted.saturating_sub(active.len()).min(BURST_MAX);
    let excess = active.len().saturating_sub(wanted).min(BURST_MAX);
    plan.delete = choose(&active, related, excess, now);
    plan
}

fn wake_at(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Option<Timestamp> {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let waiting = pods.iter().filter(|pod| is_active(pod) && health(pod, min_ready, now) == Health::Ready);
    waiting.filter_map(|pod| available_at(pod, min_ready)).min()
}

/// The status to publish for the pods as they were seen.
#[must_use]
pub fn status(set: &ReplicaSet, pods: &[Arc<Pod>], failure: Option<&Failure>, now: Timestamp) -> ReplicaSetStatus {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let healths: Vec<Health> = active.iter().map(|pod| health(pod, min_ready, now)).collect();
    let count = |number: usize| i32::try_from(number).ok().filter(|number| *number != 0);
    let labels = set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    let labelled = |pod: &&&Arc<Pod>| {
        let has = pod.metadata.labels.as_ref();
        labels.iter().flatten().all(|(key, value)| has.and_then(|labels| labels.get(key)) == Some(value))
    };
    let terminating =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && !crate::pod::is_finished(pod));
    ReplicaSetStatus {
        replicas: count(active.len()).unwrap_or(0),
        ready_replicas: count(healths.iter().filter(|health| health.is_ready()).count()),
        available_replicas: count(healths.iter().filter(|health| **health == Health::Available).count()),
        fully_labeled_replicas: count(active.iter().filter(labelled).count()),
        terminating_replicas: Some(count(terminating.count()).unwrap_or(0)),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
    }
}

/// Sets or removes the one condition that upstream writes; the others are kept.
fn conditions(set: &ReplicaSet, failure: Option<&Failure>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    let before = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let is_failure = |c: &ReplicaSetCondition| c.type_.as_deref() == Some(FAILURE);
    let old = before.iter().find(|c| is_failure(c)).cloned();
    let mut conditions: Vec<_> = before.into_iter().filter(|c| !is_failure(c)).collect();
    if let Some(failure) = failure {
        let same = old.filter(|old| old.reason.as_deref() == Some(failure.reason));
        conditions.push(same.unwrap_or_else(|| ReplicaSetCondition {
            type_: Some(FAILURE.to_owned()),
            status: Some("True".to_owned()),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }));
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}

/// The reference that pods have to their ReplicaSet.
#[must_use]
pub fn set_ref(set: &ReplicaSet) -> OwnerReference {
    controller_ref("apps/v1", "ReplicaSet", &set.metadata)
}

/// A pod of that owner, made from its template; the server completes its name.
#[must_use]
pub fn new_pod(owner: &ObjectMeta, reference: &OwnerReference, template: &PodTemplateSpec) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name.as_deref().unwrap_or_default())),
            namespace: owner.namespace.clone(),
            labels: from.labels,
            annotations: from.annotations,
            finalizers: from.finalizers,
            owner_references: Some(vec![reference.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web-abc", "generation": 3},
            "spec": {
                "replicas": replicas, "minReadySeconds": 10, "selector": {},
                "template": {"metadata": {"labels": {"app": "web"}}},
            },
        }))
        .expect("a set")
    }

    /// `phase`, and since how many seconds it has been ready.
    fn pod(phase: &str, ready_for: Option<i64>, deleting: bool) -> Arc<Pod> {
        let since = Timestamp::from_second(1_000_000 - ready_for.unwrap_or(0)).expect("in range");
        let status = if ready_for.is_some() { "True" } else { "False" };
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "web"}},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": since.to_string()},
            ]},
        }))
        .expect("a pod");
        pod.metadata.deletion_timestamp = deleting.then_some(Time(since));
        Arc::new(pod)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).expect("in range")
    }

    #[test]
    fn makes_up_for_what_is_missing_finished_or_going() {
        let pods = [pod("Running", Some(60), false), pod("Failed", None, false), pod("Running", Some(60), true)];
        let plan = plan(&set(3), &pods, &[], now());
        assert_eq!((plan.create, plan.delete.len()), (2, 0));
    }

    #[test]
    fn creates_and_deletes_in_bursts() {
        assert_eq!(plan(&set(10_000), &[], &[], now()).create, BURST_MAX);
        let pods = vec![pod("Running", None, false); 700];
        assert_eq!(plan(&set(0), &pods, &[], now()).delete.len(), BURST_MAX);
    }

    #[test]
    fn a_set_that_is_being_deleted_leaves_its_pods_to_the_garbage_collector() {
        let mut set = set(0);
        set.metadata.deletion_timestamp = Some(Time(now()));
        assert_eq!(plan(&set, &[pod("Running", None, false)], &[], now()), Plan::default());
    }

    #[test]
    fn status_counts_and_wakes_for_min_ready_seconds() {
        let pods = [pod("Running", Some(60), false), pod("Running", Some(4), false), pod("Running", None, true)];
        let status = status(&set(3), &pods, None, now());
        assert_eq!(
            serde_json::to_value(&status).expect("json"),
            json!({
                "replicas": 2, "readyReplicas": 2, "availableReplicas": 1, "fullyLabeledReplicas": 2,
                "terminatingReplicas": 1, "observedGeneration": 3,
            })
        );
        let wake = plan(&set(3), &pods, &[], now()).wake_at.expect("one is not available yet");
        assert_eq!(wake.duration_since(now()).as_secs(), 6);
    }

    #[test]
    fn a_failure_is_a_condition_until_it_is_over() {
        let failure = Failure { reason: "FailedCreate", message: "pods \"x\" is forbidden: exceeded quota".into() };
        let mut set = set(1);
        set.status = Some(status(&set, &[], Some(&failure), now()));
        let later = Timestamp::from_second(2_000_000).expect("in range");
        let again = status(&set, &[], Some(&failure), later);
        assert_eq!(Some(again), set.status, "the same failure again changes nothing");
        assert_eq!(status(&set, &[], None, later).conditions, None);
    }
}
