//! Upstream's own StatefulSet scenarios, by their names: what `test/e2e/apps/statefulset.go` and `controller_revision.go` ask of a
//! cluster, asked of this one. Each test's docstring is upstream's name of it.

use std::sync::Arc;

use serde_json::{Value, json};
use stead_testkit::cluster::Cluster;
use stead_testkit::kubectl::Kubectl;

use crate::support::{CLAIMS, cluster, is_ready, namespace, position, ready, replace, replaced, service, set, uid};

/// Does nothing, and little of it: many of these pods run at the same time.
const QUIET: &str = r#"        command: [sh, -c, "trap exit TERM; sleep 100000 & wait"]"#;
/// Upstream's web server: Ready for as long as it has its page, which is from the start.
const WEB: &str = r#"        command: [sh, -c, "mkdir /www; touch /www/index.html; trap exit TERM; httpd -f -h /www & wait"]
        readinessProbe: {httpGet: {path: /index.html, port: 80}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}"#;
/// Upstream's paused pod: Ready when somebody has put a file into the claim of `CLAIMS`.
const PAUSED: &str = r#"        command: [sh, -c, "trap exit TERM; httpd -f -h /data & wait"]
        readinessProbe: {httpGet: {path: /go, port: 80}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 10}
        volumeMounts: [{name: data, mountPath: /data}]"#;
const WATCH: &str = "get pods -w -l app=ss --output-watch-events --no-headers";
const OLD: &str = "busybox";
const NEW: &str = "busybox:1.36";

/// What a test leaves behind goes with this, so that the next ones have the machine for themselves.
struct Tidy {
    _cluster: Arc<Cluster>,
    kubectl: Kubectl,
}

impl Drop for Tidy {
    fn drop(&mut self) {
        let _ = self.kubectl.run("delete sts,ds --all --wait=false");
    }
}

/// A namespace on the server that tests share.
fn scene(name: &str) -> (Tidy, Kubectl) {
    let (cluster, kubectl) = namespace(name);
    let Kubectl { program, kubeconfig } = &kubectl;
    let same = Kubectl { program: program.clone(), kubeconfig: kubeconfig.clone() };
    (Tidy { _cluster: cluster, kubectl: same }, kubectl)
}

/// The names of the pods of the set `ss`.
fn pods(kubectl: &Kubectl) -> Vec<String> {
    kubectl.ok("get pods -l app=ss -o name").lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
}

/// A field of each pod of the set, the lowest ordinal first.
fn of_pods(kubectl: &Kubectl, path: &str) -> Vec<String> {
    let look = format!("get pods -l app=ss -o jsonpath='{{.items[*]{path}}}'");
    kubectl.ok(&look).split_whitespace().map(str::to_owned).collect()
}

fn images(kubectl: &Kubectl) -> Vec<String> {
    of_pods(kubectl, ".spec.containers[0].image")
}

fn revisions(kubectl: &Kubectl) -> Vec<String> {
    of_pods(kubectl, ".metadata.labels.controller-revision-hash")
}

/// The current and the update revision of the set.
fn current_and_update(kubectl: &Kubectl) -> (String, String) {
    let both = kubectl.ok("get sts ss -o jsonpath='{.status.currentRevision} {.status.updateRevision}'");
    let (current, update) = both.split_once(' ').unwrap();
    (current.to_owned(), update.to_owned())
}

/// Waits until the controller has acted on the newest spec.
fn observed(kubectl: &Kubectl) {
    kubectl.eventually("get sts ss -o jsonpath='{.metadata.generation} {.status.observedGeneration}'", |seen| {
        seen.split_once(' ').is_some_and(|(wanted, observed)| wanted == observed)
    });
}

/// Waits until so many replicas exist, all of them Ready, and the set has completed its roll-out.
fn complete(kubectl: &Kubectl, replicas: usize) {
    let look = "get sts ss -o jsonpath='{.status.replicas} {.status.readyReplicas} {.status.updatedReplicas} \
                {.status.currentRevision} {.status.updateRevision}'";
    let wanted = replicas.to_string();
    kubectl.eventually(look, |seen| {
        let words: Vec<&str> = seen.split(' ').collect();
        matches!(words[..], [all, ready, updated, current, update]
            if all == wanted && ready == wanted && updated == wanted && current == update)
    });
}

fn set_image(kubectl: &Kubectl, image: &str) {
    let _ = kubectl.ok(&format!("set image sts/ss main={image}"));
    observed(kubectl);
}

/// Makes a running pod of `WEB` not Ready.
fn fail(kubectl: &Kubectl, pod: &str) {
    let _ = kubectl.ok(&format!("exec {pod} -- mv /www/index.html /tmp"));
    kubectl.eventually(&readiness(pod), |ready| ready == "false");
}

fn mend(kubectl: &Kubectl, pod: &str) {
    let _ = kubectl.ok(&format!("exec {pod} -- touch /www/index.html"));
}

