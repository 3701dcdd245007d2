//! The experiment of the second document in its namespace: order, each pod's own volume, deletion that keeps the claims.

use crate::support::{assert_came_up_in_order, in_busybox, is_ready, with_each_kubectl};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: stateful-svc
  namespace: experiments
spec:
  clusterIP: None
  selector:
    app: stateful-demo
  ports:
  - port: 80
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: stateful-demo
  namespace: experiments
spec:
  serviceName: stateful-svc
  replicas: 3
  selector:
    matchLabels:
      app: stateful-demo
  template:
    metadata:
      labels:
        app: stateful-demo
    spec:
      containers:
      - name: nginx
        image: nginx:1.21
        ports:
        - containerPort: 80
        volumeMounts:
        - name: data
          mountPath: /data
  volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: ["ReadWriteOnce"]
      storageClassName: standard
      resources:
        requests:
          storage: 1Gi
"#;

#[test]
fn seed_001_each_pod_has_its_own_volume_and_deletion_keeps_it() {
    with_each_kubectl(|_, kubectl| {
        let refused = kubectl.run_with_input("apply -f -", MANIFEST);
        assert!(refused.stderr.contains(r#"namespaces "experiments" not found"#), "{}", refused.stderr);
        assert_eq!(refused.code, 1);
        assert_eq!(kubectl.ok("create namespace experiments"), "namespace/experiments created\n");
        let mut watch = kubectl.start("get pods -n experiments -w");
        kubectl.apply(MANIFEST);
        let seen = watch.until(|line| line.starts_with("stateful-demo-2 ") && is_ready(line));
        assert_came_up_in_order(seen, &["stateful-demo-0", "stateful-demo-1", "stateful-demo-2"]);

        let names = in_busybox(kubectl, "nslookup stateful-svc.experiments.svc.cluster.local");
        assert_eq!(names.matches("Address: ").count(), 3, "{names}");
        for pod in 0..3 {
            let hostname = kubectl.ok(&format!("exec stateful-demo-{pod} -n experiments -- hostname"));
            assert_eq!(hostname, format!("stateful-demo-{pod}\n"));
        }
        let _ = kubectl.ok("exec stateful-demo-0 -n experiments -- sh -c 'echo zero > /data/file'");
        let _ = kubectl.ok("exec stateful-demo-1 -n experiments -- sh -c 'echo one > /data/file'");
        assert_eq!(kubectl.ok("exec stateful-demo-0 -n experiments -- cat /data/file"), "zero\n");
        assert_eq!(kubectl.ok("exec stateful-demo-1 -n experiments -- cat /data/file"), "one\n");
        assert_eq!(kubectl.ok("exec stateful-demo-2 -n experiments -- ls /data"), "");

        let _ = kubectl.ok("delete statefulset stateful-demo -n experiments");
        kubectl.eventually("get pods -n experiments -o name", str::is_empty);
        let claims = kubectl.ok("get pvc -n experiments --no-headers");
        assert_eq!(claims.lines().filter(|line| line.contains(" Bound ")).count(), 3, "{claims}");
        kubectl.apply(MANIFEST);
        let _ = kubectl.ok("rollout status statefulset/stateful-demo -n experiments --timeout=60s");
        assert_eq!(kubectl.ok("exec stateful-demo-1 -n experiments -- cat /data/file"), "one\n");

        let _ = kubectl.run_with_input("delete -f -", MANIFEST);
        kubectl.eventually("get pods -n experiments -o name", str::is_empty);
        let _ = kubectl.ok("delete pvc --all -n experiments");
        kubectl.eventually("get pv -o name", str::is_empty);
        let _ = kubectl.ok("delete namespace experiments");
        assert_eq!(kubectl.run("get namespace experiments").code, 1);
    });
}
