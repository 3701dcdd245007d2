//! Pods on a node whose containers are only remembered: the API's side of the node, fast.

mod support;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use stead_runtime::ContainerState;
use stead_wire::Network;
use support::*;

fn one(command: &[&str]) -> serde_json::Value {
    json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "i:1", "command": command}]})
}

#[tokio::test]
async fn a_pod_runs_is_reported_and_is_deleted() {
    let world = World::new().await;
    let began = std::time::Instant::now();
    world.pod("web-0", one(&["run"])).await;
    let pod = world.until("web-0", is_ready).await;
    println!("create to Ready: {:?}", began.elapsed());
    let told = pod.status.clone().expect("a status");
    assert_eq!(
        (phase(&pod), told.pod_ip.as_deref(), told.host_ip.as_deref()),
        ("Running", Some("10.42.0.2"), Some("192.0.2.2"))
    );
    assert_eq!(told.qos_class.as_deref(), Some("BestEffort"));
    let container = status(&pod, "c").expect("a container status");
    assert_eq!((container.image.as_str(), container.restart_count), ("docker.io/library/i:1", 0));
    assert!(container.container_id.as_deref().is_some_and(|id| id.starts_with("fake://c")));
    for (reason, message) in [
        ("Pulled", "Container image \"i:1\" already present on machine and can be accessed by the pod"),
        ("Created", "Container created"),
        ("Started", "Container started"),
    ] {
        let event = world.event(reason, message).await;
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{c}"));
    }
    world.delete("web-0", None).await;
    world.gone("web-0").await;
    world.event("Killing", "Stopping container c").await;
    assert!(world.network.attached().await.expect("links").is_empty());
    let log = world.engine.log();
    assert_eq!(log[..2], ["sandbox", "create c#0"]);
    assert_eq!(log[2..4], ["stop c 5s", "stop sandbox"]);
}

#[tokio::test]
async fn the_container_gets_its_environment_files_and_token() {
    let world = World::new().await;
    let map: ConfigMap = from(json!({"metadata": {"name": "cm"}, "data": {"k": "v1"}}));
    create(&world.client, &map).await;
    let spec = json!({
        "hostname": "web-0", "subdomain": "nginx",
        "containers": [{"name": "c", "image": "i:1", "command": ["run", "$(FROM)"], "env": [
            {"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}, {"name": "data", "mountPath": "/data", "subPath": "a/b"}]}],
        "volumes": [{"name": "conf", "configMap": {"name": "cm"}}, {"name": "data", "emptyDir": {}}]});
    world.pod("web-0", spec).await;
    world.until("web-0", is_ready).await;
    let (_, config) = world.engine.container("c").expect("a container");
    assert_eq!(config.command, ["run", "v1"]);
    let env = |name: &str| config.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (env("FROM"), env("IP"), env("KUBERNETES_SERVICE_HOST")),
        (Some("v1"), Some("10.42.0.2"), Some("10.43.0.1"))
    );
    let host = |path: &str| {
        let mount = config.mounts.iter().find(|mount| mount.container_path == std::path::Path::new(path));
        mount.unwrap_or_else(|| panic!("{path} is not mounted")).host_path.clone()
    };
    let text =
        |path: std::path::PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(text(host("/conf").join("k")), "v1");
    assert!(host("/data").is_dir());
    assert!(text(host("/etc/hosts")).ends_with("10.42.0.2\tweb-0.nginx.ns.svc.cluster.local\tweb-0\n"));
    assert!(text(host("/etc/resolv.conf")).contains("nameserver 10.43.0.10\n"));
    let account = host("/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!((text(account.join("ca.crt")), text(account.join("namespace"))), ("CA".to_owned(), "ns".to_owned()));
    assert_eq!(text(account.join("token")).split('.').count(), 3, "a signed token");

    // A volume follows its object.
    let api: Api<ConfigMap> = Api::namespaced(world.client.clone(), NAMESPACE);
    let watch = host("/conf");
    api.patch("cm", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v2"}}))).await.expect("patched");
    let changed = async {
        while text(watch.join("k")) != "v2" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, changed).await.expect("the file changes");

    world.delete("web-0", Some(0)).await;
    world.gone("web-0").await;
    let dir = world.dir.path().join("node/pods");
    let empty = async {
        while std::fs::read_dir(&dir).expect("a directory").count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, empty).await.expect("the pod's files go");
}

#[tokio::test]
async fn a_crashing_container_backs_off() {
    let world = World::new().await;
    world.pod("p", one(&["die", "out of luck"])).await;
    let pod = world.until("p", |pod| waiting(pod, "c").0 == "CrashLoopBackOff").await;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    assert_eq!(waiting(&pod, "c").1, format!("back-off 10s restarting failed container=c pod=p_ns({uid})"));
    let container = status(&pod, "c").expect("a status");
    assert_eq!(container.restart_count, 1);
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()).expect("a last state");
    assert_eq!(
        (last.reason.as_deref(), last.exit_code, last.message.as_deref()),
        (Some("Error"), 1, Some("out of luck"))
    );
    world.event("BackOff", &format!("Back-off restarting failed container c in pod p_ns({uid})")).await;
}

#[tokio::test]
async fn what_is_missing_is_named_and_picked_up_when_it_comes() {
    let world = World::new().await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "command": ["run"],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}]}]});
    world.pod("env", spec).await;
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "command": ["run"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "configMap": {"name": "late"}}]});
    world.pod("volume", spec).await;
    let pod = world.until("env", |pod| waiting(pod, "c").0 == "CreateContainerConfigError").await;
    assert_eq!(waiting(&pod, "c").1, "configmap \"late\" not found");
    world.event("Failed", "Error: configmap \"late\" not found").await;
    world.event("FailedMount", "MountVolume.SetUp failed for volume \"v\" : configmap \"late\" not found").await;
    let pod = world.until("volume", |pod| waiting(pod, "c").0 == "ContainerCreating").await;
    assert_eq!(condition(&pod, "PodReadyToStartContainers"), "False");
    let map: ConfigMap = from(json!({"metadata": {"name": "late"}, "data": {"k": "v"}}));
    create(&world.client, &map).await;
    world.until("env", is_ready).await;
    world.until("volume", is_ready).await;
}

