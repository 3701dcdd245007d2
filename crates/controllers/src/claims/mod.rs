//! Binds claims and volumes, provisions local ones, and lets go of what is not used. The decisions are
//! [`stead_workloads::claims`] and [`stead_workloads::provision`].
//!
//! Keys are claims by namespace and name, and volumes by name without a namespace.

mod execute;
mod observe;

pub(crate) use observe::is_open;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use stead_client::create_if_absent;
use stead_informer::{Cache, Change, Key, Next, Queue, index};
use stead_workloads::claims::{self as decisions, claim, claim_ref, volume};
use stead_workloads::provision::{DEFAULT_CLASS, default_class};

use crate::{Context, Controller, Error, OwnWrites, sources};

/// Volumes by `namespace/name` of the claim that they point at.
const BY_CLAIM: &str = "claim";
/// Volumes that nobody has, by their class.
const FREE: &str = "free";
/// Claims that have no volume yet, all under `""`.
const UNBOUND: &str = "unbound";

/// The controller of claims and volumes.
#[derive(Clone, Debug)]
pub struct Claims {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    queue: Queue<Key>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    writes: OwnWrites,
}

impl Controller for Claims {
    const NAME: &'static str = "persistentvolume-controller";
    const ACCOUNT: &'static str = "persistent-volume-binder";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let inner = Inner {
            queue: queue.clone(),
            claims: cx.caches.of(),
            volumes: cx.caches.of(),
            classes: cx.caches.of(),
            pods: cx.caches.of(),
            nodes: cx.caches.of(),
            writes: OwnWrites::default(),
            cx,
        };
        inner.volumes.add_index(BY_CLAIM, |volume| claim_key(volume).map(|key| key.to_string()).into_iter().collect());
        inner.volumes.add_index(FREE, |volume| {
            let free = claim_ref(volume).is_none();
            free.then(|| decisions::class_of_volume(volume).to_owned()).into_iter().collect()
        });
        inner.claims.add_index(UNBOUND, |claim| {
            let unbound = decisions::annotation(&claim.metadata, decisions::BIND_COMPLETED).is_none();
            unbound.then(String::new).into_iter().collect()
        });
        inner.pods.add_index(index::CLAIM_NAME, index::by_claim);
        inner.wire();
        Self { inner: Arc::new(inner) }
    }

    async fn synced(&self) {
        let Inner { claims, volumes, classes, pods, nodes, .. } = &*self.inner;
        tokio::join!(claims.synced(), volumes.synced(), classes.synced(), pods.synced(), nodes.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.inner.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        if key.namespace.is_empty() { self.inner.volume(key).await } else { self.inner.claim(key).await }
    }
}

impl Inner {
    /// Which change wakes which key.
    fn wire(&self) {
        sources::wake_self(&self.claims, &self.queue);
        // The volume follows its claim.
        let volumes = self.volumes.clone();
        sources::wake(&self.claims, &self.queue, move |change| {
            let pointing = volumes.by_index(BY_CLAIM, &change.key.to_string());
            pointing.iter().map(|volume| Key::of(&volume.metadata)).collect()
        });
        sources::wake_self(&self.volumes, &self.queue);
        let claims = self.claims.clone();
        sources::wake(&self.volumes, &self.queue, move |change| claims_of_volume(&claims, change));
        let claims = self.claims.clone();
        sources::wake(&self.classes, &self.queue, move |_| unbound(&claims));
        let claims = self.claims.clone();
        sources::wake(&self.nodes, &self.queue, move |change| {
            // Only a node that comes, or is ready now, can help a claim.
            let ready = |node: Option<&Arc<Node>>| node.is_some_and(|node| is_open(node));
            let helps = ready(change.new.as_ref()) && !ready(change.old.as_ref());
            if helps { unbound(&claims) } else { Vec::new() }
        });
        let claims = self.claims.clone();
        sources::wake(&self.pods, &self.queue, move |change| claims_of_pod(&claims, change));
    }

