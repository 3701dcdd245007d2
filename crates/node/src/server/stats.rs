//! `/stats/summary`: what pods use, from their cgroups.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use stead_podlife::spec;
use stead_runtime::{ContainerState, Stats};

use crate::{Node, system};

impl Node {
    pub(super) async fn summary(self: &Arc<Self>) -> Value {
        let now = (self.clock)().to_string();
        let page = self.ledger.fresh().await.unwrap_or_default();
        let mut pods = Vec::new();
        for pod in self.pods.list() {
            let (name, namespace, uid) = spec::identity(&pod);
            let mut containers = Vec::new();
            let mut total = Stats::default();
            for container in page.containers.get(uid).into_iter().flatten() {
                if !matches!(container.state, ContainerState::Running { .. }) {
                    continue;
                }
                let Ok(stats) = self.engine.stats(&container.id).await else { continue };
                total.cpu_usage_nanos += stats.cpu_usage_nanos;
                total.memory_usage_bytes += stats.memory_usage_bytes;
                total.memory_working_set_bytes += stats.memory_working_set_bytes;
                containers.push(with_usage(json!({"name": container.name}), &stats, &now));
            }
            let reference =
                json!({"podRef": {"name": name, "namespace": namespace, "uid": uid}, "containers": containers});
            pods.push(with_usage(reference, &total, &now));
        }
        let disk: BTreeMap<&str, u64> = system::disk(&self.config.data_dir)
            .map(|(size, free)| {
                BTreeMap::from([("capacityBytes", size), ("availableBytes", free), ("usedBytes", size - free)])
            })
            .unwrap_or_default();
        let available = system::meminfo("MemAvailable").unwrap_or(0);
        let memory = json!({"time": now, "availableBytes": available, "workingSetBytes": self.capacity.memory_bytes.saturating_sub(available)});
        json!({"node": {"nodeName": self.config.name, "memory": memory, "fs": disk}, "pods": pods})
    }
}

fn with_usage(mut value: Value, stats: &Stats, now: &str) -> Value {
    value["cpu"] = json!({"time": now, "usageCoreNanoSeconds": stats.cpu_usage_nanos});
    value["memory"] = json!({
        "time": now, "usageBytes": stats.memory_usage_bytes, "workingSetBytes": stats.memory_working_set_bytes
    });
    value
}