#[tokio::test]
async fn images_are_pulled_or_said_to_be_missing() {
    let world = World::new().await;
    world.engine.publish("j:1");
    world.pod("good", json!({"containers": [{"name": "c", "image": "j:1", "command": ["run"]}]})).await;
    world.pod("bad", json!({"containers": [{"name": "c", "image": "nothere:1", "command": ["run"]}]})).await;
    world.until("good", is_ready).await;
    world.event("Pulling", "Pulling image \"j:1\"").await;
    let pulled = world.event("Pulled", "Successfully pulled image \"j:1\" in ").await;
    assert!(pulled.message.unwrap_or_default().ends_with(" including waiting). Image size: 1234 bytes."));
    let pod = world.until("bad", |pod| waiting(pod, "c").0 == "ErrImagePull").await;
    assert_eq!(waiting(&pod, "c").1, "nothere:1: not found");
    let pod = world.until("bad", |pod| waiting(pod, "c").0 == "ImagePullBackOff").await;
    assert_eq!(waiting(&pod, "c").1, "Back-off pulling image \"nothere:1\": ErrImagePull: nothere:1: not found");
    world.event("Failed", "Failed to pull image \"nothere:1\": nothere:1: not found").await;
    world.event("BackOff", "Back-off pulling image \"nothere:1\"").await;
    world.delete("bad", None).await;
    world.gone("bad").await;
}

#[tokio::test]
async fn a_container_that_cannot_start_says_why() {
    let world = World::new().await;
    world.pod("p", one(&["broken"])).await;
    let pod = world.until("p", |pod| waiting(pod, "c").0 == "CrashLoopBackOff").await;
    let last = status(&pod, "c").and_then(|one| one.last_state.clone()?.terminated).expect("a last state");
    assert_eq!((last.reason.as_deref(), last.exit_code), (Some("StartError"), 128));
    world.event("Failed", "Error: exec: \"broken\": executable file not found in $PATH: unknown").await;
}

