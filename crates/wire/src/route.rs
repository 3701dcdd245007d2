//! Links, addresses, routes and neighbours: the rtnetlink messages that stead needs, and readers of the kernel's lists.
//!
//! Layouts and numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use crate::cidr::octets;
use crate::netlink::{Attrs, F_CREATE, F_EXCL, F_REPLACE, Msg, Reader, Refused, Socket};

/// Marks our routes ("proto 93" in listings), so that they are known again and never mixed up with others'.
pub(crate) const ROUTE_PROTOCOL: u8 = 93;
/// The loopback interface has this number in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const DEL_NEIGHBOUR: u16 = 29;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_STATE: u16 = 16;
/// `IF_OPER_UP` of linux/if.h.
const STATE_UP: u8 = 6;
const LINK_INFO: u16 = 18;
const LINK_ALIAS: u16 = 20;
const LINK_GROUP: u16 = 27;
const LINK_NETNS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const FLAG_UP: u32 = 1;

const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const TABLE_MAIN: u8 = 254;
const TYPE_UNICAST: u8 = 1;
const ON_LINK: u32 = 4;
const NEIGHBOUR_PERMANENT: u16 = 0x80;

/// How long an interface may take until packets pass it, without any interface changing meanwhile.
const PASSES_WITHIN_MS: i64 = 5000;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// An interface as the kernel lists it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mtu: u32,
    pub(crate) mac: Mac,
    /// Whether packets pass: up, connected, and its queue in place.
    pub(crate) passes: bool,
}

fn link_header(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        fixed[8..12].copy_from_slice(&FLAG_UP.to_ne_bytes());
        fixed[12..16].copy_from_slice(&FLAG_UP.to_ne_bytes());
    }
    fixed
}

/// One end of a pair of interfaces.
#[derive(Debug)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
}

/// A pair of interfaces: `here` in the socket's namespace, up; `there` in that of the descriptor, or here too. The
/// kernel refuses to make the other end up in the same message.
pub(crate) fn new_pair(here: &End<'_>, there: &End<'_>, namespace: Option<RawFd>, mtu: u32) -> Msg {
    let mut peer = Attrs::with_fixed(&link_header(0, false))
        .text(LINK_NAME, there.name)
        .attr(LINK_ADDRESS, &there.mac)
        .attr(LINK_MTU, &mtu.to_ne_bytes());
    if let Some(namespace) = namespace {
        peer = peer.attr(LINK_NETNS_FD, &namespace.to_ne_bytes());
    }
    let info = Attrs::new().attr(INFO_KIND, b"veth").nest(INFO_DATA, Attrs::new().nest(VETH_PEER, peer));
    Msg::new(NEW_LINK, F_CREATE | F_EXCL, &link_header(0, true))
        .text(LINK_NAME, here.name)
        .attr(LINK_ADDRESS, &here.mac)
        .attr(LINK_MTU, &mtu.to_ne_bytes())
        .nest(LINK_INFO, info)
}

/// A VXLAN interface, up, that learns nothing by itself.
pub(crate) fn new_vxlan(name: &str, mac: Mac, number: u32, local: IpAddr, port: u16, mtu: u32) -> Msg {
    let data =
        Attrs::new().attr(1, &number.to_ne_bytes()).attr(4, &octets(local)).attr(7, &[0]).attr(15, &port.to_be_bytes());
    let info = Attrs::new().attr(INFO_KIND, b"vxlan").nest(INFO_DATA, data);
    Msg::new(NEW_LINK, F_CREATE | F_EXCL, &link_header(0, true))
        .text(LINK_NAME, name)
        .attr(LINK_ADDRESS, &mac)
        .attr(LINK_MTU, &mtu.to_ne_bytes())
        .nest(LINK_INFO, info)
}

pub(crate) fn link_up(index: u32) -> Msg {
    Msg::new(NEW_LINK, 0, &link_header(index, true))
}

/// Writes the note (up to 255 bytes) that an interface carries.
pub(crate) fn link_alias(index: u32, alias: &str) -> Msg {
    Msg::new(NEW_LINK, 0, &link_header(index, false)).attr(LINK_ALIAS, alias.as_bytes())
}

