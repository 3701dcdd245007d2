//! The TLS listener: one task per connection, HTTP/1.1 and HTTP/2, client certificates asked for but not demanded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chain::authn;
use crate::chain::{self, ClientAddress, Peer};
use crate::server::ApiServer;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Concurrent requests of one HTTP/2 connection (upstream's default).
const HTTP2_STREAMS_MAX: u32 = 250;
/// After this long without traffic an HTTP/2 connection is asked whether it lives (upstream's period).
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes a client may send ahead on one request, and on one connection.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long running requests may take to end when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the system had no descriptor or memory for a new connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Why the server could not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl ApiServer {
    /// Binds the listener and serves until `shutdown`; then ends watches, lets running requests finish and returns.
    ///
    /// # Errors
    /// When the address is taken or the certificates do not serve.
    pub async fn serve(&self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let listener = self.listen().await?;
        self.serve_on(listener, shutdown).await
    }

    /// Binds the listener; [`ApiServer::admin_kubeconfig`] names its port from now on.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn listen(&self) -> Result<TcpListener, ServeError> {
        let address = self.0.config.bind;
        let listener = TcpListener::bind(address).await.map_err(|source| ServeError::Bind { address, source })?;
        *self.0.listening.lock() = listener.local_addr().ok();
        Ok(listener)
    }

    /// As [`ApiServer::serve`], on a listener that is bound already.
    ///
    /// # Errors
    /// When the certificates do not serve.
    pub async fn serve_on(&self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
        let acceptor = TlsAcceptor::from(Arc::new(self.tls().map_err(ServeError::Tls)?));
        let connections = TaskTracker::new();
        loop {
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                        continue;
                    }
                },
            };
            connections.spawn(connection(self.clone(), acceptor.clone(), stream, shutdown.clone()));
        }
        self.0.closing.cancel();
        connections.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!("some requests did not end within {DRAIN_TIMEOUT:?}");
        }
        Ok(())
    }

    fn tls(&self) -> Result<rustls::ServerConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.pki.ca_der().map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| e.to_string())?;
        let (chain, key) = self.0.pki.server_identity().map_err(|e| e.to_string())?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|e| e.to_string())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would bring back a certificate that has ended, or was replaced, without looking at it.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

async fn connection(server: ApiServer, acceptor: TlsAcceptor, stream: TcpStream, shutdown: CancellationToken) {
    // Small answers must not wait for more; failing to say so only costs time.
    let _ = stream.set_nodelay(true);
    let from = stream.peer_addr().ok().map(|address| ClientAddress(address.ip()));
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = Peer::Tls(certificate.and_then(|der| authn::of_certificate(der)).map(Arc::new));
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(from) = from {
            request.extensions_mut().insert(from);
        }
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(chain::handle(&server, request, &peer).await) }
    });
    let builder = builder();
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    builder
}
