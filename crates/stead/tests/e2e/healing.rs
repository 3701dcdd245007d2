//! What none has: a roll-out that got stuck on a broken pod goes on when its template is mended, and goes back by itself
//! when it takes too long; and what is evicted is gone.

use stead_testkit::kubectl::Kubectl;

use crate::support::cluster;

const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: web
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]
        readinessProbe:
          exec: {command: ["true"]}
          periodSeconds: 1
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: web
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {app: web}
"#;

fn image(kubectl: &Kubectl, tag: &str) {
    let _ = kubectl.ok(&format!("set image sts/web main={tag}"));
}

fn uid(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.metadata.uid}}"))
}

/// Waits until all three are Ready at the newest revision.
fn rolled_out(kubectl: &Kubectl) {
    let status = "get sts web -o jsonpath='{.status.updatedReplicas} {.status.readyReplicas} \
                  {.status.currentRevision} {.status.updateRevision}'";
    kubectl.eventually(status, |text| {
        let words: Vec<&str> = text.trim_matches('\'').split(' ').collect();
        matches!(words[..], ["3", "3", current, update] if current == update)
    });
}

#[test]
fn a_stuck_roll_out_heals_goes_back_and_budgets_hold() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(MANIFEST);
    rolled_out(&kubectl);

    // An image that does not exist: the first pod of the roll-out is stuck, the others run on.
    let (zero, one) = (uid(&kubectl, "web-0"), uid(&kubectl, "web-1"));
    image(&kubectl, "busybox:nowhere");
    let waiting = "get pod web-2 -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    kubectl.eventually(waiting, |reason| reason.contains("ImagePull"));
    // Rolled back: the broken pod is replaced, and nothing else is touched.
    let _ = kubectl.ok("rollout undo sts/web");
    rolled_out(&kubectl);
    assert_eq!((uid(&kubectl, "web-0"), uid(&kubectl, "web-1")), (zero.clone(), one.clone()));
    let told = kubectl.ok("get events --field-selector reason=ReplacingBrokenPod -o jsonpath={.items[*].message}");
    assert!(told.starts_with("Pod web-2 does not work at revision web-"), "{told}");

    // With a deadline it goes back by itself.
    let _ = kubectl.ok("annotate sts web stead.dev/progress-deadline-seconds=2");
    image(&kubectl, "busybox:nowhere");
    kubectl.eventually("get sts web -o jsonpath={.spec.template.spec.containers[0].image}", |image| image == "busybox");
    rolled_out(&kubectl);
    assert_eq!((uid(&kubectl, "web-0"), uid(&kubectl, "web-1")), (zero, one));

    // Two may not be evicted at once; what is evicted goes and comes back.
    kubectl.eventually("get pdb web -o jsonpath={.status.disruptionsAllowed}", |allowed| allowed == "1");
    let before = uid(&kubectl, "web-1");
    let eviction = |pod: &str| {
        let body = format!(r#"{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{pod}"}}}}"#);
        let command = format!("create --raw /api/v1/namespaces/default/pods/{pod}/eviction -f -");
        kubectl.run_with_input(&command, &body)
    };
    let granted = eviction("web-1");
    assert_eq!(granted.code, 0, "{granted:?}");
    let refused = eviction("web-2");
    assert!(
        refused.stderr.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{refused:?}"
    );
    kubectl.eventually("get pod web-1 -o jsonpath={.metadata.uid}", |uid| !uid.is_empty() && uid != before);
    rolled_out(&kubectl);
}
