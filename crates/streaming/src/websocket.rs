//! WebSocket connections: as numbered channels (`channel.k8s.io`), and as a tunnel for another protocol's bytes.

use std::future::Future;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use crate::handshake::{self, Switch, Transport, base64_decode, base64_encode};
use crate::{FRAME_DATA_BYTES_MAX, STREAM_BUFFER_BYTES, StreamError};

/// A message larger than this ends the connection.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The close that clients take for a regular end; without a code some report an error.
fn farewell() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}

async fn open(connection: Upgraded) -> Socket {
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await
}

/// How the channel number and the bytes are put into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Binary messages, the first byte is the channel.
    Binary,
    /// Text messages, the first character is the channel's digit, the rest is base64.
    Base64,
}

/// Opens a connection of numbered channels.
pub(crate) async fn channels(connection: Upgraded, coding: Coding) -> (ChannelReader, ChannelWriter) {
    let (sink, stream) = open(connection).await.split();
    (ChannelReader { stream, coding }, ChannelWriter { sink, coding })
}

pub(crate) struct ChannelReader {
    stream: SplitStream<Socket>,
    coding: Coding,
}

impl ChannelReader {
    /// The next piece of a channel; `None` at the end of the connection. Empty messages are read over.
    pub(crate) async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            let message = match self.stream.next().await? {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "websocket broke");
                    return None;
                }
            };
            let payload: Bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return None,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let Some((&first, rest)) = payload.split_first() else { continue };
            match self.coding {
                Coding::Binary => return Some((first, payload.slice(1..))),
                Coding::Base64 => {
                    let Some(bytes) = base64_decode(rest) else { continue };
                    return Some((first.wrapping_sub(b'0'), bytes.into()));
                }
            }
        }
    }
}

pub(crate) struct ChannelWriter {
    sink: SplitSink<Socket, Message>,
    coding: Coding,
}

impl ChannelWriter {
    pub(crate) async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), ()> {
        let message = match self.coding {
            Coding::Binary => {
                let mut payload = Vec::with_capacity(bytes.len() + 1);
                payload.push(channel);
                payload.extend_from_slice(bytes);
                Message::Binary(payload.into())
            }
            Coding::Base64 => {
                Message::text(format!("{}{}", char::from(b'0'.wrapping_add(channel)), base64_encode(bytes)))
            }
        };
        self.sink.send(message).await.map_err(drop)
    }

    pub(crate) async fn close(&mut self) {
        let _ = self.sink.send(Message::Close(Some(farewell()))).await;
        let _ = self.sink.close().await;
    }
}

/// One byte stream to a WebSocket client, piece by piece (upstream's `wsstream`, which shows logs to browsers).
#[derive(Debug)]
pub struct ByteWriter {
    sink: SplitSink<Socket, Message>,
    text: bool,
}

impl ByteWriter {
    /// Sends one piece.
    ///
    /// # Errors
    /// When the client is gone.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let message = if self.text { Message::text(base64_encode(&bytes)) } else { Message::Binary(bytes) };
        self.sink.send(message).await.map_err(|error| StreamError::Connection(error.to_string()))
    }

    /// Says that there is no more.
    pub async fn close(mut self) {
        let _ = self.sink.send(Message::Close(Some(farewell()))).await;
        let _ = self.sink.close().await;
    }
}

/// Whether bytes go as base64 text, by the protocol that the client asks for.
const BYTES_PROTOCOLS: [(&str, bool); 3] = [("", false), ("binary.k8s.io", false), ("base64.binary.k8s.io", true)];

/// Switches a request to one byte stream towards the client. Send the response; the future then yields the connected client,
/// of which nothing is read but that it hangs up.
///
/// # Errors
/// [`StreamError::Handshake`] when the request is no WebSocket or wants a protocol that is not spoken here.
#[allow(clippy::type_complexity, reason = "an opaque future cannot be given a name")]
pub fn bytes<B>(
    request: &mut Request<B>,
) -> Result<
    (Response<Full<Bytes>>, impl Future<Output = Result<ByteWriter, StreamError>> + Send + 'static + use<B>),
    StreamError,
> {
    let Switch { transport, response, connection } = handshake::switch(request, &[], &BYTES_PROTOCOLS)?;
    let text = matches!(transport, Transport::WebSocket(true));
    let connect = async move {
        let connection = connection.await.map_err(|error| StreamError::Connection(error.to_string()))?;
        let (sink, mut stream) = open(connection).await.split();
        // Pings are answered, and a close is seen, only while somebody reads.
        tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
        Ok(ByteWriter { sink, text })
    };
    Ok((response, connect))
}

/// Opens a connection whose binary messages are pieces of one byte stream.
pub(crate) async fn tunnel(connection: Upgraded) -> DuplexStream {
    let (mut sink, mut stream) = open(connection).await.split();
    let (ours, theirs) = duplex(STREAM_BUFFER_BYTES);
    let (mut outgoing, mut into) = split(ours);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) => {
                    if into.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => break,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        let _ = into.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; FRAME_DATA_BYTES_MAX];
        while let Ok(size) = outgoing.read(&mut buffer).await {
            if size == 0 || sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..size]))).await.is_err() {
                break;
            }
        }
        let _ = sink.send(Message::Close(Some(farewell()))).await;
        let _ = sink.close().await;
    });
    theirs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_stream_comes_piece_by_piece_in_the_form_that_was_asked_for() {
        for (protocol, want) in
            [("binary.k8s.io", Message::Binary("log\n".into())), ("base64.binary.k8s.io", Message::text("bG9nCg=="))]
        {
            let (near, far) = duplex(4096);
            let service = hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
                let (response, client) = bytes(&mut request)?;
                tokio::spawn(async move {
                    let mut client = client.await.unwrap();
                    client.send(Bytes::from("log\n")).await.unwrap();
                    client.close().await;
                });
                Ok::<_, StreamError>(response)
            });
            let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
            tokio::spawn(server.with_upgrades());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            let request = Request::get("/")
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                .header("sec-websocket-protocol", protocol);
            let mut answer = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
                (101, &protocol.parse().unwrap())
            );
            let io = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
            let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
            assert_eq!(socket.next().await.unwrap().unwrap(), want);
            assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
        }
    }
}
