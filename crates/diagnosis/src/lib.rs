//! Why objects are not (yet) as they are wanted: from a snapshot to a tree of findings, causes below what they cause.
//!
//! Each finding says what is seen, the evidence (an event or a field, word for word), and the mend, as a command where there
//! is one. `stead check` and `stead explain` print it; [`timeline`] orders what happened.
//!
//! Invariants:
//! - no IO, clock or randomness: time is in the snapshot;
//! - what could not be read is told apart from what is not there: a rule that needs to know that something does not exist
//!   says nothing when it may only not be seen;
//! - what goes its normal way is [`Severity::Waiting`], never a fault.

#![forbid(unsafe_code)]

mod autoscaler;
mod claim;
mod companion;
mod container;
mod ending;
mod finding;
mod mend;
pub mod outlook;
mod place;
mod pod;
mod roll_out;
mod service;
mod set;
mod snapshot;
pub mod text;
pub mod timeline;

#[cfg(test)]
mod stories;

pub use finding::{Evidence, Finding, Mend, Report, Severity};
pub use snapshot::{Listed, Lookup, Snapshot, Target, Unread, claim_names, event_time};

/// What keeps `target` from being as it is wanted; `None` when there is no such object in the snapshot.
#[must_use]
pub fn explain(snapshot: &Snapshot, target: &Target) -> Option<Report> {
    match target {
        Target::Set(name) => Some(set::report(snapshot, snapshot.sets.get(name).found()?)),
        Target::Pod(name) => Some(pod::report(snapshot, snapshot.pods.get(name).found()?)),
        Target::Claim(name) => Some(claim::report(snapshot, snapshot.claims.get(name).found()?)),
        Target::Service(name) => Some(service::report(snapshot, snapshot.services.get(name).found()?)),
        Target::Autoscaler(name) => Some(autoscaler::report(snapshot, snapshot.autoscalers.get(name).found()?)),
        Target::Workload { kind, name, uid, wanted } => Some(pod::of_workload(snapshot, kind, name, uid, *wanted)),
    }
}
