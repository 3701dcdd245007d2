//! One SPDY connection: streams that the peer opens, each an ordinary pair of byte streams.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;

use super::frame::{Frame, FrameReader, FrameWriter};
use crate::{FRAME_DATA_BYTES_MAX, FRAMES_QUEUED_MAX, STREAM_BUFFER_BYTES, StreamError};

/// Streams that may wait to be accepted.
const STREAMS_QUEUED_MAX: usize = 64;
/// Streams that may be open at once on one connection.
const STREAMS_OPEN_MAX: usize = 2048;
/// How long the peer of a connection that has ended here may take to close it.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// RST_STREAM status REFUSED_STREAM.
const REFUSED_STREAM: u32 = 3;

/// A stream that the peer opened. What is read is what the peer sent; dropping or shutting down the writing half sends FIN.
pub(crate) struct Stream {
    headers: Vec<(String, String)>,
    pub(crate) io: DuplexStream,
}

impl Stream {
    /// The value of a header, whose name is compared without regard to case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// A running connection. It is closed once this and all its streams are dropped and what they wrote has been sent.
pub(crate) struct Session {
    incoming: mpsc::Receiver<Stream>,
    _alive: mpsc::Sender<()>,
}

impl Session {
    pub(crate) fn server<T>(io: T) -> Result<Self, StreamError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reading, writing) = split(io);
        let (frames, to_write) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (opened, incoming) = mpsc::channel(STREAMS_QUEUED_MAX);
        let (alive, all_dropped) = mpsc::channel(1);
        let connection = Connection { frames, opened, alive: alive.downgrade(), open: HashMap::new() };
        tokio::spawn(write_frames(FrameWriter::new(writing)?, to_write));
        tokio::spawn(read_frames(FrameReader::new(reading), connection, all_dropped));
        Ok(Self { incoming, _alive: alive })
    }

    /// The next stream that the peer opens; `None` when the connection has ended.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(mut writer: FrameWriter<W>, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if let Err(error) = writer.write(&frame).await {
            tracing::debug!(%error, "spdy peer is gone");
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// What the reading side of a connection knows.
struct Connection {
    frames: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Stream>,
    /// Held by the session and by each stream that may still write; closed when the last of them is gone.
    alive: mpsc::WeakSender<()>,
    /// Where the data of each stream goes on which the peer may still write.
    open: HashMap<u32, WriteHalf<DuplexStream>>,
}

async fn read_frames<R: AsyncRead + Unpin>(
    mut reader: FrameReader<R>,
    mut connection: Connection,
    mut all_dropped: mpsc::Receiver<()>,
) {
    let reading = async {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => {
                    if connection.handle(frame).await.is_none() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "spdy connection broke");
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = reading => {}
        _ = all_dropped.recv() => {}
    }
    // Dropping one half of a split stream ends nothing: readers are told.
    for (_, mut into) in connection.open.drain() {
        let _ = into.shutdown().await;
    }
    // The last holder of frames but for the streams: when they have been sent the writer says that no more come.
    drop(connection);
    // A socket that is closed while bytes of the peer lie unread is reset, and the peer loses what was sent to it last.
    let _ = tokio::time::timeout(CLOSED_WITHIN, reader.discard()).await;
}

impl Connection {
    /// `None` when the connection cannot be written to any more.
    async fn handle(&mut self, frame: Frame) -> Option<()> {
        match frame {
            Frame::SynStream { id, headers, fin } => self.open(id, headers, fin).await?,
            Frame::Data { id, data, fin } => {
                if let Some(into) = self.open.get_mut(&id) {
                    // A stream whose reader is gone swallows what still comes, as a closed pipe would.
                    let _ = into.write_all(&data).await;
                }
                if fin {
                    self.end(id).await;
                }
            }
            Frame::Reset { id, .. } => self.end(id).await,
            Frame::Ping { id } => self.frames.send(Frame::Ping { id }).await.ok()?,
            Frame::GoAway { .. } | Frame::SynReply { .. } => {}
        }
        Some(())
    }

