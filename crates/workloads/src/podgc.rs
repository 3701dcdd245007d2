//! Pods that nobody will ever end: their node is gone or declared out of service, or they never had one.
//!
//! Source: `pkg/controller/podgc/gc_controller.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a node must be missing before its pods are given up.
pub const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is known of the node of a pod.
#[derive(Clone, Copy, Debug)]
pub enum NodeState<'a> {
    There(&'a Node),
    /// Not in the cache since then.
    MissingSince(Timestamp),
}

/// The one thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Nothing,
    /// The node may come back: look again then.
    Wait(Timestamp),
    /// Ask the server whether the node is really gone, then do what the last plan says.
    GiveUp {
        mark: Option<Pod>,
    },
    /// Remove it at once: there is nothing that could still run.
    Remove {
        mark: Option<Pod>,
    },
}

/// Decides about one pod; `node` is `None` when it has none.
#[must_use]
pub fn plan(pod: &Pod, node: Option<NodeState<'_>>, now: Timestamp) -> Plan {
    let going = pod.metadata.deletion_timestamp.is_some();
    match node {
        None if going => Plan::Remove { mark: None },
        None => Plan::Nothing,
        Some(NodeState::There(node)) if going && is_out_of_service(node) => {
            Plan::Remove { mark: marked(pod, "PodGC: node is out-of-service", now) }
        }
        Some(NodeState::There(_)) => Plan::Nothing,
        Some(NodeState::MissingSince(since)) => match since.checked_add(QUARANTINE) {
            Ok(end) if now < end => Plan::Wait(end),
            _ => Plan::GiveUp { mark: marked(pod, "PodGC: node no longer exists", now) },
        },
    }
}

/// A person said that the node is down, and it is not Ready.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    !ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// The pod as failed, with the reason; `None` when it has ended by itself.
fn marked(pod: &Pod, why: &str, now: Timestamp) -> Option<Pod> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let mut pod = pod.clone();
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Failed".to_owned());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("DeletionByPodGC".to_owned()),
        message: Some(why.to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    Some(pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stories() {
        let pod = |going: bool, phase: &str| -> Pod {
            let mut pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
            if going {
                pod["metadata"]["deletionTimestamp"] = "2026-11-20T14:00:00Z".into();
            }
            serde_json::from_value(pod).expect("a pod")
        };
        let node = |tainted: bool, ready: &str| -> Node {
            let taints = if tainted { json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]) } else { json!([]) };
            let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
            serde_json::from_value(json!({"spec": {"taints": taints}, "status": status})).expect("a node")
        };
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let there = |node: &Node, going: bool| plan(&pod(going, "Running"), Some(NodeState::There(node)), at(0));
        assert_eq!(plan(&pod(false, "Pending"), None, at(0)), Plan::Nothing);
        assert_eq!(plan(&pod(true, "Pending"), None, at(0)), Plan::Remove { mark: None });
        assert_eq!(there(&node(false, "Unknown"), true), Plan::Nothing);
        assert_eq!(there(&node(true, "True"), true), Plan::Nothing);
        assert_eq!(there(&node(true, "Unknown"), false), Plan::Nothing);
        assert!(matches!(there(&node(true, "Unknown"), true), Plan::Remove { mark: Some(_) }));
        let missing = |phase: &str, now: i64| plan(&pod(false, phase), Some(NodeState::MissingSince(at(100))), at(now));
        assert_eq!(missing("Running", 139), Plan::Wait(at(140)));
        let Plan::GiveUp { mark: Some(marked) } = missing("Running", 140) else { panic!("to be given up") };
        let status = marked.status.expect("a status");
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        assert_eq!(status.conditions.expect("conditions")[0].message.as_deref(), Some("PodGC: node no longer exists"));
        assert_eq!(missing("Succeeded", 140), Plan::GiveUp { mark: None });
    }
}
