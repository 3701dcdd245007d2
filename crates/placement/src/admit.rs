//! Does a node take a pod that is bound to it? A pod may come by its `nodeName` alone, past the scheduler, and the node is the
//! last one who can refuse it. Asks the scheduler's own filters, in the order and the words of upstream's kubelet.
//!
//! Source: `pkg/kubelet/lifecycle/predicate.go` and `AdmissionCheck` of `pkg/scheduler/eventhandlers.go`. Critical pods make
//! no room for themselves here.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::filter::{Cause, node, resources};
use crate::pick::{node_name, taints, tolerates, tolerations};
use crate::pod::PodInfo;
use crate::view::{NodeInfo, View};

/// Why the node does not take the pod: reason and message of the pod's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// `others`: pods that the node has taken and that have not ended.
///
/// # Errors
/// The first thing that stands against it.
pub fn admit(node: &Arc<Node>, others: impl IntoIterator<Item = Arc<Pod>>, pod: &Arc<Pod>) -> Result<(), Rejection> {
    let mut view = View::default();
    view.set_node(node.clone());
    for other in others {
        view.add_pod(node_name(node), Arc::new(PodInfo::new(other)));
    }
    let Some(info) = view.node(node_name(node)) else { return Ok(()) };
    let pod = PodInfo::new(pod.clone());
    room(&pod, info)?;
    node::affinity(&pod, node).map_err(|refusal| failed(refusal.cause))?;
    node::name(&pod, node).map_err(|refusal| failed(refusal.cause))?;
    resources::ports(&pod, info).map_err(|refusal| failed(refusal.cause))?;
    let expelled = |taint| tolerates(tolerations(&pod.pod), taint);
    match taints(node).filter(|taint| taint.effect == "NoExecute").all(expelled) {
        true => Ok(()),
        false => Err(failed(Cause::TaintToleration)),
    }
}

fn failed(cause: Cause) -> Rejection {
    let predicate = cause.as_str();
    Rejection { reason: predicate.to_owned(), message: format!("Predicate {predicate} failed") }
}

/// The number of pods, then each resource. Extended resources that the node knows nothing of are somebody else's to count.
fn room(pod: &PodInfo, info: &NodeInfo) -> Result<(), Rejection> {
    let count = i64::try_from(info.pods.len()).unwrap_or(i64::MAX);
    if count >= info.allocatable.pods() {
        return Err(short("pods", 1, count, info.allocatable.pods()));
    }
    let counted = |name: &str| !name.contains('/') || info.allocatable.iter().any(|(known, _)| known == name);
    for (name, requested) in pod.requests.iter().filter(|(name, amount)| *amount > 0 && counted(name)) {
        let (used, capacity) = (info.requested.get(name), info.allocatable.get(name));
        if requested > capacity.saturating_sub(used) {
            return Err(short(name, requested, used, capacity));
        }
    }
    Ok(())
}

fn short(resource: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    Rejection {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node() -> Arc<Node> {
        let node = json!({
            "metadata": {"name": "n1", "labels": {"zone": "a"}},
            "spec": {"taints": [{"key": "drained", "effect": "NoSchedule"}, {"key": "lost", "effect": "NoExecute"}]},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3", "example.com/card": "1"}},
        });
        Arc::new(serde_json::from_value(node).expect("a node"))
    }

    fn pod(name: &str, more: Value) -> Arc<Pod> {
        let mut spec =
            json!({"containers": [{"name": "c"}], "nodeName": "n1", "tolerations": [{"operator": "Exists"}]});
        let (Value::Object(spec_map), Value::Object(more)) = (&mut spec, more) else { panic!("two objects") };
        spec_map.extend(more);
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": spec});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn asks(resource: &str, amount: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {resource: amount}}}]})
    }

    fn wants(port: i32) -> Value {
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port, "protocol": "TCP"}]}]})
    }

    /// The pod against a node with one other pod.
    fn told(other: Value, pod_spec: Value) -> String {
        match admit(&node(), [pod("other", other)], &pod("pod", pod_spec)) {
            Ok(()) => "taken".to_owned(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        }
    }

    #[test]
    fn a_node_takes_what_it_has_room_for_and_says_why_not() {
        let none = json!({});
        let short = "Node didn't have enough resource: ";
        for (other, spec, expected) in [
            (none.clone(), none.clone(), "taken".to_owned()),
            (asks("cpu", "1"), asks("cpu", "1"), "taken".to_owned()),
            (
                asks("cpu", "1500m"),
                asks("cpu", "1"),
                format!("OutOfcpu: {short}cpu, requested: 1000, used: 1500, capacity: 2000"),
            ),
            (
                none.clone(),
                asks("memory", "2Gi"),
                format!("OutOfmemory: {short}memory, requested: 2147483648, used: 0, capacity: 1073741824"),
            ),
            (
                asks("example.com/card", "1"),
                asks("example.com/card", "1"),
                format!("OutOfexample.com/card: {short}example.com/card, requested: 1, used: 1, capacity: 1"),
            ),
            (none.clone(), asks("example.com/unknown", "1"), "taken".to_owned()),
            (wants(21017), wants(21017), "NodePorts: Predicate NodePorts failed".to_owned()),
            (wants(21017), wants(21018), "taken".to_owned()),
            (
                none.clone(),
                json!({"nodeSelector": {"zone": "b"}}),
                "NodeAffinity: Predicate NodeAffinity failed".to_owned(),
            ),
            (none.clone(), json!({"nodeName": "n2"}), "NodeName: Predicate NodeName failed".to_owned()),
            // A taint that only keeps new pods away does not concern one that is here.
            (none.clone(), json!({"tolerations": [{"key": "lost", "operator": "Exists"}]}), "taken".to_owned()),
            (none, json!({"tolerations": []}), "TaintToleration: Predicate TaintToleration failed".to_owned()),
        ] {
            assert_eq!(told(other, spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn a_node_takes_no_more_pods_than_it_may_have() {
        let others = ["a", "b", "c"].map(|name| pod(name, json!({})));
        let rejection = admit(&node(), others, &pod("pod", json!({}))).expect_err("full");
        assert_eq!(rejection.reason, "OutOfpods");
        assert_eq!(rejection.message, "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3");
    }
}
