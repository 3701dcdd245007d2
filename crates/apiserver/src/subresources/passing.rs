//! A request that is passed on over a connection, and the answer that is passed back; after 101 both sides talk directly.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{Either, select};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, split};
use tokio_util::sync::CancellationToken;

use crate::body::ApiBody;
use crate::chain::Streamed;
use crate::response::Answer;
use crate::server::AsyncReadWrite;

/// How long the far side may go on talking that takes nothing any more.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(10);
/// Headers that speak of one connection and are not passed on.
const HOP_HEADERS: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers without those of the connection and those that say who the caller is: that was for this server.
pub(super) fn plain_headers(headers: &HeaderMap) -> HeaderMap {
    let own = |name: &str| {
        HOP_HEADERS.contains(&name)
            || matches!(name, "authorization" | "host" | "content-length")
            || name.starts_with("impersonate-")
    };
    headers.iter().filter(|(name, _)| !own(name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// The same for a request that wants to go on with another protocol.
pub(super) fn upgrade_headers(headers: &HeaderMap) -> HeaderMap {
    let mut out = plain_headers(headers);
    for name in [header::CONNECTION, header::UPGRADE] {
        for value in headers.get_all(&name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// A request as it goes out.
///
/// # Errors
/// When the path is none.
pub(super) fn request(
    method: Method,
    path: &str,
    host: &str,
    headers: HeaderMap,
    body: Streamed,
) -> Result<Request<Streamed>, http::Error> {
    let mut request = Request::builder().method(method).uri(path).body(body)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host)?);
    Ok(request)
}

/// A request that was answered.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) answer: Response<Incoming>,
    sender: SendRequest<Streamed>,
}

/// Sends one request over a connection of its own, in HTTP/1.1.
///
/// # Errors
/// When the connection breaks or what comes back is no HTTP.
pub(super) async fn send(io: impl AsyncReadWrite + 'static, request: Request<Streamed>) -> Result<Sent, hyper::Error> {
    let (mut sender, connection) = handshake::<_, Streamed>(TokioIo::new(io)).await?;
    tokio::spawn(connection.with_upgrades());
    let answer = sender.send_request(request).await?;
    Ok(Sent { answer, sender })
}

impl Sent {
    pub(super) fn switches(&self) -> bool {
        self.answer.status() == StatusCode::SWITCHING_PROTOCOLS
    }

    /// The answer for the caller, its body frame by frame as it comes.
    pub(super) fn pass_on(self) -> Answer {
        let Self { answer, sender } = self;
        let (mut parts, body) = answer.into_parts();
        HOP_HEADERS.iter().for_each(|name| drop(parts.headers.remove(*name)));
        // The sender lives as long as the body, or the connection would end under it.
        let frames = body.into_data_stream().filter_map(move |frame| {
            let _alive = &sender;
            let frame = frame.ok();
            async move { frame }
        });
        Response::from_parts(parts, ApiBody::frames(frames))
    }

    /// Answers 101 and joins the two connections once both are free, until one of them ends or `closing`.
    pub(super) fn switch(mut self, upgrade: Option<OnUpgrade>, closing: CancellationToken) -> Answer {
        let far = hyper::upgrade::on(&mut self.answer);
        let (parts, _) = self.answer.into_parts();
        if let Some(near) = upgrade {
            tokio::spawn(async move {
                let (Ok(near), Ok(far)) = tokio::join!(near, far) else { return };
                tokio::select! {
                    () = join(TokioIo::new(near), TokioIo::new(far)) => {}
                    () = closing.cancelled() => {}
                }
            });
        }
        Response::from_parts(parts, ApiBody::Empty)
    }
}

/// Copies both ways until both have ended. When nothing more can be brought to the far side, what it has said before still
/// comes to the near one: a command that ends at once hangs up on input that nobody wants any more.
async fn join<N, F>(near: N, far: F)
where
    N: AsyncRead + AsyncWrite,
    F: AsyncRead + AsyncWrite,
{
    let ((from_near, to_near), (from_far, to_far)) = (split(near), split(far));
    match select(pin!(one_way(from_near, to_far)), pin!(one_way(from_far, to_near))).await {
        Either::Left((Ok(()), back)) => drop(back.await),
        Either::Left((Err(_), back)) => drop(tokio::time::timeout(LAST_WORDS_WITHIN, back).await),
        Either::Right((Ok(()), there)) => drop(there.await),
        Either::Right((Err(_), _)) => {}
    }
}

async fn one_way<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut from: R, mut to: W) -> std::io::Result<()> {
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// The text of a body, up to `most` bytes.
pub(super) async fn text(body: impl http_body::Body<Data = Bytes> + Unpin, most: usize) -> String {
    let mut body = body;
    let mut kept = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            kept.extend_from_slice(&data[..data.len().min(most - kept.len())]);
        }
        if kept.len() == most {
            break;
        }
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}
