//! Service rules in the kernel's packet filter: one table for each instance, changed by difference in one transaction.

mod conntrack;
mod foreign;
mod layout;
mod message;
#[cfg(test)]
mod root_others;
mod state;

use std::net::IpAddr;

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::netlink::{Msg, Reader, Refused, Socket};
use crate::network::{HostPort, ServiceTable, WireError};

pub(crate) use layout::Surroundings;

use layout::{Balancer, SETS, Set};
use message::{Target, begin, delete_table, end, list_chains, list_elements};
use state::State;

/// `NETLINK_NETFILTER` of linux/netlink.h.
pub(crate) const NETFILTER: isize = 12;

/// The rules of one instance.
#[derive(Debug)]
pub(crate) struct Rules {
    surroundings: Surroundings,
    socket: Socket,
    /// What is in the kernel as far as we know; `None`: look first.
    known: Mutex<Option<State>>,
}

impl Rules {
    pub(crate) fn open(surroundings: Surroundings) -> Result<Self, WireError> {
        let context = || "open a socket to the packet filter".to_owned();
        let socket = Socket::open(NETFILTER).map_err(|source| WireError::Io { context: context(), source })?;
        socket.enlarge().map_err(|source| WireError::Io { context: context(), source })?;
        Ok(Self { surroundings, socket, known: Mutex::new(None) })
    }

    /// Makes sure that the fixed rules are there. What an earlier process put into them stays.
    pub(crate) fn prepare(&self) -> Result<(), WireError> {
        self.change(Clone::clone)?;
        self.admit()
    }

    /// Puts right what others did to the rules since: a table that they flushed, a firewall that they set up.
    pub(crate) fn mend(&self) -> Result<(), WireError> {
        let mut known = self.known.lock();
        let Some(state) = known.as_ref() else { return Ok(()) };
        if self.look_for_mark().map_err(|e| self.failed(&e))? {
            drop(known);
            return self.admit();
        }
        tracing::warn!("the service rules were removed by somebody else, making them anew");
        let (messages, _, wanted) = self.anew(&Clone::clone, state.clone());
        self.send(messages).map_err(|e| self.failed(&e))?;
        *known = Some(wanted);
        drop(known);
        self.admit()
    }

    fn admit(&self) -> Result<(), WireError> {
        let (instance, link) = (&self.surroundings.instance, &self.surroundings.link_prefix);
        foreign::admit(&self.socket, instance, link).map_err(|error| WireError::Kernel {
            object: "a firewall that drops forwarded packets".into(),
            cause: error.to_string(),
        })
    }

    /// Makes the rules equal to `table`.
    pub(crate) fn set_services(&self, table: &ServiceTable) -> Result<(), WireError> {
        let wanted = State::of(table);
        self.change(|now| {
            let mut next = wanted.clone();
            next.merge(now.host_ports());
            next
        })
    }

    /// Leads the host's ports to a pod; with none, takes back what leads to it.
    pub(crate) fn set_host_ports(&self, address: IpAddr, ports: &[HostPort]) -> Result<(), WireError> {
        if ports.is_empty() && self.known.lock().as_ref().is_some_and(|now| !now.has_host_ports_of(address)) {
            return Ok(());
        }
        self.change(|now| {
            let mut next = now.clone();
            next.remove_host_ports_of(address);
            next.add_host_ports(address, ports);
            next
        })
    }

