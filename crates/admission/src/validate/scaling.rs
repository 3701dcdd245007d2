//! PodDisruptionBudget and HorizontalPodAutoscaler.

use serde_json::Value;
use stead_machinery::Path;

use super::{Judge, Raw, at_most_all, one_of, positive_int_or_percent, selector};
use crate::view::View;

pub(super) fn budget(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        // Upstream shows its internal type, whose fields have their Go names.
        let shown = format!(
            "{{\"MinAvailable\":{},\"Selector\":{},\"MaxUnavailable\":{},\"UnhealthyPodEvictionPolicy\":{}}}",
            spec.at("minAvailable"),
            spec.at("selector"),
            spec.at("maxUnavailable"),
            spec.at("unhealthyPodEvictionPolicy")
        );
        judge.errors.invalid(&path, &Raw(shown), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        positive_int_or_percent(spec.at(field), &path.child(field), judge);
        at_most_all(spec.at(field), &path.child(field), judge);
    }
    if spec.has("unhealthyPodEvictionPolicy") {
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(spec.text("unhealthyPodEvictionPolicy"), &policies, &path.child("unhealthyPodEvictionPolicy"), judge);
    }
    selector::selector(spec.at("selector"), &path.child("selector"), judge);
}

pub(super) fn autoscaler(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    let (low, high) = (spec.int("minReplicas").unwrap_or(1), spec.int("maxReplicas").unwrap_or(0));
    if low < 1 {
        judge.errors.invalid(&path.child("minReplicas"), &low, "must be greater than or equal to 1");
    }
    if high < 1 {
        judge.errors.invalid(&path.child("maxReplicas"), &high, "must be greater than 0");
    }
    if high < low {
        judge.errors.invalid(&path.child("maxReplicas"), &high, "must be greater than or equal to `minReplicas`");
    }
    for field in ["kind", "name"] {
        if spec.at("scaleTargetRef").text(field).is_empty() {
            judge.errors.required(&path.child("scaleTargetRef").child(field), "");
        }
    }
    for (i, metric) in spec.items("metrics").iter().enumerate() {
        let at = path.child("metrics").index(i);
        let kinds = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        let kind = metric.text("type");
        if kind.is_empty() {
            judge.errors.required(&at.child("type"), "must specify a metric source type");
        } else if !kinds.contains(&kind) {
            judge.errors.not_supported(&at.child("type"), &kind, &kinds);
        }
        if kind == "Resource" && metric.text("resource.name").is_empty() {
            judge.errors.required(&at.child("resource").child("name"), "must specify a resource name");
        }
    }
}
