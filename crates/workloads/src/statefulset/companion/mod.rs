//! A companion: what stead adds to sets of a cluster whose own StatefulSet controller knows upstream's API only.
//!
//! The built-in controller goes on: it makes missing pods, scales, keeps claims, revisions and the status. The companion
//! does what is left, for sets that ask for it by [`MANAGED`]. With `updateStrategy: OnDelete` the built-in controller
//! deletes no pod that works, and makes every new one of the newest revision, so that roll-outs are the companion's
//! ([`Share::RollOuts`]): it deletes, the other one makes. With any other strategy it only heals ([`Share::Healing`]).
//!
//! The decision is that of [`super::plan`], on a snapshot of the set as its annotations ask for it ([`asked`]), of which
//! only the companion's own actions remain ([`plan`]).
//!
//! | annotation on the set | value | means |
//! |---|---|---|
//! | `stead.dev/managed` | `"true"` | a companion is to do its part |
//! | `stead.dev/partition` | a number | as the field of that name in `RollingUpdate` |
//! | `stead.dev/max-unavailable` | a number, or a percentage | as the field `maxUnavailable` |
//! | `stead.dev/claim-sizes` | `{"data": "20Gi"}` | claims of that template grow to that size |
//! | `stead.dev/good-revision` | written by the companion | the last revision of which a roll-out was completed |
//! | `stead.dev/progress` | written by the companion | the condition `Progressing`, as JSON |
//!
//! Invariants (checked by `explore`, over every state of small sets):
//! - the companion deletes nothing that the built-in controller would make again as it was;
//! - both together keep every promise of the plan: budget, partition, order;
//! - when the nodes behave, the set settles.

mod asked;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod stories;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod as PodObject;

use super::{Action, Deletion, GiveUp, Plan, Slot, Snapshot, Strategy, Why, identity, wishes};

pub use asked::{Asked, Ignored, asked, left};

/// `"true"`: a companion does its part for this set.
pub const MANAGED: &str = "stead.dev/managed";
/// How many of the lowest ordinals a roll-out leaves alone.
pub const PARTITION: &str = "stead.dev/partition";
/// How many pods a roll-out may make unavailable, or how many of a hundred.
pub const MAX_UNAVAILABLE: &str = "stead.dev/max-unavailable";
/// Sizes that claims are to grow to, by the name of their template, as a JSON object.
pub const CLAIM_SIZES: &str = "stead.dev/claim-sizes";
/// Written by the companion: the revision that a roll-out was completed of, and that an undo goes back to.
pub const GOOD_REVISION: &str = "stead.dev/good-revision";
/// Written by the companion: how the roll-out gets on, as a condition in JSON.
pub const PROGRESS: &str = "stead.dev/progress";

/// What of a set is the companion's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// `OnDelete`: roll-outs, and everything below.
    RollOuts,
    /// Another strategy: broken pods, undo, claims, ordered deletion.
    Healing,
    /// The set is managed no longer: only the finalizer, and the deletion that waits for it.
    Rest,
}

impl Share {
    /// The companion's share of `set`; `None` when it is none of its business. `alone`: the cluster's own controller
    /// knows nothing of stead's finalizer, so that nobody else would take it away.
    #[must_use]
    pub fn of(set: &StatefulSet, alone: bool) -> Option<Self> {
        let strategy = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        match (is_managed(set), strategy) {
            (true, Some("OnDelete")) => Some(Self::RollOuts),
            (true, _) => Some(Self::Healing),
            (false, _) => (alone && wishes::is_held(set)).then_some(Self::Rest),
        }
    }
}

/// Whether the set asks for a companion.
#[must_use]
pub fn is_managed(set: &StatefulSet) -> bool {
    set.metadata.annotations.as_ref().and_then(|all| all.get(MANAGED)).is_some_and(|value| value == "true")
}

/// The name of the revision that the pods come from and an undo goes back to; that of the newest one when there is none.
///
/// With `OnDelete` the built-in controller never moves `status.currentRevision`. There it is what the companion
/// remembers, or the one revision that all pods which are not updated have in common.
#[must_use]
pub fn current(set: &StatefulSet, share: Share, pods: &[Arc<PodObject>], exists: &dyn Fn(&str) -> bool) -> String {
    let status = set.status.as_ref();
    let update = status.and_then(|status| status.update_revision.as_deref()).unwrap_or_default();
    let recorded = match share {
        Share::RollOuts => set.metadata.annotations.as_ref().and_then(|all| all.get(GOOD_REVISION)).map(String::as_str),
        Share::Healing | Share::Rest => status.and_then(|status| status.current_revision.as_deref()),
    };
    let recorded = recorded.filter(|name| exists(name));
    recorded.or_else(|| common(pods, update).filter(|name| exists(name))).unwrap_or(update).to_owned()
}

