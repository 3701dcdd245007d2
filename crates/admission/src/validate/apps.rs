//! Deployment, ReplicaSet, DaemonSet, ReplicationController, ControllerRevision.

use serde_json::{Value, json};
use stead_machinery::Path;

use super::meta::immutable;
use super::pod::{self, Rules};
use super::{
    IntOrPercent, Judge, at_most_all, int_or_percent, non_negative, one_of, positive_int_or_percent, selector,
};
use crate::view::View;

/// Selector, its agreement with the template, and the template itself, which must restart always.
fn selected(spec: &Value, old: Option<&Value>, what: &str, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let at = path.child("selector");
    if spec.has("selector") {
        selector::selector(spec.at("selector"), &at, judge);
        if selector::is_empty(spec.at("selector")) {
            let why = format!("empty selector is invalid for {what}");
            judge.errors.invalid(&at, spec.at("selector"), &why);
        }
    } else {
        judge.errors.required(&at, "");
    }
    let labels = spec.at("template.metadata.labels");
    let template = path.child("template");
    if !selector::is_empty(spec.at("selector")) && !selector::matches(spec.at("selector"), labels) {
        let why = "`selector` does not match template `labels`";
        judge.errors.invalid(&template.child("metadata").child("labels"), labels, why);
    }
    pod::template(spec.at("template"), Rules::default(), &template, judge);
    let policy = spec.text("template.spec.restartPolicy");
    let at = template.child("spec");
    if ["OnFailure", "Never"].contains(&policy) {
        one_of(policy, &["Always"], &at.child("restartPolicy"), judge);
    }
    if spec.has("template.spec.activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {} is not Supported", kind_name(what));
        judge.errors.forbidden(&at.child("activeDeadlineSeconds"), &why);
    }
    if let Some(old) = old {
        immutable(spec.at("selector"), old.at("spec.selector"), &path.child("selector"), judge.errors);
    }
}

fn kind_name(what: &str) -> &'static str {
    match what {
        "deployment" => "Deployment",
        "daemonset" => "DaemonSet",
        _ => "ReplicaSet",
    }
}

pub(super) fn deployment(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    non_negative(spec.at("replicas"), &path.child("replicas"), judge);
    selected(spec, old, "deployment", judge);
    let (strategy, at) = (spec.at("strategy"), path.child("strategy"));
    match strategy.text("type") {
        "Recreate" if strategy.has("rollingUpdate") => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            judge.errors.forbidden(&at.child("rollingUpdate"), why);
        }
        "Recreate" => {}
        "RollingUpdate" => rolling(strategy.at("rollingUpdate"), &at.child("rollingUpdate"), judge),
        other => judge.errors.not_supported(&at, &json!({"type": other}), &["Recreate", "RollingUpdate"]),
    }
    non_negative(spec.at("minReadySeconds"), &path.child("minReadySeconds"), judge);
    non_negative(spec.at("revisionHistoryLimit"), &path.child("revisionHistoryLimit"), judge);
    if let Some(deadline) = spec.int("progressDeadlineSeconds") {
        non_negative(spec.at("progressDeadlineSeconds"), &path.child("progressDeadlineSeconds"), judge);
        if deadline <= spec.int("minReadySeconds").unwrap_or(0) {
            let why = "must be greater than minReadySeconds";
            judge.errors.invalid(&path.child("progressDeadlineSeconds"), &deadline, why);
        }
    }
}

fn zero(value: &Value) -> bool {
    matches!(int_or_percent(value), IntOrPercent::Int(0) | IntOrPercent::Percent(0))
}

fn rolling(rolling: &Value, path: &Path, judge: &mut Judge<'_>) {
    let (most, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
    positive_int_or_percent(most, &path.child("maxUnavailable"), judge);
    positive_int_or_percent(surge, &path.child("maxSurge"), judge);
    if zero(most) && zero(surge) {
        judge.errors.invalid(&path.child("maxUnavailable"), most, "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(most, &path.child("maxUnavailable"), judge);
}

pub(super) fn replica_set(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    non_negative(spec.at("replicas"), &path.child("replicas"), judge);
    non_negative(spec.at("minReadySeconds"), &path.child("minReadySeconds"), judge);
    selected(spec, old, "replicaset", judge);
}

pub(super) fn daemon_set(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    selected(spec, old, "daemonset", judge);
    non_negative(spec.at("minReadySeconds"), &path.child("minReadySeconds"), judge);
    let (strategy, at) = (spec.at("updateStrategy"), path.child("updateStrategy"));
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (rolling, at) = (strategy.at("rollingUpdate"), at.child("rollingUpdate"));
            let (most, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            positive_int_or_percent(most, &at.child("maxUnavailable"), judge);
            positive_int_or_percent(surge, &at.child("maxSurge"), judge);
            if zero(most) && zero(surge) {
                judge.errors.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
            }
            if !zero(most) && !zero(surge) {
                judge.errors.invalid(&at.child("maxSurge"), surge, "may not be set when maxUnavailable is non-zero");
            }
            at_most_all(most, &at.child("maxUnavailable"), judge);
            at_most_all(surge, &at.child("maxSurge"), judge);
        }
        other => judge.errors.not_supported(&at.child("type"), &other, &["OnDelete", "RollingUpdate"]),
    }
    non_negative(spec.at("revisionHistoryLimit"), &path.child("revisionHistoryLimit"), judge);
}

pub(super) fn replication_controller(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    non_negative(spec.at("replicas"), &path.child("replicas"), judge);
    if spec.entries("selector").is_empty() {
        judge.errors.required(&path.child("selector"), "");
    }
    let labels = spec.at("template.metadata.labels");
    if spec.entries("selector").iter().any(|(key, value)| labels.get(key) != Some(value)) {
        let why = "`selector` does not match template `labels`";
        judge.errors.invalid(&path.child("template").child("metadata").child("labels"), labels, why);
    }
    pod::template(spec.at("template"), Rules::default(), &path.child("template"), judge);
}

pub(super) fn revision(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    if !object.has("data") {
        judge.errors.required(&Path::new("data"), "data is mandatory");
    }
    non_negative(object.at("revision"), &Path::new("revision"), judge);
    if let Some(old) = old {
        immutable(object.at("data"), old.at("data"), &Path::new("data"), judge.errors);
    }
}

/// Counts are not negative.
pub(super) fn status(new: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("status");
    for (field, value) in new.entries("status") {
        if value.is_i64() {
            non_negative(value, &path.child(field), judge);
        }
    }
}
