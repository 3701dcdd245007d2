//! Defaults of Job, CronJob and HorizontalPodAutoscaler.

use serde_json::{Value, json};

use super::{made, pod, with};
use crate::view::{Fill, View};

/// Average CPU, in percent of the request, that an autoscaler without metrics aims at.
const CPU_PERCENT: i64 = 80;

pub(super) fn job(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    if !spec.has("completions") && !spec.has("parallelism") {
        spec.put("completions", 1);
        spec.put("parallelism", 1);
    }
    spec.fill_null("parallelism", 1);
    spec.fill_null("backoffLimit", if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 });
    spec.fill_null("completionMode", "NonIndexed");
    spec.fill_null("suspend", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    spec.fill_null("podReplacementPolicy", replacement);
    spec.fill_null("manualSelector", false);
    for rule in spec.items_mut("podFailurePolicy.rules") {
        for pattern in rule.items_mut("onPodConditions") {
            pattern.fill("status", "True");
        }
    }
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
}

pub(super) fn cron_job(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill("concurrencyPolicy", "Allow");
    spec.fill_null("suspend", false);
    spec.fill_null("successfulJobsHistoryLimit", 3);
    spec.fill_null("failedJobsHistoryLimit", 1);
    if let Some(template) = made(spec, "jobTemplate") {
        template.fill_null("metadata", json!({}));
        with(template, "metadata", |metadata| metadata.drop_key("creationTimestamp"));
        if let Some(template) = made(template, "spec").and_then(|spec| made(spec, "template")) {
            pod::template(template);
        }
    }
}

pub(super) fn autoscaler(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill_null("minReplicas", 1);
    if spec.items("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_PERCENT});
        spec.put("metrics", json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    with(spec, "behavior", |behavior| {
        let up = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        scaling_rules(behavior, "scaleUp", &up, Some(0));
        scaling_rules(behavior, "scaleDown", &json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]), None);
    });
}

fn scaling_rules(behavior: &mut Value, direction: &str, policies: &Value, window: Option<i64>) {
    let Some(rules) = made(behavior, direction) else { return };
    rules.fill_null("selectPolicy", "Max");
    if let Some(seconds) = window {
        rules.fill_null("stabilizationWindowSeconds", seconds);
    }
    rules.fill_null("policies", policies.clone());
}
