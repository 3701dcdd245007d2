//! Controller revisions: the history that roll-outs and roll-backs refer to.
//!
//! Names and hashes are upstream's (`pkg/controller/history`): the same bytes of `data` give the same name.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde::Serialize;
use serde_json::Value;
use stead_api::typed;
use stead_machinery::written::is_written_as;

/// The label that carries the hash of a StatefulSet's revision.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// Longest part of the owner's name that goes into the name of a revision.
const NAME_PREFIX_MAX: usize = 223;

/// A revision that is about to be made: everything that goes into it.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    pub owner: &'a ObjectMeta,
    pub reference: &'a OwnerReference,
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The label that the hash goes into.
    pub hash_label: &'static str,
    pub template: &'a PodTemplateSpec,
    /// How many names collided so far; goes into the hash.
    pub collisions: i32,
}

impl Draft<'_> {
    /// The revision with that number, ready to be created.
    #[must_use]
    pub fn revision(&self, number: i64) -> ControllerRevision {
        let data = data(self.template);
        let hash = hash(&data, self.collisions);
        let mut labels = self.labels.cloned().unwrap_or_default();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name(self.owner.name.as_deref().unwrap_or_default(), &hash)),
                namespace: self.owner.namespace.clone(),
                labels: Some(labels),
                annotations: self.owner.annotations.clone(),
                owner_references: Some(vec![self.reference.clone()]),
                ..ObjectMeta::default()
            },
            data: RawExtension(data),
            revision: Some(number),
        }
    }
}

/// How to come by the revision of the present template.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// It is the newest one already.
    Newest(String),
    /// It is an older one, so this is a roll-back: give it a new number.
    Bump { name: String, number: i64 },
    /// No revision has this template: create this one. If its name is taken by other data, count one more collision
    /// and decide again.
    Create(Box<ControllerRevision>),
}

impl Update {
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Newest(name) | Self::Bump { name, .. } => name,
            Self::Create(revision) => name_of(revision),
        }
    }
}

/// Finds the revision with the template of `draft` among those that exist.
#[must_use]
pub fn decide(draft: &Draft<'_>, revisions: &[Arc<ControllerRevision>]) -> Update {
    let sorted = sorted(revisions.iter().map(|revision| &**revision));
    let next = sorted.last().map_or(1, |newest| number(newest) + 1);
    let wanted = Data::of(draft.template);
    match sorted.iter().rposition(|revision| is_written_as(&wanted, &revision.data.0)) {
        Some(at) if at + 1 == sorted.len() => Update::Newest(name_of(sorted[at]).to_owned()),
        Some(at) => Update::Bump { name: name_of(sorted[at]).to_owned(), number: next },
        None => Update::Create(Box::new(draft.revision(next))),
    }
}

/// The revisions that are not `live` beyond `limit`, oldest first. A negative limit keeps all.
#[must_use]
pub fn superfluous(
    limit: i32,
    revisions: &[Arc<ControllerRevision>],
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<String> {
    let Some(limit) = usize::try_from(limit).ok().filter(|limit| revisions.len() > *limit) else { return Vec::new() };
    let idle = sorted(revisions.iter().map(|revision| &**revision).filter(|revision| !is_live(revision)));
    let excess = idle.len().saturating_sub(limit);
    idle[..excess].iter().map(|revision| name_of(revision).to_owned()).collect()
}

/// The data of a revision: a pod template as a strategic merge patch.
#[must_use]
pub fn data(template: &PodTemplateSpec) -> Value {
    serde_json::to_value(Data::of(template)).unwrap_or_default()
}

/// [`data`] before it is written.
#[derive(Serialize)]
struct Data<'a> {
    spec: DataSpec<'a>,
}

#[derive(Serialize)]
struct DataSpec<'a> {
    template: Replacing<'a>,
}

#[derive(Serialize)]
struct Replacing<'a> {
    #[serde(flatten)]
    template: &'a PodTemplateSpec,
    #[serde(rename = "$patch")]
    patch: &'static str,
}

impl<'a> Data<'a> {
    fn of(template: &'a PodTemplateSpec) -> Self {
        Self { spec: DataSpec { template: Replacing { template, patch: "replace" } } }
    }
}

/// The pod template of a revision; `None` when its data has no readable one.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.0.get("spec")?.get("template")?;
    typed::from_value(template).ok()
}

/// Name of a revision that exists or is about to.
#[must_use]
pub fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

fn sorted<'a>(revisions: impl Iterator<Item = &'a ControllerRevision>) -> Vec<&'a ControllerRevision> {
    let mut sorted: Vec<_> = revisions.collect();
    sorted.sort_unstable_by(|a, b| order(a, b));
    sorted
}

