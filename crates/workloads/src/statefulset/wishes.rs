//! What a set can ask for beyond upstream's API: annotations, each off unless it says otherwise.
//!
//! | annotation | value | means |
//! |---|---|---|
//! | `stead.dev/heal` | `"false"` | turns the replacement of broken pods off, which is on by default |
//! | `stead.dev/progress-deadline-seconds` | a number | a roll-out that takes longer is undone |
//! | `stead.dev/paused` | `"true"` | holds roll-outs |
//! | `stead.dev/ordered-delete` | `"true"` | takes the pods down in reverse order when the set is deleted |
//! | `stead.dev/reserve-ordinals` | `"1,4-6"` | these ordinals get no pod |
//! | `stead.dev/stop-ordinals` | `"2,5-6"` | the pods of these ordinals are taken down and not made again |
//! | `stead.dev/depends-on` | `"db,queue"` | the first pod starts when these sets are ready |
//! | `stead.dev/update-last` | a label selector | pods with these labels are updated after all others |
//! | `stead.dev/overrides` | YAML: ordinals to patches | the pods of these ordinals are made from a patched template |
//! | `stead.dev/evict` | `"true"` | roll-outs evict pods that work, so that disruption budgets hold |
//! | `stead.dev/hand-over` | `'["cmd", "arg"]'` or `"wait"` | pods that work hand over before they are taken down |
//! | `stead.dev/hand-over-seconds`, `-container` | `"30"`, a name | how long that may take, and where the command runs |
//! | `stead.dev/grow-claims` | `"true"` | claim templates may grow and be added, and the claims follow |
//!
//! A value that cannot be understood counts as not given, but for overrides: while those cannot be understood, pods are
//! neither made nor replaced for them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};
use stead_machinery::hand_over;
use stead_machinery::ordinals::Ordinals;
use stead_machinery::overrides::Overrides;
use stead_machinery::selector::Selector;

use super::{Deletion, identity};

/// `"false"` leaves broken pods alone, as upstream does with `OrderedReady`.
pub const HEAL: &str = "stead.dev/heal";
/// After how many seconds a roll-out that is not complete is undone.
pub const PROGRESS_DEADLINE: &str = "stead.dev/progress-deadline-seconds";
/// Put on a set together with the old template when a roll-out is undone: the revision that failed.
pub const ROLLED_BACK_FROM: &str = "stead.dev/rolled-back-from";
/// `"true"` holds roll-outs, as `kubectl rollout pause` does for a Deployment.
pub const PAUSED: &str = "stead.dev/paused";
/// `"true"` takes the pods of a deleted set down in reverse order, one by one.
pub const ORDERED_DELETE: &str = "stead.dev/ordered-delete";
/// The finalizer by which the deletion of such a set waits for its pods.
pub const ORDERED_DELETE_FINALIZER: &str = "stead.dev/ordered-delete";
/// Ordinals and ranges of ordinals, separated by commas, that are left out.
pub const RESERVED: &str = "stead.dev/reserve-ordinals";
/// Ordinals and ranges of ordinals whose pods are taken down for a while; they stay counted, and their claims stay.
pub const STOPPED: &str = "stead.dev/stop-ordinals";
/// Names of sets of the same namespace, separated by commas.
pub const DEPENDS_ON: &str = "stead.dev/depends-on";
/// A label selector, `role=leader` say: a roll-out takes the pods that it selects after all others.
pub const UPDATE_LAST: &str = "stead.dev/update-last";
/// A map from ordinals to strategic merge patches of the pod template, see [`stead_machinery::overrides`].
pub const OVERRIDES: &str = "stead.dev/overrides";
/// On a pod: the hash of the patch that it was made with.
pub const OVERRIDE_HASH: &str = "stead.dev/override-hash";
/// `"true"` lets roll-outs ask the disruption budgets, by evicting pods that work instead of deleting them.
pub const EVICT: &str = "stead.dev/evict";
/// `"true"` allows claim templates to grow, to be added and to have other labels; claims follow.
pub const GROW_CLAIMS: &str = "stead.dev/grow-claims";
/// The finalizer of a deletion that is to leave the pods alone.
const ORPHAN_FINALIZER: &str = "orphan";

