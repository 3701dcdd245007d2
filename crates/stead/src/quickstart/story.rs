//! The story: a set comes up in order, a pod is deleted, its replacement has the name, the volume and the data.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use stead_api::typed;
use stead_client::Client;
use stead_informer::{Cache, Caches};

use super::screen::Screen;

const NAME: &str = "demo";
const REPLICAS: i32 = 3;
const PORT: u16 = 8080;
/// How long each act may take before the quickstart gives up and says so.
const ACT_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn tell(client: &Client, image: &str, screen: &Screen) -> Result<()> {
    let caches = Caches::new(client.clone());
    let pods: Cache<Pod> = caches.of();
    pods.synced().await;
    narrate(&pods, screen);

    screen.act("A StatefulSet of three, each with its own volume");
    create(client, image).await?;
    for ordinal in 0..REPLICAS {
        ready(&pods, &format!("{NAME}-{ordinal}"), "").await?;
    }
    screen.say("all three are ready; they came up one after the other");

    screen.act("One pod is killed");
    let victim = format!("{NAME}-1");
    let before = ready(&pods, &victim, "").await?;
    let said_before = ask(&before)?;
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    screen.say(&format!("{victim} says: {said_before}"));
    screen.say(&format!("deleting {victim}"));
    api.delete(&victim, &DeleteParams::default().grace_period(1)).await?;
    let old = before.metadata.uid.clone().unwrap_or_default();
    let after = ready(&pods, &victim, &old).await?;
    let said_after = ask(&after)?;
    screen.say(&format!("{victim} says: {said_after}"));
    ensure!(said_after == format!("{victim} starts=2"), "the new {victim} did not find the data of the old one");
    screen.say("a new pod in its stead: same name, same volume, and the count goes on");
    Ok(())
}

/// Prints each change of a pod that a person would care about.
fn narrate(pods: &Cache<Pod>, screen: &Screen) {
    let screen = *screen;
    pods.on_change(move |change| {
        let (before, now) = (change.old.as_deref().map(state), change.new.as_deref().map(state));
        let name =
            change.new.as_ref().or(change.old.as_ref()).and_then(|pod| pod.metadata.name.clone()).unwrap_or_default();
        if before != now {
            screen.say(&format!("  {name:<8} {}", now.unwrap_or("gone")));
        }
    });
}

/// One word for where a pod is in its life.
fn state(pod: &Pod) -> &'static str {
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    if pod.metadata.deletion_timestamp.is_some() {
        "ending"
    } else if is_ready(pod) {
        "ready"
    } else if placed {
        "starting"
    } else {
        "waiting for a place"
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Waits until the pod is ready under another uid than `not`.
async fn ready(pods: &Cache<Pod>, name: &str, not: &str) -> Result<Pod> {
    let found = || pods.get("default", name).filter(|pod| is_ready(pod) && pod.metadata.uid.as_deref() != Some(not));
    tokio::time::timeout(ACT_WITHIN, pods.until(|_| found().is_some()))
        .await
        .with_context(|| format!("{name} did not become ready within {} s", ACT_WITHIN.as_secs()))?;
    found().map(|pod| (*pod).clone()).with_context(|| format!("{name} is gone again"))
}

async fn create(client: &Client, image: &str) -> Result<()> {
    let labels = json!({"app": NAME});
    let service: Service = typed::from_value(&json!({
        "metadata": {"name": NAME},
        "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "http", "port": PORT}]},
    }))?;
    let set: StatefulSet = typed::from_value(&json!({
        "metadata": {"name": NAME},
        "spec": {
            "serviceName": NAME, "replicas": REPLICAS, "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{
                    "name": NAME, "image": image, "imagePullPolicy": "Never",
                    "ports": [{"name": "http", "containerPort": PORT}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                }]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
            }],
        },
    }))?;
    Api::<Service>::default_namespaced(client.clone()).create(&PostParams::default(), &service).await?;
    Api::<StatefulSet>::default_namespaced(client.clone()).create(&PostParams::default(), &set).await?;
    Ok(())
}

/// Asks the pod, at its address, what it has to say.
fn ask(pod: &Pod) -> Result<String> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("the pod has no address")?;
    let mut stream =
        TcpStream::connect((address.as_str(), PORT)).with_context(|| format!("http://{address}:{PORT}"))?;
    stream.set_read_timeout(Some(ACT_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().trim().to_owned())
}
