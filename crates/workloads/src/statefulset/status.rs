//! The status that a StatefulSet publishes.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetCondition, StatefulSetStatus};

use super::progress::CONDITION;
use super::{Action, Progress, Revision, Snapshot, Strategy};

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: u32,
    pub ready: u32,
    pub available: u32,
    /// Of the current revision and not terminating.
    pub current: u32,
    /// Of the update revision and not terminating.
    pub updated: u32,
}

/// Counts the pods as they are once `done` has been done.
#[must_use]
pub fn count(set: &Snapshot, done: &[Action]) -> Counts {
    let mut counts = Counts::default();
    for pod in set.replicas.iter().chain(&set.condemned).filter_map(|slot| slot.pod) {
        counts.replicas += 1;
        counts.ready += u32::from(pod.health.is_ready());
        counts.available += u32::from(pod.health == crate::pod::Health::Available);
        if !pod.terminating {
            counts.of_revision(set, pod.revision, 1);
        }
    }
    for action in done {
        match *action {
            Action::CreatePod { revision, .. } => {
                counts.replicas += 1;
                counts.of_revision(set, revision, 1);
            }
            Action::DeletePod { ordinal, .. } => {
                let slot = set.replicas.iter().chain(&set.condemned).find(|slot| slot.ordinal == ordinal);
                if let Some(pod) = slot.and_then(|slot| slot.pod) {
                    counts.of_revision(set, pod.revision, -1);
                }
            }
            Action::CreateClaims { .. }
            | Action::RefuseClaims { .. }
            | Action::RepairPod { .. }
            | Action::RepairClaims { .. }
            | Action::GrowClaims { .. }
            | Action::RollBack
            | Action::HoldDeletion
            | Action::ReleaseDeletion => {}
        }
    }
    counts
}

impl Counts {
    fn of_revision(&mut self, set: &Snapshot, revision: Revision, by: i32) {
        if revision == set.current {
            self.current = self.current.saturating_add_signed(by);
        }
        if revision == Revision::UPDATE {
            self.updated = self.updated.saturating_add_signed(by);
        }
    }

    /// Every wanted pod is there, ready and of the update revision, and no other.
    fn is_rolled_out(&self, set: &Snapshot) -> bool {
        let wanted = u32::try_from(set.replicas.len()).unwrap_or(u32::MAX);
        let all = [self.replicas, self.ready, self.updated].into_iter().all(|count| count == wanted);
        all && matches!(set.strategy, Strategy::RollingUpdate { .. })
    }
}

/// The status to publish. `current` and `update` are the names of the revisions.
#[must_use]
pub fn status(
    object: &StatefulSet,
    set: &Snapshot,
    done: &[Action],
    (current, update): (&str, &str),
    collisions: i32,
    progress: Option<&Progress>,
) -> StatefulSetStatus {
    let mut counts = count(set, done);
    let rolled_out = counts.is_rolled_out(set);
    if rolled_out {
        counts.current = counts.updated;
    }
    // Zeroes are left out where Go's `omitempty` leaves them out.
    let number = |count: u32| i32::try_from(count).ok().filter(|count| *count != 0);
    StatefulSetStatus {
        observed_generation: object.metadata.generation,
        replicas: number(counts.replicas).unwrap_or(0),
        ready_replicas: number(counts.ready),
        available_replicas: Some(number(counts.available).unwrap_or(0)),
        current_replicas: number(counts.current),
        updated_replicas: number(counts.updated),
        current_revision: Some(if rolled_out { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(collisions),
        conditions: conditions(object, progress),
    }
}

/// The conditions that others set, and ours where there is something to say.
fn conditions(object: &StatefulSet, progress: Option<&Progress>) -> Option<Vec<StatefulSetCondition>> {
    let before = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let others = before.into_iter().flatten().filter(|condition| condition.type_.as_deref() != Some(CONDITION));
    let mut conditions: Vec<_> = others.cloned().collect();
    conditions.extend(progress.map(|progress| progress.condition.clone()));
    (!conditions.is_empty()).then_some(conditions)
}
