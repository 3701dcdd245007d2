//! Names that stand for addresses: `5.0.42.10.in-addr.arpa`, `...ip6.arpa`, `10-42-0-5`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a reverse name (lower-case, without the last dot).
pub(super) fn address(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut labels = rest.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let mut value = 0u128;
    let mut count = 0u32;
    for label in rest.split('.') {
        let nibble = u128::from(u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?);
        value |= nibble.checked_shl(4 * count)?;
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(value).into())
}

/// The address of a label with dashes.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::from);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::from))
}

/// Whether a range holds an address.
pub(super) fn within((network, prefix): (IpAddr, u8), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            (u32::from(n) ^ u32::from(a)).checked_shr(32 - u32::from(prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => {
            (u128::from(n) ^ u128::from(a)).checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}
