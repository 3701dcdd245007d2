//! The ways in: TLS with certificates and tokens, the in-process client, and the tunnels to nodes.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use std::sync::Arc;

use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, AttachParams, ListParams, LogParams, PostParams};
use serde_json::json;
use stead_apiserver::{ApiServer, AsyncReadWrite, Identity, NoNodes, NodeDialer};
use support::{PODS, World, config, pod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// A server on a real port, in a runtime of its own test.
async fn listening(dir: &std::path::Path) -> (ApiServer, CancellationToken, tokio::task::JoinHandle<()>) {
    let server = ApiServer::open(config(dir, 0), stead_store::memory(), Arc::new(NoNodes)).await.unwrap();
    let listener = server.listen().await.unwrap();
    let (stop, serving) = (CancellationToken::new(), server.clone());
    let token = stop.clone();
    let task = tokio::spawn(async move { serving.serve_on(listener, token).await.unwrap() });
    (server, stop, task)
}

async fn client_of(kubeconfig: &str) -> kube::Client {
    let file = kube::config::Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    stead_client::from_config(config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_the_admins_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (server, stop, task) = listening(dir.path()).await;
    let client = client_of(&server.admin_kubeconfig()).await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "37");
    let head = http::Request::head("/api/v1/namespaces/default").body(kube::client::Body::empty()).unwrap();
    let head = client.send(head).await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers().contains_key("content-length")), (405, true));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    // A watch that is open does not hold the server up when it stops.
    let mut watch = Box::pin(maps.watch(&Default::default(), "0").await.unwrap());
    assert!(futures::StreamExt::next(&mut watch).await.is_some());
    stop.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(4), task).await.expect("the server stops").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_authority_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (server, stop, task) = listening(dir.path()).await;
    let (first, ca) = (server.admin_kubeconfig(), server.pki().ca_pem().to_owned());
    stop.cancel();
    task.await.unwrap();
    let (server, stop, task) = listening(dir.path()).await;
    assert_eq!(server.pki().ca_pem(), ca);
    // The old client certificate still opens the door; only the port is new.
    let port = |text: &str| text.lines().find(|l| l.contains("server:")).unwrap().to_owned();
    let again = first.replace(&port(&first), &port(&server.admin_kubeconfig()));
    assert!(client_of(&again).await.apiserver_version().await.is_ok());
    stop.cancel();
    task.await.unwrap();
    for file in ["ca.key", "server.key", "admin.key", "sa.key"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(dir.path().join("pki").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    std::fs::write(dir.path().join("pki/ca.crt"), "nonsense").unwrap();
    let broken = ApiServer::open(config(dir.path(), 0), stead_store::memory(), Arc::new(NoNodes)).await.unwrap_err();
    assert!(broken.to_string().contains("pki/ca.crt is not a usable certificate"), "{broken}");
}

#[tokio::test]
async fn who_may_what() {
    let mut w = World::new().await;
    let token = w.ok("POST /api/v1/namespaces/http/serviceaccounts/default/token", "{}").await;
    let token = token["status"]["token"].as_str().unwrap().to_owned();
    let review =
        w.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", &json!({"spec": {"token": token}}).to_string()).await;
    assert_eq!(
        (&review["status"]["authenticated"], &review["status"]["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:http:default"))
    );
    let wrong = w.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", r#"{"spec":{"token":"x"}}"#).await;
    assert_eq!(wrong["status"], json!({"user": {}, "error": "invalid bearer token"}));
    // The account made anew is another one.
    w.ok("DELETE /api/v1/namespaces/http/serviceaccounts/default", "").await;
    w.ok("POST /api/v1/namespaces/http/serviceaccounts", r#"{"metadata":{"name":"default"}}"#).await;
    let stale =
        w.ok("POST /apis/authentication.k8s.io/v1/tokenreviews", &json!({"spec": {"token": token}}).to_string()).await;
    assert_eq!(stale["status"]["error"], "invalid bearer token");

    let jane = [("impersonate-user", "jane")];
    let refused = w.ask_with(&format!("GET {PODS}"), &jane, "").await;
    assert_eq!(
        refused.line(),
        "403 pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"http\""
    );
    let refused = w.ask_with("DELETE /apis/apps/v1/namespaces/http/statefulsets/web", &jane, "").await;
    assert_eq!(
        refused.line(),
        "403 statefulsets.apps \"web\" is forbidden: User \"jane\" cannot delete resource \"statefulsets\" in API group \"apps\" in the namespace \"http\""
    );
    let nonsense = w.ask_with("GET /api/v1/nodes", &[("impersonate-group", "g")], "").await;
    assert_eq!(
        (nonsense.code, nonsense.text.as_str()),
        (500, "Internal Server Error: \"/api/v1/nodes\": requested [{Group  g    }] without impersonating a user\n")
    );

    let rules = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#;
    w.ok("POST /apis/rbac.authorization.k8s.io/v1/namespaces/http/roles", rules).await;
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"jane"}]}"#;
    w.ok("POST /apis/rbac.authorization.k8s.io/v1/namespaces/http/rolebindings", binding).await;
    assert_eq!(w.ask_with(&format!("GET {PODS}"), &jane, "").await.code, 200);
    let question =
        r#"{"spec":{"user":"jane","resourceAttributes":{"verb":"list","resource":"pods","namespace":"http"}}}"#;
    let answer = w.ok("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", question).await;
    assert_eq!(answer["status"]["allowed"], true);

    w.user = Identity::anonymous();
    assert_eq!(
        w.ask("GET /api/v1/pods", "").await.line(),
        "403 pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
    );
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(w.ask(&format!("GET {open}"), "").await.code, 200, "{open}");
    }
}

