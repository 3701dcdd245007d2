//! What a client may not set: status on create, spec through a sub-resource, generations, system metadata.
//!
//! Source of the rules: `k8s.io/kubernetes/pkg/registry/*/strategy.go` and `k8s.io/apiserver/pkg/registry/rest`.

use serde_json::{Value, json};
use stead_api::{Kind, Subresource};

use crate::view::{Fill, View, same};

/// Kinds whose `metadata.generation` counts changes of the spec.
const COUNTED: &[(&str, &str)] = &[
    ("apps", "StatefulSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "DaemonSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("policy", "PodDisruptionBudget"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("", "ReplicationController"),
    ("", "Pod"),
];

fn counted(kind: &Kind) -> bool {
    COUNTED.contains(&(kind.group, kind.kind))
}

fn has_status(kind: &Kind) -> bool {
    kind.subresources.contains(&Subresource::Status)
}

/// What a fresh object of a kind says in its status.
fn fresh_status(kind: &Kind) -> Option<Value> {
    Some(match (kind.group, kind.kind) {
        ("", "Pod" | "PersistentVolumeClaim" | "PersistentVolume") => json!({"phase": "Pending"}),
        ("", "Namespace") => json!({"phase": "Active"}),
        ("", "Service") | ("networking.k8s.io", "Ingress") => json!({"loadBalancer": {}}),
        ("", "ReplicationController") | ("apps", "ReplicaSet") => json!({"replicas": 0}),
        ("apps", "StatefulSet") => json!({"availableReplicas": 0, "replicas": 0}),
        ("apps", "DaemonSet") => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }),
        ("autoscaling", "HorizontalPodAutoscaler") => json!({"currentMetrics": null, "desiredReplicas": 0}),
        ("policy", "PodDisruptionBudget") => {
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
        }
        ("apps", "Deployment") | ("batch", "Job" | "CronJob") | ("", "ResourceQuota") => json!({}),
        _ => return None,
    })
}

/// Kinds whose status a client may give on create (a node registers itself with its status).
fn keeps_status(kind: &Kind) -> bool {
    matches!((kind.group, kind.kind), ("", "Node") | ("apiextensions.k8s.io", _))
}

/// Before a create.
pub(crate) fn prepare_create(kind: &Kind, object: &mut Value) {
    if let Some(status) = fresh_status(kind) {
        object.put("status", status);
    } else if has_status(kind) && !keeps_status(kind) {
        object.drop_key("status");
    }
    if let Some(metadata) = object.at_mut("metadata") {
        for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.drop_key(key);
        }
        if counted(kind) {
            metadata.put("generation", 1);
        } else {
            metadata.drop_key("generation");
        }
    }
    tidy_metadata(object);
}

/// Before an update: what the request may not change is taken over from the stored object.
pub(crate) fn prepare_update(kind: &Kind, new: &mut Value, old: &Value, sub: Option<Subresource>) {
    take_over_metadata(new, old);
    match sub {
        Some(Subresource::Status | Subresource::Approval) => {
            keep_all_but(new, old, &["status", "metadata"]);
            for key in ["ownerReferences", "finalizers"] {
                keep_metadata(new, old, key);
            }
            if (kind.group, kind.kind) == ("apps", "Deployment") {
                keep_metadata(new, old, "labels");
            }
        }
        Some(Subresource::Finalize) => {
            let finalizers = new.at("spec.finalizers").clone();
            keep_all_but(new, old, &["metadata", "spec"]);
            if let Some(spec) = new.object("spec") {
                spec.insert("finalizers".to_owned(), finalizers);
            }
        }
        _ => {
            if (has_status(kind) || fresh_status(kind).is_some()) && !matches!(kind.kind, "CustomResourceDefinition") {
                keep(new, old, "status");
            }
            if (kind.group, kind.kind) == ("", "Namespace") {
                // Only the finalize sub-resource changes them.
                let finalizers = old.at("spec.finalizers").clone();
                if let Some(spec) = new.object("spec") {
                    spec.insert("finalizers".to_owned(), finalizers);
                }
            }
        }
    }
    count_generation(kind, new, old);
    tidy_metadata(new);
}

/// Generation goes up when anything but metadata and status changes.
fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    let before = old.int("metadata.generation").unwrap_or(0);
    let changed = counted(kind) && body_differs(new, old);
    let now = if changed { before.saturating_add(1) } else { before };
    if let Some(metadata) = new.at_mut("metadata") {
        if now > 0 {
            metadata.put("generation", now);
        } else {
            metadata.drop_key("generation");
        }
    }
}

fn body_differs(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    new.keys()
        .chain(old.keys())
        .filter(|key| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
        .any(|key| !same(new.get(key).unwrap_or(&Value::Null), old.get(key).unwrap_or(&Value::Null)))
}

/// An update may leave system metadata out; it cannot take a deletion back.
fn take_over_metadata(new: &mut Value, old: &Value) {
    let Some(metadata) = new.object("metadata") else { return };
    for key in ["uid", "creationTimestamp", "name", "namespace", "deletionGracePeriodSeconds"] {
        if metadata.get(key).is_none_or(Value::is_null) && old.at("metadata").get(key).is_some() {
            metadata.insert(key.to_owned(), old.at("metadata")[key].clone());
        }
    }
    for key in ["deletionTimestamp", "selfLink"] {
        match old.at("metadata").get(key) {
            Some(value) => metadata.insert(key.to_owned(), value.clone()),
            None => metadata.remove(key),
        };
    }
}

fn keep(new: &mut Value, old: &Value, key: &str) {
    match old.get(key) {
        Some(value) => new.put(key, value.clone()),
        None => new.drop_key(key),
    }
}

fn keep_metadata(new: &mut Value, old: &Value, key: &str) {
    if let Some(metadata) = new.at_mut("metadata") {
        keep(metadata, old.at("metadata"), key);
    }
}

fn keep_all_but(new: &mut Value, old: &Value, but: &[&str]) {
    let keys: Vec<String> = [&*new, old].iter().filter_map(|o| o.as_object()).flat_map(|o| o.keys().cloned()).collect();
    for key in keys {
        if !but.contains(&key.as_str()) && key != "apiVersion" && key != "kind" {
            keep(new, old, &key);
        }
    }
}

/// Empty maps and lists of metadata are not kept, as Go's encoder would drop them.
fn tidy_metadata(object: &mut Value) {
    let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
    metadata.retain(|key, value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty() || !matches!(key.as_str(), "generateName" | "namespace"),
        _ => true,
    });
}
