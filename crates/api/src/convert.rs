//! Conversions between the group versions that share one storage: core events and `events.k8s.io`, autoscaling v1 and v2.
//!
//! The forms are JSON objects; a field that the other form does not know is kept where upstream keeps it
//! (annotations `autoscaling.alpha.kubernetes.io/*` for the first autoscaling version), and is lost otherwise.

use serde_json::{Map, Value, json};

use crate::Kind;

type Object = Map<String, Value>;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// The target that upstream gives a first-version autoscaler which names no metric at all.
const DEFAULT_CPU_PERCENT: i64 = 80;

/// An object of `kind` in the form in which it is stored. Anything that is not a JSON object stays as it is.
#[must_use]
pub fn to_storage(kind: &Kind, object: Value) -> Value {
    if kind.converted() { convert(kind, kind.storage_kind(), object) } else { object }
}

/// A stored object in the form of `kind`.
#[must_use]
pub fn from_storage(kind: &Kind, object: Value) -> Value {
    if kind.converted() { convert(kind.storage_kind(), kind, object) } else { object }
}

/// An object of one kind as the same resource of another group version.
#[must_use]
pub fn convert(from: &Kind, to: &Kind, object: Value) -> Value {
    let Value::Object(mut object) = object else { return object };
    match ((from.group, from.version), (to.group, to.version)) {
        (("events.k8s.io", _), ("", _)) => rename(&mut object, &EVENT_NAMES, true),
        (("", _), ("events.k8s.io", _)) => rename(&mut object, &EVENT_NAMES, false),
        (("autoscaling", "v1"), ("autoscaling", "v2")) => autoscaler_to_v2(&mut object),
        (("autoscaling", "v2"), ("autoscaling", "v1")) => autoscaler_to_v1(&mut object),
        _ => {}
    }
    if object.contains_key("apiVersion") {
        object.insert("apiVersion".into(), to.api_version().into());
    }
    Value::Object(object)
}

/// The name of a field selector's field in the stored form: `regarding.name` of an `events.k8s.io` event is `involvedObject.name`.
#[must_use]
pub fn field_to_storage(kind: &Kind, field: &str) -> String {
    if kind.group != "events.k8s.io" {
        return field.to_owned();
    }
    let (head, rest) = field.split_once('.').map_or((field, None), |(h, r)| (h, Some(r)));
    let head = EVENT_NAMES.iter().find(|(_, new)| *new == head).map_or(head, |(core, _)| core);
    rest.map_or_else(|| head.to_owned(), |rest| format!("{head}.{rest}"))
}

/// Names of an event's fields: in the core group, in `events.k8s.io`.
const EVENT_NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(object: &mut Object, names: &[(&str, &str)], to_first: bool) {
    for (first, second) in names {
        let (old, new) = if to_first { (second, first) } else { (first, second) };
        if let Some(value) = object.remove(*old) {
            object.insert((*new).to_owned(), value);
        }
    }
}

