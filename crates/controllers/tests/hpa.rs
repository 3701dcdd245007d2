//! Autoscalers against the real API server, with nodes that say what they are told to. The clock stands still but for waiting.

mod common;

use std::sync::{Arc, OnceLock};

use common::{Cluster, web};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use parking_lot::Mutex;
use serde_json::{Value, json};
use stead_apiserver::{AsyncReadWrite, NodeDialer};
use stead_controllers::Config;
use stead_informer::{Cache, Clock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const NAME: &str = "horizontal-pod-autoscaler";
const MIB: u64 = 1024 * 1024;

/// A clock that stands still with tokio's.
fn clock() -> Clock {
    let (start, zero) = (Timestamp::now(), Instant::now());
    Arc::new(move || start + SignedDuration::try_from(zero.elapsed()).unwrap_or_default())
}

/// Every pod uses as much as is said here.
struct Measuring {
    pods: OnceLock<Cache<Pod>>,
    mebibytes: Mutex<u64>,
    clock: Clock,
}

impl Measuring {
    fn summary(&self) -> String {
        let figures = json!({
            "name": "c",
            "cpu": {"time": (self.clock)().to_string(), "usageNanoCores": 1, "windowMilliSeconds": 15_000},
            "memory": {"workingSetBytes": *self.mebibytes.lock() * MIB},
        });
        let of = |pod: &Pod| {
            let meta = &pod.metadata;
            let mut pod = figures.clone();
            pod["podRef"] = json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid});
            pod["containers"] = json!([figures]);
            pod
        };
        let pods: Vec<Value> = self.pods.get().map(Cache::list).unwrap_or_default().iter().map(|pod| of(pod)).collect();
        json!({"node": figures, "pods": pods}).to_string()
    }
}

#[async_trait::async_trait]
impl NodeDialer for Measuring {
    async fn connect(&self, _: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        let (near, mut far) = tokio::io::duplex(4096);
        let text = self.summary();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match far.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            // Who asked may be gone by now.
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

async fn start(mebibytes: u64) -> (Cluster, Arc<Measuring>) {
    let clock = clock();
    let nodes = Arc::new(Measuring { pods: OnceLock::new(), mebibytes: Mutex::new(mebibytes), clock: clock.clone() });
    let config = Config { clock, ..Config::default() };
    let more = [NAME, "replication-controller"];
    let cluster = Cluster::start_among(&more, nodes.clone(), config).await;
    let _ = nodes.pods.set(cluster.pods.clone());
    (cluster, nodes)
}

fn template() -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"memory": "10Mi", "cpu": "1"}}});
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}})
}

fn autoscaler(kind: &str, more: &Value) -> Value {
    let mut spec = json!({
        "minReplicas": 1, "maxReplicas": 5,
        "scaleTargetRef": {"apiVersion": if kind == "StatefulSet" { "apps/v1" } else { "v1" }, "kind": kind, "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "memory",
            "target": {"type": "Utilization", "averageUtilization": 50}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": spec})
}

fn condition(autoscaler: &HorizontalPodAutoscaler, kind: &str) -> String {
    let status = autoscaler.status.clone().unwrap_or_default();
    let found = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == kind);
    found.map(|one| format!("{} {}", one.status, one.reason.unwrap_or_default())).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_set_grows_and_shrinks_with_what_its_pods_use() {
    let (cluster, nodes) = start(10).await;
    cluster.create::<StatefulSet>(web(2, json!({"volumeClaimTemplates": [], "template": template()}))).await;
    cluster.settled("web").await;
    let began = Instant::now();
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("StatefulSet", &json!({}))).await;
    cluster.set_until("web", |set| set.spec.replicas == Some(4)).await;
    assert!(began.elapsed().as_secs() >= 15, "the first look is after a whole period");
    cluster.settled("web").await;
    let autoscalers = cluster.caches.of::<HorizontalPodAutoscaler>();
    let seen = cluster
        .until(&autoscalers, |all| {
            all.list().first().filter(|one| !condition(one, "ScalingActive").is_empty()).cloned()
        })
        .await;
    assert_eq!(condition(&seen, "ScalingActive"), "True ValidMetricFound");
    let status = serde_json::to_value(seen.status.clone().expect("a status")).expect("json");
    assert_eq!(
        status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 100, "averageValue": (10 * MIB).to_string()})
    );
    *nodes.mebibytes.lock() = 1;
    cluster.set_until("web", |set| set.spec.replicas == Some(1)).await;
    let events = cluster.events("web", 2).await;
    let grown = "Normal SuccessfulRescale New size: 4; reason: memory resource utilization (percentage of request) above target";
    for wanted in [grown, "Normal SuccessfulRescale New size: 1; reason: All metrics below target"] {
        assert!(events.iter().any(|event| event == wanted), "{wanted} is not in {events:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replication_controller_is_kept_at_its_number_and_scaled() {
    let (cluster, _) = start(1).await;
    let controller = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
        "spec": {"replicas": 6, "template": template()},
    });
    cluster.create::<ReplicationController>(controller).await;
    let controllers = cluster.caches.of::<ReplicationController>();
    let ready = |wanted: i32| {
        move |all: &Cache<ReplicationController>| {
            let status = all.list().first()?.status.clone()?;
            (status.replicas == wanted && status.ready_replicas == Some(wanted)).then_some(())
        }
    };
    cluster.until(&controllers, ready(6)).await;
    let pod = cluster.pods.list().first().cloned().expect("a pod");
    let owner = &pod.metadata.owner_references.as_ref().expect("owners")[0];
    assert_eq!((owner.api_version.as_str(), owner.kind.as_str()), ("v1", "ReplicationController"));
    cluster.create::<HorizontalPodAutoscaler>(autoscaler("ReplicationController", &json!({}))).await;
    cluster.until(&controllers, ready(5)).await;
    let above = "Normal SuccessfulRescale New size: 5; reason: Current number of replicas above Spec.MaxReplicas";
    assert!(cluster.events("web", 1).await.iter().any(|event| event == above));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_scaled_is_told_once_a_period() {
    let (cluster, _) = start(1).await;
    for (kind, want) in [
        ("StatefulSet", "statefulsets.apps \"web\" not found"),
        ("Pod", "the server could not find the requested resource"),
        ("Nothing", "no matches for kind \"Nothing\" in group \"\""),
    ] {
        let mut object = autoscaler(kind, &json!({}));
        object["metadata"]["name"] = kind.to_lowercase().into();
        cluster.create::<HorizontalPodAutoscaler>(object).await;
        let events = cluster.events(&kind.to_lowercase(), 1).await;
        assert_eq!(events, [format!("Warning FailedGetScale {want}")]);
    }
}
