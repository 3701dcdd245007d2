//! Keeps every StatefulSet as its spec wants it. The decision is [`stead_workloads::statefulset`].

mod execute;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::PostParams;
use stead_informer::{Cache, Change, Key, Next, Queue};
use stead_workloads::owner::{controller_of, selects};
use stead_workloads::statefulset::{self as decisions, Action, identity, plan};

use crate::{Context, Controller, Error, OwnWrites, family, sources};

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
    writes: OwnWrites,
}

impl Controller for StatefulSets {
    const NAME: &'static str = "statefulset-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (sets, pods) = (cx.caches.of::<StatefulSet>(), cx.caches.of::<Pod>());
        let (claims, revisions) = (cx.caches.of::<PersistentVolumeClaim>(), cx.caches.of::<ControllerRevision>());
        family::prepare(&pods);
        family::prepare(&revisions);
        sources::wake_self(&sets, queue);
        sources::wake_controller(&pods, "StatefulSet", queue);
        sources::wake_controller(&revisions, "StatefulSet", queue);
        let of_orphan = sets.clone();
        sources::wake(&pods, queue, move |change| sets_that_may_adopt(&of_orphan, change));
        let of_claim = sets.clone();
        sources::wake(&claims, queue, move |change| sets_of_claim(&of_claim, change));
        let inner = Inner { cx, sets, pods, claims, revisions, writes: OwnWrites::default() };
        Self { inner: Arc::new(inner) }
    }

    async fn synced(&self) {
        let Inner { sets, pods, claims, revisions, .. } = &*self.inner;
        tokio::join!(sets.synced(), pods.synced(), claims.synced(), revisions.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.inner.sets.by_key(key) else { return Ok(Next::Done) };
        let Some(seen) = self.observe(key, set).await? else { return Ok(Next::Done) };
        let plan = plan(&seen.snapshot);
        let (done, result) = self.execute(&seen, &plan.actions).await;
        if done.iter().any(|action| matches!(action, Action::HoldDeletion | Action::ReleaseDeletion)) {
            // The set itself changed, or is gone: its own event brings the key back for the status.
            return result.map(|()| Next::Done);
        }
        self.publish(key, &seen, &done).await?;
        result?;
        self.truncate_history(key, &seen).await?;
        Ok(plan.wake_at.map_or(Next::Done, |at| Next::After(until(at, seen.now))))
    }
}

impl StatefulSets {
    /// Writes the status if it changed.
    async fn publish(&self, key: &Key, seen: &observe::Seen, done: &[Action]) -> Result<(), Error> {
        let names = (seen.current.as_str(), seen.update.as_str());
        let status = decisions::status(&seen.set, &seen.snapshot, done, names, seen.collisions);
        if seen.set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<StatefulSet> = Api::namespaced(self.inner.cx.client.clone(), &key.namespace);
        let set = StatefulSet { status: Some(status), ..(*seen.set).clone() };
        let written = api.replace_status(&key.name, &PostParams::default(), &set).await;
        let written = written.map_err(Error::doing(format!("write the status of StatefulSet {key}")))?;
        self.inner.writes.wrote(key, &self.inner.sets, &written);
        Ok(())
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// The sets that a pod without a controller might belong to.
fn sets_that_may_adopt(sets: &Cache<StatefulSet>, change: &Change<Pod>) -> Vec<Key> {
    let Some(pod) = &change.new else { return Vec::new() };
    if controller_of(&pod.metadata).is_some() {
        return Vec::new();
    }
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let fits = |set: &StatefulSet| selects(&set.spec.selector, &labels) && identity::ordinal_of(set, pod).is_some();
    let fitting = sets.list_ns(&change.key.namespace).into_iter().filter(|set| fits(set));
    fitting.map(|set| Key::of(&set.metadata)).collect()
}

/// The set whose claim went, goes, or has other owners: a pod may wait for just that.
fn sets_of_claim(sets: &Cache<StatefulSet>, change: &Change<PersistentVolumeClaim>) -> Vec<Key> {
    let (Some(old), new) = (&change.old, &change.new) else { return Vec::new() };
    let matters = new.as_ref().is_none_or(|new| {
        let (old, new) = (&old.metadata, &new.metadata);
        old.owner_references != new.owner_references || old.deletion_timestamp != new.deletion_timestamp
    });
    if !matters {
        return Vec::new();
    }
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
