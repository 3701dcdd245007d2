//! `metrics.k8s.io`: what nodes measure, asked for through the API.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use stead_apiserver::{AsyncReadWrite, Identity, NodeDialer};
use support::{PODS, World, pod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const FIGURES: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/http/pods";

/// Nodes that say what they were given to say, and count how often they are asked.
#[derive(Default)]
struct Measuring {
    summary: parking_lot::Mutex<Value>,
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl NodeDialer for Measuring {
    async fn connect(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if node != "peer" {
            return Err(std::io::Error::other("no such node"));
        }
        let (near, mut far) = tokio::io::duplex(4096);
        let text = self.summary.lock().to_string();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            let line = String::from_utf8(head).unwrap();
            assert!(line.starts_with("GET /stats/summary?only_cpu_and_memory=true "), "{line}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            // Who asked may be gone by now.
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

fn figures(mut of: Value, nanocores: u64) -> Value {
    let time = "2026-01-01T00:00:00Z";
    of["cpu"] = json!({"time": time, "usageNanoCores": nanocores, "windowMilliSeconds": 15_062});
    of["memory"] = json!({"time": time, "workingSetBytes": 20 * 1024 * 1024});
    of
}

/// Two nodes, of which one answers, and a pod on each.
async fn world() -> (World, Arc<Measuring>) {
    let nodes = Arc::new(Measuring::default());
    let w = World::with(stead_store::memory(), nodes.clone()).await;
    for node in ["peer", "silent"] {
        let labels = format!(r#"{{"metadata":{{"name":"{node}","labels":{{"zone":"{node}"}}}}}}"#);
        w.ok("POST /api/v1/nodes", &labels).await;
    }
    let mut pods = Vec::new();
    for (name, node) in [("web-0", "peer"), ("web-1", "silent")] {
        let made = w.ok(&format!("POST {PODS}"), &pod(name)).await;
        let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}});
        w.ok(&format!("POST {PODS}/{name}/binding"), &binding.to_string()).await;
        w.merge(&format!("{PODS}/{name}/status"), r#"{"status":{"phase":"Running"}}"#).await;
        let of = json!({"name": name, "namespace": "http", "uid": made["metadata"]["uid"]});
        let container = figures(json!({"name": "c"}), 250_000_000);
        pods.push(figures(json!({"podRef": of, "containers": [container]}), 250_000_000));
    }
    *nodes.summary.lock() = json!({"node": figures(json!({"nodeName": "peer"}), 1_500_000_000), "pods": pods});
    (w, nodes)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_nodes_measure_is_served() {
    let (w, nodes) = world().await;
    let node = w.get(&format!("{NODES}/peer")).await;
    assert_eq!((&node["kind"], &node["apiVersion"]), (&json!("NodeMetrics"), &json!("metrics.k8s.io/v1beta1")));
    assert_eq!(node["usage"], json!({"cpu": "1500m", "memory": "20Mi"}));
    assert_eq!((&node["window"], &node["timestamp"]), (&json!("15.062s"), &json!("2026-01-01T00:00:00Z")));
    assert_eq!(node["metadata"]["labels"]["zone"], "peer");
    assert_eq!(node["metadata"]["resourceVersion"], Value::Null);
    let pod = w.get(&format!("{FIGURES}/web-0")).await;
    assert_eq!(pod["containers"], json!([{"name": "c", "usage": {"cpu": "250m", "memory": "20Mi"}}]));
    let list = w.get(NODES).await;
    assert_eq!((&list["kind"], &list["metadata"]), (&json!("NodeMetricsList"), &json!({})));
    assert_eq!(names(&list), ["peer"], "a node that does not answer is left out");
    assert_eq!(names(&w.get("/apis/metrics.k8s.io/v1beta1/pods").await), ["web-0"]);
    assert_eq!(nodes.asked.load(Ordering::Relaxed), 2, "each node is asked once, whoever wants to know");
}

#[tokio::test]
async fn selectors_tables_and_what_there_is_not() {
    let (w, _) = world().await;
    for (url, want) in [
        (format!("{FIGURES}?labelSelector=app=web"), 1),
        (format!("{FIGURES}?labelSelector=app=nothere"), 0),
        (format!("{FIGURES}?fieldSelector=metadata.name=web-0"), 1),
        (format!("{FIGURES}?fieldSelector=metadata.name=web-1"), 0),
        (format!("{NODES}?labelSelector=zone=peer"), 1),
        (format!("{NODES}?labelSelector=zone!=peer"), 0),
    ] {
        assert_eq!(names(&w.get(&url).await).len(), want, "{url}");
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let answer = w.ask_with(&format!("GET {FIGURES}"), &[("accept", table)], "").await.json();
    let headings: Vec<&str> =
        answer["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(headings, ["Name", "cpu", "memory", "Window"]);
    assert_eq!(answer["rows"][0]["cells"], json!(["web-0", "250m", "20Mi", "15.062s"]));
    for (request, want) in [
        (format!("GET {FIGURES}/nothere"), "404 pods \"nothere\" not found"),
        (format!("GET {FIGURES}/web-1"), "404 podmetrics.metrics.k8s.io \"http/web-1\" not found"),
        (format!("GET {NODES}/nothere"), "404 nodes \"nothere\" not found"),
        (format!("GET {NODES}/silent"), "404 nodemetrics.metrics.k8s.io \"silent\" not found"),
        (format!("DELETE {NODES}/peer"), "405 the server does not allow this method on the requested resource"),
        (format!("POST {FIGURES}"), "405 the server does not allow this method on the requested resource"),
        (format!("GET {FIGURES}?watch=1"), "405 the server does not allow this method on the requested resource"),
    ] {
        assert_eq!(w.ask(&request, "").await.line(), want, "{request}");
    }
    let refused = w.ask(&format!("GET {FIGURES}?fieldSelector=spec.nodeName=peer"), "").await;
    assert_eq!(refused.code, 400, "{}", refused.text);
}

#[tokio::test]
async fn the_group_is_discovered_described_and_readable_by_who_may_view() {
    let (mut w, _) = world().await;
    let list = w.get("/apis/metrics.k8s.io/v1beta1").await;
    let verbs = json!(["get", "list"]);
    assert_eq!(
        list["resources"],
        json!([
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": verbs},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": verbs},
        ])
    );
    let schema = w.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await;
    let item = &schema["paths"]["/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}"];
    assert!(item["get"].is_object() && item["delete"].is_null());
    let types = &schema["components"]["schemas"];
    assert!(types["io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"]["properties"]["containers"].is_object());
    let binding = json!({
        "metadata": {"name": "ann"}, "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
    });
    let bindings = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/http/rolebindings";
    w.ok(bindings, &binding.to_string()).await;
    w.user = Identity::new("ann", &[]);
    assert_eq!(w.ask(&format!("GET {FIGURES}"), "").await.code, 200);
    assert_eq!(w.ask(&format!("GET {NODES}"), "").await.code, 403);
}
