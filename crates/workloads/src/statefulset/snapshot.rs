//! Everything the plan of a StatefulSet may look at, and nothing else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as PodObject};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use stead_machinery::hand_over;
use stead_machinery::overrides::Overrides;
use stead_machinery::selector::Selector;

use super::memory::{Memory, Seat};
use super::{Progress, claims, identity, wishes};
use crate::disruption::covers;
use crate::pod::{Health, Record, available_at, health, record};

/// `spec.podManagementPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    OrderedReady,
    Parallel,
}

/// `spec.updateStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    OnDelete,
    RollingUpdate {
        /// Ordinals below `start + partition` are not updated.
        partition: u32,
        /// How many pods may be unavailable in a roll-out; at least 1.
        max_unavailable: u32,
    },
    /// All pods go, and only when all are gone new ones are made.
    Recreate,
}

impl Strategy {
    /// Whether a roll-out comes to its end without anybody deleting pods.
    #[must_use]
    pub fn is_automatic(self) -> bool {
        match self {
            Self::OnDelete => false,
            Self::RollingUpdate { .. } | Self::Recreate => true,
        }
    }
}

/// Whether the set is being deleted, and who removes its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deletion {
    /// It is not being deleted.
    No,
    /// Its pods are the garbage collector's business, or are to be left alone.
    ByOthers,
    /// This controller takes the pods down in reverse order before it lets the set go.
    InOrder,
}

/// When a roll-out that does not get on is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// It is complete, held, or may take for ever.
    Never,
    /// If nothing better happens until then.
    At(Timestamp),
    /// Its time is over.
    Now,
}

/// Which pod template a pod was made from. Only equality matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(pub u8);

impl Revision {
    /// The revision to be rolled out.
    pub const UPDATE: Self = Self(0);
    /// The revision that the set had before, while a roll-out is under way.
    pub const CURRENT: Self = Self(1);
    /// Any older one.
    pub const OTHER: Self = Self(2);
}

/// Which disruption budget has a say when the pod is evicted, see [`wishes::EVICT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guard {
    /// None.
    #[default]
    Free,
    /// That of [`Snapshot::budgets`].
    Budget(usize),
    /// Several, and then nothing can be evicted.
    Many,
}

/// What a disruption budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// How many of its pods may be evicted now.
    pub allowed: u32,
    /// How many more would have to work before it allows the next one but for one more.
    pub short: u32,
}

impl Budget {
    fn of(budget: &PodDisruptionBudget) -> Self {
        let status = budget.status.clone().unwrap_or_default();
        let number = |number: Option<i32>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
        // What was counted for an older form of the budget is worth nothing.
        let counted = status.observed_generation >= budget.metadata.generation;
        Self {
            allowed: if counted { number(status.disruptions_allowed) } else { 0 },
            short: number(status.desired_healthy).saturating_sub(number(status.current_healthy)),
        }
    }
}

/// How far a pod is with handing over before it is taken down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HandOver {
    /// It was not asked.
    #[default]
    No,
    /// It was asked, and may take until then.
    Asked(Timestamp),
    /// It has answered, or its time is over.
    Over,
}

impl HandOver {
    fn of(pod: &PodObject, seconds: u32, now: Timestamp) -> Self {
        let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let Some(asked) = annotation(hand_over::REQUESTED).and_then(|text| text.parse::<Timestamp>().ok()) else {
            return Self::No;
        };
        let end = asked.checked_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX);
        if annotation(hand_over::DONE).is_some() || now >= end { Self::Over } else { Self::Asked(end) }
    }
}

/// A pod that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    pub health: Health,
    pub record: Record,
    pub terminating: bool,
    pub revision: Revision,
    /// Its labels are not what the set asks for.
    pub damaged: bool,
    /// Its volumes are not those that the claim templates ask for, or its override is another than it should have. They cannot be changed: only a new pod has others.
    pub misfit: bool,
    /// A roll-out takes it after all others, see [`wishes::UPDATE_LAST`].
    pub last: bool,
    pub guard: Guard,
    pub hand_over: HandOver,
    /// When a pod that is `Ready` will be `Available`.
    pub available_at: Option<Timestamp>,
}

impl Pod {
    /// Available and not on its way out.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.health == Health::Available && !self.terminating
    }

    /// What a new pod would be: of the revision that is rolled out, with the volumes that the set asks for.
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.revision == Revision::UPDATE && !self.misfit
    }
}

