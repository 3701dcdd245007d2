//! Keeps every ReplicaSet at its number of pods, and every ReplicationController, which is its elder with the same behaviour.
//! The decision is [`stead_workloads::replicaset`].

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::PostParams;
use kube::{Api, Resource};
use serde::Serialize;
use stead_client::{Class, classify, message};
use stead_informer::{Cache, Change, Key, Next, Object, Queue, Severity, index};
use stead_workloads::owner::{controller_of, controller_ref, selects};
use stead_workloads::replicaset::{self as decisions, Failure, new_pod, plan, replication};

use crate::family::{self, Head, gather, still_alive};
use crate::{Context, Controller, Error, OwnWrites, slow_start, sources};

/// A kind whose objects are kept at a number of pods.
pub trait Replicated: Object + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize {
    /// Upstream's name of the controller and its account.
    const CONTROLLER: &'static str;
    const API_VERSION: &'static str;
    const KIND: &'static str;

    /// The object as the decision takes it.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    #[must_use]
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicated for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const API_VERSION: &'static str = "apps/v1";
    const KIND: &'static str = "ReplicaSet";

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicated for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";
    const API_VERSION: &'static str = "v1";
    const KIND: &'static str = "ReplicationController";

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Owned(replication::to_set(self))
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(replication::to_status(status)), ..self.clone() }
    }
}

/// The ReplicaSet controller.
pub type ReplicaSets = Replicas<ReplicaSet>;
/// The controller of ReplicationControllers.
pub type ReplicationControllers = Replicas<ReplicationController>;

/// The controller of one such kind.
#[derive(Debug)]
pub struct Replicas<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    cx: Context,
    sets: Cache<K>,
    pods: Cache<Pod>,
    writes: OwnWrites,
}

impl<K: Replicated> Controller for Replicas<K> {
    const NAME: &'static str = K::CONTROLLER;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (sets, pods) = (cx.caches.of::<K>(), cx.caches.of::<Pod>());
        family::prepare(&sets);
        family::prepare(&pods);
        sources::wake_self(&sets, queue);
        sources::wake_controller(&pods, K::KIND, queue);
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
        let Some(object) = inner.sets.by_key(key) else { return Ok(Next::Done) };
        let set = object.as_set();
        let reference = controller_ref(K::API_VERSION, K::KIND, &set.metadata);
        let head = Head { key, meta: &set.metadata, reference: &reference };
        let alive = || still_alive::<K>(&inner.cx.client, key, &set.metadata);
        let none = std::collections::BTreeMap::new();
        let fits = |pod: &Pod| selects(&set.spec.selector, pod.metadata.labels.as_ref().unwrap_or(&none));
        let family = gather((&inner.cx.client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if family.changed {
            return Ok(Next::Done);
        }
        let now = inner.cx.now();
        let plan = plan(&set, &family.members, &self.related(&set, &family.members), now);
        let pod = set.spec.template.as_ref().map(|template| Arc::new(new_pod(&set.metadata, &reference, template)));
        let work = Work { inner: self.inner.clone(), key: key.clone(), object: object.clone(), pod };
        let result = work.create(plan.create).await;
        let result = if result.is_ok() { work.delete(plan.delete).await } else { result };
        let failure = result.as_ref().err().map(|(failure, _)| failure);
        let status = decisions::status(&set, &family.members, failure, now);
        let counted = object.with_status(status);
        if set.status != counted.as_set().status {
            let api: Api<K> = Api::namespaced(inner.cx.client.clone(), &key.namespace);
            let written = api.replace_status(&key.name, &PostParams::default(), &counted).await;
            let written = written.map_err(Error::doing(format!("write the status of {} {key}", K::KIND)))?;
            inner.writes.wrote(key, &inner.sets, &written);
        }
        result.map_err(|(_, error)| error)?;
        let wake = plan.wake_at.map(|at| at.duration_since(now)).and_then(|wait| wait.try_into().ok());
        Ok(wake.map_or(Next::Done, Next::After))
    }
}

impl<K: Replicated> Replicas<K> {
    /// The pods of all sets with the same owner, which say where pods are doubled up.
    fn related(&self, set: &ReplicaSet, own: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(owner) = controller_of(&set.metadata) else { return own.to_vec() };
        let siblings = self.inner.sets.by_index(index::CONTROLLER_UID, &owner.uid);
        let uids = siblings.iter().filter_map(|sibling| sibling.meta().uid.as_deref());
        uids.flat_map(|uid| self.inner.pods.by_index(index::CONTROLLER_UID, uid)).collect()
    }
}

/// Everything the steps of one plan need.
struct Work<K> {
    inner: Arc<Inner<K>>,
    key: Key,
    object: Arc<K>,
    /// To be made as often as there are pods missing.
    pod: Option<Arc<Pod>>,
}

impl<K> Clone for Work<K> {
    fn clone(&self) -> Self {
        let Self { inner, key, object, pod } = self;
        Self { inner: inner.clone(), key: key.clone(), object: object.clone(), pod: pod.clone() }
    }
}

type Outcome = Result<(), (Failure, Error)>;

impl<K: Replicated> Work<K> {
    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace)
    }

    async fn create(&self, count: usize) -> Outcome {
        let Some(pod) = &self.pod else { return Ok(()) };
        let pods = vec![pod.clone(); count];
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
        match self.inner.writes.delete(&self.key, &self.inner.pods, &self.api(), pod, None).await {
            Ok(()) => {
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
        (Failure { reason, message: why }, Error::doing(format!("{doing} of {} {}", K::KIND, self.key))(error))
    }

    fn event(&self, severity: Severity, reason: &str, text: String) {
        self.inner.cx.recorder.event(&*self.object, severity, reason, text);
    }
}

/// The sets that a pod without a controller might belong to.
fn sets_that_may_adopt<K: Replicated>(sets: &Cache<K>, change: &Change<Pod>) -> Vec<Key> {
    let Some(pod) = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none()) else { return Vec::new() };
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    if labels.is_empty() {
        return Vec::new();
    }
    let fits = |set: &Arc<K>| selects(&set.as_set().spec.selector, &labels);
    sets.list_ns(&change.key.namespace).iter().filter(|set| fits(set)).map(|set| Key::of(set.meta())).collect()
}
