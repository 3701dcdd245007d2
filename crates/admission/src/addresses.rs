//! Cluster addresses and node ports of Services: the door to whoever holds them, and the holder itself.
//!
//! The pool is a cache of what the stored Services say. The API server fills it at start with [`ServicePool::occupy`]
//! and calls [`ServicePool::release`] when a Service is gone, changed, or could not be stored.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::view::View;

/// Transport protocol of a node port: the same number may be used once for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Reads a port's `protocol`; absent means TCP.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

/// Why an address or a port was not handed out, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationError(pub String);

impl fmt::Display for AllocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hands out cluster addresses and node ports. `seed` chooses where to begin to look: the pool has no randomness.
pub trait AddressPool {
    /// # Errors
    /// When every address is taken.
    fn allocate_ip(&self, seed: u64) -> Result<IpAddr, AllocationError>;
    /// Takes one certain address.
    /// # Errors
    /// When it is outside the range or taken.
    fn reserve_ip(&self, ip: IpAddr) -> Result<(), AllocationError>;
    fn release_ip(&self, ip: IpAddr);
    /// A port that is free for all of `protocols`.
    /// # Errors
    /// When every port is taken.
    fn allocate_port(&self, protocols: &[Protocol], seed: u64) -> Result<u16, AllocationError>;
    /// # Errors
    /// When it is outside the range or taken.
    fn reserve_port(&self, port: i64, protocol: Protocol) -> Result<(), AllocationError>;
    fn release_port(&self, port: u16, protocol: Protocol);
}

/// Lowest and highest node port (upstream's default range).
pub const NODE_PORTS: (u16, u16) = (30000, 32767);

#[derive(Debug, Default)]
struct Taken {
    ips: BTreeSet<u32>,
    ports: BTreeSet<(u16, Protocol)>,
}

/// All addresses of one IPv4 range and all node ports of one range, in memory.
#[derive(Debug)]
pub struct ServicePool {
    network: u32,
    prefix: u8,
    ports: (u16, u16),
    taken: Mutex<Taken>,
}

impl ServicePool {
    /// `cidr` for example `10.43.0.0/16`.
    /// # Errors
    /// When it is not an IPv4 range of 8 to 30 bits.
    pub fn new(cidr: &str, ports: (u16, u16)) -> Result<Self, AllocationError> {
        let bad = || AllocationError(format!("service range {cidr:?} is not an IPv4 range like \"10.43.0.0/16\""));
        let (address, bits) = cidr.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = bits.parse().map_err(|_| bad())?;
        if !(8..=30).contains(&prefix) {
            return Err(bad());
        }
        let network = u32::from(address) & mask(prefix);
        Ok(Self { network, prefix, ports, taken: Mutex::default() })
    }

    /// Marks everything that a stored Service holds, without asking whether it is free.
    pub fn occupy(&self, service: &Value) {
        let mut taken = self.lock();
        for ip in held_ips(service) {
            if let Some(ip) = self.inside(ip) {
                taken.ips.insert(ip);
            }
        }
        taken.ports.extend(held_ports(service));
    }