#[must_use]
pub fn heals(set: &StatefulSet) -> bool {
    annotation(set, HEAL) != Some("false")
}

/// How long a roll-out may take; `None` when it may take for ever.
#[must_use]
pub fn progress_deadline(set: &StatefulSet) -> Option<SignedDuration> {
    let seconds: u32 = annotation(set, PROGRESS_DEADLINE)?.trim().parse().ok()?;
    (seconds > 0).then(|| SignedDuration::from_secs(seconds.into()))
}

#[must_use]
pub fn is_paused(set: &StatefulSet) -> bool {
    is_true(set, PAUSED)
}

#[must_use]
pub fn wants_ordered_delete(set: &StatefulSet) -> bool {
    is_true(set, ORDERED_DELETE)
}

/// Which pods are updated last; `None` when no order but that of the ordinals is asked for.
#[must_use]
pub fn updates_last(set: &StatefulSet) -> Option<Selector> {
    Selector::parse(annotation(set, UPDATE_LAST)?).ok().filter(|selector| !selector.is_everything())
}

/// The patches of single ordinals.
///
/// # Errors
/// What cannot be understood of them.
pub fn overrides(set: &StatefulSet) -> Result<Overrides, String> {
    let selector = &set.spec.selector;
    let by_expression = selector.match_expressions.iter().flatten().map(|expression| expression.key.as_str());
    let by_label = selector.match_labels.iter().flatten().map(|(key, _)| key.as_str());
    let ours = [identity::POD_NAME_LABEL, identity::POD_INDEX_LABEL, identity::REVISION_LABEL];
    let fixed: Vec<&str> = by_expression.chain(by_label).chain(ours).collect();
    Overrides::parse(annotation(set, OVERRIDES).unwrap_or_default(), &|label| fixed.contains(&label))
        .map_err(|why| format!("annotation {OVERRIDES}: {why}"))
}

#[must_use]
pub fn evicts(set: &StatefulSet) -> bool {
    is_true(set, EVICT)
}

/// Whether pods that work are asked to hand over before they are taken down.
#[must_use]
pub fn hands_over(set: &StatefulSet) -> bool {
    annotation(set, hand_over::HAND_OVER).and_then(hand_over::how).is_some()
}

/// How long handing over may take.
#[must_use]
pub fn hand_over_seconds(set: &StatefulSet) -> u32 {
    annotation(set, hand_over::SECONDS).and_then(hand_over::seconds).unwrap_or(hand_over::SECONDS_DEFAULT)
}

/// The annotations that ask a pod to hand over, as the set says it; nothing takes a request back.
#[must_use]
pub fn hand_over_request(set: &StatefulSet, now: Option<Timestamp>) -> Value {
    let of_set = |key| now.and_then(|_| annotation(set, key));
    // To the millisecond: the time tells requests apart.
    let now = now.map(|now| Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now).to_string());
    json!({
        hand_over::REQUESTED: now,
        hand_over::DONE: null,
        hand_over::HAND_OVER: of_set(hand_over::HAND_OVER),
        hand_over::SECONDS: of_set(hand_over::SECONDS),
        hand_over::CONTAINER: of_set(hand_over::CONTAINER),
    })
}

#[must_use]
pub fn grows_claims(set: &StatefulSet) -> bool {
    is_true(set, GROW_CLAIMS)
}

