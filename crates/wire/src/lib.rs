//! Pod interfaces, routes and service rules behind one small trait.
//!
//! Invariants: knows no Kubernetes kinds; runs no program (`ip`, `nft`, `iptables`); every object it makes carries the
//! instance's mark, so that two instances live side by side and each removes only its own.

pub mod network;

pub use network::*;
