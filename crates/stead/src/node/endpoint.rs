//! The way from the API server to the endpoints of a node (logs, exec, ...): plain HTTP/1.1 over any byte stream.

use std::io;
use std::sync::{Arc, OnceLock};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use stead_apiserver::{AsyncReadWrite, NodeDialer};
use stead_node::Node;

/// Bytes that may wait in a connection from the API server to the node in this process.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;

/// Serves the node's endpoints on one connection.
pub(crate) async fn serve<I>(node: Arc<Node>, stream: I)
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, std::convert::Infallible>(node.handle(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
    if let Err(error) = connection.with_upgrades().await {
        tracing::debug!(%error, "connection to the node");
    }
}

/// Connects the API server to the node in this process, without a socket.
#[derive(Default)]
pub(crate) struct LocalNode {
    node: OnceLock<(String, Arc<Node>)>,
}

impl LocalNode {
    /// Names the node. It is made after the API server, whose client it uses.
    pub(crate) fn set(&self, name: &str, node: Arc<Node>) {
        let _ = self.node.set((name.to_owned(), node));
    }
}

#[async_trait::async_trait]
impl NodeDialer for LocalNode {
    async fn connect(&self, name: &str) -> io::Result<Box<dyn AsyncReadWrite>> {
        let node = self.node.get().filter(|(own, _)| own == name).map(|(_, node)| node.clone());
        let Some(node) = node else {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("node {name:?} is not connected to this server"),
            ));
        };
        let (ours, theirs) = tokio::io::duplex(CONNECTION_BUFFER_BYTES);
        tokio::spawn(serve(node, TokioIo::new(theirs)));
        Ok(Box::new(ours))
    }
}
