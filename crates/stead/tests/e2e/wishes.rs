//! What no StatefulSet has, on real containers: pods that are stopped, and one chosen pod removed.

use std::path::Path;
use std::process::Command;

use stead_testkit::kubectl::Kubectl;

use crate::support::{CLAIMS, IDLE, namespace, ready, set, uid};

/// stead's own command line.
#[track_caller]
fn stead(kubeconfig: &Path, command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_stead"))
        .args(command.split(' '))
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn pods_are(kubectl: &Kubectl, expected: &str) {
    kubectl.eventually("get pods -o jsonpath={.items[*].metadata.name}", |names| names == expected);
}

#[test]
fn a_stopped_pod_comes_back_with_its_data_and_a_chosen_one_is_removed() {
    let (_cluster, kubectl) = namespace("stopping");
    let container = format!("{IDLE}\n        volumeMounts: [{{name: data, mountPath: /data}}]");
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
