//! `/stats/summary` and `/metrics/resource`: what the node, its pods and their containers use.
//!
//! Source of the forms: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`, `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};
use stead_podlife::spec;

use super::Query;
use crate::usage::{ContainerUse, Measured, PodUse, Use};
use crate::{Node, system};

impl Node {
    pub(super) async fn summary(self: &Arc<Self>, query: &Query) -> Value {
        let measured = self.measure().await;
        let now = measured.at.to_string();
        let pods: Vec<Value> = measured.pods.iter().map(|pod| of_pod(pod, &now)).collect();
        let mut node = with_use(json!({"nodeName": self.config.name}), &measured.node, &now);
        let working_set = measured.node.stats.memory_working_set_bytes;
        node["memory"]["availableBytes"] = self.capacity.memory_bytes.saturating_sub(working_set).into();
        if !query.is_set(&["only_cpu_and_memory"])
            && let Some((size, free)) = system::disk(&self.config.data_dir)
        {
            node["fs"] = json!({"time": now, "capacityBytes": size, "availableBytes": free, "usedBytes": size - free});
        }
        json!({"node": node, "pods": pods})
    }

    pub(super) async fn resource_metrics(self: &Arc<Self>) -> String {
        render(&self.measure().await)
    }
}

fn of_pod(one: &PodUse, now: &str) -> Value {
    let (name, namespace, uid) = spec::identity(&one.pod);
    let containers: Vec<Value> = one
        .containers
        .iter()
        .map(|container| {
            let head = json!({"name": container.name, "startTime": container.started.to_string()});
            with_use(head, &container.own, now)
        })
        .collect();
    let mut pod = json!({"podRef": {"name": name, "namespace": namespace, "uid": uid}, "containers": containers});
    if let Some(start) = one.pod.status.as_ref().and_then(|status| status.start_time.as_ref()) {
        pod["startTime"] = start.0.to_string().into();
    }
    with_use(pod, &one.total, now)
}

fn with_use(mut value: Value, of: &Use, now: &str) -> Value {
    let stats = &of.stats;
    let mut cpu = json!({"time": now, "usageCoreNanoSeconds": stats.cpu_usage_nanos});
    if let Some(rate) = of.rate {
        cpu["usageNanoCores"] = rate.nanocores.into();
        // Ours: upstream does not tell over how long the rate is.
        cpu["windowMilliSeconds"] = u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX).into();
    }
    value["cpu"] = cpu;
    value["memory"] = json!({
        "time": now, "usageBytes": stats.memory_usage_bytes, "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes, "pageFaults": stats.page_faults, "majorPageFaults": stats.major_page_faults,
    });
    value
}

/// One family of Prometheus' text format: name, type, help, and its lines.
type Family<'a> = (&'a str, &'a str, &'a str, Vec<String>);

fn render(measured: &Measured) -> String {
    let millis = measured.at.as_millisecond();
    let at = |labels: &str, value: String| format!("{labels} {value} {millis}");
    let cpu = |of: &Use| seconds(of.stats.cpu_usage_nanos);
    let memory = |of: &Use| of.stats.memory_working_set_bytes.to_string();
    let containers: Vec<(String, &ContainerUse)> = measured
        .pods
        .iter()
        .flat_map(|pod| pod.containers.iter().map(move |one| (container_labels(pod, one), one)))
        .collect();
    let of_containers = |value: &dyn Fn(&ContainerUse) -> String| -> Vec<String> {
        containers.iter().map(|(labels, one)| at(labels, value(one))).collect()
    };
    let of_pods = |value: &dyn Fn(&Use) -> String| -> Vec<String> {
        measured.pods.iter().map(|pod| at(&pod_labels(pod), value(&pod.total))).collect()
    };
    let start = |one: &ContainerUse| seconds(u64::try_from(one.started.as_nanosecond()).unwrap_or(0));
    let families: [Family<'_>; 8] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
            of_containers(&|one| cpu(&one.own)),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
            of_containers(&|one| memory(&one.own)),
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds",
            containers.iter().map(|(labels, one)| format!("{labels} {}", start(one))).collect(),
        ),
        (
            "node_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the node in core-seconds",
            vec![at("", cpu(&measured.node))],
        ),
        (
            "node_memory_working_set_bytes",
            "gauge",
            "Current working set of the node in bytes",
            vec![at("", memory(&measured.node))],
        ),
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            of_pods(&cpu),
        ),
        ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", of_pods(&memory)),
        (
            "resource_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
            vec![" 0".to_owned()],
        ),
    ];
    let mut out = String::new();
    for (name, kind, help, lines) in families.into_iter().filter(|family| !family.3.is_empty()) {
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for line in lines {
            let _ = writeln!(out, "{name}{line}");
        }
    }
    out
}

fn container_labels(pod: &PodUse, container: &ContainerUse) -> String {
    let (name, namespace, _) = spec::identity(&pod.pod);
    format!("{{container=\"{}\",namespace=\"{namespace}\",pod=\"{name}\"}}", container.name)
}

fn pod_labels(pod: &PodUse) -> String {
    let (name, namespace, _) = spec::identity(&pod.pod);
    format!("{{namespace=\"{namespace}\",pod=\"{name}\"}}")
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanos: u64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:09}").trim_end_matches('0').to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use stead_runtime::Stats;

    use super::*;
    use crate::usage::Rate;

    fn measured() -> Measured {
        let stats = Stats { cpu_usage_nanos: 1_500_000_000, memory_working_set_bytes: 4096, ..Stats::default() };
        let rate = Some(Rate { nanocores: 250_000_000, window: Duration::from_secs(15) });
        let pod = json!({"metadata": {"name": "web-0", "namespace": "default", "uid": "u"}});
        let started = Timestamp::from_second(1_700_000_000).expect("in range");
        Measured {
            at: Timestamp::from_second(1_700_000_060).expect("in range"),
            node: Use { stats, rate: None },
            pods: vec![PodUse {
                pod: Arc::new(serde_json::from_value(pod).expect("a pod")),
                total: Use { stats, rate },
                containers: vec![ContainerUse { name: "nginx".to_owned(), started, own: Use { stats, rate } }],
            }],
        }
    }

    #[test]
    fn metrics_are_upstreams_text() {
        let text = render(&measured());
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"nginx\",namespace=\"default\",pod=\"web-0\"} 1.5 1700000060000",
            "container_start_time_seconds{container=\"nginx\",namespace=\"default\",pod=\"web-0\"} 1700000000",
            "node_memory_working_set_bytes 4096 1700000060000",
            "pod_cpu_usage_seconds_total{namespace=\"default\",pod=\"web-0\"} 1.5 1700000060000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_summary_tells_rates_where_they_are_known() {
        let measured = measured();
        let pod = of_pod(&measured.pods[0], "now");
        assert_eq!(pod["containers"][0]["cpu"]["usageNanoCores"], 250_000_000);
        assert_eq!(pod["cpu"]["windowMilliSeconds"], 15_000);
        assert_eq!(pod["memory"]["workingSetBytes"], 4096);
        let node = with_use(json!({}), &measured.node, "now");
        assert_eq!(node["cpu"], json!({"time": "now", "usageCoreNanoSeconds": 1_500_000_000}));
    }
}
