//! The HTTP side: which protocol a request asks for, and the answer that switches to it.

use base64::Engine as _;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;

use crate::StreamError;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// How the bytes of the connection are framed, and the protocol spoken in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport<P> {
    Spdy(P),
    WebSocket(P),
}

/// A request that switches protocols: the answer to send, and the connection that comes when it has been sent.
pub(crate) struct Switch<P> {
    pub(crate) transport: Transport<P>,
    pub(crate) response: Response<Full<Bytes>>,
    pub(crate) connection: OnUpgrade,
}

/// Chooses the first protocol offered by the client that is spoken here.
///
/// # Errors
/// [`StreamError::Handshake`] when the request is no upgrade or offers nothing that is spoken here.
pub(crate) fn switch<B, P: Copy>(
    request: &mut Request<B>,
    spdy: &[(&'static str, P)],
    web_socket: &[(&'static str, P)],
) -> Result<Switch<P>, StreamError> {
    let upgrade = text(request.headers(), &UPGRADE).to_ascii_lowercase();
    let mut builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
    let transport = if upgrade.starts_with("spdy/3.1") {
        let (name, protocol) = choose(request.headers(), &STREAM_PROTOCOL, spdy)?;
        builder = builder.header(UPGRADE, "SPDY/3.1");
        if !name.is_empty() {
            builder = builder.header(STREAM_PROTOCOL, name);
        }
        Transport::Spdy(protocol)
    } else if upgrade == "websocket" {
        let (name, protocol) = choose(request.headers(), &SEC_WEBSOCKET_PROTOCOL, web_socket)?;
        let key = request
            .headers()
            .get(SEC_WEBSOCKET_KEY)
            .ok_or_else(|| StreamError::Handshake("websocket request lacks Sec-WebSocket-Key".to_owned()))?;
        builder = builder.header(UPGRADE, "websocket").header(SEC_WEBSOCKET_ACCEPT, accept_key(key));
        if !name.is_empty() {
            builder = builder.header(SEC_WEBSOCKET_PROTOCOL, name);
        }
        Transport::WebSocket(protocol)
    } else {
        return Err(StreamError::Handshake("Upgrade request required".to_owned()));
    };
    let response = builder.body(Full::default()).map_err(|error| StreamError::Handshake(error.to_string()))?;
    Ok(Switch { transport, response, connection: hyper::upgrade::on(request) })
}

fn choose<P: Copy>(
    headers: &HeaderMap,
    header: &HeaderName,
    spoken: &[(&'static str, P)],
) -> Result<(&'static str, P), StreamError> {
    let mut offered: Vec<&str> = headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if offered.is_empty() {
        offered.push("");
    }
    let found = offered.iter().find_map(|name| spoken.iter().find(|(spoken, _)| spoken == name));
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = spoken.iter().map(|(name, _)| *name).collect();
        StreamError::Handshake(format!(
            "unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            known.join(" ")
        ))
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn accept_key(key: &HeaderValue) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())
}

/// For protocols that carry bytes as base64 text.
pub(crate) fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder();
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn the_clients_first_known_protocol_wins() {
        let mut asked = request(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9, v4"),
            ("x-stream-protocol-version", "v3"),
        ]);
        let switch = switch(&mut asked, &[("v3", 3), ("v4", 4)], &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(switch.transport, Transport::Spdy(4));
        assert_eq!(switch.response.headers()["x-stream-protocol-version"], "v4");
    }

    #[test]
    fn a_websocket_is_accepted_by_its_key() {
        let mut asked = request(&[("upgrade", "websocket"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        let switch = switch(&mut asked, &[], &[("", 0)]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(switch.response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_plain_request_is_refused() {
        assert!(matches!(switch::<_, u8>(&mut request(&[]), &[], &[]), Err(StreamError::Handshake(_))));
    }
}
