//! What a set's templates can do to its running pods: all of them replaced at once by the strategy `Recreate`, and new
//! volumes for all of them by a claim template that is added.

use stead_testkit::kubectl::Kubectl;

use crate::support::cluster;

fn ready(kubectl: &Kubectl) {
    let status = "get sts web -o jsonpath='{.status.updatedReplicas} {.status.readyReplicas}'";
    kubectl.eventually(status, |text| text.trim_matches('\'') == "2 2");
}

/// Two pods that write down when they start and when they end, and of which version they are.
fn diary(version: u32, diary: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: 2
  podManagementPolicy: Parallel
  updateStrategy: {{type: Recreate}}
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "echo start {version} >> /diary/text; trap 'sleep 0.5; echo end {version} >> /diary/text; exit' TERM; while :; do sleep 0.1; done"]
        volumeMounts: [{{name: diary, mountPath: /diary}}]
      volumes:
      - name: diary
        hostPath: {{path: {diary}, type: DirectoryOrCreate}}
"#
    )
}

#[test]
fn recreate_never_lets_the_old_and_the_new_run_side_by_side() {
    let (cluster, kubectl) = cluster();
    let dir = cluster.data_dir().join("diary");
    let place = dir.to_string_lossy();
    kubectl.apply(&diary(1, &place));
    ready(&kubectl);
    kubectl.apply(&diary(2, &place));
    let reason = "get sts web -o jsonpath='{.status.conditions[?(@.type==\"Progressing\")].reason}'";
    let written = || std::fs::read_to_string(dir.join("text")).unwrap();
    kubectl.eventually(reason, |reason| {
        reason.trim_matches('\'') == "RecreateComplete" && written().matches("start 2").count() == 2
    });
    ready(&kubectl);
    let told: Vec<String> = written().lines().map(str::to_owned).collect();
    assert_eq!(told, ["start 1", "start 1", "end 1", "end 1", "start 2", "start 2"]);
    let events = kubectl.ok("get events -o jsonpath='{.items[*].reason}'");
    assert_eq!(events.matches("RecreateStarted").count(), 1, "{events}");
}

/// Two pods with a volume for data, and perhaps one more for a log.
fn with_claims(log: bool) -> String {
    let mount = if log { ", {name: log, mountPath: /log}" } else { "" };
    let template = if log {
        "\n  - metadata: {name: log}\n    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}"
    } else {
        ""
    };
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
  annotations: {{stead.dev/grow-claims: "true"}}
spec:
  serviceName: web
  replicas: 2
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: busybox
        command: [sleep, "100000"]
        volumeMounts: [{{name: data, mountPath: /data}}{mount}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}{template}
"#
    )
}

#[test]
fn a_claim_template_that_is_added_comes_to_every_pod_and_the_data_stays() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(&with_claims(false));
    ready(&kubectl);
    let _ = kubectl.ok("exec web-1 -- sh -c 'echo mine > /data/file'");
    kubectl.apply(&with_claims(true));
    let _ = kubectl.ok("wait --for=condition=ClaimsUpToDate sts/web --timeout=60s");
    ready(&kubectl);
    assert_eq!(kubectl.ok("exec web-1 -- sh -c 'echo noted > /log/file; cat /data/file /log/file'"), "mine\nnoted\n");
    let claims = kubectl.ok("get pvc -o jsonpath='{.items[*].metadata.name}'");
    assert_eq!(claims.trim_matches('\''), "data-web-0 data-web-1 log-web-0 log-web-1");
    let refused = kubectl.run("patch sts web --type=merge -p '{\"spec\":{\"volumeClaimTemplates\":[]}}'");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("template \"data\" cannot be removed"), "{}", refused.stderr);
}