#[tokio::test]
async fn probes_gate_readiness_and_hooks_run() {
    let world = World::new().await;
    let exec = |command: &str| json!({"exec": {"command": [command]}});
    let mut readiness = exec("ready");
    readiness["periodSeconds"] = json!(1);
    let spec = json!({"terminationGracePeriodSeconds": 5, "containers": [{"name": "c", "image": "i:1", "command": ["run"],
        "readinessProbe": readiness, "lifecycle": {"postStart": exec("hello"), "preStop": exec("bye")}}]});
    world.engine.command("hello", 0);
    world.engine.command("ready", 1);
    world.pod("p", spec).await;
    world.event("Unhealthy", "Readiness probe failed: ran ready").await;
    world.until("p", |pod| phase(pod) == "Running" && !is_ready(pod)).await;
    world.engine.command("ready", 0);
    world.until("p", is_ready).await;
    world.delete("p", None).await;
    world.gone("p").await;
    let log = world.engine.log();
    let at =
        |what: &str| log.iter().position(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{what} in {log:?}"));
    assert!(at("exec hello") < at("exec ready") && at("exec bye") < at("stop c"));
    // "bye" is not a command: the hook fails, and the container is stopped all the same.
    world.event("FailedPreStopHook", "PreStopHook failed").await;
}

#[tokio::test]
async fn jobs_end_and_keep_their_logs() {
    let world = World::new().await;
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "image": "i:1", "command": ["exit", "0"]}, {"name": "b", "image": "i:1", "command": ["exit", "3"]}]});
    world.pod("p", spec).await;
    let pod = world.until("p", |pod| phase(pod) == "Failed").await;
    let code = |name| status(&pod, name).and_then(|one| one.state.clone()?.terminated).map(|ended| ended.exit_code);
    assert_eq!((code("a"), code("b"), condition(&pod, "Ready")), (Some(0), Some(3), "False"));
    let spec = json!({"restartPolicy": "OnFailure", "initContainers": [{"name": "i", "image": "i:1", "command": ["exit", "0"]}],
        "containers": [{"name": "a", "image": "i:1", "command": ["exit", "0"]}]});
    world.pod("q", spec).await;
    let pod = world.until("q", |pod| phase(pod) == "Succeeded").await;
    let condition = |kind| {
        pod.status
            .as_ref()
            .and_then(|status| status.conditions.as_ref()?.iter().find(|one| one.type_ == kind)?.reason.clone())
    };
    assert_eq!(
        (condition("Initialized").as_deref(), condition("Ready").as_deref()),
        (Some("PodCompleted"), Some("PodCompleted"))
    );
}

#[tokio::test]
async fn the_next_pod_of_a_name_waits_for_the_end_of_the_old_one() {
    let world = World::new().await;
    world.pod("web-0", one(&["stubborn"])).await;
    let old = world.until("web-0", is_ready).await;
    // By force: the object is gone at once, its container is not.
    world.delete("web-0", Some(0)).await;
    world.gone("web-0").await;
    let new = world.pod("web-0", one(&["run"])).await;
    assert_ne!(old.metadata.uid, new.metadata.uid);
    world.until("web-0", is_ready).await;
    let log = world.engine.log();
    let at = |what: &str| log.iter().rposition(|line| line == what).unwrap_or_else(|| panic!("{what} in {log:?}"));
    assert!(log.iter().position(|line| line == "stop sandbox") < Some(at("sandbox")), "{log:?}");
    assert!(at("stop c 2s") < at("sandbox"), "{log:?}");
}

#[tokio::test]
async fn a_shorter_grace_overrules_a_longer_one() {
    let world = World::new().await;
    let spec = json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "c", "image": "i:1", "command": ["stubborn"]}]});
    world.pod("p", spec).await;
    world.until("p", is_ready).await;
    world.delete("p", None).await;
    world.event("Killing", "Stopping container c").await;
    world.delete("p", Some(1)).await;
    world.gone("p").await;
    assert!(world.engine.log().contains(&"stop c 2s".to_owned()), "{:?}", world.engine.log());
}

