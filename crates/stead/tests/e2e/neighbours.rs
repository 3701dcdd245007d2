//! What stands beside sets: Deployment, ReplicaSet, DaemonSet, Job, and the maintenance of a node.

use std::collections::BTreeSet;

use stead_testkit::kubectl::Kubectl;

use crate::support::cluster;

fn workload(kind: &str, name: &str, spec: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}}}
spec:
{spec}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:1.35
        command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]
        readinessProbe: {{exec: {{command: ["true"]}}, periodSeconds: 1}}
"#
    )
}

fn names(kubectl: &Kubectl, app: &str) -> BTreeSet<String> {
    let names = kubectl.ok(&format!("get pods -l app={app} -o jsonpath={{.items[*].metadata.name}}"));
    names.split_whitespace().map(str::to_owned).collect()
}

fn images(kubectl: &Kubectl, app: &str) -> String {
    kubectl.ok(&format!("get pods -l app={app} -o jsonpath={{.items[*].spec.containers[0].image}}"))
}

#[test]
fn acceptance_11_a_deployment_rolls_with_a_surge_and_goes_back() {
    let (_cluster, kubectl) = cluster();
    let spec = "  replicas: 3\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}";
    kubectl.apply(&workload("Deployment", "dep", spec));
    let _ = kubectl.ok("rollout status deploy/dep --timeout=110s");
    let before = kubectl.ok("get rs -l app=dep -o jsonpath={.items[0].metadata.name}");
    let first = names(&kubectl, "dep");
    for name in &first {
        let (set, end) = name.rsplit_once('-').unwrap();
        assert!(set == before && end.len() == 5 && end.chars().all(char::is_alphanumeric), "{name} of {before}");
    }

    let mut watch = kubectl.start(
        r#"get deploy dep -w -o 'jsonpath={.status.updatedReplicas} {.status.availableReplicas} {.status.replicas}{"\n"}'"#,
    );
    let _ = watch.until(|line| line == "3 3 3");
    assert_eq!(kubectl.ok("set image deploy/dep main=busybox:1.36"), "deployment.apps/dep image updated\n");
    // The new set begins with one, so the count falls before it rises to three again.
    let _ = watch.until(|line| line.starts_with("1 "));
    let seen = watch.until(|line| line == "3 3 3").to_vec();
    let _ = kubectl.ok("rollout status deploy/dep --timeout=110s");
    for line in &seen {
        let counts: Vec<u32> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        if let [_, available, all] = counts[..] {
            assert!(available >= 3 && all <= 4, "three stay available, one more at most:\n{}", seen.join("\n"));
        }
    }
    assert!(seen.iter().any(|line| line.ends_with(" 4")), "a surge was made:\n{}", seen.join("\n"));
    kubectl.eventually("get pods -l app=dep -o name", |pods| pods.lines().count() == 3);
    assert!(names(&kubectl, "dep").is_disjoint(&first), "a Deployment's pods come under new names");
    assert_eq!(images(&kubectl, "dep"), ["busybox:1.36"; 3].join(" "));

    let history = kubectl.ok("rollout history deploy/dep");
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    assert_eq!(kubectl.ok("rollout undo deploy/dep"), "deployment.apps/dep rolled back\n");
    let _ = kubectl.ok("rollout status deploy/dep --timeout=110s");
    kubectl.eventually("get pods -l app=dep -o name", |pods| pods.lines().count() == 3);
    assert_eq!(images(&kubectl, "dep"), ["busybox:1.35"; 3].join(" "));
    assert!(names(&kubectl, "dep").iter().all(|name| name.starts_with(&before)), "the first ReplicaSet is used again");
}