fn readiness(pod: &str) -> String {
    format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].ready}}")
}

/// Lets a pod of `PAUSED` become Ready.
fn release(kubectl: &Kubectl, pod: &str) {
    let running = format!("get pod {pod} --ignore-not-found -o jsonpath={{.status.phase}}");
    kubectl.eventually(&running, |phase| phase == "Running");
    let _ = kubectl.ok(&format!("exec {pod} -- touch /data/go"));
}

fn delete_pod(kubectl: &Kubectl, pod: &str) {
    let before = uid(kubectl, pod);
    let _ = kubectl.ok(&format!("delete pod {pod} --wait=false"));
    kubectl.eventually(&format!("get pod {pod} --ignore-not-found -o jsonpath={{.metadata.uid}}"), |now| {
        !now.is_empty() && now != before
    });
}

/// Asserts that the watch saw `event` of these pods in this order.
#[track_caller]
fn assert_in_order(seen: &[String], event: &str, names: [&str; 3]) {
    let at = |name: &str| position(seen, name, |line| line.starts_with(event) && line.contains(&format!(" {name} ")));
    let places = names.map(at);
    assert!(places.is_sorted(), "{event} of {names:?} out of order:\n{}", seen.join("\n"));
}

#[track_caller]
fn none_is_told_to_end(kubectl: &Kubectl) {
    assert_eq!(kubectl.ok("get pods -l app=ss -o jsonpath={.items[*].metadata.deletionTimestamp}"), "");
}

/// Scaling should happen in predictable order and halt if any stateful pod is unhealthy
#[test]
fn upstream_scaling_should_happen_in_predictable_order_and_halt_if_any_stateful_pod_is_unhealthy() {
    let (_cluster, kubectl) = scene("u-scaling");
    let mut watch = kubectl.start(WATCH);
    kubectl.apply(&set("ss", 1, "", WEB));
    ready(&kubectl, "ss", "1");
    fail(&kubectl, "ss-0");
    let _ = kubectl.ok("scale sts ss --replicas=3");
    observed(&kubectl);
    assert_eq!(pods(&kubectl), ["ss-0"], "it does not grow while a pod is not Ready");
    mend(&kubectl, "ss-0");
    let seen = watch.until(|line| line.contains(" ss-2 ") && is_ready(line));
    assert_in_order(seen, "ADDED", ["ss-0", "ss-1", "ss-2"]);

    for pod in ["ss-0", "ss-1", "ss-2"] {
        fail(&kubectl, pod);
    }
    kubectl.eventually("get sts ss -o jsonpath={.status.readyReplicas}", |ready| matches!(ready, "" | "0"));
    let _ = kubectl.ok("scale sts ss --replicas=0");
    observed(&kubectl);
    assert_eq!(pods(&kubectl).len(), 3, "it does not shrink while a pod is not Ready");
    none_is_told_to_end(&kubectl);
    // The last one goes as it is: nobody waits for the first that is not Ready.
    for pod in ["ss-2", "ss-1"] {
        mend(&kubectl, pod);
    }
    let seen = watch.until(|line| line.starts_with("DELETED") && line.contains(" ss-0 "));
    assert_in_order(seen, "DELETED", ["ss-2", "ss-1", "ss-0"]);
}

/// Burst scaling should run to completion even with unhealthy pods
#[test]
fn upstream_burst_scaling_should_run_to_completion_even_with_unhealthy_pods() {
    let (_cluster, kubectl) = scene("u-burst");
    kubectl.apply(&set("ss", 1, "  podManagementPolicy: Parallel", WEB));
    ready(&kubectl, "ss", "1");
    fail(&kubectl, "ss-0");
    let _ = kubectl.ok("scale sts ss --replicas=3");
    kubectl.eventually("get sts ss -o jsonpath={.status.replicas}", |replicas| replicas == "3");
    assert_eq!(kubectl.ok(&readiness("ss-0")), "false", "they came while it was not Ready");
    mend(&kubectl, "ss-0");
    ready(&kubectl, "ss", "3");
    for pod in ["ss-0", "ss-1", "ss-2"] {
        fail(&kubectl, pod);
    }
    let _ = kubectl.ok("scale sts ss --replicas=0");
    kubectl.eventually("get pods -l app=ss -o name", str::is_empty);
    kubectl.eventually("get sts ss -o jsonpath={.status.replicas}", |replicas| replicas == "0");
}

