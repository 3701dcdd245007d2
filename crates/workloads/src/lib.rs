//! What each controller would do next: pure plans over snapshots.
//!
//! Invariants:
//! - no IO, clock or randomness: the same snapshot always gives the same plan;
//! - a plan is data and may be dropped at any time; names are deterministic, so making it again is harmless.

#![forbid(unsafe_code)]

pub mod attachments;
pub mod claims;
pub mod cronjob;
pub mod csi;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod gc;
pub mod history;
pub mod hpa;
pub mod job;
pub mod namespace;
pub mod nodeipam;
pub mod nodelife;
pub mod owner;
pub mod pod;
pub mod podgc;
pub mod provision;
pub mod replicaset;
pub mod rootca;
pub mod serviceaccount;
pub mod statefulset;
pub mod taints;
