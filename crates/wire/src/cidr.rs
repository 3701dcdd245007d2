//! Address ranges: parsing and the few questions that the rules ask of them. No IO.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::network::WireError;

/// An address range such as `10.42.0.0/16`; the address has no bits set outside of the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The first address of the range.
    pub fn network(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// 127.0.0.0/8.
    pub(crate) fn loopback() -> Self {
        Self { address: Ipv4Addr::new(127, 0, 0, 0).into(), prefix: 8 }
    }

    pub fn is_v4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// The address with number `offset` in the range, wrapping at the end of the address family.
    pub fn nth(&self, offset: u32) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => Ipv4Addr::from(u32::from(a).wrapping_add(offset)).into(),
            IpAddr::V6(a) => Ipv6Addr::from(u128::from(a).wrapping_add(u128::from(offset))).into(),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)) & mask4(self.prefix) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)) & mask6(self.prefix) == 0,
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The netmask as bytes in network order, 4 or 16 of them.
    pub(crate) fn mask_bytes(&self) -> Vec<u8> {
        match self.address {
            IpAddr::V4(_) => mask4(self.prefix).to_be_bytes().to_vec(),
            IpAddr::V6(_) => mask6(self.prefix).to_be_bytes().to_vec(),
        }
    }
}

/// The address that the host has in a node's pod range: the gateway of its pods and the source of what the host sends to
/// them. It is number 1 of the range, so no pod may get it (the same as upstream's host-local address management).
pub fn gateway(pod_cidr: &Cidr) -> IpAddr {
    pod_cidr.nth(1)
}

/// An address as bytes in network order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn mask4(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask6(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = WireError;

    fn from_str(text: &str) -> Result<Self, WireError> {
        let invalid = || WireError::Invalid(format!("\"{text}\" is not an address range, write it as 10.42.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => Ipv4Addr::from(u32::from(a) & mask4(prefix)).into(),
            IpAddr::V6(a) if prefix <= 128 => Ipv6Addr::from(u128::from(a) & mask6(prefix)).into(),
            IpAddr::V4(_) | IpAddr::V6(_) => return Err(invalid()),
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_answers() {
        for (text, shown, inside, outside) in [
            ("10.42.0.0/16", "10.42.0.0/16", "10.42.255.1", "10.43.0.0"),
            ("10.42.3.9/24", "10.42.3.0/24", "10.42.3.1", "10.42.4.1"),
            ("0.0.0.0/0", "0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/64", "fd00::/64", "fd00::5", "fd01::5"),
        ] {
            let cidr: Cidr = text.parse().unwrap();
            assert_eq!(cidr.to_string(), shown);
            assert!(cidr.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!cidr.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        for text in ["", "10.42.0.0", "10.42.0.0/33", "x/8", "fd00::/129", "10.42.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
        assert_eq!(gateway(&"10.42.3.0/24".parse().unwrap()).to_string(), "10.42.3.1");
    }
}
