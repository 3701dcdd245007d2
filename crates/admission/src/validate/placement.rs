//! Where a pod may run: affinity, tolerations, spreading, node selector.

use serde_json::Value;
use stead_machinery::Path;

use super::meta::invalid_all;
use super::{Judge, selector};
use crate::names;
use crate::view::{View, same};

pub(super) fn affinity(affinity: &Value, path: &Path, judge: &mut Judge<'_>) {
    node_affinity(affinity.at("nodeAffinity"), &path.child("nodeAffinity"), judge);
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (here, at) = (affinity.at(kind), path.child(kind));
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in here.items(required).iter().enumerate() {
            pod_term(term, &at.child(required).index(i), judge);
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, weighted) in here.items(preferred).iter().enumerate() {
            let at = at.child(preferred).index(i);
            weight(weighted, &at, judge);
            pod_term(weighted.at("podAffinityTerm"), &at.child("podAffinityTerm"), judge);
        }
    }
}

fn weight(weighted: &Value, path: &Path, judge: &mut Judge<'_>) {
    let weight = weighted.int("weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        judge.errors.invalid(&path.child("weight"), &weight, "must be in the range 1-100");
    }
}

fn node_affinity(affinity: &Value, path: &Path, judge: &mut Judge<'_>) {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if affinity.has(required) {
        node_selector(affinity.at(required), &path.child(required), judge);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, weighted) in affinity.items(preferred).iter().enumerate() {
        let at = path.child(preferred).index(i);
        weight(weighted, &at, judge);
        node_term(weighted.at("preference"), &at.child("preference"), judge);
    }
}

/// Terms of which one must match.
pub(super) fn node_selector(selector: &Value, path: &Path, judge: &mut Judge<'_>) {
    let terms = path.child("nodeSelectorTerms");
    if selector.items("nodeSelectorTerms").is_empty() {
        judge.errors.required(&terms, "must have at least one node selector term");
    }
    for (i, term) in selector.items("nodeSelectorTerms").iter().enumerate() {
        node_term(term, &terms.index(i), judge);
    }
}

fn node_term(term: &Value, path: &Path, judge: &mut Judge<'_>) {
    for (i, expression) in term.items("matchExpressions").iter().enumerate() {
        let at = path.child("matchExpressions").index(i);
        let key = expression.text("key");
        node_requirement(expression, &at, judge);
        invalid_all(&at.child("key"), key, names::qualified_name(key), judge.errors);
    }
    for (i, field) in term.items("matchFields").iter().enumerate() {
        let at = path.child("matchFields").index(i);
        let (operator, values) = (field.text("operator"), field.items("values").len());
        match operator {
            "In" | "NotIn" if values != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                judge.errors.required(&at.child("values"), why);
            }
            "In" | "NotIn" => {}
            other => judge.errors.invalid(&at.child("operator"), &other, "not a valid selector operator"),
        }
        if field.text("key") != "metadata.name" {
            judge.errors.invalid(&at.child("key"), &field.text("key"), "not a valid field selector key");
        }
    }
}

fn node_requirement(expression: &Value, path: &Path, judge: &mut Judge<'_>) {
    let values = expression.items("values").len();
    match expression.text("operator") {
        "In" | "NotIn" if values == 0 => {
            judge.errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if values > 0 => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            judge.errors.forbidden(&path.child("values"), why);
        }
        "Gt" | "Lt" if values != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            judge.errors.required(&path.child("values"), why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => judge.errors.invalid(&path.child("operator"), &other, "not a valid selector operator"),
    }
}

fn pod_term(term: &Value, path: &Path, judge: &mut Judge<'_>) {
    selector::selector(term.at("labelSelector"), &path.child("labelSelector"), judge);
    selector::selector(term.at("namespaceSelector"), &path.child("namespaceSelector"), judge);
    for name in term.items("namespaces").iter().filter_map(Value::as_str) {
        invalid_all(&path.child("namespace"), name, names::dns_label(name), judge.errors);
    }
    let key = term.text("topologyKey");
    if key.is_empty() {
        judge.errors.required(&path.child("topologyKey"), "can not be empty");
    }
    invalid_all(&path.child("topologyKey"), key, names::qualified_name(key), judge.errors);
}

pub(super) fn tolerations(list: &Value, path: &Path, judge: &mut Judge<'_>) {
    for (i, toleration) in list.as_array().into_iter().flatten().enumerate() {
        let here = path.index(i);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        if !key.is_empty() {
            invalid_all(&here.child("key"), key, names::qualified_name(key), judge.errors);
        }
        if key.is_empty() && operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            judge.errors.invalid(&here.child("operator"), &operator, why);
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            judge.errors.invalid(&here.child("effect"), &effect, why);
        }
        match operator {
            "" | "Equal" => invalid_all(&here.child("operator"), value, names::label_value(value), judge.errors),
            "Exists" if !value.is_empty() => {
                judge.errors.invalid(
                    &here.child("operator"),
                    toleration,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            other => judge.errors.not_supported(&here.child("operator"), &other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !["NoExecute", "NoSchedule", "PreferNoSchedule"].contains(&effect) {
            let supported = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
            judge.errors.not_supported(&here.child("effect"), &effect, &supported);
        }
    }
}

/// Tolerations may be added, and their time may change; nothing else.
pub(super) fn added_tolerations(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    let timeless = |toleration: &Value| {
        let mut copy = toleration.clone();
        if let Some(map) = copy.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        copy
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let now: Vec<Value> = list(new).iter().map(timeless).collect();
    if list(old).iter().all(|toleration| now.iter().any(|t| same(t, &timeless(toleration)))) {
        return;
    }
    judge.errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
}

pub(super) fn spread(list: &Value, path: &Path, judge: &mut Judge<'_>) {
    let constraints: Vec<&Value> = list.as_array().into_iter().flatten().collect();
    for (i, constraint) in constraints.iter().enumerate() {
        let here = path.index(i);
        let skew = constraint.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            judge.errors.invalid(&here.child("maxSkew"), &skew, "must be greater than zero");
        }
        let key = constraint.text("topologyKey");
        if key.is_empty() {
            judge.errors.required(&here.child("topologyKey"), "can not be empty");
        } else {
            invalid_all(&here.child("topologyKey"), key, names::qualified_name(key), judge.errors);
        }
        let when = constraint.text("whenUnsatisfiable");
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&when) {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            judge.errors.not_supported(&here.child("whenUnsatisfiable"), &when, &supported);
        }
        let twin = |c: &&&Value| c.text("topologyKey") == key && c.text("whenUnsatisfiable") == when;
        if constraints[..i].iter().any(|c| twin(&c)) {
            let shown = Value::from(format!("{{{key}, {when}}}"));
            judge.errors.duplicate(&here.child("{topologyKey, whenUnsatisfiable}"), &shown);
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                judge.errors.invalid(&here.child("minDomains"), &domains, "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                judge.errors.invalid(&here.child("minDomains"), &domains, &why);
            }
        }
        selector::selector(constraint.at("labelSelector"), &here.child("labelSelector"), judge);
    }
}
