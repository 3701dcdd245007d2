//! kill -9 of the server in the middle of a scale-up: containers go on, nothing is lost, the set completes.

use crate::support::cluster;

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: web
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: main
        image: nginx:1.21
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
"#;

const STARTED: &str =
    "get pods web-0 web-1 -o jsonpath={.items[*].status.containerStatuses[0].state.running.startedAt}";
const CONTAINERS: &str = "get pods web-0 web-1 -o jsonpath={.items[*].status.containerStatuses[0].containerID}";

#[test]
fn a_server_killed_in_mid_scale_up_loses_nothing_and_stops_nothing() {
    let (mut cluster, kubectl) = cluster();
    kubectl.apply(MANIFEST);
    kubectl.eventually("get sts web -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    let (started, containers) = (kubectl.ok(STARTED), kubectl.ok(CONTAINERS));
    let pid = kubectl.ok("exec web-0 -- sh -c 'echo $PPID; cat /proc/1/stat'");
    let mut watch = kubectl.start("get pods -w");
    watch.until(|line| line.starts_with("web-1 "));
    let _ = kubectl.ok("scale sts web --replicas=8");
    watch.until(|line| line.starts_with("web-3 "));
    let names: Vec<String> =
        kubectl.ok("get pods,pvc,pv,sts,controllerrevisions -o name").lines().map(str::to_owned).collect();
    cluster.kill_server().unwrap();

    cluster.start_server().unwrap();
    kubectl.eventually("get sts web -o jsonpath={.status.readyReplicas}", |ready| ready == "8");
    let after = kubectl.ok("get pods,pvc,pv,sts,controllerrevisions -o name");
    for name in &names {
        assert!(after.lines().any(|line| line == name), "{name} is gone:\n{after}");
    }
    assert_eq!(kubectl.ok(STARTED), started, "the first pods ran on");
    assert_eq!(kubectl.ok(CONTAINERS), containers);
    assert_eq!(
        kubectl.ok("get pods -o jsonpath={.items[*].status.containerStatuses[0].restartCount}"),
        "0 0 0 0 0 0 0 0"
    );
    let start_time = |stat: &str| stat.split_whitespace().nth(22).map(str::to_owned);
    let now = kubectl.ok("exec web-0 -- sh -c 'echo $PPID; cat /proc/1/stat'");
    assert_eq!(start_time(&pid), start_time(&now), "the process of web-0 is the same one");
}