/// What is remarkable about the claims of one ordinal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claims {
    /// At least one does not exist.
    pub missing: bool,
    /// At least one is being deleted.
    pub deleting: bool,
    /// At least one belongs to an earlier pod of this name, whose end will delete it.
    pub stale: bool,
    /// The owner references of at least one are not what the retention policy asks for.
    pub owners: bool,
    /// At least one asks for less storage than its template, and is to grow.
    pub small: bool,
    /// At least one lacks labels or annotations of its template, and is to have them.
    pub unlabelled: bool,
}

/// One ordinal: its pod, if there is one, and its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    pub ordinal: u32,
    pub pod: Option<Pod>,
    pub claims: Claims,
    /// It is wanted, but its pod is not for now, see [`wishes::STOPPED`].
    pub stopped: bool,
}

/// A StatefulSet at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    pub policy: Policy,
    pub strategy: Strategy,
    pub deletion: Deletion,
    /// The set asks for [`Deletion::InOrder`] by [`wishes::ORDERED_DELETE`].
    pub ordered_delete: bool,
    /// The set has the finalizer that makes its deletion wait for this controller.
    pub held: bool,
    /// Roll-outs are held by [`wishes::PAUSED`].
    pub paused: bool,
    /// Broken pods of revisions that are no longer wanted are replaced, see [`wishes::HEAL`].
    pub heals: bool,
    /// When the roll-out has used up its time, see [`wishes::PROGRESS_DEADLINE`].
    pub give_up: GiveUp,
    /// Another set that this one depends on is not ready, see [`wishes::DEPENDS_ON`].
    pub waits_for_others: bool,
    /// Pods that work hand over before they are taken down, see [`wishes::hands_over`].
    pub hands_over: bool,
    /// Roll-outs evict pods that work, see [`wishes::EVICT`].
    pub evicts: bool,
    /// The disruption budgets of its namespace, for a set that evicts.
    pub budgets: Vec<Budget>,
    /// Pods below the partition are made from this revision; equal to [`Revision::UPDATE`] when no roll-out is under way.
    pub current: Revision,
    /// The ordinals that are wanted, ascending; without gaps but for reserved ones, see [`wishes::RESERVED`].
    pub replicas: Vec<Slot>,
    /// Pods outside of these, highest ordinal first.
    pub condemned: Vec<Slot>,
}

/// The objects that a [`Snapshot`] is made from.
pub struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// The pods that the set controls; others must not be here.
    pub pods: &'a [Arc<PodObject>],
    /// Finds a claim of the set's namespace by name.
    pub claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    /// Names of the revisions, see [`super::revisions::decide`].
    pub current: &'a str,
    pub update: &'a str,
    /// Whether another set that this one depends on is not ready.
    pub waits_for_others: bool,
    /// The disruption budgets of the set's namespace; none are needed unless [`wishes::evicts`].
    pub budgets: &'a [Arc<PodDisruptionBudget>],
    pub now: Timestamp,
}

impl std::fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").field("set", &self.set.metadata.name).field("pods", &self.pods.len()).finish()
    }
}

impl Snapshot {
    /// Whether a pod is there, perhaps on its way out, that a new one would not be like.
    #[must_use]
    pub fn has_outdated(&self) -> bool {
        self.replicas.iter().chain(&self.condemned).filter_map(|slot| slot.pod).any(|pod| !pod.is_updated())
    }
}

impl Snapshot {
    /// How many pods that are wanted and not stopped are missing or not available.
    #[must_use]
    pub fn unavailable(&self) -> usize {
        self.running().filter(|slot| slot.pod.is_none_or(|pod| !pod.is_healthy())).count()
    }
}

