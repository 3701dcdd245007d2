//! Whether a roll-out gets on, for sets that give it a deadline or recreate their pods; told by the condition
//! `Progressing`.
//!
//! Upstream has such a condition for Deployments, whose reasons and texts are the model, and for the strategy
//! `Recreate`, whose reasons are KEP-3541's. The condition is also the memory: how many pods had been available at the
//! new revision, and since when, is read back from it.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Deletion, GiveUp, Snapshot, Strategy, companion, wishes};

/// The type of the condition.
pub(super) const CONDITION: &str = "Progressing";
/// Reasons: a roll-out is under way, and it is complete.
const ROLLING: (&str, &str) = ("RevisionUpdated", "NewRevisionAvailable");
const RECREATING: (&str, &str) = ("RecreateInProgress", "RecreateComplete");
const PAUSED: &str = "StatefulSetPaused";
const EXPIRED: &str = "ProgressDeadlineExceeded";

/// How a roll-out gets on.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub condition: StatefulSetCondition,
    pub give_up: GiveUp,
}

impl Progress {
    /// `None` where there is nothing to say: for sets without a deadline that do not recreate their pods and are no
    /// companion's, or whose pods are updated by hand. `update`: the name of the revision that is rolled out.
    #[must_use]
    pub fn of(object: &StatefulSet, set: &Snapshot, update: &str, now: Timestamp) -> Option<Self> {
        let deadline = wishes::progress_deadline(object);
        let (partition, recreates) = match set.strategy {
            Strategy::RollingUpdate { partition, .. } if deadline.is_some() || companion::is_managed(object) => {
                (partition, false)
            }
            Strategy::Recreate => (0, true),
            Strategy::RollingUpdate { .. } | Strategy::OnDelete => return None,
        };
        if set.deletion != Deletion::No {
            return None;
        }
        let before = Before::read(object, update);
        let reached = done(set, partition);
        let (under_way_reason, complete) = if recreates { RECREATING } else { ROLLING };
        let begins = recreates && set.has_outdated();
        if !begins && (before.is(complete) || reached == wanted(set, partition)) {
            let text = format!("Revision {update:?} has successfully progressed.");
            return Some(before.told(("True", complete, text), now, GiveUp::Never));
        }
        if recreates && deadline.is_none() && !begins && before.reason.is_empty() {
            // It comes up for the first time: nothing is recreated.
            return None;
        }
        if deadline.is_some() && before.is(EXPIRED) {
            return Some(before.told(("False", EXPIRED, timed_out(update)), now, GiveUp::Now));
        }
        if set.paused {
            return Some(before.told(("Unknown", PAUSED, "StatefulSet is paused.".to_owned()), now, GiveUp::Never));
        }
        let best = before.reached.filter(|best| *best >= reached);
        let since = best.and(before.since).unwrap_or(now);
        let ends = deadline.map(|deadline| since.checked_add(deadline).unwrap_or(Timestamp::MAX));
        if ends.is_some_and(|ends| now >= ends) {
            return Some(before.told(("False", EXPIRED, timed_out(update)), now, GiveUp::Now));
        }
        let text = under_way(update, best.unwrap_or(reached));
        let give_up = ends.map_or(GiveUp::Never, GiveUp::At);
        Some(before.told(("True", under_way_reason, text), now, give_up))
    }

    /// Whether the condition tells already that pods are being recreated at that revision.
    #[must_use]
    pub fn has_begun_to_recreate(object: &StatefulSet, update: &str) -> bool {
        Before::read(object, update).is(RECREATING.0)
    }
}

fn timed_out(update: &str) -> String {
    format!("Revision {update:?} has timed out progressing.")
}

fn under_way(update: &str, reached: usize) -> String {
    format!("Revision {update:?} is progressing: pods available at it: {reached}.")
}

/// How many pods the roll-out has to bring to the new revision.
fn wanted(set: &Snapshot, partition: u32) -> usize {
    set.replicas.iter().skip(partition as usize).filter(|slot| !slot.stopped).count()
}

