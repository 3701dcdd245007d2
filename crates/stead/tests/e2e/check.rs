//! `stead check NAMESPACE NAME`: the checker of seed 000, and what it says of a set that is not well.

use std::process::{Command, Output};

use stead_testkit::cluster::Cluster;

use crate::support::cluster;

const SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 2
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: nginx, image: "nginx:1.21", volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Mi}}
"#;

fn check(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_stead"))
        .arg("check")
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn acceptance_8_the_checker_prints_the_set_and_says_what_is_wrong() {
    let (cluster, kubectl) = cluster();
    let (code, printed, errors) = check(&cluster, &[]);
    assert_eq!((code, printed.as_str()), (1, ""));
    assert!(errors.contains("Usage: stead check <NAMESPACE> <NAME>"), "{errors}");
    let (code, _, errors) = check(&cluster, &["default", "web"]);
    assert_eq!(code, 1);
    assert!(errors.contains("statefulsets.apps \"web\" not found"), "{errors}");

    kubectl.apply(SET);
    kubectl.eventually("get sts web -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    let address = |pod: &str| kubectl.ok(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"));
    let healthy = format!(
        "--- StatefulSet: web ---\n  - Replicas: 2/2\n  - ServiceName: web\n\n--- Managed Pods and PVCs ---\n  \
         - Pod: web-0 (IP: {})\n    - PVC: data-web-0\n  - Pod: web-1 (IP: {})\n    - PVC: data-web-1\n",
        address("web-0"),
        address("web-1")
    );
    assert_eq!(check(&cluster, &["default", "web"]), (0, healthy, String::new()));

    // A pod that is held back by an image that does not exist, and a Service that is gone.
    let _ = kubectl.ok("delete service web");
    let _ = kubectl.ok("set image sts/web nginx=nginx:nothere");
    kubectl.eventually("get pod web-1 -o jsonpath={.status.containerStatuses[0].state.waiting.reason}", |reason| {
        reason == "ImagePullBackOff"
    });
    let (code, printed, _) = check(&cluster, &["default", "web"]);
    assert_eq!(code, 1);
    for line in [
        "- Replicas: 1/2",
        "  service/web: the headless Service of the set does not exist: its pods run, but their DNS names do not resolve",
        "mend  create the Service web",
        "it is stuck on web-1 (it has the new revision)",
        "pod/web-1: the image \"nginx:nothere\" cannot be pulled: ",
        "$ kubectl -n default rollout undo statefulset/web",
        "$ kubectl -n default set image statefulset/web nginx=IMAGE",
    ] {
        assert!(printed.contains(line), "{line:?} is missing in\n{printed}");
    }
    // The set heals by itself: nobody has to delete a pod.
    assert!(!printed.contains("delete pod"), "{printed}");
}
