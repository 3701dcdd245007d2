//! May this object exist, and in what form: defaults, mutation, validation, quota, authorisation.
//!
//! Objects are `serde_json::Value`s as they travel through the API server. The server has checked before that their
//! fields have the right JSON types; a field of a wrong type is treated here as absent and never panics.
//!
//! Invariants:
//! - no IO, no clock, no randomness: time, names and addresses come in through [`Context`];
//! - defaulting twice gives the same as defaulting once;
//! - an update that changes nothing passes, however old the object is.
//!
//! The way of an object: [`create`] or [`update`] = strategy (what a client may not set) -> defaults -> mutation
//! (service account, limits, priority, ...) -> validation -> allocation of addresses -> quota.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod authz;
mod chain;
mod context;
mod defaults;
mod mutate;
mod names;
mod strategy;
mod validate;
mod view;

pub use addresses::{AddressPool, Protocol, ServicePool};
pub use chain::{create, delete, update};
pub use context::{Context, Lookup, Random};
pub use defaults::{apply as default, filled_late};
pub use mutate::{node_token, quota_counts, quota_usage, waits_for_account};
