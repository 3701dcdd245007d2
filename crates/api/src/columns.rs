//! The server-side tables: columns and cells per kind, as upstream prints them.
//!
//! A cell function is pure: the object in its stored form and the time give the cells, one per column. Fields that an object
//! lacks print as upstream prints their zero value. Source: `pkg/printers/internalversion`.

pub(crate) mod access;
pub(crate) mod cluster;
pub(crate) mod headings;
pub(crate) mod network;
pub(crate) mod pods;
pub(crate) mod storage;
pub(crate) mod usage;
pub(crate) mod workloads;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kinds::by_api_version;
use crate::{Column, age, convert};

pub use pods::row_conditions;

const fn column(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", priority: 0, description }
}

/// A column that is shown with `-o wide` only.
const fn wide(name: &'static str, kind: &'static str, description: &'static str) -> Column {
    Column { name, kind, format: "", priority: 1, description }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
};

const WIDE_NAME: Column = Column { priority: 1, ..NAME };

const AGE: Column = column(
    "Age",
    "string",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

const CONTAINERS: Column = wide("Containers", "string", "Names of each container in the template.");
const IMAGES: Column = wide("Images", "string", "Images referenced by each container in the template.");

/// The columns of a kind that upstream does not print specially.
pub const DEFAULT: &[Column] = &[NAME, Column { name: "Created At", kind: "date", ..AGE }];

/// The cells of a kind that upstream does not print specially.
#[must_use]
pub fn default_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    let created = &object["metadata"]["creationTimestamp"];
    vec![name(object), json!(created.as_str().unwrap_or("<unknown>"))]
}

/// Name and age, for kinds that show nothing else.
pub(crate) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

fn name(object: &Value) -> Value {
    text(&object["metadata"]["name"]).into()
}

fn age(object: &Value, now: Timestamp) -> Value {
    age::since(&object["metadata"]["creationTimestamp"], now).into()
}

/// A string field; empty when it is absent.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A string field, or what stands for its absence.
fn text_or<'v>(value: &'v Value, absent: &'v str) -> &'v str {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(absent)
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A quantity or an int-or-string as it is written.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Number of entries of a map or list.
fn count(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.len(),
        Value::Array(list) => list.len(),
        _ => 0,
    }
    .into()
}

/// The first three, and how many more there are.
fn first_three(list: &[String], empty: &str) -> String {
    const SHOWN: usize = 3;
    match list.len() {
        0 => empty.to_owned(),
        len if len > SHOWN => format!("{} + {} more...", list[..SHOWN].join(","), len - SHOWN),
        _ => list.join(","),
    }
}

/// Labels as `a=b,c=d`, in order; `<none>` when there are none.
fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort_unstable();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A `LabelSelector` as text, in the order of its keys; none when it says an operator that does not exist.
fn selector(selector: &Value) -> Option<String> {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        terms.push((key.clone(), format!("{key}={}", text(value))));
    }
    for expression in items(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let mut values: Vec<&str> = items(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match text(&expression["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        terms.push((key.to_owned(), term));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    Some(terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(","))
}

/// A `LabelSelector` as most kinds show it.
fn selector_or_none(value: &Value) -> String {
    match selector(value) {
        None => "<error>".to_owned(),
        Some(text) if text.is_empty() => "<none>".to_owned(),
        Some(text) => text,
    }
}

/// Names and images of a pod template's containers.
fn container_cells(pod_spec: &Value) -> [Value; 2] {
    let all = |field: &str| {
        let list: Vec<&str> = items(&pod_spec["containers"]).iter().map(|c| text(&c[field])).collect();
        Value::from(list.join(","))
    };
    [all("name"), all("image")]
}

/// An object in the form in which its resource is stored; borrowed when it is so already.
fn storage_form(object: &Value) -> Cow<'_, Value> {
    let kind = by_api_version(text(&object["apiVersion"]), text(&object["kind"]));
    match kind {
        Some(kind) if kind.converted() => Cow::Owned(convert::to_storage(kind, object.clone())),
        _ => Cow::Borrowed(object),
    }
}

/// Whether a condition of this type is `True`.
fn condition_is_true(conditions: &Value, kind: &str) -> bool {
    items(conditions).iter().find(|c| c["type"] == kind).is_some_and(|c| c["status"] == "True")
}

fn is_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

#[cfg(test)]
mod tests;
