//! Keeps a pod of every DaemonSet on every node that fits. The decision is [`stead_workloads::daemonset`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use stead_client::{Class, classify, message};
use stead_informer::{Cache, Change, Key, Next, Queue, Severity};
use stead_workloads::daemonset::{self as decisions, Observed, Plan, new_pod, plan, set_ref};
use stead_workloads::owner::{controller_of, selects};
use stead_workloads::pod::phase;

use crate::family::{self, Head, gather, still_alive};
use crate::history::Revisions;
use crate::{Context, Controller, Error, OwnWrites, slow_start, sources};

/// How long a failed pod is left on its node the first time; doubles up to [`HOLD_MAX`].
const HOLD_FIRST: SignedDuration = SignedDuration::from_secs(1);
const HOLD_MAX: SignedDuration = SignedDuration::from_mins(15);

/// The DaemonSet controller.
#[derive(Clone, Debug)]
pub struct DaemonSets {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    revisions: Cache<ControllerRevision>,
    writes: OwnWrites,
    /// For each set and node: how long the last failed pod was left there, and until when the next one is.
    held: Mutex<HashMap<(Key, String), (SignedDuration, Timestamp)>>,
}

impl Controller for DaemonSets {
    const NAME: &'static str = "daemonset-controller";
    const ACCOUNT: &'static str = "daemon-set-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (sets, pods) = (cx.caches.of::<DaemonSet>(), cx.caches.of::<Pod>());
        let (nodes, revisions) = (cx.caches.of::<Node>(), cx.caches.of::<ControllerRevision>());
        family::prepare(&pods);
        family::prepare(&revisions);
        sources::wake_self(&sets, queue);
        sources::wake_controller(&pods, "DaemonSet", queue);
        sources::wake_controller(&revisions, "DaemonSet", queue);
        let all = sets.clone();
        sources::wake(&nodes, queue, move |change| if matters(change) { keys(&all.list()) } else { Vec::new() });
        let may_adopt = sets.clone();
        sources::wake(&pods, queue, move |change| {
            let orphan = change.new.as_ref().filter(|pod| controller_of(&pod.metadata).is_none());
            let Some(labels) = orphan.and_then(|pod| pod.metadata.labels.as_ref()) else { return Vec::new() };
            let mut sets = may_adopt.list_ns(&change.key.namespace);
            sets.retain(|set| selects(&set.spec.selector, labels));
            keys(&sets)
        });
        let (writes, held) = (OwnWrites::default(), Mutex::default());
        Self { inner: Arc::new(Inner { cx, sets, pods, nodes, revisions, writes, held }) }
    }

    async fn synced(&self) {
        let Inner { sets, pods, nodes, revisions, .. } = &*self.inner;
        tokio::join!(sets.synced(), pods.synced(), nodes.synced(), revisions.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let inner = &*self.inner;
        let Some(set) = inner.sets.by_key(key) else {
            inner.held.lock().retain(|(of, _), _| of != key);
            return Ok(Next::Done);
        };
        let client = &inner.cx.client;
        let reference = set_ref(&set);
        let head = Head { key, meta: &set.metadata, reference: &reference };
        let alive = || still_alive::<DaemonSet>(client, key, &set.metadata);
        let none = BTreeMap::new();
        let selected = |labels: Option<&BTreeMap<_, _>>| selects(&set.spec.selector, labels.unwrap_or(&none));
        let fits = |revision: &ControllerRevision| selected(revision.metadata.labels.as_ref());
        let revisions = gather((client, &inner.revisions, &inner.writes), head, fits, alive).await?;
        let fits = |pod: &Pod| selected(pod.metadata.labels.as_ref());
        let pods = gather((client, &inner.pods, &inner.writes), head, fits, alive).await?;
        if revisions.changed || pods.changed {
            return Ok(Next::Done);
        }
        let store = Revisions { client, cache: &inner.revisions, writes: &inner.writes, key, reference: &reference };
        let before = set.status.as_ref().and_then(|status| status.collision_count);
        let decide = |collisions| (decisions::revision(&set, &revisions.members, collisions), ());
        let (update, (), collisions) = store.settle(before.unwrap_or(0), decide).await?;
        let hash = decisions::hash_of(&set, update.name());
        let (nodes, held, now) = (inner.nodes.list(), self.held(key), inner.cx.now());
        let observed = Observed { set: &set, nodes: &nodes, pods: &pods.members, hash: &hash, held: &held, now };
        let plan = plan(&observed);
        self.note_failures(key, &plan, now);
        let wake = plan.wake_at.map(|at| at.duration_since(now)).and_then(|wait| wait.try_into().ok());
        let work = Work { inner: self.inner.clone(), key: key.clone(), set: set.clone(), hash: hash.clone() };
        let result = work.execute(plan).await;
        let collisions = before.or(Some(collisions).filter(|collisions| *collisions > 0)).map(|_| collisions);
        let status = decisions::status(&observed, collisions);
        if set.status.as_ref() != Some(&status) {
            let api: Api<DaemonSet> = Api::namespaced(client.clone(), &key.namespace);
            let set = DaemonSet { status: Some(status), ..(*set).clone() };
            let written = api.replace_status(&key.name, &PostParams::default(), &set).await;
            let written = written.map_err(Error::doing(format!("write the status of DaemonSet {key}")))?;
            inner.writes.wrote(key, &inner.sets, &written);
        }
        result?;
        let superfluous = decisions::superfluous(&set, &revisions.members, &pods.members, update.name());
        store.delete(&superfluous).await?;
        Ok(wake.map_or(Next::Done, Next::After))
    }
}

