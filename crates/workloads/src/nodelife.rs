//! What becomes of a node that is not well: conditions when it falls silent, and taints that follow its conditions.
//!
//! Source: `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How long a node may not renew its lease before it counts as silent (`--node-monitor-grace-period`).
pub const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(50);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status in which it taints, the taint's key.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that a node reports and that are unknown when it is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a> {
    pub node: &'a Node,
    /// The last sign of life: when a renewal of the lease was seen here (clocks of nodes differ), or when watching began.
    pub heard: Timestamp,
    /// How long the node may be silent.
    pub silence_max: SignedDuration,
    pub now: Timestamp,
}

/// What to write, if anything, and when to look again apart from changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// All taints of the node.
    pub taints: Option<Vec<Taint>>,
    /// Conditions that change.
    pub conditions: Vec<NodeCondition>,
    pub wake_at: Option<Timestamp>,
    /// Nobody speaks for the pods of the node any more: they are not ready.
    pub silent: bool,
}

/// First the conditions of a silent node, then the taints that follow from the conditions as they will be.
#[must_use]
pub fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let silent_at = snapshot.heard + snapshot.silence_max;
    let silent = snapshot.now >= silent_at;
    let mut conditions =
        snapshot.node.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
    let changed = if silent { silence(&mut conditions, snapshot.now) } else { Vec::new() };
    let before = snapshot.node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let after = taints(snapshot, &conditions, &before);
    Plan {
        taints: (after != before).then_some(after),
        conditions: changed,
        wake_at: (!silent).then_some(silent_at),
        silent,
    }
}

/// What a pod of a silent node has in its status, as a strategic merge patch; `None` when it is not ready anyway
/// (upstream: `MarkPodsNotReady`).
#[must_use]
pub fn unready(pod: &Pod, now: Timestamp) -> Option<serde_json::Value> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    let change = serde_json::json!({"type": "Ready", "status": "False", "lastTransitionTime": Time(now)});
    Some(serde_json::json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [change]}}))
}

/// Makes what the node reports unknown; returns what changed.
fn silence(conditions: &mut Vec<NodeCondition>, now: Timestamp) -> Vec<NodeCondition> {
    let mut changed = Vec::new();
    for kind in REPORTED {
        let found = conditions.iter_mut().find(|condition| condition.type_ == kind);
        if found.as_ref().is_some_and(|condition| condition.status == "Unknown") {
            continue;
        }
        let (reason, message) = match found {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let unknown = NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: found.as_ref().and_then(|condition| condition.last_heartbeat_time.clone()),
            last_transition_time: Some(Time(now)),
        };
        changed.push(unknown.clone());
        match found {
            Some(condition) => *condition = unknown,
            None => conditions.push(unknown),
        }
    }
    changed
}

/// The taints that others set, then ours. A taint that stays keeps the time at which it was added.
fn taints(snapshot: &Snapshot<'_>, conditions: &[NodeCondition], before: &[Taint]) -> Vec<Taint> {
    let status =
        |kind: &str| conditions.iter().find(|condition| condition.type_ == kind).map(|found| found.status.as_str());
    let cordoned = snapshot.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let by_condition = BY_CONDITION.iter().filter(|(kind, when, _)| status(kind) == Some(when)).map(|(.., key)| *key);
    let mut wanted: Vec<(&str, &str)> = by_condition.map(|key| (key, "NoSchedule")).collect();
    wanted.extend(cordoned.then_some((UNSCHEDULABLE, "NoSchedule")));
    let unwell =
        wanted.iter().find(|(key, _)| [NOT_READY, UNREACHABLE].contains(key)).map(|(key, _)| (*key, "NoExecute"));
    wanted.extend(unwell);

    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut after: Vec<Taint> =
        before.iter().filter(|taint| !ours(taint) || wanted.iter().any(|want| is(taint, *want))).cloned().collect();
    for (key, effect) in wanted {
        if !after.iter().any(|taint| is(taint, (key, effect))) {
            // Only the effect that evicts has a time: tolerations count from it.
            let time_added = (effect == "NoExecute").then_some(Time(snapshot.now));
            after.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added });
        }
    }
    after
}

