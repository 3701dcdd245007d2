//! `pods/proxy` and `services/proxy`: which pod is meant, what it is told, and how its answer is shown.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic where a test would")]

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use stead_apiserver::{AsyncReadWrite, Identity, NodeDialer};
use support::{PODS, World, pod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SERVICES: &str = "/api/v1/namespaces/http/services";
const ENDPOINTS: &str = "/api/v1/namespaces/http/endpoints";
/// Larger than any other request body may be.
const LARGE: usize = 5 * 1024 * 1024;

/// A node whose pods all run the same web server. Port 81 is closed.
struct Pods;

#[async_trait::async_trait]
impl NodeDialer for Pods {
    async fn connect(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        if node != "peer" {
            return Err(std::io::Error::other(format!("node {node:?} is not connected to this server")));
        }
        let (near, far) = tokio::io::duplex(4096);
        let service = service_fn(|request| async move { Ok::<_, Infallible>(agent(request)) });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades(),
        );
        Ok(Box::new(near))
    }
}

fn agent(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().unwrap().to_string();
    if path.ends_with("/81") {
        let text = "dial tcp 10.42.0.5:81: connect: connection refused";
        return Response::builder().status(StatusCode::BAD_GATEWAY).body(Full::from(text)).unwrap();
    }
    assert_eq!(request.headers()[header::UPGRADE], "stead-bytes");
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let service = service_fn(move |request| web_server(request, path.clone()));
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(client.await.unwrap(), service).with_upgrades().await;
    });
    let answer = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "stead-bytes");
    answer.body(Full::default()).unwrap()
}

/// The web server in the pod.
async fn web_server(mut request: Request<Incoming>, place: String) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let answer = Response::builder();
    Ok(match path.as_str() {
        "/page" => answer
            .header("content-type", "text/html; charset=utf-8")
            .header("access-control-allow-origin", "*")
            .body(Full::from("<a href=\"/next\">next</a>")),
        "/moved" => answer.status(302).header("location", "/to/").body(Full::default()),
        "/teapot" => answer.status(418).header("x-own", "1").body(Full::from("short and stout")),
        "/echo" => {
            let client = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(client.await.unwrap());
                let mut four = [0; 4];
                io.read_exact(&mut four).await.unwrap();
                io.write_all(&four).await.unwrap();
            });
            answer.status(101).header("connection", "Upgrade").header("upgrade", "echo").body(Full::default())
        }
        _ => {
            let head = request.headers();
            let names = ["host", "x-forwarded-uri", "authorization", "impersonate-user", "x-own"];
            let told: Vec<String> =
                names.iter().filter_map(|name| Some(format!("{name}={}", head.get(*name)?.to_str().ok()?))).collect();
            let line = format!("{place} {} {} {}", request.method(), request.uri(), told.join(" "));
            let size = request.into_body().collect().await.unwrap().to_bytes().len();
            answer.body(Full::from(format!("{line} {size} bytes")))
        }
    }
    .unwrap())
}

/// A pod on the node `peer` with an address, and one without; a Service of the first.
async fn world() -> World {
    let w = World::with(stead_store::memory(), Arc::new(Pods)).await;
    let mut web: serde_json::Value = serde_json::from_str(&pod("web-0")).unwrap();
    web["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}]);
    w.ok(&format!("POST {PODS}"), &web.to_string()).await;
    w.ok(&format!("POST {PODS}"), &pod("new")).await;
    w.ok(&format!("POST {PODS}/web-0/binding"), r#"{"metadata":{"name":"web-0"},"target":{"name":"peer"}}"#).await;
    let status = r#"{"status":{"podIP":"10.42.0.5","podIPs":[{"ip":"10.42.0.5"}]}}"#;
    w.merge(&format!("{PODS}/web-0/status"), status).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "more", "port": 81}]}});
    w.ok(&format!("POST {SERVICES}"), &service.to_string()).await;
    w
}

