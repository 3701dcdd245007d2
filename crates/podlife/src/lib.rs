//! What the node does next with one pod, and what it reports about it: the kubelet's decisions, without its machinery.
//!
//! Invariants:
//! - no IO, no clock, no randomness: `now` is part of the [`Snapshot`];
//! - the same snapshot always gives the same plan, and a plan that is dropped or repeated does no harm;
//! - nothing is started for a pod that is ending, and no sandbox is stopped while one of its containers may still be
//!   within its grace period.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod cgroup;
pub mod conditions;
pub mod csi;
pub mod memory;
pub mod phase;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod status;
pub mod view;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod stories;

pub use backoff::Backoff;
pub use memory::{Memory, StartFailure, Work};
pub use plan::{Action, End, PodPlan, StopWhy, Waiting, plan};
pub use probe::{ProbeKind, Probes};
pub use status::{Addresses, status};
pub use view::{Container, Exit, Sandbox, Snapshot, State};
