//! `stead plan`: what it says comes true, step by step; what it says would be refused is refused in the same words.
//! And all commands that look, with a kubeconfig that may only look.

use std::path::{Path, PathBuf};

use stead_testkit::kubectl::Kubectl;

use crate::states::{Told, stead};
use crate::support::cluster;

fn manifest(replicas: u32, image: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
{more}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: {image}
        command: [sh, -c, 'trap exit TERM; while :; do sleep 0.1; done']
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], storageClassName: standard, resources: {{requests: {{storage: 1Mi}}}}}}
"#
    )
}

/// `create pod web-0` and so on, from what a plan printed.
fn steps(told: &Told) -> Vec<String> {
    let words = told.text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().filter(|word| !word.ends_with('.'));
        let (verb, what, name) = (words.next()?, words.next()?, words.next()?);
        (what == "pod" && matches!(verb, "create" | "delete")).then(|| format!("{verb} {name}"))
    });
    words.collect()
}

/// The same from what the controller did since the event with that version.
fn done(kubectl: &Kubectl, since: u64) -> Vec<String> {
    let columns = "get events --field-selector involvedObject.kind=StatefulSet -o jsonpath='{range .items[*]}{.metadata.resourceVersion} {.message}{\"\\n\"}{end}'";
    let mut events: Vec<(u64, String)> = kubectl
        .ok(columns)
        .lines()
        .filter_map(|line| {
            let (version, message) = line.trim_matches('\'').split_once(' ')?;
            let words: Vec<&str> = message.split(' ').collect();
            let (verb, name) = match words[..] {
                ["create" | "delete", "Pod", name, ..] => (words[0], name),
                _ => return None,
            };
            Some((version.parse().ok()?, format!("{verb} {name}")))
        })
        .collect();
    events.sort();
    events.into_iter().filter(|(version, _)| *version > since).map(|(_, step)| step).collect()
}

fn newest_event(kubectl: &Kubectl) -> u64 {
    let list = kubectl.ok("get events -o jsonpath='{.items[*].metadata.resourceVersion}'");
    list.trim_matches('\'').split(' ').filter_map(|version| version.parse().ok()).max().unwrap_or(0)
}

fn write(directory: &Path, text: &str) -> PathBuf {
    let file = directory.join("web.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn what_a_plan_says_comes_true_and_what_it_says_is_refused_is_refused() {
    let (cluster, kubectl) = cluster();
    let kubeconfig = cluster.kubeconfig();
    let file = write(cluster.directory(), &manifest(3, "busybox", ""));
    let words = ["plan", "-f", file.to_str().unwrap()];
    let ready = |count: &str| {
        let status = "get sts web -o jsonpath='{.status.updatedReplicas} {.status.readyReplicas} {.status.replicas}'";
        kubectl.eventually(status, |text| text.trim_matches('\'') == format!("{count} {count} {count}"));
    };

    let told = stead(&kubeconfig, &words);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.text.contains("statefulset.apps/web would be created"), "{}", told.text);
    assert!(told.text.contains("claim data-web-0 is made (1Mi, class standard)"), "{}", told.text);
    assert_eq!(steps(&told), ["create web-0", "create web-1", "create web-2"]);
    assert_eq!(kubectl.run("get sts web").code, 1, "a plan does nothing");
    let _ = kubectl.ok(&format!("apply -f {}", file.display()));
    ready("3");
    assert_eq!(done(&kubectl, 0), steps(&told));
    let told = stead(&kubeconfig, &words);
    assert_eq!((told.code, steps(&told).len()), (0, 0), "{}", told.text);

    // One more replica and another template, in one go.
    let _ = write(
        cluster.directory(),
        &manifest(4, "busybox", "").replace("main\n", "main\n        env: [{name: A, value: b}]\n"),
    );
    let told = stead(&kubeconfig, &words);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.text.contains("spec.replicas: 3 -> 4"), "{}", told.text);
    assert!(told.text.contains("at most 1 of 4 pods not available at a time"), "{}", told.text);
    assert!(told.text.contains("claim data-web-2 is used again (1Mi)"), "{}", told.text);
    let before = newest_event(&kubectl);
    let _ = kubectl.ok(&format!("apply -f {}", file.display()));
    ready("4");
    assert_eq!(done(&kubectl, before), steps(&told));

    let told = stead(&kubeconfig, &["plan", "scale", "sts/web", "--replicas=2"]);
    assert_eq!(told.code, 2);
    assert_eq!(steps(&told), ["delete web-3", "delete web-2"]);
    assert!(told.text.contains("it is no longer wanted; claim data-web-3 is kept"), "{}", told.text);
    assert!(told.text.contains("keep web-0, web-1"), "{}", told.text);
    let told = stead(&kubeconfig, &["plan", "set", "image", "sts/web", "main=busybox:1.35", "-o", "json"]);
    assert_eq!(told.code, 2);
    let document: serde_json::Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!(
        document["objects"][0]["fields"][0],
        "spec.template.spec.containers[main].image: busybox -> busybox:1.35"
    );
    assert_eq!(document["objects"][0]["pods"]["steps"][0]["what"], "delete pod web-3");
    let told = stead(&kubeconfig, &["plan", "set", "image", "sts/web", "main=busybox"]);
    assert_eq!(told.code, 0, "{told:?}");

    // Refused in the server's words: a field that cannot change, and pods beyond a quota.
    let _ = write(cluster.directory(), &manifest(4, "busybox", "  podManagementPolicy: Parallel"));
    let told = stead(&kubeconfig, &words);
    let refused = kubectl.run(&format!("apply -f {}", file.display()));
    assert_eq!((told.code, refused.code), (1, 1));
    let reason = refused.stderr.trim().rsplit("spec: Forbidden").next().unwrap().to_owned();
    assert!(
        told.text.contains("statefulset.apps/web would be refused: ") && told.text.contains(&reason),
        "{}\n{}",
        told.text,
        refused.stderr
    );
    kubectl.apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: 4}}");
    kubectl.eventually("get resourcequota few -o jsonpath={.status.used.pods}", |used| used == "4");
    let told = stead(&kubeconfig, &["plan", "scale", "sts/web", "--replicas=5"]);
    assert_eq!(told.code, 1);
    assert!(
        told.text.contains("pod web-4 would be refused: ") && told.text.contains("exceeded quota: few"),
        "{}",
        told.text
    );
}

