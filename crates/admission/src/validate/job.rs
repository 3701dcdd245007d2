//! What a Job says of its indexes, its failures and its success.
//!
//! Source: `pkg/apis/batch/validation`.

use serde_json::Value;
use stead_machinery::{Path, names};

use super::{Judge, one_of};
use crate::view::View;

/// Rules, conditions and requirements of one policy.
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const MANAGER_BYTES_MAX: usize = 63;
/// Most pods of an indexed Job at once.
const PARALLELISM_MAX: i64 = 100_000;
/// From so many completions on a Job with a limit for each index has tighter bounds.
const MANY_COMPLETIONS: i64 = 100_000;
const BOUND_OF_MANY: i64 = 10_000;

/// All of it, for the spec of a Job or of a template for Jobs.
pub(super) fn policies(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    if spec.text("completionMode") == "Indexed" {
        indexed(spec, path, judge);
    }
    if spec.has("managedBy") {
        manager(spec.text("managedBy"), &path.child("managedBy"), judge);
    }
    if spec.has("podFailurePolicy") {
        let at = path.child("podFailurePolicy").child("rules");
        let rules = spec.items("podFailurePolicy.rules");
        if rules.len() > RULES_MAX {
            judge.errors.too_many(&at, rules.len(), RULES_MAX);
        }
        for (i, rule) in rules.iter().enumerate() {
            failure_rule(spec, rule, &at.index(i), judge);
        }
    }
    if spec.has("successPolicy") {
        success(spec, path, judge);
    }
}

/// The hostnames of an indexed Job's pods end in their index.
pub(super) fn hostnames(object: &Value, judge: &mut Judge<'_>) {
    let (spec, name) = (object.at("spec"), object.text("metadata.name"));
    if spec.text("completionMode") != "Indexed" || name.is_empty() {
        return;
    }
    let Some(completions) = spec.int("completions").filter(|completions| *completions > 0) else { return };
    let hostname = format!("{name}-{}", completions - 1);
    if !names::dns_label(&hostname).is_empty() {
        let why = format!("will not able to create pod with invalid DNS label: {hostname}");
        judge.errors.invalid(&Path::new("metadata").child("name"), &name, &why);
    }
}