    async fn open(&mut self, id: u32, headers: Vec<(String, String)>, fin: bool) -> Option<()> {
        let alive = self.alive.upgrade().filter(|_| self.open.len() < STREAMS_OPEN_MAX);
        let Some(alive) = alive else {
            return self.frames.send(Frame::Reset { id, status: REFUSED_STREAM }).await.ok();
        };
        let (ours, theirs) = duplex(STREAM_BUFFER_BYTES);
        let (outgoing, into) = split(ours);
        self.open.insert(id, into);
        if fin {
            self.end(id).await;
        }
        self.frames.send(Frame::SynReply { id, headers: Vec::new() }).await.ok()?;
        tokio::spawn(send_data(id, outgoing, self.frames.clone(), alive));
        // When nobody accepts streams any more this one is dropped here, which ends it for the peer.
        let _ = self.opened.send(Stream { headers, io: theirs }).await;
        Some(())
    }

    async fn end(&mut self, id: u32) {
        if let Some(mut into) = self.open.remove(&id) {
            let _ = into.shutdown().await;
        }
    }
}

/// Sends what is written to a stream, and FIN at its end.
async fn send_data(id: u32, mut from: ReadHalf<DuplexStream>, frames: mpsc::Sender<Frame>, _alive: mpsc::Sender<()>) {
    let mut buffer = vec![0; FRAME_DATA_BYTES_MAX];
    loop {
        let size = from.read(&mut buffer).await.unwrap_or(0);
        let frame = Frame::Data { id, data: Bytes::copy_from_slice(&buffer[..size]), fin: size == 0 };
        if frames.send(frame).await.is_err() || size == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Vec<(String, String)> {
        vec![("streamtype".to_owned(), kind.to_owned())]
    }

    #[tokio::test]
    async fn a_stream_carries_bytes_both_ways_and_ends_both_ways() {
        let (client, server) = duplex(1 << 16);
        let mut session = Session::server(server).unwrap();
        let (reading, writing) = split(client);
        let (mut reader, mut writer) = (FrameReader::new(reading), FrameWriter::new(writing).unwrap());

        writer.write(&Frame::SynStream { id: 1, headers: headers("data"), fin: false }).await.unwrap();
        writer.write(&Frame::Data { id: 1, data: "ping".into(), fin: true }).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        assert_eq!(stream.header("streamType"), Some("data"));
        let mut got = Vec::new();
        stream.io.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"ping");
        stream.io.write_all(b"pong").await.unwrap();
        drop(stream);

        assert_eq!(reader.next().await.unwrap(), Some(Frame::SynReply { id: 1, headers: vec![] }));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Data { id: 1, data: "pong".into(), fin: false }));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Data { id: 1, data: "".into(), fin: true }));
        drop(session);
        assert_eq!(reader.next().await.unwrap(), None, "a session nobody holds ends the connection");
    }

    #[tokio::test]
    async fn a_ping_is_answered() {
        let (client, server) = duplex(1 << 16);
        let _session = Session::server(server).unwrap();
        let (reading, writing) = split(client);
        FrameWriter::new(writing).unwrap().write(&Frame::Ping { id: 7 }).await.unwrap();
        assert_eq!(FrameReader::new(reading).next().await.unwrap(), Some(Frame::Ping { id: 7 }));
    }

    #[tokio::test]
    async fn a_vanished_peer_ends_its_streams() {
        let (client, server) = duplex(1 << 16);
        let mut session = Session::server(server).unwrap();
        let (_reading, writing) = split(client);
        let mut writer = FrameWriter::new(writing).unwrap();
        writer.write(&Frame::SynStream { id: 1, headers: headers("stdin"), fin: false }).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        drop((_reading, writer));
        let mut got = Vec::new();
        stream.io.read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty());
        assert!(session.accept().await.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_still_talks_gets_all_that_was_said_before_the_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut session = Session::server(listener.accept().await.unwrap().0).unwrap();
        let (reading, writing) = split(client);
        let (mut reader, mut writer) = (FrameReader::new(reading), FrameWriter::new(writing).unwrap());
        writer.write(&Frame::SynStream { id: 1, headers: headers("data"), fin: false }).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        stream.io.write_all(b"pong").await.unwrap();
        drop((stream, session));
        for _ in 0..64 {
            let frame = Frame::Data { id: 1, data: vec![0; 32 << 10].into(), fin: false };
            writer.write(&frame).await.expect("the connection is still read");
        }
        let mut seen = Vec::new();
        while let Some(frame) = reader.next().await.expect("no reset") {
            seen.push(frame);
        }
        assert_eq!(seen[1], Frame::Data { id: 1, data: "pong".into(), fin: false });
        assert_eq!(seen[2], Frame::Data { id: 1, data: "".into(), fin: true });
    }
}
