//! The other side: what a driver is written with. Used by the drivers of tests.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::UnixListener;

use crate::frame::{MESSAGE_BYTES_MAX, frame, unframe};
use crate::{Code, Rpc, Status};

/// Answers calls: the path of one and its framed message, to a framed answer; see [`answer`].
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, path: &str, body: &Bytes) -> impl Future<Output = Result<Bytes, Status>> + Send;
}

/// Decodes a request, lets `with` answer it, and encodes the answer.
///
/// # Errors
/// Those of `with`, and a request that cannot be read.
pub fn answer<R: Rpc>(body: &Bytes, with: impl FnOnce(R) -> Result<R::Response, Status>) -> Result<Bytes, Status> {
    Ok(frame(&with(unframe(body)?)?))
}

/// Serves calls on the socket for ever.
pub async fn serve<H: Handler>(listener: UnixListener, handler: Arc<H>) {
    while let Ok((stream, _)) = listener.accept().await {
        let handler = handler.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let handler = handler.clone();
                async move { Ok::<_, Infallible>(respond(&*handler, request).await) }
            });
            let served = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a caller went away");
            }
        });
    }
}

async fn respond<H: Handler>(handler: &H, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let (head, body) = request.into_parts();
    let answered = match Limited::new(body, MESSAGE_BYTES_MAX).collect().await {
        Ok(body) => handler.handle(head.uri.path(), &body.to_bytes()).await,
        Err(error) => Err(Status::new(Code::Internal, error.to_string())),
    };
    let mut trailers = HeaderMap::new();
    let (code, data) = match answered {
        Ok(data) => (0, Some(data)),
        Err(status) => {
            let message = utf8_percent_encode(&status.message, NON_ALPHANUMERIC).to_string();
            trailers.insert("grpc-message", HeaderValue::from_str(&message).expect("only letters, digits and %"));
            (status.code as i32, None)
        }
    };
    trailers.insert("grpc-status", HeaderValue::from(code));
    let frames = data.map(Frame::data).into_iter().chain([Frame::trailers(trailers)]);
    let mut frames = frames.map(Ok::<_, Infallible>);
    let body = StreamBody::new(Frames(std::iter::from_fn(move || frames.next()).collect()));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body.boxed()).expect("all parts are valid")
}

/// A body that is there already.
struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, Infallible>>);

impl futures::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::Endpoint;
    use crate::messages::{CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, ProbeRequest, Volume};

    struct Echo;

    impl Handler for Echo {
        async fn handle(&self, path: &str, body: &Bytes) -> Result<Bytes, Status> {
            match path {
                CreateVolumeRequest::PATH => answer(body, |request: CreateVolumeRequest| {
                    let volume =
                        Volume { volume_id: request.name, volume_context: request.parameters, ..Volume::default() };
                    Ok(CreateVolumeResponse { volume: Some(volume) })
                }),
                ProbeRequest::PATH => std::future::pending().await,
                DeleteVolumeRequest::PATH => Err(Status::new(Code::FailedPrecondition, "in use: 100%, ja")),
                _ => Err(Status::new(Code::Unimplemented, "unknown")),
            }
        }
    }

    #[tokio::test]
    async fn calls_and_their_failures_arrive_as_they_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("csi.sock");
        let serving = tokio::spawn(serve(UnixListener::bind(&path).expect("bound"), Arc::new(Echo)));
        let endpoint = Endpoint::new(format!("unix://{}", path.display()));
        let within = Duration::from_secs(20);
        let parameters = BTreeMap::from([("replicas".to_owned(), "2".to_owned())]);
        let request = CreateVolumeRequest { name: "pvc-1".to_owned(), parameters, ..CreateVolumeRequest::default() };
        let made = endpoint.call(&request, within).await.expect("made").volume.expect("a volume");
        assert_eq!((made.volume_id.as_str(), made.volume_context["replicas"].as_str()), ("pvc-1", "2"));
        let refused = endpoint.call(&DeleteVolumeRequest::default(), within).await.expect_err("refused");
        assert_eq!(refused.to_string(), "rpc error: code = FailedPrecondition desc = in use: 100%, ja");
        let late = endpoint.call(&ProbeRequest {}, Duration::from_millis(50)).await.expect_err("too late");
        assert_eq!(late.code, Code::DeadlineExceeded);
        serving.abort();
        let _ = serving.await;
        let away = endpoint.call(&request, within).await.expect_err("nobody there");
        assert_eq!(away.code, Code::Unavailable);
        assert!(away.message.contains(&path.display().to_string()), "{away}");
    }
}
