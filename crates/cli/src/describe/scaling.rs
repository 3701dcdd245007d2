//! The page of a HorizontalPodAutoscaler.

use serde_json::Value;

use super::Page;
use crate::print::{at, int, list};

/// An autoscaler of version 2.
pub(super) fn autoscaler(page: &mut Page, autoscaler: &Value) {
    let (spec, status) = (&autoscaler["spec"], &autoscaler["status"]);
    page.field(0, "Name", at(autoscaler, "/metadata/name"));
    page.field(0, "Namespace", at(autoscaler, "/metadata/namespace"));
    page.labels("Labels", &autoscaler["metadata"]["labels"]);
    page.annotations("Annotations", &autoscaler["metadata"]["annotations"]);
    page.field(0, "CreationTimestamp", &super::time(&autoscaler["metadata"]["creationTimestamp"]));
    let kind = at(spec, "/scaleTargetRef/kind");
    page.field(0, "Reference", &format!("{kind}/{}", at(spec, "/scaleTargetRef/name")));
    page.field(0, "Metrics", "( current / target )");
    let current = list(status, "/currentMetrics");
    for (number, metric) in list(spec, "/metrics").iter().enumerate() {
        self::metric(page, metric, current.get(number).unwrap_or(&Value::Null));
    }
    let least = spec["minReplicas"].as_i64().map_or("<unset>".to_owned(), |number| number.to_string());
    page.field(0, "Min replicas", &least);
    page.field(0, "Max replicas", &int(spec, "/maxReplicas").to_string());
    if let Some(behavior) = spec.get("behavior") {
        page.line(0, "Behavior:");
        direction(page, "Scale Up", behavior.get("scaleUp"));
        direction(page, "Scale Down", behavior.get("scaleDown"));
    }
    let replicas = format!("{} current / {} desired", int(status, "/currentReplicas"), int(status, "/desiredReplicas"));
    page.field(0, &format!("{kind} pods"), &replicas);
    let conditions = list(status, "/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tReason\tMessage");
    page.line(1, "----\t------\t------\t-------");
    for condition in conditions {
        let text = |field: &str| at(condition, field);
        page.line(1, &format!("{}\t{}\t{}\t{}", text("/type"), text("/status"), text("/reason"), text("/message")));
    }
}

fn metric(page: &mut Page, metric: &Value, current: &Value) {
    let kind = at(metric, "/type");
    let field = match kind {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        other => return page.line(1, &format!("<unknown metric type {other:?}>")),
    };
    let (source, now) = (&metric[field], &current[field]["current"]);
    let (name, target) = (at(source, "/metric/name"), &source["target"]);
    let known = |field: &str| match now[field].as_str() {
        Some(value) => value.to_owned(),
        None => "<unknown>".to_owned(),
    };
    let average = at(target, "/averageValue");
    let amounts = |field: &str| format!("{} / {}", known(field), at(target, &format!("/{field}")));
    match field {
        "external" if average.is_empty() => page.field(1, &format!("{name:?} (target value)"), &amounts("value")),
        "external" => page.field(1, &format!("{name:?} (target average value)"), &amounts("averageValue")),
        "pods" => page.field(1, &format!("{name:?} on pods"), &amounts("averageValue")),
        "object" => {
            let on = format!("{}/{}", at(source, "/describedObject/kind"), at(source, "/describedObject/name"));
            match at(target, "/type") {
                "AverageValue" => {
                    page.field(1, &format!("{name:?} on {on} (target average value)"), &amounts("averageValue"));
                }
                _ => page.field(1, &format!("{name:?} on {on} (target value)"), &amounts("value")),
            }
        }
        _ => {
            let of = match at(source, "/container") {
                "" => String::new(),
                container => format!(" of container {container:?}"),
            };
            let named = format!("resource {}{of} on pods", at(source, "/name"));
            if !average.is_empty() {
                return page.field(1, &named, &amounts("averageValue"));
            }
            let used = match now["averageUtilization"].as_i64() {
                Some(percent) => format!("{percent}% ({})", at(now, "/averageValue")),
                None => "<unknown>".to_owned(),
            };
            let wanted = target["averageUtilization"].as_i64().map_or("<auto>".to_owned(), |n| format!("{n}%"));
            page.field(1, &format!("{named}  (as a percentage of request)"), &format!("{used} / {wanted}"));
        }
    }
}

fn direction(page: &mut Page, title: &str, rules: Option<&Value>) {
    let Some(rules) = rules else { return };
    page.line(1, &format!("{title}:"));
    if let Some(seconds) = rules["stabilizationWindowSeconds"].as_i64() {
        page.line(2, &format!("Stabilization Window: {seconds} seconds"));
    }
    let policies = list(rules, "/policies");
    if policies.is_empty() {
        return;
    }
    let select = at(rules, "/selectPolicy");
    page.line(2, &format!("Select Policy: {}", if select.is_empty() { "Max" } else { select }));
    page.line(2, "Policies:");
    for policy in policies {
        let (value, period) = (int(policy, "/value"), int(policy, "/periodSeconds"));
        page.line(3, &format!("- Type: {}\tValue: {value}\tPeriod: {period} seconds", at(policy, "/type")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_are_shown_with_what_is_known_of_them() {
        for (metric, current, wanted) in [
            (
                json!({"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}),
                json!({"resource": {"current": {"averageUtilization": 7, "averageValue": "70m"}}}),
                "  resource cpu on pods  (as a percentage of request):\t7% (70m) / 80%\n",
            ),
            (
                json!({"type": "Resource", "resource": {"name": "memory", "target": {"averageValue": "1Gi"}}}),
                Value::Null,
                "  resource memory on pods:\t<unknown> / 1Gi\n",
            ),
            (
                json!({"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"averageValue": "3"}}}),
                Value::Null,
                "  \"x\" on pods:\t<unknown> / 3\n",
            ),
        ] {
            let mut page = Page::default();
            self::metric(&mut page, &metric, &current);
            assert_eq!(page.text, wanted);
        }
    }
}
