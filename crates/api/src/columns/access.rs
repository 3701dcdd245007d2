//! The tables of access control, admission, certificates and flow control.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, count, int, items, name, selector, text, text_or};

/// A role binding or a cluster role binding.
pub(crate) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let of_kind = items(&object["subjects"]).iter().filter(|s| s["kind"] == kind);
        let shown = of_kind.map(|s| match (kind, text(&s["namespace"])) {
            ("ServiceAccount", "") => text(&s["name"]).to_owned(),
            ("ServiceAccount", namespace) => format!("{namespace}/{}", text(&s["name"])),
            _ => text(&s["name"]).to_owned(),
        });
        Value::from(shown.collect::<Vec<_>>().join(", "))
    };
    vec![
        name(object),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(crate) fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let duration = spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), age::human_duration);
    vec![
        name(object),
        age(object, now),
        text_or(&spec["signerName"], "<none>").into(),
        text(&spec["username"]).into(),
        duration.into(),
        signing_status(&object["status"]).into(),
    ]
}

fn signing_status(status: &Value) -> String {
    let has = |kind: &str| items(&status["conditions"]).iter().any(|c| c["type"] == kind);
    let mut shown = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        shown.push_str(",Failed");
    }
    if !text(&status["certificate"]).is_empty() {
        shown.push_str(",Issued");
    }
    shown
}

pub(crate) fn trust_bundle(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), text_or(&object["spec"]["signerName"], "<none>").into()]
}

pub(crate) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), count(&object["webhooks"]), age(object, now)]
}

fn policy(object: &Value, now: Timestamp, rules: &str) -> Vec<Value> {
    let spec = &object["spec"];
    let kind = &spec["paramKind"];
    let kind = if kind.is_null() {
        "<unset>".to_owned()
    } else {
        format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"]))
    };
    vec![name(object), count(&spec[rules]), kind.into(), age(object, now)]
}

pub(crate) fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, now, "validations")
}

pub(crate) fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, now, "mutations")
}

/// A binding of a validating or mutating policy.
pub(crate) fn policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let reference = &spec["paramRef"];
    let shown = match (text(&reference["name"]), text(&reference["namespace"])) {
        ("", _) if reference["selector"].is_null() => "<unset>".to_owned(),
        ("", _) => selector(&reference["selector"]).unwrap_or_default(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    };
    vec![name(object), text(&spec["policyName"]).into(), shown.into(), age(object, now)]
}

pub(crate) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = items(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Dangling");
    vec![
        name(object),
        text(&spec["priorityLevelConfiguration"]["name"]).into(),
        int(&spec["matchingPrecedence"]).into(),
        spec["distinguisherMethod"]["type"].as_str().unwrap_or("<none>").into(),
        age(object, now),
        dangling.map_or("?", |c| text(&c["status"])).into(),
    ]
}

pub(crate) fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let limited = &spec["limited"];
    let queuing = &limited["limitResponse"]["queuing"];
    let number = |value: &Value| value.as_i64().map_or_else(|| Value::from("<none>"), Value::from);
    vec![
        name(object),
        text(&spec["type"]).into(),
        number(&limited["nominalConcurrencyShares"]),
        number(&queuing["queues"]),
        number(&queuing["handSize"]),
        number(&queuing["queueLengthLimit"]),
        age(object, now),
    ]
}

/// An aggregated API: where it is served, and whether it can be reached.
pub(crate) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let shown = if service.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", text(&service["namespace"]), text(&service["name"]))
    };
    let condition = items(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Available");
    let available = condition.map_or_else(
        || "Unknown".to_owned(),
        |c| match (text(&c["status"]), text(&c["reason"])) {
            ("True", _) => "True".to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![name(object), shown.into(), available.into(), age(object, now)]
}