/// Puts an interface into a group.
pub(crate) fn link_group(index: u32, group: u32) -> Msg {
    Msg::new(NEW_LINK, 0, &link_header(index, false)).attr(LINK_GROUP, &group.to_ne_bytes())
}

/// Removes all interfaces of a group at once.
pub(crate) fn delete_group(group: u32) -> Msg {
    Msg::new(DEL_LINK, 0, &link_header(0, false)).attr(LINK_GROUP, &group.to_ne_bytes())
}

pub(crate) fn delete_link(index: u32) -> Msg {
    Msg::new(DEL_LINK, 0, &link_header(index, false))
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Whether an address may be chosen as a source by the kernel itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Universe,
    /// Local, but never chosen for traffic that does not ask for it.
    Host,
}

fn address_message(kind: u16, flags: u16, index: u32, address: IpAddr, scope: Scope) -> Msg {
    let scope = match scope {
        Scope::Universe => SCOPE_UNIVERSE,
        Scope::Host => SCOPE_HOST,
    };
    // No duplicate-address detection (flag 2): the address is ours and usable at once.
    let mut fixed = [family(address), full_prefix(address), 2, scope, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(address);
    Msg::new(kind, flags, &fixed).attr(2, &bytes).attr(1, &bytes)
}

pub(crate) fn add_address(index: u32, address: IpAddr, scope: Scope) -> Msg {
    address_message(NEW_ADDRESS, F_CREATE | F_REPLACE, index, address, scope)
}

/// A route of ours in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) via: Option<IpAddr>,
    pub(crate) link: u32,
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu: Option<u32>,
}

impl Route {
    /// A route to a single address on the other end of a link.
    pub(crate) fn host(to: IpAddr, link: u32, source: Option<IpAddr>) -> Self {
        Self { to, prefix: full_prefix(to), via: None, link, source, mtu: None }
    }

    /// The default route; the gateway need not be reachable by any other route.
    pub(crate) fn default(via: IpAddr, link: u32) -> Self {
        let any: IpAddr = match via {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self { to: any, prefix: 0, via: Some(via), link, source: None, mtu: None }
    }

    fn message(&self, kind: u16, flags: u16) -> Msg {
        let scope = if self.via.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
        let on_link = if self.via.is_some() { ON_LINK } else { 0 };
        let mut fixed =
            [family(self.to), self.prefix, 0, 0, TABLE_MAIN, ROUTE_PROTOCOL, scope, TYPE_UNICAST, 0, 0, 0, 0];
        fixed[8..12].copy_from_slice(&on_link.to_ne_bytes());
        let mut message = Msg::new(kind, flags, &fixed).attr(4, &self.link.to_ne_bytes());
        if self.prefix > 0 {
            message = message.attr(1, &octets(self.to));
        }
        if let Some(via) = self.via {
            message = message.attr(5, &octets(via));
        }
        if let Some(source) = self.source {
            message = message.attr(7, &octets(source));
        }
        if let Some(mtu) = self.mtu {
            message = message.nest(8, Attrs::new().attr(2, &mtu.to_ne_bytes()));
        }
        message
    }

    pub(crate) fn add(&self) -> Msg {
        self.message(NEW_ROUTE, F_CREATE | F_REPLACE)
    }

    pub(crate) fn delete(&self) -> Msg {
        self.message(DEL_ROUTE, 0)
    }
}

fn neighbour_header(family: u8, link: u32, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&link.to_ne_bytes());
    fixed[8..10].copy_from_slice(&NEIGHBOUR_PERMANENT.to_ne_bytes());
    fixed[10] = flags;
    fixed
}

/// A fixed entry of the neighbour table: no address resolution is ever needed for it.
pub(crate) fn neighbour(link: u32, address: IpAddr, mac: Mac) -> Msg {
    let fixed = neighbour_header(family(address), link, 0);
    Msg::new(NEW_NEIGHBOUR, F_CREATE | F_REPLACE, &fixed).attr(1, &octets(address)).attr(2, &mac)
}

