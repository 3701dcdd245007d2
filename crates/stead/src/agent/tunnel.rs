//! The way back: a connection to the server over which it reaches this node's endpoints (logs, exec, attach, port-forward).
//!
//! It is an upgraded request; over it the server opens HTTP/2 streams with `CONNECT`, and on each of them speaks plain
//! HTTP/1.1 to the node.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use stead_apiserver::join::CONNECT_PATH;
use stead_apiserver::tunnel::{
    TUNNEL_PING_INTERVAL, TUNNEL_PING_TIMEOUT, TUNNEL_PROTOCOL, TUNNEL_STREAMS_MAX, TUNNEL_WINDOW_BYTES,
};
use stead_client::tls;
use stead_node::Node;
use tokio::time::Instant;

use crate::node::endpoint;

/// After a connection that failed: first and longest pause.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Keeps a tunnel open for ever.
pub(super) async fn keep(server: &tls::Server, config: &Arc<tls::ClientConfig>, node: &Arc<Node>) {
    let mut pause = RETRY_FIRST;
    loop {
        let since = Instant::now();
        match serve(server, config.clone(), node).await {
            Ok(()) => tracing::info!("the server has closed the tunnel; will open it again"),
            Err(error) => tracing::info!(error = format!("{error:#}"), "no tunnel to the server; will try again"),
        }
        if since.elapsed() > RETRY_MAX {
            pause = RETRY_FIRST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Opens a tunnel and serves it until it ends.
async fn serve(server: &tls::Server, config: Arc<tls::ClientConfig>, node: &Arc<Node>) -> Result<()> {
    let stream = server.dial(config).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::get(CONNECT_PATH)
        .header(header::HOST, server.host())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, TUNNEL_PROTOCOL)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    anyhow::ensure!(status == StatusCode::SWITCHING_PROTOCOLS, "the server answers {status}");
    let upgraded = hyper::upgrade::on(answer).await?;
    let node = node.clone();
    let service = service_fn(move |request| {
        let answer = accept(request, &node);
        async move { Ok::<_, Infallible>(answer) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(TUNNEL_PING_INTERVAL)
        .keep_alive_timeout(TUNNEL_PING_TIMEOUT)
        .max_concurrent_streams(TUNNEL_STREAMS_MAX)
        .initial_stream_window_size(TUNNEL_WINDOW_BYTES)
        .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
        .serve_connection(upgraded, service)
        .await
        .context("tunnel")
}

/// Takes one stream of the server and serves the node's endpoints on it.
fn accept(request: Request<Incoming>, node: &Arc<Node>) -> Response<Empty<Bytes>> {
    let mut answer = Response::new(Empty::new());
    if request.method() == Method::CONNECT {
        let node = node.clone();
        tokio::spawn(async move {
            match hyper::upgrade::on(request).await {
                Ok(stream) => endpoint::serve(node, stream).await,
                Err(error) => tracing::debug!(%error, "a stream of the tunnel was not opened"),
            }
        });
    } else {
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    answer
}
