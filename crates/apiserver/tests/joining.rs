//! Machines that become nodes: the token, the authority's hash, certificates, and the tunnel.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use stead_apiserver::join::{CONNECT_PATH, JOIN_PATH, JoinAnswer, JoinRequest};
use stead_apiserver::pki::{JoinToken, join};
use stead_apiserver::{ApiServer, Identity, JoinConfig, NoNodes};
use stead_client::tls;
use support::config;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

struct World {
    server: ApiServer,
    token: JoinToken,
    at: tls::Server,
    port: u16,
    dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = ApiServer::open(config(dir.path(), 0), stead_store::memory(), Arc::new(NoNodes)).await.unwrap();
        let (token_file, own_name) = (dir.path().join("token"), Some("own".to_owned()));
        server.let_join(JoinConfig { token_file, token: None, own_name, cluster: json!({"clusterDNS": "x"}) }).unwrap();
        let listener = server.listen().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let at = tls::Server::parse(&format!("https://127.0.0.1:{port}")).unwrap();
        let (stop, serving) = (CancellationToken::new(), server.clone());
        let closing = stop.clone();
        tokio::spawn(async move { serving.serve_on(listener, closing).await.unwrap() });
        let token = JoinToken::parse(&server.join_token().unwrap()).unwrap();
        Self { server, token, at, port, dir, _stop: stop.drop_guard() }
    }

    fn by_hash(&self) -> tls::ClientConfig {
        tls::config_by_hash(self.token.authority.clone()).unwrap()
    }

    /// Asks to join; the answer, or code and words of the refusal.
    async fn join(
        &self,
        config: tls::ClientConfig,
        secret: Option<&str>,
        name: &str,
        password: &str,
    ) -> Result<(JoinAnswer, String), String> {
        let asked = join::request("system:admin").unwrap();
        let request =
            JoinRequest { node_name: name.to_owned(), password: password.to_owned(), request: asked.request_pem };
        let stream = self.at.dial(Arc::new(config)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut http = Request::post(JOIN_PATH).header(header::HOST, "x");
        if let Some(secret) = secret {
            http = http.header(header::AUTHORIZATION, format!("Bearer {secret}"));
        }
        let body = Full::new(Bytes::from(serde_json::to_vec(&request).unwrap()));
        let answer = sender.send_request(http.body(body).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        if code == 200 {
            return Ok((serde_json::from_slice(&text).unwrap(), asked.key_pem));
        }
        let status: Value = serde_json::from_slice(&text).unwrap();
        Err(format!("{code} {}", status["message"].as_str().unwrap()))
    }

    async fn joined(&self, name: &str) -> tls::ClientConfig {
        let (answer, key) = self.join(self.by_hash(), Some(&self.token.secret), name, "p").await.unwrap();
        tls::config(&answer.authority, tls::Credentials::new(&answer.node, &key).unwrap()).unwrap()
    }

    async fn refused(&self, config: tls::ClientConfig, secret: Option<&str>, name: &str, password: &str) -> String {
        self.join(config, secret, name, password).await.unwrap_err()
    }

    async fn as_admin(&self, request: &str, body: &str) -> (u16, String) {
        let world = support::World {
            server: self.server.clone(),
            store: stead_store::memory(),
            user: Identity::admin(),
            dir: tempfile::tempdir().unwrap(),
        };
        let answer = world.ask(request, body).await;
        (answer.code, answer.text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_for_a_token() {
    let world = World::new().await;
    let (answer, key) = world.join(world.by_hash(), Some(&world.token.secret), "a", "p").await.unwrap();
    assert_eq!(answer.cluster, json!({"clusterDNS": "x"}));
    for (cert, user, group) in [
        (&answer.node, "system:node:a", "system:nodes"),
        (&answer.proxy, "system:kube-proxy", "system:authenticated"),
        (&answer.dns, "system:serviceaccount:kube-system:coredns", "system:serviceaccounts:kube-system"),
        (&answer.storage, "system:serviceaccount:kube-system:local-provisioner", "system:serviceaccounts:kube-system"),
    ] {
        let config = tls::config(&answer.authority, tls::Credentials::new(cert, &key).unwrap()).unwrap();
        let client = tls::client(&world.at, config);
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .body(review.into_bytes());
        let seen: Value = client.request(request.unwrap()).await.unwrap();
        let info = &seen["status"]["userInfo"];
        assert_eq!(info["username"], user);
        assert!(info["groups"].as_array().unwrap().contains(&json!(group)), "{info}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_credentials_count_for_the_next_connection() {
    let world = World::new().await;
    let (answer, key) = world.join(world.by_hash(), Some(&world.token.secret), "a", "p").await.unwrap();
    let credentials = tls::Credentials::new(&answer.node, &key).unwrap();
    let config = tls::config(&answer.authority, credentials.clone()).unwrap();
    assert!(credentials.replace("rubbish", &key).is_err(), "what is no certificate changes nothing");
    let (second, second_key) = world.join(config.clone(), None, "a", "p").await.unwrap();
    assert_ne!(second.node, answer.node);
    credentials.replace(&second.proxy, &second_key).unwrap();
    let refused = world.refused(config, None, "a", "p").await;
    assert!(refused.starts_with("401"), "the connection is the proxy's now: {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused() {
    let world = World::new().await;
    let secret = Some(world.token.secret.as_str());
    assert_eq!(world.refused(world.by_hash(), None, "a", "p").await, "401 the token is not that of this server");
    assert_eq!(world.refused(world.by_hash(), Some("no"), "a", "p").await, "401 the token is not that of this server");
    assert!(world.refused(world.by_hash(), secret, "A/b", "p").await.starts_with("400 \"A/b\" cannot be the name"));
    let taken = "403 another machine is node \"own\"";
    assert!(world.refused(world.by_hash(), secret, "own", "p").await.starts_with(taken));

    let as_a = world.joined("a").await;
    assert_eq!(world.as_admin("POST /api/v1/nodes", r#"{"metadata":{"name":"a"}}"#).await.0, 201);
    let text = world.refused(world.by_hash(), secret, "a", "other").await;
    assert!(text.starts_with("403 another machine is node \"a\"; give this one another --node-name"), "{text}");
    assert!(world.join(world.by_hash(), secret, "a", "p").await.is_ok(), "the same machine again");
    assert!(world.join(as_a.clone(), None, "a", "other").await.is_ok(), "a node renews without the token");
    assert!(world.refused(as_a, None, "b", "p").await.starts_with("401"), "but only for itself");
    assert_eq!(world.as_admin("DELETE /api/v1/nodes/a", "").await.0, 200);
    assert!(world.join(world.by_hash(), secret, "a", "other").await.is_ok(), "the node was given up");

    let stranger = tls::config_by_hash(Some("0".repeat(64))).unwrap();
    let error = world.at.dial(Arc::new(stranger)).await.unwrap_err();
    assert_eq!(tls::stranger(&error), Some(tls::Stranger::Authority));
    let config = Arc::new(world.by_hash());
    let named = tls::Server::parse(&format!("https://elsewhere.example.com:{}", world.port)).unwrap();
    let error =
        named.handshake(TcpStream::connect(("127.0.0.1", world.port)).await.unwrap(), config).await.unwrap_err();
    assert_eq!(tls::stranger(&error), Some(tls::Stranger::Name));
    assert!(world.dir.path().join("token").exists());
}

/// A node's end of the tunnel: answers every request with its path.
async fn serve_tunnel(world: &World, config: tls::ClientConfig) {
    let stream = world.at.dial(Arc::new(config)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(CONNECT_PATH).header(header::HOST, "x").header(header::CONNECTION, "Upgrade");
    let request = request.header(header::UPGRADE, "stead-node").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 101);
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    let service = service_fn(|request: Request<Incoming>| async {
        tokio::spawn(async {
            let stream = hyper::upgrade::on(request).await.unwrap();
            let echo = service_fn(|request: Request<Incoming>| async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(request.uri().to_string()))))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, echo).await;
        });
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(upgraded, service));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_a_node_through_its_tunnel() {
    let world = World::new().await;
    assert_eq!(world.as_admin("POST /api/v1/nodes", r#"{"metadata":{"name":"a"}}"#).await.0, 201);
    let asked = "GET /api/v1/nodes/a/proxy/stats/summary?only=this";
    let (code, text) = world.as_admin(asked, "").await;
    assert!(code == 500 && text.contains("node a is not connected to this server"), "{code} {text}");
    serve_tunnel(&world, world.joined("a").await).await;
    let mut seen = world.as_admin(asked, "").await;
    // The server takes the connection over after it has answered.
    for _ in 0..1000 {
        if seen.0 == 200 {
            break;
        }
        tokio::task::yield_now().await;
        seen = world.as_admin(asked, "").await;
    }
    assert_eq!(seen, (200, "/stats/summary?only=this".to_owned()));
    let many = futures::future::join_all((0..20).map(|_| world.as_admin(asked, ""))).await;
    assert!(many.iter().all(|answer| answer.0 == 200));
}
