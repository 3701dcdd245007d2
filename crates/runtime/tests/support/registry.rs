//! A small registry for the tests: manifests and blobs from memory, with the faults that one asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;

type Body = BoxBody<Bytes, std::io::Error>;

#[derive(Default)]
pub struct Content {
    /// `repository/tag` or `repository/digest` to manifest.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Blobs whose first transfer breaks in the middle.
    pub torn: BTreeSet<String>,
    /// Basic credentials (base64) that are wanted; with `bearer`, by way of a token.
    pub wanted: Option<String>,
    pub bearer: bool,
    pub requests: Vec<String>,
}

pub struct TestRegistry {
    pub address: String,
    pub content: Arc<Mutex<Content>>,
}

impl TestRegistry {
    pub async fn start() -> TestRegistry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let content = Arc::new(Mutex::new(Content::default()));
        let (shared, host) = (content.clone(), address.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, host) = (shared.clone(), host.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&shared, &host, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        TestRegistry { address, content }
    }

    /// Puts an image under `repository:tag`; its manifest's digest comes back.
    pub fn put(&self, repository: &str, tag: &str, layers: &[Vec<u8>], config: &str) -> String {
        let mut blobs = super::image_blobs(layers, config).into_iter();
        let (digest, manifest) = blobs.next().unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let mut content = self.content.lock().unwrap();
        content.manifests.insert(format!("{repository}/{tag}"), (kind.clone(), manifest.clone()));
        content.manifests.insert(format!("{repository}/{digest}"), (kind, manifest));
        content.blobs.extend(blobs);
        digest
    }

    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.content.lock().unwrap().requests)
    }
}

fn full(status: StatusCode, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()).unwrap()
}

fn answer(content: &Mutex<Content>, host: &str, request: &Request<Incoming>) -> Response<Body> {
    let mut content = content.lock().unwrap();
    let path = request.uri().path().to_owned();
    content.requests.push(format!("{} {path}", request.method()));
    if let Some(refusal) = authorise(&content, host, request) {
        return refusal;
    }
    let not_found = || full(StatusCode::NOT_FOUND, &[], Vec::new());
    let Some(rest) = path.strip_prefix("/v2/") else { return not_found() };
    if let Some((repository, object)) = rest.split_once("/manifests/") {
        let found = content.manifests.get(&format!("{repository}/{object}"));
        return found.map_or_else(not_found, |(kind, bytes)| {
            let digest = super::digest(bytes);
            full(StatusCode::OK, &[("content-type", kind), ("docker-content-digest", &digest)], bytes.clone())
        });
    }
    match rest.split_once("/blobs/") {
        Some((_, digest)) => blob(&mut content, digest, request.headers()),
        None => not_found(),
    }
}

fn blob(content: &mut Content, digest: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(bytes) = content.blobs.get(digest).cloned() else { return full(StatusCode::NOT_FOUND, &[], Vec::new()) };
    let range = headers.get("range").and_then(|value| value.to_str().ok());
    let offset = range.and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let status = if offset.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let bytes = bytes[offset.unwrap_or(0)..].to_vec();
    if !content.torn.remove(digest) {
        return full(status, &[], bytes);
    }
    let half = Bytes::from(bytes[..bytes.len() / 2].to_vec());
    let frames = vec![Ok(Frame::data(half)), Err(std::io::Error::other("torn"))];
    let body = StreamBody::new(futures::stream::iter(frames)).boxed();
    Response::builder().header("content-length", bytes.len()).body(body).unwrap()
}

fn authorise(content: &Content, host: &str, request: &Request<Incoming>) -> Option<Response<Body>> {
    let wanted = content.wanted.as_ref()?;
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or("");
    let basic = header == format!("Basic {wanted}");
    if request.uri().path() == "/token" {
        let status = if basic { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        return Some(full(status, &[], br#"{"token":"secret-token"}"#.to_vec()));
    }
    if content.bearer {
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="test""#);
        let fits = header == "Bearer secret-token";
        return (!fits).then(|| full(StatusCode::UNAUTHORIZED, &[("www-authenticate", &challenge)], Vec::new()));
    }
    (!basic).then(|| full(StatusCode::UNAUTHORIZED, &[("www-authenticate", "Basic realm=\"test\"")], Vec::new()))
}
