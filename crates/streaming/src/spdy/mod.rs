//! SPDY/3.1 as far as Kubernetes clients use it: streams opened by the peer, header blocks, data, ping, reset and goaway.
//!
//! Flow-control windows are not used by those clients (`moby/spdystream` neither sends nor obeys them); back-pressure is that of
//! the connection.

mod frame;
mod headers;
mod session;

pub(crate) use session::{Session, Stream};
