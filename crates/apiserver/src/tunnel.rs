//! The ways to nodes of other machines: each agent opens a connection, over which this server opens streams to the node's
//! HTTP endpoints. So a node needs no port that is reached from outside.
//!
//! The connection is an upgraded request of the agent; over it HTTP/2 is spoken with the roles turned round: this server
//! is the client, and each `CONNECT` is one byte stream to the node.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::server::AsyncReadWrite;

/// What the agent asks to upgrade to.
pub const TUNNEL_PROTOCOL: &str = "stead-node";
/// After this long without traffic the other end is asked whether it lives ...
pub const TUNNEL_PING_INTERVAL: Duration = Duration::from_secs(10);
/// ... and it has this long to answer.
pub const TUNNEL_PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that may be on their way in one stream.
pub const TUNNEL_WINDOW_BYTES: u32 = 1024 * 1024;
/// Streams that may be open at once in one tunnel: as many logs that are followed, shells and forwarded ports.
pub const TUNNEL_STREAMS_MAX: u32 = 2000;
/// How long a node may take to accept a stream.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

type Sender = SendRequest<Empty<Bytes>>;

/// The open tunnels by node. The newest of a node counts.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    open: Mutex<HashMap<String, (u64, Sender)>>,
    next: AtomicU64,
}

impl Tunnels {
    /// Serves one tunnel until it ends or `closing`.
    pub(crate) async fn run(&self, node: &str, upgraded: Upgraded, closing: &CancellationToken) {
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(TUNNEL_PING_INTERVAL)
            .keep_alive_timeout(TUNNEL_PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(TUNNEL_WINDOW_BYTES)
            .initial_connection_window_size(TUNNEL_WINDOW_BYTES)
            .handshake(upgraded)
            .await;
        let (sender, connection) = match handshake {
            Ok(both) => both,
            Err(error) => return tracing::warn!(node, %error, "tunnel failed at its start"),
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(node.to_owned(), (id, sender));
        tracing::info!(node, "node is connected");
        let ended = closing.run_until_cancelled(connection).await;
        let mut open = self.open.lock();
        if open.get(node).is_some_and(|(newest, _)| *newest == id) {
            open.remove(node);
        }
        drop(open);
        if let Some(Err(error)) = ended {
            tracing::info!(node, %error, "node is no longer connected");
        }
    }

    /// Opens a stream to the node, if it has a tunnel.
    pub(crate) async fn connect(&self, node: &str) -> Option<io::Result<Box<dyn AsyncReadWrite>>> {
        let sender = self.open.lock().get(node).map(|(_, sender)| sender.clone())?;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("node {node:?} does not answer"));
        let dialed = tokio::time::timeout(DIAL_TIMEOUT, dial(sender, node)).await;
        Some(dialed.unwrap_or_else(|_| Err(late())))
    }
}

async fn dial(mut sender: Sender, node: &str) -> io::Result<Box<dyn AsyncReadWrite>> {
    let request = Request::builder().method(Method::CONNECT).uri("node:10250").body(Empty::new());
    sender.ready().await.map_err(io::Error::other)?;
    let answer = sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    if answer.status() != StatusCode::OK {
        return Err(io::Error::other(format!("node {node:?} refused the connection: {}", answer.status())));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
