//! ConfigMap, Secret, Namespace, Node, LimitRange, Lease, PriorityClass.

use serde_json::Value;
use stead_machinery::Path;

use super::meta::{immutable, invalid_all};
use super::{Judge, non_negative, one_of};
use crate::names;
use crate::view::{View, quantity, same};

/// Most bytes that a ConfigMap or a Secret may hold.
const DATA_MAX: usize = 1024 * 1024;

fn locked(object: &Value, old: Option<&Value>, fields: &[&str], judge: &mut Judge<'_>) {
    let Some(old) = old.filter(|old| old.flag("immutable") == Some(true)) else { return };
    if object.flag("immutable") != Some(true) {
        let why = "field is immutable when `immutable` is set";
        judge.errors.forbidden(&Path::new("immutable"), why);
    }
    for field in fields {
        if !same(object.at(field), old.at(field)) {
            judge.errors.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
        }
    }
}

pub(super) fn config_map(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    locked(object, old, &["data", "binaryData"], judge);
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let at = Path::new(field);
        for (key, value) in object.entries(field) {
            invalid_all(&at.key(key), key, names::config_key(key), judge.errors);
            if field == "data" && object.entries("binaryData").contains_key(key) {
                let why = "duplicate of key present in binaryData";
                judge.errors.invalid(&at.key(key), key, why);
            }
            size += if field == "data" { value.as_str().map_or(0, str::len) } else { decoded_len(value) };
        }
    }
    if size > DATA_MAX {
        // Upstream names no field here: its path is empty.
        judge.errors.too_long(&Path::new("[]"), DATA_MAX);
    }
}

/// How many bytes a base64 text stands for.
fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or("");
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len())
}

pub(super) fn secret(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    if let Some(old) = old {
        immutable(object.at("type"), old.at("type"), &Path::new("type"), judge.errors);
    }
    locked(object, old, &["data"], judge);
    let data = object.entries("data");
    let at = Path::new("data");
    let mut size = 0;
    for (key, value) in data {
        invalid_all(&at.key(key), key, names::config_key(key), judge.errors);
        size += decoded_len(value);
    }
    if size > DATA_MAX {
        judge.errors.too_long(&at, DATA_MAX);
    }
    let needed: &[&str] = match object.text("type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if object.at("metadata.annotations").get(account).is_none() {
                let at = Path::new("metadata").child("annotations").key(account);
                judge.errors.required(&at, "");
            }
            &[]
        }
        "kubernetes.io/basic-auth" => {
            if !data.contains_key("username") && !data.contains_key("password") {
                judge.errors.required(&at.key("username"), "");
                judge.errors.required(&at.key("password"), "");
            }
            &[]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| !data.contains_key(**key)) {
        judge.errors.required(&at.key(key), "");
    }
}

pub(super) fn namespace(object: &Value, judge: &mut Judge<'_>) {
    let at = Path::new("spec").child("finalizers");
    for finalizer in object.items("spec.finalizers").iter().filter_map(Value::as_str) {
        invalid_all(&at, finalizer, names::qualified_name(finalizer), judge.errors);
        if !finalizer.contains('/') && finalizer != "kubernetes" {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            judge.errors.invalid(&at, &finalizer, why);
        }
    }
    if let Some(label) = object.at("metadata.labels").get("kubernetes.io/metadata.name")
        && label.as_str() != Some(object.text("metadata.name"))
    {
        let at = Path::new("metadata").child("labels").key("kubernetes.io/metadata.name");
        judge.errors.invalid(&at, label, &format!("must equal {}", object.text("metadata.name")));
    }
}