/// Should recreate evicted statefulset
#[test]
fn upstream_should_recreate_evicted_statefulset() {
    let (_cluster, kubectl) = scene("u-evicted");
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    let port = "ports: [{hostPort: 21017, containerPort: 21017, name: conflict}]";
    // Bound to the node by their names, so that the node itself has to refuse the second one.
    kubectl.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: holder}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: busybox\n    command: [sleep, '1000']\n    {port}\n"
    ));
    let _ = kubectl.ok("wait pod/holder --for=condition=Ready --timeout=100s");
    let mut watch = kubectl.start("get pods -w -l app=ss --output-watch-events -o jsonpath='{.type} {.object.metadata.uid} {.object.status.phase} {.object.status.reason}{\"\\n\"}'");
    let bound = set("ss", 1, "", &format!("{QUIET}\n        {port}"));
    kubectl.apply(&bound.replace("      containers:", &format!("      nodeName: {node}\n      containers:")));
    let seen = watch.until(|line| line.starts_with("DELETED"));
    assert!(seen.iter().any(|line| line.contains("Failed NodePorts")), "{seen:?}");
    let first = seen.last().unwrap().split(' ').nth(1).unwrap().to_owned();
    let _ = kubectl.ok("delete pod holder --grace-period=0 --force");
    replaced(&kubectl, "ss-0", &first);
}

/// should have a working scale subresource
#[test]
fn upstream_should_have_a_working_scale_subresource() {
    let (_cluster, kubectl) = scene("u-scale");
    kubectl.apply(&set("ss", 1, "", QUIET));
    ready(&kubectl, "ss", "1");
    let path = "/apis/apps/v1/namespaces/u-scale/statefulsets/ss/scale";
    let mut scale: Value = serde_json::from_str(&kubectl.ok(&format!("get --raw {path}"))).unwrap();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(1), &json!(1)));
    assert_eq!(scale["status"]["selector"], "app=ss");
    // Without a resourceVersion it is written whatever the set has become meanwhile.
    scale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    scale["spec"]["replicas"] = json!(2);
    let written = kubectl.run_with_input(&format!("replace --raw {path} -f -"), &scale.to_string());
    let written: Value = serde_json::from_str(&written.stdout).unwrap_or_else(|_| panic!("{written:?}"));
    assert_eq!((&written["kind"], &written["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(kubectl.ok("get sts ss -o jsonpath={.spec.replicas}"), "2");
    let _ = kubectl.ok(r#"patch sts ss --subresource=scale --type=merge -p '{"spec":{"replicas":4}}'"#);
    assert_eq!(kubectl.ok("get sts ss -o jsonpath={.spec.replicas}"), "4");
    ready(&kubectl, "ss", "4");
}

/// should list, patch and delete a collection of StatefulSets
#[test]
fn upstream_should_list_patch_and_delete_a_collection_of_statefulsets() {
    let (_cluster, kubectl) = scene("u-collection");
    kubectl.apply(&set("ss", 1, "", QUIET));
    kubectl.apply(&set("other", 1, "", QUIET));
    ready(&kubectl, "ss", "1");
    let patch = json!({
        "metadata": {"labels": {"test-ss": "patched"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "second", "image": NEW, "command": ["sleep", "1000"]}
        ]}}},
    });
    let _ = kubectl.ok(&format!("patch sts ss -p '{patch}'"));
    let both = "get sts ss -o jsonpath='{.spec.replicas} {.spec.template.spec.containers[*].name}'";
    assert_eq!(kubectl.ok(both), "2 second main", "a strategic merge puts the new container first");
    complete(&kubectl, 2);
    let listed = "get sts -A -l test-ss=patched -o jsonpath={.items[*].metadata.name}";
    assert_eq!(kubectl.ok(listed), "ss");
    let collection = "/apis/apps/v1/namespaces/u-collection/statefulsets?labelSelector=test-ss%3Dpatched";
    let _ = kubectl.ok(&format!("delete --raw {collection}"));
    assert_eq!(kubectl.ok(listed), "");
    assert_eq!(kubectl.ok("get sts -o name"), "statefulset.apps/other\n", "no other set is touched");
}

/// should perform canary updates and phased rolling updates of template modifications
#[test]
fn upstream_should_perform_canary_updates_and_phased_rolling_updates_of_template_modifications() {
    let (_cluster, kubectl) = scene("u-canary");
    let partition = |p: u32| {
        let patch = format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{p}}}}}}}}}"#);
        let _ = kubectl.ok(&format!("patch sts ss -p '{patch}'"));
        observed(&kubectl);
    };
    kubectl.apply(&set("ss", 3, "  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 3}}", WEB));
    complete(&kubectl, 3);
    let (old, update) = current_and_update(&kubectl);
    assert_eq!(old, update);
    set_image(&kubectl, NEW);
    let (current, new) = current_and_update(&kubectl);
    assert_eq!((&current, current == new), (&old, false));
    assert_eq!(revisions(&kubectl), [old.as_str(); 3], "a partition above all ordinals holds all of them");

    let is_rolled_to = |partition: usize| {
        let expected: Vec<_> = (0..3).map(|n| if n < partition { &old } else { &new }).collect();
        let all_ready = "get sts ss -o jsonpath='{.status.readyReplicas} {.status.updatedReplicas}'";
        kubectl.eventually(all_ready, |seen| seen == format!("3 {}", 3 - partition));
        assert_eq!(revisions(&kubectl).iter().collect::<Vec<_>>(), expected);
        let expected: Vec<_> = (0..3).map(|n| if n < partition { OLD } else { NEW }).collect();
        assert_eq!(images(&kubectl), expected);
    };
    partition(2);
    is_rolled_to(2);
    for pod in ["ss-0", "ss-2"] {
        let _ = replace(&kubectl, pod);
    }
    is_rolled_to(2);
    for phase in [1, 0] {
        partition(phase);
        is_rolled_to(phase as usize);
    }
    complete(&kubectl, 3);
    assert_eq!(current_and_update(&kubectl), (new.clone(), new));
}

