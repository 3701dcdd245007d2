//! The status that a StatefulSet publishes.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetCondition, StatefulSetStatus};

use super::progress::CONDITION;
use super::{Action, Progress, Revision, Snapshot, claims};

/// How many pods are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub replicas: u32,
    pub ready: u32,
    pub available: u32,
    /// Of the current revision and not terminating.
    pub current: u32,
    /// Of the update revision, with the volumes that the set asks for, and not terminating.
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
            counts.of_kind(set, (pod.revision, pod.misfit), 1);
        }
    }
    for action in done {
        match *action {
            Action::CreatePod { revision, .. } => {
                counts.replicas += 1;
                counts.of_kind(set, (revision, false), 1);
            }
            Action::DeletePod { ordinal, .. } | Action::EvictPod { ordinal } => {
                let slot = set.replicas.iter().chain(&set.condemned).find(|slot| slot.ordinal == ordinal);
                if let Some(pod) = slot.and_then(|slot| slot.pod) {
                    counts.of_kind(set, (pod.revision, pod.misfit), -1);
                }
            }
            Action::CreateClaims { .. }
            | Action::RefuseClaims { .. }
            | Action::RepairPod { .. }
            | Action::RepairClaims { .. }
            | Action::AskHandOver { .. }
            | Action::WithdrawHandOver { .. }
            | Action::GrowClaims { .. }
            | Action::LabelClaims { .. }
            | Action::RollBack
            | Action::HoldDeletion
            | Action::ReleaseDeletion => {}
        }
    }
    counts
}

/// Whether a roll-out is complete: every wanted pod is there, ready and of the update revision, and no other.
#[must_use]
pub fn is_rolled_out(set: &Snapshot) -> bool {
    count(set, &[]).is_rolled_out(set)
}

impl Counts {
    /// A pod with the wrong volumes is of the current revision, but not updated: a roll-out will replace it.
    fn of_kind(&mut self, set: &Snapshot, (revision, misfit): (Revision, bool), by: i32) {
        if revision == set.current {
            self.current = self.current.saturating_add_signed(by);
        }
        if revision == Revision::UPDATE && !misfit {
            self.updated = self.updated.saturating_add_signed(by);
        }
    }

    /// Every wanted pod that is not stopped is there, ready and of the update revision, and no other.
    fn is_rolled_out(&self, set: &Snapshot) -> bool {
        let wanted = u32::try_from(set.running().count()).unwrap_or(u32::MAX);
        let all = [self.replicas, self.ready, self.updated].into_iter().all(|count| count == wanted);
        all && set.strategy.is_automatic()
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
    (progress, claims): (Option<&Progress>, Option<StatefulSetCondition>),
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
        conditions: conditions(object, progress, claims),
    }
}

/// The conditions that others set, and ours where there is something to say.
fn conditions(
    object: &StatefulSet,
    progress: Option<&Progress>,
    claims: Option<StatefulSetCondition>,
) -> Option<Vec<StatefulSetCondition>> {
    let before = object.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ours = [Some(CONDITION), Some(claims::CONDITION)];
    let others = before.into_iter().flatten().filter(|condition| !ours.contains(&condition.type_.as_deref()));
    let mut conditions: Vec<_> = others.cloned().collect();
    conditions.extend(progress.map(|progress| progress.condition.clone()));
    conditions.extend(claims);
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::statefulset::stories::world;
    use crate::statefulset::{Policy, Strategy, Why};

    /// The numbers that are published, and the current revision.
    fn told(replicas: u32, pods: &str, done: &[Action]) -> String {
        let object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 4}, "spec": {"selector": {}, "template": {}},
        }))
        .expect("a set");
        let mut world = world(Policy::OrderedReady, pods);
        (world.replicas, world.update) = (replicas, 1);
        let status = status(&object, &world.snapshot(), done, ("old", "new"), 2, (None, None));
        assert_eq!((status.observed_generation, status.collision_count), (Some(4), Some(2)));
        assert_eq!((status.update_revision.as_deref(), status.conditions), (Some("new"), None));
        let number = |number: Option<i32>| number.unwrap_or(0);
        format!(
            "{} ready {} available {} current {} updated {} at {}",
            status.replicas,
            number(status.ready_replicas),
            number(status.available_replicas),
            number(status.current_replicas),
            number(status.updated_replicas),
            status.current_revision.unwrap_or_default(),
        )
    }

    #[test]
    fn the_numbers_are_upstreams() {
        for (replicas, pods, expected) in [
            (3, "", "0 ready 0 available 0 current 0 updated 0 at old"),
            (3, "R0 r0 p0", "3 ready 2 available 1 current 3 updated 0 at old"),
            (3, "R0 R0 R1", "3 ready 3 available 3 current 2 updated 1 at old"),
            (3, "R0 R0 x1", "3 ready 2 available 2 current 2 updated 0 at old"),
            (3, "R1 R1 p1", "3 ready 2 available 2 current 0 updated 3 at old"),
            (3, "R1 R1 r1", "3 ready 3 available 2 current 3 updated 3 at new"),
            (3, "R1 R1 R2", "3 ready 3 available 3 current 0 updated 2 at old"),
            (2, "R1 R1 R1", "3 ready 3 available 3 current 0 updated 3 at old"),
            (3, "R1 R1 R1'", "3 ready 3 available 3 current 0 updated 2 at old"),
            (3, "R0 R0' R1'", "3 ready 3 available 3 current 2 updated 0 at old"),
            (3, "R1 F1", "2 ready 1 available 1 current 0 updated 2 at old"),
        ] {
            assert_eq!(told(replicas, pods, &[]), expected, "{replicas} of {pods}");
        }
    }

    #[test]
    fn what_was_just_done_counts_already() {
        let create = Action::CreatePod { ordinal: 1, revision: Revision::UPDATE };
        assert_eq!(told(2, "R0", &[create]), "2 ready 1 available 1 current 1 updated 1 at old");
        let delete = Action::DeletePod { ordinal: 1, why: Why::Outdated };
        assert_eq!(told(2, "R0 R0", &[delete]), "2 ready 2 available 2 current 1 updated 0 at old");
    }

    #[test]
    fn with_on_delete_the_current_revision_stays() {
        let object: StatefulSet =
            serde_json::from_value(json!({"metadata": {}, "spec": {"selector": {}, "template": {}}})).expect("a set");
        let mut world = world(Policy::Parallel, "R1");
        (world.replicas, world.update, world.strategy) = (1, 1, Strategy::OnDelete);
        let status = status(&object, &world.snapshot(), &[], ("old", "new"), 0, (None, None));
        assert_eq!(status.current_revision.as_deref(), Some("old"));
    }

    #[test]
    fn conditions_of_others_are_kept() {
        let object: StatefulSet = serde_json::from_value(json!({
            "metadata": {}, "spec": {"selector": {}, "template": {}},
            "status": {"replicas": 0, "conditions": [
                {"type": "Theirs", "status": "True"}, {"type": "Progressing", "status": "True"},
            ]},
        }))
        .expect("a set");
        let world = world(Policy::Parallel, "");
        let status = status(&object, &world.snapshot(), &[], ("old", "new"), 0, (None, None));
        let kinds: Vec<_> = status.conditions.expect("conditions").into_iter().filter_map(|c| c.type_).collect();
        assert_eq!(kinds, ["Theirs"]);
    }
}
