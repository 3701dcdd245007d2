//! The Redis exercise of the first document, step by step.

use std::time::Instant;

use stead_testkit::kubectl::Kubectl;

use crate::support::{assert_came_up_in_order, in_busybox, is_ready, replace, with_each_kubectl};

const CLASS: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: linstor-r2}
provisioner: stead.dev/local
volumeBindingMode: WaitForFirstConsumer
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: redis-headless
  labels:
    app: redis
spec:
  ports:
  - port: 6379
    name: redis
  clusterIP: None
  selector:
    app: redis
";

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: redis
spec:
  serviceName: "redis-headless"
  replicas: 3
  selector:
    matchLabels:
      app: redis
  template:
    metadata:
      labels:
        app: redis
    spec:
      containers:
      - name: redis
        image: redis:6.2-alpine
        ports:
        - containerPort: 6379
          name: redis
        volumeMounts:
        - name: data
          mountPath: /data
  volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ "ReadWriteOnce" ]
      storageClassName: "linstor-r2"
      resources:
        requests:
          storage: 1Gi
"#;

#[test]
fn seed_000_redis_has_order_claims_names_and_data() {
    with_each_kubectl(|_, kubectl| {
        steps_1_to_3_apply_and_watch(kubectl);
        step_4_names(kubectl);
        step_5_data(kubectl);
        step_6_scale(kubectl);
    });
}

fn steps_1_to_3_apply_and_watch(kubectl: &Kubectl) {
    kubectl.apply(CLASS);
    let mut watch = kubectl.start("get pod -w -l app=redis");
    assert_eq!(kubectl.apply(SERVICE), "service/redis-headless created\n");
    assert_eq!(kubectl.apply(SET), "statefulset.apps/redis created\n");
    let seen = watch.until(|line| line.starts_with("redis-2 ") && is_ready(line));
    assert_came_up_in_order(seen, &["redis-0", "redis-1", "redis-2"]);
    let claims = kubectl.ok("get pvc -l app=redis --no-headers");
    for (line, name) in claims.lines().zip(["data-redis-0", "data-redis-1", "data-redis-2"]) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[1], &words[3..6]), (name, "Bound", &["1Gi", "RWO", "linstor-r2"][..]), "{line}");
    }
}

fn step_4_names(kubectl: &Kubectl) {
    let addresses = kubectl.ok("get pods -l app=redis -o jsonpath='{.items[*].status.podIP}'");
    let all = in_busybox(kubectl, "nslookup redis-headless.default.svc.cluster.local");
    for address in addresses.split_whitespace() {
        assert!(all.contains(&format!("Address: {address}")), "{address} is not in\n{all}");
    }
    let first = addresses.split_whitespace().next().unwrap_or_default();
    let one = in_busybox(kubectl, "nslookup redis-0.redis-headless.default.svc.cluster.local");
    assert!(one.contains(&format!("Address: {first}")), "{one}");
    let back = in_busybox(kubectl, &format!("nslookup {first}"));
    assert!(back.contains("redis-0.redis-headless.default.svc.cluster.local"), "{back}");
    let short = in_busybox(kubectl, "ping -c 1 redis-1.redis-headless");
    assert!(short.contains("1 packets received"), "{short}");
    assert_eq!(kubectl.ok("exec redis-2 -- hostname"), "redis-2\n");
    let typed = "nslookup redis-1.redis-headless.default.svc.cluster.local\nexit\n";
    let started = Instant::now();
    let shell = kubectl.on_terminal("run -it --rm --image=busybox dns-test -- /bin/sh", typed);
    let second = addresses.split_whitespace().nth(1).unwrap_or_default();
    if !shell.stdout.contains(&format!("Address: {second}")) || !shell.stdout.contains("pod \"dns-test\" deleted") {
        let pod = kubectl.run("get pod dns-test -o yaml");
        let log = kubectl.run("logs dns-test");
        panic!(
            "terminal session of {:?}: {shell:?}\nthe pod: {}{}\nits log: {}{}",
            started.elapsed(),
            pod.stdout,
            pod.stderr,
            log.stdout,
            log.stderr
        );
    }
}

fn step_5_data(kubectl: &Kubectl) {
    assert_eq!(kubectl.ok(r#"exec redis-0 -- redis-cli SET mykey "Hello Stateful World""#), "OK\n");
    assert_eq!(kubectl.ok("exec redis-0 -- redis-cli GET mykey"), "Hello Stateful World\n");
    assert!(replace(kubectl, "redis-0").starts_with("pod \"redis-0\" deleted"));
    assert_eq!(kubectl.ok("exec redis-0 -- redis-cli GET mykey"), "Hello Stateful World\n");
}

fn step_6_scale(kubectl: &Kubectl) {
    let mut watch = kubectl.start("get pod -w -l app=redis");
    watch.until(|line| line.starts_with("redis-2 "));
    assert_eq!(kubectl.ok("scale statefulset redis --replicas=5"), "statefulset.apps/redis scaled\n");
    let seen = watch.until(|line| line.starts_with("redis-4 ") && is_ready(line));
    assert_came_up_in_order(seen, &["redis-3", "redis-4"]);
    assert_eq!(kubectl.ok("scale statefulset redis --replicas=3"), "statefulset.apps/redis scaled\n");
    let seen = watch.until(|line| line.starts_with("redis-3 ") && line.contains("Terminating")).to_vec();
    let fourth = seen.iter().position(|line| line.starts_with("redis-4 ") && line.contains("Terminating"));
    assert!(fourth.is_some(), "redis-3 ended before redis-4:\n{}", seen.join("\n"));
    kubectl.eventually("get pods -l app=redis -o name", |pods| pods.lines().count() == 3);
    assert_eq!(kubectl.ok("get pvc -l app=redis -o name").lines().count(), 5, "scaling down keeps the claims");
}
