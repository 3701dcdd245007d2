//! Claims, volumes and classes, and which volume a claim may get on a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use stead_machinery::quantity::Quantity;

use crate::pick::{label, node_selected, selects};

/// The annotation by which a claim is told for which node it shall be provisioned.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const STORAGE: &str = "storage";

/// What there is of storage.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    /// By `namespace/name`.
    pub claims: BTreeMap<String, Arc<PersistentVolumeClaim>>,
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    pub classes: BTreeMap<String, Arc<StorageClass>>,
    /// Volumes that were promised to a claim (`namespace/name`) which the API does not say yet.
    pub promised: BTreeMap<String, String>,
}

/// What stands between a claim and its volume.
#[derive(Clone, Debug)]
pub(crate) enum Need {
    /// It has this volume.
    Bound(String),
    /// It waits for the pod's node.
    Delayed,
    /// It waits for something that is not up to the scheduler.
    Immediate,
}

impl Storage {
    pub(crate) fn need(&self, claim: &PersistentVolumeClaim) -> Need {
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
        let completed = annotation(claim, BIND_COMPLETED).is_some()
            || claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        match volume {
            Some(volume) if completed => Need::Bound(volume),
            None if self.is_delayed(claim) => Need::Delayed,
            Some(_) | None => Need::Immediate,
        }
    }

    fn is_delayed(&self, claim: &PersistentVolumeClaim) -> bool {
        let class = self.class_of(claim).and_then(|class| class.volume_binding_mode.as_deref());
        class == Some("WaitForFirstConsumer")
    }

    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<&StorageClass> {
        self.classes.get(class_name(claim)).map(Arc::as_ref)
    }

    /// The smallest free volume that fits the claim on this node.
    pub(crate) fn find_volume(
        &self,
        name: &str,
        claim: &PersistentVolumeClaim,
        node: &Node,
        taken: &[&str],
    ) -> Option<&str> {
        let fits = |volume: &&Arc<PersistentVolume>| {
            self.is_free(volume, name, claim)
                && !taken.contains(&volume_name(volume))
                && serves(volume, claim)
                && reaches(volume, node)
        };
        let size = |volume: &&Arc<PersistentVolume>| (capacity(volume), volume_name(volume).to_owned());
        self.volumes.values().filter(fits).min_by_key(size).map(|volume| volume_name(volume))
    }

    /// Not bound, not promised to another, and not going away.
    fn is_free(&self, volume: &PersistentVolume, name: &str, claim: &PersistentVolumeClaim) -> bool {
        let promised = self.promised.get(volume_name(volume)).is_none_or(|to| to == name);
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let reserved = reference.map(|claim_ref| {
            let same = claim_ref.namespace == claim.metadata.namespace && claim_ref.name == claim.metadata.name;
            same && (claim_ref.uid.is_none() || claim_ref.uid == claim.metadata.uid)
        });
        promised && volume.metadata.deletion_timestamp.is_none() && reserved.unwrap_or(phase == "Available")
    }

    /// Whether a new volume can be made for the claim where the node is.
    pub(crate) fn can_provision(&self, claim: &PersistentVolumeClaim, node: &Node) -> bool {
        let Some(class) = self.class_of(claim) else { return false };
        let topologies = class.allowed_topologies.as_deref().unwrap_or_default();
        let selected = |topology: &k8s_openapi::api::core::v1::TopologySelectorTerm| {
            let mut terms = topology.match_label_expressions.iter().flatten();
            terms.all(|term| label(node, &term.key).is_some_and(|value| term.values.iter().any(|v| v == value)))
        };
        class.provisioner != NO_PROVISIONER
            && !class.provisioner.is_empty()
            && (topologies.is_empty() || topologies.iter().any(selected))
    }
}

pub(crate) fn annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the volume can be used on the node.
#[must_use]
pub fn reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| {
        let empty = |term: &NodeSelectorTerm| term.match_expressions.is_none() && term.match_fields.is_none();
        !required.node_selector_terms.iter().all(empty) && node_selected(required, node)
    })
}

pub(crate) fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn class_name(claim: &PersistentVolumeClaim) -> &str {
    const BETA: &str = "volume.beta.kubernetes.io/storage-class";
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    annotation(claim, BETA).or(named).unwrap_or_default()
}

fn volume_name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let size = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get(STORAGE));
    size.and_then(|size| size.0.parse().ok()).unwrap_or_default()
}

/// Class, size, modes and labels are what the claim asks for.
fn serves(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let size = wants.resources.as_ref().and_then(|resources| resources.requests.as_ref()?.get(STORAGE));
    let size: Quantity = size.and_then(|size| size.0.parse().ok()).unwrap_or_default();
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    has.storage_class_name.as_deref().unwrap_or_default() == class_name(claim)
        && capacity(volume) >= size
        && access_modes(claim).iter().all(|wanted| modes.contains(wanted))
        && mode(&has.volume_mode) == mode(&wants.volume_mode)
        && wants.selector.as_ref().is_none_or(|selector| selects(Some(selector), &labels))
}
