//! What the side-cars of a storage driver would do next, for drivers whose controllers are called from within: who acts, which
//! volumes are made, grown, attached, detached and deleted.
//!
//! The rules are those of `external-provisioner`, `external-attacher` and `external-resizer` of kubernetes-csi. All calls of the
//! interface may be repeated, and objects have names that follow from what they are: two that act at once do no harm.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, SecretReference, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stead_machinery::quantity::{Format, Quantity as Amount};

use crate::claims::{
    PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER, annotation, bind, claim_phase, matching, name, volume_name,
    volume_phase,
};

/// What the names of a class's parameters begin with that are not for the driver.
const RESERVED: &str = "csi.storage.k8s.io/";
/// The file system of volumes whose class names none.
const FS_TYPE: &str = "ext4";
/// Upstream's condition of a claim whose volume is large enough while its file system is not yet.
const RESIZE_PENDING: &str = "FileSystemResizePending";

/// A node from which the driver's controller can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub node: String,
    pub ready: bool,
}

/// The node that acts: the one that is concerned if it can, else the first by name that is ready, else the first.
#[must_use]
pub fn actor<'a>(offers: &'a [Offer], concerned: Option<&str>) -> Option<&'a str> {
    let order = |offer: &&Offer| (Some(offer.node.as_str()) != concerned, !offer.ready, offer.node.clone());
    offers
        .iter()
        .min_by_key(|offer| if offer.ready { order(offer) } else { (true, true, offer.node.clone()) })
        .map(|offer| offer.node.as_str())
}

/// What is to be done about a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimStep {
    Nothing,
    /// Make a volume as [`Wish`] says.
    Create(Wish),
    /// It cannot be made, and this is why.
    Refuse(String),
    /// Make the claim's volume at least so large, bytes.
    Grow {
        bytes: i64,
    },
}

/// A volume that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub name: String,
    pub bytes: i64,
    /// Kubernetes' names.
    pub access_modes: Vec<String>,
    pub fs_type: String,
    pub mount_options: Vec<String>,
    /// For the driver.
    pub parameters: BTreeMap<String, String>,
    /// The node that the scheduler chose.
    pub node: Option<String>,
}

/// Decides about one claim. `volume` is the one that the claim names.
#[must_use]
pub fn claim(
    driver: &str,
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    volume: Option<&PersistentVolume>,
) -> ClaimStep {
    if claim.metadata.deletion_timestamp.is_some() {
        return ClaimStep::Nothing;
    }
    if !volume_name(claim).is_empty() {
        return volume.map_or(ClaimStep::Nothing, |volume| growth(driver, claim, volume));
    }
    let asked = annotation(&claim.metadata, STORAGE_PROVISIONER) == Some(driver) && claim_phase(claim) == "Pending";
    let Some(class) = class.filter(|class| asked && class.provisioner == driver) else { return ClaimStep::Nothing };
    let delayed = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let node = annotation(&claim.metadata, SELECTED_NODE).map(str::to_owned);
    if delayed && node.is_none() {
        return ClaimStep::Nothing;
    }
    match wish(claim, class, node) {
        Ok(wish) => ClaimStep::Create(wish),
        Err(why) => ClaimStep::Refuse(why),
    }
}

fn wish(claim: &PersistentVolumeClaim, class: &StorageClass, node: Option<String>) -> Result<Wish, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err("claim Selector is not supported".to_owned());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumes of mode Block are not offered".to_owned());
    }
    if spec.data_source_ref.is_some() || spec.data_source.is_some() {
        return Err("volumes with content from elsewhere are not offered: remove dataSource from the claim".to_owned());
    }
    let all = class.parameters.clone().unwrap_or_default();
    for key in ["provisioner-secret-name", "controller-publish-secret-name", "controller-expand-secret-name"] {
        if all.contains_key(&format!("{RESERVED}{key}")) {
            return Err(format!(
                "the class has the parameter {RESERVED}{key}: secrets for a driver's controller are not offered, run the driver with its side-cars instead"
            ));
        }
    }
    let fs_type = all.get(&format!("{RESERVED}fstype")).cloned().unwrap_or_else(|| FS_TYPE.to_owned());
    Ok(Wish {
        name: format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default()),
        bytes: matching::requested(claim).value(),
        access_modes: spec.access_modes.unwrap_or_default(),
        fs_type,
        mount_options: class.mount_options.clone().unwrap_or_default(),
        parameters: all.into_iter().filter(|(key, _)| !key.starts_with(RESERVED)).collect(),
        node,
    })
}

