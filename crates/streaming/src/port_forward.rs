//! `port-forward`: connections to ports of a pod, each with an error stream of its own.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/portforward` and KEP-4006 (SPDY tunnelled through WebSocket).

use std::collections::HashMap;
use std::future::Future;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio::sync::mpsc;

use crate::handshake::{self, Switch, Transport};
use crate::spdy::{Session, Stream};
use crate::websocket::{self, ChannelReader, ChannelWriter, Coding};
use crate::{FRAME_DATA_BYTES_MAX, FRAMES_QUEUED_MAX, STREAM_BUFFER_BYTES, StreamError};

/// Connections that may wait to be accepted.
const CONNECTIONS_QUEUED_MAX: usize = 64;
/// Error streams that may wait for their data stream.
const PAIRS_WAITING_MAX: usize = 256;
/// Ports that one WebSocket request may name.
const PORTS_MAX: usize = 64;

/// A client that forwards ports.
#[derive(Debug)]
pub struct PortForward {
    connections: mpsc::Receiver<ForwardedConnection>,
}

impl PortForward {
    /// The next connection that the client makes; `None` when it is gone.
    pub async fn next(&mut self) -> Option<ForwardedConnection> {
        self.connections.recv().await
    }
}

/// One connection to one port. Copy bytes both ways, then drop it.
#[derive(Debug)]
pub struct ForwardedConnection {
    pub port: u16,
    pub data: DuplexStream,
    error: DuplexStream,
}

impl ForwardedConnection {
    /// Tells the client why this connection cannot be made, and ends it.
    pub async fn fail(mut self, why: &str) {
        let _ = self.error.write_all(why.as_bytes()).await;
        let _ = self.error.shutdown().await;
    }
}

/// Switches a request to port forwarding. Send the response; the future then yields the connected client.
/// `ports` are those of the request's query; only the older WebSocket form uses them.
///
/// # Errors
/// [`StreamError::Handshake`] when the request is no upgrade to a protocol that is spoken here.
#[allow(clippy::type_complexity, reason = "an opaque future cannot be given a name")]
pub fn port_forward<B>(
    request: &mut Request<B>,
    ports: Vec<u16>,
) -> Result<
    (Response<Full<Bytes>>, impl Future<Output = Result<PortForward, StreamError>> + Send + 'static + use<B>),
    StreamError,
> {
    let Switch { transport, response, connection } =
        handshake::switch(request, &SPDY_PROTOCOLS, &WEB_SOCKET_PROTOCOLS)?;
    Ok((response, connect(connection, transport, ports)))
}

const SPDY_PROTOCOLS: [(&str, Form); 1] = [("portforward.k8s.io", Form::Streams)];

const WEB_SOCKET_PROTOCOLS: [(&str, Form); 3] = [
    ("SPDY/3.1+portforward.k8s.io", Form::Streams),
    ("v4.channel.k8s.io", Form::Channels(Coding::Binary)),
    ("v4.base64.channel.k8s.io", Form::Channels(Coding::Base64)),
];

#[derive(Clone, Copy, Debug)]
enum Form {
    /// SPDY streams in pairs, one pair a connection.
    Streams,
    /// Two channels for each port of the query: data and error.
    Channels(Coding),
}

async fn connect(
    connection: OnUpgrade,
    transport: Transport<Form>,
    ports: Vec<u16>,
) -> Result<PortForward, StreamError> {
    let connection = connection.await.map_err(|error| StreamError::Connection(error.to_string()))?;
    let (accepted, connections) = mpsc::channel(CONNECTIONS_QUEUED_MAX);
    match transport {
        Transport::Spdy(_) => {
            tokio::spawn(pair_streams(Session::server(TokioIo::new(connection))?, accepted));
        }
        Transport::WebSocket(Form::Streams) => {
            tokio::spawn(pair_streams(Session::server(websocket::tunnel(connection).await)?, accepted));
        }
        Transport::WebSocket(Form::Channels(coding)) => over_channels(connection, coding, &ports, &accepted).await?,
    }
    Ok(PortForward { connections })
}

/// Brings the error and the data stream of each connection together by their request id.
async fn pair_streams(mut session: Session, accepted: mpsc::Sender<ForwardedConnection>) {
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            () = accepted.closed() => return,
        };
        let Some(stream) = stream else { return };
        // Clients before request ids existed open the pair one after the other.
        let id = stream.header("requestID").unwrap_or_default().to_owned();
        let Some(other) = waiting.remove(&id) else {
            if waiting.len() < PAIRS_WAITING_MAX {
                waiting.insert(id, stream);
            }
            continue;
        };
        let (error, data) =
            if stream.header("streamType") == Some("error") { (stream, other) } else { (other, stream) };
        let Some(port) = data.header("port").and_then(|port| port.parse().ok()) else {
            tracing::debug!(port = data.header("port"), "port-forward stream without a valid port");
            continue;
        };
        if accepted.send(ForwardedConnection { port, data: data.io, error: error.io }).await.is_err() {
            return;
        }
    }
}

async fn over_channels(
    connection: Upgraded,
    coding: Coding,
    ports: &[u16],
    accepted: &mpsc::Sender<ForwardedConnection>,
) -> Result<(), StreamError> {
    if ports.is_empty() || ports.len() > PORTS_MAX {
        return Err(StreamError::Protocol(format!("between 1 and {PORTS_MAX} ports are needed in the query `ports`")));
    }
    let (reader, writer) = websocket::channels(connection, coding).await;
    let (outgoing, to_send) = mpsc::channel(FRAMES_QUEUED_MAX);
    tokio::spawn(write_channels(writer, to_send));
    let mut into = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports) {
        let (data, ours) = duplex(STREAM_BUFFER_BYTES);
        let (error, our_error) = duplex(STREAM_BUFFER_BYTES);
        let (from_data, into_data) = split(ours);
        into.push(into_data);
        for channel in [channel, channel + 1] {
            let _ = outgoing.send((channel, Bytes::copy_from_slice(&port.to_le_bytes()))).await;
        }
        tokio::spawn(send_channel(channel, from_data, outgoing.clone()));
        tokio::spawn(send_channel(channel + 1, our_error, outgoing.clone()));
        let _ = accepted.send(ForwardedConnection { port: *port, data, error }).await;
    }
    tokio::spawn(read_channels(reader, into));
    Ok(())
}

async fn read_channels<W: tokio::io::AsyncWrite + Unpin>(mut reader: ChannelReader, mut into: Vec<W>) {
    while let Some((channel, bytes)) = reader.next().await {
        if channel % 2 == 0
            && let Some(data) = into.get_mut(usize::from(channel / 2))
        {
            let _ = data.write_all(&bytes).await;
        }
    }
    for mut data in into {
        let _ = data.shutdown().await;
    }
}

async fn send_channel<R: tokio::io::AsyncRead + Unpin>(channel: u8, mut from: R, outgoing: mpsc::Sender<(u8, Bytes)>) {
    let mut buffer = vec![0; FRAME_DATA_BYTES_MAX];
    while let Ok(size) = from.read(&mut buffer).await {
        if size == 0 || outgoing.send((channel, Bytes::copy_from_slice(&buffer[..size]))).await.is_err() {
            return;
        }
    }
}

async fn write_channels(mut writer: ChannelWriter, mut to_send: mpsc::Receiver<(u8, Bytes)>) {
    while let Some((channel, bytes)) = to_send.recv().await {
        if writer.send(channel, &bytes).await.is_err() {
            return;
        }
    }
    writer.close().await;
}