impl Observed<'_> {
    /// The snapshot of these objects, and how the roll-out gets on where the set gives it a deadline.
    #[must_use]
    pub fn look(&self) -> (Snapshot, Option<Progress>) {
        self.look_again(&mut Memory::default())
    }

    /// The same, without reading again what has not changed since the look before; `memory` is that of this set.
    #[must_use]
    pub fn look_again(&self, memory: &mut Memory) -> (Snapshot, Option<Progress>) {
        let set = self.set;
        let stopped = wishes::stopped(set);
        let wanted = |ordinal| Slot { stopped: stopped.contains(ordinal), ..self.slot(ordinal) };
        let mut replicas: Vec<Slot> = identity::ordinals(set).into_iter().map(wanted).collect();
        let seats = self.seats(memory);
        let mut condemned = Vec::new();
        for (ordinal, pod) in seats.iter().map(|(ordinal, (seat, _))| (*ordinal, seat.pod)) {
            match replicas.binary_search_by_key(&ordinal, |slot| slot.ordinal) {
                Ok(at) => replicas[at].pod = Some(pod),
                Err(_) => condemned.push(Slot { pod: Some(pod), ..self.slot(ordinal) }),
            }
        }
        let deletion = wishes::deletion(set);
        if deletion == Deletion::InOrder {
            condemned.extend(replicas.drain(..).filter(|slot| slot.pod.is_some()));
        } else {
            self.look_at_claims(&seats, &mut replicas, &mut condemned);
        }
        condemned.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.ordinal));
        let mut snapshot = Snapshot {
            policy: policy(set),
            strategy: strategy(set),
            deletion,
            ordered_delete: wishes::wants_ordered_delete(set),
            held: wishes::is_held(set),
            paused: wishes::is_paused(set),
            heals: wishes::heals(set),
            give_up: GiveUp::Never,
            waits_for_others: self.waits_for_others,
            hands_over: wishes::hands_over(set),
            evicts: wishes::evicts(set),
            budgets: self.budgets.iter().map(|budget| Budget::of(budget)).collect(),
            current: if self.current == self.update { Revision::UPDATE } else { Revision::CURRENT },
            replicas,
            condemned,
        };
        let progress = Progress::of(set, &snapshot, self.update, self.now);
        snapshot.give_up = progress.as_ref().map_or(GiveUp::Never, |progress| progress.give_up);
        (snapshot, progress)
    }

    /// The pods by ordinal. Where both `web-12` and `web-012` are there, the first one is it, as in
    /// [`identity::by_ordinal`].
    fn seats(&self, memory: &mut Memory) -> BTreeMap<u32, (Seat, &Arc<PodObject>)> {
        // Budgets change beside the set.
        let mut none = Memory::default();
        let memory = if self.budgets.is_empty() { memory } else { &mut none };
        memory.turn_to(self.set, [self.current, self.update]);
        let finder = Finder::of(self);
        let mut seats = BTreeMap::new();
        for object in self.pods {
            let Some(seat) = self.seat(object, &finder, memory) else { continue };
            if seat.named || !seats.contains_key(&seat.ordinal) {
                seats.insert(seat.ordinal, (seat, object));
            }
        }
        memory.close(self.pods.len());
        seats
    }

    fn seat(&self, object: &Arc<PodObject>, finder: &Finder<'_>, memory: &mut Memory) -> Option<Seat> {
        if let Some(seat) = memory.recall(object, self.now) {
            debug_assert_eq!(Some(seat), finder.find(object), "a memory is wrong");
            return Some(seat);
        }
        let seat = finder.find(object)?;
        if let Some(since) = finder.holds_since(object, &seat.pod) {
            memory.note(object, seat, since);
        }
        Some(seat)
    }

    fn slot(&self, ordinal: u32) -> Slot {
        Slot { ordinal, pod: None, claims: Claims::default(), stopped: false }
    }

    fn look_at_claims(
        &self,
        seats: &BTreeMap<u32, (Seat, &Arc<PodObject>)>,
        replicas: &mut [Slot],
        condemned: &mut [Slot],
    ) {
        if identity::claim_templates(self.set).is_empty() {
            return;
        }
        let uid = |ordinal: u32| seats.get(&ordinal).and_then(|(_, pod)| pod.metadata.uid.as_deref());
        for (scaled_down, slots) in [(false, replicas), (true, condemned)] {
            for slot in slots {
                let owners = claims::Owners {
                    set: self.set,
                    pod_name: identity::pod_name(self.set, slot.ordinal),
                    pod_uid: uid(slot.ordinal).unwrap_or_default(),
                    scaled_down,
                };
                slot.claims = claims::look(&owners, slot.ordinal, self.claim);
            }
        }
    }
}

/// What all pods of a set are looked at for.
struct Finder<'a> {
    seen: &'a Observed<'a>,
    current: Cow<'a, str>,
    update: Cow<'a, str>,
    last: Option<Selector>,
    /// `None` where nobody understands them.
    overrides: Option<Overrides>,
}

