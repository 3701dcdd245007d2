//! `exec` and `attach`: standard streams, terminal sizes and the exit status of one remote command.
//!
//! Source: `k8s.io/kubelet/pkg/cri/streaming/remotecommand` (SPDY) and KEP-4006 (WebSocket, v5).

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, duplex, split};
use tokio::sync::{mpsc, oneshot};

use crate::exit::Exit;
use crate::handshake::{self, Switch, Transport};
use crate::spdy::{Session, Stream};
use crate::websocket::{self, ChannelReader, ChannelWriter, Coding};
use crate::{FRAME_DATA_BYTES_MAX, FRAMES_QUEUED_MAX, STREAM_BUFFER_BYTES, StreamError};

/// How long a SPDY client may take to open the streams that it asked for.
const STREAMS_OPENED_WITHIN: Duration = Duration::from_secs(30);
/// Terminal sizes that may wait.
const SIZES_QUEUED_MAX: usize = 8;
/// A terminal size on the wire is a short JSON object; more than this is rubbish.
const SIZE_BYTES_MAX: usize = 256;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte names a channel on which the client will send nothing more.
const CLOSE: u8 = 255;

/// Which streams the client asked for by its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// A terminal: no separate standard error, and sizes are sent.
    pub tty: bool,
}

/// A connected client. What is written to `stdout` and `stderr` goes to it; end of file on `stdin` means that it sends no more.
#[derive(Debug)]
pub struct RemoteCommand {
    pub stdin: Option<DuplexStream>,
    pub stdout: Option<DuplexStream>,
    pub stderr: Option<DuplexStream>,
    /// Terminal sizes: columns, rows.
    pub resize: Option<mpsc::Receiver<(u16, u16)>>,
    pub finish: Finish,
}

/// Tells the client how the command ended. Drop `stdout` and `stderr` first: the status goes out after all of their bytes.
#[derive(Debug)]
pub struct Finish {
    exit: oneshot::Sender<Exit>,
    sent: oneshot::Receiver<()>,
}

impl Finish {
    /// Returns when the client has been told, or is gone.
    pub async fn send(self, exit: Exit) {
        let _ = self.exit.send(exit);
        let _ = self.sent.await;
    }
}