/// A roll-out and its undoing, each of which waits for a pod that has become unhealthy meanwhile.
fn roll_out_and_back(namespaced: &str, claims: &str, container: &str) {
    let (_cluster, kubectl) = scene(namespaced);
    kubectl.apply(&set("ss", 3, claims, container));
    complete(&kubectl, 3);
    let (first, update) = current_and_update(&kubectl);
    assert_eq!(first, update);
    assert_eq!(revisions(&kubectl), [first.as_str(); 3]);
    let roll = |image: &str| {
        let mut watch = kubectl.start(WATCH);
        watch.until(|line| line.contains(" ss-2 "));
        fail(&kubectl, "ss-1");
        set_image(&kubectl, image);
        let (current, update) = current_and_update(&kubectl);
        assert_ne!(current, update);
        mend(&kubectl, "ss-1");
        complete(&kubectl, 3);
        let seen = watch.until(|line| line.starts_with("DELETED") && line.contains(" ss-0 "));
        assert_in_order(seen, "DELETED", ["ss-2", "ss-1", "ss-0"]);
        assert_eq!(current_and_update(&kubectl), (update.clone(), update.clone()));
        assert_eq!(images(&kubectl), [image; 3]);
        assert_eq!(revisions(&kubectl), [update.as_str(); 3]);
        update
    };
    let second = roll(NEW);
    assert_ne!(first, second);
    let third = roll(OLD);
    assert_eq!(third, first, "going back is the prior revision again, not a new one");
}

/// should perform rolling updates and roll backs of template modifications
#[test]
fn upstream_should_perform_rolling_updates_and_roll_backs_of_template_modifications() {
    roll_out_and_back("u-roll", "", WEB);
}

/// should perform rolling updates and roll backs of template modifications with PVCs
#[test]
fn upstream_should_perform_rolling_updates_and_roll_backs_of_template_modifications_with_pvcs() {
    let mounted = format!("{WEB}\n        volumeMounts: [{{name: data, mountPath: /data}}]");
    roll_out_and_back("u-roll-pvc", CLAIMS, &mounted);
}

/// should validate Statefulset Status endpoints
#[test]
fn upstream_should_validate_statefulset_status_endpoints() {
    let (_cluster, kubectl) = scene("u-status");
    kubectl.apply(&set("ss", 1, "", QUIET));
    complete(&kubectl, 1);
    let conditions = "get sts ss -w -o jsonpath='{.status.conditions[*].type}{\"\\n\"}'";
    let path = "/apis/apps/v1/namespaces/u-status/statefulsets/ss/status";
    let mut whole: Value = serde_json::from_str(&kubectl.ok(&format!("get --raw {path}"))).unwrap();
    assert_eq!((&whole["kind"], &whole["status"]["replicas"]), (&json!("StatefulSet"), &json!(1)));
    let mut watch = kubectl.start(conditions);
    watch.until(str::is_empty);
    // The spec is not written this way.
    whole["spec"]["replicas"] = json!(7);
    whole["status"]["conditions"] =
        json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}]);
    let written = kubectl.run_with_input(&format!("replace --raw {path} -f -"), &whole.to_string());
    let written: Value = serde_json::from_str(&written.stdout).unwrap_or_else(|_| panic!("{written:?}"));
    assert_eq!(written["status"]["conditions"][0]["reason"], "E2E");
    assert_eq!(written["spec"]["replicas"], 1);
    watch.until(|line| line.contains("StatusUpdate"));
    let patch = r#"{"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}"#;
    let _ = kubectl.ok(&format!("patch sts ss --subresource=status --type=merge -p '{patch}'"));
    watch.until(|line| line.contains("StatusPatched"));
}