impl DaemonSets {
    fn held(&self, key: &Key) -> BTreeMap<String, Timestamp> {
        let held = self.inner.held.lock();
        held.iter().filter(|((of, _), _)| of == key).map(|((_, node), (_, until))| (node.clone(), *until)).collect()
    }

    /// A pod that failed is removed now; the next one on that node that fails stays for longer.
    fn note_failures(&self, key: &Key, plan: &Plan, now: Timestamp) {
        let mut held = self.inner.held.lock();
        for pod in plan.ended.iter().filter(|pod| phase(pod) == "Failed") {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let entry = held.entry((key.clone(), node)).or_insert((SignedDuration::ZERO, now));
            // Long without a failure: begin anew.
            let calm = now.duration_since(entry.1) > HOLD_MAX + HOLD_MAX;
            let hold = if calm || entry.0.is_zero() { HOLD_FIRST } else { (entry.0 * 2).min(HOLD_MAX) };
            *entry = (hold, now.checked_add(hold).unwrap_or(now));
        }
    }
}

/// Everything the steps of one plan need.
#[derive(Clone)]
struct Work {
    inner: Arc<Inner>,
    key: Key,
    set: Arc<DaemonSet>,
    hash: String,
}

impl Work {
    async fn execute(&self, plan: Plan) -> Result<(), Error> {
        for pod in &plan.ended {
            self.tell_ended(pod);
        }
        let step = |node: String| {
            let work = self.clone();
            async move { work.create(&node).await }
        };
        slow_start(&plan.create, step).await.1?;
        let step = |pod: Arc<Pod>| {
            let work = self.clone();
            async move { work.delete(&pod).await }
        };
        slow_start(&plan.delete, step).await.1
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace)
    }

    async fn create(&self, node: &str) -> Result<(), Error> {
        match self.api().create(&PostParams::default(), &new_pod(&self.set, node, &self.hash)).await {
            Ok(made) => {
                self.inner.writes.wrote(&self.key, &self.inner.pods, &made);
                let name = made.metadata.name.as_deref().unwrap_or_default();
                self.event(Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if classify(&error) != Class::NamespaceTerminating {
                    self.event(Severity::Warning, "FailedCreate", format!("Error creating: {}", message(&error)));
                }
                Err(Error::doing(format!("create the pod of DaemonSet {} for node {node:?}", self.key))(error))
            }
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.inner.writes.delete(&self.key, &self.inner.pods, &self.api(), pod, None).await {
            Ok(()) => {
                self.event(Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            Err(error) => {
                self.event(Severity::Warning, "FailedDelete", format!("Error deleting: {}", message(&error)));
                Err(Error::doing(format!("delete pod {name:?} of DaemonSet {}", self.key))(error))
            }
        }
    }

    fn tell_ended(&self, pod: &Pod) {
        let (name, namespace) = (pod.metadata.name.as_deref().unwrap_or_default(), &self.key.namespace);
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if phase(pod) == "Failed" {
            let text = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
            self.event(Severity::Warning, "FailedDaemonPod", text);
        } else {
            let text = format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
            self.event(Severity::Normal, "SucceededDaemonPod", text);
        }
    }

    fn event(&self, severity: Severity, reason: &str, text: String) {
        self.inner.cx.recorder.event(&*self.set, severity, reason, text);
    }
}

/// Heartbeats of nodes do not matter; labels, taints, coming and going do.
fn matters(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    old.metadata.labels != new.metadata.labels || old.spec != new.spec
}

fn keys(sets: &[Arc<DaemonSet>]) -> Vec<Key> {
    sets.iter().map(|set| Key::of(&set.metadata)).collect()
}
