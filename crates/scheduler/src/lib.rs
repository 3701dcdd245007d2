//! Finds a node for every pod that has none: feeds `stead-placement` from the caches and does what it decides.
//!
//! One task owns the mirror (what is known, who waits, what was promised) and places pods one after the other, without
//! waiting for anything; binding happens beside it. Pods that fit nowhere wait for a change that can help them, never for
//! a clock; only a binding that failed is tried again after a back-off.
//!
//! Invariants: never two nodes for one pod; a pod that was placed is counted on its node from that moment on, not only when
//! the watch says so; pods of other schedulers and gated pods are left alone.

#![forbid(unsafe_code)]

mod bind;
mod config;
mod mirror;
mod report;
mod run;
#[cfg(test)]
mod stories;
mod waiting;

pub use config::{BIND_TIMEOUT, BINDINGS_MAX, Config, NAME};
pub use run::{run, run_with};