impl<'a> Finder<'a> {
    fn of(seen: &'a Observed<'a>) -> Self {
        Self {
            seen,
            current: identity::revision_label(seen.current),
            update: identity::revision_label(seen.update),
            last: wishes::updates_last(seen.set),
            overrides: wishes::overrides(seen.set).ok(),
        }
    }

    fn find(&self, object: &PodObject) -> Option<Seat> {
        let ordinal = identity::ordinal_of(self.seen.set, object)?;
        Some(Seat { ordinal, named: identity::is_named(object), pod: self.pod(object, ordinal) })
    }

    fn pod(&self, object: &PodObject, ordinal: u32) -> Pod {
        let Observed { set, now, .. } = *self.seen;
        let min_ready = min_ready_seconds(set);
        let health = health(object, min_ready, now);
        let overridden = |all: &Overrides| identity::override_matches(set, all, object, ordinal);
        let fits = identity::storage_matches(set, object, ordinal) && self.overrides.as_ref().is_none_or(overridden);
        Pod {
            health,
            record: record(object),
            terminating: object.metadata.deletion_timestamp.is_some(),
            revision: self.revision(object),
            damaged: !identity::matches(set, object, ordinal),
            misfit: !fits,
            last: self.last.as_ref().is_some_and(|selector| selects(selector, object)),
            guard: self.guard(object),
            hand_over: HandOver::of(object, wishes::hand_over_seconds(set), now),
            available_at: available_at(object, min_ready).filter(|_| health == Health::Ready),
        }
    }

    fn revision(&self, object: &PodObject) -> Revision {
        match identity::revision_of(object) {
            Some(hash) if hash == self.update => Revision::UPDATE,
            Some(hash) if hash == self.current => Revision::CURRENT,
            _ => Revision::OTHER,
        }
    }

    fn guard(&self, object: &PodObject) -> Guard {
        let mut covering = (0..).zip(self.seen.budgets).filter(|(_, budget)| covers(budget, object));
        match (covering.next(), covering.next()) {
            (None, _) => Guard::Free,
            (Some((at, _)), None) => Guard::Budget(at),
            (Some(_), Some(_)) => Guard::Many,
        }
    }

    /// From when on the same would be found of `object` at any time; `None` for what changes by itself.
    fn holds_since(&self, object: &PodObject, found: &Pod) -> Option<Timestamp> {
        let ready = available_at(object, min_ready_seconds(self.seen.set)).filter(|_| found.health.is_ready());
        let settled = found.health != Health::Ready && found.hand_over == HandOver::No;
        settled.then(|| ready.unwrap_or(Timestamp::MIN))
    }
}

