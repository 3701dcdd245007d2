//! Lists and watches of many objects, over TLS as any client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::future::try_join_all;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use serde_json::json;
use stead_client::Client;
use tokio::sync::mpsc;

use crate::{figure, percentile};

const CLIENTS: usize = 32;
const PODS: usize = 5000;
const LISTS: usize = 20;
const WATCHERS: usize = 100;
/// Writes of the quiet figure, and the pause between two.
const WRITES: usize = 250;
const PAUSE: Duration = Duration::from_millis(20);
/// Writes of each client at full speed.
const RUSH: usize = 150;

/// Pods, lists and watches.
pub(crate) async fn all(client: &Client) -> Result<()> {
    crate::api::alone(client).await?;
    pods(client).await?;
    fan_out(client).await
}

/// A pod with a bit of everything, of a scheduler that is not there: nobody else works on it.
pub(crate) fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"load": "pods", "app": "load"}},
        "spec": {"schedulerName": "nobody", "containers": [{
            "name": "main", "image": "registry.example/some/image:1.2.3",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }], "volumes": [{"name": "scratch", "emptyDir": {}}]},
    }))?)
}

/// Pods by many clients, and lists of all of them.
async fn pods(client: &Client) -> Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let started = Instant::now();
    let worker = |worker: usize| {
        let api = api.clone();
        async move {
            let mut times = Vec::new();
            for number in (worker..PODS).step_by(CLIENTS) {
                let pod = pod(&format!("load-{number}"))?;
                let began = Instant::now();
                api.create(&PostParams::default(), &pod).await?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, anyhow::Error>(times)
        }
    };
    let workers: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(worker(number))).collect();
    let mut times = Vec::new();
    for some in try_join_all(workers).await? {
        times.extend(some?);
    }
    figure("pod creates, 32 clients", PODS as f64 / started.elapsed().as_secs_f64(), "/s", "5000");
    figure("pod creates, 32 clients: p99", percentile(&mut times, 0.99), "ms", "-");
    lists(client).await?;
    let all = ListParams::default().labels("load=pods");
    api.delete_collection(&DeleteParams::default().grace_period(0), &all).await?;
    Ok(())
}

async fn lists(client: &Client) -> Result<()> {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..LISTS {
        let started = Instant::now();
        let request = http::Request::get("/api/v1/pods?labelSelector=").body(Body::empty())?;
        let mut body = client.send(request).await?.into_body();
        bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, bytes::Bytes::len);
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let what = format!("list of {PODS} pods ({:.1} MB): median", bytes as f64 / 1e6);
    figure(&what, percentile(&mut times, 0.5), "ms", "25");
    Ok(())
}

/// One writer and many watchers: how late each sees a write, and how much all see together at full speed.
async fn fan_out(client: &Client) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "watched"}, "data": {"at": ""}}))?;
    api.create(&PostParams::default(), &object).await?;
    let began = Instant::now();
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let delivered = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..WATCHERS {
        let (client, seen, delivered) = (client.clone(), seen.clone(), delivered.clone());
        let path = "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0";
        let answer = client.send(http::Request::get(path).body(Body::empty())?).await?;
        tasks.push(tokio::spawn(watch(answer.into_body(), began, seen, delivered)));
    }
    for _ in 0..WRITES {
        let at = began.elapsed().as_nanos().to_string();
        api.patch("watched", &PatchParams::default(), &Patch::Merge(json!({"data": {"at": at}}))).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let mut times = Vec::with_capacity(WRITES * WATCHERS);
    while times.len() < WRITES * WATCHERS {
        let late: Duration =
            tokio::time::timeout(Duration::from_secs(10), arrivals.recv()).await?.context("a watch ended")?;
        times.push(late.as_secs_f64() * 1e3);
    }
    figure("watch fan-out to 100 watchers, 50 writes/s: p50", percentile(&mut times, 0.5), "ms", "-");
    figure("watch fan-out to 100 watchers, 50 writes/s: p99", percentile(&mut times, 0.99), "ms", "2");
    rush(client, &delivered).await?;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// Reads one watch for ever: how late each marked change comes, and how many there are.
async fn watch(
    body: Body,
    began: Instant,
    seen: mpsc::UnboundedSender<Duration>,
    delivered: Arc<AtomicU64>,
) -> Result<()> {
    const MARK: &[u8] = b"\"at\":\"";
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let (frame, now) = (frame?, began.elapsed());
        delivered.fetch_add(frame.iter().filter(|byte| **byte == b'\n').count() as u64, Ordering::Relaxed);
        for place in frame.windows(MARK.len()).enumerate().filter(|(_, part)| *part == MARK).map(|(place, _)| place) {
            let digits: String =
                frame[place + MARK.len()..].iter().map_while(|b| b.is_ascii_digit().then_some(*b as char)).collect();
            if let Ok(at) = digits.parse::<u64>() {
                let _ = seen.send(now.saturating_sub(Duration::from_nanos(at)));
            }
        }
    }
    Ok(())
}

async fn rush(client: &Client, delivered: &AtomicU64) -> Result<()> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (before, started) = (delivered.load(Ordering::Relaxed), Instant::now());
    let writer = |worker: usize| {
        let api = api.clone();
        async move {
            for number in 0..RUSH {
                let object: ConfigMap =
                    serde_json::from_value(json!({"metadata": {"name": format!("rush-{worker}-{number}")}}))?;
                api.create(&PostParams::default(), &object).await?;
            }
            Ok::<_, anyhow::Error>(())
        }
    };
    let writers: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(writer(number))).collect();
    for done in try_join_all(writers).await? {
        done?;
    }
    let all = (CLIENTS * RUSH * WATCHERS) as u64;
    while delivered.load(Ordering::Relaxed) - before < all {
        anyhow::ensure!(started.elapsed() < Duration::from_secs(60), "some watches lag for ever");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    figure(
        "watch deliveries at full speed, 100 watchers",
        all as f64 / started.elapsed().as_secs_f64(),
        "/s",
        "200000",
    );
    Ok(())
}
