//! Defaults of claims, volumes and storage classes.

use serde_json::{Value, json};

use super::{made, with};
use crate::view::{Fill, View};

pub(super) fn claim(object: &mut Value) {
    if let Some(spec) = made(object, "spec") {
        spec.fill_null("volumeMode", "Filesystem");
        // `dataSource` and `dataSourceRef` say the same about objects of the claim's own namespace.
        if spec.has("dataSource") && !spec.has("dataSourceRef") {
            let source = spec.at("dataSource").clone();
            spec.put("dataSourceRef", source);
        } else if spec.has("dataSourceRef")
            && !spec.has("dataSource")
            && spec.text("dataSourceRef.namespace").is_empty()
        {
            let source = spec.at("dataSourceRef").clone();
            spec.put("dataSource", source);
        }
        if spec.text("volumeName").is_empty() {
            spec.drop_key("volumeName");
        }
        spec.fill_null("resources", json!({}));
    }
    if let Some(status) = made(object, "status") {
        status.fill("phase", "Pending");
    }
}

pub(super) fn volume(object: &mut Value) {
    if let Some(spec) = made(object, "spec") {
        spec.fill("persistentVolumeReclaimPolicy", "Retain");
        spec.fill_null("volumeMode", "Filesystem");
        with(spec, "hostPath", |source| source.fill_null("type", ""));
        with(spec, "iscsi", |source| source.fill("iscsiInterface", "default"));
        if spec.at("storageClassName").as_str() == Some("") {
            spec.drop_key("storageClassName");
        }
    }
    if let Some(status) = made(object, "status") {
        status.fill("phase", "Pending");
    }
}

pub(super) fn class(object: &mut Value) {
    object.fill_null("reclaimPolicy", "Delete");
    object.fill_null("volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill_null("attachRequired", true);
    spec.fill_null("podInfoOnMount", false);
    spec.fill_null("storageCapacity", false);
    spec.fill_null("fsGroupPolicy", "ReadWriteOnceWithFSType");
    spec.fill_null("volumeLifecycleModes", json!(["Persistent"]));
    spec.fill_null("requiresRepublish", false);
    spec.fill_null("seLinuxMount", false);
}
