//! Which pods have to leave a node: those that do not tolerate its taints.
//!
//! A taint with the effect `NoExecute` ends every pod that does not tolerate it, at once or when the time is over for
//! which the pod tolerates it. Lost nodes get such taints, see [`crate::nodelife`].
//!
//! Source: `pkg/controller/tainteviction/taint_eviction.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::is_finished;

/// The effect that ends pods.
const NO_EXECUTE: &str = "NoExecute";

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    pub pod: &'a Pod,
    pub node: &'a Node,
    /// When the taints were first seen: counts for those that do not say when they were added.
    pub noticed: Timestamp,
    pub now: Timestamp,
}

/// Whether the pod has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    No,
    /// It has until then.
    At(Timestamp),
    Now,
}

/// Decides about one pod of the node.
#[must_use]
pub fn eviction(snapshot: &Snapshot<'_>) -> Eviction {
    if is_finished(snapshot.pod) || snapshot.pod.metadata.deletion_timestamp.is_some() {
        return Eviction::No;
    }
    let taints = snapshot.node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = snapshot.pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten());
    let mut end: Option<Timestamp> = None;
    for taint in taints.filter(|taint| taint.effect == NO_EXECUTE) {
        let mut tolerating = tolerations.clone().filter(|toleration| tolerates(toleration, taint)).peekable();
        if tolerating.peek().is_none() {
            return Eviction::Now;
        }
        // The shortest of the times counts, of which a toleration without one is the longest.
        let Some(seconds) = tolerating.filter_map(|toleration| toleration.toleration_seconds).min() else { continue };
        let since = taint.time_added.as_ref().map_or(snapshot.noticed, |added| added.0);
        let until = since.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
        end = Some(end.map_or(until, |end| end.min(until)));
    }
    match end {
        Some(end) if end <= snapshot.now => Eviction::Now,
        Some(end) => Eviction::At(end),
        None => Eviction::No,
    }
}

/// Whether the toleration covers the taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    fn given(text: &Option<String>) -> Option<&str> {
        text.as_deref().filter(|text| !text.is_empty())
    }
    let effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = exists || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    effect && key && value && (exists || given(&toleration.key).is_some())
}

/// The condition that says why the pod is deleted.
#[must_use]
pub fn target(now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByTaintManager".to_owned()),
        message: Some("Taint manager: deleting due to NoExecute taint".to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn pod(tolerations: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"containers": [], "tolerations": tolerations},
            "status": {"phase": "Running"},
        }))
        .expect("a pod")
    }

    fn node(taints: Value) -> Node {
        serde_json::from_value(json!({"spec": {"taints": taints}})).expect("a node")
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_the_taints_of_its_node() {
        let lost = |added: Option<i64>| json!({"key": "lost", "effect": "NoExecute", "timeAdded": added.map(|second| at(second).to_string())});
        let (other, soft) =
            (json!({"key": "other", "effect": "NoExecute"}), json!({"key": "a", "effect": "NoSchedule"}));
        let for_seconds = |key: &str, seconds: i64| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (taints, tolerations, expected) in [
            (json!([]), json!([]), Eviction::No),
            (json!([soft]), json!([]), Eviction::No),
            (json!([lost(Some(0))]), json!([]), Eviction::Now),
            (json!([lost(Some(0))]), json!([{"operator": "Exists"}]), Eviction::No),
            (json!([lost(Some(0))]), json!([for_seconds("lost", 300)]), Eviction::At(at(300))),
            (json!([lost(Some(0))]), json!([for_seconds("lost", 100)]), Eviction::Now),
            (json!([lost(Some(0))]), json!([for_seconds("lost", -1)]), Eviction::Now),
            (json!([lost(None)]), json!([for_seconds("lost", 100)]), Eviction::At(at(150))),
            (json!([lost(Some(0)), other]), json!([for_seconds("lost", 300)]), Eviction::Now),
            (
                json!([lost(Some(0)), other]),
                json!([for_seconds("lost", 300), for_seconds("other", 200)]),
                Eviction::At(at(250)),
            ),
            (json!([lost(Some(0))]), json!([{"operator": "Exists"}, for_seconds("lost", 300)]), Eviction::At(at(300))),
        ] {
            let (pod, node) = (pod(tolerations.clone()), node(taints.clone()));
            let snapshot = Snapshot { pod: &pod, node: &node, noticed: at(50), now: at(100) };
            assert_eq!(eviction(&snapshot), expected, "{taints} {tolerations}");
        }
    }

    #[test]
    fn what_goes_already_or_is_over_is_left_alone() {
        let node = node(json!([{"key": "lost", "effect": "NoExecute"}]));
        let mut going = pod(json!([]));
        going.metadata.deletion_timestamp = Some(Time(at(1)));
        let mut over = pod(json!([]));
        over.status.as_mut().expect("a status").phase = Some("Succeeded".to_owned());
        for pod in [going, over] {
            let snapshot = Snapshot { pod: &pod, node: &node, noticed: at(0), now: at(9) };
            assert_eq!(eviction(&snapshot), Eviction::No);
        }
    }
}
