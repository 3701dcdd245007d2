//! Which part of the pods' range a node gets.
//!
//! Source: `pkg/controller/nodeipam/ipam/cidrset/cidr_set.go`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// Bits of a node's part (`--node-cidr-mask-size`).
pub const NODE_BITS: u8 = 24;

/// The pods' range, cut into parts of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    network: u32,
    bits: u8,
    node_bits: u8,
}

/// A text that is not an IPv4 range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRange(pub String);

impl fmt::Display for NoRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an IPv4 range like 10.42.0.0/16", self.0)
    }
}

impl std::error::Error for NoRange {}

/// First address and prefix length.
fn parse(text: &str) -> Option<(u32, u8)> {
    let (network, bits) = text.split_once('/')?;
    let (network, bits) = (network.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok()?);
    let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
    (bits <= 32).then_some((u32::from(network) & mask, bits))
}

impl Parts {
    /// Cuts `range` (`10.42.0.0/16`) into parts of `node_bits`; a range that is not larger than that is one part.
    ///
    /// # Errors
    /// When `range` is not an IPv4 range.
    pub fn of(range: &str, node_bits: u8) -> Result<Self, NoRange> {
        let (network, bits) = parse(range).ok_or_else(|| NoRange(range.to_owned()))?;
        Ok(Self { network, bits, node_bits: node_bits.clamp(bits, 32) })
    }

    fn count(&self) -> u64 {
        1 << (self.node_bits - self.bits)
    }

    /// Addresses in one part.
    fn size(&self) -> u64 {
        1 << (32 - self.node_bits)
    }

    /// The numbers of the parts that a range touches.
    fn touched(&self, range: &str) -> Option<(u64, u64)> {
        let (network, bits) = parse(range)?;
        let (from, to) = (u64::from(network), u64::from(network) + (1 << (32 - bits)) - 1);
        let (own, end) = (u64::from(self.network), u64::from(self.network) + self.count() * self.size() - 1);
        let overlap = from <= end && to >= own;
        overlap.then(|| ((from.max(own) - own) / self.size(), (to.min(end) - own) / self.size()))
    }

    /// A part that none of the `taken` ranges touches: the next after the highest of them, so that a range that was
    /// given back is used again as late as possible; else the lowest. `None` when all are taken.
    #[must_use]
    pub fn free<'a>(&self, taken: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let taken: Vec<(u64, u64)> = taken.into_iter().filter_map(|range| self.touched(range)).collect();
        let used: BTreeSet<u64> = taken.iter().flat_map(|(from, to)| *from..=*to).collect();
        let after = used.last().map_or(0, |last| last + 1);
        let number = (after..self.count()).chain(0..after).find(|number| !used.contains(number))?;
        let first = u64::from(self.network) + number * self.size();
        Some(format!("{}/{}", Ipv4Addr::from(u32::try_from(first).ok()?), self.node_bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_given_one_after_the_other_and_again_when_all_were_given() {
        let free = |range: &str, bits: u8, taken: &[&str]| Parts::of(range, bits).unwrap().free(taken.iter().copied());
        for (range, bits, taken, expected) in [
            ("10.42.0.0/16", 24, &[][..], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.42.0.0/24"], Some("10.42.1.0/24")),
            ("10.42.0.0/16", 24, &["10.42.7.0/24"], Some("10.42.8.0/24")),
            ("10.42.0.0/16", 24, &["10.42.255.0/24"], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.42.255.0/24", "10.42.0.0/23"], Some("10.42.2.0/24")),
            ("10.42.0.0/16", 24, &["192.0.2.0/24", "rubbish"], Some("10.42.0.0/24")),
            ("10.42.0.0/16", 24, &["10.0.0.0/8"], None),
            ("10.42.3.0/24", 24, &[], Some("10.42.3.0/24")),
            ("10.42.3.0/24", 24, &["10.42.3.128/25"], None),
            ("10.42.3.0/26", 24, &[], Some("10.42.3.0/26")),
            ("0.0.0.0/8", 24, &["0.255.254.0/24"], Some("0.255.255.0/24")),
        ] {
            assert_eq!(free(range, bits, taken).as_deref(), expected, "{range} {taken:?}");
        }
        assert_eq!(Parts::of("fd00::/64", 24), Err(NoRange("fd00::/64".to_owned())));
    }

    #[test]
    fn no_two_nodes_get_the_same() {
        let parts = Parts::of("10.42.0.0/20", 24).unwrap();
        let mut given: Vec<String> = Vec::new();
        while let Some(next) = parts.free(given.iter().map(String::as_str)) {
            assert!(!given.contains(&next), "{next}");
            given.push(next);
        }
        assert_eq!(given.len(), 16);
    }
}
