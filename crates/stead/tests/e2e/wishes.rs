//! What no StatefulSet has, on real containers: pods that are stopped, one chosen pod removed, one budget over two sets,
//! pods that differ, and pods that hand over.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use stead_testkit::kubectl::Kubectl;

use crate::support::{CLAIMS, IDLE, is_ready, namespace, ready, service, set, uid};

/// stead's own command line.
#[track_caller]
fn stead(kubeconfig: &Path, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stead"))
        .args(command.split(' '))
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[track_caller]
fn pods_are(kubectl: &Kubectl, expected: &str) {
    kubectl.eventually("get pods -o jsonpath={.items[*].metadata.name}", |names| names == expected);
}

#[test]
fn a_stopped_pod_comes_back_with_its_data_and_a_chosen_one_is_removed() {
    let (_cluster, kubectl) = namespace("stopping");
    let container = format!("{IDLE}\n        volumeMounts: [{{name: data, mountPath: /data}}]");
    kubectl.apply(&service("web", "clusterIP: None, "));
    kubectl.apply(&set("web", 3, CLAIMS, &container));
    ready(&kubectl, "web", "3");
    let _ = kubectl.ok("exec web-1 -- sh -c 'echo kept > /data/file'");
    let (zero, two) = (uid(&kubectl, "web-0"), uid(&kubectl, "web-2"));

    let _ = kubectl.ok("annotate sts web stead.dev/stop-ordinals=1");
    pods_are(&kubectl, "web-0 web-2");
    let explained = stead(&kubectl.kubeconfig, "explain sts/web");
    assert!(explained.contains("web-1 is stopped on purpose"), "{explained}");
    assert_eq!((uid(&kubectl, "web-0"), uid(&kubectl, "web-2")), (zero.clone(), two.clone()));

    let _ = kubectl.ok("annotate sts web stead.dev/stop-ordinals-");
    ready(&kubectl, "web", "3");
    assert_eq!(kubectl.ok("exec web-1 -- cat /data/file"), "kept\n");

    let said = stead(&kubectl.kubeconfig, "scale sts/web --remove-ordinal 1");
    assert_eq!(said, "statefulset.apps/web scaled\n");
    pods_are(&kubectl, "web-0 web-2");
    ready(&kubectl, "web", "2");
    assert_eq!((uid(&kubectl, "web-0"), uid(&kubectl, "web-2")), (zero, two));
}

#[test]
fn two_sets_that_roll_out_at_once_keep_to_one_budget() {
    let (_cluster, kubectl) = namespace("budget");
    kubectl.apply(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: both}\n\
         spec: {maxUnavailable: 1, selector: {matchExpressions: [{key: app, operator: In, values: [left, right]}]}}\n",
    );
    let sets = ["left", "right"];
    for name in sets {
        kubectl.apply(&set(name, 2, "  podManagementPolicy: Parallel", IDLE));
        let _ = kubectl.ok(&format!("annotate sts {name} stead.dev/evict=true"));
    }
    for name in sets {
        ready(&kubectl, name, "2");
    }
    let mut watch = kubectl.start("get pods -w --no-headers");
    for name in sets {
        let _ = kubectl.ok(&format!("set env sts/{name} ROLLED=yes"));
    }
    // Until each of the four has gone and come back.
    let seen = RefCell::new(Seen::default());
    watch.until(|line| {
        let mut seen = seen.borrow_mut();
        seen.line(line);
        seen.back == 4
    });
    assert_eq!(seen.borrow().worst, 1, "one at a time");
    for name in sets {
        let _ = kubectl.ok(&format!("rollout status sts/{name}"));
    }
}

/// What a watch of pods has shown.
#[derive(Default)]
struct Seen {
    away: BTreeSet<String>,
    /// How often a pod came back.
    back: usize,
    /// How many were away at once.
    worst: usize,
}

impl Seen {
    fn line(&mut self, line: &str) {
        let name = line.split(' ').next().unwrap_or_default().to_owned();
        if !is_ready(line) {
            self.away.insert(name);
        } else if self.away.remove(&name) {
            self.back += 1;
        }
        self.worst = self.worst.max(self.away.len());
    }
}

#[test]
fn an_override_makes_one_pod_differ() {
    let (_cluster, kubectl) = namespace("overrides");
    kubectl.apply(&set("web", 2, "", IDLE));
    ready(&kubectl, "web", "2");
    let zero = uid(&kubectl, "web-0");
    let patch = r#"{"1":{"spec":{"containers":[{"name":"main","env":[{"name":"ROLE","value":"arbiter"}]}]}}}"#;
    let merge = serde_json::json!({"metadata": {"annotations": {"stead.dev/overrides": patch}}});
    let _ = kubectl.ok(&format!("patch sts web --type=merge -p '{merge}'"));
    kubectl.eventually("get sts web -o jsonpath={.status.updatedReplicas}{.status.readyReplicas}", |both| both == "22");
    kubectl.eventually("get pod web-1 -o jsonpath={.spec.containers[0].env[0].value}", |role| role == "arbiter");
    ready(&kubectl, "web", "2");
    assert_eq!(kubectl.ok("exec web-1 -- sh -c 'echo $ROLE'"), "arbiter\n");
    assert_eq!(uid(&kubectl, "web-0"), zero, "the other one stays");
}

#[test]
fn pods_hand_over_before_they_go_and_what_cannot_be_understood_is_warned_of() {
    let (_cluster, kubectl) = namespace("handing");
    kubectl.apply(&set("web", 2, CLAIMS, &format!("{IDLE}\n        volumeMounts: [{{name: data, mountPath: /data}}]")));
    ready(&kubectl, "web", "2");
    let done = kubectl.run("annotate sts web stead.dev/hand-over=leave");
    assert!(
        done.stderr.contains("Warning: metadata.annotations[stead.dev/hand-over]: \"leave\" counts as not given"),
        "{done:?}"
    );

    let command = r#"["sh", "-c", "echo handed over > /data/file"]"#;
    let merge = serde_json::json!({"metadata": {"annotations": {"stead.dev/hand-over": command}}});
    let _ = kubectl.ok(&format!("patch sts web --type=merge -p '{merge}'"));
    let _ = kubectl.ok("set env sts/web ROLLED=yes");
    let _ = kubectl.ok("rollout status sts/web");
    for pod in ["web-0", "web-1"] {
        assert_eq!(kubectl.ok(&format!("exec {pod} -- cat /data/file")), "handed over\n");
    }
    let told = "get events --field-selector reason=HandedOver -o jsonpath={.items[*].message}";
    kubectl.eventually(told, |told| told.matches("has handed over").count() == 2);

    // A command that does not end is killed, and the pod goes all the same.
    let merge = r#"{"metadata": {"annotations": {"stead.dev/hand-over": "[\"sleep\", \"1000\"]", "stead.dev/hand-over-seconds": "1"}}}"#;
    let _ = kubectl.ok(&format!("patch sts web --type=merge -p '{merge}'"));
    let _ = kubectl.ok("scale sts web --replicas=1");
    pods_are(&kubectl, "web-0");
    let told = "get events --field-selector involvedObject.name=web -o jsonpath={.items[*].reason}";
    kubectl.eventually(told, |told| told.contains("HandOverTimedOut") || told.contains("HandOverFailed"));
}