/// The revision of all pods that are not of `update`, if it is one.
fn common<'a>(pods: &'a [Arc<PodObject>], update: &str) -> Option<&'a str> {
    let update = identity::revision_label(update);
    let mut others = pods.iter().filter_map(|pod| identity::revision_of(pod)).filter(|label| *label != update);
    let first = others.next()?;
    others.all(|label| label == first).then_some(first)
}

/// What the companion would do next. `set`: the set as [`asked`].
#[must_use]
pub fn plan(set: &Snapshot, share: Share) -> Plan {
    let mut plan = super::plan(set);
    plan.actions.retain(|action| is_ours(set, share, *action));
    plan
}

/// What the built-in controller would do next, as far as it behaves as ours does: with neither wishes nor healing.
#[must_use]
pub fn built_in(set: &Snapshot, share: Share) -> Plan {
    let slots = |slots: &[Slot]| {
        let known = |slot: &Slot| {
            let mut slot = *slot;
            slot.claims.small = false;
            slot
        };
        slots.iter().map(known).collect()
    };
    super::plan(&Snapshot {
        strategy: if share == Share::RollOuts { Strategy::OnDelete } else { set.strategy },
        deletion: if set.deletion == Deletion::No { Deletion::No } else { Deletion::ByOthers },
        ordered_delete: false,
        held: false,
        paused: false,
        heals: false,
        give_up: GiveUp::Never,
        waits_for_others: false,
        hands_over: false,
        evicts: false,
        replicas: slots(&set.replicas),
        condemned: slots(&set.condemned),
        ..set.clone()
    })
}

/// What both would do next; what they wait for is what the whole plan waits for.
#[must_use]
pub fn together(set: &Snapshot, share: Share) -> Plan {
    let (other, ours) = (built_in(set, share), plan(set, share));
    let mut actions = other.actions;
    for action in ours.actions {
        let known = actions.iter().any(|earlier| deleted(*earlier).is_some() && deleted(*earlier) == deleted(action));
        if !known {
            actions.push(action);
        }
    }
    Plan { actions, wait: ours.wait.or(other.wait), wake_at: ours.wake_at }
}

fn deleted(action: Action) -> Option<u32> {
    if let Action::DeletePod { ordinal, .. } = action { Some(ordinal) } else { None }
}

/// Whether an action is the companion's.
fn is_ours(set: &Snapshot, share: Share, action: Action) -> bool {
    match action {
        Action::CreatePod { .. }
        | Action::CreateClaims { .. }
        | Action::RefuseClaims { .. }
        | Action::RepairPod { .. }
        | Action::RepairClaims { .. }
        | Action::LabelClaims { .. }
        | Action::DeletePod { why: Why::Finished | Why::Stopped, .. } => false,
        Action::DeletePod { why: Why::Outdated, .. } => share == Share::RollOuts,
        Action::DeletePod { why: Why::Recreate, .. }
        | Action::EvictPod { .. }
        | Action::AskHandOver { .. }
        | Action::WithdrawHandOver { .. } => false,
        Action::DeletePod { ordinal, why: Why::Broken } => {
            share != Share::Rest && comes_back_another(set, share, ordinal)
        }
        // The built-in controller waits for it in vain.
        Action::DeletePod { ordinal, why: Why::ScaleDown } => share != Share::Rest && set.is_broken_at(ordinal),
        Action::GrowClaims { .. } | Action::RollBack => share != Share::Rest,
        Action::DeletePod { why: Why::SetDeleted, .. } | Action::HoldDeletion | Action::ReleaseDeletion => true,
    }
}

/// Whether the built-in controller would make another pod of that ordinal than there is.
fn comes_back_another(set: &Snapshot, share: Share, ordinal: u32) -> bool {
    match share {
        Share::RollOuts => set.pod_at(ordinal).is_some_and(|pod| !pod.is_updated()),
        // It follows the strategy that this snapshot has too.
        Share::Healing | Share::Rest => true,
    }
}
