//! The fixed part of the rules: chains, sets, and the chains that choose one of N backends.
//!
//! A service port is one element of a verdict map, which leads to the chain for its number of backends; the backends are
//! elements of one big map with the key (address, protocol, port, number). So a change of endpoints is a change of a few
//! elements, never of a rule, and all services together need no more chains than there are different numbers of backends.

use super::message::{
    Change, Expression, Field, Hook, Maps, SetForm, change, come_from, constant, contained, destination,
    destination_is_local, destination_is_not, discard, dispatch, in_range, incoming, jump, mapped, masquerade,
    new_chain, new_rule, new_set, new_table, outgoing, outgoing_exactly, port, protocol, random, redirect, reject,
    reset, source, was_redirected,
};
use crate::cidr::{Cidr, octets};
use crate::netlink::Msg;

/// Changes with every change of this file that a running table must follow.
const LAYOUT_VERSION: u32 = 3;
/// Clients that are remembered for session affinity, all services together; more are balanced without memory.
const AFFINITY_CLIENTS_MAX: u32 = 131_072;
/// The address in the key of node ports.
const ANY_ADDRESS: [u8; 4] = [0; 4];

/// What the fixed rules depend on.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) instance: String,
    /// How the host's ends of pods' interfaces are named.
    pub(crate) link_prefix: String,
    /// The interface to other nodes' pods, whether it is there or not.
    pub(crate) overlay: String,
    pub(crate) pod: Cidr,
    pub(crate) cluster: Cidr,
    pub(crate) service: Cidr,
    pub(crate) gateway: std::net::IpAddr,
    pub(crate) cluster_dns: std::net::IpAddr,
}

/// The sets and maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Set {
    Services,
    NodePorts,
    Endpoints,
    /// Backends of ports with affinity, to forget a client's backend that is gone.
    Alive,
    Affinity,
    /// Pairs of the same address: a pod that reaches itself through a service.
    Hairpin,
    Dead,
    DeadNodePorts,
    HostPorts,
}

pub(super) const SETS: [Set; 9] = [
    Set::Services,
    Set::NodePorts,
    Set::Endpoints,
    Set::Alive,
    Set::Affinity,
    Set::Hairpin,
    Set::Dead,
    Set::DeadNodePorts,
    Set::HostPorts,
];

impl Set {
    pub(super) fn form(self) -> SetForm {
        use Field::{Address, Number, Port, Protocol};
        let (name, key, maps): (_, &'static [Field], _) = match self {
            Self::Services => ("services", &[Address, Protocol, Port], Maps::Verdict),
            Self::NodePorts => ("node-ports", &[Protocol, Port], Maps::Verdict),
            Self::Endpoints => ("endpoints", &[Address, Protocol, Port, Number], Maps::Backend),
            Self::Alive => ("alive", &[Address, Protocol, Port, Address, Port], Maps::Nothing),
            Self::Affinity => ("affinity", &[Address, Address, Protocol, Port], Maps::Backend),
            Self::Hairpin => ("hairpin", &[Address, Address], Maps::Nothing),
            Self::Dead => ("dead", &[Address, Protocol, Port], Maps::Nothing),
            Self::DeadNodePorts => ("dead-node-ports", &[Protocol, Port], Maps::Nothing),
            Self::HostPorts => ("host-ports", &[Address, Protocol, Port], Maps::Backend),
        };
        let dynamic = (self == Self::Affinity).then_some(AFFINITY_CLIENTS_MAX);
        SetForm { name, key, maps, dynamic }
    }

    pub(super) fn name(self) -> &'static str {
        self.form().name
    }
}

/// A chain that sends a connection to one of `count` backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Balancer {
    pub(super) node_port: bool,
    pub(super) count: u32,
    pub(super) affinity_seconds: Option<u32>,
}