/// should manage the lifecycle of a ControllerRevision
#[test]
fn upstream_should_manage_the_lifecycle_of_a_controllerrevision() {
    let (_cluster, kubectl) = scene("u-revision");
    let daemons = format!(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: ds, labels: {{app: ds}}}}\nspec:\n  selector: {{matchLabels: {{app: ds}}}}\n  \
         template:\n    metadata: {{labels: {{app: ds}}}}\n    spec:\n      containers:\n      - name: main\n        image: busybox\n{QUIET}\n"
    );
    kubectl.apply(&daemons);
    kubectl.eventually("get ds ds -o jsonpath='{.status.desiredNumberScheduled} {.status.numberReady}'", |seen| {
        seen.split_once(' ').is_some_and(|(wanted, ready)| wanted == ready && wanted != "0")
    });
    let list = "get controllerrevisions -A -l app=ds -o jsonpath='{.items[*].metadata.name}'";
    let count = |wanted: usize| kubectl.eventually(list, |names| names.split_whitespace().count() == wanted);
    let first = count(1);
    let _ = kubectl.ok(&format!("label controllerrevision {first} {first}=patched"));
    let mut copy: Value =
        serde_json::from_str(&kubectl.ok(&format!("get controllerrevision {first} -o json"))).unwrap();
    assert_eq!(copy["metadata"]["labels"][&first], "patched");
    assert_eq!(copy["metadata"]["ownerReferences"][0]["kind"], "DaemonSet");

    // A second one of the same data with a higher number: the controller makes one of the two, now or later.
    let metadata = &copy["metadata"];
    copy["metadata"] = json!({
        "name": "ds-second", "labels": {"app": "ds", "controller-revision-hash": "second"},
        "ownerReferences": metadata["ownerReferences"],
    });
    copy["revision"] = json!(2);
    let created = kubectl.run_with_input("create -f -", &copy.to_string());
    assert_eq!(created.stdout, "controllerrevision.apps/ds-second created\n", "{created:?}");
    let _ = kubectl.ok(&format!("delete controllerrevision {first} --ignore-not-found"));
    assert_eq!(count(1), "ds-second");
    let _ = kubectl.ok("label controllerrevision ds-second ds-second=updated");

    let _ = kubectl.ok(r#"patch ds ds -p '{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1}}}}'"#);
    let _ = count(2);
    let _ = kubectl.ok("delete controllerrevision -l ds-second=updated");
    let last = count(1);
    assert_eq!(kubectl.ok(&format!("get controllerrevision {last} -o jsonpath={{.revision}}")), "3");
}

/// should provide basic identity
#[test]
fn upstream_should_provide_basic_identity() {
    let (_cluster, kubectl) = scene("u-identity");
    kubectl.apply(&service("ss", "clusterIP: None, "));
    kubectl.apply(&set("ss", 3, CLAIMS, PAUSED));
    let all = ["ss-0", "ss-1", "ss-2"];
    for (n, pod) in all.iter().enumerate() {
        release(&kubectl, pod);
        ready(&kubectl, "ss", &(n + 1).to_string());
    }
    let each = |command: &str| all.map(|pod| kubectl.ok(&format!("exec {pod} -- sh -c '{command}'")));
    let names = all.map(|pod| format!("{pod}\n"));
    assert_eq!(each("hostname"), names);
    assert_eq!(kubectl.ok("get sts ss -o jsonpath={.spec.serviceName}"), "ss");
    let _ = each("hostname | dd of=/data/hostname conv=fsync 2>/dev/null; ln -s /data/hostname /data/link");
    let before = of_pods(&kubectl, ".metadata.uid");
    let _ = kubectl.ok("scale sts ss --replicas=0");
    kubectl.eventually("get pods -l app=ss -o name", str::is_empty);
    let _ = kubectl.ok("scale sts ss --replicas=3");
    ready(&kubectl, "ss", "3");
    assert!(of_pods(&kubectl, ".metadata.uid").iter().all(|uid| !before.contains(uid)));
    assert_eq!(each("touch /data/usable; cat /data/hostname"), names);
    assert_eq!(each("cat /data/link"), names);
}