pub(crate) fn delete_neighbour(link: u32, address: IpAddr) -> Msg {
    Msg::new(DEL_NEIGHBOUR, 0, &neighbour_header(family(address), link, 0)).attr(1, &octets(address))
}

/// Behind which node's address a hardware address is, for a VXLAN interface.
pub(crate) fn forwarding(link: u32, mac: Mac, node: IpAddr) -> Msg {
    forwarding_message(NEW_NEIGHBOUR, F_CREATE | F_REPLACE, link, mac, node)
}

pub(crate) fn delete_forwarding(link: u32, mac: Mac, node: IpAddr) -> Msg {
    forwarding_message(DEL_NEIGHBOUR, 0, link, mac, node)
}

fn forwarding_message(kind: u16, flags: u16, link: u32, mac: Mac, node: IpAddr) -> Msg {
    const BRIDGE: u8 = 7;
    const OF_THE_INTERFACE_ITSELF: u8 = 2;
    let fixed = neighbour_header(BRIDGE, link, OF_THE_INTERFACE_ITSELF);
    Msg::new(kind, flags, &fixed).attr(2, &mac).attr(1, &octets(node))
}

/// All interfaces of the socket's namespace.
pub(crate) fn links(socket: &Socket) -> Result<Vec<Link>, Refused> {
    let items = socket.dump(Msg::new(GET_LINK, 0, &link_header(0, false)))?;
    Ok(items.iter().filter_map(|body| read_link(body)).collect())
}

/// The interface of that name.
pub(crate) fn link(socket: &Socket, name: &str) -> Result<Link, Refused> {
    let body = socket.get(Msg::new(GET_LINK, 0, &link_header(0, false)).text(LINK_NAME, name))?;
    read_link(&body).ok_or_else(Refused::malformed)
}

/// Waits until packets pass an interface. The kernel puts the queue of a pair's first end in place only some time after
/// the second end came up, and silently drops every packet until then.
pub(crate) fn until_it_passes(name: &str) -> io::Result<()> {
    let events = Socket::open_for_link_changes(crate::netns::ROUTE, PASSES_WITHIN_MS)?;
    let watch = Socket::open(crate::netns::ROUTE)?;
    while !link(&watch, name).map_err(|e| e.error)?.passes {
        events.changed()?;
    }
    Ok(())
}

fn read_link(body: &[u8]) -> Option<Link> {
    let attributes = Reader(body.get(16..)?);
    Some(Link {
        index: u32_at(body, 4)?,
        name: attributes.text(LINK_NAME)?,
        alias: attributes.text(LINK_ALIAS),
        mtu: attributes.u32(LINK_MTU).unwrap_or(1500),
        passes: attributes.get(LINK_STATE) == Some(&[STATE_UP]),
        mac: attributes.get(LINK_ADDRESS).and_then(|b| b.try_into().ok()).unwrap_or_default(),
    })
}

/// All addresses with the number of their interface.
pub(crate) fn addresses(socket: &Socket) -> Result<Vec<(u32, IpAddr)>, Refused> {
    let items = socket.dump(Msg::new(GET_ADDRESS, 0, &[0; 8]))?;
    Ok(items.iter().filter_map(|body| read_address(body)).collect())
}

fn read_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let attributes = Reader(body.get(8..)?);
    let value = attributes.get(2).or_else(|| attributes.get(1))?;
    Some((u32_at(body, 4)?, address_of(value)?))
}

/// Our own routes.
pub(crate) fn routes(socket: &Socket) -> Result<Vec<Route>, Refused> {
    let items = socket.dump(Msg::new(GET_ROUTE, 0, &[0; 12]))?;
    Ok(items.iter().filter_map(|body| read_route(body)).collect())
}

fn read_route(body: &[u8]) -> Option<Route> {
    if *body.get(5)? != ROUTE_PROTOCOL || *body.get(4)? != TABLE_MAIN {
        return None;
    }
    let attributes = Reader(body.get(12..)?);
    Some(Route {
        to: address_of(attributes.get(1)?)?,
        prefix: *body.get(1)?,
        via: attributes.get(5).and_then(address_of),
        link: attributes.u32(4)?,
        source: attributes.get(7).and_then(address_of),
        mtu: None,
    })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
