//! How fast StatefulSets go: real API server, store in memory, simulated nodes. Prints one figure per line.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use common::{Cluster, web};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;
use stead_workloads::statefulset::{Observed, identity, plan, revisions};

#[tokio::main]
async fn main() {
    for replicas in [3, 1000] {
        look_without_need(replicas);
    }
    parallel(1000).await;
    // Twice as many must not take much more than twice as long.
    for replicas in [20, 100, 200] {
        ordered(replicas).await;
    }
}

/// Wall clock and processor time since it was started: the second is what a busy machine does not spoil.
struct Watch {
    started: Instant,
    used: f64,
}

impl Watch {
    fn start() -> Self {
        Self { started: Instant::now(), used: processor_ms() }
    }

    fn told(&self, what: &str, budget: &str) {
        figure(what, self.started.elapsed().as_secs_f64() * 1e3, "ms", budget);
        figure("  of the processors", processor_ms() - self.used, "ms", "-");
    }
}

/// Processor time of this process, in steps of 10 ms.
fn processor_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

fn figure(what: &str, value: f64, unit: &str, budget: &str) {
    println!("{what:<60} {value:>10.1} {unit:<3} (must: {budget})");
}

/// A look at a set that is as wanted: caches to plan.
fn look_without_need(replicas: u32) {
    let set: StatefulSet = serde_json::from_value(web(replicas, json!({}))).expect("a set");
    let name = revisions::decide(&set, &[], 0).update.name().to_owned();
    let pod = |ordinal| {
        let mut pod = identity::new_pod(&set, &set.spec.template, &name, ordinal);
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        pod.status = serde_json::from_value(status).expect("a status");
        Arc::new(pod)
    };
    let pods: Vec<Arc<Pod>> = (0..replicas).map(pod).collect();
    let claim = Arc::new(PersistentVolumeClaim::default());
    let rounds = 200_000 / replicas;
    let started = Instant::now();
    for _ in 0..rounds {
        let claim = |_: &str| Some(claim.clone());
        let now = jiff::Timestamp::UNIX_EPOCH;
        let observed = Observed {
            set: &set,
            pods: &pods,
            claim: &claim,
            current: &name,
            update: &name,
            waits_for_others: false,
            budgets: &[],
            now,
        };
        assert!(black_box(plan(&observed.look().0)).is_settled());
    }
    let each = started.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    figure(&format!("look at {replicas} pods that are as wanted"), each, "us", if replicas == 3 { "50" } else { "-" });
}

async fn parallel(replicas: u32) {
    let cluster = Cluster::start().await;
    let watch = Watch::start();
    let spec = json!({"podManagementPolicy": "Parallel", "volumeClaimTemplates": []});
    cluster.create::<StatefulSet>(web(replicas, spec)).await;
    cluster.settled("web").await;
    watch.told(&format!("{replicas} replicas Parallel"), "2500");
    let watch = Watch::start();
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 0}})).await;
    cluster.until(&cluster.pods, |pods| pods.is_empty().then_some(())).await;
    watch.told(&format!("{replicas} replicas to none"), "2000");
}

async fn ordered(replicas: u32) {
    let cluster = Cluster::start().await;
    let watch = Watch::start();
    cluster.create::<StatefulSet>(web(replicas, json!({"volumeClaimTemplates": []}))).await;
    cluster.settled("web").await;
    watch.told(&format!("{replicas} replicas OrderedReady"), "1500");
    let watch = Watch::start();
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1.22"}]}}}});
    cluster.patch::<StatefulSet>("web", template).await;
    cluster.settled("web").await;
    watch.told(&format!("rolling update of {replicas}"), "3000");
}