    async fn claim(&self, key: &Key) -> Result<Next, Error> {
        let Some(mut snapshot) = self.observe_claim(key) else { return Ok(Next::Done) };
        self.complete(&mut snapshot).await?;
        let mut plan = claim::plan(&snapshot, false);
        if plan.acts.contains(&claim::Act::AskPods) {
            snapshot.users = self.ask_users(key, &snapshot.claim).await?;
            plan = claim::plan(&snapshot, true);
        }
        self.execute_claim(key, &snapshot, plan).await?;
        Ok(Next::Done)
    }

    async fn volume(&self, key: &Key) -> Result<Next, Error> {
        let Some(snapshot) = self.observe_volume(key) else { return Ok(Next::Done) };
        let mut plan = volume::plan(&snapshot, false);
        if plan.acts.contains(&volume::Act::AskClaim) {
            if self.is_claim_there(&snapshot).await? {
                // The cache lags: the claim will come and wake us.
                return Ok(Next::Done);
            }
            plan = volume::plan(&snapshot, true);
        }
        self.execute_volume(key, &snapshot, plan).await?;
        Ok(Next::Done)
    }
}

/// The claim that a volume points at.
fn claim_key(volume: &PersistentVolume) -> Option<Key> {
    let reference = claim_ref(volume)?;
    Some(Key::new(reference.namespace.as_deref()?, reference.name.as_deref()?))
}

fn unbound(claims: &Cache<PersistentVolumeClaim>) -> Vec<Key> {
    claims.by_index(UNBOUND, "").iter().map(|claim| Key::of(&claim.metadata)).collect()
}

/// The claim that the volume has or had; all that wait when the volume is, or becomes, free.
fn claims_of_volume(claims: &Cache<PersistentVolumeClaim>, change: &Change<PersistentVolume>) -> Vec<Key> {
    let both = [&change.old, &change.new].into_iter().flatten();
    let mut keys: Vec<Key> = both.filter_map(|volume| claim_key(volume)).collect();
    keys.dedup();
    if change.new.as_ref().is_some_and(|volume| claim_ref(volume).is_none()) {
        keys.extend(unbound(claims));
    }
    keys
}

/// The claims of a pod that came, was placed, has ended, or is gone: one may wait for just that.
fn claims_of_pod(claims: &Cache<PersistentVolumeClaim>, change: &Change<Pod>) -> Vec<Key> {
    let placed = |pod: Option<&Arc<Pod>>| pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
    let ended = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| observe::is_shut_down(pod));
    let state = |pod: Option<&Arc<Pod>>| (placed(pod), ended(pod));
    if change.old.is_some() && change.new.is_some() && state(change.old.as_ref()) == state(change.new.as_ref()) {
        return Vec::new();
    }
    let Some(pod) = change.newest() else { return Vec::new() };
    let namespace = &change.key.namespace;
    let names = index::by_claim(pod).into_iter().filter_map(|full| Some(full.split_once('/')?.1.to_owned()));
    names
        .filter_map(|name| claims.get(namespace, &name))
        .filter(|claim| claim.metadata.deletion_timestamp.is_some() || decisions::volume_name(claim).is_empty())
        .map(|claim| Key::of(&claim.metadata))
        .collect()
}

/// Makes the class `standard` when the cluster has none of that name at start.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    cx: Context,
}

/// Name in [`crate::Config::disabled`] of [`LocalStorage`] and of the provisioner.
pub(crate) const LOCAL_STORAGE: &str = "local-storage";

impl Controller for LocalStorage {
    const NAME: &'static str = LOCAL_STORAGE;
    const ACCOUNT: &'static str = "local-provisioner";
    const WORKERS: usize = 1;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        queue.add(Key::new("", DEFAULT_CLASS));
        Self { cx }
    }

    async fn synced(&self) {}

    async fn reconcile(&self, _key: &Key) -> Result<Next, Error> {
        let api: Api<StorageClass> = Api::all(self.cx.client.clone());
        let what = format!("create StorageClass {DEFAULT_CLASS:?}");
        create_if_absent(&api, &default_class()).await.map_err(Error::doing(what))?;
        Ok(Next::Done)
    }
}
