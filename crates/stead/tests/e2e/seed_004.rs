//! The web set of the fifth document: volumes, roll-out with history and undo, a broken image and its mend.

use stead_testkit::kubectl::Kubectl;

use crate::support::{assert_came_up_in_order, in_busybox, is_ready, position, with_each_kubectl};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: nginx-svc
  labels:
    app: nginx
spec:
  ports:
  - port: 80
    name: web
  clusterIP: None
  selector:
    app: nginx
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: "nginx-svc"
  replicas: 3
  selector:
    matchLabels:
      app: nginx
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:1.21
        ports:
        - containerPort: 80
          name: web
        volumeMounts:
        - name: www
          mountPath: /usr/share/nginx/html
  volumeClaimTemplates:
  - metadata:
      name: www
    spec:
      accessModes: [ "ReadWriteOnce" ]
      storageClassName: "standard"
      resources:
        requests:
          storage: 1Gi
"#;

#[test]
fn seed_004_web_is_rolled_out_undone_and_mended() {
    with_each_kubectl(|_, kubectl| {
        let mut watch = kubectl.start("get pods -w -l app=nginx");
        kubectl.apply(MANIFEST);
        let seen = watch.until(|line| line.starts_with("web-2 ") && is_ready(line));
        assert_came_up_in_order(seen, &["web-0", "web-1", "web-2"]);
        let _ = kubectl.ok("exec web-0 -- sh -c 'echo $(hostname) > /usr/share/nginx/html/index.html'");
        assert_eq!(kubectl.ok("exec web-1 -- curl -s web-0.nginx-svc"), "web-0\n");
        let ping = in_busybox(kubectl, "ping -c 1 web-0.nginx-svc");
        assert!(ping.contains("1 packets received"), "{ping}");
        roll_out_and_undo(kubectl);
        broken_image(kubectl);
    });
}

fn roll_out_and_undo(kubectl: &Kubectl) {
    let mut watch = kubectl.start("get pods -w -l app=nginx");
    watch.until(|line| line.starts_with("web-2 "));
    assert_eq!(kubectl.ok("set image statefulset/web nginx=nginx:1.22"), "statefulset.apps/web image updated\n");
    let _ = kubectl.ok("rollout status statefulset/web --timeout=60s");
    let seen = watch.until(|line| line.starts_with("web-0 ") && line.contains("Terminating"));
    let ending = |name: &str| position(seen, name, |line| line.starts_with(name) && line.contains("Terminating"));
    assert!(ending("web-2 ") < ending("web-1 ") && ending("web-1 ") < ending("web-0 "), "{}", seen.join("\n"));
    assert_eq!(kubectl.ok("exec web-0 -- cat /usr/share/nginx/html/index.html"), "web-0\n", "the volume came along");
    let history = kubectl.ok("rollout history statefulset/web");
    assert!(
        history.starts_with("statefulset.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n"),
        "{history}"
    );
    assert_eq!(kubectl.ok("rollout undo statefulset/web"), "statefulset.apps/web rolled back\n");
    let _ = kubectl.ok("rollout status statefulset/web --timeout=60s");
    assert_eq!(kubectl.ok("get pod web-0 -o jsonpath={.spec.containers[0].image}"), "nginx:1.21");
}

fn broken_image(kubectl: &Kubectl) {
    let _ = kubectl.ok("set image sts/web nginx=nginx:no-such-tag");
    kubectl.eventually("get pod web-2 -o jsonpath={.status.containerStatuses[0].state.waiting.reason}", |reason| {
        reason == "ErrImagePull" || reason == "ImagePullBackOff"
    });
    // Upstream would also need `delete pod web-2`: an ordered set waits for ever for its broken pod.
    let _ = kubectl.ok("rollout undo sts/web");
    let _ = kubectl.ok("rollout status statefulset/web --timeout=60s");
    assert_eq!(kubectl.ok("get sts web --no-headers").split_whitespace().nth(1), Some("3/3"));
}
