//! The changing part of the rules as data: what a service table needs, and the difference between two states. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::layout::{Balancer, Set};
use super::message::{Target, delete_chain, delete_elements, new_elements};
use crate::cidr::octets;
use crate::netlink::Msg;
use crate::network::{Backend, Frontend, HostPort, Protocol, ServiceEntry, ServiceTable};

/// Chains and elements that are in the kernel, or shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) balancers: BTreeSet<Balancer>,
    pub(super) elements: BTreeMap<(Set, Vec<u8>), Target>,
}

/// Fields of a key are padded to four bytes.
fn number(protocol: Protocol) -> [u8; 4] {
    match protocol {
        Protocol::Tcp => [6, 0, 0, 0],
        Protocol::Udp => [17, 0, 0, 0],
        Protocol::Sctp => [132, 0, 0, 0],
    }
}

fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn v4(address: IpAddr) -> Option<Vec<u8>> {
    address.is_ipv4().then(|| octets(address))
}

impl State {
    /// What the table needs. Entries and backends of IPv6 are passed over.
    pub(super) fn of(table: &ServiceTable) -> Self {
        let mut state = Self::default();
        for entry in &table.entries {
            state.add(entry);
        }
        state
    }

    fn put(&mut self, set: Set, key: Vec<u8>, target: Target) {
        self.elements.insert((set, key), target);
    }

    fn add(&mut self, entry: &ServiceEntry) {
        let (address, node_port) = match entry.frontend {
            Frontend::Address(address) => match v4(address) {
                Some(bytes) => (bytes, false),
                None => return,
            },
            Frontend::NodePort => (vec![0; 4], true),
        };
        let service = join(&[&number(entry.protocol), &port(entry.port)]);
        let full = join(&[&address, &service]);
        let key = if node_port { service } else { full.clone() };
        let backends: Vec<Vec<u8>> = entry.backends.iter().filter_map(bytes_of).collect();
        let Some(count) = u32::try_from(backends.len()).ok().filter(|count| *count > 0) else {
            let set = if node_port { Set::DeadNodePorts } else { Set::Dead };
            self.put(set, key, Target::Nothing);
            return;
        };
        let balancer = Balancer { node_port, count, affinity_seconds: entry.affinity_seconds };
        self.balancers.insert(balancer);
        let set = if node_port { Set::NodePorts } else { Set::Services };
        self.put(set, key, Target::Chain(balancer.name()));
        for (place, backend) in (0u32..).zip(backends) {
            self.put(Set::Endpoints, join(&[&full, &place.to_ne_bytes()]), Target::Value(backend.clone()));
            if entry.affinity_seconds.is_some() {
                self.put(Set::Alive, join(&[&full, &backend]), Target::Nothing);
            }
            self.put(Set::Hairpin, join(&[&backend[..4], &backend[..4]]), Target::Nothing);
        }
    }

    /// Adds a pod's host ports.
    pub(super) fn add_host_ports(&mut self, address: IpAddr, ports: &[HostPort]) {
        let Some(pod) = v4(address) else { return };
        for entry in ports {
            let host = entry.host_ip.and_then(v4).unwrap_or_else(|| vec![0; 4]);
            let key = join(&[&host, &number(entry.protocol), &port(entry.host_port)]);
            let value = join(&[&pod, &port(entry.container_port)]);
            self.put(Set::HostPorts, key, Target::Value(value));
        }
        if !ports.is_empty() {
            self.put(Set::Hairpin, join(&[&pod, &pod]), Target::Nothing);
        }
    }

    /// Keeps only host ports, with the pairs that they need.
    pub(super) fn host_ports(&self) -> Self {
        let mut kept = Self::default();
        for ((set, key), target) in &self.elements {
            if let (Set::HostPorts, Target::Value(value)) = (set, target) {
                kept.put(*set, key.clone(), target.clone());
                kept.put(Set::Hairpin, join(&[&value[..4], &value[..4]]), Target::Nothing);
            }
        }
        kept
    }

    pub(super) fn has_host_ports_of(&self, address: IpAddr) -> bool {
        let pod = octets(address);
        let host_ports =
            self.elements.range((Set::HostPorts, Vec::new())..).take_while(|((set, _), _)| *set == Set::HostPorts);
        host_ports.into_iter().any(|(_, target)| matches!(target, Target::Value(value) if value.starts_with(&pod)))
    }

    pub(super) fn remove_host_ports_of(&mut self, address: IpAddr) {
        let pod = octets(address);
        self.elements.retain(|(set, _), target| match target {
            Target::Value(value) => *set != Set::HostPorts || !value.starts_with(&pod),
            Target::Nothing | Target::Chain(_) => true,
        });
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.balancers.extend(other.balancers);
        self.elements.extend(other.elements);
    }

    /// The messages that lead from this state to `next`. Chains come before what leads to them and go after it.
    pub(super) fn messages_to(&self, next: &Self, table: &str) -> Vec<Msg> {
        let mut messages: Vec<Msg> =
            next.balancers.difference(&self.balancers).flat_map(|balancer| balancer.messages(table)).collect();
        let (old, new) = (&self.elements, &next.elements);
        let removed = old.iter().filter(|(key, target)| new.get(*key) != Some(*target));
        for (set, list) in by_set(removed) {
            messages.extend(delete_elements(table, set.name(), &list));
        }
        let added = new.iter().filter(|(key, target)| old.get(*key) != Some(*target));
        for (set, list) in by_set(added) {
            messages.extend(new_elements(table, set.name(), &list));
        }
        let unused = self.balancers.difference(&next.balancers);
        messages.extend(unused.map(|balancer| delete_chain(table, &balancer.name())));
        messages
    }

    /// UDP flows that the change to `next` leaves pointing to a backend that is gone: the backend with its port.
    pub(super) fn lost_udp(&self, next: &Self) -> BTreeSet<Backend> {
        let backends = |state: &Self| -> BTreeSet<Backend> {
            let udp = state.elements.iter().filter_map(|((set, key), target)| match (set, target) {
                (Set::Endpoints, Target::Value(value)) if key[4] == 17 => read_backend(value),
                _ => None,
            });
            udp.collect()
        };
        let kept = backends(next);
        backends(self).into_iter().filter(|backend| !kept.contains(backend)).collect()
    }
}

type Elements<'a> = Vec<(&'a [u8], &'a Target)>;

fn by_set<'a>(elements: impl Iterator<Item = (&'a (Set, Vec<u8>), &'a Target)>) -> BTreeMap<Set, Elements<'a>> {
    let mut sets: BTreeMap<Set, Elements<'a>> = BTreeMap::new();
    for ((set, key), target) in elements {
        sets.entry(*set).or_default().push((key.as_slice(), target));
    }
    sets
}

fn bytes_of(backend: &Backend) -> Option<Vec<u8>> {
    Some(join(&[&v4(backend.address)?, &port(backend.port)]))
}

fn read_backend(value: &[u8]) -> Option<Backend> {
    let address: [u8; 4] = value.get(..4)?.try_into().ok()?;
    let port = u16::from_be_bytes(value.get(4..6)?.try_into().ok()?);
    Some(Backend { address: address.into(), port })
}
