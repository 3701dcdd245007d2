//! `metadata` of every kind.

use serde_json::Value;
use stead_api::{Kind, Scope};
use stead_machinery::{FieldErrors, Path};

use crate::names::{self, NameRule};
use crate::view::{View, same};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Which names a kind takes.
fn name_rule(kind: &Kind) -> NameRule {
    match (kind.group, kind.kind) {
        ("", "Namespace") => names::rule_label,
        ("", "Service") => names::rule_service,
        // A new StatefulSet's name becomes the host name of its pods.
        ("apps", "StatefulSet") => names::rule_label,
        ("rbac.authorization.k8s.io", _) => names::rule_path_segment,
        _ => names::rule_subdomain,
    }
}

pub(crate) fn create(kind: &Kind, object: &Value, errors: &mut FieldErrors) {
    let path = Path::new("metadata");
    let metadata = object.at("metadata");
    let rule = name_rule(kind);
    let prefix = metadata.text("generateName");
    if !prefix.is_empty() {
        invalid_all(&path.child("generateName"), prefix, rule(prefix, true), errors);
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        invalid_all(&path.child("name"), name, rule(name, false), errors);
    }
    let namespace = metadata.text("namespace");
    if kind.scope == Scope::Cluster {
        if !namespace.is_empty() {
            errors.forbidden(&path.child("namespace"), "not allowed on this type");
        }
    } else if namespace.is_empty() {
        errors.required(&path.child("namespace"), "");
    } else {
        invalid_all(&path.child("namespace"), namespace, names::dns_label(namespace), errors);
    }
    parts(metadata, errors);
}

/// What is judged on create and on update alike.
fn parts(metadata: &Value, errors: &mut FieldErrors) {
    let path = Path::new("metadata");
    if metadata.int("generation").unwrap_or(0) < 0 {
        errors.invalid(&path.child("generation"), metadata.at("generation"), "must be greater than or equal to 0");
    }
    labels(metadata.at("labels"), &path.child("labels"), errors);
    annotations(metadata.at("annotations"), &path.child("annotations"), errors);
    owners(metadata, errors);
    finalizers(metadata, errors);
}

/// One error per thing that is wrong with a text.
pub(crate) fn invalid_all(path: &Path, value: &str, wrong: Vec<String>, errors: &mut FieldErrors) {
    wrong.iter().for_each(|text| errors.invalid(path, &value, text));
}

pub(crate) fn labels(labels: &Value, path: &Path, errors: &mut FieldErrors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        invalid_all(path, key, names::qualified_name(key), errors);
        let value = value.as_str().unwrap_or("");
        invalid_all(path, value, names::label_value(value), errors);
    }
}

pub(crate) fn annotations(annotations: &Value, path: &Path, errors: &mut FieldErrors) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        // Keys are compared in lower case: old objects have capitals in their prefix.
        invalid_all(path, key, names::qualified_name(&key.to_lowercase()), errors);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

fn owners(metadata: &Value, errors: &mut FieldErrors) {
    let path = Path::new("metadata").child("ownerReferences");
    let mut controller: Option<&Value> = None;
    for owner in metadata.items("ownerReferences") {
        let version = owner.text("apiVersion");
        if version.split('/').count() > 2 || version.rsplit('/').next().is_none_or(str::is_empty) {
            errors.invalid(&path.child("apiVersion"), &version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                let why =
                    if field == "kind" { "must not be empty".to_owned() } else { format!("{field} must not be empty") };
                errors.invalid(&path.child(field), &"", &why);
            }
        }
        if version == "v1" && owner.text("kind") == "Event" {
            errors.invalid(&path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") == Some(true) {
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                    describe(first),
                    describe(owner)
                );
                errors.invalid(&path, metadata.at("ownerReferences"), &why);
            }
            controller = Some(owner);
        }
    }
}

fn describe(owner: &Value) -> String {
    format!("{}/{}", owner.text("kind"), owner.text("name"))
}

/// A value shown as it is.
pub(crate) struct Raw(pub(crate) String);

impl stead_machinery::field::Shown for Raw {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

fn finalizers(metadata: &Value, errors: &mut FieldErrors) {
    let path = Path::new("metadata").child("finalizers");
    let list: Vec<&str> = metadata.items("finalizers").iter().filter_map(Value::as_str).collect();
    for finalizer in &list {
        invalid_all(&path, finalizer, names::qualified_name(finalizer), errors);
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        errors.invalid(&path, metadata.at("finalizers"), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

pub(crate) fn update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let path = Path::new("metadata");
    let (now, before) = (new.at("metadata"), old.at("metadata"));
    if before.has("deletionTimestamp") {
        let known = before.items("finalizers");
        let fresh: Vec<String> =
            now.items("finalizers").iter().filter(|f| !known.contains(f)).map(|f| format!("{f}")).collect();
        if !fresh.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                fresh.join(", ")
            );
            errors.forbidden(&path.child("finalizers"), &why);
        }
    }
    if now.text("resourceVersion").is_empty() {
        errors.invalid(&path.child("resourceVersion"), &"", "must be specified for an update");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        immutable(now.at(field), before.at(field), &path.child(field), errors);
    }
    parts(now, errors);
}

/// `field is immutable`.
pub(crate) fn immutable(new: &Value, old: &Value, path: &Path, errors: &mut FieldErrors) {
    if !same(new, old) {
        errors.invalid(path, new, "field is immutable");
    }
}

/// Advice that upstream gives with an object that is accepted.
pub(crate) fn warn(object: &Value, warnings: &mut Vec<String>) {
    for finalizer in object.items("metadata.finalizers").iter().filter_map(Value::as_str) {
        if !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion") {
            warnings.push(format!(
                "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
}
