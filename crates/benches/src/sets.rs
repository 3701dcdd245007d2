//! Sets with simulated nodes: how fast the control plane alone is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stead_informer::Cache;

use crate::plane::Plane;
use crate::{figure, process};

const WITHIN: Duration = Duration::from_secs(300);
/// Sets of the last figure, and pods of each.
const MANY_SETS: usize = 1000;
const MANY_PODS: i32 = 50;

/// A set that grows, is updated and goes.
pub(crate) async fn lives(plane: &Plane) -> Result<()> {
    let sets: Cache<StatefulSet> = plane.caches.of();
    let pods: Cache<Pod> = plane.caches.of();
    sets.synced().await;
    pods.synced().await;
    let api: Api<StatefulSet> = Api::default_namespaced(plane.client.clone());

    let started = Instant::now();
    create(&api, "wide", 1000, "Parallel").await?;
    ready(&sets, "wide", 1000).await?;
    figure("1,000 replicas, Parallel: create -> all Ready", ms(started), "ms", "2500");

    let started = Instant::now();
    api.delete("wide", &DeleteParams::default()).await?;
    gone(&pods, "wide").await?;
    figure("that set deleted -> no pods", ms(started), "ms", "2000");

    let started = Instant::now();
    create(&api, "long", 200, "OrderedReady").await?;
    ready(&sets, "long", 200).await?;
    figure("200 replicas, OrderedReady: create -> all Ready", ms(started), "ms", "1500");

    let started = Instant::now();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "i:2"}]}}}});
    // The cache may not have this generation yet.
    let asked = api.patch("long", &PatchParams::default(), &Patch::Strategic(image)).await?.metadata.generation;
    let updated = |set: &StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.observed_generation == asked
            && status.current_revision == status.update_revision
            && status.updated_replicas == Some(200)
            && status.ready_replicas == Some(200)
    };
    until(&sets, "long", updated).await?;
    figure("rolling update of those 200", ms(started), "ms", "3000");
    api.delete("long", &DeleteParams::default()).await?;
    gone(&pods, "long").await
}

/// Many sets at once, and what a pod costs then.
pub(crate) async fn many(plane: &Plane) -> Result<()> {
    let sets: Cache<StatefulSet> = plane.caches.of();
    let api: Api<StatefulSet> = Api::default_namespaced(plane.client.clone());
    let before = process::resident_mib(std::process::id())?;
    let started = Instant::now();
    for number in 0..MANY_SETS {
        create(&api, &format!("many-{number}"), MANY_PODS, "Parallel").await?;
    }
    for number in 0..MANY_SETS {
        ready(&sets, &format!("many-{number}"), MANY_PODS).await?;
    }
    let pods = MANY_SETS as f64 * f64::from(MANY_PODS);
    let seconds = started.elapsed().as_secs_f64();
    figure("1,000 sets of 50, Parallel: create -> all Ready", seconds, "s", "-");
    figure("pods that became Ready", pods / seconds, "/s", "-");
    let kib = (process::resident_mib(std::process::id())? - before) * 1024.0 / pods;
    figure("memory per pod (server, controllers, nodes and bench together)", kib, "KiB", "-");
    Ok(())
}

async fn create(api: &Api<StatefulSet>, name: &str, replicas: i32, policy: &str) -> Result<()> {
    api.create(&PostParams::default(), &serde_json::from_value(set(name, replicas, policy))?).await?;
    Ok(())
}

/// A set as people write them, without claims.
pub(crate) fn set(name: &str, replicas: i32, policy: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "metadata": {"name": name},
        "spec": {
            "serviceName": name, "replicas": replicas, "podManagementPolicy": policy, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{
                "name": "main", "image": "i:1", "ports": [{"name": "tcp", "containerPort": 6379}],
                "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"tcpSocket": {"port": 6379}},
            }]}},
        },
    })
}

async fn ready(sets: &Cache<StatefulSet>, name: &str, replicas: i32) -> Result<()> {
    until(sets, name, |set| set.status.as_ref().and_then(|status| status.ready_replicas) == Some(replicas)).await
}

async fn until(sets: &Cache<StatefulSet>, name: &str, wanted: impl Fn(&StatefulSet) -> bool) -> Result<()> {
    let there = |sets: &Cache<StatefulSet>| sets.get("default", name).is_some_and(|set| wanted(&set));
    tokio::time::timeout(WITHIN, sets.until(there)).await.with_context(|| format!("set {name} is not as wanted"))
}

async fn gone(pods: &Cache<Pod>, set: &str) -> Result<()> {
    // The last to go is any of them: the first that is still there is looked at, not all.
    let mut left = pods.list_ns("default");
    left.retain(|pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with(&format!("{set}-"))));
    for pod in left {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let away = |pods: &Cache<Pod>| pods.get("default", name).is_none();
        tokio::time::timeout(WITHIN, pods.until(away)).await.with_context(|| format!("pod {name} is still there"))?;
    }
    Ok(())
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