fn endpoints(ip: &str, pod: &str) -> String {
    let reference = json!({"kind": "Pod", "namespace": "http", "name": pod});
    json!({"metadata": {"name": "web"}, "subsets": [{"ports": [{"name": "http", "port": 8080}],
        "addresses": [{"ip": ip, "targetRef": reference}]}]})
    .to_string()
}

#[tokio::test]
async fn which_pod_and_port() {
    let w = world().await;
    let uri = |rest: &str| format!("host=10.42.0.5:PORT x-forwarded-uri={PODS}/{rest}");
    for (id, rest, place, port, url) in [
        ("web-0", "/", "/podConnect/http/web-0/8080", "8080", "/"),
        ("web-0:9090", "/a/b?c=d", "/podConnect/http/web-0/9090", "9090", "/a/b?c=d"),
        ("http:web-0:9090", "/a%20b/", "/podConnect/http/web-0/9090", "9090", "/a%20b/"),
        ("https:web-0:443", "/a//b", "/podConnect/http/web-0/443?tls=1", "443", "/a/b"),
    ] {
        let answer = w.ask(&format!("GET {PODS}/{id}/proxy{rest}"), "").await;
        let path = url.split('?').next().unwrap();
        let told = uri(&format!("{id}/proxy{path}")).replace("PORT", port);
        assert_eq!((answer.code, answer.text), (200, format!("{place} GET {url} {told} 0 bytes")), "{id}");
    }
    for (request, want) in [
        ("GET ftp:web-0:80/proxy/", "400 invalid pod request \"ftp:web-0:80\""),
        ("GET a:b:c:d/proxy/", "400 invalid pod request \"a:b:c:d\""),
        ("GET nothere:80/proxy/", "404 pods \"nothere\" not found"),
        ("GET new:80/proxy/", "400 address not allowed"),
        ("GET web-0:http/proxy/", "503 error trying to reach service: dial tcp: lookup tcp/http: unknown port"),
        ("GET web-0/proxy/?dryRun=All", "400 dryRun is not supported"),
        (
            "GET web-0:81/proxy/",
            "503 error trying to reach service: dial tcp 10.42.0.5:81: connect: connection refused",
        ),
    ] {
        let (method, url) = request.split_once(' ').unwrap();
        assert_eq!(w.ask(&format!("{method} {PODS}/{url}"), "").await.line(), want, "{request}");
    }
}

#[tokio::test]
async fn services_lead_to_one_of_their_pods() {
    let w = world().await;
    let of = |id: &str| format!("GET {SERVICES}/{id}/proxy/");
    assert_eq!(w.ask(&of("nothere"), "").await.line(), "404 endpoints \"nothere\" not found");
    assert_eq!(w.ask(&of("nothere:80"), "").await.line(), "404 services \"nothere\" not found");
    assert_eq!(w.ask(&of("x:web:80"), "").await.line(), "400 invalid service request \"x:web:80\"");
    assert_eq!(w.ask(&of("web:82"), "").await.line(), "503 no service port 82 found for service \"web\"");
    w.ok(&format!("POST {ENDPOINTS}"), r#"{"metadata":{"name":"web"}}"#).await;
    assert_eq!(w.ask(&of("web:80"), "").await.line(), "503 no endpoints available for service \"web\"");
    for (ip, pod) in [("10.42.0.6", "web-0"), ("10.42.0.5", "gone")] {
        w.ok(&format!("PUT {ENDPOINTS}/web"), &endpoints(ip, pod)).await;
        let refused = w.ask(&of("web:http"), "").await.line();
        assert_eq!(
            refused, "503 no endpoints available for service \"web:http\"",
            "only addresses of pods: {ip} {pod}"
        );
    }
    w.ok(&format!("PUT {ENDPOINTS}/web"), &endpoints("10.42.0.5", "web-0")).await;
    for id in ["web:80", "web:http", "http:web:80"] {
        let answer = w.ask(&of(id), "").await;
        let told = format!("host=10.42.0.5:8080 x-forwarded-uri={SERVICES}/{id}/proxy/");
        assert_eq!(answer.text, format!("/podConnect/http/web-0/8080 GET / {told} 0 bytes"), "{id}");
    }
    assert_eq!(w.ask(&of("web:more"), "").await.line(), "503 no endpoints available for service \"web:more\"");
}

#[tokio::test]
async fn methods_bodies_and_headers() {
    let w = world().await;
    let large = "x".repeat(LARGE);
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let headers = [("host", "api:6443"), ("authorization", "Basic x"), ("x-own", "1")];
        let body = if method == "POST" { large.as_str() } else { "{" };
        let answer = w.ask_with(&format!("{method} {PODS}/web-0/proxy/x"), &headers, body).await;
        let told = format!("host=api:6443 x-forwarded-uri={PODS}/web-0/proxy/x x-own=1");
        let want = format!("/podConnect/http/web-0/8080 {method} /x {told} {} bytes", body.len());
        assert_eq!((answer.code, answer.text), (200, want));
    }
    let head = w.ask(&format!("HEAD {PODS}/web-0/proxy/teapot"), "").await;
    assert_eq!((head.code, &head.headers["x-own"], head.text.as_str()), (418, &"1".parse().unwrap(), ""));
    assert_eq!(head.headers["content-length"], "15");
    // Without a slash at the end the links of a page would lead nowhere.
    let moved = w.ask(&format!("GET {PODS}/web-0/proxy?a=b"), "").await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (301, &*format!("{PODS}/web-0/proxy/?a=b")));
    assert_eq!(w.ask(&format!("POST {PODS}/web-0/proxy"), "").await.code, 200);
}

