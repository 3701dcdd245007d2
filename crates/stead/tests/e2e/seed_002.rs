//! The nginx set of the third document: names between pods, partition, OnDelete, orphans and adoption.

use stead_testkit::kubectl::Kubectl;

use crate::support::{replace, with_each_kubectl};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: nginx-headless
  labels:
    app: nginx-headless
spec:
  ports:
    - port: 80
      name: web
  clusterIP: None
  selector:
    app: nginx-sts
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: "nginx-headless"
  replicas: 2
  selector:
    matchLabels:
      app: nginx-sts
  template:
    metadata:
      labels:
        app: nginx-sts
    spec:
      containers:
        - name: nginx
          image: m.daocloud.io/docker.io/library/nginx:latest
          ports:
            - containerPort: 80
              name: web
"#;

const IMAGES: &str =
    r#"get pods -o jsonpath='{range .items[*]}{.metadata.name}{"="}{.spec.containers[*].image}{"\n"}{end}'"#;

#[test]
fn seed_002_nginx_is_reached_by_name_and_rolled_out_by_partition_and_by_hand() {
    with_each_kubectl(|_, kubectl| {
        kubectl.apply(MANIFEST);
        let _ = kubectl.ok("rollout status sts/web --timeout=60s");
        let head = kubectl.ok("exec web-0 -- curl -sI web-1.nginx-headless");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(kubectl.ok("scale statefulset web --replicas=4"), "statefulset.apps/web scaled\n");
        let _ = kubectl.ok("rollout status sts/web --timeout=60s");
        partition(kubectl);
        on_delete(kubectl);
        orphans(kubectl);
    });
}

fn set_image(kubectl: &Kubectl, tag: &str) {
    let said = kubectl.ok(&format!("set image sts/web nginx=m.daocloud.io/docker.io/library/nginx:{tag}"));
    assert_eq!(said, "statefulset.apps/web image updated\n");
}

/// The tags of web-0 to web-3.
fn tags(kubectl: &Kubectl) -> Vec<String> {
    let lines = kubectl.ok(IMAGES);
    lines.lines().filter_map(|line| Some(line.rsplit_once(':')?.1.to_owned())).collect()
}

fn partition(kubectl: &Kubectl) {
    let _ = kubectl.ok(
        r#"patch sts web -p '{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":2}}}}'"#,
    );
    set_image(kubectl, "1.16");
    let said = kubectl.ok("rollout status sts/web --timeout=60s");
    assert!(said.ends_with("partitioned roll out complete: 2 new pods have been updated...\n"), "{said}");
    assert_eq!(tags(kubectl), ["latest", "latest", "1.16", "1.16"]);
    let _ = replace(kubectl, "web-0");
    assert_eq!(
        tags(kubectl),
        ["latest", "latest", "1.16", "1.16"],
        "a pod below the partition comes back at the old revision"
    );
    let _ = kubectl.ok(r#"patch sts web -p '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}'"#);
    let _ = kubectl.ok("rollout status sts/web --timeout=60s");
    assert_eq!(tags(kubectl), ["1.16"; 4]);
}

fn on_delete(kubectl: &Kubectl) {
    let _ = kubectl.ok(r#"patch sts web -p '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}'"#);
    set_image(kubectl, "alpine");
    let status = kubectl.run("rollout status sts/web");
    assert_eq!(status.stderr, "error: rollout status is only available for RollingUpdate strategy type\n");
    assert_eq!(tags(kubectl), ["1.16"; 4], "OnDelete replaces nothing by itself");
    let _ = replace(kubectl, "web-2");
    assert_eq!(tags(kubectl), ["1.16", "1.16", "alpine", "1.16"]);
}

fn orphans(kubectl: &Kubectl) {
    let uids = "get pods -l app=nginx-sts -o jsonpath={.items[*].metadata.uid}";
    let before = kubectl.ok(uids);
    let _ = kubectl.ok("delete sts web --cascade=orphan");
    assert_eq!(kubectl.ok(uids), before, "orphans keep running");
    kubectl.eventually("get pod web-0 -o jsonpath={.metadata.ownerReferences}", str::is_empty);
    let four = MANIFEST
        .replace("replicas: 2", "replicas: 4")
        .replace("  serviceName", "  updateStrategy: {type: OnDelete}\n  serviceName");
    kubectl.apply(&four);
    kubectl
        .eventually("get pods -l app=nginx-sts -o jsonpath={.items[*].metadata.ownerReferences[0].name}", |owners| {
            owners == "web web web web"
        });
    assert_eq!(kubectl.ok(uids), before, "adopted pods are the same pods");
}
