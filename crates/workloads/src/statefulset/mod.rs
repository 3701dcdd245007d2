//! What a StatefulSet should do next, and the objects that it makes.
//!
//! Behaviour is that of upstream's `pkg/controller/statefulset` at Kubernetes 1.37.
//!
//! Invariants (checked by `explore`, over every state of small sets):
//! - a pod is created only where no pod of that ordinal exists, terminating ones included;
//! - with `OrderedReady` a pod is created only when all lower ordinals are available, and one pod at a time is deleted
//!   for scaling down, only when all that stay are available;
//! - no roll-out makes more pods unavailable than `maxUnavailable` allows, nor touches an ordinal below the partition;
//! - a roll-out that evicts takes no pod that works past its disruption budget;
//! - a pod that is Ready is asked to hand over, where that is wished, and given its time before it is taken down;
//! - healing only ever removes a pod that is unavailable anyway and not of the revision that it should be of;
//! - a stopped ordinal gets no pod, and nothing waits for it;
//! - when the nodes behave, the set settles.

pub mod claims;
pub mod companion;
mod forecast;
pub mod identity;
mod memory;
mod plan;
mod progress;
pub mod revisions;
mod snapshot;
mod status;
pub mod wishes;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod world;

pub use forecast::{End, Forecast, Step, forecast, forecast_by};
pub use memory::Memory;
pub use plan::{Action, Plan, Wait, Why, plan};
pub use progress::Progress;
pub use snapshot::{
    Budget, Claims, Deletion, GiveUp, Guard, HandOver, Observed, Pod, Policy, Revision, Slot, Snapshot, Strategy,
};
pub use status::{Counts, count, is_rolled_out, status};
