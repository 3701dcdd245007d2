//! What stands between the API and a control loop: shared caches, work queues, events, leader election.
//!
//! Invariants:
//! - one watch per kind and process, whoever asks ([`Caches`]);
//! - a queue holds names, never objects; one key is never processed by two workers at once ([`Queue`]);
//! - nothing here decides: it mirrors, wakes and reports.

#![forbid(unsafe_code)]

mod cache;
mod caches;
mod changes;
mod election;
mod event;
mod events;
pub mod index;
mod key;
mod queue;
mod reflect;
mod store;
mod workers;

pub use cache::{Cache, Object};
pub use caches::{Caches, MetaObject};
pub use changes::{Change, Changes};
pub use election::{Election, Elector};
pub use events::{Correlator, EVENTS_WAITING_MAX, EventRecord, Recorder, Severity, Told};
pub use key::Key;
pub use queue::{Claimed, Queue, RETRY_FIRST, RETRY_MAX};
pub use store::IndexFn;
pub use workers::{Next, run_workers};

use std::sync::Arc;

/// Where a loop takes the time of day from: the system's clock, or a simulated one.
pub type Clock = Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(jiff::Timestamp::now)
}