fn growth(driver: &str, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> ClaimStep {
    let ours = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()).is_some_and(|csi| csi.driver == driver);
    let status = claim.status.as_ref();
    let has: Option<Amount> =
        status.and_then(|status| status.capacity.as_ref()?.get("storage")).and_then(|size| size.0.parse().ok());
    let pending =
        status.is_some_and(|status| status.conditions.iter().flatten().any(|one| one.type_ == RESIZE_PENDING));
    let wanted = matching::requested(claim);
    let larger = has.is_some_and(|has| wanted > has);
    // A claim that grows again while the node has not finished the first time grows the volume again.
    let done = pending && matching::capacity(volume) >= wanted;
    if ours && larger && !done && claim_phase(claim) == "Bound" {
        ClaimStep::Grow { bytes: wanted.value() }
    } else {
        ClaimStep::Nothing
    }
}

/// What the driver says of a volume that it has made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    pub handle: String,
    /// 0: as large as was asked.
    pub bytes: i64,
    pub context: BTreeMap<String, String>,
    /// Where it can be reached from; empty: from everywhere.
    pub topologies: Vec<BTreeMap<String, String>>,
}

/// The volume object, bound to its claim from its birth.
///
/// # Errors
/// A parameter of the class that cannot be followed.
pub fn volume(
    driver: &str,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    wish: &Wish,
    made: Made,
) -> Result<PersistentVolume, String> {
    let bytes = if made.bytes > 0 { made.bytes } else { wish.bytes };
    let asked = matching::requested(claim);
    let size = if asked.value() == bytes { asked } else { Amount::new(bytes, Format::BinarySi) };
    let parameters = class.parameters.clone().unwrap_or_default();
    let source = CSIPersistentVolumeSource {
        driver: driver.to_owned(),
        volume_handle: made.handle,
        fs_type: Some(wish.fs_type.clone()),
        volume_attributes: Some(made.context).filter(|context| !context.is_empty()),
        node_stage_secret_ref: secret(&parameters, "node-stage")?,
        node_publish_secret_ref: secret(&parameters, "node-publish")?,
        ..CSIPersistentVolumeSource::default()
    };
    let annotations = BTreeMap::from([(PROVISIONED_BY.to_owned(), driver.to_owned())]);
    Ok(PersistentVolume {
        metadata: ObjectMeta { name: Some(wish.name.clone()), annotations: Some(annotations), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(wish.access_modes.clone()),
            capacity: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.to_string()))])),
            claim_ref: Some(bind::reference_to(claim)),
            csi: Some(source),
            mount_options: class.mount_options.clone(),
            node_affinity: affinity(&made.topologies),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

/// The secret that a class names for a call.
fn secret(parameters: &BTreeMap<String, String>, call: &str) -> Result<Option<SecretReference>, String> {
    let part = |what: &str| parameters.get(&format!("{RESERVED}{call}-secret-{what}")).cloned();
    let (Some(name), Some(namespace)) = (part("name"), part("namespace")) else { return Ok(None) };
    if name.contains("${") || namespace.contains("${") {
        return Err(format!("names of secrets made from a template are not offered: {RESERVED}{call}-secret-name"));
    }
    Ok(Some(SecretReference { name: Some(name), namespace: Some(namespace) }))
}

fn affinity(topologies: &[BTreeMap<String, String>]) -> Option<VolumeNodeAffinity> {
    let requirement = |(key, value): (&String, &String)| NodeSelectorRequirement {
        key: key.clone(),
        operator: "In".to_owned(),
        values: Some(vec![value.clone()]),
    };
    let terms: Vec<NodeSelectorTerm> = topologies
        .iter()
        .filter(|segments| !segments.is_empty())
        .map(|segments| NodeSelectorTerm {
            match_expressions: Some(segments.iter().map(requirement).collect()),
            match_fields: None,
        })
        .collect();
    (!terms.is_empty()).then_some(VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: terms }) })
}

/// Whether the data of a volume is to be deleted now: nobody has the claim any more, and no node has the volume.
#[must_use]
pub fn is_to_go(driver: &str, volume: &PersistentVolume, attached: bool) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let ours = spec.csi.as_ref().is_some_and(|csi| csi.driver == driver)
        && annotation(&volume.metadata, PROVISIONED_BY) == Some(driver);
    ours && !attached
        && volume_phase(volume) == "Released"
        && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
        && volume.metadata.deletion_timestamp.is_none()
}

/// What is to be done about an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachmentStep {
    Nothing,
    /// Take it on: from now on it does not go before the volume is detached.
    Hold,
    Attach,
    Detach,
}

