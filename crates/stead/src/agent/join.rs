//! The request to join, over a connection of its own.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use stead_apiserver::join::{JOIN_PATH, JoinAnswer, JoinRequest};
use stead_client::tls;

/// Longest answer to a request to join, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why a machine did not become a node.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nobody answers, or the server is busy: the same may go well later.
    Away(anyhow::Error),
    /// The server, or this machine, will not have it: says what would mend it.
    Final(anyhow::Error),
}

/// Asks a server for certificates. `secret` is the token's; a connection with a node's certificate needs none.
pub(super) async fn ask(
    server: &tls::Server,
    config: Arc<tls::ClientConfig>,
    secret: Option<&str>,
    request: &JoinRequest,
) -> Result<JoinAnswer, Refusal> {
    let stream = server.dial(config).await.map_err(|error| {
        let why = match tls::stranger(&error) {
            None => return Refusal::Away(error.into()),
            Some(tls::Stranger::Authority) => {
                "the server is not the one that the token was made by: take the token from it with `stead token`"
                    .to_owned()
            }
            Some(tls::Stranger::Name) => {
                let host = server.host();
                format!("the server's certificate does not hold {host}: start the server with --tls-san {host}")
            }
        };
        Refusal::Final(anyhow::Error::new(error).context(why))
    })?;
    let (status, text) = send(server, stream, secret, request).await.map_err(Refusal::Away)?;
    match status {
        200 => serde_json::from_slice(&text).context("the server's answer").map_err(Refusal::Final),
        400..=403 => Err(Refusal::Final(anyhow::anyhow!("{}", words(&text)))),
        _ => Err(Refusal::Away(anyhow::anyhow!("the server answers {status}: {}", words(&text)))),
    }
}

async fn send(
    server: &tls::Server,
    stream: tls::Stream,
    secret: Option<&str>,
    request: &JoinRequest,
) -> Result<(u16, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut http = Request::post(JOIN_PATH)
        .header(header::HOST, server.host())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(request)?)))?;
    if let Some(secret) = secret {
        let value = format!("Bearer {secret}").parse().context("the token")?;
        http.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let answer = sender.send_request(http).await?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    Ok((status, body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes()))
}

/// What a refusal says.
fn words(answer: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    status["message"].as_str().map_or_else(|| String::from_utf8_lossy(answer).into_owned(), str::to_owned)
}
