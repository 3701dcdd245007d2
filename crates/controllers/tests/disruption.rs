//! Disruption budgets, the eviction sub-resource, and pods of lost nodes, against the real API server.

mod common;

use common::{Cluster, web};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const CONTROLLERS: [&str; 3] = ["disruption-controller", "disruption-mark-controller", "taint-eviction-controller"];

async fn three(spec: Value) -> Cluster {
    let cluster = Cluster::start_with(&CONTROLLERS).await;
    cluster.create::<StatefulSet>(web(3, json!({"volumeClaimTemplates": []}))).await;
    cluster.settled("web").await;
    let budget =
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": spec});
    cluster.create::<PodDisruptionBudget>(budget).await;
    cluster
}

/// Waits until the budget has counted: allowed, healthy, desired, expected.
async fn counted(cluster: &Cluster, expected: [i32; 4]) {
    let budgets = cluster.caches.of::<PodDisruptionBudget>();
    let numbers = |budget: &PodDisruptionBudget| {
        let status = budget.status.clone().unwrap_or_default();
        let all = [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods];
        all.map(|number| number.unwrap_or(-1))
    };
    cluster.until(&budgets, |budgets| budgets.list().iter().any(|b| numbers(b) == expected).then_some(())).await;
}

async fn evict(cluster: &Cluster, pod: &str) -> Result<(), kube::Error> {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    let api = cluster.api::<Pod>();
    api.create_subresource::<Value, Value>("eviction", pod, &PostParams::default(), &eviction).await.map(|_| ())
}

#[tokio::test]
async fn evictions_spend_the_budget_and_it_comes_back_with_the_pod() {
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    let cluster = three(spec).await;
    counted(&cluster, [1, 3, 2, 3]).await;
    cluster.hold_nodes();
    evict(&cluster, "web-2").await.expect("one may go");
    let going = cluster.pod_until("web-2", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = going.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mark = conditions.iter().find(|condition| condition.type_ == "DisruptionTarget").expect("a mark");
    assert_eq!(mark.reason.as_deref(), Some("EvictionByEvictionAPI"));
    counted(&cluster, [0, 2, 2, 3]).await;
    let Err(kube::Error::Api(refused)) = evict(&cluster, "web-1").await else { panic!("no second one") };
    assert_eq!(refused.code, 429);
    assert_eq!(refused.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = refused.details.as_ref().and_then(|details| details.causes.first()).expect("a cause");
    assert_eq!(cause.message, "The disruption budget web needs 2 healthy pods and has 2 currently");
    cluster.gone("web-2").await;
    cluster.pod_until("web-2", |pod| pod.metadata.deletion_timestamp.is_none()).await;
    cluster.ready("web-2").await;
    counted(&cluster, [1, 3, 2, 3]).await;
    evict(&cluster, "web-1").await.expect("now it may go");
}

#[tokio::test]
async fn a_budget_without_pods_allows_nothing_and_says_so() {
    let cluster = three(json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "nobody"}}})).await;
    counted(&cluster, [0, 0, 1, 0]).await;
    assert!(cluster.events("web", 4).await.contains(&"Normal NoPods No matching pods found".to_owned()));
}

#[tokio::test]
async fn a_budget_is_counted_again_when_its_pods_owner_wants_another_number_and_no_pod_changes() {
    let cluster = Cluster::start_with(&CONTROLLERS).await;
    cluster.hold_nodes();
    let labels = json!({"app": "web"});
    let containers = json!([{"name": "c", "image": "i"}]);
    // Nobody looks after it here.
    let owner = cluster
        .create::<ReplicationController>(json!({
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1, "selector": labels,
                "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            },
        }))
        .await;
    let reference = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "name": "web", "uid": owner.metadata.uid, "controller": true,
    });
    let meta = json!({"name": "one", "labels": labels, "ownerReferences": [reference]});
    cluster.create::<Pod>(json!({"metadata": meta, "spec": {"containers": containers}})).await;
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": labels}});
    cluster.create::<PodDisruptionBudget>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    counted(&cluster, [0, 0, 0, 1]).await;
    let more = json!({"spec": {"replicas": 5}});
    let api = cluster.api::<ReplicationController>();
    api.patch("web", &PatchParams::default(), &Patch::Merge(more)).await.expect("patched");
    counted(&cluster, [0, 0, 4, 5]).await;
}

#[tokio::test]
async fn a_taint_ends_the_pods_that_do_not_tolerate_it() {
    let cluster = Cluster::start_with(&CONTROLLERS).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": "node-1"}})).expect("a node");
    nodes.create(&PostParams::default(), &node).await.expect("created");
    cluster.create::<StatefulSet>(web(1, json!({"volumeClaimTemplates": []}))).await;
    let mut tolerant = web(1, json!({"volumeClaimTemplates": []}));
    tolerant["metadata"]["name"] = "tough".into();
    tolerant["spec"]["template"]["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    cluster.create::<StatefulSet>(tolerant).await;
    cluster.settled("web").await;
    cluster.settled("tough").await;
    cluster.hold_nodes();
    cluster.take_log();
    let taints = Patch::Merge(json!({"spec": {"taints": [{"key": "broken", "effect": "NoExecute"}]}}));
    nodes.patch("node-1", &PatchParams::default(), &taints).await.expect("tainted");
    let going = cluster.pod_until("web-0", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let conditions = going.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    assert!(conditions.iter().any(|c| c.reason.as_deref() == Some("DeletionByTaintManager")), "{conditions:?}");
    assert_eq!(
        cluster.events("web-0", 1).await,
        ["Normal TaintManagerEviction Marking for deletion Pod default/web-0"]
    );
    assert_eq!(cluster.take_log(), "~web-0");
}
