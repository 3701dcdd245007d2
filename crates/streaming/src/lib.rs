//! The streaming protocols of `kubectl exec`, `attach` and `port-forward`, and of logs in a browser, server side.
//!
//! kubectl up to 1.28 speaks SPDY/3.1, newer ones and most other clients speak WebSocket; port-forward of new kubectls is SPDY
//! inside WebSocket. All of them end here in the same two things: a [`RemoteCommand`] with ordinary byte streams, or a
//! [`PortForward`] that yields one [`ForwardedConnection`] after the other.
//!
//! Invariants: knows no pods and no containers; every buffer is bounded, so that a slow peer slows its own stream down and
//! nothing else grows; a peer that vanishes ends the streams.

#![forbid(unsafe_code)]

mod exit;
mod handshake;
mod port_forward;
mod remote_command;
mod spdy;
mod websocket;

pub use exit::Exit;
pub use port_forward::{ForwardedConnection, PortForward, port_forward};
pub use remote_command::{Finish, RemoteCommand, Wanted, remote_command};
pub use websocket::{ByteWriter, bytes};

/// Bytes that may wait in one stream in one direction.
pub const STREAM_BUFFER_BYTES: usize = 64 * 1024;
/// Largest piece sent in one frame.
pub(crate) const FRAME_DATA_BYTES_MAX: usize = 32 * 1024;
/// Frames that may wait for the connection.
pub(crate) const FRAMES_QUEUED_MAX: usize = 64;

/// Why a streaming request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Not an upgrade, or none of the protocols offered is spoken here. HTTP 400 or 403, as upstream.
    #[error("{0}")]
    Handshake(String),
    /// The connection ended or broke.
    #[error("{0}")]
    Connection(String),
    /// The peer does not keep to the protocol.
    #[error("{0}")]
    Protocol(String),
}

impl From<std::io::Error> for StreamError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error.to_string())
    }
}