/// Whether this controller keeps the taint.
fn ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(.., key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    let evicting = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) && taint.effect == "NoExecute";
    by_condition && taint.effect == "NoSchedule" || evicting
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// A node with `taints` (`key:effect`) and a Ready condition; what the plan makes of it at `now`, heard at 0.
    #[track_caller]
    fn check(ready: &str, cordoned: bool, taints: &[&str], now: i64, expected: &str) {
        let taints: Vec<_> = taints
            .iter()
            .map(|taint| taint.split_once(':').map(|(key, effect)| json!({"key": key, "effect": effect})).unwrap())
            .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints, "unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap();
        let plan = plan(&Snapshot { node: &node, heard: at(0), silence_max: SILENCE_MAX, now: at(now) });
        let taints = plan.taints.map_or("unchanged".to_owned(), |taints| {
            taints
                .iter()
                .map(|taint| format!("{}:{}", taint.key.rsplit('/').next().unwrap(), taint.effect))
                .collect::<Vec<_>>()
                .join(" ")
        });
        let conditions: Vec<_> = plan.conditions.iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
        let wake = plan.wake_at.map_or("-".to_owned(), |time| (time.as_second() - 1_000_000).to_string());
        assert_eq!(format!("{taints} | {} | wake {wake}", conditions.join(" ")), expected);
    }

    #[test]
    fn a_ready_node_loses_the_taint_it_was_born_with() {
        check("True", false, &["node.kubernetes.io/not-ready:NoSchedule"], 1, " |  | wake 50");
        check("True", false, &[], 1, "unchanged |  | wake 50");
    }

    #[test]
    fn taints_of_others_stay() {
        check(
            "True",
            false,
            &["a:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule"],
            1,
            "a:NoSchedule |  | wake 50",
        );
        check("False", false, &["a:NoExecute"], 1, "a:NoExecute not-ready:NoSchedule not-ready:NoExecute |  | wake 50");
    }

    #[test]
    fn a_cordoned_node_takes_no_pods() {
        check("True", true, &[], 1, "unschedulable:NoSchedule |  | wake 50");
        check("True", false, &["node.kubernetes.io/unschedulable:NoSchedule"], 1, " |  | wake 50");
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let unknown = "Ready=Unknown MemoryPressure=Unknown DiskPressure=Unknown PIDPressure=Unknown";
        check("True", false, &[], 49, "unchanged |  | wake 50");
        check("True", false, &[], 50, &format!("unreachable:NoSchedule unreachable:NoExecute | {unknown} | wake -"));
    }

    #[test]
    fn it_settles() {
        for ready in ["True", "False", "Unknown"] {
            for now in [0, 60] {
                let mut node: Node =
                    serde_json::from_value(json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}}))
                        .unwrap();
                let first = plan(&Snapshot { node: &node, heard: at(0), silence_max: SILENCE_MAX, now: at(now) });
                node.spec = Some(k8s_openapi::api::core::v1::NodeSpec { taints: first.taints, ..Default::default() });
                let conditions = node.status.as_mut().unwrap().conditions.as_mut().unwrap();
                conditions.retain(|old| first.conditions.iter().all(|new| new.type_ != old.type_));
                conditions.extend(first.conditions);
                let second = plan(&Snapshot { node: &node, heard: at(0), silence_max: SILENCE_MAX, now: at(now) });
                assert_eq!((second.taints, second.conditions), (None, Vec::new()), "{ready} {now}");
            }
        }
    }

    #[test]
    fn only_a_ready_pod_becomes_unready() {
        let pod = |ready: &str| -> Pod {
            serde_json::from_value(
                json!({"metadata": {"uid": "u"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}),
            )
            .unwrap()
        };
        let patch = unready(&pod("True"), at(0)).unwrap();
        assert_eq!(patch["status"]["conditions"][0]["status"], "False");
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(unready(&pod("False"), at(0)), None);
        assert_eq!(unready(&Pod::default(), at(0)), None);
    }
}
