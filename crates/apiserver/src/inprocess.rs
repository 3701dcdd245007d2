//! The in-process transport: requests go straight into the chain, bodies come back frame by frame.
//!
//! Requests that want to upgrade the connection (exec, attach, port-forward) travel over a pair of pipes with HTTP/1.1 at
//! both ends, because only a connection can be upgraded.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::body::ApiBody;
use crate::chain::{self, Identity, Peer};
use crate::response;
use crate::server::ApiServer;

/// Bytes that a tunnelled request may be ahead of its reader.
const PIPE_BYTES: usize = 64 * 1024;

/// A `tower` service that serves requests of one user.
#[derive(Clone, Debug)]
pub struct InProcess {
    server: ApiServer,
    user: Arc<Identity>,
}

impl InProcess {
    pub(crate) fn new(server: ApiServer, user: Identity) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tower::BoxError> + Send,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, peer) = (self.server.clone(), Peer::InProcess(self.user.clone()));
        if request.headers().contains_key(header::UPGRADE) {
            return Box::pin(async move { Ok(tunnel(server, peer, request).await) });
        }
        Box::pin(async move { Ok(chain::handle(&server, request, &peer).await) })
    }
}

/// Sends one request over a pipe, so that the answer can be upgraded.
async fn tunnel<B>(server: ApiServer, peer: Peer, request: Request<B>) -> Response<ApiBody>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tower::BoxError> + Send,
{
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (server, peer) = (server.clone(), peer.clone());
            async move { Ok::<_, Infallible>(chain::handle(&server, request, &peer).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        // An error means that the caller hung up.
        let _ = connection.with_upgrades().await;
    });
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    };
    match answer.await {
        Ok(answer) => answer.map(|body| {
            ApiBody::frames(futures::StreamExt::filter_map(body.into_data_stream(), |frame| async { frame.ok() }))
        }),
        Err(error) => response::text(http::StatusCode::BAD_GATEWAY, format!("in-process tunnel: {error}\n")),
    }
}
