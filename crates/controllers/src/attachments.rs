//! Asks for volumes of storage drivers to be attached to the nodes of the pods that need them, and to be detached after. The
//! decision is [`stead_workloads::attachments`]; a driver's attacher does what is asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource};
use parking_lot::Mutex;
use stead_client::{Class, classify};
use stead_informer::{Cache, Change, Key, Next, Queue, Severity, index};
use stead_workloads::attachments::{
    Act, Plan, Snapshot, Want, attachment_name, is_shared, needs_volumes, plan, unique_name,
};
use stead_workloads::claims::{claim_ref, volume_name};

use crate::{Context, Controller, Error, sources};

/// Attachments by the node that they are for.
const FOR_NODE: &str = "for-node";
/// Attachments by their volume.
const FOR_VOLUME: &str = "for-volume";

/// The controller; its keys are nodes.
#[derive(Clone, Debug)]
pub struct Attachments {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cx: Context,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    drivers: Cache<CSIDriver>,
    attachments: Cache<VolumeAttachment>,
    nodes: Cache<Node>,
    /// What a pod, by its uid, was told last of a volume.
    told: Mutex<HashMap<(String, String), String>>,
}

impl Controller for Attachments {
    const NAME: &'static str = "attachdetach-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let inner = Arc::new(Inner {
            pods: cx.caches.of(),
            claims: cx.caches.of(),
            volumes: cx.caches.of(),
            drivers: cx.caches.of(),
            attachments: cx.caches.of(),
            nodes: cx.caches.of(),
            told: Mutex::default(),
            cx,
        });
        inner.pods.add_index(index::NODE_NAME, index::by_node);
        inner.pods.add_index(index::CLAIM_NAME, index::by_claim);
        inner.attachments.add_index(FOR_NODE, |one| vec![one.spec.node_name.clone()]);
        inner
            .attachments
            .add_index(FOR_VOLUME, |one| one.spec.source.persistent_volume_name.clone().into_iter().collect());
        inner.wire(queue);
        Self { inner }
    }

    async fn synced(&self) {
        let Inner { pods, claims, volumes, drivers, attachments, nodes, .. } = &*self.inner;
        tokio::join!(
            pods.synced(),
            claims.synced(),
            volumes.synced(),
            drivers.synced(),
            attachments.synced(),
            nodes.synced()
        );
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let plan = plan(&self.inner.observe(&key.name));
        self.inner.execute(plan).await?;
        Ok(Next::Done)
    }
}

fn node_key(pod: &Pod) -> Option<Key> {
    Some(Key::new("", pod.spec.as_ref()?.node_name.as_deref()?))
}

