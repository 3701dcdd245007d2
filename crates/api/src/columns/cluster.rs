//! The tables of nodes, namespaces, events, configuration and quota.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{age, count, flag, int, is_deleted, items, name, shown, text, text_or};

pub(crate) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let (status, info) = (&object["status"], &object["status"]["nodeInfo"]);
    let roles = node_roles(object);
    let address = |kind: &str| {
        let found = items(&status["addresses"]).iter().find(|a| a["type"] == kind);
        Value::from(found.map_or("<none>", |a| text(&a["address"])))
    };
    vec![
        name(object),
        node_status(object).into(),
        if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",").into() },
        age(object, now),
        text(&info["kubeletVersion"]).into(),
        address("InternalIP"),
        address("ExternalIP"),
        text_or(&info["osImage"], "<unknown>").into(),
        text_or(&info["kernelVersion"], "<unknown>").into(),
        text_or(&info["containerRuntimeVersion"], "<unknown>").into(),
    ]
}

fn node_status(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"]).iter().rfind(|c| c["type"] == "Ready");
    let ready = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if flag(&object["spec"]["unschedulable"]) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

/// From the labels `node-role.kubernetes.io/ROLE` and `kubernetes.io/role=ROLE`.
fn node_roles(object: &Value) -> BTreeSet<&str> {
    let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
    labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => Some(text(value)),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect()
}

pub(crate) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["status"]["phase"]).into(), age(object, now)]
}

/// An event of either group; that of `events.k8s.io` has other names for the same.
pub(crate) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let object = &super::storage_form(object);
    let about = &object["involvedObject"];
    let kind = text(&about["kind"]).to_lowercase();
    let target = match text(&about["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let (first, last, seen) = event_times(object, now);
    vec![
        last.into(),
        text(&object["type"]).into(),
        text(&object["reason"]).into(),
        target.into(),
        text(&about["fieldPath"]).into(),
        event_source(object).into(),
        text(&object["message"]).trim().into(),
        first.into(),
        seen.into(),
        name(object),
    ]
}

/// First seen, last seen, how often.
fn event_times(event: &Value, now: Timestamp) -> (String, String, i64) {
    let since = |value: &Value| age::since(value, now);
    let or = |value: &Value, other: String| if value.is_null() { other } else { since(value) };
    let first = or(&event["firstTimestamp"], since(&event["eventTime"]));
    let series = &event["series"];
    if series.is_null() {
        let last = or(&event["lastTimestamp"], first.clone());
        return (first, last, int(&event["count"]).max(1));
    }
    (first, since(&series["lastObservedTime"]), int(&series["count"]))
}

fn event_source(event: &Value) -> String {
    let source = &event["source"];
    let component = text_or(&source["component"], text(&event["reportingComponent"]));
    match text_or(&source["host"], text(&event["reportingInstance"])) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = int(&count(&object["data"])) + int(&count(&object["binaryData"]));
    vec![name(object), entries.into(), age(object, now)]
}

pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["type"]).into(), count(&object["data"]), age(object, now)]
}

pub(crate) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(&object["secrets"]), age(object, now)]
}

pub(crate) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut resources: Vec<&String> = status["hard"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    resources.sort_unstable();
    let line = |resource: &&String| {
        let used = shown(&status["used"][resource.as_str()]);
        let used = if used.is_empty() { "0" } else { used.as_str() };
        format!("{resource}: {used}/{}", shown(&status["hard"][resource.as_str()]))
    };
    let (limits, requests): (Vec<&String>, Vec<&String>) =
        resources.into_iter().partition(|r| r.starts_with("limits."));
    let join = |list: &[&String]| Value::from(list.iter().map(line).collect::<Vec<_>>().join(", "));
    vec![name(object), join(&requests), join(&limits), age(object, now)]
}

pub(crate) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["spec"]["holderIdentity"]).into(), age(object, now)]
}

pub(crate) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["handler"]).into(), age(object, now)]
}

pub(crate) fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut states = Vec::new();
    if is_deleted(object) {
        states.push("deleted");
    }
    if status["allocation"].is_null() {
        if !is_deleted(object) {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !items(&status["reservedFor"]).is_empty() {
            states.push("reserved");
        }
    }
    vec![name(object), states.join(",").into(), age(object, now)]
}

pub(crate) fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        text(&spec["nodeName"]).into(),
        text(&spec["driver"]).into(),
        text(&spec["pool"]["name"]).into(),
        age(object, now),
    ]
}

pub(crate) fn migration(object: &Value, _now: Timestamp) -> Vec<Value> {
    let resource = &object["spec"]["resource"];
    let parts = ["resource", "version", "group"].map(|part| text(&resource[part]));
    let shown: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    vec![name(object), shown.join(".").into()]
}
