//! SPDY/3.1 frames on a byte stream.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::headers::{HeaderPacker, HeaderUnpacker};
use crate::StreamError;

/// A frame larger than this is refused (the protocol allows 16 MiB).
const FRAME_BYTES_MAX: usize = 1 << 20;
const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What one side says to the other. Frames that mean nothing here (SETTINGS, WINDOW_UPDATE, ...) are read over.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    SynStream { id: u32, headers: Vec<(String, String)>, fin: bool },
    SynReply { id: u32, headers: Vec<(String, String)> },
    Data { id: u32, data: Bytes, fin: bool },
    Reset { id: u32, status: u32 },
    Ping { id: u32 },
    GoAway { last: u32 },
}

pub(crate) struct FrameReader<R> {
    io: R,
    headers: HeaderUnpacker,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, headers: HeaderUnpacker::new() }
    }

    /// The next frame, or `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            let mut head = [0; 8];
            match self.io.read_exact(&mut head).await {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let size = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
            if size > FRAME_BYTES_MAX {
                return Err(StreamError::Protocol(format!("SPDY frame of {size} bytes is too large")));
            }
            let mut body = vec![0; size];
            self.io.read_exact(&mut body).await?;
            let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            if first & 0x8000_0000 == 0 {
                return Ok(Some(Frame::Data { id: first, data: body.into(), fin: head[4] & FLAG_FIN != 0 }));
            }
            if let Some(frame) = self.control(first, head[4], &body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Reads on without looking at it, until the peer has said that nothing more comes.
    pub(crate) async fn discard(mut self) {
        let mut sink = [0; 4096];
        while self.io.read(&mut sink).await.is_ok_and(|size| size > 0) {}
    }

    fn control(&mut self, first: u32, flags: u8, body: &[u8]) -> Result<Option<Frame>, StreamError> {
        let version = (first >> 16) & 0x7fff;
        if version != u32::from(VERSION) {
            return Err(StreamError::Protocol(format!("SPDY version {version} is not spoken here, only {VERSION}")));
        }
        let number = |at: usize| {
            let bytes =
                body.get(at..at + 4).ok_or_else(|| StreamError::Protocol("SPDY frame is too short".to_owned()))?;
            Ok::<u32, StreamError>(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let kind = u16::try_from(first & 0xffff).expect("masked to 16 bits");
        Ok(match kind {
            SYN_STREAM => {
                let id = number(0)? & 0x7fff_ffff;
                let block =
                    body.get(10..).ok_or_else(|| StreamError::Protocol("SPDY frame is too short".to_owned()))?;
                Some(Frame::SynStream { id, headers: self.headers.unpack(block)?, fin: flags & FLAG_FIN != 0 })
            }
            // The header blocks of both kinds belong to the one compressed stream, so they are unpacked in any case.
            SYN_REPLY | HEADERS => {
                let id = number(0)? & 0x7fff_ffff;
                let headers = self.headers.unpack(&body[4..])?;
                (kind == SYN_REPLY).then_some(Frame::SynReply { id, headers })
            }
            RST_STREAM => Some(Frame::Reset { id: number(0)? & 0x7fff_ffff, status: number(4)? }),
            PING => Some(Frame::Ping { id: number(0)? }),
            GOAWAY => Some(Frame::GoAway { last: number(0)? }),
            _ => None,
        })
    }
}

pub(crate) struct FrameWriter<W> {
    io: W,
    headers: HeaderPacker,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> std::io::Result<Self> {
        Ok(Self { io, headers: HeaderPacker::new()? })
    }

    pub(crate) async fn write(&mut self, frame: &Frame) -> std::io::Result<()> {
        match frame {
            Frame::Data { id, data, fin } => {
                let mut head = [0; 8];
                head[..4].copy_from_slice(&(id & 0x7fff_ffff).to_be_bytes());
                head[4..].copy_from_slice(&flags_and_size(*fin, data.len()));
                self.io.write_all(&head).await?;
                self.io.write_all(data).await?;
            }
            Frame::SynStream { id, headers, fin } => {
                let mut body = id.to_be_bytes().to_vec();
                body.extend_from_slice(&[0; 6]);
                body.extend(self.headers.pack(headers)?);
                self.control(SYN_STREAM, *fin, &body).await?;
            }
            Frame::SynReply { id, headers } => {
                let mut body = id.to_be_bytes().to_vec();
                body.extend(self.headers.pack(headers)?);
                self.control(SYN_REPLY, false, &body).await?;
            }
            Frame::Reset { id, status } => {
                self.control(RST_STREAM, false, &[id.to_be_bytes(), status.to_be_bytes()].concat()).await?;
            }
            Frame::Ping { id } => self.control(PING, false, &id.to_be_bytes()).await?,
            Frame::GoAway { last } => self.control(GOAWAY, false, &[last.to_be_bytes(), [0; 4]].concat()).await?,
        }
        self.io.flush().await
    }

    pub(crate) async fn shutdown(&mut self) -> std::io::Result<()> {
        self.io.shutdown().await
    }

    async fn control(&mut self, kind: u16, fin: bool, body: &[u8]) -> std::io::Result<()> {
        let first = 0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind);
        let mut frame = first.to_be_bytes().to_vec();
        frame.extend_from_slice(&flags_and_size(fin, body.len()));
        frame.extend_from_slice(body);
        self.io.write_all(&frame).await
    }
}

fn flags_and_size(fin: bool, size: usize) -> [u8; 4] {
    let size = u32::try_from(size).expect("frames are far below 16 MiB").to_be_bytes();
    [u8::from(fin) * FLAG_FIN, size[1], size[2], size[3]]
}
