//! Netlink: messages, attributes, and a blocking socket that sends and takes in the kernel's answer.
//!
//! The kernel works on a request within the sender's system call, so "blocking" here is the kernel's own work and no
//! waiting. Layout: linux/netlink.h; a message is a 16-byte header, a fixed part that depends on its kind, attributes.

use nix::sys::time::{TimeVal, TimeValLike};
use std::io;

use netlink_sys::Socket as RawSocket;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

pub(crate) const F_REQUEST: u16 = 1;
pub(crate) const F_ACK: u16 = 4;
pub(crate) const F_DUMP: u16 = 0x300;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_REPLACE: u16 = 0x100;
pub(crate) const F_CREATE: u16 = 0x400;
const F_CAPPED: u16 = 0x100;
const F_ACK_TLVS: u16 = 0x200;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
/// The largest transaction that is sent at once; a table of 50,000 service ports needs about a third.
const SEND_BUFFER_BYTES: usize = 64 << 20;
/// Room for the answers to one batch.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// One read of the socket; the kernel fills dumps in pieces of at most 32 KiB.
const READ_BYTES: usize = 64 << 10;

/// A message under construction.
#[derive(Clone, Debug)]
pub(crate) struct Msg(Vec<u8>);

impl Msg {
    /// A request of kind `kind` with its fixed part; `flags` beside `F_REQUEST`.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Self(bytes)
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    pub(crate) fn nest(self, kind: u16, inner: Attrs) -> Self {
        self.attr(kind | NESTED, &inner.0)
    }

    pub(crate) fn flags(mut self, more: u16) -> Self {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | more;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a message is far below 4 GiB");
        self.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A list of attributes to be nested in another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attrs(Vec<u8>);

impl Attrs {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Attributes that begin with a fixed part (as the peer of a veth does).
    pub(crate) fn with_fixed(fixed: &[u8]) -> Self {
        let mut bytes = fixed.to_vec();
        pad(&mut bytes);
        Self(bytes)
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.0, kind, value);
        self
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// A number in network order, as nftables wants all of its own numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(self, kind: u16, inner: Self) -> Self {
        self.attr(kind | NESTED, &inner.0)
    }

    pub(crate) fn push(&mut self, kind: u16, inner: &Self) {
        put(&mut self.0, kind | NESTED, &inner.0);
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("callers keep an attribute below 64 KiB");
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Walks over attributes; stops at the first malformed one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let value = self.get(kind)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }

    /// A number in the machine's order.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// What the kernel refused: which message of the batch, the error number and the kernel's own words if it gave any.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) index: usize,
    pub(crate) error: io::Error,
    pub(crate) words: Option<String>,
}

impl Refused {
    fn io(error: io::Error) -> Self {
        Self { index: 0, error, words: None }
    }

    /// An answer that cannot be read.
    pub(crate) fn malformed() -> Self {
        Self::io(io::Error::from(io::ErrorKind::InvalidData))
    }

    pub(crate) fn is(&self, errno: nix::errno::Errno) -> bool {
        self.error.raw_os_error() == Some(errno as i32)
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.words {
            Some(words) => write!(f, "{} ({words})", self.error),
            None if self.index > 0 => write!(f, "{} (message {})", self.error, self.index),
            None => write!(f, "{}", self.error),
        }
    }
}

/// A netlink socket. It belongs for ever to the network namespace of the thread that opened it, whoever uses it later.
#[derive(Debug)]
pub(crate) struct Socket(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    raw: RawSocket,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        raw.set_ext_ack(true)?;
        raw.set_cap_ack(true)?;
        Ok(Self(Mutex::new(Inner { raw, sequence: 1 })))
    }

    /// A socket that is told of every change of an interface; `patience_ms` bounds each wait for one.
    pub(crate) fn open_for_link_changes(protocol: isize, patience_ms: i64) -> io::Result<Self> {
        /// `RTNLGRP_LINK` of linux/rtnetlink.h.
        const LINKS: u32 = 1;
        let socket = Self::open(protocol)?;
        {
            let inner = socket.0.lock();
            inner.raw.add_membership(LINKS)?;
            setsockopt(&inner.raw, sockopt::ReceiveTimeout, &TimeVal::milliseconds(patience_ms))?;
        }
        Ok(socket)
    }

    /// A socket that is told of every change in a multicast group, for use with an event loop.
    pub(crate) fn open_for_group(protocol: isize, group: u32) -> io::Result<RawSocket> {
        let mut raw = RawSocket::new(protocol)?;
        raw.bind_auto()?;
        raw.add_membership(group)?;
        raw.set_non_blocking(true)?;
        Ok(raw)
    }

    /// Waits for the next change, whatever it is.
    pub(crate) fn changed(&self) -> io::Result<()> {
        read(&self.0.lock().raw, 0).map(drop)
    }

