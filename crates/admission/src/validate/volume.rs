//! The volumes of a pod, and the sources that pods and PersistentVolumes share.

use std::collections::BTreeMap;

use serde_json::Value;
use stead_machinery::Path;

use super::container::{field_ref, inside, no_backsteps};
use super::meta::invalid_all;
use super::{Judge, one_of};
use crate::names;
use crate::view::{View, quantity};

/// Every kind of source that a pod's volume can have.
const SOURCES: &[&str] = &[
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "storageos",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

/// Judges the volumes; returns their names with the kind of source.
pub(super) fn volumes(spec: &Value, path: &Path, judge: &mut Judge<'_>) -> BTreeMap<String, &'static str> {
    let mut known = BTreeMap::new();
    for (i, volume) in spec.items("volumes").iter().enumerate() {
        let here = path.index(i);
        let name = volume.text("name");
        let kind = source(volume, &here, judge);
        if name.is_empty() {
            judge.errors.required(&here.child("name"), "");
        } else {
            let wrong = names::dns_label(name);
            let good = wrong.is_empty();
            invalid_all(&here.child("name"), name, wrong, judge.errors);
            if good && known.contains_key(name) {
                judge.errors.duplicate(&here.child("name"), &name);
            }
        }
        known.insert(name.to_owned(), kind);
    }
    known
}

/// Exactly one source. Returns its kind.
fn source(volume: &Value, path: &Path, judge: &mut Judge<'_>) -> &'static str {
    let mut found = "";
    for kind in SOURCES {
        let source = volume.at(kind);
        if source.is_null() {
            continue;
        }
        if found.is_empty() {
            found = kind;
            pod_source(kind, source, &path.child(kind), judge);
        } else {
            judge.errors.forbidden(&path.child(kind), "may not specify more than 1 volume type");
        }
    }
    if found.is_empty() {
        judge.errors.required(path, "must specify a volume type");
    }
    found
}

fn pod_source(kind: &str, source: &Value, path: &Path, judge: &mut Judge<'_>) {
    match kind {
        "emptyDir" => {
            if let Some(limit) = quantity(source.at("sizeLimit")).filter(|q| q.sign() < 0) {
                judge.errors.forbidden(
                    &path.child("sizeLimit"),
                    &format!("SizeLimit field must be a valid resource quantity: {limit}"),
                );
            }
        }
        "secret" => {
            required(source, "secretName", path, judge);
            keyed_files(source, path, judge);
        }
        "configMap" => {
            required(source, "name", path, judge);
            keyed_files(source, path, judge);
        }
        "persistentVolumeClaim" => required(source, "claimName", path, judge),
        "downwardAPI" => downward(source, path, judge),
        "projected" => projected(source, path, judge),
        "csi" => {
            required(source, "driver", path, judge);
        }
        "ephemeral" if !source.has("volumeClaimTemplate") => {
            judge.errors.required(&path.child("volumeClaimTemplate"), "");
        }
        "ephemeral" => super::storage::claim_spec(
            source.at("volumeClaimTemplate.spec"),
            &path.child("volumeClaimTemplate").child("spec"),
            judge,
        ),
        _ => shared_source(kind, source, path, judge),
    }
}

/// Sources that a PersistentVolume can have too.
pub(super) fn shared_source(kind: &str, source: &Value, path: &Path, judge: &mut Judge<'_>) {
    match kind {
        "hostPath" => {
            let target = source.text("path");
            if target.is_empty() {
                judge.errors.required(&path.child("path"), "");
            } else {
                no_backsteps(target, &path.child("path"), judge);
                let kinds = [
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ];
                if !kinds.contains(&source.text("type")) {
                    judge.errors.not_supported(&path.child("type"), &source.text("type"), &kinds[1..]);
                }
            }
        }
        "nfs" => {
            required(source, "server", path, judge);
            required(source, "path", path, judge);
            if !source.text("path").is_empty() && !source.text("path").starts_with('/') {
                judge.errors.invalid(&path.child("path"), &source.text("path"), "must be an absolute path");
            }
        }
        "local" => {
            required(source, "path", path, judge);
            no_backsteps(source.text("path"), &path.child("path"), judge);
        }
        "csi" => {
            required(source, "driver", path, judge);
            required(source, "volumeHandle", path, judge);
        }
        _ => {}
    }
}

fn required(source: &Value, field: &str, path: &Path, judge: &mut Judge<'_>) {
    if source.text(field).is_empty() {
        judge.errors.required(&path.child(field), "");
    }
}

fn mode(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    if let Some(mode) = value.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        judge.errors.invalid(path, &mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn keyed_files(source: &Value, path: &Path, judge: &mut Judge<'_>) {
    mode(source.at("defaultMode"), &path.child("defaultMode"), judge);
    for (i, item) in source.items("items").iter().enumerate() {
        let here = path.child("items").index(i);
        if item.text("key").is_empty() {
            judge.errors.required(&here.child("key"), "");
        }
        file_path(item, &here, judge);
    }
}

fn file_path(item: &Value, path: &Path, judge: &mut Judge<'_>) {
    let target = item.text("path");
    if target.is_empty() {
        judge.errors.required(&path.child("path"), "");
    } else {
        inside(target, &path.child("path"), judge);
        if target.starts_with("..") && !target.starts_with("../") && target != ".." {
            judge.errors.invalid(&path.child("path"), &target, "must not start with '..'");
        }
    }
    mode(item.at("mode"), &path.child("mode"), judge);
}

/// Fields of the pod that a file may show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

fn downward(source: &Value, path: &Path, judge: &mut Judge<'_>) {
    mode(source.at("defaultMode"), &path.child("defaultMode"), judge);
    for (i, item) in source.items("items").iter().enumerate() {
        let here = path.child("items").index(i);
        file_path(item, &here, judge);
        if item.has("fieldRef") {
            if item.has("resourceFieldRef") {
                judge.errors.invalid(
                    &here,
                    &"resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            field_ref(item.at("fieldRef"), FILE_FIELDS, &here.child("fieldRef"), judge);
        } else if item.has("resourceFieldRef") {
            required(item.at("resourceFieldRef"), "resource", &here.child("resourceFieldRef"), judge);
        } else {
            judge.errors.required(&here, "one of fieldRef and resourceFieldRef is required");
        }
    }
}

fn projected(source: &Value, path: &Path, judge: &mut Judge<'_>) {
    mode(source.at("defaultMode"), &path.child("defaultMode"), judge);
    for (i, part) in source.items("sources").iter().enumerate() {
        let here = path.child("sources").index(i);
        let kinds =
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
        let found: Vec<&str> = kinds.into_iter().filter(|kind| part.has(kind)).collect();
        for (n, kind) in found.iter().enumerate() {
            let (inner, at) = (part.at(kind), here.child(kind));
            if n > 0 {
                judge.errors.forbidden(&at, "may not specify more than 1 volume type");
                continue;
            }
            match *kind {
                "secret" | "configMap" => {
                    required(inner, "name", &at, judge);
                    keyed_files(inner, &at, judge);
                }
                "downwardAPI" => downward(inner, &at, judge),
                "serviceAccountToken" => token(inner, &at, judge),
                _ => {}
            }
        }
        if found.is_empty() {
            judge.errors.required(&here, "must specify a volume type");
        }
    }
}

fn token(token: &Value, path: &Path, judge: &mut Judge<'_>) {
    let seconds = token.int("expirationSeconds").unwrap_or(3600);
    let here = path.child("expirationSeconds");
    if seconds < 600 {
        judge.errors.invalid(&here, &seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        judge.errors.invalid(&here, &seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if token.text("path").is_empty() {
        judge.errors.required(&path.child("path"), "");
    } else {
        inside(token.text("path"), &path.child("path"), judge);
    }
}

/// `ReadWriteOnce` and so on, and `Filesystem` or `Block`.
pub(super) fn access_modes(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let modes: Vec<&str> = spec.items("accessModes").iter().filter_map(Value::as_str).collect();
    for mode in &modes {
        if !MODES.contains(mode) {
            judge.errors.not_supported(&path.child("accessModes"), mode, MODES);
        }
    }
    if modes.contains(&"ReadWriteOncePod") && modes.len() > 1 {
        let why = "may not use ReadWriteOncePod with other access modes";
        judge.errors.forbidden(&path.child("accessModes"), why);
    }
}

pub(super) fn volume_mode(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    if spec.has("volumeMode") {
        one_of(spec.text("volumeMode"), &["Block", "Filesystem"], &path.child("volumeMode"), judge);
    }
}
