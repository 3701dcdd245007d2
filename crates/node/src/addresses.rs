//! Addresses for pods out of the node's range. What is taken is what the network has attached: nothing else is remembered.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use parking_lot::Mutex;

/// The pool of one node. An address that was given back is reused last.
#[derive(Debug)]
pub(crate) struct Addresses {
    first: u32,
    last: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    by_pod: BTreeMap<String, u32>,
    next: u32,
}

/// A range that no address can be taken from, or one that is used up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("pod range {0} is not an IPv4 range with room for pods")]
    Range(String),
    #[error("no free address in the pod range: {0} pods have one")]
    Exhausted(usize),
}

impl Addresses {
    /// The pool of `cidr` without its first two addresses (network, gateway) and its last (broadcast).
    ///
    /// # Errors
    /// When `cidr` is not an IPv4 range of at least eight addresses.
    pub(crate) fn new(cidr: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Range(cidr.to_owned());
        let (base, bits) = cidr.split_once('/').ok_or_else(wrong)?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(1..=29).contains(&bits) {
            return Err(wrong());
        }
        let size = 1u32 << (32 - bits);
        let start = u32::from(base) & !(size - 1);
        let (first, last) = (start + 2, start + size - 2);
        Ok(Addresses { first, last, taken: Mutex::new(Taken { by_pod: BTreeMap::new(), next: first }) })
    }

    /// Takes note of an address that a pod has already.
    pub(crate) fn adopt(&self, pod: &str, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.taken.lock().by_pod.insert(pod.to_owned(), u32::from(address));
        }
    }

    /// The pod's address: the one that it has, else the next free one.
    ///
    /// # Errors
    /// When every address is taken.
    pub(crate) fn take(&self, pod: &str) -> Result<IpAddr, AddressError> {
        let mut taken = self.taken.lock();
        if let Some(known) = taken.by_pod.get(pod) {
            return Ok(Ipv4Addr::from(*known).into());
        }
        let used: std::collections::HashSet<u32> = taken.by_pod.values().copied().collect();
        let from = taken.next;
        let free = (from..=self.last).chain(self.first..from).find(|address| !used.contains(address));
        let address = free.ok_or(AddressError::Exhausted(used.len()))?;
        taken.next = if address >= self.last { self.first } else { address + 1 };
        taken.by_pod.insert(pod.to_owned(), address);
        Ok(Ipv4Addr::from(address).into())
    }

    pub(crate) fn give_back(&self, pod: &str) {
        self.taken.lock().by_pod.remove(pod);
    }

    /// The address that a pod has now.
    #[must_use]
    pub(crate) fn of(&self, pod: &str) -> Option<IpAddr> {
        self.taken.lock().by_pod.get(pod).map(|address| Ipv4Addr::from(*address).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_is_kept_and_reused_last() {
        let pool = Addresses::new("10.42.0.0/29").expect("a range");
        pool.adopt("old", ip("10.42.0.3"));
        let taken: Vec<_> = ["a", "b", "a"].iter().map(|pod| pool.take(pod).expect("free")).collect();
        assert_eq!(taken, [ip("10.42.0.2"), ip("10.42.0.4"), ip("10.42.0.2")]);
        pool.give_back("a");
        assert_eq!(pool.take("c"), Ok(ip("10.42.0.5")));
        assert_eq!(pool.take("d"), Ok(ip("10.42.0.6")));
        assert_eq!(pool.take("e"), Ok(ip("10.42.0.2")));
        assert_eq!(pool.take("f"), Err(AddressError::Exhausted(5)));
    }

    #[test]
    fn a_wrong_range_is_refused() {
        for wrong in ["", "10.42.0.0", "10.42.0.0/31", "10.42.0.0/x", "fd00::/64"] {
            assert!(Addresses::new(wrong).is_err(), "{wrong}");
        }
    }
}
