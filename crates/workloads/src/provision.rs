//! The provisioner of local volumes: a directory per claim on the node of its first pod.
//!
//! The plan only names the directory. The node makes it when it mounts the volume, and removes it (and then the volume
//! object) when the volume is Released and its policy is `Delete`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claims::claim::Act;
use crate::claims::{PROVISIONED_BY, SELECTED_NODE, annotation, bind, matching, name};

/// Name of this provisioner in a StorageClass.
pub const LOCAL: &str = "stead.dev/local";
/// The class that a new cluster has.
pub const DEFAULT_CLASS: &str = "standard";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A node that can hold volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: String,
    /// Value of its label `kubernetes.io/hostname`.
    pub hostname: String,
    /// Ready, and not closed to new pods.
    pub open: bool,
    /// Local volumes that are tied to it already.
    pub volumes: usize,
}

/// The class `standard`, the default of a new cluster.
#[must_use]
pub fn default_class() -> StorageClass {
    let annotation = ("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned());
    StorageClass {
        metadata: ObjectMeta {
            name: Some(DEFAULT_CLASS.to_owned()),
            annotations: Some(BTreeMap::from([annotation])),
            ..ObjectMeta::default()
        },
        provisioner: LOCAL.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    }
}

/// The volume for a claim, bound to it from its birth.
///
/// # Errors
/// Why it cannot be made now: a claim that asks for a device, or no node to hold it.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    places: &[Place],
    storage_dir: &str,
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("{LOCAL} provides file systems only, not volumeMode Block"));
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    if spec.data_source_ref.is_some() || spec.data_source.is_some() {
        return Err(format!("{LOCAL} does not provide volumes with content: remove dataSource from the claim"));
    }
    let place = place(claim, places)?;
    let (namespace, own) = (claim.metadata.namespace.as_deref().unwrap_or_default(), name(&claim.metadata));
    let volume = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let path = format!("{}/{volume}_{namespace}_{own}", storage_dir.trim_end_matches('/'));
    let size = spec.resources.and_then(|resources| resources.requests).and_then(|mut r| r.remove("storage"));
    let hostname = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![place.hostname.clone()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![hostname]), match_fields: None };
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume),
            annotations: Some(BTreeMap::from([
                (PROVISIONED_BY.to_owned(), LOCAL.to_owned()),
                (SELECTED_NODE.to_owned(), place.node.clone()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: size.map(|size| BTreeMap::from([("storage".to_owned(), size)])),
            claim_ref: Some(bind::reference_to(claim)),
            host_path: Some(HostPathVolumeSource { path, type_: Some("DirectoryOrCreate".to_owned()) }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// The node that the scheduler chose, else the open one with the fewest volumes.
fn place<'a>(claim: &PersistentVolumeClaim, places: &'a [Place]) -> Result<&'a Place, String> {
    if let Some(chosen) = annotation(&claim.metadata, SELECTED_NODE) {
        return places.iter().find(|place| place.node == chosen).ok_or_else(|| format!("node {chosen:?} not found"));
    }
    let open = places.iter().filter(|place| place.open);
    open.min_by_key(|place| (place.volumes, &place.node))
        .ok_or_else(|| "no node is ready to hold the volume; it will be made when one is".to_owned())
}

/// Growth of a claim that this provisioner serves: first the volume, then what the claim has got.
#[must_use]
pub fn resize(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<Act> {
    if annotation(&volume.metadata, PROVISIONED_BY) != Some(LOCAL) {
        return Vec::new();
    }
    let wanted = matching::requested(claim);
    let size = k8s_openapi::apimachinery::pkg::api::resource::Quantity(wanted.to_string());
    let mut acts = Vec::new();
    if wanted > matching::capacity(volume) {
        let mut grown = volume.clone();
        let spec = grown.spec.get_or_insert_default();
        spec.capacity.get_or_insert_default().insert("storage".to_owned(), size.clone());
        acts.push(Act::UpdateVolume(grown));
    }
    let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage")?.0.parse().ok());
    if has.is_some_and(|has: stead_machinery::quantity::Quantity| has < wanted) {
        let before = claim.status.clone().unwrap_or_default();
        let capacity = BTreeMap::from([("storage".to_owned(), size)]);
        let status = PersistentVolumeClaimStatus { capacity: Some(capacity), ..before };
        acts.push(Act::Status(PersistentVolumeClaim { status: Some(status), ..claim.clone() }));
    }
    acts
}
