//! Real pods: how long until they are Ready.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stead_client::Client;
use stead_informer::{Cache, Caches};

use crate::{figure, percentile};

const WITHIN: Duration = Duration::from_secs(120);

/// Three pods with a claim each, one after the other; then the intervals between them and the claims' time to be bound.
pub(crate) async fn ordered(client: &Client) -> Result<()> {
    let caches = Caches::new(client.clone());
    let (pods, claims): (Cache<Pod>, Cache<PersistentVolumeClaim>) = (caches.of(), caches.of());
    pods.synced().await;
    claims.synced().await;
    // The first set pulls the image; the second one is measured.
    create(client, "warm", 1, "OrderedReady").await?;
    ready(&pods, "warm-0", "").await?;
    let (seen, mut bound) = (Instant::now(), claims.subscribe());
    let watching = tokio::spawn(async move {
        let (mut asked, mut times) = (std::collections::HashMap::new(), Vec::new());
        while times.len() < 3 {
            let Some(change) = bound.next().await else { break };
            let Some(claim) = change.new else { continue };
            let name = claim.metadata.name.clone().unwrap_or_default();
            let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
            let now = seen.elapsed().as_secs_f64() * 1e3;
            let first = *asked.entry(name.clone()).or_insert(now);
            if phase.as_deref() == Some("Bound")
                && name.starts_with("data-web-")
                && asked.insert(name + " bound", now).is_none()
            {
                times.push(now - first);
            }
        }
        times
    });
    let started = Instant::now();
    create(client, "web", 3, "OrderedReady").await?;
    let mut at = Vec::new();
    for pod in ["web-0", "web-1", "web-2"] {
        ready(&pods, pod, "").await?;
        at.push(started.elapsed().as_secs_f64() * 1e3);
    }
    figure("3 ordered pods with claims, image local: create -> all Ready", at[2], "ms", "450");
    let mut intervals = vec![at[1] - at[0], at[2] - at[1]];
    figure("one pod Ready -> the next one Ready", percentile(&mut intervals, 0.5), "ms", "150");
    let mut times = tokio::time::timeout(WITHIN, watching).await??;
    figure("claim created -> Bound (median of 3)", percentile(&mut times, 0.5), "ms", "20");
    Ok(())
}

/// A pod deleted with no grace to wait for: how long until its replacement is Ready.
pub(crate) async fn replaced(client: &Client) -> Result<()> {
    let caches = Caches::new(client.clone());
    let pods: Cache<Pod> = caches.of();
    let old = ready(&pods, "web-1", "").await?;
    let started = Instant::now();
    Api::<Pod>::default_namespaced(client.clone()).delete("web-1", &DeleteParams::default().grace_period(1)).await?;
    ready(&pods, "web-1", &old).await?;
    figure("real pod deleted -> its replacement Ready", started.elapsed().as_secs_f64() * 1e3, "ms", "300");
    Ok(())
}

/// A set of three that starts its pods at once, scaled to ten.
pub(crate) async fn grown(client: &Client) -> Result<()> {
    let caches = Caches::new(client.clone());
    let pods: Cache<Pod> = caches.of();
    create(client, "grown", 3, "Parallel").await?;
    for pod in ["grown-0", "grown-1", "grown-2"] {
        ready(&pods, pod, "").await?;
    }
    let started = Instant::now();
    let api = Api::<StatefulSet>::default_namespaced(client.clone());
    api.patch("grown", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 10}}))).await?;
    for ordinal in 3..10 {
        ready(&pods, &format!("grown-{ordinal}"), "").await?;
    }
    figure("3 -> 10 pods with claims, Parallel", started.elapsed().as_secs_f64() * 1e3, "ms", "1000");
    api.delete("grown", &DeleteParams::default()).await?;
    let left =
        || pods.list().iter().any(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with("grown")));
    tokio::time::timeout(WITHIN, pods.until(|_| !left())).await.context("the pods did not go")
}

/// Fifty pods at once.
pub(crate) async fn fifty(client: &Client) -> Result<()> {
    let caches = Caches::new(client.clone());
    let pods: Cache<Pod> = caches.of();
    let started = Instant::now();
    create(client, "many", 46, "Parallel").await?;
    let many = || pods.list().iter().filter(|pod| is_ready(pod)).count() >= 50;
    tokio::time::timeout(WITHIN, pods.until(|_| many())).await.context("50 pods did not become ready")?;
    figure("46 more pods with claims, Parallel: create -> all Ready", started.elapsed().as_secs_f64() * 1e3, "ms", "-");
    Ok(())
}

async fn create(client: &Client, name: &str, replicas: i32, policy: &str) -> Result<()> {
    let labels = json!({"app": name});
    let set: Value = json!({
        "metadata": {"name": name},
        "spec": {
            "serviceName": name, "replicas": replicas, "podManagementPolicy": policy, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                "name": "main", "image": "busybox:1.36", "command": ["sh", "-c", "trap exit TERM; sleep 1000000 & wait"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}],
        },
    });
    let set: StatefulSet = serde_json::from_value(set)?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &set).await?;
    Ok(())
}

/// Waits until the pod is Ready under another uid than `not` and returns its uid.
async fn ready(pods: &Cache<Pod>, name: &str, not: &str) -> Result<String> {
    let found = || {
        let pod = pods.get("default", name).filter(|pod| is_ready(pod))?;
        pod.metadata.uid.clone().filter(|uid| uid != not)
    };
    let wait = tokio::time::timeout(WITHIN, pods.until(|_| found().is_some())).await;
    wait.with_context(|| format!("{name} did not become ready"))?;
    found().with_context(|| format!("{name} is gone again"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