    /// Gives back what `old` holds and `new` does not. Call it after a Service was deleted or changed, and with the
    /// refused object as `old` when it could not be stored.
    pub fn release(&self, old: &Value, new: Option<&Value>) {
        release(self, old, new);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address as a number when it may be handed out: the first and last of the range may not.
    fn inside(&self, ip: IpAddr) -> Option<u32> {
        let IpAddr::V4(ip) = ip else { return None };
        let (ip, last) = (u32::from(ip), self.network | !mask(self.prefix));
        (ip > self.network && ip < last).then_some(ip)
    }
}

/// Gives back to `pool` what `old` holds and `new` does not.
pub fn release(pool: &dyn AddressPool, old: &Value, new: Option<&Value>) {
    let kept_ips: Vec<IpAddr> = new.map(held_ips).unwrap_or_default();
    let kept_ports = new.map(held_ports).unwrap_or_default();
    held_ips(old).into_iter().filter(|ip| !kept_ips.contains(ip)).for_each(|ip| pool.release_ip(ip));
    held_ports(old)
        .into_iter()
        .filter(|port| !kept_ports.contains(port))
        .for_each(|(port, protocol)| pool.release_port(port, protocol));
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

/// The cluster addresses of a Service; none when it is headless.
#[must_use]
pub fn held_ips(service: &Value) -> Vec<IpAddr> {
    if service.text("spec.type") == "ExternalName" {
        return Vec::new();
    }
    service.items("spec.clusterIPs").iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// The node ports of a Service, its health-check port included.
#[must_use]
pub fn held_ports(service: &Value) -> Vec<(u16, Protocol)> {
    let number = |n: Option<i64>| n.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let mut held: Vec<(u16, Protocol)> = service
        .items("spec.ports")
        .iter()
        .filter_map(|p| Some((number(p.int("nodePort"))?, Protocol::parse(p.text("protocol")))))
        .collect();
    held.extend(number(service.int("spec.healthCheckNodePort")).map(|port| (port, Protocol::Tcp)));
    held
}

impl AddressPool for ServicePool {
    fn allocate_ip(&self, seed: u64) -> Result<IpAddr, AllocationError> {
        let size = !mask(self.prefix);
        // As upstream: the lower 16..256 addresses are kept for reservations by hand while others are free.
        let band = (size / 16).clamp(16, 256).min(size / 2);
        let mut taken = self.lock();
        let upper = size - 1 - band;
        let start = (seed % u64::from(upper.max(1))) as u32;
        let high = (0..upper).map(|i| band + 1 + (start + i) % upper);
        let low = 1..=band;
        for ip in high.chain(low).map(|offset| self.network + offset) {
            if taken.ips.insert(ip) {
                return Ok(IpAddr::V4(Ipv4Addr::from(ip)));
            }
        }
        Err(AllocationError("range is full".to_owned()))
    }

    fn reserve_ip(&self, ip: IpAddr) -> Result<(), AllocationError> {
        let Some(number) = self.inside(ip) else {
            return Err(AllocationError(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}/{}",
                Ipv4Addr::from(self.network),
                self.prefix
            )));
        };
        if self.lock().ips.insert(number) {
            Ok(())
        } else {
            Err(AllocationError("provided IP is already allocated".to_owned()))
        }
    }

    fn release_ip(&self, ip: IpAddr) {
        if let Some(number) = self.inside(ip) {
            self.lock().ips.remove(&number);
        }
    }

    fn allocate_port(&self, protocols: &[Protocol], seed: u64) -> Result<u16, AllocationError> {
        let (low, high) = self.ports;
        let size = u64::from(high - low) + 1;
        let mut taken = self.lock();
        for i in 0..size {
            let port = low + ((seed % size + i) % size) as u16;
            if protocols.iter().all(|p| !taken.ports.contains(&(port, *p))) {
                taken.ports.extend(protocols.iter().map(|p| (port, *p)));
                return Ok(port);
            }
        }
        Err(AllocationError("range is full".to_owned()))
    }

    fn reserve_port(&self, port: i64, protocol: Protocol) -> Result<(), AllocationError> {
        let (low, high) = self.ports;
        let Some(number) = u16::try_from(port).ok().filter(|p| (low..=high).contains(p)) else {
            return Err(AllocationError(format!(
                "provided port is not in the valid range. The range of valid ports is {low}-{high}"
            )));
        };
        if self.lock().ports.insert((number, protocol)) {
            Ok(())
        } else {
            Err(AllocationError("provided port is already allocated".to_owned()))
        }
    }

    fn release_port(&self, port: u16, protocol: Protocol) {
        self.lock().ports.remove(&(port, protocol));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_handed_out_once_until_the_range_is_full() {
        let pool = ServicePool::new("10.43.0.0/28", NODE_PORTS).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..14 {
            assert!(seen.insert(pool.allocate_ip(seed * 7).unwrap()));
        }
        assert_eq!(pool.allocate_ip(1), Err(AllocationError("range is full".into())));
        pool.release_ip("10.43.0.3".parse().unwrap());
        assert_eq!(pool.allocate_ip(1).unwrap(), "10.43.0.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn certain_addresses_and_ports() {
        let pool = ServicePool::new("10.96.0.0/16", NODE_PORTS).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(pool.reserve_ip(ip("10.96.0.10")), Ok(()));
        assert_eq!(pool.reserve_ip(ip("10.96.0.10")).unwrap_err().0, "provided IP is already allocated");
        assert_eq!(
            pool.reserve_ip(ip("10.1.2.3")).unwrap_err().0,
            "the provided IP (10.1.2.3) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
        );
        assert_eq!(
            pool.reserve_port(80, Protocol::Tcp).unwrap_err().0,
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        pool.reserve_port(30000, Protocol::Tcp).unwrap();
        pool.reserve_port(30000, Protocol::Udp).unwrap();
        assert_eq!(pool.reserve_port(30000, Protocol::Tcp).unwrap_err().0, "provided port is already allocated");
        assert_eq!(pool.allocate_port(&[Protocol::Tcp], 0).unwrap(), 30001);
    }

    #[test]
    fn what_a_service_holds_is_given_back() {
        let pool = ServicePool::new("10.96.0.0/16", NODE_PORTS).unwrap();
        let service = json!({"spec": {"clusterIPs": ["10.96.0.7"], "ports": [{"nodePort": 31000}]}});
        pool.occupy(&service);
        assert!(pool.reserve_ip("10.96.0.7".parse().unwrap()).is_err());
        pool.release(&service, Some(&json!({"spec": {"clusterIPs": ["10.96.0.7"]}})));
        assert!(pool.reserve_ip("10.96.0.7".parse().unwrap()).is_err());
        assert!(pool.reserve_port(31000, Protocol::Tcp).is_ok());
        pool.release(&service, None);
        assert!(pool.reserve_ip("10.96.0.7".parse().unwrap()).is_ok());
    }
}
