//! One look at a set that is as it should be: what it costs must not grow with the cluster.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::Value;
use stead_controllers::statefulset::StatefulSets;
use stead_controllers::{Config, Context, Controller, Key, Queue};
use stead_informer::{Caches, Recorder};
use stead_store::{Durability, Expect, Store, Write};

use crate::plane::Plane;
use crate::sets::set;
use crate::{figure, percentile};

/// Pods of each set.
const PODS: usize = 50;
/// Sets that are looked at, at most.
const LOOKS: usize = 1000;

/// The median and the worst of many looks, in clusters of two sizes.
pub(crate) async fn idle(plane: &Plane) -> Result<()> {
    let pattern = pattern(plane).await?;
    for pods in [1000, 100_000] {
        let Looks { first, median, worst } = look(&pattern, pods / PODS).await?;
        figure(&format!("first sync of a set of 50, {pods} pods: median"), first, "us", "-");
        figure(&format!("no-op sync of a set of 50, {pods} pods: median"), median, "us", "50");
        figure(&format!("no-op sync of a set of 50, {pods} pods: p99"), worst, "us", "-");
    }
    Ok(())
}

/// One object of the pattern: its key's beginning and end, and its text.
struct Stored {
    prefix: &'static str,
    text: String,
    uid: String,
}

/// What a set that is as it should be consists of, as the server stores it.
async fn pattern(plane: &Plane) -> Result<Vec<Stored>> {
    let api: Api<StatefulSet> = Api::default_namespaced(plane.client.clone());
    let mut object = set("s00000", PODS as i32, "Parallel");
    // The same template in every set: the names of revisions follow from it.
    object["spec"]["selector"]["matchLabels"]["app"] = "same".into();
    object["spec"]["template"]["metadata"]["labels"]["app"] = "same".into();
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let sets = plane.caches.of::<StatefulSet>();
    let settled = |set: &StatefulSet| {
        let status = set.status.clone().unwrap_or_default();
        status.available_replicas == Some(PODS as i32) && status.updated_replicas == Some(PODS as i32)
    };
    sets.until(|sets| sets.get("default", "s00000").is_some_and(|set| settled(&set))).await;
    let mut stored = Vec::new();
    for (path, prefix) in [
        ("/apis/apps/v1/namespaces/default/statefulsets", "/registry/statefulsets.apps/default/"),
        ("/apis/apps/v1/namespaces/default/controllerrevisions", "/registry/controllerrevisions.apps/default/"),
        ("/api/v1/namespaces/default/pods", "/registry/pods/default/"),
    ] {
        let request = http::Request::get(path).body(Vec::new())?;
        let list: Value = plane.client.request(request).await?;
        let kind = list["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).context("a list")?.to_owned();
        for item in list["items"].as_array().context("items")? {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            if !name.starts_with("s00000") {
                continue;
            }
            stored.push(Stored {
                prefix,
                uid: item["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                text: as_stored(item, &kind, list["apiVersion"].as_str().unwrap_or_default())?,
            });
        }
    }
    Ok(stored)
}

/// Kind, version and metadata first, and no resource version.
fn as_stored(item: &Value, kind: &str, version: &str) -> Result<String> {
    let mut rest = item.as_object().context("an object")?.clone();
    let mut metadata = rest.remove("metadata").context("metadata")?;
    metadata.as_object_mut().context("metadata")?.remove("resourceVersion");
    let rest = Value::Object(rest).to_string();
    Ok(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},{}", &rest[1..]))
}

/// How long looks took, in us: those at sets that the controller had not seen before, and all later ones.
struct Looks {
    first: f64,
    median: f64,
    worst: f64,
}

/// Fills a server in memory with so many copies, looks at each of them, and then at some of them again.
async fn look(pattern: &[Stored], sets: usize) -> Result<Looks> {
    let store = stead_store::memory();
    let plane = Plane::over(store.clone(), tempfile::tempdir()?).await?;
    for number in 0..sets {
        copy(&*store, pattern, number).await?;
    }
    let caches = Caches::new(plane.client.clone());
    let config = Config::default();
    let recorder = Recorder::new(plane.client.clone(), "bench", "", config.clock.clone());
    let cx = Context { client: plane.client.clone(), caches: caches.clone(), recorder, config: Arc::new(config) };
    let controller = StatefulSets::start(cx, &Queue::new());
    controller.synced().await;
    anyhow::ensure!(caches.of::<Pod>().len() == sets * PODS, "some pods are missing");
    let before = store.revision();
    let mut first = Vec::with_capacity(sets);
    for number in 0..sets {
        first.push(timed(&controller, number).await?);
    }
    let mut again = Vec::with_capacity(LOOKS);
    for look in 0..LOOKS {
        again.push(timed(&controller, look * 7919 % sets).await?);
    }
    anyhow::ensure!(store.revision() == before, "a look at a set that is as it should be wrote something");
    let (median, worst) = (percentile(&mut again, 0.5), percentile(&mut again, 0.99));
    Ok(Looks { first: percentile(&mut first, 0.5), median, worst })
}

async fn timed(controller: &StatefulSets, number: usize) -> Result<f64> {
    let key = Key::new("default", &format!("s{number:05}"));
    let started = Instant::now();
    controller.reconcile(&key).await?;
    Ok(started.elapsed().as_secs_f64() * 1e6)
}

async fn copy(store: &dyn Store, pattern: &[Stored], number: usize) -> Result<()> {
    let name = format!("s{number:05}");
    let uid = |place: usize| format!("00000000-0000-4000-8000-{:012x}", number * 1000 + place);
    let of_set = pattern.first().context("a set")?;
    for (place, stored) in pattern.iter().enumerate() {
        let text = stored.text.replace("s00000", &name).replace(&of_set.uid, &uid(0)).replace(&stored.uid, &uid(place));
        let object: Value = serde_json::from_str(&text)?;
        let key = format!("{}{}", stored.prefix, object["metadata"]["name"].as_str().unwrap_or_default());
        let (key, value) = (key.into(), Some(text.into()));
        store.write(Write { key, value, expect: Expect::Absent, durability: Durability::Lazy }).await?;
    }
    Ok(())
}
