//! The two ways to the API server: a call within the process, or TLS with ring as the provider.

use std::sync::Once;

use http::{Request, Response};
use kube::client::Body;

use crate::Client;

/// A client that calls `service` directly: no socket, no TLS, no extra copy of the bodies.
///
/// `default_namespace` is what [`kube::Api::default_namespaced`] uses. Must be called within a tokio runtime.
pub fn in_process<S, B>(service: S, default_namespace: impl Into<String>) -> Client
where
    S: tower::Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<tower::BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    Client::new(service, default_namespace)
}

/// Makes ring the process' TLS provider. Harmless when called again, or when another provider is there already.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that a provider is installed already, which is all that is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
