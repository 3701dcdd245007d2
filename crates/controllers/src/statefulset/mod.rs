//! Keeps every StatefulSet as its spec wants it. The decision is [`stead_workloads::statefulset`].

mod budgets;
mod companion;
mod execute;
mod observe;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use stead_informer::{Cache, Change, Key, Next, Queue, Severity};
use stead_workloads::history::name_of;
use stead_workloads::owner::{controller_of, selects};
use stead_workloads::statefulset::{
    self as decisions, Action, Memory, Plan, Policy, Progress, Snapshot, Strategy, Wait, Why, claims, identity, plan,
    wishes,
};

use self::execute::Outcome;
use self::observe::Seen;
use crate::metrics::StatefulSetFigures;
use crate::{Context, Controller, Error, OwnWrites, family, sources};

pub use self::companion::{Companion, Counts};

/// The StatefulSet controller.
#[derive(Clone, Debug)]
pub struct StatefulSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    revisions: Cache<ControllerRevision>,
    budgets: Option<Cache<PodDisruptionBudget>>,
    writes: OwnWrites,
    /// Sets that wait for a disruption budget, once that has been told.
    held: Mutex<HashSet<Key>>,
    /// What the last look found of the pods of each set.
    memories: Mutex<HashMap<Key, Memory>>,
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let budgets = cx.caches.of::<PodDisruptionBudget>();
        let started = Self::open(cx, Some(budgets.clone()));
        let Inner { sets, pods, claims, revisions, .. } = &*started.inner;
        sources::wake_self(sets, queue);
        let dependents = sets.clone();
        sources::wake(sets, queue, move |change| sets_that_wait_for(&dependents, change));
        sources::wake_controller(pods, "StatefulSet", queue);
        sources::wake_controller(revisions, "StatefulSet", queue);
        let of_orphan = sets.clone();
        sources::wake(pods, queue, move |change| match &change.new {
            Some(pod) => sets_that_may_adopt(&of_orphan, pod, &change.key),
            None => set_of_that_name(&of_orphan, &change.key),
        });
        let of_claim = sets.clone();
        sources::wake(claims, queue, move |change| sets_of_claim(&of_claim, change));
        let of_budget = sets.clone();
        sources::wake(&budgets, queue, move |change| budgets::sets_that_wait_for(&of_budget, change));
        started
    }

    async fn synced(&self) {
        let Inner { sets, pods, claims, revisions, budgets, .. } = &*self.inner;
        tokio::join!(sets.synced(), pods.synced(), claims.synced(), revisions.synced());
        if let Some(budgets) = budgets {
            budgets.synced().await;
        }
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.inner.sets.by_key(key) else {
            self.inner.cx.config.metrics.no_stateful_set(key);
            self.inner.held.lock().remove(key);
            self.inner.memories.lock().remove(key);
            return Ok(Next::Done);
        };
        let Some(seen) = self.observe(key, set).await? else { return Ok(Next::Done) };
        self.inner.cx.config.metrics.stateful_set(key, figures(&seen.snapshot));
        let plan = plan(&seen.snapshot);
        if plan.actions.contains(&Action::RollBack) {
            return self.roll_back(&seen).await.map(|()| Next::Done);
        }
        if plan.wait == Some(Wait::ForOthers) {
            self.tell_of_others(&seen.set, key);
        }
        self.tell_of_budgets(&seen, &plan);
        let recreates = |action: &Action| matches!(action, Action::DeletePod { why: Why::Recreate, .. });
        if plan.actions.iter().any(recreates) && !Progress::has_begun_to_recreate(&seen.set, &seen.update) {
            let text = "Deleting all pods for Recreate update".to_owned();
            self.inner.cx.recorder.event(&*seen.set, Severity::Normal, "RecreateStarted", text);
        }
        let Outcome { done, refused, result } = self.execute(&seen, &plan.actions).await;
        if done.iter().any(|action| matches!(action, Action::HoldDeletion | Action::ReleaseDeletion)) {
            // The set itself changed, or is gone: its own event brings the key back for the status.
            return result.map(|()| Next::Done);
        }
        self.publish(&seen, &done, &refused).await?;
        match result {
            // The budget's next change brings the key back.
            Err(Error::Held(_)) => return Ok(next(&plan, &seen)),
            result => result?,
        }
        self.truncate_history(key, &seen).await?;
        Ok(next(&plan, &seen))
    }
}