/// Switches a request to remote command streaming. Send the response; the future then yields the connected client.
///
/// # Errors
/// [`StreamError::Handshake`] when the request is no upgrade to a protocol that is spoken here.
#[allow(clippy::type_complexity, reason = "an opaque future cannot be given a name")]
pub fn remote_command<B>(
    request: &mut Request<B>,
    wanted: Wanted,
) -> Result<
    (Response<Full<Bytes>>, impl Future<Output = Result<RemoteCommand, StreamError>> + Send + 'static + use<B>),
    StreamError,
> {
    let Switch { transport, response, connection } =
        handshake::switch(request, &SPDY_PROTOCOLS, &WEB_SOCKET_PROTOCOLS)?;
    Ok((response, connect(connection, transport, wanted)))
}

const SPDY_PROTOCOLS: [(&str, Version); 5] = [
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
    ("", Version::V1),
];

const WEB_SOCKET_PROTOCOLS: [(&str, Version); 6] = [
    ("v5.channel.k8s.io", Version::V5),
    ("v4.channel.k8s.io", Version::V4),
    ("v4.base64.channel.k8s.io", Version::V4Base64),
    ("channel.k8s.io", Version::V1),
    ("base64.channel.k8s.io", Version::V1Base64),
    ("", Version::V1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V1Base64,
    V1,
    V2,
    V3,
    V4Base64,
    V4,
    V5,
}

impl Version {
    fn coding(self) -> Coding {
        if matches!(self, Self::V4Base64 | Self::V1Base64) { Coding::Base64 } else { Coding::Binary }
    }

    fn status(self, exit: &Exit) -> String {
        if self >= Self::V4Base64 { exit.to_status() } else { exit.to_text() }
    }
}

async fn connect(
    connection: OnUpgrade,
    transport: Transport<Version>,
    wanted: Wanted,
) -> Result<RemoteCommand, StreamError> {
    let connection = connection.await.map_err(|error| StreamError::Connection(error.to_string()))?;
    let stderr = wanted.stderr && !wanted.tty;
    let wanted = Wanted { stderr, ..wanted };
    match transport {
        Transport::Spdy(version) => over_spdy(connection, version, wanted).await,
        Transport::WebSocket(version) => Ok(over_web_socket(connection, version, wanted).await),
    }
}

// --- SPDY: one stream each ---

async fn over_spdy(connection: Upgraded, version: Version, wanted: Wanted) -> Result<RemoteCommand, StreamError> {
    let mut session = Session::server(TokioIo::new(connection))?;
    let resize = wanted.tty && version >= Version::V3;
    let opened = tokio::time::timeout(STREAMS_OPENED_WITHIN, accept_streams(&mut session, wanted, resize)).await;
    let streams =
        opened.map_err(|_| StreamError::Protocol("timed out waiting for client to create streams".to_owned()))??;
    let (finish, told) = finish();
    let error = streams.error;
    tokio::spawn(async move {
        let (exit, sent) = told;
        if let (Ok(exit), Some(mut error)) = (exit.await, error) {
            let _ = error.write_all(version.status(&exit).as_bytes()).await;
            let _ = error.shutdown().await;
        }
        drop(session);
        let _ = sent.send(());
    });
    Ok(RemoteCommand {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        resize: streams.resize.map(sizes),
        finish,
    })
}

#[derive(Default)]
struct SpdyStreams {
    error: Option<DuplexStream>,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
    resize: Option<DuplexStream>,
}

async fn accept_streams(session: &mut Session, wanted: Wanted, resize: bool) -> Result<SpdyStreams, StreamError> {
    let expected = 1 + [wanted.stdin, wanted.stdout, wanted.stderr, resize].into_iter().filter(|w| *w).count();
    let mut streams = SpdyStreams::default();
    for _ in 0..expected {
        let stream: Stream = session
            .accept()
            .await
            .ok_or_else(|| StreamError::Connection("client left before it had created its streams".to_owned()))?;
        let slot = match stream.header("streamType").unwrap_or_default() {
            "error" => &mut streams.error,
            "stdin" => &mut streams.stdin,
            "stdout" => &mut streams.stdout,
            "stderr" => &mut streams.stderr,
            "resize" => &mut streams.resize,
            other => return Err(StreamError::Protocol(format!("unexpected stream type: {other:?}"))),
        };
        *slot = Some(stream.io);
    }
    Ok(streams)
}

/// Reads terminal sizes: JSON objects one after the other, with or without line ends.
fn sizes(mut stream: DuplexStream) -> mpsc::Receiver<(u16, u16)> {
    let (sender, receiver) = mpsc::channel(SIZES_QUEUED_MAX);
    tokio::spawn(async move {
        let mut pending = Vec::new();
        loop {
            match stream.read_buf(&mut pending).await {
                Ok(size) if size > 0 && pending.len() <= SIZE_BYTES_MAX * SIZES_QUEUED_MAX => {}
                _ => return,
            }
            while let Some(end) = pending.iter().position(|byte| *byte == b'}') {
                let object: Vec<u8> = pending.drain(..=end).collect();
                if let Some(size) = parse_size(&object)
                    && sender.send(size).await.is_err()
                {
                    return;
                }
            }
        }
    });
    receiver
}

/// `{"Width":80,"Height":24}` in any order.
fn parse_size(object: &[u8]) -> Option<(u16, u16)> {
    let text = std::str::from_utf8(object).ok()?.to_ascii_lowercase();
    let number = |name: &str| {
        let rest = &text[text.find(name)? + name.len()..];
        let digits: String =
            rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    Some((number("\"width\"")?, number("\"height\"")?))
}

// --- WebSocket: numbered channels ---

async fn over_web_socket(connection: Upgraded, version: Version, wanted: Wanted) -> RemoteCommand {
    let (reader, writer) = websocket::channels(connection, version.coding()).await;
    let (outgoing, to_send) = mpsc::channel(FRAMES_QUEUED_MAX);
    let (stdin, into_stdin) = pipe(wanted.stdin);
    let (stdout, from_stdout) = pipe(wanted.stdout);
    let (stderr, from_stderr) = pipe(wanted.stderr);
    let (sizes, resize) = mpsc::channel(SIZES_QUEUED_MAX);
    let (finish, (exit, sent)) = finish();

    tokio::spawn(read_channels(reader, into_stdin, wanted.tty.then_some(sizes)));
    let stdout_sent = tokio::spawn(send_channel(STDOUT, from_stdout, outgoing.clone()));
    let stderr_sent = tokio::spawn(send_channel(STDERR, from_stderr, outgoing.clone()));
    tokio::spawn(async move {
        let exit = exit.await;
        let _ = (stdout_sent.await, stderr_sent.await);
        if let Ok(exit) = exit {
            let _ = outgoing.send((ERROR, version.status(&exit).into())).await;
        }
    });
    tokio::spawn(async move {
        write_channels(writer, to_send).await;
        let _ = sent.send(());
    });
    RemoteCommand { stdin, stdout, stderr, resize: wanted.tty.then_some(resize), finish }
}

fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    let (ours, theirs) = duplex(STREAM_BUFFER_BYTES);
    (wanted.then_some(theirs), wanted.then_some(ours))
}

async fn read_channels(
    mut reader: ChannelReader,
    mut stdin: Option<DuplexStream>,
    sizes: Option<mpsc::Sender<(u16, u16)>>,
) {
    while let Some((channel, bytes)) = reader.next().await {
        match channel {
            STDIN => {
                if let Some(into) = &mut stdin
                    && into.write_all(&bytes).await.is_err()
                {
                    stdin = None;
                }
            }
            RESIZE => {
                if let (Some(sizes), Some(size)) = (&sizes, parse_size(&bytes)) {
                    let _ = sizes.send(size).await;
                }
            }
            CLOSE if bytes.first() == Some(&STDIN) => stdin = None,
            _ => {}
        }
    }
}

async fn send_channel(channel: u8, from: Option<DuplexStream>, outgoing: mpsc::Sender<(u8, Bytes)>) {
    let Some(from) = from else { return };
    // The writing half is kept so that only the other side decides when this ends.
    let (mut from, _keep): (ReadHalf<_>, _) = split(from);
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

type Told = (oneshot::Receiver<Exit>, oneshot::Sender<()>);

fn finish() -> (Finish, Told) {
    let (exit, told) = oneshot::channel();
    let (done, sent) = oneshot::channel();
    (Finish { exit, sent }, (told, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_any_order() {
        assert_eq!(parse_size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(parse_size(br#"{"Height": 24, "Width": 80}"#), Some((80, 24)));
        assert_eq!(parse_size(br#"{"Width":99999,"Height":1}"#), None);
    }
}