    /// Lets the socket carry whole tables at once.
    pub(crate) fn enlarge(&self) -> io::Result<()> {
        let inner = self.0.lock();
        setsockopt(&inner.raw, sockopt::SndBufForce, &SEND_BUFFER_BYTES)?;
        setsockopt(&inner.raw, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        Ok(())
    }

    /// Sends all messages in one system call, each acknowledged. The kernel works them off in order and does not stop
    /// at an error; the first error is returned.
    pub(crate) fn requests(&self, messages: Vec<Msg>) -> Result<(), Refused> {
        let last = messages.len();
        self.send_all(messages.into_iter().map(|m| m.flags(F_ACK)).collect(), last)
    }

    pub(crate) fn request(&self, message: Msg) -> Result<(), Refused> {
        self.requests(vec![message])
    }

    /// Sends one nftables transaction: everything or nothing. `messages` are without the frame of the batch; the
    /// last one must ask for an acknowledgement, by which success is known.
    pub(crate) fn transaction(&self, begin: Msg, messages: Vec<Msg>, end: Msg) -> Result<(), Refused> {
        let mut all = Vec::with_capacity(messages.len() + 2);
        all.push(begin);
        all.extend(messages);
        let last = all.len();
        all[last - 1] = all[last - 1].clone().flags(F_ACK);
        all.push(end);
        self.send_all(all, 1)
    }

    fn send_all(&self, messages: Vec<Msg>, acknowledgements: usize) -> Result<(), Refused> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut inner = self.0.lock();
        let first = inner.sequence;
        let mut bytes = Vec::with_capacity(messages.len() * 96);
        for message in messages {
            bytes.extend(message.finish(inner.sequence));
            inner.sequence = inner.sequence.wrapping_add(1);
        }
        inner.raw.send(&bytes, 0).map_err(Refused::io)?;
        collect(&inner.raw, first, acknowledgements)
    }

    /// Asks for one thing; returns its message without the header.
    pub(crate) fn get(&self, message: Msg) -> Result<Vec<u8>, Refused> {
        let mut inner = self.0.lock();
        let sequence = inner.sequence;
        inner.sequence = sequence.wrapping_add(1);
        inner.raw.send(&message.finish(sequence), 0).map_err(Refused::io)?;
        loop {
            let block = read(&inner.raw, 0).map_err(Refused::io)?;
            for part in Parts(&block) {
                if part.sequence == sequence && part.kind == KIND_ERROR {
                    part.verdict(sequence)?;
                } else if part.sequence == sequence {
                    return Ok(part.body.to_vec());
                }
            }
        }
    }

    /// Asks for a list; returns kind-specific messages without their header.
    pub(crate) fn dump(&self, message: Msg) -> Result<Vec<Vec<u8>>, Refused> {
        let mut inner = self.0.lock();
        let sequence = inner.sequence;
        inner.sequence = sequence.wrapping_add(1);
        inner.raw.send(&message.flags(F_DUMP).finish(sequence), 0).map_err(Refused::io)?;
        let mut items = Vec::new();
        loop {
            let block = read(&inner.raw, 0).map_err(Refused::io)?;
            for part in Parts(&block) {
                if part.sequence != sequence {
                    continue;
                }
                match part.kind {
                    KIND_DONE => return Ok(items),
                    KIND_ERROR => part.verdict(sequence)?,
                    _ => items.push(part.body.to_vec()),
                }
            }
        }
    }
}

/// Reads everything that the kernel answered. All of it is there already: a read that would wait means "no more".
fn collect(raw: &RawSocket, first: u32, wanted: usize) -> Result<(), Refused> {
    let mut outcome = Ok(());
    let mut acknowledged = 0;
    loop {
        let block = match read(raw, nix::libc::MSG_DONTWAIT) {
            Ok(block) => block,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => return Err(Refused::io(e)),
        };
        for part in Parts(&block) {
            if part.kind == KIND_ERROR && part.sequence.wrapping_sub(first) < u32::MAX / 2 {
                acknowledged += 1;
                outcome = outcome.and_then(|()| part.verdict(first));
            }
        }
    }
    if outcome.is_ok() && acknowledged < wanted {
        return Err(Refused::io(io::Error::other("the kernel did not acknowledge the request")));
    }
    outcome
}

/// Takes everything that waits in an event socket. What it says does not matter: whoever listens looks for himself.
pub(crate) fn drain(raw: &RawSocket) -> io::Result<()> {
    loop {
        match read(raw, nix::libc::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // More events than the buffer holds: they are lost, and were only to say "look".
            Err(e) if e.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
            Err(e) => return Err(e),
        }
    }
}

fn read(raw: &RawSocket, flags: i32) -> io::Result<Vec<u8>> {
    let mut block = Vec::with_capacity(READ_BYTES);
    raw.recv(&mut block, flags)?;
    Ok(block)
}

struct Part<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Part<'_> {
    /// Reads an acknowledgement: struct nlmsgerr is the error number, the header of the request, then attributes.
    fn verdict(&self, first: u32) -> Result<(), Refused> {
        let code = self.body.get(..4).and_then(|b| b.try_into().ok()).map_or(-5, i32::from_ne_bytes);
        if code == 0 {
            return Ok(());
        }
        let request = if self.flags & F_CAPPED != 0 { HEADER_BYTES } else { self.request_bytes() };
        let words = (self.flags & F_ACK_TLVS != 0)
            .then(|| self.body.get(4 + request..).and_then(|b| Reader(b).text(1)))
            .flatten();
        let index = self.sequence.wrapping_sub(first) as usize;
        Err(Refused { index, error: io::Error::from_raw_os_error(-code), words })
    }

    fn request_bytes(&self) -> usize {
        let length = self.body.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        (length as usize).next_multiple_of(4)
    }
}

/// The messages of one read.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let length = self.0.get(..4)?.try_into().ok().map(u32::from_ne_bytes)? as usize;
        let sequence = self.0.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)?;
        let (kind, flags) = (u16_at(self.0, 4)?, u16_at(self.0, 6)?);
        let body = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Part { kind, flags, sequence, body })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}
