//! HorizontalPodAutoscaler.
//!
//! Source: `pkg/apis/autoscaling/validation`.

use serde_json::Value;
use stead_machinery::Path;

use super::{Judge, one_of};
use crate::view::View;

/// Longest stabilization window, seconds.
const WINDOW_MAX: i64 = 3600;
/// Longest period of a policy, seconds.
const PERIOD_MAX: i64 = 1800;
/// The types of metrics, each with the field that tells of it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

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
    reference(spec.at("scaleTargetRef"), &path.child("scaleTargetRef"), judge);
    for (i, one) in spec.items("metrics").iter().enumerate() {
        metric(one, &path.child("metrics").index(i), judge);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.at("behavior").at(direction);
        if !rules.is_null() {
            scaling_rules(rules, &path.child("behavior").child(direction), judge);
        }
    }
}

fn reference(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    for field in ["kind", "name"] {
        if value.text(field).is_empty() {
            judge.errors.required(&path.child(field), "");
        }
    }
}

fn metric(metric: &Value, at: &Path, judge: &mut Judge<'_>) {
    let kind = metric.text("type");
    let kinds = SOURCES.map(|(kind, _)| kind);
    if kind.is_empty() {
        judge.errors.required(&at.child("type"), "must specify a metric source type");
    } else if !kinds.contains(&kind) {
        judge.errors.not_supported(&at.child("type"), &kind, &kinds);
    }
    let present: Vec<&str> = SOURCES.map(|(_, field)| field).into_iter().filter(|field| metric.has(field)).collect();
    if let Some(first) = present.first() {
        source(first, metric.at(first), &at.child(first), judge);
    }
    let Some((_, wanted)) = SOURCES.iter().find(|(one, _)| *one == kind) else { return };
    if !present.contains(wanted) {
        judge.errors.required(&at.child(wanted), "must populate information for the given metric source");
    }
    for other in present.iter().filter(|field| *field != wanted) {
        judge.errors.forbidden(&at.child(other), "must populate the given metric source only");
    }
}

fn source(kind: &str, source: &Value, at: &Path, judge: &mut Judge<'_>) {
    let (target_at, of) = (at.child("target"), source.at("target"));
    match kind {
        "resource" | "containerResource" => {
            if source.text("name").is_empty() {
                judge.errors.required(&at.child("name"), "must specify a resource name");
            }
            if kind == "containerResource" && source.text("container").is_empty() {
                judge.errors.required(&at.child("container"), "must specify a container");
            }
        }
        _ => {
            if kind == "object" {
                reference(source.at("describedObject"), &at.child("describedObject"), judge);
            }
            if source.text("metric.name").is_empty() {
                judge.errors.required(&at.child("metric").child("name"), "must specify a metric name");
            }
        }
    }
    target(of, &target_at, judge);
    let (value, average) = (of.has("value"), of.has("averageValue"));
    match kind {
        "resource" | "containerResource" => {
            if !average && !of.has("averageUtilization") {
                let why = "must set either a target raw value or a target utilization";
                judge.errors.required(&target_at.child("averageUtilization"), why);
            }
            if average && of.has("averageUtilization") {
                let why = "may not set both a target raw value and a target utilization";
                judge.errors.forbidden(&target_at.child("averageValue"), why);
            }
        }
        "pods" if !average => {
            judge.errors.required(&target_at.child("averageValue"), "must specify a positive target averageValue");
        }
        "object" if !average && !value => {
            judge.errors.required(&target_at.child("averageValue"), "must set either a target value or averageValue");
        }
        "external" if average && value => {
            let why = "may not set both a target value for metric and a per-pod target";
            judge.errors.forbidden(&target_at.child("value"), why);
        }
        "external" if !average && !value => {
            let why = "must set either a target value for metric or a per-pod target";
            judge.errors.required(&target_at.child("averageValue"), why);
        }
        _ => {}
    }
}

fn target(target: &Value, at: &Path, judge: &mut Judge<'_>) {
    let kind = target.text("type");
    if kind.is_empty() {
        judge.errors.required(&at.child("type"), "must specify a metric target type");
    } else if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        judge.errors.invalid(&at.child("type"), &kind, why);
    }
    for field in ["value", "averageValue"] {
        if sign(target.at(field)).is_some_and(|sign| sign != 1) {
            judge.errors.invalid(&at.child(field), target.at(field), "must be positive");
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|percent| *percent < 1) {
        judge.errors.invalid(&at.child("averageUtilization"), &percent, "must be greater than 0");
    }
}

/// Of an amount that is there.
fn sign(value: &Value) -> Option<i32> {
    let text = value.as_str().map(str::to_owned).or_else(|| value.as_number().map(ToString::to_string))?;
    text.parse::<stead_machinery::quantity::Quantity>().ok().map(|quantity| quantity.sign())
}

fn scaling_rules(rules: &Value, at: &Path, judge: &mut Judge<'_>) {
    if let Some(seconds) = rules.int("stabilizationWindowSeconds") {
        let at = at.child("stabilizationWindowSeconds");
        if seconds < 0 {
            judge.errors.invalid(&at, &seconds, "must be greater than or equal to zero");
        }
        if seconds > WINDOW_MAX {
            judge.errors.invalid(&at, &seconds, &format!("must be less than or equal to {WINDOW_MAX}"));
        }
    }
    if rules.has("selectPolicy") {
        one_of(rules.text("selectPolicy"), &["Disabled", "Max", "Min"], &at.child("selectPolicy"), judge);
    }
    if sign(rules.at("tolerance")) == Some(-1) {
        judge.errors.invalid(&at.child("tolerance"), rules.at("tolerance"), "must be greater than or equal to 0");
    }
    let policies = rules.items("policies");
    if policies.is_empty() {
        judge.errors.required(&at.child("policies"), "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = at.child("policies").index(i);
        let kind = policy.text("type");
        if !["Percent", "Pods"].contains(&kind) {
            judge.errors.not_supported(&at.child("type"), &kind, &["Percent", "Pods"]);
        }
        for (field, most) in [("value", i64::MAX), ("periodSeconds", PERIOD_MAX)] {
            let number = policy.int(field).unwrap_or(0);
            if number <= 0 {
                judge.errors.invalid(&at.child(field), &number, "must be greater than zero");
            }
            if number > most {
                judge.errors.invalid(&at.child(field), &number, &format!("must be less than or equal to {most}"));
            }
        }
    }
}