    /// Removes the table with everything in it.
    pub(crate) fn remove(&self) -> Result<(), WireError> {
        let mut known = self.known.lock();
        *known = None;
        foreign::withdraw(&self.socket, &self.surroundings.instance).map_err(|e| self.failed(&e))?;
        match self.send(vec![delete_table(&self.surroundings.table())]) {
            Err(error) if !error.is(Errno::ENOENT) => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    /// Brings the kernel from what is known to what `next` says; looks anew when somebody else changed the table.
    fn change(&self, next: impl Fn(&State) -> State) -> Result<(), WireError> {
        let mut known = self.known.lock();
        if let Some(now) = known.as_ref() {
            let wanted = next(now);
            if *now == wanted {
                return Ok(());
            }
            match self.send(now.messages_to(&wanted, &self.surroundings.table())) {
                Ok(()) => {
                    self.forget_flows(now, &wanted);
                    *known = Some(wanted);
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(%error, "the service rules were changed by somebody else, making them anew")
                }
            }
        }
        let now = self.look().map_err(|e| self.failed(&e))?;
        let (messages, old, wanted) = match now {
            Some(now) if known.is_none() => {
                let wanted = next(&now);
                (now.messages_to(&wanted, &self.surroundings.table()), now, wanted)
            }
            seen => self.anew(&next, seen.or(known.take()).unwrap_or_default()),
        };
        *known = None;
        self.send(messages).map_err(|e| self.failed(&e))?;
        self.forget_flows(&old, &wanted);
        *known = Some(wanted);
        Ok(())
    }

    /// The whole table in one transaction, in place of one that may be there.
    fn anew(&self, next: &impl Fn(&State) -> State, old: State) -> (Vec<Msg>, State, State) {
        let table = self.surroundings.table();
        let wanted = next(&old);
        // Making a table that exists is no error, removing one that does not is: so make, remove, make.
        let mut messages = vec![message::new_table(&table), delete_table(&table)];
        messages.extend(self.surroundings.messages());
        messages.extend(State::default().messages_to(&wanted, &table));
        (messages, old, wanted)
    }

    fn forget_flows(&self, old: &State, new: &State) {
        if let Err(error) = conntrack::forget_udp(&self.socket, &old.lost_udp(new)) {
            // The rules are right; only old UDP clients may go on to a backend that is gone until they pause.
            tracing::warn!(%error, "cannot forget the UDP flows of backends that are gone");
        }
    }

    fn send(&self, messages: Vec<Msg>) -> Result<(), Refused> {
        if messages.is_empty() {
            return Ok(());
        }
        self.socket.transaction(begin(), messages, end())
    }

    fn failed(&self, error: &Refused) -> WireError {
        WireError::Kernel {
            object: format!("service rules (table {})", self.surroundings.table()),
            cause: error.to_string(),
        }
    }

    /// Whether the table is there, in today's layout.
    fn look_for_mark(&self) -> Result<bool, Refused> {
        let (table, mark) = (self.surroundings.table(), self.surroundings.mark());
        let is_mark = |item: &Vec<u8>| {
            let attributes = Reader(item.get(4..).unwrap_or_default());
            attributes.text(1).as_ref() == Some(&table) && attributes.text(3).as_ref() == Some(&mark)
        };
        Ok(self.socket.dump(list_chains())?.iter().any(is_mark))
    }

    /// Reads what is in the kernel; `None` when there is no table of today's layout.
    fn look(&self) -> Result<Option<State>, Refused> {
        let table = self.surroundings.table();
        let mut state = State::default();
        let mut current = false;
        for item in self.socket.dump(list_chains())? {
            let attributes = Reader(item.get(4..).unwrap_or_default());
            if attributes.text(1).as_ref() != Some(&table) {
                continue;
            }
            let name = attributes.text(3).unwrap_or_default();
            current |= name == self.surroundings.mark();
            state.balancers.extend(Balancer::parse(&name));
        }
        if !current {
            return Ok(None);
        }
        for set in SETS.into_iter().filter(|set| *set != Set::Affinity) {
            for item in self.socket.dump(list_elements(&table, set.name()))? {
                read_elements(set, &item, &mut state);
            }
        }
        Ok(Some(state))
    }
}

fn read_elements(set: Set, item: &[u8], state: &mut State) {
    let attributes = Reader(item.get(4..).unwrap_or_default());
    let Some(list) = attributes.get(3) else { return };
    for (_, element) in Reader(list) {
        let element = Reader(element);
        let Some(key) = element.get(1).and_then(|key| Reader(key).get(1)) else { continue };
        let data = element.get(2).map(Reader);
        let chain = data.and_then(|d| d.get(2)).and_then(|verdict| Reader(verdict).text(2));
        let value = data.and_then(|d| d.get(1)).map(<[u8]>::to_vec);
        let target = chain.map(Target::Chain).or(value.map(Target::Value)).unwrap_or(Target::Nothing);
        state.elements.insert((set, key.to_vec()), target);
    }
}
