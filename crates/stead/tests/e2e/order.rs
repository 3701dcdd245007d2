//! ACCEPTANCE 3.3: a pod that is not Ready holds the set still, growing and shrinking, until it is Ready again.

use stead_testkit::kubectl::Kubectl;

use crate::support::cluster;

/// Ready while /data/ready exists.
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: gate
spec:
  serviceName: gate
  replicas: 2
  selector:
    matchLabels: {app: gate}
  template:
    metadata:
      labels: {app: gate}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "touch /tmp/ready; trap exit TERM; while :; do sleep 0.1; done"]
        readinessProbe:
          exec: {command: [test, -e, /tmp/ready]}
          periodSeconds: 1
          failureThreshold: 1
"#;

fn ready(kubectl: &Kubectl, pod: &str, wanted: &str) {
    let command = format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].ready}}");
    kubectl.eventually(&command, |ready| ready == wanted);
}

fn pods(kubectl: &Kubectl) -> Vec<String> {
    kubectl.ok("get pods -l app=gate -o name").lines().map(str::to_owned).collect()
}

#[test]
fn acceptance_3_3_a_pod_that_is_not_ready_holds_the_set_still() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(MANIFEST);
    ready(&kubectl, "gate-1", "true");

    // It grows, and pod 0 fails: nothing further is started.
    let _ = kubectl.ok("exec gate-0 -- rm /tmp/ready");
    ready(&kubectl, "gate-0", "false");
    let _ = kubectl.ok("scale sts gate --replicas=4");
    observed(&kubectl);
    assert_eq!(pods(&kubectl), ["pod/gate-0", "pod/gate-1"]);
    let _ = kubectl.ok("exec gate-0 -- touch /tmp/ready");
    ready(&kubectl, "gate-3", "true");

    // It shrinks, and pod 0 fails: nothing further is deleted.
    let _ = kubectl.ok("exec gate-0 -- rm /tmp/ready");
    ready(&kubectl, "gate-0", "false");
    let _ = kubectl.ok("scale sts gate --replicas=1");
    observed(&kubectl);
    assert_eq!(pods(&kubectl).len(), 4);
    assert_eq!(kubectl.ok("get pods -l app=gate -o jsonpath={.items[*].metadata.deletionTimestamp}"), "");
    let _ = kubectl.ok("exec gate-0 -- touch /tmp/ready");
    kubectl.eventually("get pods -l app=gate -o name", |names| names == "pod/gate-0\n");
}

/// Waits until the controller has acted on the newest spec.
fn observed(kubectl: &Kubectl) {
    kubectl.eventually("get sts gate -o jsonpath='{.metadata.generation} {.status.observedGeneration}'", |seen| {
        seen.split_once(' ').is_some_and(|(wanted, observed)| wanted == observed)
    });
}
