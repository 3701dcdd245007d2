//! From the caches to what the plan may look at; adopts, releases and makes the revision on the way.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use stead_client::{Class, Client, classify, delete_if_present};
use stead_informer::{Cache, Key};
use stead_workloads::history;
use stead_workloads::owner::selects;
use stead_workloads::statefulset::revisions::{self, Decision, Update};
use stead_workloads::statefulset::{Observed, Snapshot, identity};

use super::StatefulSets;
use crate::family::{Family, Head, gather, still_alive};
use crate::{Error, OwnWrites};

/// How many names may collide before the key is put back.
const COLLISIONS_PER_RUN_MAX: i32 = 10;

/// One StatefulSet and all that belongs to it.
pub(super) struct Seen {
    pub(super) key: Key,
    pub(super) set: Arc<StatefulSet>,
    pub(super) pods: Vec<Arc<Pod>>,
    pub(super) revisions: Vec<Arc<ControllerRevision>>,
    pub(super) decision: Decision,
    pub(super) current: String,
    pub(super) update: String,
    pub(super) collisions: i32,
    pub(super) now: Timestamp,
    pub(super) snapshot: Snapshot,
}

impl StatefulSets {
    /// `None` when something had to be changed first; the caches will bring the key back.
    pub(super) async fn observe(&self, key: &Key, set: Arc<StatefulSet>) -> Result<Option<Seen>, Error> {
        let inner = &*self.inner;
        let now = inner.cx.now();
        let client = &inner.cx.client;
        let reference = identity::set_ref(&set);
        let head = Head { key, meta: &set.metadata, reference: &reference };
        let alive = || still_alive::<StatefulSet>(client, key, &set.metadata);
        let fits = |revision: &ControllerRevision| selected(&set, revision.metadata.labels.as_ref());
        let revisions = gather((client, &inner.revisions, &inner.writes), head, fits, alive).await?;
        let fits =
            |pod: &Pod| selected(&set, pod.metadata.labels.as_ref()) && identity::ordinal_of(&set, pod).is_some();
        let Family { members: pods, changed } = gather((client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if changed || revisions.changed {
            return Ok(None);
        }
        let revisions = revisions.members;
        let store = Revisions { client, cache: &inner.revisions, writes: &inner.writes, key, reference: &reference };
        let (decision, collisions) = store.settle(&set, &revisions).await?;
        let (current, update) = (decision.current.clone(), decision.update.name().to_owned());
        let snapshot = Observed {
            set: &set,
            pods: &pods,
            claim: &|name| inner.claims.get(&key.namespace, name),
            current: &current,
            update: &update,
            now,
        }
        .snapshot();
        let key = key.clone();
        Ok(Some(Seen { key, pods, revisions, decision, current, update, collisions, now, snapshot, set }))
    }

    /// Deletes revisions beyond the limit that nothing uses.
    pub(super) async fn truncate_history(&self, key: &Key, seen: &Seen) -> Result<(), Error> {
        let superfluous = revisions::superfluous(&seen.set, &seen.revisions, &seen.pods, &seen.decision);
        let api: Api<ControllerRevision> = Api::namespaced(self.inner.cx.client.clone(), &key.namespace);
        for name in superfluous {
            let deleted = delete_if_present(&api, &name, &DeleteParams::default()).await;
            deleted.map_err(Error::doing(format!("delete ControllerRevision {name:?}")))?;
        }
        Ok(())
    }
}

fn selected(set: &StatefulSet, labels: Option<&std::collections::BTreeMap<String, String>>) -> bool {
    let none = std::collections::BTreeMap::new();
    selects(&set.spec.selector, labels.unwrap_or(&none))
}

/// Makes the decision on revisions come true.
struct Revisions<'a> {
    client: &'a Client,
    cache: &'a Cache<ControllerRevision>,
    writes: &'a OwnWrites,
    key: &'a Key,
    reference: &'a OwnerReference,
}

impl Revisions<'_> {
    async fn settle(&self, set: &StatefulSet, known: &[Arc<ControllerRevision>]) -> Result<(Decision, i32), Error> {
        let before = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
        for collisions in before..before.saturating_add(COLLISIONS_PER_RUN_MAX) {
            let decision = revisions::decide(set, known, collisions);
            let settled = match &decision.update {
                _ if set.metadata.deletion_timestamp.is_some() => true,
                Update::Newest(_) => true,
                Update::Bump { name, number } => self.bump(name, *number).await.map(|()| true)?,
                Update::Create(revision) => self.create(revision).await?,
            };
            if settled {
                return Ok((decision, collisions));
            }
        }
        Err(Error::Blocked(format!("too many names of revisions of {} collide; will go on", self.key)))
    }

    fn api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }

    async fn bump(&self, name: &str, number: i64) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"revision": number}));
        let bumped = self.api().patch(name, &PatchParams::default(), &patch).await;
        let bumped = bumped.map_err(Error::doing(format!("renumber ControllerRevision {name:?}")))?;
        self.writes.wrote(self.key, self.cache, &bumped);
        Ok(())
    }

    /// Whether the revision is there now; `false` when other data has its name.
    async fn create(&self, revision: &ControllerRevision) -> Result<bool, Error> {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let doing = || Error::doing(format!("create ControllerRevision {name:?}"));
        match self.api().create(&PostParams::default(), revision).await {
            Ok(made) => {
                self.writes.wrote(self.key, self.cache, &made);
                Ok(true)
            }
            Err(error) if classify(&error) == Class::AlreadyExists => {
                let there = self.api().get(name).await.map_err(doing())?;
                let ours = there.metadata.owner_references.iter().flatten().any(|r| r.uid == self.reference.uid);
                Ok(ours && history::same_data(&there.data.0, &revision.data.0))
            }
            Err(error) => Err(doing()(error)),
        }
    }
}
