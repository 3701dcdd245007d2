//! Forgets the flows of UDP clients whose backend is gone, so that their next packet is led to a living one.
//!
//! Connection tracking remembers where a flow goes, and a client that sends again and again from one port keeps the
//! memory alive for ever. Layouts: linux/netfilter/nfnetlink_conntrack.h.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use crate::netlink::{Attrs, Msg, Reader, Refused, Socket};
use crate::network::Backend;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `nfgenmsg`: IPv4, version 0, no resource.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE_ADDRESS: u16 = 1;
const PROTOCOL_NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const UDP: u8 = 17;

/// Removes every UDP flow that leads to one of `backends`.
pub(super) fn forget_udp(socket: &Socket, backends: &BTreeSet<Backend>) -> Result<(), Refused> {
    if backends.is_empty() {
        return Ok(());
    }
    let flows = socket.dump(Msg::new(GET, 0, &HEADER))?;
    for flow in &flows {
        let attributes = Reader(flow.get(4..).unwrap_or_default());
        let answers_from = attributes.get(REPLY).and_then(read_source);
        if !answers_from.is_some_and(|from| backends.contains(&from)) {
            continue;
        }
        let Some(original) = attributes.get(ORIGINAL) else { continue };
        match socket.request(Msg::new(DELETE, 0, &HEADER).nest(ORIGINAL, Attrs::with_fixed(original))) {
            Err(error) if !error.is(Errno::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The source of a UDP tuple.
fn read_source(tuple: &[u8]) -> Option<Backend> {
    let tuple = Reader(tuple);
    let protocol = Reader(tuple.get(TUPLE_PROTOCOL)?);
    if protocol.get(PROTOCOL_NUMBER)? != [UDP] {
        return None;
    }
    let address: [u8; 4] = Reader(tuple.get(TUPLE_ADDRESSES)?).get(SOURCE_ADDRESS)?.try_into().ok()?;
    let port: [u8; 2] = protocol.get(SOURCE_PORT)?.try_into().ok()?;
    Some(Backend { address: IpAddr::from(address), port: u16::from_be_bytes(port) })
}