/// A node whose agent answers logs, and echoes whatever comes after an upgrade.
struct Echo;

#[async_trait::async_trait]
impl NodeDialer for Echo {
    async fn connect(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        if node != "peer" {
            return Err(std::io::Error::other("no such node"));
        }
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().next().unwrap().to_owned();
            if head.to_lowercase().contains("upgrade: ") {
                far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
                    .await
                    .unwrap();
                far.write_all(format!("{line}\n").as_bytes()).await.unwrap();
                let (mut read, mut write) = tokio::io::split(far);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
            } else {
                let text = if line.contains("previous=true") {
                    "previous terminated container \"c\" in pod \"web-0\" not found"
                } else {
                    &line
                };
                let code = if line.contains("previous=true") { "400 Bad Request" } else { "200 OK" };
                far.write_all(format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes())
                    .await
                    .unwrap();
            }
        });
        Ok(Box::new(near))
    }
}

#[tokio::test]
async fn nodes_answer_through_the_server() {
    let w = World::with(stead_store::memory(), Arc::new(Echo)).await;
    w.ok(&format!("POST {PODS}"), &pod("web-0")).await;
    let unplaced = w.ask(&format!("GET {PODS}/web-0/exec?command=ls"), "").await;
    assert_eq!(unplaced.line(), "400 pod web-0 does not have a host assigned");
    let binding = r#"{"metadata":{"name":"web-0"},"target":{"kind":"Node","name":"peer"}}"#;
    w.ok(&format!("POST {PODS}/web-0/binding"), binding).await;
    for (url, want) in [
        ("log", "200 GET /containerLogs/http/web-0/c HTTP/1.1"),
        (
            "log?container=c&follow=true&tailLines=3",
            "200 GET /containerLogs/http/web-0/c?follow=true&tailLines=3 HTTP/1.1",
        ),
        ("log?container=nothere", "400 container nothere is not valid for pod web-0"),
        (
            "log?tailLines=-1",
            "422 PodLogOptions \"web-0\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        ("log?previous=true", "400 previous terminated container \"c\" in pod \"web-0\" not found"),
        ("exec?command=ls", "400 Upgrade request required"),
        ("attach?stdout=true", "400 Upgrade request required"),
        ("portforward", "400 Upgrade request required"),
    ] {
        let answer = w.ask(&format!("GET {PODS}/web-0/{url}"), "").await;
        let line = if answer.code == 200 { format!("200 {}", answer.text) } else { answer.line() };
        assert_eq!(line, want, "{url}");
    }
    assert_eq!(w.ask(&format!("GET {PODS}/nothere/log"), "").await.line(), "404 pods \"nothere\" not found");
    for (url, want) in [
        (
            "exec?command=sh&command=-c&stdin=true&stdout=true&tty=false",
            "GET /exec/http/web-0/c?input=1&output=1&command=sh&command=-c HTTP/1.1\n",
        ),
        ("attach?stdout=true&stderr=true&tty=true", "GET /attach/http/web-0/c?output=1&error=1&tty=1 HTTP/1.1\n"),
        ("portforward?ports=80", "GET /portForward/http/web-0?port=80 HTTP/1.1\n"),
    ] {
        let headers = [("connection", "Upgrade"), ("upgrade", "echo")];
        let mut answer = w.send(&format!("GET {PODS}/web-0/{url}"), &headers, "").await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"echo".parse().unwrap()));
        let upgraded = hyper::upgrade::on(&mut answer).await.unwrap();
        let mut io = hyper_util::rt::TokioIo::new(upgraded);
        let mut line = vec![0; want.len()];
        io.read_exact(&mut line).await.unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), want);
        io.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"ping");
    }
}