/// The finalizer of an attacher.
#[must_use]
pub fn attacher_finalizer(driver: &str) -> String {
    format!("external-attacher/{}", driver.replace('.', "-"))
}

/// Decides about one attachment.
#[must_use]
pub fn attachment(driver: &str, attachment: &VolumeAttachment) -> AttachmentStep {
    if attachment.spec.attacher != driver {
        return AttachmentStep::Nothing;
    }
    let finalizer = attacher_finalizer(driver);
    let held = attachment.metadata.finalizers.iter().flatten().any(|one| *one == finalizer);
    let attached = attachment.status.as_ref().is_some_and(|status| status.attached);
    match (attachment.metadata.deletion_timestamp.is_some(), held) {
        (true, true) => AttachmentStep::Detach,
        (true, false) => AttachmentStep::Nothing,
        (false, false) => AttachmentStep::Hold,
        (false, true) if !attached => AttachmentStep::Attach,
        (false, true) => AttachmentStep::Nothing,
    }
}

/// Name of the volume that an attachment is for.
#[must_use]
pub fn attached_volume(attachment: &VolumeAttachment) -> &str {
    attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default()
}

/// The name of a volume object.
#[must_use]
pub fn name_of(volume: &PersistentVolume) -> &str {
    name(&volume.metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DRIVER: &str = "linstor.csi.linbit.com";

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("a valid object")
    }

    fn class(more: &Value) -> StorageClass {
        let mut class = json!({"metadata": {"name": "linstor-r2"}, "provisioner": DRIVER});
        class.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        of(class)
    }

    fn pending(annotations: &Value) -> PersistentVolumeClaim {
        of(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "linstor-r2", "resources": {"requests": {"storage": "1Gi"}}}}))
    }

    #[test]
    fn one_node_acts() {
        let offer = |node: &str, ready| Offer { node: node.to_owned(), ready };
        let offers = [offer("b", true), offer("a", false), offer("c", true)];
        assert_eq!(actor(&offers, None), Some("b"));
        assert_eq!(actor(&offers, Some("c")), Some("c"));
        assert_eq!(actor(&offers, Some("a")), Some("b"), "one that is away does nothing");
        assert_eq!(actor(&offers, Some("x")), Some("b"));
        assert_eq!(actor(&[offer("z", false), offer("y", false)], None), Some("y"));
        assert_eq!(actor(&[], None), None);
    }

    #[test]
    fn a_claim_is_served_when_it_is_asked_for_and_its_node_is_known() {
        let asked = json!({STORAGE_PROVISIONER: DRIVER});
        let placed = json!({STORAGE_PROVISIONER: DRIVER, SELECTED_NODE: "n1"});
        let wait = json!({"volumeBindingMode": "WaitForFirstConsumer"});
        let step = |annotations: &Value, more: &Value| claim(DRIVER, &pending(annotations), Some(&class(more)), None);
        assert_eq!(step(&json!({}), &json!({})), ClaimStep::Nothing, "nobody has asked yet");
        assert_eq!(step(&asked, &wait), ClaimStep::Nothing, "no node was chosen yet");
        assert_eq!(step(&json!({STORAGE_PROVISIONER: "other"}), &json!({})), ClaimStep::Nothing);
        let parameters = json!({"parameters": {"replicas": "2", "csi.storage.k8s.io/fstype": "xfs"},
            "volumeBindingMode": "WaitForFirstConsumer", "mountOptions": ["noatime"]});
        let ClaimStep::Create(wish) = step(&placed, &parameters) else { panic!("it is to be made") };
        assert_eq!((wish.name.as_str(), wish.bytes, wish.fs_type.as_str()), ("pvc-u", 1 << 30, "xfs"));
        assert_eq!(wish.parameters, BTreeMap::from([("replicas".to_owned(), "2".to_owned())]));
        assert_eq!(
            (wish.node.as_deref(), wish.mount_options.as_slice()),
            (Some("n1"), ["noatime".to_owned()].as_slice())
        );
        let secret = json!({"parameters": {"csi.storage.k8s.io/provisioner-secret-name": "s"}});
        assert!(matches!(step(&asked, &secret), ClaimStep::Refuse(why) if why.contains("provisioner-secret-name")));
    }

    #[test]
    fn a_volume_says_where_it_is_and_how_large() {
        let class = class(&json!({"reclaimPolicy": "Retain",
            "parameters": {"csi.storage.k8s.io/node-stage-secret-name": "s", "csi.storage.k8s.io/node-stage-secret-namespace": "n"}}));
        let claim_ = pending(&json!({STORAGE_PROVISIONER: DRIVER}));
        let ClaimStep::Create(wish) = claim(DRIVER, &claim_, Some(&class), None) else { panic!("it is to be made") };
        let topologies = vec![BTreeMap::from([("zone".to_owned(), "a".to_owned())])];
        let made = Made { handle: "h".to_owned(), bytes: 2 << 30, topologies, ..Made::default() };
        let volume = volume(DRIVER, &claim_, &class, &wish, made).expect("a volume");
        let spec = volume.spec.expect("a spec");
        assert_eq!(spec.capacity.expect("a size")["storage"].0, "2Gi");
        let csi = spec.csi.expect("a source");
        assert_eq!((csi.volume_handle.as_str(), csi.fs_type.as_deref()), ("h", Some("ext4")));
        assert_eq!(csi.node_stage_secret_ref.and_then(|secret| secret.name).as_deref(), Some("s"));
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
        let terms = spec.node_affinity.and_then(|affinity| affinity.required).expect("a place").node_selector_terms;
        assert_eq!(terms[0].match_expressions.as_ref().map(|rules| rules[0].key.as_str()), Some("zone"));
    }

    #[test]
    fn a_claim_grows_once_for_each_wish() {
        let step = |wanted: &str, has: &str, volume: &str, pending: bool| {
            let conditions = if pending { json!([{"type": RESIZE_PENDING, "status": "True"}]) } else { json!([]) };
            let claim_ = of(json!({"metadata": {"name": "c", "uid": "u"},
                "spec": {"volumeName": "v", "resources": {"requests": {"storage": wanted}}},
                "status": {"phase": "Bound", "capacity": {"storage": has}, "conditions": conditions}}));
            let volume = of(json!({"metadata": {"name": "v"},
                "spec": {"capacity": {"storage": volume}, "csi": {"driver": DRIVER, "volumeHandle": "h"}}}));
            claim(DRIVER, &claim_, None, Some(&volume))
        };
        let grow = ClaimStep::Grow { bytes: 2 << 30 };
        assert_eq!(step("1Gi", "1Gi", "1Gi", false), ClaimStep::Nothing);
        assert_eq!(step("2Gi", "1Gi", "1Gi", false), grow);
        assert_eq!(step("2Gi", "1Gi", "2Gi", false), grow, "cut off between two writes");
        assert_eq!(step("2Gi", "1Gi", "2Gi", true), ClaimStep::Nothing, "the node's turn");
        assert_eq!(step("2Gi", "1Gi", "1536Mi", true), grow, "asked for again in the meantime");
        assert_eq!(step("1Gi", "2Gi", "2Gi", false), ClaimStep::Nothing);
    }

    #[test]
    fn only_a_released_volume_of_the_driver_goes() {
        let volume = |phase: &str, policy: &str, by: &str| -> PersistentVolume {
            of(json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: by}},
                "spec": {"persistentVolumeReclaimPolicy": policy, "csi": {"driver": DRIVER, "volumeHandle": "h"}},
                "status": {"phase": phase}}))
        };
        assert!(is_to_go(DRIVER, &volume("Released", "Delete", DRIVER), false));
        assert!(!is_to_go(DRIVER, &volume("Released", "Delete", DRIVER), true), "a node still has it");
        assert!(!is_to_go(DRIVER, &volume("Bound", "Delete", DRIVER), false));
        assert!(!is_to_go(DRIVER, &volume("Released", "Retain", DRIVER), false));
        assert!(!is_to_go(DRIVER, &volume("Released", "Delete", "somebody"), false), "made by hand");
    }

    #[test]
    fn an_attachment_is_held_while_the_volume_may_be_attached() {
        let step = |finalizers: &[&str], attached: bool, deleted: bool| {
            let deleted = deleted.then_some("2026-01-01T00:00:00Z");
            attachment(
                DRIVER,
                &of(json!({"metadata": {"name": "a", "finalizers": finalizers, "deletionTimestamp": deleted},
                "spec": {"attacher": DRIVER, "nodeName": "n", "source": {"persistentVolumeName": "v"}},
                "status": {"attached": attached}})),
            )
        };
        let held = ["external-attacher/linstor-csi-linbit-com"];
        assert_eq!(step(&[], false, false), AttachmentStep::Hold);
        assert_eq!(step(&held, false, false), AttachmentStep::Attach);
        assert_eq!(step(&held, true, false), AttachmentStep::Nothing);
        assert_eq!(step(&held, true, true), AttachmentStep::Detach);
        assert_eq!(step(&held, false, true), AttachmentStep::Detach, "the call may have reached the driver");
        assert_eq!(step(&[], false, true), AttachmentStep::Nothing);
    }
}