/// A kubeconfig of a service account that has the role `view` in the namespace `default` and nothing else.
fn viewer(kubectl: &Kubectl, directory: &Path) -> PathBuf {
    let _ = kubectl.ok("create serviceaccount viewer");
    let _ = kubectl.ok("create rolebinding viewer --clusterrole=view --serviceaccount=default:viewer");
    let body = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}"#;
    let answer =
        kubectl.run_with_input("create --raw /api/v1/namespaces/default/serviceaccounts/viewer/token -f -", body);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let config: serde_json::Value = serde_json::from_str(&kubectl.ok("config view --raw -o json")).unwrap();
    let mut config = config;
    config["users"][0]["user"] = serde_json::json!({"token": answer["status"]["token"]});
    let file = directory.join("viewer.yaml");
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[test]
fn acceptance_9_who_may_only_look_in_one_namespace_is_told_as_much_as_can_be_seen() {
    let (cluster, kubectl) = cluster();
    let viewer = viewer(&kubectl, cluster.directory());
    let broken = manifest(2, "busybox", "").replace("storageClassName: standard", "storageClassName: nowhere");
    kubectl.apply(&broken);
    kubectl.eventually("get events -o jsonpath={.items[*].reason}", |reasons| reasons.contains("ProvisioningFailed"));

    let told = stead(&viewer, &["explain", "sts/web"]);
    assert_eq!(told.code, 2, "{told:?}");
    for part in [
        "web-1 waits for web-0 to be Running and Ready (OrderedReady)",
        "persistentvolumeclaim/data-web-0: its storage class \"nowhere\" does not exist",
        "not read: storageclasses.storage.k8s.io, persistentvolumes, nodes",
        "User \"system:serviceaccount:default:viewer\" cannot list resource \"nodes\"",
    ] {
        assert!(told.text.contains(part), "{part:?} is missing in\n{}", told.text);
    }
    let told = stead(&viewer, &["check", "default", "web"]);
    assert_eq!(told.code, 1);
    assert!(
        told.text.contains("--- StatefulSet: web ---") && told.text.contains("\"nowhere\" does not exist"),
        "{}",
        told.text
    );
    let told = stead(&viewer, &["timeline", "sts/web"]);
    assert_eq!(told.code, 0, "{told:?}");
    let lines: Vec<&str> = told.text.lines().collect();
    let at = |part: &str| {
        lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("{part:?} is missing in\n{}", told.text))
    };
    assert!(at("statefulset/web  ") < at("storageclass.storage.k8s.io \"nowhere\" not found"), "{}", told.text);
    assert!(at("controllerrevision/web-") > 0 && at("SuccessfulCreate") > 0 && at("FailedScheduling") > 0);
    // What may not even be tried is told all the same, and that it was not tried.
    let told = stead(&viewer, &["plan", "scale", "sts/web", "--replicas=3"]);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.text.contains("not tried on the server: "), "{}", told.text);
    assert!(told.text.contains("it stops at web-0, which does not become Ready"), "{}", told.text);

    // kubectl's own explain is as it was.
    let told = stead(&viewer, &["explain", "pods.spec.nodeName"]);
    assert_eq!((told.code, told.text.lines().next()), (0, Some("KIND:       Pod")));
    let told = stead(&viewer, &["explain", "sts/nothere"]);
    assert_eq!(
        (told.code, told.errors.as_str()),
        (1, "Error from server (NotFound): statefulsets.apps \"nothere\" not found\n")
    );
}
