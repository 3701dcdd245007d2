//! Figures of placement: pods placed per second on clusters of several sizes, plain and with anti-affinity and spread.
//!
//! `cargo run --release -p stead-placement --example placement_bench`

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use stead_placement::{Placement, PodInfo, View, place};

const PODS: usize = 1000;

fn main() {
    println!("{:>6} {:>12} {:>12}", "nodes", "kind", "pods/s");
    for nodes in [1, 10, 100, 1000] {
        for (kind, spec) in [("plain", json!({})), ("constrained", constrained())] {
            println!("{nodes:>6} {kind:>12} {:>12.0}", run(nodes, &spec));
        }
    }
}

fn constrained() -> Value {
    let selector = json!({"matchLabels": {"app": "web"}});
    let term = json!({"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"});
    json!({
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term}
        ]}},
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selector
        }]
    })
}

fn run(nodes: usize, spec: &Value) -> f64 {
    let mut view = View::default();
    for n in 0..nodes {
        let labels =
            json!({"kubernetes.io/hostname": n.to_string(), "topology.kubernetes.io/zone": (n % 3).to_string()});
        let allocatable = json!({"cpu": "2000", "memory": "4Ti", "pods": "2000"});
        let node =
            json!({"metadata": {"name": format!("n{n}"), "labels": labels}, "status": {"allocatable": allocatable}});
        view.set_node(Arc::new(serde_json::from_value(node).expect("a node")));
    }
    let pods: Vec<Arc<PodInfo>> = (0..PODS).map(|n| pod(n, spec.clone())).collect();
    let begun = Instant::now();
    let mut placed = 0;
    for pod in pods {
        if let Placement::On { node, .. } = place(&pod, &view) {
            view.add_pod(&node, pod);
            placed += 1;
        }
    }
    assert_eq!(placed, PODS, "everything fits");
    PODS as f64 / begun.elapsed().as_secs_f64()
}

fn pod(n: usize, mut spec: Value) -> Arc<PodInfo> {
    spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]);
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "u", "controller": true});
    let pod = json!({
        "metadata": {
            "name": format!("web-{n}"), "namespace": "default", "uid": n.to_string(), "labels": {"app": "web"},
            "ownerReferences": [owner]
        },
        "spec": spec
    });
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).expect("a pod"))))
}
