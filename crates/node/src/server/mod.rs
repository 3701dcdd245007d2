//! The node's HTTP endpoints, which the API server calls for logs, exec, attach, port-forward and proxy (upstream's kubelet
//! server).

mod connect;
mod logs;
mod stats;
mod streams;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use k8s_openapi::api::core::v1::Pod;
use stead_podlife::spec;
use stead_runtime::Container;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::Node;

/// A body that may never end.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why the endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the node's endpoints: {0}")]
pub struct ServeError(#[from] std::io::Error);

/// An answer that is not the wanted one: code and plain text, as upstream's kubelet gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

/// Serves the endpoints on `listener`, by TLS when there is a configuration, until the node stops.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> Result<(), ServeError> {
    let stop = node.stop.clone();
    let serving = async {
        loop {
            let (stream, from): (_, SocketAddr) = listener.accept().await?;
            let (node, tls) = (node.clone(), tls.clone());
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                match tls {
                    None => connection(node, stream).await,
                    Some(config) => match TlsAcceptor::from(config).accept(stream).await {
                        Ok(stream) => connection(node, stream).await,
                        Err(error) => tracing::debug!(%from, %error, "TLS handshake"),
                    },
                }
            });
        }
    };
    stop.run_until_cancelled(serving).await.unwrap_or(Ok(()))
}

async fn connection<S>(node: Arc<Node>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(node.handle(request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection to the node's endpoints");
    }
}

impl Node {
    /// Answers one request to the node's endpoints. Also what an API server in the same process calls.
    pub async fn handle<B>(self: &Arc<Self>, request: Request<B>) -> Response<Body>
    where
        B: Send + 'static,
    {
        match self.route(request).await {
            Ok(response) => response,
            Err(Refusal(code, text)) => plain(code, text),
        }
    }

    async fn route<B: Send + 'static>(self: &Arc<Self>, request: Request<B>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match parts.as_slice() {
            ["healthz"] => Ok(plain(StatusCode::OK, "ok".to_owned())),
            ["pods"] => json(&self.pod_list()),
            ["stats", "summary"] => json(&self.summary(&query).await),
            ["metrics", "resource"] => Ok(metrics(self.resource_metrics().await)),
            ["containerLogs", namespace, pod, container] => {
                only(&request, &[Method::GET])?;
                let log = self.container_logs(namespace, pod, container, &query).await?;
                if request.headers().contains_key(header::UPGRADE) {
                    logs::over_web_socket(request, log)
                } else {
                    Ok(log)
                }
            }
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                only(&request, &[Method::GET, Method::POST])?;
                self.exec(request, namespace, pod, container, &query).await
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                only(&request, &[Method::GET, Method::POST])?;
                self.attach(request, namespace, pod, container, &query).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                only(&request, &[Method::GET, Method::POST])?;
                self.port_forward(request, namespace, pod, &query)
            }
            ["podConnect", namespace, pod, port] => {
                only(&request, &[Method::GET])?;
                self.pod_connect(request, namespace, pod, port, &query).await
            }
            _ => Err(Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())),
        }
    }

    fn pod_list(&self) -> serde_json::Value {
        let items: Vec<_> =
            self.pods.list().iter().map(|pod| serde_json::to_value(&**pod).unwrap_or_default()).collect();
        serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
    }

    pub(crate) fn pod_named(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let missing = || Refusal(StatusCode::NOT_FOUND, format!("pod \"{name}\" does not exist"));
        self.pods.find(namespace, name).ok_or_else(missing)
    }

    /// The newest attempt of a container that runs.
    pub(crate) async fn running(&self, pod: &Pod, name: &str) -> Result<Container, Refusal> {
        let missing = || Refusal(StatusCode::NOT_FOUND, format!("container not found (\"{name}\")"));
        let mut attempts = self.attempts(pod, name).await?;
        let newest = attempts.pop().ok_or_else(missing)?;
        match newest.state {
            stead_runtime::ContainerState::Running { .. } => Ok(newest),
            _ => Err(missing()),
        }
    }

    /// All attempts of a container, the newest last.
    pub(crate) async fn attempts(&self, pod: &Pod, name: &str) -> Result<Vec<Container>, Refusal> {
        let page = self.ledger.fresh().await.map_err(|error| internal(&error))?;
        let all = page.containers.get(spec::identity(pod).2).map(Vec::as_slice).unwrap_or_default();
        let mut attempts: Vec<Container> = all.iter().filter(|one| one.name == name).cloned().collect();
        attempts.sort_by_key(|one| one.attempt);
        Ok(attempts)
    }
}

fn only<B>(request: &Request<B>, methods: &[Method]) -> Result<(), Refusal> {
    let allowed = methods.contains(request.method());
    allowed.then_some(()).ok_or_else(|| Refusal(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed".to_owned()))
}

pub(crate) fn internal(error: &dyn std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn plain(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Prometheus' text format.
fn metrics(text: String) -> Response<Body> {
    let mut response = Response::new(full(text));
    let format = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

fn json(value: &serde_json::Value) -> Result<Response<Body>, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|error| internal(&error))?;
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The query of a request.
#[derive(Debug, Default)]
pub(crate) struct Query(HashMap<String, Vec<String>>);

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.0.entry(decode(name)).or_default().push(decode(value));
        }
        query
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.get(name).cloned().unwrap_or_default()
    }

    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(|values| values.first()).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `true` and `1`, in whichever of the names (exec has both `stdin` and the kubelet's own `input`).
    pub(crate) fn is_set(&self, names: &[&str]) -> bool {
        names.iter().any(|name| matches!(self.first(name), Some("true" | "1" | "True")))
    }
}

/// Percent decoding; what is no valid escape stays.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let hex = (byte == b'%').then(|| rest.get(..2)).flatten();
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, value) {
            (_, Some(value)) => {
                out.push(value);
                bytes.nth(1);
            }
            (b'+', None) => out.push(b' '),
            (byte, None) => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=a%20%26+b&stdin=1&tty=false&x");
        assert_eq!(query.all("command"), ["sh", "-c", "a & b"]);
        assert!(query.is_set(&["input", "stdin"]) && !query.is_set(&["tty"]));
        assert_eq!(query.first("x"), None);
    }
}
