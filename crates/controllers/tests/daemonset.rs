//! DaemonSets against the real API server, with simulated nodes.

mod common;

use common::{Cluster, NS};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

async fn node(cluster: &Cluster, name: &str) {
    let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a node");
    let api: Api<Node> = Api::all(cluster.client.clone());
    api.create(&PostParams::default(), &node).await.expect("created");
    // A node begins tainted as not ready.
    api.patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}}))).await.expect("patched");
}

/// Names of the nodes that the pods are meant for.
fn targets(pods: &[std::sync::Arc<Pod>]) -> Vec<String> {
    let target = |pod: &Pod| {
        let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
    };
    let mut targets: Vec<_> = pods.iter().filter_map(|pod| target(pod)).collect();
    targets.sort();
    targets
}

#[tokio::test]
async fn follows_the_nodes_and_rolls_out() {
    let cluster = Cluster::start().await;
    node(&cluster, "n1").await;
    cluster
        .create::<DaemonSet>(json!({
            "metadata": {"name": "ds"},
            "spec": {"selector": {"matchLabels": {"app": "ds"}}, "template": {
                "metadata": {"labels": {"app": "ds"}},
                "spec": {"containers": [{"name": "c", "image": "i:1"}]},
            }},
        }))
        .await;
    let on = |wanted: &'static [&str]| {
        move |pods: &stead_informer::Cache<Pod>| (targets(&pods.list()) == wanted).then_some(())
    };
    cluster.until(&cluster.pods, on(&["n1"])).await;
    node(&cluster, "n2").await;
    cluster.until(&cluster.pods, on(&["n1", "n2"])).await;

    // A taint that drives pods away.
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    nodes.patch("n2", &PatchParams::default(), &Patch::Merge(taint)).await.expect("patched");
    cluster.until(&cluster.pods, on(&["n1"])).await;
    nodes
        .patch("n2", &PatchParams::default(), &Patch::Merge(json!({"spec": {"taints": null}})))
        .await
        .expect("patched");
    cluster.until(&cluster.pods, on(&["n1", "n2"])).await;

    let sets = cluster.caches.of::<DaemonSet>();
    let done = |updated: i32| {
        move |sets: &stead_informer::Cache<DaemonSet>| {
            let set = sets.get(NS, "ds")?;
            let status = set.status.clone()?;
            let all = status.updated_number_scheduled == Some(updated) && status.number_available == Some(updated);
            (all && status.observed_generation == set.metadata.generation).then_some(())
        }
    };
    cluster.until(&sets, done(2)).await;
    let before: Vec<_> = cluster.pods.list().iter().map(|pod| pod.metadata.uid.clone()).collect();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    cluster.patch::<DaemonSet>("ds", image).await;
    cluster.until(&sets, done(2)).await;
    assert!(cluster.pods.list().iter().all(|pod| !before.contains(&pod.metadata.uid)), "all pods are new");

    nodes.delete("n2", &DeleteParams::default()).await.expect("deleted");
    cluster
        .until(&sets, |sets| {
            let status = sets.get(NS, "ds")?.status.clone()?;
            (status.desired_number_scheduled == 1).then_some(())
        })
        .await;
}