/// How many of them are there.
fn done(set: &Snapshot, partition: u32) -> usize {
    let rolled = set.replicas.iter().skip(partition as usize).filter(|slot| !slot.stopped).filter_map(|slot| slot.pod);
    rolled.filter(|pod| pod.is_updated() && pod.is_healthy()).count()
}

/// What the condition said of this revision the last time.
#[derive(Default)]
struct Before {
    reason: String,
    message: String,
    since: Option<Timestamp>,
    /// The most pods that had been available at the revision.
    reached: Option<usize>,
}

impl Before {
    fn read(object: &StatefulSet, update: &str) -> Self {
        let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let Some(found) = conditions.into_iter().find(|condition| condition.type_.as_deref() == Some(CONDITION)) else {
            return Self::default();
        };
        let message = found.message.clone().unwrap_or_default();
        let paused = found.reason.as_deref() == Some(PAUSED);
        if !paused && !message.starts_with(&format!("Revision {update:?} ")) {
            return Self::default();
        }
        let reached = message.strip_suffix('.').and_then(|text| text.rsplit_once(": ")?.1.parse().ok());
        Self {
            reason: found.reason.clone().unwrap_or_default(),
            message,
            since: found.last_transition_time.as_ref().map(|time| time.0),
            reached,
        }
    }

    fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// The condition as it is now; its time moves only when it says something new.
    fn told(&self, (status, reason, message): (&str, &str, String), now: Timestamp, give_up: GiveUp) -> Progress {
        let since = self.since.filter(|_| self.reason == reason && self.message == message).unwrap_or(now);
        let condition = StatefulSetCondition {
            type_: Some(CONDITION.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(since)),
        };
        Progress { condition, give_up }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::{Health, Record};
    use crate::statefulset::{Claims, Guard, HandOver, Pod, Policy, Revision, Slot};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Pods as letters: `R` available, `p` pending at the new revision; `o` available at the old one.
    fn snapshot(pods: &str, partition: u32, paused: bool) -> Snapshot {
        let pod = |letter| Pod {
            health: if letter == 'p' { Health::Pending } else { Health::Available },
            record: Record::NeverReady,
            terminating: false,
            revision: if letter == 'o' { Revision::CURRENT } else { Revision::UPDATE },
            damaged: false,
            misfit: false,
            last: false,
            guard: Guard::Free,
            hand_over: HandOver::No,
            available_at: None,
        };
        let slot = |(ordinal, letter)| Slot {
            ordinal,
            pod: (letter != '.').then(|| pod(letter)),
            claims: Claims::default(),
            stopped: false,
        };
        Snapshot {
            policy: Policy::OrderedReady,
            strategy: Strategy::RollingUpdate { partition, max_unavailable: 1 },
            deletion: Deletion::No,
            ordered_delete: false,
            held: false,
            paused,
            heals: true,
            give_up: GiveUp::Never,
            waits_for_others: false,
            hands_over: false,
            evicts: false,
            budgets: vec![],
            current: Revision::CURRENT,
            replicas: (0..).zip(pods.chars()).map(slot).collect(),
            condemned: vec![],
        }
    }

    #[test]
    fn a_roll_out_has_its_time_anew_with_every_pod_that_gets_there_for_the_first_time() {
        let mut object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": {wishes::PROGRESS_DEADLINE: "60"}},
            "spec": {"selector": {}, "template": {}}, "status": {"replicas": 0},
        }))
        .expect("a set");
        // second, revision, pods, partition, paused | status, reason, since
        let table = [
            (0, "one", "ooo", 0, false, "True RevisionUpdated 0"),
            (50, "one", "oop", 0, false, "True RevisionUpdated 0"),
            (59, "one", "ooR", 0, false, "True RevisionUpdated 59"),
            (70, "one", "oop", 0, false, "True RevisionUpdated 59"),
            (80, "one", "ooR", 0, false, "True RevisionUpdated 59"),
            (90, "one", "opR", 0, true, "Unknown StatefulSetPaused 90"),
            (900, "one", "opR", 0, true, "Unknown StatefulSetPaused 90"),
            (901, "one", "opR", 0, false, "True RevisionUpdated 901"),
            (960, "one", "opR", 0, false, "True RevisionUpdated 901"),
            (961, "one", "opR", 0, false, "False ProgressDeadlineExceeded 961"),
            (990, "one", "opR", 0, false, "False ProgressDeadlineExceeded 961"),
            (991, "two", "opp", 0, false, "True RevisionUpdated 991"),
            (992, "two", "opR", 2, false, "True NewRevisionAvailable 992"),
            (2000, "two", "opp", 2, false, "True NewRevisionAvailable 992"),
            (2001, "three", "...", 0, false, "True RevisionUpdated 2001"),
            (2061, "three", "...", 0, false, "False ProgressDeadlineExceeded 2061"),
            (2070, "three", "RRR", 0, false, "True NewRevisionAvailable 2070"),
        ];
        for (second, revision, pods, partition, paused, expected) in table {
            let set = snapshot(pods, partition, paused);
            let progress = Progress::of(&object, &set, revision, at(second)).expect("a deadline");
            let condition = &progress.condition;
            let since = condition.last_transition_time.as_ref().map(|time| time.0.as_second()).expect("a time");
            let reason = condition.reason.as_deref().expect("a reason");
            let status = condition.status.as_deref().expect("a status");
            assert_eq!(format!("{status} {reason} {since}"), expected, "at {second}: {condition:?}");
            let give_up = match reason {
                "RevisionUpdated" => GiveUp::At(at(since + 60)),
                EXPIRED => GiveUp::Now,
                _ => GiveUp::Never,
            };
            assert_eq!(progress.give_up, give_up, "at {second}");
            object.status.as_mut().expect("a status").conditions = Some(vec![progress.condition]);
        }
    }

    #[test]
    fn recreating_is_told_from_the_first_pod_that_goes_until_all_are_there_again() {
        let mut object: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web"}, "spec": {"selector": {}, "template": {}}, "status": {"replicas": 0},
        }))
        .expect("a set");
        // second, revision, pods, paused | status, reason, since; begun
        let table = [
            (0, "one", "...", false, "nothing", false),
            (1, "one", "R..", false, "nothing", false),
            (2, "one", "RRR", false, "True RecreateComplete 2", false),
            (3, "one", "RRp", false, "True RecreateComplete 2", false),
            (10, "two", "ooo", true, "Unknown StatefulSetPaused 10", false),
            (11, "two", "ooo", false, "True RecreateInProgress 11", true),
            (12, "two", "..o", false, "True RecreateInProgress 11", true),
            (13, "two", "...", false, "True RecreateInProgress 11", true),
            (14, "two", "Rp.", false, "True RecreateInProgress 14", true),
            (15, "two", "RRR", false, "True RecreateComplete 15", false),
            (16, "two", "oRR", false, "True RecreateInProgress 16", true),
        ];
        for (second, revision, pods, paused, expected, begun) in table {
            let set = Snapshot { strategy: Strategy::Recreate, ..snapshot(pods, 0, paused) };
            let progress = Progress::of(&object, &set, revision, at(second));
            let told = progress.as_ref().map_or_else(
                || "nothing".to_owned(),
                |Progress { condition: c, .. }| {
                    let since = c.last_transition_time.as_ref().map(|time| time.0.as_second()).expect("a time");
                    let (status, reason) = (c.status.as_deref(), c.reason.as_deref());
                    format!("{} {} {since}", status.expect("a status"), reason.expect("a reason"))
                },
            );
            assert_eq!(told, expected, "at {second}");
            assert!(progress.as_ref().is_none_or(|progress| progress.give_up == GiveUp::Never));
            object.status.as_mut().expect("a status").conditions = progress.map(|progress| vec![progress.condition]);
            assert_eq!(Progress::has_begun_to_recreate(&object, revision), begun, "at {second}");
        }
    }

    #[test]
    fn without_a_deadline_nothing_is_said() {
        let object: StatefulSet =
            serde_json::from_value(json!({"metadata": {}, "spec": {"selector": {}, "template": {}}})).expect("a set");
        assert_eq!(Progress::of(&object, &snapshot("o", 0, false), "one", at(0)), None);
    }
}