fn indexed(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let parallelism = spec.int("parallelism").unwrap_or(0);
    if parallelism > PARALLELISM_MAX {
        let why = format!("must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed");
        judge.errors.invalid(&path.child("parallelism"), &parallelism, &why);
    }
    let (per_index, failed) = (spec.has("backoffLimitPerIndex"), spec.int("maxFailedIndexes"));
    if failed.is_some() && !per_index {
        judge.errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let Some(completions) = spec.int("completions") else { return };
    if let Some(failed) = failed.filter(|failed| *failed > completions) {
        judge.errors.invalid(&path.child("maxFailedIndexes"), &failed, "must be less than or equal to completions");
    }
    if completions <= MANY_COMPLETIONS || !per_index {
        return;
    }
    let why = format!(
        "must be less than or equal to {BOUND_OF_MANY} when completions are above {MANY_COMPLETIONS} and used with backoff limit per index"
    );
    match failed {
        None => {
            let why = format!("must be specified when completions is above {MANY_COMPLETIONS}");
            judge.errors.required(&path.child("maxFailedIndexes"), &why);
        }
        Some(failed) if failed > BOUND_OF_MANY => {
            judge.errors.invalid(&path.child("maxFailedIndexes"), &failed, &why);
        }
        Some(_) => {}
    }
    if parallelism > BOUND_OF_MANY {
        judge.errors.invalid(&path.child("parallelism"), &parallelism, &why);
    }
}

/// `example.com/queue`.
fn manager(name: &str, at: &Path, judge: &mut Judge<'_>) {
    match name.split_once('/') {
        Some((domain, rest)) if !domain.is_empty() && !rest.is_empty() => {
            for why in names::dns_subdomain(domain) {
                judge.errors.invalid(at, &domain, &why);
            }
        }
        _ => judge.errors.invalid(at, &name, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if name.len() > MANAGER_BYTES_MAX {
        judge.errors.too_long(at, MANAGER_BYTES_MAX);
    }
}

fn failure_rule(spec: &Value, rule: &Value, at: &Path, judge: &mut Judge<'_>) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let action = rule.text("action");
    let action_at = at.child("action");
    if action.is_empty() {
        let all = ACTIONS.map(|action| format!("{action:?}")).join(" ");
        judge.errors.required(&action_at, &format!("valid values: [{all}]"));
    } else if !ACTIONS.contains(&action) {
        judge.errors.not_supported(&action_at, &action, &ACTIONS);
    } else if action == "FailIndex" && !spec.has("backoffLimitPerIndex") {
        judge.errors.invalid(&action_at, &action, "requires the backoffLimitPerIndex to be set");
    }
    let (codes, conditions) = (rule.has("onExitCodes"), !rule.items("onPodConditions").is_empty());
    if codes && conditions {
        let why = "specifying both OnExitCodes and OnPodConditions is not supported";
        judge.errors.invalid(at, &Value::Null, why);
    }
    if !codes && !conditions {
        judge.errors.invalid(at, &Value::Null, "specifying one of OnExitCodes and OnPodConditions is required");
    }
    if codes {
        exit_codes(spec, rule.at("onExitCodes"), &at.child("onExitCodes"), judge);
    }
    let patterns = rule.items("onPodConditions");
    let at = at.child("onPodConditions");
    if patterns.len() > RULES_MAX {
        judge.errors.too_many(&at, patterns.len(), RULES_MAX);
    }
    for (i, pattern) in patterns.iter().enumerate() {
        for why in names::label_key(pattern.text("type")) {
            judge.errors.invalid(&at.index(i).child("type"), &pattern.text("type"), &why);
        }
        one_of(pattern.text("status"), &["False", "True", "Unknown"], &at.index(i).child("status"), judge);
    }
}

fn exit_codes(spec: &Value, codes: &Value, at: &Path, judge: &mut Judge<'_>) {
    let operator = codes.text("operator");
    if operator.is_empty() {
        judge.errors.required(&at.child("operator"), "valid values: [\"In\" \"NotIn\"]");
    } else if !["In", "NotIn"].contains(&operator) {
        judge.errors.not_supported(&at.child("operator"), &operator, &["In", "NotIn"]);
    }
    if codes.has("containerName") {
        let name = codes.text("containerName");
        let pod = spec.at("template.spec");
        let mut all = pod.items("containers").iter().chain(pod.items("initContainers"));
        if !all.any(|container| container.text("name") == name) {
            let why = "must be one of the container or initContainer names in the pod template";
            judge.errors.invalid(&at.child("containerName"), &name, why);
        }
    }
    let (at, values) = (at.child("values"), codes.items("values"));
    if values.is_empty() {
        judge.errors.invalid(&at, codes.at("values"), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        judge.errors.too_many(&at, values.len(), EXIT_CODES_MAX);
    }
    let numbers: Vec<i64> = values.iter().filter_map(Value::as_i64).collect();
    for (i, value) in numbers.iter().enumerate() {
        if *value == 0 && operator == "In" {
            judge.errors.invalid(&at.index(i), value, "must not be 0 for the In operator");
        }
        if numbers[..i].contains(value) {
            judge.errors.duplicate(&at.index(i), value);
        }
    }
    if !numbers.is_sorted() {
        judge.errors.invalid(&at, codes.at("values"), "must be ordered");
    }
}

fn success(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let at = path.child("successPolicy");
    if spec.text("completionMode") != "Indexed" {
        judge.errors.invalid(&at, spec.at("successPolicy"), "requires indexed completion mode");
        return;
    }
    let at = at.child("rules");
    let rules = spec.items("successPolicy.rules");
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        judge.errors.required(&at, why);
    }
    if rules.len() > RULES_MAX {
        judge.errors.too_many(&at, rules.len(), RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate() {
        success_rule(rule, spec.int("completions").unwrap_or(0), &at.index(i), judge);
    }
}

fn success_rule(rule: &Value, completions: i64, at: &Path, judge: &mut Judge<'_>) {
    let count = rule.int("succeededCount");
    if count.is_none() && !rule.has("succeededIndexes") {
        let why = "at least one of succeededCount or succeededIndexes must be specified";
        judge.errors.required(at, why);
    }
    let count_at = at.child("succeededCount");
    if let Some(count) = count {
        if count < 0 {
            judge.errors.invalid(&count_at, &count, "must be greater than or equal to 0");
        }
        if count > completions {
            let why = format!("must be less than or equal to {completions} (the number of specified completions)");
            judge.errors.invalid(&count_at, &count, &why);
        }
    }
    if !rule.has("succeededIndexes") {
        return;
    }
    let text = rule.text("succeededIndexes");
    match indexes(text, completions) {
        Err(why) => {
            let why = format!("error parsing succeededIndexes: {why}");
            judge.errors.invalid(&at.child("succeededIndexes"), &text, &why);
        }
        Ok(named) => {
            if let Some(count) = count.filter(|count| *count > named) {
                let why = format!(
                    "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
                );
                judge.errors.invalid(&count_at, &count, &why);
            }
        }
    }
}

/// How many indexes a text such as `1,3-5` names; they rise, and are below the number of completions.
fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let number = |part: &str| {
        let refused = || format!("cannot convert string to integer for index: {part:?}");
        part.parse::<i64>().map_err(|_| refused())
    };
    let (mut total, mut last): (i64, Option<i64>) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = interval.split('-').collect();
        let (first, end) = match parts[..] {
            [one] => (number(one)?, None),
            [first, end] => (number(first)?, Some(number(end)?)),
            _ => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        for index in [Some(first), end].into_iter().flatten() {
            if index >= completions {
                return Err(format!("too large index: {:?}", index.to_string()));
            }
        }
        if last.is_some_and(|last| last >= first) {
            let last = last.unwrap_or_default();
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        if let Some(end) = end.filter(|end| *end <= first) {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        let highest = end.unwrap_or(first);
        total += highest - first + 1;
        last = Some(highest);
    }
    Ok(total)
}