fn min_ready_seconds(set: &StatefulSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn selects(selector: &Selector, pod: &PodObject) -> bool {
    selector.matches(|key| pod.metadata.labels.as_ref()?.get(key).map(String::as_str))
}

fn policy(set: &StatefulSet) -> Policy {
    match set.spec.pod_management_policy.as_deref() {
        Some("Parallel") => Policy::Parallel,
        _ => Policy::OrderedReady,
    }
}

fn strategy(set: &StatefulSet) -> Strategy {
    let strategy = set.spec.update_strategy.as_ref();
    match strategy.and_then(|s| s.type_.as_deref()) {
        Some("OnDelete") => return Strategy::OnDelete,
        Some("Recreate") => return Strategy::Recreate,
        _ => {}
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let partition = rolling.and_then(|r| r.partition).unwrap_or(0);
    Strategy::RollingUpdate {
        partition: u32::try_from(partition).unwrap_or(0),
        max_unavailable: max_unavailable(rolling.and_then(|r| r.max_unavailable.as_ref()), identity::replicas(set)),
    }
}

/// A percentage is rounded down, as upstream's code does (its API comment says up); at least 1.
fn max_unavailable(value: Option<&IntOrString>, replicas: u32) -> u32 {
    let asked = match value {
        None => 1,
        Some(IntOrString::Int(number)) => u64::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent: u64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            u64::from(replicas) * percent / 100
        }
    };
    u32::try_from(asked).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What a set with these annotations sees of its pod 1 with those, after so many seconds, under these budgets.
    fn look(of_set: &Value, of_pod: &Value, seconds: i64, budgets: &[Value]) -> Snapshot {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "web", "annotations": of_set},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {}},
        }))
        .expect("a set");
        let pod: PodObject = serde_json::from_value(json!({"metadata": {
            "name": "web-1", "annotations": of_pod,
            "labels": {"app": "web", "controller-revision-hash": "new", "statefulset.kubernetes.io/pod-name": "web-1"},
        }}))
        .expect("a pod");
        let budgets: Vec<_> =
            budgets.iter().map(|budget| Arc::new(serde_json::from_value(budget.clone()).expect("a budget"))).collect();
        let observed = Observed {
            set: &set,
            pods: &[Arc::new(pod)],
            claim: &|_| None,
            current: "new",
            update: "new",
            waits_for_others: false,
            budgets: &budgets,
            now: Timestamp::from_second(seconds).expect("a time"),
        };
        observed.look().0
    }

    #[test]
    fn a_memory_changes_nothing_of_what_is_seen() {
        let set = |generation: i64, annotations: &Value| -> StatefulSet {
            serde_json::from_value(json!({
                "metadata": {"name": "web", "uid": "u", "generation": generation, "annotations": annotations},
                "spec": {
                    "replicas": 3, "minReadySeconds": 10 * generation, "selector": {"matchLabels": {"app": "web"}},
                    "template": {},
                },
            }))
            .expect("a set")
        };
        let pod = |name: &str, phase: &str, ready: i64, annotations: &Value| -> Arc<PodObject> {
            let since = Timestamp::from_second(ready).expect("a time");
            let labels = json!({"app": "web", "controller-revision-hash": "a"});
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
            let pod = json!({
                "metadata": {"name": name, "labels": labels, "annotations": annotations},
                "status": {"phase": phase, "conditions": ready},
            });
            Arc::new(serde_json::from_value(pod).expect("a pod"))
        };
        let none = json!({});
        let asked = json!({hand_over::REQUESTED: "1970-01-01T00:00:30Z"});
        let (first, overridden) = (set(1, &none), set(1, &json!({wishes::OVERRIDES: r#"{"0": {}}"#})));
        let (running, late) = (pod("web-0", "Running", 0, &none), pod("web-01", "Running", 25, &none));
        let (pending, failed) = (pod("web-1", "Pending", 0, &none), pod("web-1", "Failed", 0, &none));
        let asked = pod("web-2", "Running", 0, &asked);
        let guard: PodDisruptionBudget =
            serde_json::from_value(json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}})).expect("a budget");
        let guard = Arc::new(guard);
        let mut memory = Memory::default();
        for (set, pods, revisions, budgets, seconds, known) in [
            (&first, vec![&running, &late], ["a", "b"], vec![], 30, "web-0"),
            (&first, vec![&running, &late, &pending], ["a", "b"], vec![], 34, "web-0 web-1"),
            (&first, vec![&running, &late, &failed], ["a", "b"], vec![], 35, "web-0 web-01 web-1"),
            (&first, vec![&running, &late, &failed], ["a", "b"], vec![], 5, "web-1"),
            (&first, vec![&running, &asked], ["a", "b"], vec![], 40, "web-0"),
            (&first, vec![&running, &asked], ["a", "a"], vec![], 900, "web-0"),
            (&first, vec![&running, &asked], ["a", "a"], vec![guard], 901, "web-0"),
            (&overridden, vec![&running, &failed], ["a", "a"], vec![], 902, "web-0 web-1"),
            (&set(500, &none), vec![&running, &failed], ["a", "a"], vec![], 903, "web-1"),
        ] {
            let pods: Vec<_> = pods.into_iter().cloned().collect();
            let observed = Observed {
                set,
                pods: &pods,
                claim: &|_| None,
                current: revisions[0],
                update: revisions[1],
                waits_for_others: false,
                budgets: &budgets,
                now: Timestamp::from_second(seconds).expect("a time"),
            };
            assert_eq!(observed.look_again(&mut memory).0, observed.look().0, "at {seconds}");
            let mut names: Vec<_> = [&running, &late, &pending, &failed, &asked]
                .into_iter()
                .filter(|pod| memory.knows(set, pod))
                .filter_map(|pod| pod.metadata.name.as_deref())
                .collect();
            names.sort_unstable();
            assert_eq!(names.join(" "), known, "at {seconds}");
        }
        assert!(!memory.knows(&first, &running), "of another generation");
    }

    fn pod_of(snapshot: &Snapshot) -> Pod {
        snapshot.pod_at(1).expect("a pod")
    }

    #[test]
    fn a_pod_without_the_override_of_its_ordinal_is_a_misfit_unless_nobody_understands_them() {
        let hash = stead_machinery::overrides::hash(&json!({"metadata": {"labels": {"a": "b"}}}));
        let ours = json!({wishes::OVERRIDE_HASH: hash});
        for (overrides, pod, expected) in [
            (r#"{"1": {"metadata": {"labels": {"a": "b"}}}}"#, &json!({}), true),
            (r#"{"1": {"metadata": {"labels": {"a": "b"}}}}"#, &ours, false),
            (r#"{"1": {"metadata": {"labels": {"a": "c"}}}}"#, &ours, true),
            (r#"{"0": {"metadata": {"labels": {"a": "b"}}}}"#, &ours, true),
            ("{}", &json!({}), false),
            ("no map", &json!({}), false),
        ] {
            let snapshot = look(&json!({wishes::OVERRIDES: overrides}), pod, 0, &[]);
            assert_eq!(pod_of(&snapshot).misfit, expected, "{overrides} {pod}");
        }
    }

    #[test]
    fn handing_over_ends_with_an_answer_or_with_its_time() {
        let asked = json!({hand_over::REQUESTED: "1970-01-01T00:00:10Z"});
        let done = json!({hand_over::REQUESTED: "1970-01-01T00:00:10Z", hand_over::DONE: "1"});
        let end = Timestamp::from_second(40).expect("a time");
        for (pod, seconds, expected) in [
            (&json!({}), 20, HandOver::No),
            (&asked, 20, HandOver::Asked(end)),
            (&asked, 40, HandOver::Over),
            (&done, 20, HandOver::Over),
        ] {
            let wishes = json!({hand_over::HAND_OVER: "wait", hand_over::SECONDS: "30"});
            let mut snapshot = look(&wishes, pod, seconds, &[]);
            assert_eq!(pod_of(&snapshot).hand_over, expected, "{pod} {seconds}");
            if expected == HandOver::Asked(end) {
                assert_eq!(super::super::plan(&snapshot).wake_at, Some(end));
                snapshot.hands_over = false;
                assert_eq!(super::super::plan(&snapshot).wake_at, None, "not waited for any more");
            }
        }
    }

    #[test]
    fn a_pod_is_guarded_by_the_budgets_that_cover_it_as_they_were_counted_last() {
        let budget = |app: &str, generation: i64| {
            json!({
                "metadata": {"generation": generation}, "spec": {"selector": {"matchLabels": {"app": app}}},
                "status": {
                    "observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 1, "desiredHealthy": 3,
                    "expectedPods": 3,
                },
            })
        };
        let (ours, others, newer) = (budget("web", 1), budget("db", 1), budget("web", 2));
        for (budgets, guard, allowed) in [
            (vec![], Guard::Free, vec![]),
            (vec![others.clone()], Guard::Free, vec![2]),
            (vec![others.clone(), ours.clone()], Guard::Budget(1), vec![2, 2]),
            (vec![ours.clone(), others, ours], Guard::Many, vec![2, 2, 2]),
            (vec![newer], Guard::Budget(0), vec![0]),
        ] {
            let snapshot = look(&json!({wishes::EVICT: "true"}), &json!({}), 0, &budgets);
            assert_eq!(pod_of(&snapshot).guard, guard);
            assert_eq!(snapshot.budgets.iter().map(|budget| budget.allowed).collect::<Vec<_>>(), allowed);
            assert!(snapshot.evicts && snapshot.budgets.iter().all(|budget| budget.short == 2));
        }
    }

    #[test]
    fn ordinals_are_stopped_only_where_they_are_wanted() {
        let snapshot = look(&json!({wishes::STOPPED: "1,5"}), &json!({}), 0, &[]);
        assert_eq!(snapshot.replicas.iter().map(|slot| slot.stopped).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_percentage_of_unavailable_pods_is_rounded_down_but_never_to_none() {
        let percent = |text: &str| Some(IntOrString::String(text.to_owned()));
        for (value, replicas, expected) in [
            (None, 10, 1),
            (Some(IntOrString::Int(3)), 10, 3),
            (Some(IntOrString::Int(-1)), 10, 1),
            (percent("25%"), 10, 2),
            (percent("1%"), 10, 1),
            (percent("100%"), 10, 10),
            (percent("rubbish"), 10, 1),
        ] {
            assert_eq!(max_unavailable(value.as_ref(), replicas), expected, "{value:?}");
        }
    }
}