/// The sets that have to be ready before the first pod of this one starts.
pub fn depends_on(set: &StatefulSet) -> impl Iterator<Item = &str> {
    annotation(set, DEPENDS_ON).unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Whether every pod of a set that others depend on is available, but for those that are stopped.
#[must_use]
pub fn is_ready(set: &StatefulSet) -> bool {
    let available = set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let seen = set.status.as_ref().and_then(|status| status.observed_generation);
    seen >= set.metadata.generation && available >= running(set)
}

/// The first `count` ordinals from `start` on that are not reserved, ascending.
#[must_use]
pub fn ordinals(set: &StatefulSet, start: u32, count: u32) -> Vec<u32> {
    let reserved = Ordinals::lenient(annotation(set, RESERVED).unwrap_or_default());
    let mut ordinals = Vec::with_capacity(count as usize);
    let mut next = start;
    for range in reserved.ranges() {
        let missing = (count as usize - ordinals.len()).min(range.start().saturating_sub(next) as usize);
        ordinals.extend((next..).take(missing));
        next = next.max(range.end().saturating_add(1));
    }
    let missing = count as usize - ordinals.len();
    ordinals.extend((next..=i32::MAX.unsigned_abs()).take(missing));
    ordinals
}

/// The ordinals that are stopped, whether they are wanted or not.
#[must_use]
pub fn stopped(set: &StatefulSet) -> Ordinals {
    Ordinals::lenient(annotation(set, STOPPED).unwrap_or_default())
}

/// How many pods the set is to have now: its replicas, but for those that are stopped.
#[must_use]
pub fn running(set: &StatefulSet) -> i32 {
    let stopped = stopped(set);
    let replicas = set.spec.replicas.unwrap_or(1);
    if stopped.ranges().is_empty() {
        return replicas;
    }
    let still = identity::ordinals(set).into_iter().filter(|ordinal| stopped.contains(*ordinal)).count();
    replicas.saturating_sub(i32::try_from(still).unwrap_or(i32::MAX)).max(0)
}

/// The merge patch that takes the pod of one ordinal away and no other: one replica less, and the ordinal reserved.
/// `None` when that ordinal is not wanted anyway.
#[must_use]
pub fn removal(set: &StatefulSet, ordinal: u32) -> Option<Value> {
    identity::ordinals(set).contains(&ordinal).then(|| {
        let before = annotation(set, RESERVED).map(str::trim).filter(|text| !text.is_empty());
        let reserved = before.map_or_else(|| ordinal.to_string(), |before| format!("{before},{ordinal}"));
        let replicas = set.spec.replicas.unwrap_or(1).saturating_sub(1);
        json!({"metadata": {"annotations": {RESERVED: reserved}}, "spec": {"replicas": replicas}})
    })
}

/// Whether the set has [`ORDERED_DELETE_FINALIZER`].
#[must_use]
pub fn is_held(set: &StatefulSet) -> bool {
    has_finalizer(set, ORDERED_DELETE_FINALIZER)
}

/// The set's finalizers with or without [`ORDERED_DELETE_FINALIZER`].
#[must_use]
pub fn finalizers(set: &StatefulSet, held: bool) -> Vec<String> {
    let others = set.metadata.finalizers.iter().flatten().filter(|f| *f != ORDERED_DELETE_FINALIZER).cloned();
    others.chain(held.then(|| ORDERED_DELETE_FINALIZER.to_owned())).collect()
}

pub(super) fn deletion(set: &StatefulSet) -> Deletion {
    match set.metadata.deletion_timestamp {
        None => Deletion::No,
        Some(_) if is_held(set) && !has_finalizer(set, ORPHAN_FINALIZER) => Deletion::InOrder,
        Some(_) => Deletion::ByOthers,
    }
}

fn has_finalizer(set: &StatefulSet, name: &str) -> bool {
    set.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

fn is_true(set: &StatefulSet, key: &str) -> bool {
    annotation(set, key) == Some("true")
}

fn annotation<'a>(set: &'a StatefulSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2, "annotations": {key: value}},
            "spec": {"selector": {}, "template": {}},
        }))
        .expect("a set")
    }

    #[test]
    fn reserved_ordinals_are_skipped() {
        for (reserved, start, count, expected) in [
            ("", 0, 3, vec![0, 1, 2]),
            ("1", 0, 3, vec![0, 2, 3]),
            ("0", 0, 2, vec![1, 2]),
            ("0,1-3", 0, 2, vec![4, 5]),
            ("7, 1-2", 0, 3, vec![0, 3, 4]),
            ("1-3,2", 0, 2, vec![0, 4]),
            ("2-4,3-6", 1, 3, vec![1, 7, 8]),
            ("3", 5, 2, vec![5, 6]),
            ("4-6", 5, 2, vec![7, 8]),
            ("nonsense,2-1,-3,1", 0, 2, vec![0, 2]),
            ("0-4294967295", 0, 2, vec![]),
            ("1", 0, 0, vec![]),
        ] {
            assert_eq!(ordinals(&set(RESERVED, reserved), start, count), expected, "{reserved:?} from {start}");
        }
    }

    #[test]
    fn one_pod_is_removed_by_one_replica_less_and_a_reserved_ordinal() {
        let mut web = set(RESERVED, "1");
        web.spec.replicas = Some(3);
        let expected = json!({"metadata": {"annotations": {RESERVED: "1,2"}}, "spec": {"replicas": 2}});
        assert_eq!(removal(&web, 2), Some(expected));
        for not_wanted in [1, 4] {
            assert_eq!(removal(&web, not_wanted), None, "{not_wanted}");
        }
        let expected = json!({"metadata": {"annotations": {RESERVED: "0"}}, "spec": {"replicas": 0}});
        assert_eq!(removal(&set("a", "b"), 0), Some(expected));
    }

    #[test]
    fn a_deadline_is_a_positive_number_of_seconds() {
        for (text, expected) in [("60", Some(60)), (" 5 ", Some(5)), ("0", None), ("-1", None), ("soon", None)] {
            let got = progress_deadline(&set(PROGRESS_DEADLINE, text)).map(|deadline| deadline.as_secs());
            assert_eq!(got, expected, "{text:?}");
        }
    }

    #[test]
    fn healing_is_on_unless_it_is_turned_off_and_everything_else_off_unless_it_is_turned_on() {
        assert!(heals(&set("a", "b")) && heals(&set(HEAL, "true")) && !heals(&set(HEAL, "false")));
        assert!(!is_paused(&set("a", "b")) && is_paused(&set(PAUSED, "true")) && !is_paused(&set(PAUSED, "yes")));
    }

    #[test]
    fn a_set_is_ready_for_others_when_its_newest_spec_is_fulfilled() {
        let mut db = set(DEPENDS_ON, " cache, ,queue ");
        assert_eq!(depends_on(&db).collect::<Vec<_>>(), ["cache", "queue"]);
        assert!(!is_ready(&db), "no status yet");
        for (generation, available, expected) in [(2, 1, true), (1, 1, false), (2, 0, false)] {
            let status = json!({"replicas": 1, "observedGeneration": generation, "availableReplicas": available});
            db.status = serde_json::from_value(status).expect("a status");
            assert_eq!(is_ready(&db), expected, "generation {generation}, {available} available");
        }
        let mut stopped = set(STOPPED, "0,2,7");
        stopped.spec.replicas = Some(4);
        assert_eq!(running(&stopped), 2);
        for (available, expected) in [(1, false), (2, true)] {
            let status = json!({"replicas": 2, "observedGeneration": 2, "availableReplicas": available});
            stopped.status = serde_json::from_value(status).expect("a status");
            assert_eq!(is_ready(&stopped), expected, "{available} available of those that are not stopped");
        }
    }

    #[test]
    fn an_override_leaves_the_labels_alone_by_which_pods_are_found() {
        let patch = |label: &str| json!({"1": {"metadata": {"labels": {label: "x"}}}}).to_string();
        for (label, expected) in [("app", false), ("tier", false), (identity::POD_NAME_LABEL, false), ("zone", true)] {
            let mut web = set(OVERRIDES, &patch(label));
            web.spec.selector = serde_json::from_value(json!({
                "matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}],
            }))
            .expect("a selector");
            assert_eq!(overrides(&web).is_ok(), expected, "{label}");
        }
    }
}
