//! `/podConnect/NAMESPACE/POD/PORT`: the bytes of a connection to a port at a pod's address, for the API server's
//! sub-resource `proxy`. Unlike port-forward it comes from outside of the pod, as every client of the pod does.

use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use super::{Body, Query, Refusal, full};
use crate::{Node, probing, tls};

/// What the API server asks to upgrade to.
const BYTES_PROTOCOL: &str = "stead-bytes";
/// How long a pod may take to accept a connection (upstream's dialer).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Node {
    /// Connects, in TLS if the query says so: whose certificate it is cannot be known (upstream does not ask either).
    pub(super) async fn pod_connect<B: Send + 'static>(
        &self,
        mut request: Request<B>,
        namespace: &str,
        pod: &str,
        port: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        if request.headers().get(header::UPGRADE).is_none_or(|asked| asked != BYTES_PROTOCOL) {
            return Err(Refusal(StatusCode::BAD_REQUEST, "Upgrade request required".to_owned()));
        }
        let pod = self.pod_named(namespace, pod)?;
        let unreachable = |why: String| Refusal(StatusCode::BAD_GATEWAY, why);
        let invalid = || Refusal(StatusCode::BAD_REQUEST, format!("invalid port {port:?}"));
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(invalid)?;
        let host = self.pod_ip(&pod).ok_or_else(|| unreachable("the pod has no address".to_owned()))?.to_string();
        let plain = probing::dial(&host, port, CONNECT_TIMEOUT).await.map_err(unreachable)?;
        let mut stream: Box<dyn Stream> = match query.is_set(&["tls"]) {
            true => Box::new(tls::unverified(plain, &host).await.map_err(unreachable)?),
            false => Box::new(plain),
        };
        let client = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match client.await {
                // An error means that one side hung up, which ends the other.
                Ok(client) => drop(copy_bidirectional(&mut TokioIo::new(client), &mut stream).await),
                Err(error) => tracing::debug!(%error, "a connection to a pod was not taken up"),
            }
        });
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, value) in [(header::CONNECTION, "Upgrade"), (header::UPGRADE, BYTES_PROTOCOL)] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}
