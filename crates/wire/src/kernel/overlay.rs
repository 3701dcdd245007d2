//! Pods of other nodes: a VXLAN interface, with a route, a neighbour and a forwarding entry for each peer.
//!
//! Nothing is learned and nothing is asked over the wire: every address is told by the API. Numbers: linux/if_link.h,
//! linux/neighbour.h; the UDP port is the one that flannel and k3s use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nix::errno::Errno;

use super::{Core, Settings, refused};
use crate::cidr::{Cidr, gateway, octets};
use crate::network::{Peer, WireError};
use crate::route::{self, Mac, Route};

const PORT: u16 = 8472;

/// The hardware address of a node's overlay interface. It follows from the node's pod range, so that nodes need not tell
/// each other.
pub fn overlay_mac(pod_cidr: &Cidr) -> Mac {
    let bytes = octets(gateway(pod_cidr));
    let tail = bytes.get(bytes.len() - 4..).unwrap_or_default();
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    mac[2..].copy_from_slice(tail);
    mac
}

/// What the kernel is told of a peer for one of its ranges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    range: (IpAddr, u8),
    gateway: IpAddr,
    node: IpAddr,
    mac: Mac,
}

/// The entries of all peers, or what is wrong with one.
fn entries(peers: &[Peer], own: &Cidr) -> Result<BTreeSet<Entry>, WireError> {
    let mut entries = BTreeSet::new();
    for peer in peers {
        for text in &peer.pod_cidrs {
            let range: Cidr = text.parse()?;
            if !range.is_v4() || !peer.node_address.is_ipv4() {
                return Err(WireError::Invalid(format!("node {}: the overlay needs IPv4 addresses", peer.name)));
            }
            if range.contains(own.network()) || own.contains(range.network()) {
                return Err(WireError::Invalid(format!(
                    "node {} has the pod range {range}, which overlaps this node's {own}",
                    peer.name
                )));
            }
            entries.insert(Entry {
                range: (range.network(), range.prefix()),
                gateway: gateway(&range),
                node: peer.node_address,
                mac: peer.overlay_mac,
            });
        }
    }
    Ok(entries)
}

impl Settings {
    pub(super) fn overlay(&self) -> String {
        format!("x{}", self.instance)
    }

    /// The network's number: the same on all nodes of a cluster, another for a cluster beside it.
    fn overlay_number(&self) -> u32 {
        let text = self.cluster.to_string();
        let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        (hash & 0x00ff_ffff).max(1)
    }
}

impl Core {
    /// Makes the overlay lead to exactly these peers.
    pub(super) fn set_peers(&self, peers: &[Peer]) -> Result<(), WireError> {
        let wanted = entries(peers, &self.settings.pod)?;
        let mut known = self.peers.lock();
        if wanted.is_empty() && known.is_empty() {
            return self.remove_overlay();
        }
        let link = self.overlay()?;
        for entry in known.difference(&wanted) {
            self.forget(link, entry)?;
        }
        for entry in &wanted {
            self.reach(link, entry)?;
        }
        self.remove_other_routes(link, &wanted)?;
        *known = wanted;
        Ok(())
    }

    fn overlay(&self) -> Result<u32, WireError> {
        let s = &self.settings;
        let name = s.overlay();
        let failed = |e| refused(&format!("interface {name}"), &e);
        let mac = overlay_mac(&s.pod);
        match self.host.request(route::new_vxlan(&name, mac, s.overlay_number(), s.node_ip, PORT, s.mtu)) {
            Err(e) if !e.is(Errno::EEXIST) => return Err(failed(e)),
            _ => {}
        }
        route::link(&self.host, &name).map(|link| link.index).map_err(failed)
    }

    fn reach(&self, link: u32, entry: &Entry) -> Result<(), WireError> {
        let messages = vec![
            route::neighbour(link, entry.gateway, entry.mac),
            route::forwarding(link, entry.mac, entry.node),
            self.route_to(link, entry).add(),
        ];
        self.host.requests(messages).map_err(|e| refused(&format!("overlay to node {}", entry.node), &e))
    }

    fn route_to(&self, link: u32, entry: &Entry) -> Route {
        Route {
            to: entry.range.0,
            prefix: entry.range.1,
            via: Some(entry.gateway),
            link,
            source: Some(self.settings.gateway),
            mtu: None,
        }
    }

    fn forget(&self, link: u32, entry: &Entry) -> Result<(), WireError> {
        for message in [
            self.route_to(link, entry).delete(),
            route::delete_neighbour(link, entry.gateway),
            route::delete_forwarding(link, entry.mac, entry.node),
        ] {
            match self.host.request(message) {
                Err(e) if !(e.is(Errno::ENOENT) || e.is(Errno::ESRCH)) => {
                    return Err(refused(&format!("overlay to node {}", entry.node), &e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Routes to nodes that an earlier process knew.
    fn remove_other_routes(&self, link: u32, wanted: &BTreeSet<Entry>) -> Result<(), WireError> {
        let failed = |e| refused("routes of the overlay", &e);
        let routes = route::routes(&self.host).map_err(failed)?;
        let stale = routes.iter().filter(|r| r.link == link && !wanted.iter().any(|e| e.range == (r.to, r.prefix)));
        self.host.requests(stale.map(Route::delete).collect()).map_err(failed)
    }

    pub(super) fn remove_overlay(&self) -> Result<(), WireError> {
        match route::link(&self.host, &self.settings.overlay()) {
            Ok(link) => self.delete_link(link.index),
            Err(e) if e.is(Errno::ENODEV) => Ok(()),
            Err(e) => Err(refused("the overlay's interface", &e)),
        }
    }
}
