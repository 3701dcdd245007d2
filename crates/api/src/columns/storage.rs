//! The tables of volumes, claims, classes and CSI objects.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, count, flag, is_deleted, items, name, shown, text};

/// The old place of a claim's or volume's class; it goes before the field.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn class_of(object: &Value) -> Value {
    let old = &object["metadata"]["annotations"][OLD_CLASS];
    old.as_str().unwrap_or_else(|| text(&object["spec"]["storageClassName"])).into()
}

fn phase(object: &Value) -> Value {
    if is_deleted(object) { "Terminating".into() } else { text(&object["status"]["phase"]).into() }
}

/// In upstream's order, each once: `RWO,ROX`.
fn access_modes(modes: &Value) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| items(modes).iter().any(|m| m == mode);
    SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn storage(resources: &Value) -> String {
    let amount = shown(&resources["storage"]);
    if amount.is_empty() { "0".to_owned() } else { amount }
}

fn or_unset(value: &Value) -> Value {
    value.as_str().unwrap_or("<unset>").into()
}

pub(crate) fn persistent_volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let claim = &spec["claimRef"];
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])) };
    vec![
        name(object),
        storage(&spec["capacity"]).into(),
        access_modes(&spec["accessModes"]).into(),
        text(&spec["persistentVolumeReclaimPolicy"]).into(),
        phase(object),
        claim.into(),
        class_of(object),
        or_unset(&spec["volumeAttributesClassName"]),
        text(&object["status"]["reason"]).into(),
        age(object, now),
        or_unset(&spec["volumeMode"]),
    ]
}

pub(crate) fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let volume = text(&spec["volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        (String::new(), String::new())
    } else {
        (storage(&status["capacity"]), access_modes(&status["accessModes"]))
    };
    vec![
        name(object),
        phase(object),
        volume.into(),
        capacity.into(),
        modes.into(),
        class_of(object),
        or_unset(&spec["volumeAttributesClassName"]),
        age(object, now),
        or_unset(&spec["volumeMode"]),
    ]
}

fn name_of_class(object: &Value, annotations: &[&str]) -> Value {
    let of = &object["metadata"]["annotations"];
    let default = annotations.iter().any(|key| of[*key] == "true");
    let name = text(&object["metadata"]["name"]);
    if default { format!("{name} (default)").into() } else { name.into() }
}

pub(crate) fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    const DEFAULT: [&str; 2] =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    vec![
        name_of_class(object, &DEFAULT),
        text(&object["provisioner"]).into(),
        object["reclaimPolicy"].as_str().unwrap_or("Delete").into(),
        object["volumeBindingMode"].as_str().unwrap_or("Immediate").into(),
        flag(&object["allowVolumeExpansion"]).into(),
        age(object, now),
    ]
}

pub(crate) fn volume_attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let name = name_of_class(object, &["storage.alpha.kubernetes.io/is-default-class"]);
    vec![name, text(&object["driverName"]).into(), age(object, now)]
}

pub(crate) fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        text(&spec["attacher"]).into(),
        text(&spec["source"]["persistentVolumeName"]).into(),
        text(&spec["nodeName"]).into(),
        flag(&object["status"]["attached"]).into(),
        age(object, now),
    ]
}

pub(crate) fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(&object["spec"]["drivers"]), age(object, now)]
}

pub(crate) fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let modes: Vec<&str> = items(&spec["volumeLifecycleModes"]).iter().map(text).collect();
    let modes = if modes.is_empty() { "<none>".to_owned() } else { modes.join(",") };
    let audiences = spec["tokenRequests"].as_array().map_or_else(
        || "<unset>".to_owned(),
        |list| list.iter().map(|t| text(&t["audience"])).collect::<Vec<_>>().join(","),
    );
    vec![
        name(object),
        spec["attachRequired"].as_bool().unwrap_or(true).into(),
        flag(&spec["podInfoOnMount"]).into(),
        flag(&spec["storageCapacity"]).into(),
        audiences.into(),
        flag(&spec["requiresRepublish"]).into(),
        modes.into(),
        age(object, now),
    ]
}

pub(crate) fn csi_capacity(object: &Value, _now: Timestamp) -> Vec<Value> {
    let capacity = shown(&object["capacity"]);
    let capacity = if capacity.is_empty() { "<unset>".to_owned() } else { capacity };
    vec![name(object), text(&object["storageClassName"]).into(), capacity.into()]
}