/// `web-5999d5b47d`.
#[must_use]
pub fn name(owner: &str, hash: &str) -> String {
    let cut = owner.char_indices().map(|(at, _)| at).nth(NAME_PREFIX_MAX).unwrap_or(owner.len());
    format!("{}-{hash}", &owner[..cut])
}

/// The hash of a revision's data: FNV-1 over its canonical bytes and the collision count, in letters that make no words.
#[must_use]
pub fn hash(data: &Value, collisions: i32) -> String {
    let mut bytes = canonical(data);
    bytes.push_str(&collisions.to_string());
    safe_encode(&fnv1(bytes.as_bytes()).to_string())
}

/// FNV-1, 32 bits.
fn fnv1(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}

/// Replaces each character so that no vowels, and hence no words, appear.
#[must_use]
pub fn safe_encode(text: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()])).collect()
}

/// JSON with sorted keys and no spaces, escaped as Go's encoder does: the bytes that upstream hashes.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push('{');
            for (n, (key, field)) in sorted.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(field, out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Oldest first: by number, then age, then name.
#[must_use]
pub fn order(a: &ControllerRevision, b: &ControllerRevision) -> Ordering {
    let age = |r: &ControllerRevision| r.metadata.creation_timestamp.as_ref().map(|time| time.0);
    number(a).cmp(&number(b)).then_with(|| age(a).cmp(&age(b))).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

#[must_use]
pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

/// Whether two revisions' data mean the same: `null`s do not count, which older API servers wrote out
/// (`creationTimestamp: null`) and newer ones do not. So an upgrade never rolls a set.
#[must_use]
pub fn same_data(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covers = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
                a.iter().all(|(key, value)| same_data(value, b.get(key).unwrap_or(&Value::Null)))
            };
            covers(a, b) && b.iter().all(|(key, value)| a.contains_key(key) || value.is_null())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_data(a, b)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hashes_are_those_of_a_real_kubernetes() {
        // The data and names of three revisions that a real API server (1.24) stored.
        let template = |image: &str| {
            json!({"spec": {"template": {
                "$patch": "replace",
                "metadata": {"creationTimestamp": null, "labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "image": image, "imagePullPolicy": "IfNotPresent", "name": "nginx",
                        "ports": [{"containerPort": 80, "name": "web", "protocol": "TCP"}],
                        "readinessProbe": {
                            "failureThreshold": 3, "periodSeconds": 1, "successThreshold": 1,
                            "tcpSocket": {"port": 80}, "timeoutSeconds": 1,
                        },
                        "resources": {}, "terminationMessagePath": "/dev/termination-log",
                        "terminationMessagePolicy": "File",
                        "volumeMounts": [{"mountPath": "/usr/share/nginx/html", "name": "www"}],
                    }],
                    "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                    "securityContext": {}, "terminationGracePeriodSeconds": 10,
                },
            }}})
        };
        assert_eq!(hash(&template("nginx:1.21"), 0), "66fcd8c4d9");
        assert_eq!(hash(&template("nginx:1.22"), 0), "bf8779f4b");
        assert_ne!(hash(&template("nginx:1.22"), 1), "bf8779f4b", "a collision gives another name");
    }

    #[test]
    fn hashes_are_those_of_a_newer_kubernetes_too() {
        // Data and name from upstream's own tests of compatibility (1.34, which writes no null times any more).
        let data = json!({"spec": {"template": {
            "$patch": "replace", "metadata": {"annotations": {"test": "value"}, "labels": {"app": "foo"}},
            "spec": {
                "containers": [{
                    "image": "test", "imagePullPolicy": "Always", "name": "test", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
        }}});
        assert_eq!(hash(&data, 0), "776999688b");
    }

    #[test]
    fn bytes_are_those_of_gos_encoder() {
        let value = json!({"b": [1, -2, true, null], "a": "x<y> & \"z\"\n\u{1}\u{2028}é"});
        assert_eq!(canonical(&value), r#"{"a":"x\u003cy\u003e \u0026 \"z\"\n\u0001\u2028é","b":[1,-2,true,null]}"#);
    }

    #[test]
    fn nulls_of_older_servers_make_no_difference() {
        let old = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b"}}});
        let new = json!({"metadata": {"labels": {"a": "b"}}});
        assert!(same_data(&old, &new) && same_data(&new, &old));
        assert!(!same_data(&old, &json!({"metadata": {"labels": {"a": "c"}}})));
        assert!(!same_data(&new, &json!({"metadata": {"labels": {"a": "b", "c": "d"}}})));
    }

    #[test]
    fn a_long_name_is_cut_so_that_the_hash_fits() {
        assert_eq!(name("web", "5999d5b47d"), "web-5999d5b47d");
        assert_eq!(name(&"x".repeat(250), "5999d5b47d").len(), 223 + 11);
    }
}