#[tokio::test]
async fn a_restarted_node_restarts_nothing_and_cleans_up() {
    let mut world = World::new().await;
    world.pod("stays", one(&["run"])).await;
    world.pod("goes", json!({"terminationGracePeriodSeconds": 3, "containers": [{"name": "g", "image": "i:1", "command": ["run"]}]})).await;
    let before = world.until("stays", is_ready).await;
    world.until("goes", is_ready).await;
    world.kill();
    world.delete("goes", Some(0)).await;
    world.gone("goes").await;
    world.restart();
    let stopped = async {
        while !world.engine.log().contains(&"remove sandbox".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, stopped).await.expect("the orphan goes");
    assert!(world.engine.log().contains(&"stop g 3s".to_owned()), "{:?}", world.engine.log());
    // A new pod proves that the node works, and that the address of the running one is not given away.
    world.pod("new", json!({"containers": [{"name": "n", "image": "i:1", "command": ["run"]}]})).await;
    let new = world.until("new", is_ready).await;
    let after = world.until("stays", is_ready).await;
    assert_eq!(before.status, after.status);
    let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    assert_ne!(ip(&after), ip(&new));
    assert_eq!(world.engine.log().iter().filter(|line| *line == "create c#0").count(), 1);
    // What runs is still the node's to stop.
    world.delete("stays", None).await;
    world.gone("stays").await;
}

#[tokio::test]
async fn a_claim_becomes_a_directory_and_goes_with_its_volume() {
    let world = World::new().await;
    let path = world.dir.path().join("volumes/pvc-1");
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv-1",
        "storageClassName": "standard", "resources": {"requests": {"storage": "1Gi"}}}});
    let claim: k8s_openapi::api::core::v1::PersistentVolumeClaim = from(claim);
    let claim = create(&world.client, &claim).await;
    let claims: Api<k8s_openapi::api::core::v1::PersistentVolumeClaim> =
        Api::namespaced(world.client.clone(), NAMESPACE);
    let bound = json!({"status": {"phase": "Bound"}});
    claims.patch_status("data", &PatchParams::default(), &Patch::Merge(bound)).await.expect("bound");
    let volume = json!({"metadata": {"name": "pv-1", "annotations": {"pv.kubernetes.io/provisioned-by": "stead.dev/local"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "standard", "local": {"path": path},
            "claimRef": {"namespace": NAMESPACE, "name": "data", "uid": claim.metadata.uid},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}});
    let volumes: Api<k8s_openapi::api::core::v1::PersistentVolume> = Api::all(world.client.clone());
    volumes.create(&PostParams::default(), &from(volume)).await.expect("a volume");
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "command": ["run"], "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]});
    world.pod("p", spec).await;
    world.until("p", is_ready).await;
    std::fs::write(path.join("file"), "data").expect("written");
    let released = json!({"status": {"phase": "Released"}});
    volumes.patch_status("pv-1", &PatchParams::default(), &Patch::Merge(released)).await.expect("released");
    world.delete("p", Some(0)).await;
    let cache = world.caches.of::<k8s_openapi::api::core::v1::PersistentVolume>();
    // Protection finalizers are the controllers' to remove.
    let marked = cache.until(|cache| cache.list().iter().all(|volume| volume.metadata.deletion_timestamp.is_some()));
    tokio::time::timeout(LONG, marked).await.expect("the volume goes");
    assert!(!path.exists());
}

#[tokio::test]
async fn the_node_registers_and_renews_its_lease() {
    let world = World::new().await;
    let nodes = world.caches.of::<k8s_openapi::api::core::v1::Node>();
    let ready = nodes.until(|cache| {
        let node = cache.get("", "n1");
        let conditions = node.and_then(|node| node.status.clone()?.conditions).unwrap_or_default();
        conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
    });
    tokio::time::timeout(LONG, ready).await.expect("the node is ready");
    let node = nodes.get("", "n1").expect("a node");
    assert_eq!(node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()), Some("10.42.0.0/24"));
    let status = node.status.clone().expect("a status");
    assert!(status.allocatable.is_some_and(|list| list.contains_key("cpu")));
    assert_eq!(status.node_info.map(|info| info.container_runtime_version).as_deref(), Some("fake://1.0"));
    let leases = world.caches.of::<k8s_openapi::api::coordination::v1::Lease>();
    let renewed = leases.until(|cache| cache.get("kube-node-lease", "n1").is_some());
    tokio::time::timeout(LONG, renewed).await.expect("a lease");
}

#[tokio::test]
async fn logs_are_read_and_followed() {
    let world = World::new().await;
    world.pod("p", one(&["say", "hello"])).await;
    world.until("p", is_ready).await;
    let get = |path: &str| http::Request::get(path.to_owned()).body(()).expect("a request");
    let body = async |response: http::Response<stead_node::Body>| {
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    };
    let answer = world.node.handle(get("/containerLogs/ns/p/c")).await;
    assert_eq!(body(answer).await, "hello\n");
    let answer = world.node.handle(get("/containerLogs/ns/p/c?previous=true")).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(body(answer).await, "previous terminated container \"c\" in pod \"p\" not found");
    let answer = world.node.handle(get("/containerLogs/ns/nothere/c")).await;
    assert_eq!((answer.status().as_u16(), body(answer).await), (404, "pod \"nothere\" does not exist".to_owned()));
    let followed = world.node.handle(get("/containerLogs/ns/p/c?follow=true")).await;
    let reading = tokio::spawn(async move { body(followed).await });
    let (container, config) = world.engine.container("c").expect("a container");
    assert!(matches!(container.state, ContainerState::Running { .. }));
    let path = world.dir.path().join("node/pod-logs").join(format!(
        "ns_p_{}",
        world.pods().get(NAMESPACE, "p").and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default()
    ));
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).open(path.join(config.log_path)).expect("the log");
    writeln!(file, "2026-11-20T12:00:00Z stdout F more").expect("written");
    world.engine.exit("c", 0);
    let text = tokio::time::timeout(LONG, reading).await.expect("the end").expect("read");
    assert_eq!(text, "hello\nmore\n");
}