impl Inner {
    /// Which change wakes which node.
    fn wire(self: &Arc<Self>, queue: &Queue<Key>) {
        sources::wake(&self.pods, queue, |change| {
            let needs = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| needs_volumes(pod));
            let Some(pod) = change.newest() else { return Vec::new() };
            let moved = needs(change.old.as_ref()) != needs(change.new.as_ref());
            node_key(pod).filter(|_| moved && !index::by_claim(pod).is_empty()).into_iter().collect()
        });
        let inner = self.clone();
        sources::wake(&self.volumes, queue, move |change| {
            change.newest().map(|volume| inner.nodes_of(volume)).unwrap_or_default()
        });
        let inner = self.clone();
        sources::wake(&self.claims, queue, move |change: &Change<PersistentVolumeClaim>| {
            let named = |claim: Option<&Arc<PersistentVolumeClaim>>| claim.map(|claim| volume_name(claim).to_owned());
            if named(change.old.as_ref()) == named(change.new.as_ref()) {
                return Vec::new();
            }
            let pods = inner.pods.by_index(index::CLAIM_NAME, &change.key.to_string());
            pods.iter().filter_map(|pod| node_key(pod)).collect()
        });
        let inner = self.clone();
        sources::wake(&self.attachments, queue, move |change| {
            let Some(attachment) = change.newest() else { return Vec::new() };
            let mut keys = vec![Key::new("", &attachment.spec.node_name)];
            // Others may wait for the volume.
            let volume = attachment.spec.source.persistent_volume_name.as_deref();
            let volume = volume.and_then(|name| inner.volumes.get("", name));
            keys.extend(volume.map(|volume| inner.nodes_of(&volume)).unwrap_or_default());
            keys
        });
        sources::wake(&self.nodes, queue, |change| {
            let used = |node: Option<&Arc<Node>>| node.and_then(|node| node.status.as_ref()?.volumes_in_use.clone());
            let changed = change.new.is_none() || used(change.old.as_ref()) != used(change.new.as_ref());
            changed.then(|| change.key.clone()).into_iter().collect()
        });
        let inner = self.clone();
        sources::wake(&self.drivers, queue, move |_| {
            inner.nodes.list().iter().map(|node| Key::of(&node.metadata)).collect()
        });
    }

    /// The nodes of the pods that use a volume of a driver.
    fn nodes_of(&self, volume: &PersistentVolume) -> Vec<Key> {
        if volume.spec.as_ref().is_none_or(|spec| spec.csi.is_none()) {
            return Vec::new();
        }
        let Some(claim) = claim_ref(volume) else { return Vec::new() };
        let claim =
            format!("{}/{}", claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default());
        self.pods.by_index(index::CLAIM_NAME, &claim).iter().filter_map(|pod| node_key(pod)).collect()
    }

    fn observe(&self, node: &str) -> Snapshot {
        let object = self.nodes.get("", node);
        let attachments = self.attachments.by_index(FOR_NODE, node);
        let mut wanted = BTreeMap::new();
        for pod in self.pods.by_index(index::NODE_NAME, node).iter().filter(|pod| needs_volumes(pod)) {
            for claim in index::by_claim(pod) {
                if let Some((name, want)) = self.want(node, &claim) {
                    let want: &mut Want = wanted.entry(name).or_insert(want);
                    want.pods.extend(waiting(pod));
                }
            }
        }
        let used = object.as_ref().and_then(|node| node.status.as_ref()?.volumes_in_use.clone());
        let unique = |attachment: &Arc<VolumeAttachment>| {
            let name = attachment.spec.source.persistent_volume_name.clone()?;
            let csi = self.volumes.get("", &name)?.spec.as_ref()?.csi.clone()?;
            Some((name, unique_name(&csi.driver, &csi.volume_handle)))
        };
        Snapshot {
            node: node.to_owned(),
            exists: object.is_some(),
            in_use: used.unwrap_or_default().into_iter().collect::<BTreeSet<_>>(),
            wanted,
            unique_names: attachments.iter().filter_map(unique).collect(),
            attachments,
        }
    }

    /// The volume of a claim (`namespace/name`), if it has to be attached.
    fn want(&self, node: &str, claim: &str) -> Option<(String, Want)> {
        let (namespace, name) = claim.split_once('/')?;
        let claim = self.claims.get(namespace, name)?;
        let volume = self.volumes.get("", volume_name(&claim))?;
        let csi = volume.spec.as_ref()?.csi.clone()?;
        let driver = self.drivers.get("", &csi.driver);
        let attaches = driver.and_then(|driver| driver.spec.attach_required).unwrap_or(true);
        let name = volume.metadata.name.clone()?;
        let all = self.attachments.by_index(FOR_VOLUME, &name);
        let elsewhere = all.iter().map(|one| one.spec.node_name.clone()).filter(|other| other != node).collect();
        attaches.then(|| {
            let want = Want {
                attachment: attachment_name(&csi.volume_handle, &csi.driver, node),
                driver: csi.driver,
                handle: csi.volume_handle,
                shared: is_shared(&volume),
                elsewhere,
                pods: Vec::new(),
            };
            (name, want)
        })
    }

    async fn execute(&self, plan: Plan) -> Result<(), Error> {
        let api: Api<VolumeAttachment> = Api::all(self.cx.client.clone());
        for act in plan.acts {
            match act {
                Act::Create(attachment) => match api.create(&PostParams::default(), &attachment).await {
                    Err(error) if classify(&error) != Class::AlreadyExists => {
                        return Err(Error::doing("create an attachment".to_owned())(error));
                    }
                    _ => {}
                },
                Act::Delete(name) => match api.delete(&name, &DeleteParams::default()).await {
                    Err(error) if classify(&error) != Class::NotFound => {
                        return Err(Error::doing(format!("delete attachment {name:?}"))(error));
                    }
                    _ => {}
                },
            }
        }
        let mut told = self.told.lock();
        // Of pods that are gone nothing has to be remembered.
        let uids: BTreeSet<String> = plan.events.iter().filter_map(|(pod, ..)| pod.uid.clone()).collect();
        told.retain(|(uid, _), _| uids.contains(uid) || self.is_there(uid));
        for (pod, volume, event) in plan.events {
            let key = (pod.uid.clone().unwrap_or_default(), volume);
            if told.get(&key) != Some(&event.message) {
                told.insert(key, event.message.clone());
                let severity = if event.warning { Severity::Warning } else { Severity::Normal };
                self.cx.recorder.event_ref(pod, severity, event.reason, event.message);
            }
        }
        Ok(())
    }

    fn is_there(&self, uid: &str) -> bool {
        self.pods.list().iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid))
    }
}

/// A pod that has not started yet: only such a one is told.
fn waiting(pod: &Pod) -> Option<ObjectReference> {
    let pending = pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_none_or(|phase| phase == "Pending");
    pending.then(|| pod.object_ref(&()))
}