pub(super) fn node(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let at = Path::new("spec").child("taints");
    let taints = object.items("spec.taints");
    for (i, taint) in taints.iter().enumerate() {
        let (here, key, effect) = (at.index(i), taint.text("key"), taint.text("effect"));
        invalid_all(&here.child("key"), key, names::qualified_name(key), judge.errors);
        let value = taint.text("value");
        invalid_all(&here.child("value"), value, names::label_value(value), judge.errors);
        one_of(effect, &["NoExecute", "NoSchedule", "PreferNoSchedule"], &here.child("effect"), judge);
        if taints[..i].iter().any(|t| t.text("key") == key && t.text("effect") == effect) {
            judge.errors.duplicate(&here, taint);
            let mut last = judge.errors.0.pop();
            if let Some(error) = &mut last {
                error.message.push_str(": taints must be unique by key and effect pair");
            }
            judge.errors.0.extend(last);
        }
    }
    if let Some(old) = old {
        for field in ["podCIDR", "podCIDRs", "providerID"] {
            let before = old.at("spec").at(field);
            if !crate::view::hollow(before) && !same(before, object.at("spec").at(field)) {
                let why = "node updates may not change podCIDR except from \"\" to valid";
                let why = if field == "providerID" {
                    "node updates may not change providerID except from \"\" to valid"
                } else {
                    why
                };
                judge.errors.forbidden(&Path::new("spec").child(field), why);
            }
        }
    }
}

pub(super) fn limit_range(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec").child("limits");
    for (i, item) in object.items("spec.limits").iter().enumerate() {
        let at = path.index(i);
        let kind = item.text("type");
        if object.items("spec.limits")[..i].iter().any(|other| other.text("type") == kind) {
            judge.errors.duplicate(&at.child("type"), &kind);
        }
        if kind == "Pod" {
            for field in ["default", "defaultRequest"] {
                if !item.entries(field).is_empty() {
                    judge.errors.forbidden(&at.child(field), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        let claim = kind == "PersistentVolumeClaim";
        if claim && !item.entries("min").contains_key("storage") && !item.entries("max").contains_key("storage") {
            judge.errors.required(
                &at.child("limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
        ordered(item, &at, judge);
    }
}

/// min <= defaultRequest <= default <= max.
fn ordered(item: &Value, path: &Path, judge: &mut Judge<'_>) {
    const ORDER: [(&str, &str); 4] =
        [("min", "min"), ("defaultRequest", "default request"), ("default", "default"), ("max", "max")];
    let amount = |field: &str, name: &str| item.entries(field).get(name).and_then(quantity);
    for (low, (field_low, word_low)) in ORDER.iter().enumerate() {
        for name in item.entries(field_low).keys() {
            for (field_high, word_high) in &ORDER[low + 1..] {
                if let (Some(a), Some(b)) = (amount(field_low, name), amount(field_high, name))
                    && a > b
                {
                    let why = format!("{word_low} value {a} is greater than {word_high} value {b}");
                    judge.errors.invalid(&path.child(field_low).key(name), &a.to_string(), &why);
                }
            }
        }
    }
}

pub(super) fn lease(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    if let Some(seconds) = object.int("spec.leaseDurationSeconds").filter(|s| *s <= 0) {
        judge.errors.invalid(&path.child("leaseDurationSeconds"), &seconds, "must be greater than 0");
    }
    non_negative(object.at("spec.leaseTransitions"), &path.child("leaseTransitions"), judge);
}

/// Numbers above this are the system's own.
const PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn priority_class(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let name = object.text("metadata.name");
    let value = object.int("value").unwrap_or(0);
    if name.starts_with("system-") {
        let known = matches!(
            (name, value),
            ("system-node-critical", 2_000_001_000) | ("system-cluster-critical", 2_000_000_000)
        );
        if !known {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: only system critical priority classes may use it";
            judge.errors.forbidden(&Path::new("metadata").child("name"), why);
        }
    } else if value > PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {PRIORITY_MAX}");
        judge.errors.forbidden(&Path::new("value"), &why);
    }
    one_of(object.text("preemptionPolicy"), &["Never", "PreemptLowerPriority"], &Path::new("preemptionPolicy"), judge);
    if let Some(old) = old {
        if old.int("value").unwrap_or(0) != value {
            judge.errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        immutable(
            object.at("preemptionPolicy"),
            old.at("preemptionPolicy"),
            &Path::new("preemptionPolicy"),
            judge.errors,
        );
    }
}