#[tokio::test]
async fn answers_lead_back_through_the_server() {
    let w = world().await;
    let page = w.ask(&format!("GET {PODS}/web-0:80/proxy/page"), "").await;
    assert_eq!(page.text, format!("<a href=\"{PODS}/web-0:80/proxy/next\">next</a>"));
    assert!(!page.headers.contains_key("access-control-allow-origin"));
    let moved = w.ask(&format!("GET {PODS}/web-0/proxy/moved"), "").await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (302, &*format!("{PODS}/web-0/proxy/to/")));
    let own = w.ask(&format!("GET {PODS}/web-0/proxy/teapot"), "").await;
    assert_eq!((own.code, own.text.as_str()), (418, "short and stout"));
}

#[tokio::test]
async fn other_protocols_pass_through() {
    let w = world().await;
    let headers = [("connection", "Upgrade"), ("upgrade", "echo")];
    let mut answer = w.send(&format!("GET {PODS}/web-0/proxy/echo"), &headers, "").await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["upgrade"]), (101, &"echo".parse().unwrap()));
    let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    io.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    for (path, want) in [
        ("web-0/proxy/x", "500 invalid upgrade response: status code 200"),
        ("web-0:81/proxy/x", "500 dial tcp 10.42.0.5:81: connect: connection refused"),
    ] {
        assert_eq!(w.ask_with(&format!("GET {PODS}/{path}"), &headers, "").await.line(), want);
    }
    let refused = w.ask_with(&format!("GET {PODS}/web-0/proxy/teapot"), &headers, "").await;
    assert_eq!((refused.code, refused.text.as_str()), (418, "short and stout"));
}

#[tokio::test]
async fn the_verb_is_the_methods() {
    let mut w = world().await;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/http";
    let rules = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["pods/proxy"],"verbs":["get"]}]}"#;
    w.ok(&format!("POST {roles}/roles"), rules).await;
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"jane"}]}"#;
    w.ok(&format!("POST {roles}/rolebindings"), binding).await;
    w.user = Identity::new("jane", &[]);
    for method in ["GET", "HEAD"] {
        assert_eq!(w.ask(&format!("{method} {PODS}/web-0/proxy/"), "").await.code, 200, "{method}");
    }
    let refused = w.ask(&format!("POST {PODS}/web-0:80/proxy/"), "").await.line();
    let why = "User \"jane\" cannot create resource \"pods/proxy\" in API group \"\" in the namespace \"http\"";
    assert_eq!(refused, format!("403 pods \"web-0:80\" is forbidden: {why}"));
}
