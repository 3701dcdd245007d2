//! Pod interfaces, routes and service rules behind one small trait.
//!
//! Invariants: knows no Kubernetes kinds; runs no program (`ip`, `nft`, `iptables`); every object it makes carries the
//! instance's mark, so that two instances live side by side and each removes only its own; no thread of the async
//! runtime ever enters another network namespace.

#[cfg(test)]
extern crate self as stead_wire;

pub mod cidr;
pub mod kernel;
pub mod memory;
mod netlink;
mod netns;
pub mod network;
mod nft;
mod route;

pub use cidr::Cidr;
pub use network::*;
