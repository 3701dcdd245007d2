//! The provisioners of a cluster's own: `stead.dev/local`, a directory or (with `parameters: {type: image}`) a file system of
//! enforced size on the node of the claim's first pod, and `stead.dev/shared`, a directory per claim below one that all nodes share.
//!
//! The plan only names the place. The node makes it when it mounts the volume, and removes it (and then the volume object) when
//! the volume is Released and its policy is `Delete`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeClaimCondition, PersistentVolumeClaimStatus, PersistentVolumeSpec,
    VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claims::claim::Act;
use crate::claims::{PROVISIONED_BY, SELECTED_NODE, annotation, bind, matching, name};

/// Name in a StorageClass of the provisioner of volumes that are tied to a node.
pub const LOCAL: &str = "stead.dev/local";
/// Name of the provisioner of volumes that every node reaches: `parameters.directory` is the same directory on all of them.
pub const SHARED: &str = "stead.dev/shared";
/// Annotation of a volume that is more than a directory: `image` is a file system in a file, as large as the volume's capacity.
pub const FORM: &str = "stead.dev/volume-type";
/// See [`FORM`].
pub const IMAGE: &str = "image";
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

/// Whether volumes of the class are made here.
#[must_use]
pub fn makes(class: &StorageClass) -> bool {
    class.provisioner == LOCAL || class.provisioner == SHARED
}

/// What the parameters of a class ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form<'a> {
    Directory,
    Image,
    /// Below this directory, on any node.
    Shared(&'a str),
}

/// # Errors
/// A parameter that is missing, unknown or not possible.
fn form(class: &StorageClass) -> Result<Form<'_>, String> {
    let parameters = class.parameters.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    let shared = class.provisioner == SHARED;
    let mut found = if shared { None } else { Some(Form::Directory) };
    for (key, value) in parameters {
        found = match (key, value) {
            ("type", "directory") if !shared => Some(Form::Directory),
            ("type", "image") if !shared => Some(Form::Image),
            ("directory", path) if shared && path.starts_with('/') => Some(Form::Shared(path.trim_end_matches('/'))),
            ("type" | "directory", _) => {
                return Err(format!("invalid value {value:?} of StorageClass parameter {key:?}"));
            }
            // The names that CSI's own sidecar takes, which every class may have.
            (key, _) if key.starts_with("csi.storage.k8s.io/") => found,
            (key, _) => return Err(format!("invalid option {key:?} for provisioner {}", class.provisioner)),
        };
    }
    found
        .ok_or_else(|| format!("provisioner {SHARED} needs the parameter \"directory\", the path that all nodes share"))
}

/// The volume for a claim, bound to it from its birth.
///
/// # Errors
/// Why it cannot be made now: a claim that asks for a device, a class with wrong parameters, or no node to hold it.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    places: &[Place],
    storage_dir: &str,
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("{} provides file systems only, not volumeMode Block", class.provisioner));
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".to_owned());
    }
    if spec.data_source_ref.is_some() || spec.data_source.is_some() {
        return Err(format!(
            "{} does not provide volumes with content: remove dataSource from the claim",
            class.provisioner
        ));
    }
    let form = form(class)?;
    let place = if matches!(form, Form::Shared(_)) { None } else { Some(place(claim, places)?) };
    let (namespace, own) = (claim.metadata.namespace.as_deref().unwrap_or_default(), name(&claim.metadata));
    let volume = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let path = match form {
        Form::Shared(directory) => format!("{directory}/{namespace}-{own}-{volume}"),
        Form::Directory | Form::Image => format!("{}/{volume}_{namespace}_{own}", storage_dir.trim_end_matches('/')),
    };
    let size = spec.resources.and_then(|resources| resources.requests).and_then(|mut r| r.remove("storage"));
    let mut annotations = BTreeMap::from([(PROVISIONED_BY.to_owned(), class.provisioner.clone())]);
    annotations.extend(place.map(|place| (SELECTED_NODE.to_owned(), place.node.clone())));
    if form == Form::Image {
        annotations.insert(FORM.to_owned(), IMAGE.to_owned());
    }
    Ok(PersistentVolume {
        metadata: ObjectMeta { name: Some(volume), annotations: Some(annotations), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: size.map(|size| BTreeMap::from([("storage".to_owned(), size)])),
            claim_ref: Some(bind::reference_to(claim)),
            host_path: Some(HostPathVolumeSource { path, type_: Some("DirectoryOrCreate".to_owned()) }),
            mount_options: class.mount_options.clone(),
            node_affinity: place.map(tied_to),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

fn tied_to(place: &Place) -> VolumeNodeAffinity {
    let hostname = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![place.hostname.clone()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![hostname]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
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

/// Growth of a claim that is served here: first the volume, then what the claim has got. The file system of an image is grown by
/// its node, which then says what the claim has got; until then the claim says that this is still to come.
#[must_use]
pub fn resize(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Vec<Act> {
    let ours = annotation(&volume.metadata, PROVISIONED_BY).is_some_and(|by| by == LOCAL || by == SHARED);
    if !ours {
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
    let before = claim.status.clone().unwrap_or_default();
    let has = before.capacity.as_ref().and_then(|capacity| capacity.get("storage")?.0.parse().ok());
    if has.is_none_or(|has: stead_machinery::quantity::Quantity| has >= wanted) {
        return acts;
    }
    let status = if annotation(&volume.metadata, FORM) == Some(IMAGE) {
        if before.conditions.iter().flatten().any(|condition| condition.type_ == RESIZE_PENDING) {
            return acts;
        }
        PersistentVolumeClaimStatus { conditions: Some(vec![resize_pending()]), ..before }
    } else {
        let capacity = BTreeMap::from([("storage".to_owned(), size)]);
        PersistentVolumeClaimStatus { capacity: Some(capacity), ..before }
    };
    acts.push(Act::Status(PersistentVolumeClaim { status: Some(status), ..claim.clone() }));
    acts
}

/// Upstream's condition of a claim whose volume is large enough while its file system is not yet.
const RESIZE_PENDING: &str = "FileSystemResizePending";

fn resize_pending() -> PersistentVolumeClaimCondition {
    PersistentVolumeClaimCondition {
        type_: RESIZE_PENDING.to_owned(),
        status: "True".to_owned(),
        message: Some(
            "Waiting for user to (re-)start a pod to finish file system resize of volume on node.".to_owned(),
        ),
        ..PersistentVolumeClaimCondition::default()
    }
}