impl Balancer {
    pub(super) fn name(self) -> String {
        let kind = if self.node_port { "node-port" } else { "service" };
        match self.affinity_seconds {
            None => format!("{kind}-{}", self.count),
            Some(seconds) => format!("{kind}-{}-{seconds}", self.count),
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (node_port, rest) = match name.strip_prefix("node-port-") {
            Some(rest) => (true, rest),
            None => (false, name.strip_prefix("service-")?),
        };
        let (count, seconds) = match rest.split_once('-') {
            Some((count, seconds)) => (count, Some(seconds.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { node_port, count: count.parse().ok()?, affinity_seconds: seconds })
    }

    pub(super) fn messages(self, table: &str) -> Vec<Msg> {
        let name = self.name();
        let mut messages = vec![new_chain(table, &name, None)];
        messages.extend(self.rules().iter().map(|rule| new_rule(table, &name, rule)));
        messages
    }

    fn rules(self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if let Some(seconds) = self.affinity_seconds {
            rules.push(self.remembered(seconds));
            rules.push(self.forget(seconds));
        }
        if self.count > 1 {
            rules.push(self.choose(|to| random(to, self.count)));
        }
        // Number 0 is always there: for the packet that saw the old count and the new backends.
        rules.push(self.choose(|to| constant(to, &0u32.to_ne_bytes())));
        rules
    }

    /// Loads address, protocol and port of the frontend into three registers from `first` on.
    fn frontend(self, first: u32) -> Vec<Expression> {
        let address = if self.node_port { constant(first, &ANY_ADDRESS) } else { destination(first) };
        vec![address, protocol(first + 1), port(first + 2)]
    }

    fn remembered(self, seconds: u32) -> Vec<Expression> {
        let mut rule = vec![source(0)];
        rule.extend(self.frontend(1));
        rule.extend([
            mapped(Set::Affinity.name(), 0, 4),
            contained(Set::Alive.name(), 1),
            change(Set::Affinity.name(), Change::Renew, 0, 4, seconds),
            redirect(4),
        ]);
        rule
    }

    fn forget(self, seconds: u32) -> Vec<Expression> {
        let mut rule = vec![source(0)];
        rule.extend(self.frontend(1));
        rule.extend([mapped(Set::Affinity.name(), 0, 4), change(Set::Affinity.name(), Change::Remove, 0, 4, seconds)]);
        rule
    }

    fn choose(self, number: impl Fn(u32) -> Expression) -> Vec<Expression> {
        let mut rule = self.frontend(1);
        rule.extend([number(4), mapped(Set::Endpoints.name(), 1, 8)]);
        if let Some(seconds) = self.affinity_seconds {
            rule.extend([source(0), change(Set::Affinity.name(), Change::Renew, 0, 8, seconds)]);
        }
        rule.push(redirect(8));
        rule
    }
}

type Rule = Vec<Expression>;
/// A fixed chain: its name, where it hangs, and its rules.
type Chain = (&'static str, Option<Hook>, Vec<Rule>);

impl Surroundings {
    pub(super) fn table(&self) -> String {
        format!("stead-{}", self.instance)
    }

    /// A chain without rules whose name tells which layout a table has.
    pub(super) fn mark(&self) -> String {
        let text = format!("{LAYOUT_VERSION} {self:?}");
        let hash =
            text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        format!("layout-{hash:016x}")
    }

    /// The table with everything that does not depend on services.
    pub(super) fn messages(&self) -> Vec<Msg> {
        let table = self.table();
        let mut messages = vec![new_table(&table), new_chain(&table, &self.mark(), None)];
        for (id, set) in (1..).zip(SETS) {
            messages.push(new_set(&table, &set.form(), id));
        }
        let chains = self.chains();
        messages.extend(chains.iter().map(|(name, hook, _)| new_chain(&table, name, *hook)));
        for (name, _, rules) in &chains {
            messages.extend(rules.iter().map(|rule| new_rule(&table, name, rule)));
        }
        messages
    }

    fn chains(&self) -> Vec<Chain> {
        let nat = |number, priority| Some(Hook { kind: "nat", number, priority });
        let filter = |number, priority| Some(Hook { kind: "filter", number, priority });
        vec![
            ("services", None, services()),
            ("refuse", None, refuse()),
            ("deny", None, vec![reset().to_vec(), vec![reject()]]),
            ("prerouting", nat(0, -100), vec![vec![jump("services")]]),
            ("local", nat(3, -100), vec![vec![jump("services")]]),
            ("postrouting", nat(4, 100), self.postrouting()),
            ("guard", filter(0, -300), vec![self.guard()]),
            ("input", filter(1, 0), vec![vec![jump("refuse")]]),
            ("forward", filter(2, 0), vec![vec![jump("refuse")], self.unused_address()]),
            ("output", filter(3, 0), vec![vec![jump("refuse")], self.unused_address()]),
        ]
    }

    fn range(&self, load: Expression, range: &Cidr, inside: bool) -> [Expression; 3] {
        in_range(load, &octets(range.network()), &range.mask_bytes(), inside)
    }

    fn postrouting(&self) -> Vec<Rule> {
        let own: Cidr = Cidr::loopback();
        let link = self.link_prefix.as_str();
        let gateway = octets(self.gateway);
        let mut hairpin = Vec::new();
        hairpin.extend(was_redirected());
        hairpin.extend(outgoing(link, true));
        hairpin.extend([source(0), destination(1), contained(Set::Hairpin.name(), 0)]);
        hairpin.extend(come_from(&gateway));
        // Somebody on the host called 127.0.0.1:<node port>.
        let mut loopback = Vec::new();
        loopback.extend(self.range(source(0), &own, true));
        loopback.extend(outgoing(link, true));
        loopback.extend(come_from(&gateway));
        // A foreign caller whose backend is on another node: the answer has to come back by the overlay.
        let mut across = Vec::new();
        across.extend(was_redirected());
        across.extend(self.range(source(0), &self.cluster, false));
        across.extend(outgoing_exactly(&self.overlay, true));
        across.extend(come_from(&gateway));
        // A foreign caller whose backend is elsewhere: the answer has to come back through this node.
        let mut passing = Vec::new();
        passing.extend(was_redirected());
        passing.extend(self.range(source(0), &self.cluster, false));
        passing.extend(outgoing(link, false));
        passing.extend(outgoing_exactly("lo", false));
        passing.push(masquerade());
        let mut leaving = Vec::new();
        leaving.extend(self.range(source(0), &self.pod, true));
        leaving.extend(self.range(destination(0), &self.cluster, false));
        leaving.extend(outgoing(link, false));
        leaving.extend(outgoing_exactly("lo", false));
        leaving.push(masquerade());
        vec![hairpin, loopback, across, passing, leaving]
    }

    /// No pod reaches what listens on the host's 127.0.0.1.
    fn guard(&self) -> Vec<Expression> {
        let mut rule = Vec::new();
        rule.extend(incoming(&self.link_prefix));
        rule.extend(self.range(destination(0), &Cidr::loopback(), true));
        rule.push(discard());
        rule
    }

    /// Refuses what is left for the service range after all services had their turn.
    fn unused_address(&self) -> Vec<Expression> {
        let mut rule = Vec::new();
        rule.extend(self.range(destination(0), &self.service, true));
        rule.extend(destination_is_not(&octets(self.cluster_dns)));
        rule.push(jump("deny"));
        rule
    }
}

fn services() -> Vec<Rule> {
    let frontend = || vec![destination(0), protocol(1), port(2)];
    let mut by_address = frontend();
    by_address.push(dispatch(Set::Services.name(), 0));
    let mut host_port = frontend();
    host_port.extend([mapped(Set::HostPorts.name(), 0, 4), redirect(4)]);
    let mut node_port = destination_is_local().to_vec();
    node_port.extend([protocol(1), port(2), dispatch(Set::NodePorts.name(), 1)]);
    let mut any_host_port = destination_is_local().to_vec();
    any_host_port.extend([constant(0, &ANY_ADDRESS), protocol(1), port(2)]);
    any_host_port.extend([mapped(Set::HostPorts.name(), 0, 4), redirect(4)]);
    vec![by_address, host_port, node_port, any_host_port]
}

fn refuse() -> Vec<Rule> {
    let by_address = vec![destination(0), protocol(1), port(2), contained(Set::Dead.name(), 0), jump("deny")];
    let mut node_port = destination_is_local().to_vec();
    node_port.extend([protocol(1), port(2), contained(Set::DeadNodePorts.name(), 1), jump("deny")]);
    vec![by_address, node_port]
}
