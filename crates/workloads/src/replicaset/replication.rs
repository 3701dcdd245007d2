//! A ReplicationController as the ReplicaSet that it amounts to: only the form of the selector is another.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The controller as a set.
#[must_use]
pub fn to_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.clone().unwrap_or_default();
    let condition = |condition: &ReplicationControllerCondition| ReplicaSetCondition {
        last_transition_time: condition.last_transition_time.clone(),
        message: condition.message.clone(),
        reason: condition.reason.clone(),
        status: Some(condition.status.clone()),
        type_: Some(condition.type_.clone()),
    };
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: spec.replicas,
            selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
            template: spec.template,
        },
        status: controller.status.as_ref().map(|status| ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.as_ref().map(|all| all.iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            // The elder kind does not tell it; as if it did, so that an unchanged status compares equal.
            terminating_replicas: Some(0),
        }),
    }
}

/// The status of a set as that of the controller.
#[must_use]
pub fn to_status(status: ReplicaSetStatus) -> ReplicationControllerStatus {
    let condition = |condition: ReplicaSetCondition| ReplicationControllerCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: condition.status.unwrap_or_default(),
        type_: condition.type_.unwrap_or_default(),
    };
    ReplicationControllerStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way() {
        let status = json!({
            "availableReplicas": 1, "fullyLabeledReplicas": 2, "observedGeneration": 3, "readyReplicas": 1, "replicas": 2,
            "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let controller: ReplicationController = serde_json::from_value(json!({
            "metadata": {"name": "rc"},
            "spec": {"replicas": 2, "minReadySeconds": 4, "selector": {"app": "web"},
                "template": {"metadata": {"labels": {"app": "web"}}}},
            "status": status,
        }))
        .expect("a controller");
        let set = to_set(&controller);
        let shown: Value = serde_json::to_value(&set.spec).expect("json");
        assert_eq!(
            shown,
            json!({"replicas": 2, "minReadySeconds": 4, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}}})
        );
        let back = to_status(set.status.expect("a status"));
        assert_eq!(serde_json::to_value(back).expect("json"), status);
    }
}
