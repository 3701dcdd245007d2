//! Statements of ACCEPTANCE sections 1 to 6, each under its number and in a namespace of its own. The documents' own exercises,
//! which show most of them once more in the words of the documents, are in `seed_*.rs`.

use stead_testkit::kubectl::Kubectl;

use crate::support::{
    CLAIMS, IDLE, assert_came_up_in_order, in_busybox, is_ready, namespace, position, ready, replace, replaced,
    service, set, uid,
};

/// Ready for as long as /tmp/ready exists, which is from the start.
const GATE: &str = r#"        command: [sh, -c, "touch /tmp/ready; trap exit TERM; while :; do sleep 0.1; done"]
        readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}"#;
const HEADLESS: &str = "clusterIP: None, ";
/// Mounts the claim of `CLAIMS`.
const MOUNT: &str = "\n        volumeMounts: [{name: data, mountPath: /data}]";

fn address(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"))
}

fn names(kubectl: &Kubectl, app: &str) -> Vec<String> {
    let lines = kubectl.ok(&format!("get pods -l app={app} -o name"));
    lines.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
}

/// The revision of each pod of the set, the lowest ordinal first.
fn revisions(kubectl: &Kubectl, app: &str) -> Vec<String> {
    let look = format!("get pods -l app={app} -o jsonpath='{{.items[*].metadata.labels.controller-revision-hash}}'");
    kubectl.ok(&look).split_whitespace().map(str::to_owned).collect()
}

