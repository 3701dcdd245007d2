//! A read-only image registry on loopback over an OCI layout (distribution API v2).

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::images;

/// A registry that serves until it is dropped.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Registry {
    /// Serves the layout on a free port of loopback, or on `port` when it is not 0.
    ///
    /// # Errors
    /// When the layout cannot be read or the port is taken.
    pub async fn serve(layout: &Path, port: u16) -> Result<Self> {
        let content = Arc::new(Content::read(layout)?);
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let content = content.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = content.answer(&request);
                        async move { Ok::<_, std::convert::Infallible>(answer) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, serving })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A `registries.yaml` that sends every pull here.
    #[must_use]
    pub fn registries_yaml(&self) -> String {
        format!("mirrors:\n  \"*\":\n    endpoint:\n    - \"{}\"\n", self.endpoint())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug)]
struct Content {
    layout: PathBuf,
    /// Name with tag, and name with digest, to the digest and media type of the manifest.
    manifests: HashMap<String, (String, String)>,
}

impl Content {
    fn read(layout: &Path) -> Result<Self> {
        let path = layout.join("index.json");
        let index: Value = serde_json::from_slice(&fs::read(&path).with_context(|| path.display().to_string())?)?;
        let mut manifests = HashMap::new();
        for manifest in index["manifests"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = text(&manifest["annotations"][images::NAME_ANNOTATION]);
            let found = (text(&manifest["digest"]), text(&manifest["mediaType"]));
            let repository = name.split(':').next().unwrap_or_default();
            manifests.insert(format!("{repository}@{}", found.0), found.clone());
            manifests.insert(name, found);
        }
        Ok(Self { layout: layout.to_owned(), manifests })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/v2" || path == "/v2/" {
            return respond(StatusCode::OK, "application/json", "", Bytes::from_static(b"{}"), false);
        }
        let head = request.method() == Method::HEAD;
        let rest = path.strip_prefix("/v2/").unwrap_or_default();
        if let Some((name, reference)) = rest.split_once("/manifests/") {
            let key = if reference.starts_with("sha256:") {
                format!("{name}@{reference}")
            } else {
                format!("{name}:{reference}")
            };
            return match self.manifests.get(&key) {
                Some((digest, media_type)) => self.blob(digest, media_type, head),
                None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
            };
        }
        match rest.split_once("/blobs/") {
            Some((_, digest)) => self.blob(digest, "application/octet-stream", head),
            None => error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry"),
        }
    }

    fn blob(&self, digest: &str, media_type: &str, head: bool) -> Response<Full<Bytes>> {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        let valid = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = valid.then(|| fs::read(self.layout.join("blobs/sha256").join(hex)).ok()).flatten();
        match bytes {
            Some(bytes) => respond(StatusCode::OK, media_type, digest, bytes.into(), head),
            None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"),
        }
    }
}

fn respond(status: StatusCode, media_type: &str, digest: &str, body: Bytes, head: bool) -> Response<Full<Bytes>> {
    let mut response = Response::builder()
        .status(status)
        .header("content-type", media_type)
        .header("content-length", body.len())
        .header("docker-distribution-api-version", "registry/2.0");
    if !digest.is_empty() {
        response = response.header("docker-content-digest", digest);
    }
    response.body(Full::new(if head { Bytes::new() } else { body })).expect("the headers are valid")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": {}}]});
    respond(status, "application/json", "", body.to_string().into(), false)
}
