//! ResourceQuota: what is counted, and for which pods.
//!
//! Source: `ValidateResourceQuotaSpec` in `pkg/apis/core/validation`.

use serde_json::Value;
use stead_machinery::Path;

use super::Judge;
use super::meta::{immutable, invalid_all};
use crate::names;
use crate::view::{View, quantity};

/// What a pod asks for or may use.
const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
/// Objects that are counted by names of their own; these are whole numbers.
const COUNTED: [&str; 9] = [
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
/// What else needs no domain.
const STORAGE: [&str; 4] =
    ["requests.storage", "ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage"];
/// Scopes that speak of any number of a pod's resources, and need no value.
const BROAD: [&str; 4] = ["Terminating", "NotTerminating", "NotBestEffort", "CrossNamespacePodAffinity"];
/// No pod is of both.
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

const NEEDS_EXISTS: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

pub(super) fn quota(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    hard(object, judge);
    let path = Path::new("spec").child("scopes");
    let scopes = object.at("spec.scopes");
    let names: Vec<&str> = object.items("spec.scopes").iter().filter_map(Value::as_str).collect();
    for name in &names {
        if !is_known(name) {
            judge.errors.invalid(&path, scopes, "unsupported scope");
        }
        applied(object, name, (&path, scopes), judge);
    }
    conflicting(&names, (&path, scopes), judge);
    selector(object, judge);
    if let Some(old) = old {
        immutable(scopes, old.at("spec.scopes"), &path, judge.errors);
    }
}

fn hard(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec").child("hard");
    for (name, value) in object.entries("spec.hard") {
        let at = path.key(name);
        invalid_all(&at, name, names::qualified_name(name), judge.errors);
        if !name.contains('/') && !is_standard(name) {
            if name != "storage" {
                judge.errors.invalid(&at, name, "must be a standard resource type or fully qualified");
            }
            judge.errors.invalid(&at, name, "must be a standard resource for quota");
        }
        let Some(amount) = quantity(value) else { continue };
        if amount.sign() < 0 {
            judge.errors.invalid(&at, &amount.to_string(), "must be greater than or equal to 0");
        }
        if COUNTED.contains(&name.as_str()) && amount.milli_value() % 1000 != 0 {
            judge.errors.invalid(&at, &amount.to_string(), "must be an integer");
        }
    }
}

/// Whether a name without a domain is one that quotas know.
fn is_standard(resource: &str) -> bool {
    let named = [&COMPUTE[..], &COUNTED, &STORAGE].concat().contains(&resource);
    named || resource.starts_with("hugepages-") || resource.starts_with("requests.hugepages-")
}

fn is_known(scope: &str) -> bool {
    BROAD.contains(&scope) || ["BestEffort", "PriorityClass"].contains(&scope)
}

/// Every resource must be one that pods of that scope have.
fn applied(object: &Value, scope: &str, (path, shown): (&Path, &Value), judge: &mut Judge<'_>) {
    let fits = |resource: &str| match scope {
        "BestEffort" => resource == "pods",
        scope if is_known(scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    };
    for resource in object.entries("spec.hard").keys() {
        if is_standard(resource) && !fits(resource) {
            judge.errors.invalid(path, shown, "unsupported scope applied to resource");
        }
    }
}

fn conflicting(scopes: &[&str], (path, shown): (&Path, &Value), judge: &mut Judge<'_>) {
    for pair in CONFLICTING {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            judge.errors.invalid(path, shown, "conflicting scopes");
        }
    }
}

fn selector(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec").child("scopeSelector").child("matchExpressions");
    let whole = object.at("spec.scopeSelector");
    let terms = object.items("spec.scopeSelector.matchExpressions");
    for term in terms {
        let scope = term.text("scopeName");
        if !is_known(scope) {
            judge.errors.invalid(&path.child("scopeName"), &scope, "unsupported scope");
        }
        applied(object, scope, (&path, whole), judge);
        let operator = term.text("operator");
        if is_known(scope) && scope != "PriorityClass" && operator != "Exists" {
            judge.errors.invalid(&path.child("operator"), &operator, NEEDS_EXISTS);
        }
        let values = path.child("values");
        match (operator, term.items("values").is_empty()) {
            ("In" | "NotIn", true) => judge
                .errors
                .required(&values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            ("Exists" | "DoesNotExist", false) => judge.errors.invalid(
                &values,
                term.at("values"),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => judge.errors.invalid(&path.child("operator"), &operator, "not a valid selector operator"),
        }
    }
    let names: Vec<&str> = terms.iter().map(|term| term.text("scopeName")).collect();
    conflicting(&names, (&path, whole), judge);
}