fn autoscaler_to_v2(object: &mut Object) {
    let mut metrics = Vec::new();
    let extra = as_list(take_annotation(object, METRICS));
    let current = as_list(take_annotation(object, CURRENT_METRICS));
    let conditions = take_annotation(object, CONDITIONS);
    let behavior = take_annotation(object, BEHAVIOR);
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        metrics.extend(extra.into_iter().map(|metric| metric_to_v2(metric, false)));
        let percent = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null());
        if let Some(percent) = percent {
            metrics.insert(0, cpu_metric(percent));
        } else if metrics.is_empty() {
            metrics.push(cpu_metric(DEFAULT_CPU_PERCENT.into()));
        }
        spec.insert("metrics".into(), metrics.into());
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let mut list: Vec<Value> = current.into_iter().map(|metric| metric_to_v2(metric, true)).collect();
        if let Some(percent) = status.remove("currentCPUUtilizationPercentage").filter(|p| !p.is_null())
            && !list.iter().any(|m| m["resource"]["name"] == "cpu")
        {
            list.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}),
            );
        }
        if !list.is_empty() {
            status.insert("currentMetrics".into(), list.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
}

fn cpu_metric(percent: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn autoscaler_to_v1(object: &mut Object) {
    let mut annotations = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let mut extra = Vec::new();
        for metric in take_list(spec, "metrics") {
            let percent = &metric["resource"]["target"]["averageUtilization"];
            if metric["type"] == "Resource" && metric["resource"]["name"] == "cpu" && !percent.is_null() {
                spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
            } else {
                extra.push(metric_to_v1(metric, false));
            }
        }
        if !extra.is_empty() {
            annotations.push((METRICS, Value::from(extra)));
        }
        annotations.extend(spec.remove("behavior").filter(|b| !b.is_null()).map(|b| (BEHAVIOR, b)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let current = take_list(status, "currentMetrics");
        if let Some(cpu) = current.iter().find(|m| m["resource"]["name"] == "cpu") {
            let percent = &cpu["resource"]["current"]["averageUtilization"];
            if !percent.is_null() {
                status.insert("currentCPUUtilizationPercentage".into(), percent.clone());
            }
        }
        if !current.is_empty() {
            let list: Vec<Value> = current.into_iter().map(|metric| metric_to_v1(metric, true)).collect();
            annotations.push((CURRENT_METRICS, list.into()));
        }
        annotations.extend(status.remove("conditions").filter(|c| !c.is_null()).map(|c| (CONDITIONS, c)));
    }
    if annotations.is_empty() {
        return;
    }
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    for (key, value) in annotations {
        metadata["annotations"][key] = value.to_string().into();
    }
}

/// One metric in the form of the first version's annotation, as the second version has it. `current`: of a status.
fn metric_to_v2(mut metric: Value, current: bool) -> Value {
    let Some((source, old)) = metric_source(&mut metric) else { return metric };
    let prefix = if current { "current" } else { "target" };
    let mut new = Object::new();
    let mut amounts = Object::new();
    for (key, value) in old {
        let bare = key.strip_prefix(prefix).filter(|bare| !bare.is_empty());
        match (key.as_str(), bare) {
            ("name" | "container", _) => _ = new.insert(key, value),
            ("target", _) => _ = new.insert("describedObject".into(), value),
            ("metricName", _) => _ = named_metric(&mut new).insert("name".into(), value),
            ("selector" | "metricSelector", _) => _ = named_metric(&mut new).insert("selector".into(), value),
            ("averageValue", _) => _ = amounts.insert(key, value),
            (_, Some(bare)) => _ = amounts.insert(lower_first(bare), value),
            _ => {}
        }
    }
    if !current {
        amounts.insert("type".into(), target_type(&amounts).into());
    }
    new.insert(prefix.into(), amounts.into());
    metric[source] = new.into();
    metric
}

fn target_type(amounts: &Object) -> &'static str {
    let has = |key: &str| amounts.get(key).is_some_and(|v| !v.is_null());
    match () {
        () if has("averageUtilization") => "Utilization",
        () if has("averageValue") => "AverageValue",
        () => "Value",
    }
}

/// The reverse of [`metric_to_v2`].
fn metric_to_v1(mut metric: Value, current: bool) -> Value {
    let Some((source, old)) = metric_source(&mut metric) else { return metric };
    let prefix = if current { "current" } else { "target" };
    let mut new = Object::new();
    for (key, value) in old {
        match (key.as_str(), value) {
            ("describedObject", value) => _ = new.insert("target".into(), value),
            ("metric", Value::Object(named)) => {
                for (key, value) in named {
                    let selector = if source == "external" { "metricSelector" } else { "selector" };
                    new.insert(if key == "name" { "metricName".into() } else { selector.into() }, value);
                }
            }
            (_, Value::Object(amounts)) if key == prefix => {
                for (key, value) in amounts.into_iter().filter(|(key, _)| key != "type") {
                    let plain = source == "object" && key == "averageValue";
                    new.insert(if plain { key } else { format!("{prefix}{}", upper_first(&key)) }, value);
                }
            }
            (_, value) => _ = new.insert(key, value),
        }
    }
    metric[source] = new.into();
    metric
}

fn metric_source(metric: &mut Value) -> Option<(&'static str, Object)> {
    ["object", "pods", "resource", "containerResource", "external"].into_iter().find_map(|source| {
        match metric.get_mut(source).map(Value::take) {
            Some(Value::Object(old)) => Some((source, old)),
            _ => None,
        }
    })
}

fn named_metric(new: &mut Object) -> &mut Object {
    let metric = new.entry("metric").or_insert_with(|| Value::Object(Object::new()));
    metric.as_object_mut().expect("only ever inserted as an object")
}

fn take_list(object: &mut Object, key: &str) -> Vec<Value> {
    as_list(object.remove(key))
}

fn as_list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The annotation, parsed; one that is not JSON stays where it is.
fn take_annotation(object: &mut Object, key: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let value = serde_json::from_str(annotations.get(key)?.as_str()?).ok()?;
    annotations.remove(key);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    Some(value)
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_lowercase().to_string() + chars.as_str())
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_kind;

    fn there_and_back(group: &str, version: &str, kind: &str, object: &Value, stored: &Value) {
        let kind = by_kind(group, version, kind).expect("a row");
        let there = to_storage(kind, object.clone());
        assert_eq!(&there, stored);
        assert_eq!(&from_storage(kind, there), object);
    }

    #[test]
    fn an_event_of_the_new_group_is_stored_as_a_core_event() {
        there_and_back(
            "events.k8s.io",
            "v1",
            "Event",
            &json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a"}, "note": "n",
                "regarding": {"kind": "Pod"}, "reportingController": "c", "eventTime": null, "reason": "r",
                "deprecatedCount": 2, "deprecatedSource": {"component": "k"}}),
            &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "n",
                "involvedObject": {"kind": "Pod"}, "reportingComponent": "c", "eventTime": null, "reason": "r",
                "count": 2, "source": {"component": "k"}}),
        );
        let kind = by_kind("events.k8s.io", "v1", "Event").expect("a row");
        assert_eq!(field_to_storage(kind, "regarding.name"), "involvedObject.name");
        assert_eq!(field_to_storage(kind, "reportingController"), "reportingComponent");
        assert_eq!(field_to_storage(kind, "metadata.name"), "metadata.name");
    }

    #[test]
    fn a_first_version_autoscaler_keeps_what_it_cannot_say_in_annotations() {
        let memory = r#"[{"resource":{"name":"memory","targetAverageValue":"1Gi"},"type":"Resource"}]"#;
        there_and_back(
            "autoscaling",
            "v1",
            "HorizontalPodAutoscaler",
            &json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "a", "annotations": {METRICS: memory}},
                "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}}),
            &json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
                "spec": {"maxReplicas": 3, "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]}}),
        );
    }

    #[test]
    fn every_kind_of_metric_goes_there_and_back() {
        for metric in [
            json!({"type": "Object", "object": {"describedObject": {"kind": "I", "name": "i"}, "metric": {"name": "m"},
                "target": {"type": "AverageValue", "averageValue": "1"}}}),
            json!({"type": "Pods", "pods": {"metric": {"name": "m", "selector": {}}, "target": {"type": "AverageValue", "averageValue": "1"}}}),
            json!({"type": "External", "external": {"metric": {"name": "m", "selector": {}}, "target": {"type": "Value", "value": "1"}}}),
            json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 5}}}),
        ] {
            assert_eq!(metric_to_v2(metric_to_v1(metric.clone(), false), false), metric);
        }
    }
}
