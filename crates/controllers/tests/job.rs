//! Jobs against the real API server, with simulated nodes.

mod common;

use common::{Cluster, NS};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::sync::Arc;

fn job(more: &Value) -> Value {
    let mut job = json!({
        "metadata": {"name": "job"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    });
    for (key, value) in more.as_object().expect("fields") {
        job["spec"][key] = value.clone();
    }
    job
}

async fn end(cluster: &Cluster, pod: &Pod, phase: &str) {
    let patch = Patch::Strategic(json!({"status": {"phase": phase}}));
    let name = pod.metadata.name.as_deref().expect("a name");
    cluster.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await.expect("patched");
}

/// Pods that neither ended nor are told to.
async fn running(cluster: &Cluster, count: usize) -> Vec<Arc<Pod>> {
    cluster
        .until(&cluster.pods, |pods| {
            let runs = |pod: &Arc<Pod>| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
                pod.metadata.deletion_timestamp.is_none() && !matches!(phase.as_str(), "Succeeded" | "Failed")
            };
            let running: Vec<_> = pods.list().into_iter().filter(runs).collect();
            (running.len() == count).then_some(running)
        })
        .await
}

async fn over(cluster: &Cluster, kind: &str) -> Arc<Job> {
    let jobs = cluster.caches.of::<Job>();
    cluster
        .until(&jobs, |jobs| {
            jobs.get(NS, "job").filter(|job| {
                let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
            })
        })
        .await
}

#[tokio::test]
async fn completes_and_counts() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<Job>(job(&json!({"completions": 3, "parallelism": 2}))).await;
    for pod in running(&cluster, 2).await {
        end(&cluster, &pod, "Succeeded").await;
    }
    for pod in running(&cluster, 1).await {
        end(&cluster, &pod, "Succeeded").await;
    }
    let status = over(&cluster, "Complete").await.status.clone().expect("a status");
    assert_eq!((status.succeeded, status.failed, status.active), (Some(3), None, None));
    assert!(status.completion_time.is_some());
    let held = |pod: &Arc<Pod>| pod.metadata.finalizers.iter().flatten().next().is_some();
    cluster.until(&cluster.pods, |pods| (!pods.list().iter().any(held)).then_some(())).await;
    let events = cluster.events("job", 4).await;
    assert_eq!(events.last().map(String::as_str), Some("Normal Completed Job completed"));
}

#[tokio::test]
async fn fails_at_its_limit_and_ends_the_rest() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<Job>(job(&json!({"completions": 2, "parallelism": 2, "backoffLimit": 0}))).await;
    let pods = running(&cluster, 2).await;
    end(&cluster, &pods[0], "Failed").await;
    let status = over(&cluster, "Failed").await.status.clone().expect("a status");
    assert_eq!((status.succeeded, status.failed, status.active), (None, Some(1), None));
    running(&cluster, 0).await;
}

#[tokio::test]
async fn an_indexed_job_has_a_pod_for_each_index() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<Job>(job(&json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"}))).await;
    let pods = running(&cluster, 2).await;
    let mut hosts: Vec<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.hostname.clone()).collect();
    hosts.sort();
    assert_eq!(hosts, ["job-0", "job-1"]);
    for pod in pods {
        end(&cluster, &pod, "Succeeded").await;
    }
    let status = over(&cluster, "Complete").await.status.clone().expect("a status");
    assert_eq!(status.completed_indexes.as_deref(), Some("0,1"));
}

#[tokio::test]
async fn a_job_that_is_deleted_leaves_no_pod_behind() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    let made = cluster.create::<Job>(job(&json!({"completions": 2, "parallelism": 2}))).await;
    let pods = running(&cluster, 2).await;
    // Gone at once, as `kubectl delete` does it; the garbage collector then tells its pods to go.
    cluster.api::<Job>().delete("job", &DeleteParams::background()).await.expect("deleted");
    for pod in &pods {
        let name = pod.metadata.name.as_deref().expect("a name");
        let _ = cluster.api::<Pod>().delete(name, &DeleteParams::default().grace_period(0)).await;
    }
    cluster.until(&cluster.pods, |pods| pods.list().is_empty().then_some(())).await;
    // A Job of the same name counts none of the pods of the one before it.
    let again = cluster.create::<Job>(job(&json!({"completions": 1}))).await;
    assert_ne!(made.metadata.uid, again.metadata.uid);
    running(&cluster, 1).await;
}