/// Changes the template.
fn colour(kubectl: &Kubectl, set: &str, colour: &str) {
    let patch = format!(r#"{{"spec":{{"template":{{"metadata":{{"annotations":{{"colour":"{colour}"}}}}}}}}}}"#);
    let _ = kubectl.ok(&format!("patch sts {set} -p '{patch}'"));
}

/// The colour of each pod, the lowest ordinal first.
fn colours(kubectl: &Kubectl, app: &str) -> String {
    let range = "{range .items[*]}{.metadata.annotations.colour}{\" \"}{end}";
    kubectl.ok(&format!("get pods -l app={app} -o jsonpath='{range}'")).trim().to_owned()
}

fn rolled_out(kubectl: &Kubectl, set: &str) -> String {
    kubectl.ok(&format!("rollout status sts/{set} --timeout=100s"))
}

#[test]
fn acceptance_1_1_and_1_2_a_pod_has_its_names_and_so_has_its_successor() {
    let (_cluster, kubectl) = namespace("a-1-1");
    kubectl.apply(&service("app", HEADLESS));
    kubectl.apply(&set("app", 2, CLAIMS, &format!("{IDLE}{MOUNT}")));
    ready(&kubectl, "app", "2");
    assert_eq!(names(&kubectl, "app"), ["app-0", "app-1"]);
    let who = "exec app-1 -- sh -c 'hostname; hostname -f; cat /data/word'";
    let _ = kubectl.ok("exec app-1 -- sh -c 'echo mine > /data/word'");
    let before = kubectl.ok(who);
    assert_eq!(before, "app-1\napp-1.app.a-1-1.svc.cluster.local\nmine\n");
    let _ = replace(&kubectl, "app-1");
    assert_eq!(kubectl.ok(who), before);
    let now = address(&kubectl, "app-1");
    kubectl.eventually("exec app-0 -- nslookup app-1.app.a-1-1.svc.cluster.local", |answer| {
        answer.contains(&format!("Address: {now}"))
    });
}

#[test]
fn acceptance_1_3_a_headless_service_names_the_ready_pods() {
    let (_cluster, kubectl) = namespace("a-1-3");
    kubectl.apply(&service("app", HEADLESS));
    kubectl.apply(&set("app", 3, "", GATE));
    ready(&kubectl, "app", "3");
    let all: Vec<String> = names(&kubectl, "app").iter().map(|pod| address(&kubectl, pod)).collect();
    let look = "exec app-0 -- nslookup app.a-1-3.svc.cluster.local";
    let says = |answer: &str, ip: &String| answer.lines().any(|line| line == format!("Address: {ip}"));
    kubectl.eventually(look, |answer| all.iter().all(|ip| says(answer, ip)));
    let _ = kubectl.ok("exec app-1 -- rm /tmp/ready");
    kubectl.eventually(look, |answer| says(answer, &all[0]) && !says(answer, &all[1]) && says(answer, &all[2]));
}

#[test]
fn acceptance_1_4_and_1_5_names_in_full_and_in_short_and_back() {
    let (_cluster, kubectl) = namespace("a-1-4");
    kubectl.apply(&service("app", HEADLESS));
    kubectl.apply(&set("app", 2, "", IDLE));
    ready(&kubectl, "app", "2");
    let ip = address(&kubectl, "app-1");
    let search = "search a-1-4.svc.cluster.local svc.cluster.local cluster.local";
    let file = kubectl.ok("exec app-0 -- cat /etc/resolv.conf");
    assert!(file.lines().any(|line| line.starts_with(search)), "{file}");
    assert!(file.contains("options ndots:5"), "{file}");
    for name in ["app-1.app.a-1-4.svc.cluster.local", "app-1.app", "app-1.app.a-1-4", "app-1.app.a-1-4.svc"] {
        let answer = kubectl.ok(&format!("exec app-0 -- ping -c 1 {name}"));
        assert!(answer.contains(&format!("({ip})")), "{name}: {answer}");
    }
    let answer = kubectl.ok("exec app-0 -- ping -c 1 app.a-1-4");
    assert!(answer.contains("1 packets received"), "{answer}");
    let back = kubectl.ok(&format!("exec app-0 -- nslookup {ip}"));
    assert!(back.contains("name = app-1.app.a-1-4.svc.cluster.local"), "{back}");
}

#[test]
fn acceptance_1_7_pods_reach_each_other_by_name() {
    let (_cluster, kubectl) = namespace("a-1-7");
    kubectl.apply(&service("web", HEADLESS));
    kubectl.apply(&set("web", 2, "", "").replace("image: busybox", "image: nginx:1.21"));
    ready(&kubectl, "web", "2");
    let head = kubectl.ok("exec web-0 -- curl -sI web-1.web");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let ping = in_busybox(&kubectl, "ping -c 1 web-0.web");
    assert!(ping.contains("1 packets received"), "{ping}");
    let answer = in_busybox(&kubectl, "nslookup web-0.web.a-1-7.svc.cluster.local");
    assert!(answer.contains(&format!("Address: {}", address(&kubectl, "web-0"))), "{answer}");
}

#[test]
fn acceptance_2_2_to_2_4_each_pod_has_its_own_data_and_finds_it_again() {
    let (_cluster, kubectl) = namespace("a-2-2");
    let manifest = set("app", 3, CLAIMS, &format!("{IDLE}{MOUNT}"));
    kubectl.apply(&manifest);
    ready(&kubectl, "app", "3");
    for pod in ["app-0", "app-1", "app-2"] {
        let _ = kubectl.ok(&format!("exec {pod} -- sh -c 'hostname > /data/who'"));
    }
    let all_have_theirs = || {
        for pod in ["app-0", "app-1", "app-2"] {
            assert_eq!(kubectl.ok(&format!("exec {pod} -- cat /data/who")), format!("{pod}\n"));
        }
    };
    all_have_theirs();
    let _ = replace(&kubectl, "app-1");
    all_have_theirs();
    let _ = kubectl.ok("scale sts app --replicas=1");
    kubectl.eventually("get pods -l app=app -o name", |pods| pods == "pod/app-0\n");
    assert_eq!(kubectl.ok("get pvc -o name").lines().count(), 3);
    let _ = kubectl.ok("scale sts app --replicas=3");
    ready(&kubectl, "app", "3");
    all_have_theirs();
    let _ = kubectl.ok("delete sts app");
    kubectl.eventually("get pods -o name", str::is_empty);
    assert_eq!(kubectl.ok("get pvc -o name").lines().count(), 3);
    kubectl.apply(&manifest);
    ready(&kubectl, "app", "3");
    all_have_theirs();
}

#[test]
fn acceptance_3_1_and_3_2_pods_come_up_and_go_down_in_order() {
    let (_cluster, kubectl) = namespace("a-3-1");
    let mut watch = kubectl.start("get pods -w -l app=app");
    kubectl.apply(&set("app", 3, "", GATE));
    let seen = watch.until(|line| line.starts_with("app-2 ") && is_ready(line));
    assert_came_up_in_order(seen, &["app-0", "app-1", "app-2"]);
    // The API's own order of events: app-1 is told to end only after app-2 is gone for good.
    let mut watch = kubectl.start("get pods -w -l app=app --output-watch-events --no-headers");
    watch.until(|line| line.contains("app-2 "));
    let _ = kubectl.ok("scale sts app --replicas=0");
    let seen = watch.until(|line| line.starts_with("DELETED") && line.contains("app-0 ")).to_vec();
    for (higher, lower) in [("app-2 ", "app-1 "), ("app-1 ", "app-0 ")] {
        let gone = position(&seen, higher, |line| line.starts_with("DELETED") && line.contains(higher));
        let told = position(&seen, lower, |line| line.contains(lower) && line.contains("Terminating"));
        assert!(gone < told, "{lower}was told to end before {higher}was gone:\n{}", seen.join("\n"));
    }
}

#[test]
fn acceptance_3_6_a_failed_container_is_restarted_and_a_lost_pod_made_again() {
    let (_cluster, kubectl) = namespace("a-3-6");
    kubectl.apply(&set("app", 1, CLAIMS, &format!("{IDLE}{MOUNT}")));
    ready(&kubectl, "app", "1");
    let _ = kubectl.ok("exec app-0 -- sh -c 'echo kept > /data/word'");
    let before = uid(&kubectl, "app-0");
    let _ = kubectl.run("exec app-0 -- kill -TERM 1");
    kubectl.eventually("get pod app-0 -o jsonpath={.status.containerStatuses[0].restartCount}", |count| count == "1");
    ready(&kubectl, "app", "1");
    assert_eq!(uid(&kubectl, "app-0"), before, "a container is restarted in its pod");
    assert_eq!(kubectl.ok("exec app-0 -- cat /data/word"), "kept\n");
    let _ = kubectl.ok("delete pod app-0 --grace-period=0 --force --wait=false");
    replaced(&kubectl, "app-0", &before);
    assert_eq!(kubectl.ok("exec app-0 -- cat /data/word"), "kept\n");
}

#[test]
fn acceptance_4_1_an_update_goes_from_the_highest_pod_to_the_lowest() {
    let (_cluster, kubectl) = namespace("a-4-1");
    kubectl.apply(&set("app", 3, "", GATE));
    ready(&kubectl, "app", "3");
    let mut watch = kubectl.start("get pods -w -l app=app --output-watch-events --no-headers");
    watch.until(|line| line.contains("app-2 "));
    colour(&kubectl, "app", "green");
    let seen = watch.until(|line| line.starts_with("DELETED") && line.contains("app-0 ")).to_vec();
    for (higher, lower) in [("app-2 ", "app-1 "), ("app-1 ", "app-0 ")] {
        let gone = position(&seen, higher, |line| line.starts_with("DELETED") && line.contains(higher));
        let back = gone + position(&seen[gone..], higher, |line| line.contains(higher) && is_ready(line));
        let told = position(&seen, lower, |line| line.contains(lower) && line.contains("Terminating"));
        assert!(back < told, "{lower}was updated before {higher}was Ready again:\n{}", seen.join("\n"));
    }
    let _ = rolled_out(&kubectl, "app");
    assert_eq!(colours(&kubectl, "app"), "green green green");
}

#[test]
fn acceptance_4_2_and_4_3_partition_and_on_delete() {
    let (_cluster, kubectl) = namespace("a-4-2");
    let strategy = "  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}";
    kubectl.apply(&set("app", 3, strategy, IDLE));
    ready(&kubectl, "app", "3");
    let old = revisions(&kubectl, "app");
    colour(&kubectl, "app", "green");
    let said = rolled_out(&kubectl, "app");
    assert!(said.ends_with("partitioned roll out complete: 1 new pods have been updated...\n"), "{said}");
    let _ = replace(&kubectl, "app-0");
    let now = revisions(&kubectl, "app");
    assert_eq!(
        (&now[..2], now[2] == old[2]),
        (&old[..2], false),
        "a pod below the partition comes back at its old revision"
    );
    let _ = kubectl.ok(r#"patch sts app -p '{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}'"#);
    colour(&kubectl, "app", "blue");
    let _ = replace(&kubectl, "app-1");
    assert_eq!(colours(&kubectl, "app"), "blue green", "only the pod that was deleted by hand is new");
}

#[test]
fn acceptance_4_4_history_undo_restart_and_set_image() {
    let (_cluster, kubectl) = namespace("a-4-4");
    kubectl.apply(&set("app", 2, "", IDLE));
    ready(&kubectl, "app", "2");
    let first = revisions(&kubectl, "app");
    assert_eq!(kubectl.ok("set image sts/app main=busybox:1.36"), "statefulset.apps/app image updated\n");
    let said = rolled_out(&kubectl, "app");
    assert!(said.ends_with("partitioned roll out complete: 2 new pods have been updated...\n"), "{said}");
    let history = kubectl.ok("rollout history sts/app");
    assert_eq!(history.trim_end(), "statefulset.apps/app \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>");
    assert_eq!(kubectl.ok("rollout undo sts/app"), "statefulset.apps/app rolled back\n");
    let _ = rolled_out(&kubectl, "app");
    assert_eq!(
        revisions(&kubectl, "app"),
        first,
        "an undo brings the old revision back, not a new one of the same kind"
    );
    assert_eq!(kubectl.ok("rollout restart sts/app"), "statefulset.apps/app restarted\n");
    let _ = rolled_out(&kubectl, "app");
    assert_ne!(revisions(&kubectl, "app"), first);
    assert_eq!(kubectl.ok("get controllerrevisions -o name").lines().count(), 3);
}

#[test]
fn acceptance_4_5_a_roll_out_is_paused_and_resumed() {
    let (_cluster, kubectl) = namespace("a-4-5");
    let ours = our_own(&kubectl);
    kubectl.apply(&set("app", 2, "", IDLE));
    ready(&kubectl, "app", "2");
    assert_eq!(ours.ok("rollout pause sts/app"), "statefulset.apps/app paused\n");
    colour(&kubectl, "app", "green");
    // A pod that is lost while the roll-out is paused comes back as it was; scaling goes on.
    let before = revisions(&kubectl, "app");
    let _ = replace(&kubectl, "app-1");
    let _ = kubectl.ok("scale sts app --replicas=3");
    ready(&kubectl, "app", "3");
    assert_eq!(&revisions(&kubectl, "app")[..2], &before[..]);
    assert_eq!(ours.ok("rollout resume sts/app"), "statefulset.apps/app resumed\n");
    let _ = rolled_out(&kubectl, "app");
    assert_eq!(colours(&kubectl, "app"), "green green green");
}

/// Our own command line, under the name that people type.
fn our_own(kubectl: &Kubectl) -> Kubectl {
    let program = kubectl.kubeconfig.with_extension("bin").join("kubectl");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stead"), &program).unwrap();
    Kubectl { program, kubeconfig: kubectl.kubeconfig.clone() }
}

#[test]
fn acceptance_4_6_every_way_to_change_a_set_does_the_same() {
    let (_cluster, kubectl) = namespace("a-4-6");
    kubectl.apply(&set("app", 1, "", IDLE));
    ready(&kubectl, "app", "1");
    for (command, wanted) in [
        (r#"patch sts app -p '{"spec":{"replicas":2}}'"#, "2"),
        (r#"patch sts app --type=merge -p '{"spec":{"replicas":1}}'"#, "1"),
        (r#"patch sts app --type=json -p '[{"op":"replace","path":"/spec/replicas","value":3}]'"#, "3"),
        ("scale sts app --current-replicas=3 --replicas=2", "2"),
    ] {
        let _ = kubectl.ok(command);
        kubectl.eventually("get sts app -o jsonpath='{.status.replicas} {.status.readyReplicas}'", |seen| {
            seen == format!("{wanted} {wanted}")
        });
    }
    let refused = kubectl.run("scale sts app --current-replicas=7 --replicas=1");
    assert!(refused.stderr.contains("Expected replicas to be 7, was 2"), "{}", refused.stderr);
    let editor = kubectl.kubeconfig.with_file_name("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/replicas: 2/replicas: 1/' \"$1\"\n").unwrap();
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let edited = std::process::Command::new(&kubectl.program)
        .args(["--kubeconfig".as_ref(), kubectl.kubeconfig.as_os_str()])
        .args(["edit", "sts", "app"])
        .env("KUBE_EDITOR", &editor)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&edited.stdout), "statefulset.apps/app edited\n", "{edited:?}");
    kubectl.eventually("get pods -l app=app -o name", |pods| pods == "pod/app-0\n");
}

#[test]
fn acceptance_5_1_orphans_run_on_and_are_adopted() {
    let (_cluster, kubectl) = namespace("a-5-1");
    let manifest = set("app", 2, "", IDLE);
    kubectl.apply(&manifest);
    ready(&kubectl, "app", "2");
    let uids = "get pods -l app=app -o jsonpath='{.items[*].metadata.uid}'";
    let before = kubectl.ok(uids);
    let _ = kubectl.ok("delete sts app --cascade=orphan");
    kubectl.eventually("get pods -l app=app -o jsonpath='{.items[*].metadata.ownerReferences}'", str::is_empty);
    assert_eq!(kubectl.ok(uids), before);
    kubectl.apply(&manifest);
    kubectl.eventually("get pods -l app=app -o jsonpath='{.items[*].metadata.ownerReferences[0].name}'", |owners| {
        owners == "app app"
    });
    assert_eq!(kubectl.ok(uids), before, "adopted pods are the same pods");
    let _ = kubectl.ok("delete sts app");
    kubectl.eventually("get pods -l app=app -o name", str::is_empty);
}

#[test]
fn acceptance_5_2_deletion_by_file_of_all_and_of_the_namespace() {
    let (_cluster, kubectl) = namespace("a-5-2");
    let manifest = set("app", 2, CLAIMS, &format!("{IDLE}{MOUNT}"));
    kubectl.apply(&manifest);
    ready(&kubectl, "app", "2");
    let deleted = kubectl.run_with_input("delete -f -", &manifest);
    assert!(deleted.stdout.starts_with("statefulset.apps \"app\" deleted"), "{deleted:?}");
    kubectl.eventually("get pods -o name", str::is_empty);
    let deleted = kubectl.ok("delete pvc --all -n a-5-2");
    assert!(deleted.contains("\"data-app-0\" deleted") && deleted.contains("\"data-app-1\" deleted"), "{deleted}");
    kubectl.apply(&manifest);
    ready(&kubectl, "app", "2");
    let volumes = kubectl.ok("get pvc -o jsonpath='{.items[*].spec.volumeName}'");
    let _ = kubectl.ok("delete namespace a-5-2");
    assert!(kubectl.run("get namespace a-5-2").stderr.contains("NotFound"));
    for volume in volumes.split_whitespace() {
        kubectl.eventually(&format!("get pv {volume} --ignore-not-found -o name"), str::is_empty);
    }
}

#[test]
fn acceptance_6_2_exec_logs_run_attach_port_forward_and_cp() {
    let (_cluster, kubectl) = namespace("a-6-2");
    kubectl.apply(&set("web", 1, "", "").replace("image: busybox", "image: nginx:1.21"));
    kubectl.apply(&set(
        "echo",
        1,
        "",
        "        stdin: true\n        stdinOnce: true\n        command: [sh, -c, 'echo ready; cat']",
    ));
    ready(&kubectl, "web", "1");
    ready(&kubectl, "echo", "1");
    let answer = kubectl.run_with_input("exec -i web-0 -- sh -c 'read word; echo heard $word; exit 3'", "hello\n");
    assert_eq!((answer.stdout.as_str(), answer.code), ("heard hello\n", 3), "{}", answer.stderr);
    assert_eq!(kubectl.ok("logs echo-0"), "ready\n");
    let mut log = kubectl.start("logs -f echo-0");
    let _ = log.until(|line| line == "ready");
    let _ = kubectl.run_with_input("attach -i echo-0", "typed\n");
    log.until(|line| line == "typed");
    // A command that ends before kubectl attaches, or while it does, is heard all the same.
    for round in 0..5 {
        let once = kubectl.run(&format!("run once --image=busybox --rm -i --restart=Never -- echo said {round}"));
        assert_eq!(once.stdout, format!("said {round}\npod \"once\" deleted\n"), "{}", once.stderr);
        assert!(!once.stderr.contains("couldn't attach"), "{}", once.stderr);
    }

    let here = kubectl.kubeconfig.with_file_name("page.html");
    std::fs::write(&here, "copied\n").unwrap();
    let _ = kubectl.ok(&format!("cp {} web-0:/usr/share/nginx/html/page.html", here.display()));
    let back = here.with_file_name("back.html");
    let _ = kubectl.ok(&format!("cp web-0:/usr/share/nginx/html/page.html {}", back.display()));
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "copied\n");

    let mut forward = kubectl.start("port-forward web-0 :80 --address 127.0.0.1");
    let line = forward.until(|line| line.starts_with("Forwarding from 127.0.0.1:")).last().unwrap().clone();
    let local = line.trim_start_matches("Forwarding from ").split_whitespace().next().unwrap();
    assert!(page(local).ends_with("copied\n"), "{}", page(local));
}

/// What the server at the address answers when it is asked for the page.
fn page(address: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /page.html HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn acceptance_6_5_describe_and_events() {
    let (_cluster, kubectl) = namespace("a-6-5");
    kubectl.apply(&service("app", HEADLESS));
    kubectl.apply(&set("app", 1, CLAIMS, &format!("{IDLE}{MOUNT}")));
    ready(&kubectl, "app", "1");
    let volume = kubectl.ok("get pvc data-app-0 -o jsonpath={.spec.volumeName}");
    let node = kubectl.ok("get pod app-0 -o jsonpath={.spec.nodeName}");
    for (object, lines) in [
        (
            "sts app",
            vec![
                "Replicas:           1 desired | 1 total",
                "Pods Status:        1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            ],
        ),
        ("pod app-0", vec!["Status:           Running", "Controlled By:  StatefulSet/app", "    Ready:          True"]),
        ("pvc data-app-0", vec!["Status:        Bound", "Used By:       app-0"]),
        ("service app", vec!["IP:                       None"]),
    ] {
        let text = kubectl.ok(&format!("describe {object}"));
        for line in lines {
            assert!(text.lines().any(|seen| seen.starts_with(line)), "{line:?} is not in\n{text}");
        }
    }
    assert!(kubectl.ok(&format!("describe pv {volume}")).contains("a-6-5/data-app-0"));
    assert!(kubectl.ok(&format!("describe node {node}")).contains("KubeletReady"));
    let events = kubectl.ok("get events --sort-by=.lastTimestamp -o jsonpath='{.items[*].reason}'");
    for reason in ["SuccessfulCreate", "Scheduled", "Pulled", "Created", "Started"] {
        assert!(events.split_whitespace().any(|seen| seen == reason), "{reason} is not in {events}");
    }
}
