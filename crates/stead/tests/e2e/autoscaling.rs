//! What nodes measure, from the cgroups to `top`, and a HorizontalPodAutoscaler that acts on it.

use stead_testkit::kubectl::Kubectl;

use crate::same_as_kubectl::{TRIES, normal, programs as both, told};
use crate::support::{programs, start};

/// Replicas that keep up to a fifth of a core busy until they are told to be quiet, and what scales them: at a small part of
/// it, because other tests want the machine too.
const LOAD: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: load}
spec:
  serviceName: load
  replicas: 1
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "while [ ! -e /tmp/quiet ]; do :; done; sleep 100000"]
        resources: {requests: {cpu: 100m, memory: 8Mi}, limits: {cpu: 200m}}
      - name: idle
        image: busybox
        command: [sleep, "100000"]
        resources: {requests: {cpu: 100m, memory: 8Mi}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: load}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: load}
  minReplicas: 1
  maxReplicas: 2
  metrics:
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: 10}}
  - type: ContainerResource
    containerResource: {name: cpu, container: main, target: {type: AverageValue, averageValue: 20m}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 0}
"#;

/// Commands whose output is the same while the figures are the same: for a few seconds.
const LOOKS: &[&str] = &[
    "top pods",
    "top po --containers",
    "top pod -A --sum",
    "top pod load-0",
    "top pod load-0 --containers --no-headers",
    "top pods -l app=load --sort-by=cpu",
    "top pods --field-selector metadata.name=load-0",
    "top pods --field-selector metadata.name=nothere",
    "top node",
    "top nodes --show-capacity --sort-by memory",
    "get pods.metrics.k8s.io",
    "get nodes.metrics.k8s.io",
    "top pods -l app=nothere",
    "top pods -n nothere",
    "top pod nothere",
    "top node nothere",
    "top pod load-0 -l app=load",
    "top node x -l app=load",
    "top pods --sort-by=frob",
    "top pods a b",
    "top pods -l =",
    "top frob",
    "get hpa",
];

/// Waits until the autoscaler wants that many, and until they are there.
fn replicas(kubectl: &Kubectl, wanted: &str) {
    let _ = kubectl.eventually("get hpa load -o yaml", |text| text.contains(&format!("desiredReplicas: {wanted}\n")));
    let _ = kubectl.eventually("get sts load -o 'jsonpath={.spec.replicas}/{.status.readyReplicas}'", |text| {
        text == format!("{wanted}/{wanted}")
    });
}

#[test]
fn a_set_under_load_is_scaled_up_and_down_by_what_the_node_measures() {
    let cluster = start(&["--horizontal-pod-autoscaler-sync-period", "5"]);
    let kubectl = cluster.kubectl(&programs()[0]);
    let _ = kubectl.apply(LOAD);
    replicas(&kubectl, "2");
    let events =
        kubectl.eventually("get events --field-selector reason=SuccessfulRescale", |text| text.contains("New size: 2"));
    assert!(events.contains("above target"), "{events}");
    let _ = kubectl.eventually("top pods -l app=load --no-headers", |text| text.lines().count() == 2);
    if let Some((stock, ours)) = both(&cluster, &kubectl) {
        let mut differences = Vec::new();
        for command in LOOKS {
            let same = (0..TRIES).any(|_| normal(stock.run(command)) == normal(ours.run(command)));
            if !same {
                differences.push(told(command, &stock.run(command), &ours.run(command)));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
    // The whole of what the node serves, by the way that a person has to it.
    let summary =
        kubectl.ok("get --raw /api/v1/nodes/$NODE/proxy/stats/summary".replace("$NODE", &node(&kubectl)).as_str());
    assert!(summary.contains("\"usageNanoCores\"") && summary.contains("\"name\":\"load-0\""), "{summary}");
    let metrics =
        kubectl.ok("get --raw /api/v1/nodes/$NODE/proxy/metrics/resource".replace("$NODE", &node(&kubectl)).as_str());
    assert!(
        metrics.contains("container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"load-0\"} "),
        "{metrics}"
    );
    for pod in ["load-0", "load-1"] {
        let _ = kubectl.ok(&format!("exec {pod} -c main -- touch /tmp/quiet"));
    }
    replicas(&kubectl, "1");
    let shown = kubectl.ok("get hpa load -o 'jsonpath={.status.conditions[*].reason}'");
    assert!(shown.contains("ValidMetricFound"), "{shown}");
}

fn node(kubectl: &Kubectl) -> String {
    kubectl.ok("get nodes -o 'jsonpath={.items[0].metadata.name}'")
}
