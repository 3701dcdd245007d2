//! Pods for real: containers by the embedded engine, the kernel's network, as root.

mod support;

use std::time::Instant;

use futures::{AsyncBufReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{AttachParams, LogParams};
use serde_json::{Value, json};
use support::real::{IMAGE, Real, isolated};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn shell(script: &str) -> Value {
    json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", script]})
}

async fn exec(world: &Real, pod: &str, command: &[&str]) -> (String, Option<String>) {
    let params = AttachParams::default().stdout(true).stderr(false);
    let mut process = world.api().exec(pod, command.iter().copied(), &params).await.expect("exec");
    let mut text = String::new();
    process.stdout().expect("stdout").read_to_string(&mut text).await.expect("output");
    let status = process.take_status().expect("a status").await.expect("ended");
    (text, status.message)
}

#[test]
fn a_pod_runs_is_looked_into_and_ends_within_its_grace() {
    isolated(101, |world| async move {
        let spec = json!({"terminationGracePeriodSeconds": 20, "hostname": "web-0", "subdomain": "nginx", "containers": [
            shell("trap 'echo bye; exit 3' TERM; echo hello; while true; do sleep 1000 & wait $!; done")]});
        let began = Instant::now();
        world.pod("web-0", spec).await;
        let pod = world.until("web-0", is_ready).await;
        println!("create to Ready: {:?}", began.elapsed());
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).expect("an address");
        let follow = LogParams { follow: true, ..LogParams::default() };
        let mut lines = world.api().log_stream("web-0", &follow).await.expect("logs").lines();
        assert_eq!(lines.next().await.expect("a line").expect("text"), "hello");
        assert_eq!(exec(&world, "web-0", &["hostname"]).await.0, "web-0\n");
        let hosts = exec(&world, "web-0", &["cat", "/etc/hosts"]).await.0;
        assert!(hosts.contains(&format!("{ip}\tweb-0.nginx.ns.svc.cluster.local\tweb-0\n")), "{hosts}");
        let (_, message) = exec(&world, "web-0", &["sh", "-c", "exit 7"]).await;
        assert_eq!(message.as_deref(), Some("command terminated with non-zero exit code: exit status 7"));
        let began = Instant::now();
        let cache = world.pods();
        delete(&world.client, "web-0", None).await;
        let ended = world.until("web-0", |pod| phase(pod) == "Failed").await;
        let state = status(&ended, "c").and_then(|one| one.state.clone()?.terminated).expect("ended");
        assert_eq!((state.exit_code, state.reason.as_deref()), (3, Some("Error")));
        world.gone("web-0").await;
        println!("delete to gone: {:?}", began.elapsed());
        drop(cache);
        assert!(world.network.attached().await.expect("links").is_empty());
    });
}

#[test]
fn volumes_are_there_and_a_restarted_node_restarts_nothing() {
    isolated(103, |mut world| async move {
        let map: ConfigMap = from(json!({"metadata": {"name": "cm"}, "data": {"k": "v"}}));
        create(&world.client, &map).await;
        let mut container = shell("echo started > /mem/log; echo dying > /dev/termination-log; sleep 1000");
        container["volumeMounts"] = json!([
            {"name": "conf", "mountPath": "/conf"}, {"name": "mem", "mountPath": "/mem"},
            {"name": "disk", "mountPath": "/disk", "subPath": "a/b"}]);
        container["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
        let spec = json!({"securityContext": {"fsGroup": 77}, "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [
            {"name": "conf", "configMap": {"name": "cm"}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
            {"name": "disk", "emptyDir": {}}]});
        world.pod("p", spec).await;
        world.until("p", is_ready).await;
        assert_eq!(exec(&world, "p", &["cat", "/conf/k"]).await.0, "v");
        let mounts = exec(&world, "p", &["mount"]).await.0;
        assert!(
            mounts.lines().any(|line| line.contains("on /mem type tmpfs") && line.contains("size=4096k")),
            "{mounts}"
        );
        assert_eq!(exec(&world, "p", &["stat", "-L", "-c", "%g", "/mem", "/disk", "/conf/k"]).await.0, "77\n77\n77\n");
        let before = world.until("p", is_ready).await;
        world.restart(103).await;
        assert_eq!(exec_when_back(&world, "p").await, "started\n");
        world.pod("q", json!({"restartPolicy": "Never", "containers": [shell("exit 0")]})).await;
        world.until("q", |pod| phase(pod) == "Succeeded").await;
        let after = world.until("p", is_ready).await;
        assert_eq!(before.status, after.status);
        delete(&world.client, "p", None).await;
        world.gone("p").await;
    });
}

/// The new process has to have seen the pod first.
async fn exec_when_back(world: &Real, pod: &str) -> String {
    let params = AttachParams::default().stdout(true).stderr(false);
    let trying = async {
        loop {
            match world.api().exec(pod, ["cat", "/mem/log"], &params).await {
                Ok(mut process) => {
                    let mut text = String::new();
                    process.stdout().expect("stdout").read_to_string(&mut text).await.expect("output");
                    return text;
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LONG, trying).await.expect("the node comes back")
}

#[test]
fn probes_reach_the_pod_and_ports_are_forwarded() {
    isolated(105, |world| async move {
        let mut container =
            shell("mkdir -p /www || busybox mkdir -p /www; echo page > /www/index.html; httpd -f -p 8080 -h /www");
        container["readinessProbe"] = json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1});
        container["livenessProbe"] = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
        let mut closed = container.clone();
        closed["readinessProbe"] = json!({"tcpSocket": {"port": 81}, "periodSeconds": 1});
        world.pod("p", json!({"terminationGracePeriodSeconds": 0, "containers": [container]})).await;
        world.pod("closed", json!({"terminationGracePeriodSeconds": 0, "containers": [closed]})).await;
        world.until("p", is_ready).await;
        let mut forward = world.api().portforward("p", &[8080]).await.expect("forwarded");
        let mut stream = forward.take_stream(8080).expect("a stream");
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.expect("sent");
        // The end of the connection does not come through the channels of this protocol.
        let mut text = Vec::new();
        while !text.ends_with(b"page\n") {
            let read =
                tokio::time::timeout(LONG, stream.read_buf(&mut text)).await.expect("in time").expect("answered");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&text));
        }
        let events = world.caches.of::<k8s_openapi::api::core::v1::Event>();
        let told = events.until(|cache| {
            cache.list().iter().any(|event| {
                let text = event.message.as_deref().unwrap_or_default();
                text.starts_with("Readiness probe failed: dial tcp 10.105.0.")
                    && text.ends_with(":81: connect: connection refused")
            })
        });
        tokio::time::timeout(LONG, told).await.expect("an event");
        world.until("closed", |pod| phase(pod) == "Running" && !is_ready(pod)).await;
    });
}

