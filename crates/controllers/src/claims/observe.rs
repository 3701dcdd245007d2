//! What the caches say about one claim or volume.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;
use stead_informer::{Key, index};
use stead_workloads::claims::{annotation, claim, class_of_claim, volume, volume_name};
use stead_workloads::provision::{LOCAL, Place};

use super::{BY_CLAIM, FREE, Inner, LOCAL_STORAGE, claim_key};
use crate::Error;

const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Inner {
    pub(super) fn observe_claim(&self, key: &Key) -> Option<claim::Snapshot> {
        let claim = self.claims.by_key(key)?;
        let class_name = class_of_claim(&claim).unwrap_or_default().to_owned();
        let mut volumes = self.volumes.by_index(BY_CLAIM, &key.to_string());
        let named = volume_name(&claim);
        if named.is_empty() {
            volumes.extend(self.volumes.by_index(FREE, &class_name));
        } else {
            volumes.extend(self.volumes.get("", named));
        }
        let class = self.classes.get("", &class_name);
        let local = class.as_ref().is_some_and(|class| class.provisioner == LOCAL) && named.is_empty();
        let users = self.pods.by_index(index::CLAIM_NAME, &key.to_string());
        let disabled = self.cx.config.disabled.iter().any(|name| name == LOCAL_STORAGE);
        Some(claim::Snapshot {
            volumes,
            class,
            default_class: self.default_class(),
            users: users.iter().map(|pod| self.user(pod, &claim)).collect(),
            places: if local { self.places() } else { Vec::new() },
            storage_dir: (!disabled).then(|| self.cx.config.storage_dir.clone()),
            claim,
        })
    }

    fn user(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> claim::User {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let node = node.filter(|_| !is_last_will(pod, claim));
        let on_known_node = node.as_ref().is_some_and(|node| self.nodes.get("", node).is_some());
        claim::User { name: pod.metadata.name.clone().unwrap_or_default(), node, on_known_node }
    }

    /// Asks the server, past the cache, which pods mount a claim.
    pub(super) async fn ask_users(&self, key: &Key, claim: &PersistentVolumeClaim) -> Result<Vec<claim::User>, Error> {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let pods = api.list(&ListParams::default()).await;
        let pods = pods.map_err(Error::doing(format!("look up the pods that use claim {key}")))?;
        let full = key.to_string();
        let using = pods.items.iter().filter(|pod| index::by_claim(pod).contains(&full));
        Ok(using.map(|pod| self.user(pod, claim)).collect())
    }

    /// The newest class that is marked as default, then the first by name.
    fn default_class(&self) -> Option<String> {
        let defaults = self
            .classes
            .list()
            .into_iter()
            .filter(|class| DEFAULT.iter().any(|key| annotation(&class.metadata, key) == Some("true")));
        let born = |class: &Arc<k8s_openapi::api::storage::v1::StorageClass>| {
            std::cmp::Reverse(class.metadata.creation_timestamp.as_ref().map(|time| time.0))
        };
        defaults.min_by_key(|class| (born(class), class.metadata.name.clone()))?.metadata.name.clone()
    }

    /// The nodes, and how many local volumes are tied to each.
    fn places(&self) -> Vec<Place> {
        let mut held: HashMap<String, usize> = HashMap::new();
        for volume in self.volumes.list() {
            if let Some(node) = annotation(&volume.metadata, stead_workloads::claims::SELECTED_NODE) {
                *held.entry(node.to_owned()).or_default() += 1;
            }
        }
        let place = |node: Arc<Node>| {
            let name = node.metadata.name.clone().unwrap_or_default();
            let label = node.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/hostname"));
            Place {
                hostname: label.cloned().unwrap_or_else(|| name.clone()),
                open: is_open(&node),
                volumes: held.get(&name).copied().unwrap_or(0),
                node: name,
            }
        };
        self.nodes.list().into_iter().map(place).collect()
    }

    /// Asks the server for the volume of a bound claim that the cache does not have: it may lag behind the claim.
    pub(super) async fn complete(&self, snapshot: &mut claim::Snapshot) -> Result<(), Error> {
        let named = volume_name(&snapshot.claim);
        let known = snapshot.volumes.iter().any(|volume| volume.metadata.name.as_deref() == Some(named));
        if named.is_empty() || known {
            return Ok(());
        }
        let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
        let found = api.get_opt(named).await.map_err(Error::doing(format!("look up volume {named:?}")))?;
        snapshot.volumes.extend(found.map(Arc::new));
        Ok(())
    }

    pub(super) fn observe_volume(&self, key: &Key) -> Option<volume::Snapshot> {
        let volume = self.volumes.by_key(key)?;
        let claim = claim_key(&volume).and_then(|key| self.claims.by_key(&key));
        Some(volume::Snapshot { volume, claim })
    }

    /// Asks the server, past the cache, for the claim that a volume points at.
    pub(super) async fn is_claim_there(&self, snapshot: &volume::Snapshot) -> Result<bool, Error> {
        let Some(key) = claim_key(&snapshot.volume) else { return Ok(false) };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let found = api.get_opt(&key.name).await.map_err(Error::doing(format!("look up claim {key}")))?;
        Ok(found.is_some_and(|claim| claim.metadata.uid == uid_in(&snapshot.volume)))
    }
}

/// The node is done with the pod, or it was removed by force, and it stays only until what it owns is gone: this claim. One
/// would wait for the other for ever. Upstream does the same for claims of ephemeral volumes only.
fn is_last_will(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    is_shut_down(pod) && owners.into_iter().any(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref())
}

/// Nothing of the pod runs any more, whatever still keeps its object.
pub(super) fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

fn uid_in(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.claim_ref.as_ref()?.uid.clone()
}

/// Ready, and not closed to new pods.
pub(crate) fn is_open(node: &Node) -> bool {
    let closed = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    !closed && conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
