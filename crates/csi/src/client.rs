//! Calls to a driver.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::UnixStream;

use crate::frame::{MESSAGE_BYTES_MAX, frame, unframe};
use crate::{Code, Rpc, Status};

/// The socket of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    path: PathBuf,
}

impl Endpoint {
    /// A socket by its path, which may be written as `unix:///path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        let text = path.to_string_lossy();
        let plain = text.strip_prefix("unix://").or(text.strip_prefix("unix:"));
        Self { path: plain.map(PathBuf::from).unwrap_or(path.clone()) }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes one call.
    ///
    /// # Errors
    /// The driver's answer, or `Unavailable` when it cannot be reached, or `DeadlineExceeded` after `within`.
    pub async fn call<R: Rpc>(&self, request: &R, within: Duration) -> Result<R::Response, Status> {
        match tokio::time::timeout(within, self.exchange(request, within)).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded")),
        }
    }

    async fn exchange<R: Rpc>(&self, request: &R, within: Duration) -> Result<R::Response, Status> {
        let lost = |error: &dyn std::fmt::Display| {
            let path = self.path.display();
            Status::new(Code::Unavailable, format!("connection error: cannot reach the driver at {path}: {error}"))
        };
        let stream = UnixStream::connect(&self.path).await.map_err(|error| lost(&error))?;
        let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| lost(&error))?;
        let driving = tokio::spawn(connection);
        let asked = Request::post(format!("http://localhost{}", R::PATH))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", format!("{}m", within.as_millis().min(99_999_999)))
            .body(Full::new(frame(request)))
            .expect("all parts are valid");
        let answered = async {
            let response = sender.send_request(asked).await.map_err(|error| lost(&error))?;
            let (head, body) = response.into_parts();
            // A failure without a message comes in the head alone.
            told(&head.headers)?;
            if !head.status.is_success() {
                return Err(lost(&format!("HTTP status {}", head.status)));
            }
            let whole = Limited::new(body, MESSAGE_BYTES_MAX).collect().await.map_err(|error| lost(&error))?;
            if let Some(trailers) = whole.trailers() {
                told(trailers)?;
            }
            unframe(&whole.to_bytes())
        };
        let answer = answered.await;
        driving.abort();
        answer
    }
}

/// The failure that headers or trailers tell of.
fn told(headers: &HeaderMap) -> Result<(), Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").map(str::parse::<i32>) {
        None | Some(Ok(0)) => Ok(()),
        Some(code) => {
            let message = percent_decode_str(text("grpc-message").unwrap_or_default()).decode_utf8_lossy();
            Err(Status::new(Code::of(code.unwrap_or(Code::Unknown as i32)), message))
        }
    }
}