impl StatefulSets {
    /// Opens the caches. `budgets`: those of disruptions, where roll-outs may ask them.
    fn open(cx: Context, budgets: Option<Cache<PodDisruptionBudget>>) -> Self {
        let (sets, pods) = (cx.caches.of::<StatefulSet>(), cx.caches.of::<Pod>());
        let (claims, revisions) = (cx.caches.of::<PersistentVolumeClaim>(), cx.caches.of::<ControllerRevision>());
        family::prepare(&pods);
        family::prepare(&revisions);
        let (writes, held, memories) = (OwnWrites::default(), Mutex::default(), Mutex::default());
        let inner = Inner { cx, sets, pods, claims, revisions, budgets, writes, held, memories };
        Self { inner: Arc::new(inner) }
    }

    /// Writes the status if it changed; the set as it is on the server then.
    async fn publish(
        &self,
        seen: &Seen,
        done: &[Action],
        refused: &BTreeMap<String, String>,
    ) -> Result<Arc<StatefulSet>, Error> {
        let (key, names) = (&seen.key, (seen.current.as_str(), seen.update.as_str()));
        let find = |claim: &str| self.inner.claims.get(&key.namespace, claim);
        let claims = claims::condition(&seen.set, &find, refused, seen.now);
        let told = (seen.progress.as_ref(), claims);
        let status = decisions::status(&seen.set, &seen.snapshot, done, names, seen.collisions, told);
        if seen.object.status.as_ref() == Some(&status) {
            return Ok(seen.object.clone());
        }
        let api: Api<StatefulSet> = Api::namespaced(self.inner.cx.client.clone(), &key.namespace);
        let set = StatefulSet { status: Some(status), ..(*seen.object).clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &set).await;
        let written = written.map_err(Error::doing(format!("write the status of StatefulSet {key}")))?;
        self.inner.writes.wrote(key, &self.inner.sets, &written);
        Ok(Arc::new(written))
    }

    /// Says that the roll-out failed, then gives the set the template that it had before. Only as long as nobody
    /// changes the set meanwhile: what people write counts more.
    async fn roll_back(&self, seen: &Seen) -> Result<(), Error> {
        let told = self.publish(seen, &[], &BTreeMap::new()).await?;
        self.undo(seen, &told.metadata, json!({})).await
    }

    /// Gives the set, as `told` has it, the template of its current revision, and `annotations` besides.
    async fn undo(&self, seen: &Seen, told: &ObjectMeta, mut annotations: serde_json::Value) -> Result<(), Error> {
        let inner = &self.inner;
        let good = seen.revisions.iter().find(|revision| name_of(revision) == seen.current);
        let unreadable = || Error::Blocked(format!("ControllerRevision {:?} is not there to go back to", seen.current));
        let mut patch = good.ok_or_else(unreadable)?.data.0.clone();
        annotations[wishes::ROLLED_BACK_FROM] = seen.update.clone().into();
        patch["metadata"] =
            json!({"uid": told.uid, "resourceVersion": told.resource_version, "annotations": annotations});
        let (name, set) = (&seen.key.name, &*seen.set);
        let text = format!("Revision {:?} of StatefulSet {name:?} has timed out progressing", seen.update);
        inner.cx.recorder.event(set, Severity::Warning, "ProgressDeadlineExceeded", text);
        let api: Api<StatefulSet> = Api::namespaced(inner.cx.client.clone(), &seen.key.namespace);
        let written = api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        let written = written.map_err(Error::doing(format!("roll back StatefulSet {}", seen.key)))?;
        inner.writes.wrote(&seen.key, &inner.sets, &written);
        let text = format!("Rolled back StatefulSet {name:?} to revision {:?}", seen.current);
        inner.cx.recorder.event(set, Severity::Normal, "StatefulSetRollback", text);
        Ok(())
    }

    fn tell_of_others(&self, set: &StatefulSet, key: &Key) {
        let missing: Vec<_> =
            wishes::depends_on(set).filter(|other| !self.inner.is_ready(&key.namespace, other)).collect();
        let text = format!("the first Pod of StatefulSet {} waits for StatefulSet {}", key.name, missing.join(", "));
        self.inner.cx.recorder.event(set, Severity::Normal, "WaitingForDependency", text);
    }
}