#[tokio::test]
async fn a_log_comes_over_a_web_socket_too() {
    let w = World::with(stead_store::memory(), Arc::new(Echo)).await;
    w.ok(&format!("POST {PODS}"), &pod("web-0")).await;
    w.ok(&format!("POST {PODS}/web-0/binding"), r#"{"metadata":{"name":"web-0"},"target":{"name":"peer"}}"#).await;
    for (upgrade, code) in [("websocket", 101), ("spdy/3.1", 200)] {
        let headers = [("connection", "Upgrade"), ("upgrade", upgrade)];
        let answer = w.send(&format!("GET {PODS}/web-0/log?follow=true"), &headers, "").await;
        assert_eq!(answer.status().as_u16(), code, "{upgrade}");
    }
}

#[tokio::test]
async fn kube_rs_in_process() {
    let w = World::with(stead_store::memory(), Arc::new(Echo)).await;
    let client = stead_client::in_process(w.server.in_process(Identity::admin()), "http");
    let pods: Api<Pod> = Api::default_namespaced(client);
    let made: Pod = serde_json::from_str(&pod("web-0")).unwrap();
    pods.create(&PostParams::default(), &made).await.unwrap();
    w.ok(&format!("POST {PODS}/web-0/binding"), r#"{"metadata":{"name":"web-0"},"target":{"name":"peer"}}"#).await;
    assert_eq!(pods.get("web-0").await.unwrap().spec.unwrap().node_name.as_deref(), Some("peer"));
    assert_eq!(pods.logs("web-0", &LogParams::default()).await.unwrap(), "GET /containerLogs/http/web-0/c HTTP/1.1");
    let missing = pods.get("x").await.unwrap_err();
    assert_eq!(stead_client::message(&missing), "pods \"x\" not found");
    // The fake agent speaks no WebSocket: the refusal comes back as an error rather than a hang.
    assert!(pods.exec("web-0", ["ls"], &AttachParams::default()).await.is_err());
}

#[tokio::test]
async fn large_answers_are_compressed_for_who_asks() {
    let w = World::new().await;
    for i in 0..60 {
        let body = json!({"metadata": {"name": format!("big{i}")}, "data": {"x": "y".repeat(4096)}}).to_string();
        w.ok("POST /api/v1/namespaces/http/configmaps", &body).await;
    }
    let answer = w.send("GET /api/v1/configmaps", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let small = answer.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&small[..]), &mut text).unwrap();
    let plain = w.ask("GET /api/v1/configmaps", "").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), plain.json());
}
