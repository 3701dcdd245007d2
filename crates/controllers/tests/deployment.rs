//! Deployments and ReplicaSets against the real API server, with simulated nodes.

mod common;

use common::Cluster;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

fn deployment(replicas: u32, strategy: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1.21"}]},
            },
        },
    })
}

fn image(tag: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": tag}]}}}})
}

/// Waits until the roll-out is complete, as `kubectl rollout status` does.
async fn rolled_out(cluster: &Cluster) -> Arc<Deployment> {
    let deployments = cluster.caches.of::<Deployment>();
    cluster
        .until(&deployments, |cache| {
            cache.get(common::NS, "web").filter(|deployment| {
                let status = deployment.status.clone().unwrap_or_default();
                let wanted = deployment.spec.replicas;
                let complete = status.conditions.iter().flatten().any(|condition| {
                    condition.type_.as_deref() == Some("Progressing")
                        && condition.reason.as_deref() == Some("NewReplicaSetAvailable")
                });
                complete
                    && status.observed_generation == deployment.metadata.generation
                    && [status.replicas, status.updated_replicas, status.available_replicas]
                        .iter()
                        .all(|n| *n == wanted)
            })
        })
        .await
}

fn revision(deployment: &Deployment) -> &str {
    &deployment.metadata.annotations.as_ref().expect("annotations")["deployment.kubernetes.io/revision"]
}

#[tokio::test]
async fn rolls_out_and_back() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(3, &json!({"type": "RollingUpdate"}))).await;
    assert_eq!(revision(&*rolled_out(&cluster).await), "1");
    let sets = cluster.names::<ReplicaSet>().await;
    assert_eq!(sets.len(), 1);
    let pods = cluster.names::<Pod>().await;
    assert!(pods.len() == 3 && pods.iter().all(|pod| pod.starts_with(&format!("{}-", sets[0]))), "{pods:?}");

    cluster.patch::<Deployment>("web", image("nginx:1.22")).await;
    assert_eq!(revision(&*rolled_out(&cluster).await), "2");
    assert_eq!(cluster.names::<ReplicaSet>().await.len(), 2);

    cluster.patch::<Deployment>("web", image("nginx:1.21")).await;
    assert_eq!(revision(&*rolled_out(&cluster).await), "3");
    assert_eq!(cluster.names::<ReplicaSet>().await.len(), 2, "the first one is used again");
    let all = cluster.caches.of::<ReplicaSet>();
    let first = all.get(common::NS, &sets[0]).expect("exists");
    let annotations = first.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");

    let events = cluster.events("web", 4).await;
    assert_eq!(events[0], format!("Normal ScalingReplicaSet Scaled up replica set {} from 0 to 3", sets[0]));
}

#[tokio::test]
async fn recreate_never_runs_old_and_new_together() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(2, &json!({"type": "Recreate"}))).await;
    rolled_out(&cluster).await;
    cluster.take_log();
    cluster.patch::<Deployment>("web", image("nginx:1.22")).await;
    rolled_out(&cluster).await;
    let log = cluster.take_log();
    let first_new = log.find('+').expect("new pods");
    let last_gone = log.rfind(" -").expect("old pods went");
    assert!(last_gone < first_new, "{log}");
}

#[tokio::test]
async fn scales_and_replaces_lost_pods() {
    let cluster = Cluster::start().await;
    cluster.create::<Deployment>(deployment(2, &json!({"type": "RollingUpdate"}))).await;
    rolled_out(&cluster).await;
    cluster.patch::<Deployment>("web", json!({"spec": {"replicas": 5}})).await;
    rolled_out(&cluster).await;
    let lost = cluster.names::<Pod>().await[0].clone();
    cluster.take_log();
    cluster.delete::<Pod>(&lost).await;
    cluster.until(&cluster.pods, |pods| (pods.get(common::NS, &lost).is_none() && pods.len() == 5).then_some(())).await;
    cluster.patch::<Deployment>("web", json!({"spec": {"replicas": 0}})).await;
    cluster.until(&cluster.pods, |pods| pods.is_empty().then_some(())).await;
}