/// should adopt matching orphans and release non-matching pods
#[test]
fn upstream_should_adopt_matching_orphans_and_release_non_matching_pods() {
    let (_cluster, kubectl) = scene("u-adopt");
    kubectl.apply(&set("ss", 1, CLAIMS, PAUSED));
    release(&kubectl, "ss-0");
    ready(&kubectl, "ss", "1");
    let pod = uid(&kubectl, "ss-0");
    let of_the_set = kubectl.ok("get sts ss -o jsonpath='StatefulSet ss {.metadata.uid} true'");
    let owner =
        "get pod ss-0 -o jsonpath='{range .metadata.ownerReferences[*]}{.kind} {.name} {.uid} {.controller}{end}'";
    assert_eq!(kubectl.ok(owner), of_the_set);
    let _ = kubectl.ok(r#"patch pod ss-0 --type=merge -p '{"metadata":{"ownerReferences":null}}'"#);
    kubectl.eventually(owner, |seen| seen == of_the_set);
    let labels = kubectl.ok("get pod ss-0 -o jsonpath={.metadata.labels}");
    let _ = kubectl.ok(r#"patch pod ss-0 --type=merge -p '{"metadata":{"labels":null}}'"#);
    kubectl.eventually(owner, str::is_empty);
    let _ = kubectl.ok(&format!(r#"patch pod ss-0 --type=merge -p '{{"metadata":{{"labels":{labels}}}}}'"#));
    kubectl.eventually(owner, |seen| seen == of_the_set);
    assert_eq!(uid(&kubectl, "ss-0"), pod, "it is the same pod all the time");
}

/// should not deadlock when a pod's predecessor fails
#[test]
fn upstream_should_not_deadlock_when_a_pods_predecessor_fails() {
    let (_cluster, kubectl) = scene("u-deadlock");
    kubectl.apply(&set("ss", 2, CLAIMS, PAUSED));
    release(&kubectl, "ss-0");
    let running = "get pods -l app=ss -o jsonpath='{.items[*].status.phase}'";
    kubectl.eventually(running, |phases| phases == "Running Running");
    assert_eq!(kubectl.ok(&readiness("ss-1")), "false");
    delete_pod(&kubectl, "ss-0");
    kubectl.eventually(running, |phases| phases == "Running Running");
    release(&kubectl, "ss-1");
    ready(&kubectl, "ss", "2");
}

/// should implement legacy replacement when the update strategy is OnDelete
#[test]
fn upstream_should_implement_legacy_replacement_when_the_update_strategy_is_ondelete() {
    let (_cluster, kubectl) = scene("u-on-delete");
    let all = ["ss-0", "ss-1", "ss-2"];
    let delete_all = || {
        for pod in all {
            delete_pod(&kubectl, pod);
        }
        ready(&kubectl, "ss", "3");
    };
    kubectl.apply(&set("ss", 3, "  updateStrategy: {type: OnDelete}", QUIET));
    complete(&kubectl, 3);
    let (old, update) = current_and_update(&kubectl);
    assert_eq!(old, update);
    delete_all();
    assert_eq!(revisions(&kubectl), [old.as_str(); 3]);
    set_image(&kubectl, NEW);
    let (current, new) = current_and_update(&kubectl);
    assert_eq!((&current, current == new), (&old, false));
    assert_eq!(revisions(&kubectl), [old.as_str(); 3], "no pod is replaced by itself");
    delete_all();
    assert_eq!(images(&kubectl), [NEW; 3]);
    assert_eq!(revisions(&kubectl), [new.as_str(); 3]);
}

const READY_AND_AVAILABLE: &str = "get sts ss -o jsonpath='{.status.readyReplicas} {.status.availableReplicas}'";

/// MinReadySeconds should be honored when enabled
#[test]
fn upstream_min_ready_seconds_should_be_honored_when_enabled() {
    let (_cluster, kubectl) = scene("u-min-ready");
    kubectl.apply(&set("ss", 1, "  minReadySeconds: 2", WEB));
    let both = "{.status.readyReplicas} {.status.availableReplicas}{\"\\n\"}";
    let mut watch = kubectl.start(&format!("get sts ss -w -o jsonpath='{both}'"));
    let seen = watch.until(|line| line == "1 1");
    assert!(seen.iter().any(|line| line == "1 0"), "it was Ready before it was available: {seen:?}");
    let moments = "{.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}";
    assert!(!kubectl.ok(&format!("get pod ss-0 -o jsonpath='{moments}'")).is_empty());
}

/// AvailableReplicas should get updated accordingly when MinReadySeconds is enabled
#[test]
fn upstream_available_replicas_should_get_updated_accordingly_when_min_ready_seconds_is_enabled() {
    let (_cluster, kubectl) = scene("u-available");
    let seconds = |seconds: u32| {
        let _ = kubectl.ok(&format!(r#"patch sts ss -p '{{"spec":{{"minReadySeconds":{seconds}}}}}'"#));
    };
    kubectl.apply(&set("ss", 2, "  minReadySeconds: 3600", WEB));
    kubectl.eventually(READY_AND_AVAILABLE, |seen| seen == "1 0");
    assert_eq!(pods(&kubectl), ["ss-0"], "the next one waits until the first one is available");
    seconds(1);
    kubectl.eventually(READY_AND_AVAILABLE, |seen| seen == "2 2");
    seconds(3600);
    kubectl.eventually(READY_AND_AVAILABLE, |seen| seen == "2 0");
    seconds(0);
    kubectl.eventually(READY_AND_AVAILABLE, |seen| seen == "2 2");
    let whole = kubectl.ok("get sts ss -o yaml");
    assert!(whole.contains("\n  availableReplicas: 2\n"), "{whole}");
}

/// The kinds of the owners of each claim, the lowest ordinal first, as `StatefulSet,-,Pod`.
fn owners_of_claims(kubectl: &Kubectl) -> String {
    let list: Value = serde_json::from_str(&kubectl.ok("get pvc -o json")).unwrap();
    let kinds = list["items"].as_array().unwrap().iter().map(|claim| {
        let owners = claim["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        owners.iter().map(|owner| owner["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("+")
    });
    kinds.collect::<Vec<_>>().join(",")
}

/// Three pods with claims under a policy; their claims' owners, then `act`, then only the claims `kept` are left.
fn claims_after(namespaced: &str, policy: &str, owners: &str, act: impl Fn(&Kubectl), kept: &str) {
    let (_cluster, kubectl) = scene(namespaced);
    let policy = format!("  persistentVolumeClaimRetentionPolicy: {{{policy}}}\n{CLAIMS}");
    kubectl.apply(&set(
        "ss",
        3,
        &policy,
        &format!("{QUIET}\n        volumeMounts: [{{name: data, mountPath: /data}}]"),
    ));
    ready(&kubectl, "ss", "3");
    assert_eq!(owners_of_claims(&kubectl), owners);
    act(&kubectl);
    kubectl.eventually("get pvc -o jsonpath={.items[*].metadata.name}", |names| names == kept);
}

const OF_THE_SET: &str = "StatefulSet,StatefulSet,StatefulSet";

/// A pod that was an orphan for a moment.
fn orphan_the_last(kubectl: &Kubectl) {
    let _ = kubectl.ok(r#"patch pod ss-2 --type=merge -p '{"metadata":{"ownerReferences":null}}'"#);
}

/// should delete PVCs with a WhenDeleted policy
#[test]
fn upstream_should_delete_pvcs_with_a_when_deleted_policy() {
    claims_after("u-deleted", "whenDeleted: Delete", OF_THE_SET, |kubectl| drop(kubectl.ok("delete sts ss")), "");
}

/// should delete PVCs with a OnScaledown policy
#[test]
fn upstream_should_delete_pvcs_with_a_on_scaledown_policy() {
    let scale = |kubectl: &Kubectl| drop(kubectl.ok("scale sts ss --replicas=1"));
    claims_after("u-scaled", "whenScaled: Delete", ",,", scale, "data-ss-0");
}

/// should delete PVCs after adopting pod (WhenDeleted)
#[test]
fn upstream_should_delete_pvcs_after_adopting_pod_when_deleted() {
    let act = |kubectl: &Kubectl| {
        orphan_the_last(kubectl);
        drop(kubectl.ok("delete sts ss"));
    };
    claims_after("u-adopted-deleted", "whenDeleted: Delete", OF_THE_SET, act, "");
}

/// should delete PVCs after adopting pod (WhenScaled)
#[test]
fn upstream_should_delete_pvcs_after_adopting_pod_when_scaled() {
    let act = |kubectl: &Kubectl| {
        orphan_the_last(kubectl);
        drop(kubectl.ok("scale sts ss --replicas=1"));
    };
    claims_after("u-adopted-scaled", "whenScaled: Delete", ",,", act, "data-ss-0");
}

/// PVC should be recreated when pod is pending due to missing PVC
#[test]
fn upstream_pvc_should_be_recreated_when_pod_is_pending_due_to_missing_pvc() {
    // A server of its own: the node is cordoned.
    let (_cluster, kubectl) = cluster();
    kubectl.apply(&set("ss", 1, CLAIMS, &format!("{QUIET}\n        volumeMounts: [{{name: data, mountPath: /data}}]")));
    ready(&kubectl, "ss", "1");
    let node = kubectl.ok("get pod ss-0 -o jsonpath={.spec.nodeName}");
    let claim = uid_of_claim(&kubectl);
    let _ = kubectl.ok(&format!("cordon {node}"));
    delete_pod(&kubectl, "ss-0");
    kubectl.eventually("get pod ss-0 -o jsonpath='{.status.conditions[*].reason}'", |why| why == "Unschedulable");
    let _ = kubectl.ok("delete pvc data-ss-0 --wait=false");
    kubectl.eventually("get pvc --ignore-not-found -o jsonpath={.items[*].metadata.uid}", |now| now != claim);
    let _ = kubectl.ok(&format!("uncordon {node}"));
    ready(&kubectl, "ss", "1");
    assert_ne!(uid_of_claim(&kubectl), claim);
    assert_eq!(kubectl.ok("get pod ss-0 -o jsonpath={.spec.nodeName}"), node);
}

fn uid_of_claim(kubectl: &Kubectl) -> String {
    kubectl.ok("get pvc data-ss-0 -o jsonpath={.metadata.uid}")
}

/// A set of two pods with `before` in its spec, then patched; it has these pods before and these after.
fn moved(namespaced: &str, before: &str, had: &[&str], patch: &str, has: &[&str]) {
    let (_cluster, kubectl) = scene(namespaced);
    kubectl.apply(&set("ss", 2, before, QUIET));
    complete(&kubectl, 2);
    assert_eq!(pods(&kubectl), had);
    let _ = kubectl.ok(&format!("patch sts ss -p '{patch}'"));
    let names: String = has.iter().map(|name| format!("pod/{name}\n")).collect();
    kubectl.eventually("get pods -l app=ss -o name", |seen| seen == names);
    complete(&kubectl, has.len());
}

/// Setting .start.ordinal
#[test]
fn upstream_setting_start_ordinal() {
    let patch = r#"{"spec":{"replicas":3,"ordinals":{"start":2}}}"#;
    moved("u-start-set", "", &["ss-0", "ss-1"], patch, &["ss-2", "ss-3", "ss-4"]);
}

/// Increasing .start.ordinal
#[test]
fn upstream_increasing_start_ordinal() {
    let patch = r#"{"spec":{"ordinals":{"start":4}}}"#;
    moved("u-start-up", "  ordinals: {start: 2}", &["ss-2", "ss-3"], patch, &["ss-4", "ss-5"]);
}

/// Decreasing .start.ordinal
#[test]
fn upstream_decreasing_start_ordinal() {
    let patch = r#"{"spec":{"ordinals":{"start":2}}}"#;
    moved("u-start-down", "  ordinals: {start: 3}", &["ss-3", "ss-4"], patch, &["ss-2", "ss-3"]);
}

/// Removing .start.ordinal
#[test]
fn upstream_removing_start_ordinal() {
    let patch = r#"{"spec":{"ordinals":null}}"#;
    moved("u-start-none", "  ordinals: {start: 3}", &["ss-3", "ss-4"], patch, &["ss-0", "ss-1"]);
}

/// MaxUnavailable: a roll-out takes as many pods at once as it may, the highest first, and no more while they are not Ready
#[test]
fn upstream_max_unavailable() {
    let (_cluster, kubectl) = scene("u-max");
    let spec =
        "  podManagementPolicy: Parallel\n  updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}}";
    kubectl.apply(&set("ss", 5, spec, WEB));
    complete(&kubectl, 5);
    let (old, _) = current_and_update(&kubectl);
    // The new pods are not Ready until somebody says so.
    let held = WEB.replace("touch /www/index.html; ", "");
    kubectl.apply(&set("ss", 5, spec, &held));
    let status = "get sts ss -o jsonpath='{.status.replicas} {.status.readyReplicas} {.status.updatedReplicas}'";
    kubectl.eventually(status, |seen| seen == "5 3 2");
    observed(&kubectl);
    none_is_told_to_end(&kubectl);
    assert_eq!(revisions(&kubectl)[..3], [old.as_str(); 3]);
    for (mended, next) in
        [("ss-4", "5 3 3"), ("ss-2", "5 3 4"), ("ss-3", "5 3 5"), ("ss-1", "5 4 5"), ("ss-0", "5 5 5")]
    {
        kubectl.eventually(&format!("get pod {mended} -o jsonpath={{.status.phase}}"), |phase| phase == "Running");
        mend(&kubectl, mended);
        kubectl.eventually(status, |seen| seen == next);
    }
    complete(&kubectl, 5);
}

/// TestVolumeTemplateNoopUpdate of `test/integration/statefulset`: what the server itself filled in may be written back.
#[test]
fn upstream_volume_template_noop_update() {
    let (_cluster, kubectl) = scene("u-noop");
    kubectl.apply(&set("ss", 1, CLAIMS, QUIET));
    complete(&kubectl, 1);
    let whole = kubectl.ok("get sts ss -o json");
    let written = kubectl.run_with_input("replace -f -", &whole);
    assert_eq!(written.stdout, "statefulset.apps/ss replaced\n", "{written:?}");
    kubectl.apply(&set("ss", 1, CLAIMS, QUIET));
    assert_eq!(kubectl.ok("get sts ss -o jsonpath={.metadata.generation}"), "1", "nothing has changed");
}

/// TestDeletingAndFailedPods of `test/integration/statefulset`: a pod whose end is held up keeps its place, and nothing
/// takes it before the pod is gone.
#[test]
fn upstream_deleting_pods_keep_their_place() {
    let (_cluster, kubectl) = scene("u-held");
    kubectl.apply(&set("ss", 2, "  podManagementPolicy: Parallel", QUIET));
    ready(&kubectl, "ss", "2");
    let (held, other) = (uid(&kubectl, "ss-0"), uid(&kubectl, "ss-1"));
    let _ = kubectl.ok(r#"patch pod ss-0 --type=merge -p '{"metadata":{"finalizers":["example.com/held"]}}'"#);
    let _ = kubectl.ok("delete pod ss-0 ss-1 --wait=false");
    replaced(&kubectl, "ss-1", &other);
    assert_eq!(uid(&kubectl, "ss-0"), held);
    let _ = kubectl.ok(r#"patch pod ss-0 --type=merge -p '{"metadata":{"finalizers":null}}'"#);
    replaced(&kubectl, "ss-0", &held);
    ready(&kubectl, "ss", "2");
}
