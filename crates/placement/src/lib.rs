//! Which node for this pod, and why not the others: upstream's filter and score plugins, and preemption, as pure functions.
//!
//! [`place`] looks at a [`View`] (nodes with their pods, claims, volumes, classes) and says where the pod goes and what has to
//! be bound first, or why it fits nowhere, in upstream's words, and whom to evict so that it will.
//!
//! Invariants: no IO, no clock, no randomness; the same view gives the same answer; nothing here panics on input.
//! Source of the rules: `k8s.io/kubernetes/pkg/scheduler` and its `framework/plugins`.

#![forbid(unsafe_code)]

mod admit;
mod amounts;
mod filter;
mod pick;
mod place;
mod pod;
mod preempt;
mod score;
mod storage;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod story;
mod view;

pub use admit::{Rejection, admit};
pub use amounts::{Amounts, pod_requests};
pub use filter::{Cause, Refusal};
pub use place::{ClaimPlan, NO_NODES, Placement, Refused, place};
pub use pod::PodInfo;
pub use preempt::Preemption;
pub use storage::{Storage, reaches};
pub use view::{NodeInfo, View};
