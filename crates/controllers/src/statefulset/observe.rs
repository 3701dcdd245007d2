//! From the caches to what the plan may look at; adopts, releases and makes the revision on the way.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use stead_informer::Key;
use stead_workloads::owner::selects;
use stead_workloads::statefulset::revisions::{self, Decision};
use stead_workloads::statefulset::{Observed, Progress, Snapshot, companion, identity, wishes};

use super::{Inner, StatefulSets};
use crate::Error;
use crate::family::{Family, Head, gather, still_alive};
use crate::history::Revisions;

/// One StatefulSet and all that belongs to it.
pub(super) struct Seen {
    pub(super) key: Key,
    /// The set on the server.
    pub(super) object: Arc<StatefulSet>,
    /// The set as it is to be treated; another one than `object` where it is shared with a companion.
    pub(super) set: Arc<StatefulSet>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) decision: Decision,
    pub(super) current: String,
    pub(super) update: String,
    pub(super) collisions: i32,
    pub(super) now: Timestamp,
    pub(super) snapshot: Snapshot,
    /// How the roll-out gets on, for sets that give it a deadline.
    pub(super) progress: Option<Progress>,
}

impl StatefulSets {
    /// `None` when something had to be changed first; the caches will bring the key back.
    pub(super) async fn observe(&self, key: &Key, object: Arc<StatefulSet>) -> Result<Option<Seen>, Error> {
        let inner = &*self.inner;
        let shared = companion::is_managed(&object);
        let set = if shared { Arc::new(companion::left(&object)) } else { object.clone() };
        let now = inner.cx.now();
        let client = &inner.cx.client;
        let reference = identity::set_ref(&set);
        let head = Head { key, meta: &set.metadata, reference: &reference };
        let alive = || still_alive::<StatefulSet>(client, key, &set.metadata);
        let fits = |revision: &ControllerRevision| selected(&set, revision.metadata.labels.as_ref());
        let revisions = gather((client, &inner.revisions, &inner.writes), head, fits, alive).await?;
        let mut memory = inner.memories.lock().remove(key).unwrap_or_default();
        let fits = |pod: &Pod| memory.knows(&set, pod) || is_ours(&set, pod);
        let Family { members: pods, changed } = gather((client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if changed || revisions.changed {
            return Ok(None);
        }
        let revisions = revisions.members;
        let store = Revisions { client, cache: &inner.revisions, writes: &inner.writes, key, reference: &reference };
        let (decision, collisions) = settle(store, &object, &revisions).await?;
        let (current, update) = (decision.current.clone(), decision.update.name().to_owned());
        let budgets = inner.budgets_of(&key.namespace, &set);
        let (snapshot, progress) = Observed {
            set: &set,
            pods: &pods,
            claim: &|name| inner.claims.get(&key.namespace, name),
            current: &current,
            update: &update,
            budgets: &budgets,
            waits_for_others: wishes::depends_on(&set).any(|other| !inner.is_ready(&key.namespace, other)),
            now,
        }
        .look_again(&mut memory);
        inner.memories.lock().insert(key.clone(), memory);
        let key = key.clone();
        Ok(Some(Seen {
            key,
            object,
            set,
            pods,
            revisions,
            decision,
            current,
            update,
            collisions,
            now,
            snapshot,
            progress,
        }))
    }

    /// Deletes revisions beyond the limit that nothing uses.
    pub(super) async fn truncate_history(&self, key: &Key, seen: &Seen) -> Result<(), Error> {
        let superfluous = revisions::superfluous(&seen.set, &seen.revisions, &seen.pods, &seen.decision);
        let reference = identity::set_ref(&seen.set);
        let Inner { cx, revisions: cache, writes, .. } = &*self.inner;
        Revisions { client: &cx.client, cache, writes, key, reference: &reference }.delete(&superfluous).await
    }
}

impl Inner {
    /// Whether the set of that name is there and as it should be.
    pub(super) fn is_ready(&self, namespace: &str, name: &str) -> bool {
        self.sets.get(namespace, name).is_some_and(|set| wishes::is_ready(&set))
    }
}

/// Makes the decision on revisions come true; the decision, and how many names collided so far.
async fn settle(
    store: Revisions<'_>,
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
) -> Result<(Decision, i32), Error> {
    let before = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    if set.metadata.deletion_timestamp.is_some() {
        return Ok((revisions::decide(set, known, before), before));
    }
    let decide = |collisions| {
        let decision = revisions::decide(set, known, collisions);
        (decision.update.clone(), decision)
    };
    let (_, decision, collisions) = store.settle(before, decide).await?;
    Ok((decision, collisions))
}

fn is_ours(set: &StatefulSet, pod: &Pod) -> bool {
    selected(set, pod.metadata.labels.as_ref()) && identity::ordinal_of(set, pod).is_some()
}

fn selected(set: &StatefulSet, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    let none = std::collections::BTreeMap::new();
    selects(&set.spec.selector, labels.unwrap_or(&none))
}