#[test]
fn acceptance_11_replica_sets_daemon_sets_and_jobs() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(&workload("ReplicaSet", "rs", "  replicas: 2"));
    kubectl.apply(&workload("DaemonSet", "daemon", ""));
    let ready = |set: &str, field: &str, wanted: &str| {
        kubectl.eventually(&format!("get {set} -o jsonpath={{.status.{field}}}"), |seen| seen == wanted);
    };
    ready("rs/rs", "readyReplicas", "2");
    let before = names(&kubectl, "rs");
    let lost = before.first().unwrap();
    let _ = kubectl.ok(&format!("delete pod {lost} --wait=false"));
    kubectl.eventually("get pods -l app=rs -o name", |pods| pods.lines().count() == 2 && !pods.contains(lost.as_str()));
    assert_eq!(kubectl.ok("scale rs/rs --replicas=1"), "replicaset.apps/rs scaled\n");
    kubectl.eventually("get pods -l app=rs -o name", |pods| pods.lines().count() == 1);

    ready("ds/daemon", "numberReady", "1");
    assert_eq!(
        kubectl.ok("get pods -l app=daemon -o jsonpath={.items[*].spec.nodeName}"),
        kubectl.ok("get nodes -o jsonpath={.items[*].metadata.name}"),
        "one pod on each node"
    );
    let before = names(&kubectl, "daemon");
    let _ = kubectl.ok("set image ds/daemon main=busybox:1.36");
    let _ = kubectl.ok("rollout status ds/daemon --timeout=110s");
    assert!(names(&kubectl, "daemon").is_disjoint(&before));
    assert_eq!(images(&kubectl, "daemon"), "busybox:1.36");
    let _ = kubectl.ok("rollout undo ds/daemon");
    let _ = kubectl.ok("rollout status ds/daemon --timeout=110s");
    assert_eq!(images(&kubectl, "daemon"), "busybox:1.35");

    let job = |name: &str, spec: &str, command: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: main, image: busybox, command: [sh, -c, \"{command}\"]}}]\n"
        )
    };
    kubectl.apply(&job("sums", "completions: 3\n  parallelism: 2", "echo $((6 * 7))"));
    kubectl.apply(&job("fails", "backoffLimit: 1", "exit 4"));
    let _ = kubectl.ok("wait --for=condition=complete job/sums --timeout=110s");
    assert_eq!(kubectl.ok("logs -l job-name=sums"), "42\n42\n42\n");
    let _ = kubectl.ok("wait --for=condition=failed job/fails --timeout=110s");
    assert_eq!(
        kubectl.ok(r#"get job fails -o 'jsonpath={.status.conditions[?(@.type=="Failed")].reason}'"#),
        "BackoffLimitExceeded"
    );
    assert_eq!(kubectl.ok("get job fails -o jsonpath={.status.failed}"), "2");
}

#[test]
fn acceptance_11_drain_keeps_to_the_disruption_budget() {
    let (_cluster, kubectl) = cluster();
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    kubectl.apply(&workload("StatefulSet", "db", "  serviceName: db\n  replicas: 2"));
    kubectl.apply(&workload("DaemonSet", "daemon", ""));
    kubectl.apply("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: db}\nspec: {minAvailable: 1, selector: {matchLabels: {app: db}}}\n");
    let _ = kubectl.ok("rollout status sts/db --timeout=110s");
    let _ = kubectl.ok("rollout status ds/daemon --timeout=110s");
    kubectl.eventually("get pdb db -o jsonpath={.status.disruptionsAllowed}", |allowed| allowed == "1");

    assert_eq!(kubectl.ok(&format!("cordon {node}")), format!("node/{node} cordoned\n"));
    let refused = kubectl.run(&format!("drain {node} --timeout=60s"));
    assert!(refused.code != 0 && refused.stderr.contains("DaemonSet-managed Pods"), "{refused:?}");
    // One pod may go; where it goes there is no room, so the other one has to stay.
    let drained = kubectl.run(&format!("drain {node} --ignore-daemonsets --timeout=8s"));
    let said = format!("{}{}", drained.stdout, drained.stderr);
    assert_ne!(drained.code, 0, "{said}");
    assert!(said.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{said}");
    kubectl.eventually("get pods -l app=db -o jsonpath={.items[*].status.phase}", |phases| {
        phases == "Running Pending" || phases == "Pending Running"
    });
    let events = kubectl.ok("get events --field-selector reason=FailedScheduling -o jsonpath={.items[*].message}");
    assert!(events.contains("1 node(s) were unschedulable"), "{events}");

    assert_eq!(kubectl.ok(&format!("uncordon {node}")), format!("node/{node} uncordoned\n"));
    let _ = kubectl.ok("rollout status sts/db --timeout=110s");
    kubectl.eventually("get sts db -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    // Without the budget everything goes, but for the DaemonSet's pod.
    let _ = kubectl.ok("delete pdb db");
    let drained = kubectl.ok(&format!("drain {node} --ignore-daemonsets --timeout=60s"));
    assert!(drained.contains(&format!("node/{node} ")), "{drained}");
    assert_eq!(kubectl.ok("get pods -l app=daemon -o jsonpath={.items[*].status.phase}"), "Running");
    kubectl.eventually("get pods -l app=db -o jsonpath={.items[*].status.phase}", |phases| phases == "Pending");
}