/// What `/metrics` tells of a set.
fn figures(set: &Snapshot) -> StatefulSetFigures {
    StatefulSetFigures {
        policy: match set.policy {
            Policy::OrderedReady => "OrderedReady",
            Policy::Parallel => "Parallel",
        },
        max_unavailable: match set.strategy {
            Strategy::RollingUpdate { max_unavailable, .. } => Some(max_unavailable),
            Strategy::OnDelete | Strategy::Recreate => None,
        },
        unavailable: u32::try_from(set.unavailable()).unwrap_or(u32::MAX),
    }
}

fn next(plan: &Plan, seen: &Seen) -> Next {
    plan.wake_at.map_or(Next::Done, |at| Next::After(until(at, seen.now)))
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// The sets that a pod without a controller might belong to.
fn sets_that_may_adopt(sets: &Cache<StatefulSet>, pod: &Pod, key: &Key) -> Vec<Key> {
    if controller_of(&pod.metadata).is_some() {
        return Vec::new();
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let fits = |set: &StatefulSet| selects(&set.spec.selector, &labels) && identity::ordinal_of(set, pod).is_some();
    let fitting = sets.list_ns(&key.namespace).into_iter().filter(|set| fits(set));
    fitting.map(|set| Key::of(&set.metadata)).collect()
}

/// The set that may have waited for the name of a pod that is gone, whoever that pod belonged to.
fn set_of_that_name(sets: &Cache<StatefulSet>, pod: &Key) -> Vec<Key> {
    let set = pod.name.rsplit_once('-').and_then(|(set, _)| sets.get(&pod.namespace, set));
    set.map(|set| Key::of(&set.metadata)).into_iter().collect()
}

/// The sets that depend on the one that changed.
fn sets_that_wait_for(sets: &Cache<StatefulSet>, change: &Change<StatefulSet>) -> Vec<Key> {
    let was_ready = change.old.as_ref().is_some_and(|set| wishes::is_ready(set));
    let is_ready = change.new.as_ref().is_some_and(|set| wishes::is_ready(set));
    if was_ready || !is_ready {
        return Vec::new();
    }
    let waits = |set: &StatefulSet| wishes::depends_on(set).any(|other| *other == *change.key.name);
    let waiting = sets.list_ns(&change.key.namespace).into_iter().filter(|set| waits(set));
    waiting.map(|set| Key::of(&set.metadata)).collect()
}

/// The set whose claim went, goes, is bound, or has other owners: a pod may wait for just that, or the claim's growth. Or
/// whose claim follows its template.
fn sets_of_claim(sets: &Cache<StatefulSet>, change: &Change<PersistentVolumeClaim>) -> Vec<Key> {
    let (Some(old), new) = (&change.old, &change.new) else { return Vec::new() };
    let (mut matters, mut follows) = (true, false);
    if let Some(new) = new {
        let size = |claim: &PersistentVolumeClaim| {
            let asked = claim.spec.as_ref().and_then(|spec| spec.resources.clone()).and_then(|r| r.requests);
            (asked, claim.status.as_ref().and_then(|status| status.capacity.clone()))
        };
        let bound = !claims::is_bound(old) && claims::is_bound(new);
        let (was, is) = (&old.metadata, &new.metadata);
        matters =
            bound || was.owner_references != is.owner_references || was.deletion_timestamp != is.deletion_timestamp;
        follows = size(old) != size(new) || was.labels != is.labels || was.annotations != is.annotations;
    }
    if !matters && !follows {
        return Vec::new();
    }
    let mut using = sets_that_use(sets, change);
    using.retain(|key| matters || sets.by_key(key).is_some_and(|set| wishes::grows_claims(&set)));
    using
}

/// The sets that have a claim of that name.
fn sets_that_use(sets: &Cache<StatefulSet>, change: &Change<PersistentVolumeClaim>) -> Vec<Key> {
    let uses = |set: &StatefulSet| {
        identity::claim_templates(set).iter().any(|template| {
            let template = template.metadata.name.as_deref().unwrap_or_default();
            let set = set.metadata.name.as_deref().unwrap_or_default();
            let rest = change.key.name.strip_prefix(template).and_then(|rest| rest.strip_prefix('-'));
            let ordinal = rest.and_then(|rest| rest.strip_prefix(set)).and_then(|rest| rest.strip_prefix('-'));
            ordinal.is_some_and(|digits| digits.parse::<u32>().is_ok())
        })
    };
    let using = sets.list_ns(&change.key.namespace).into_iter().filter(|set| uses(set));
    using.map(|set| Key::of(&set.metadata)).collect()
}
