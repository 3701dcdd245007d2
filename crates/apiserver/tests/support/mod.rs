//! A server over a memory store, and a way to ask it without a socket.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test file uses its part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use stead_apiserver::{ApiBody, ApiServer, Config, Identity, NoNodes, NodeDialer};
use stead_store::Store;
use tower::ServiceExt as _;

pub struct World {
    pub server: ApiServer,
    pub store: Arc<dyn Store>,
    pub user: Identity,
    pub dir: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// `404 pods "x" not found`, or only the code when it went well.
    pub fn line(&self) -> String {
        let message = self.json()["message"].as_str().map(str::to_owned).unwrap_or_default();
        if self.code < 300 { self.code.to_string() } else { format!("{} {message}", self.code) }
    }
}

pub fn config(dir: &std::path::Path, port: u16) -> Config {
    Config {
        bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        pki_dir: dir.join("pki"),
        tls_sans: vec!["api.example.com".to_owned()],
        service_cidr: "10.43.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with(stead_store::memory(), Arc::new(NoNodes)).await
    }

    pub async fn with(store: Arc<dyn Store>, nodes: Arc<dyn NodeDialer>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::open(config(dir.path(), 0), store.clone(), nodes).await.unwrap();
        let world = Self { server, store, user: Identity::admin(), dir };
        world.ok("POST /api/v1/namespaces", r#"{"metadata":{"name":"http"}}"#).await;
        world.ok("POST /api/v1/namespaces/http/serviceaccounts", r#"{"metadata":{"name":"default"}}"#).await;
        world
    }

    pub async fn send(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Response<ApiBody> {
        let (method, url) = request.split_once(' ').unwrap();
        let mut builder = Request::builder().method(method).uri(url);
        let typed = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && !body.is_empty() {
            builder = builder.header("content-type", "application/json");
        }
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        self.server.in_process(self.user.clone()).oneshot(request).await.unwrap()
    }

    pub async fn ask_with(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (parts, body) = self.send(request, headers, body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: parts.status.as_u16(), headers: parts.headers, text }
    }

    pub async fn ask(&self, request: &str, body: &str) -> Answer {
        self.ask_with(request, &[], body).await
    }

    /// Asks for something that must go well.
    pub async fn ok(&self, request: &str, body: &str) -> Value {
        let answer = self.ask(request, body).await;
        assert!(answer.code < 300, "{request}: {} {}", answer.code, answer.text);
        answer.json()
    }

    pub async fn merge(&self, url: &str, patch: &str) -> Value {
        let answer =
            self.ask_with(&format!("PATCH {url}"), &[("content-type", "application/merge-patch+json")], patch).await;
        assert!(answer.code < 300, "{url}: {} {}", answer.code, answer.text);
        answer.json()
    }

    pub async fn get(&self, url: &str) -> Value {
        self.ok(&format!("GET {url}"), "").await
    }
}

pub const SET: &str = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{"name":"web"},"spec":{"serviceName":"web","replicas":1,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"nginx:1.21"}]}},"volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}]}}"#;

pub fn pod(name: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"c","image":"nginx:1.21"}}]}}}}"#
    )
}

pub const CM: &str = "/api/v1/namespaces/http/configmaps";
pub const PODS: &str = "/api/v1/namespaces/http/pods";
pub const SETS: &str = "/apis/apps/v1/namespaces/http/statefulsets";