#[test]
fn a_crash_and_a_missing_program_are_told() {
    isolated(107, |world| async move {
        world.pod("crash", json!({"containers": [shell("echo out of luck > /dev/termination-log; exit 4")]})).await;
        world.pod("nocmd", json!({"containers": [{"name": "c", "image": IMAGE, "command": ["nothere"]}]})).await;
        let mut oom = shell("exec busybox tail -c 200000000 /dev/zero");
        oom["resources"] = json!({"limits": {"memory": "24Mi"}});
        world.pod("oom", json!({"restartPolicy": "Never", "containers": [oom]})).await;
        let last = |pod: &Pod| {
            let one = status(pod, "c")?;
            one.last_state.clone()?.terminated.or(one.state.clone()?.terminated)
        };
        let pod = world.until("crash", |pod| waiting(pod, "c").0 == "CrashLoopBackOff").await;
        let ended = last(&pod).expect("ended");
        assert_eq!((ended.exit_code, ended.message.as_deref()), (4, Some("out of luck\n")));
        let previous = world.api().logs("crash", &LogParams { previous: true, ..LogParams::default() }).await;
        assert_eq!(previous.expect("logs"), "");
        let pod = world.until("nocmd", |pod| waiting(pod, "c").0 == "CrashLoopBackOff").await;
        let ended = last(&pod).expect("ended");
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (128, Some("StartError")));
        let text = ended.message.unwrap_or_default();
        assert!(text.contains("exec: \"nothere\": executable file not found in $PATH"), "{text}");
        let pod = world.until("oom", |pod| phase(pod) == "Failed").await;
        let ended = last(&pod).expect("ended");
        assert_eq!((ended.exit_code, ended.reason.as_deref()), (137, Some("OOMKilled")));
    });
}

#[test]
fn a_sandbox_that_dies_is_replaced_and_its_volume_stays() {
    isolated(109, |world| async move {
        let mut container = shell("echo again >> /data/log; httpd -f -p 8080 -h /data");
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        container["readinessProbe"] = json!({"httpGet": {"path": "/log", "port": 8080}, "periodSeconds": 1});
        let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]});
        world.pod("p", spec).await;
        let before = world.until("p", is_ready).await;
        let engine = world.engine.clone().expect("an engine");
        let sandbox = engine.sandboxes().await.expect("sandboxes").remove(0);
        engine.stop_sandbox(&sandbox.id).await.expect("it dies");
        let restarted = |pod: &Pod| status(pod, "c").is_some_and(|one| one.restart_count == 1) && is_ready(pod);
        let after = world.until("p", restarted).await;
        let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
        assert_eq!(ip(&before), ip(&after));
        assert_eq!(exec(&world, "p", &["cat", "/data/log"]).await.0, "again\nagain\n");
        let previous = LogParams { previous: true, ..LogParams::default() };
        world.api().logs("p", &previous).await.expect("the log of the attempt before");
        delete(&world.client, "p", None).await;
        world.gone("p").await;
        let empty = async {
            while !engine.sandboxes().await.expect("sandboxes").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, empty).await.expect("both sandboxes go");
    });
}
