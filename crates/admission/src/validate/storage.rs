//! Claims, volumes and storage classes.

use serde_json::Value;
use stead_machinery::Path;

use super::diff::diff;
use super::meta::{immutable, invalid_all};
use super::volume::{access_modes, shared_source, volume_mode};
use super::{Judge, one_of, placement, selector};
use crate::names;
use crate::view::{Fill, View, drop_nulls, quantity, same};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn claim(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    claim_spec(object.at("spec"), &path, judge);
    if let Some(old) = old {
        claim_update(object, old, &path, judge);
    }
}

/// A claim's spec, also in templates.
pub(super) fn claim_spec(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    if spec.items("accessModes").is_empty() {
        judge.errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    selector::selector(spec.at("selector"), &path.child("selector"), judge);
    access_modes(spec, path, judge);
    let at = path.child("resources").key("storage");
    match spec.entries("resources.requests").get("storage") {
        None => judge.errors.required(&at, ""),
        Some(size) => greater_than_zero(size, &at, judge),
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        invalid_all(&path.child("storageClassName"), class, names::dns_subdomain(class), judge.errors);
    }
    volume_mode(spec, path, judge);
    for field in ["dataSource", "dataSourceRef"] {
        let source = spec.at(field);
        if source.is_null() {
            continue;
        }
        for part in ["name", "kind"] {
            if source.text(part).is_empty() {
                judge.errors.required(&path.child(field).child(part), "");
            }
        }
        if source.text("apiGroup").is_empty() && !matches!(source.text("kind"), "" | "PersistentVolumeClaim") {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            judge.errors.invalid(&path.child(field), &source.text("kind"), why);
        }
    }
}

fn greater_than_zero(size: &Value, path: &Path, judge: &mut Judge<'_>) {
    if let Some(amount) = quantity(size).filter(|amount| amount.sign() <= 0) {
        judge.errors.invalid(path, &amount.to_string(), "must be greater than zero");
    }
}

fn claim_update(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    let size = |claim: &Value| quantity(claim.at("spec.resources.requests.storage"));
    // What may change is taken from the old claim; then nothing may differ.
    let mut kept = new.at("spec").clone();
    let bound = old.text("status.phase") == "Bound";
    if bound && let Some(resources) = kept.object("resources") {
        resources.insert("requests".to_owned(), old.at("spec.resources.requests").clone());
    }
    if old.text("spec.volumeName").is_empty() {
        // The binder names the volume.
        kept.put("volumeName", old.at("spec.volumeName").clone());
    }
    if !old.has("spec.storageClassName") && old.at("metadata.annotations").get(BETA_CLASS).is_none() {
        // A class may be given later, by hand or when there is a default.
        kept.put("storageClassName", Value::Null);
    }
    kept.put("volumeAttributesClassName", old.at("spec.volumeAttributesClassName").clone());
    if !same(&kept, old.at("spec")) {
        drop_nulls(&mut kept);
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            diff(&kept, old.at("spec"))
        );
        judge.errors.forbidden(path, &why);
    }
    if bound && size(new) < size(old) {
        let status = quantity(old.at("status.capacity.storage"));
        // Growth that failed may be taken back down to what there is.
        if size(new) <= status || status.is_none() {
            let at = path.child("resources").child("requests").child("storage");
            judge.errors.forbidden(&at, "field can not be less than status.capacity");
        }
    }
    immutable(new.at("spec.volumeMode"), old.at("spec.volumeMode"), &Path::new("volumeMode"), judge.errors);
}

/// Every kind of source that a PersistentVolume can have.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub(super) fn volume(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    if spec.items("accessModes").is_empty() {
        judge.errors.required(&path.child("accessModes"), "");
    }
    access_modes(spec, &path, judge);
    let capacity = spec.entries("capacity");
    let at = path.child("capacity");
    if capacity.is_empty() {
        judge.errors.required(&at, "");
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        judge.errors.not_supported(&at, spec.at("capacity"), &["storage"]);
    }
    for (name, amount) in capacity {
        greater_than_zero(amount, &at.key(name), judge);
    }
    if spec.has("nodeAffinity.required") {
        placement::node_selector(
            spec.at("nodeAffinity.required"),
            &path.child("nodeAffinity").child("required"),
            judge,
        );
    }
    source(spec, &path, judge);
    let policy = spec.text("persistentVolumeReclaimPolicy");
    one_of(policy, &["Delete", "Recycle", "Retain"], &path.child("persistentVolumeReclaimPolicy"), judge);
    if policy == "Recycle" && spec.text("hostPath.path") == "/" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        judge.errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        invalid_all(&path.child("storageClassName"), class, names::dns_subdomain(class), judge.errors);
    }
    volume_mode(spec, &path, judge);
    if let Some(old) = old {
        let named = |spec: &Value| {
            SOURCES.iter().filter(|s| spec.has(s)).map(|s| ((*s).to_owned(), spec.at(s).clone())).collect()
        };
        let source_of = |spec: &Value| Value::Object(named(spec));
        let (now, before) = (source_of(spec), source_of(old.at("spec")));
        if now != before {
            let why = format!("spec.persistentvolumesource is immutable after creation\n{}", diff(&now, &before));
            judge.errors.forbidden(&path.child("persistentvolumesource"), &why);
        }
        immutable(spec.at("volumeMode"), old.at("spec.volumeMode"), &Path::new("volumeMode"), judge.errors);
        if old.has("spec.nodeAffinity") && !same(spec.at("nodeAffinity"), old.at("spec.nodeAffinity")) {
            judge.errors.invalid(
                &Path::new("nodeAffinity"),
                spec.at("nodeAffinity"),
                "field is immutable, except for updating from beta label to GA",
            );
        }
    }
}

fn source(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let mut found = "";
    for kind in SOURCES {
        let source = spec.at(kind);
        if source.is_null() {
            continue;
        }
        if found.is_empty() {
            found = kind;
            shared_source(kind, source, &path.child(kind), judge);
        } else {
            judge.errors.forbidden(&path.child(kind), "may not specify more than 1 volume type");
        }
    }
    if found.is_empty() {
        judge.errors.required(path, "must specify a volume type");
    }
    if found == "local" && !spec.has("nodeAffinity.required") {
        judge.errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
}

pub(super) fn class(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let at = Path::new("provisioner");
    let provisioner = object.text("provisioner");
    if provisioner.is_empty() {
        judge.errors.required(&at, "");
    } else {
        invalid_all(&at, provisioner, names::qualified_name(&provisioner.to_lowercase()), judge.errors);
    }
    let parameters = object.entries("parameters");
    for key in parameters.keys().filter(|key| key.is_empty()) {
        judge.errors.invalid(&Path::new("parameters"), key, "field can not be empty.");
    }
    if parameters.len() > 512 {
        judge.errors.too_long(&Path::new("Provisioner Parameters Length"), 512);
    }
    one_of(object.text("reclaimPolicy"), &["Delete", "Retain"], &Path::new("reclaimPolicy"), judge);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    one_of(object.text("volumeBindingMode"), &modes, &Path::new("volumeBindingMode"), judge);
    let Some(old) = old else { return };
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(object.at(field), old.at(field)) {
            let why = format!("updates to {field} are forbidden.");
            judge.errors.forbidden(&Path::new(field), &why);
        }
    }
    let at = Path::new("volumeBindingMode");
    immutable(object.at("volumeBindingMode"), old.at("volumeBindingMode"), &at, judge.errors);
}
