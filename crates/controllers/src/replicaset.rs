//! Keeps every ReplicaSet at its number of pods. The decision is [`stead_workloads::replicaset`].

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use stead_client::{Class, classify, message};
use stead_informer::{Cache, Change, Key, Next, Queue, Severity, index};
use stead_workloads::owner::{controller_of, selects};
use stead_workloads::replicaset::{self as decisions, Failure, new_pod, plan, set_ref};

use crate::family::{self, Head, gather, still_alive};
use crate::{Context, Controller, Error, OwnWrites, slow_start, sources};

/// The ReplicaSet controller.
#[derive(Clone, Debug)]
pub struct ReplicaSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    writes: OwnWrites,
}

impl Controller for ReplicaSets {
    const NAME: &'static str = "replicaset-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (sets, pods) = (cx.caches.of::<ReplicaSet>(), cx.caches.of::<Pod>());
        family::prepare(&sets);
        family::prepare(&pods);
        sources::wake_self(&sets, queue);
        sources::wake_controller(&pods, "ReplicaSet", queue);
        let of_orphan = sets.clone();
        sources::wake(&pods, queue, move |change| sets_that_may_adopt(&of_orphan, change));
        Self { inner: Arc::new(Inner { cx, sets, pods, writes: OwnWrites::default() }) }
    }

    async fn synced(&self) {
        tokio::join!(self.inner.sets.synced(), self.inner.pods.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let inner = &*self.inner;
        let Some(set) = inner.sets.by_key(key) else { return Ok(Next::Done) };
        let reference = set_ref(&set);
        let head = Head { key, meta: &set.metadata, reference: &reference };
        let alive = || still_alive::<ReplicaSet>(&inner.cx.client, key, &set.metadata);
        let none = std::collections::BTreeMap::new();
        let fits = |pod: &Pod| selects(&set.spec.selector, pod.metadata.labels.as_ref().unwrap_or(&none));
        let family = gather((&inner.cx.client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if family.changed {
            return Ok(Next::Done);
        }
        let now = inner.cx.now();
        let plan = plan(&set, &family.members, &self.related(&set, &family.members), now);
        let work = Work { inner: self.inner.clone(), key: key.clone(), set: set.clone() };
        let result = work.create(plan.create).await;
        let result = if result.is_ok() { work.delete(plan.delete).await } else { result };
        let failure = result.as_ref().err().map(|(failure, _)| failure);
        let status = decisions::status(&set, &family.members, failure, now);
        if set.status.as_ref() != Some(&status) {
            let api: Api<ReplicaSet> = Api::namespaced(inner.cx.client.clone(), &key.namespace);
            let set = ReplicaSet { status: Some(status), ..(*set).clone() };
            let written = api.replace_status(&key.name, &PostParams::default(), &set).await;
            let written = written.map_err(Error::doing(format!("write the status of ReplicaSet {key}")))?;
            inner.writes.wrote(key, &inner.sets, &written);
        }
        result.map_err(|(_, error)| error)?;
        let wake = plan.wake_at.map(|at| at.duration_since(now)).and_then(|wait| wait.try_into().ok());
        Ok(wake.map_or(Next::Done, Next::After))
    }
}

impl ReplicaSets {
    /// The pods of all ReplicaSets with the same owner, which say where pods are doubled up.
    fn related(&self, set: &ReplicaSet, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else { return own.to_vec() };
        let siblings = self.inner.sets.by_index(index::CONTROLLER_UID, &owner.uid);
        let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref());
        uids.flat_map(|uid| self.inner.pods.by_index(index::CONTROLLER_UID, uid)).collect()
    }
}

/// Everything the steps of one plan need.
#[derive(Clone)]
struct Work {
    inner: Arc<Inner>,
    key: Key,
    set: Arc<ReplicaSet>,
}

type Outcome = Result<(), (Failure, Error)>;

impl Work {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace)
    }

    async fn create(&self, count: usize) -> Outcome {
        let Some(template) = &self.set.spec.template else { return Ok(()) };
        let pod = Arc::new(new_pod(&self.set.metadata, &set_ref(&self.set), template));
        let pods = vec![pod; count];
        let step = |pod: Arc<Pod>| {
            let work = self.clone();
            async move { work.create_one(&pod).await }
        };
        slow_start(&pods, step).await.1
    }

    async fn create_one(&self, pod: &Pod) -> Outcome {
        match self.api().create(&PostParams::default(), pod).await {
            Ok(made) => {
                self.inner.writes.wrote(&self.key, &self.inner.pods, &made);
                let name = made.metadata.name.as_deref().unwrap_or_default();
                self.event(Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => Err(self.failed("FailedCreate", "creating", "create a pod", error)),
        }
    }

    async fn delete(&self, pods: Vec<Arc<Pod>>) -> Outcome {
        let step = |pod: Arc<Pod>| {
            let work = self.clone();
            async move { work.delete_one(&pod).await }
        };
        slow_start(&pods, step).await.1
    }

    async fn delete_one(&self, pod: &Pod) -> Outcome {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let only_this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        match self.api().delete(name, &DeleteParams::default().preconditions(only_this)).await {
            Ok(_) => {
                self.inner.writes.deleted(&self.key, &self.inner.pods, pod);
                self.event(Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            Err(error) => Err(self.failed("FailedDelete", "deleting", &format!("delete pod {name:?}"), error)),
        }
    }

    fn failed(&self, reason: &'static str, verb: &str, doing: &str, error: kube::Error) -> (Failure, Error) {
        let why = message(&error);
        if classify(&error) != Class::NamespaceTerminating {
            self.event(Severity::Warning, reason, format!("Error {verb}: {why}"));
        }
        (Failure { reason, message: why }, Error::doing(format!("{doing} of ReplicaSet {}", self.key))(error))
    }

    fn event(&self, severity: Severity, reason: &str, text: String) {
        self.inner.cx.recorder.event(&*self.set, severity, reason, text);
    }
}

/// The sets that a pod without a controller might belong to.
fn sets_that_may_adopt(sets: &Cache<ReplicaSet>, change: &Change<Pod>) -> Vec<Key> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none()) else { return Vec::new() };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    if labels.is_empty() {
        return Vec::new();
    }
    let fitting = sets.list_ns(&change.key.namespace).into_iter().filter(|set| selects(&set.spec.selector, &labels));
    fitting.map(|set| Key::of(&set.metadata)).collect()
}
