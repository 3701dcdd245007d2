//! `ResourceQuota`: what a namespace may use altogether.
//!
//! Usage is counted from the objects that are there, so that a quota holds from the moment it is made.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::ApiError;
use stead_machinery::quantity::{Format, Quantity};

use super::limits::total;
use crate::context::{Context, Lookup};
use crate::view::{View, quantity};

type Usage = BTreeMap<String, Quantity>;

/// Refuses `object` when it would exceed a quota of its namespace. `old` is the object before an update.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>, ctx: &Context<'_>) -> Result<(), ApiError> {
    let namespace = object.text("metadata.namespace");
    if namespace.is_empty() || !kind.namespaced() || (kind.group, kind.kind) == ("", "ResourceQuota") {
        return Ok(());
    }
    for quota in ctx.lookup.list("", "resourcequotas", Some(namespace)) {
        let hard = limits_of(&quota);
        if !in_scope(&quota, kind, object) {
            continue;
        }
        let (resources, name) = (usage(kind, object), quota.text("metadata.name"));
        if old.is_none() {
            must_specify(kind, object, &hard, name)?;
        }
        let before = old.map(|old| usage(kind, old)).unwrap_or_default();
        let delta: Usage = resources
            .into_iter()
            .filter(|(resource, amount)| {
                hard.contains_key(resource) && *amount > before.get(resource).copied().unwrap_or(Quantity::default())
            })
            .collect();
        if delta.is_empty() {
            continue;
        }
        let used = used(kind, &quota, namespace, ctx.lookup);
        let amount = |from: &Usage, resource: &str| from.get(resource).copied().unwrap_or(Quantity::default());
        let exceeded: Vec<&String> = delta
            .iter()
            .filter(|(resource, amount_of)| {
                // `used` counts the old form of an updated object too.
                amount(&used, resource) + **amount_of > amount(&hard, resource) + amount(&before, resource)
            })
            .map(|(resource, _)| resource)
            .collect();
        if !exceeded.is_empty() {
            let list = |from: &dyn Fn(&str) -> Quantity| {
                exceeded.iter().map(|r| format!("{r}={}", from(r))).collect::<Vec<_>>().join(",")
            };
            let why = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                list(&|r| amount(&delta, r)),
                list(&|r| amount(&used, r)),
                list(&|r| amount(&hard, r))
            );
            return Err(ApiError::forbidden(kind, object.text("metadata.name"), &why));
        }
    }
    Ok(())
}

fn limits_of(quota: &Value) -> Usage {
    quota.entries("spec.hard").iter().filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

/// A quota on requests or limits asks every container to state them.
fn must_specify(kind: &Kind, object: &Value, hard: &Usage, quota: &str) -> Result<(), ApiError> {
    if (kind.group, kind.kind) != ("", "Pod") {
        return Ok(());
    }
    let mut missing = Vec::new();
    for resource in hard.keys() {
        let (of, name) = match resource.as_str() {
            "cpu" | "memory" => ("requests", resource.as_str()),
            other => match other.split_once('.') {
                Some((of @ ("requests" | "limits"), name @ ("cpu" | "memory"))) => (of, name),
                _ => continue,
            },
        };
        let silent: Vec<&str> = object
            .items("spec.initContainers")
            .iter()
            .chain(object.items("spec.containers"))
            .filter(|c| c.at("resources").at(of).get(name).is_none())
            .map(|c| c.text("name"))
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{resource} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("failed quota: {quota}: must specify {}", missing.join("; "));
    Err(ApiError::forbidden(kind, object.text("metadata.name"), &why))
}

/// Whether a quota with scopes speaks of this object. Scopes are about pods only.
fn in_scope(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let scopes =
        quota.items("spec.scopes").iter().filter_map(|s| Some((s.as_str()?.to_owned(), json!({"operator": "Exists"}))));
    let selected =
        quota.items("spec.scopeSelector.matchExpressions").iter().map(|e| (e.text("scopeName").to_owned(), e.clone()));
    let mut all = scopes.chain(selected).peekable();
    if all.peek().is_some() && (kind.group, kind.kind) != ("", "Pod") {
        return false;
    }
    all.all(|(scope, expression)| scope_matches(&scope, &expression, object))
}

fn scope_matches(scope: &str, expression: &Value, pod: &Value) -> bool {
    let ends = pod.has("spec.activeDeadlineSeconds");
    let best_effort = super::pod::qos_class(pod) == "BestEffort";
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => {
            let class = pod.text("spec.priorityClassName");
            let listed = expression.items("values").iter().any(|v| v.as_str() == Some(class));
            match expression.text("operator") {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

/// What is used in a namespace of the resources that objects of this kind count for.
fn used(kind: &Kind, quota: &Value, namespace: &str, lookup: &dyn Lookup) -> Usage {
    let mut sum = Usage::new();
    for object in lookup.list(kind.group, kind.plural, Some(namespace)) {
        if !in_scope(quota, kind, &object) {
            continue;
        }
        for (resource, amount) in usage(kind, &object) {
            let before = sum.get(&resource).copied().unwrap_or(Quantity::default());
            sum.insert(resource, before + amount);
        }
    }
    sum
}

/// Whether a quota speaks of an object: its scopes do.
#[must_use]
pub fn counts(quota: &Value, kind: &Kind, object: &Value) -> bool {
    in_scope(quota, kind, object)
}

/// What one object counts for, by the names that a quota's `hard` uses. A pod that has ended counts for its object only.
#[must_use]
pub fn usage(kind: &Kind, object: &Value) -> BTreeMap<String, Quantity> {
    let one = units(1);
    let mut usage = Usage::from([(format!("count/{}", kind.group_resource()), one)]);
    match (kind.group, kind.kind) {
        ("", "Pod") if !matches!(object.text("status.phase"), "Succeeded" | "Failed") => pod_usage(object, &mut usage),
        ("", "Service") => service_usage(object, &mut usage),
        ("", "PersistentVolumeClaim") => claim_usage(object, &mut usage),
        ("", "ReplicationController" | "ResourceQuota" | "Secret" | "ConfigMap") => {
            usage.insert(kind.plural.to_owned(), one);
        }
        _ => {}
    }
    usage
}

fn pod_usage(pod: &Value, usage: &mut Usage) {
    usage.insert("pods".to_owned(), units(1));
    for of in ["requests", "limits"] {
        for (name, value) in total(pod, of).as_object().into_iter().flatten() {
            let Some(amount) = quantity(value) else { continue };
            usage.insert(format!("{of}.{name}"), amount);
            if of == "requests" {
                usage.insert(name.clone(), amount);
            }
        }
    }
}

fn service_usage(service: &Value, usage: &mut Usage) {
    let ports = i64::try_from(service.items("spec.ports").len()).unwrap_or(i64::MAX);
    usage.insert("services".to_owned(), units(1));
    let kind = service.text("spec.type");
    let balanced = kind == "LoadBalancer";
    let allocated = balanced && service.flag("spec.allocateLoadBalancerNodePorts") != Some(false);
    if balanced {
        usage.insert("services.loadbalancers".to_owned(), units(1));
    }
    if kind == "NodePort" || allocated {
        usage.insert("services.nodeports".to_owned(), units(ports));
    }
}

fn claim_usage(claim: &Value, usage: &mut Usage) {
    let one = units(1);
    usage.insert("persistentvolumeclaims".to_owned(), one);
    let class = claim.text("spec.storageClassName");
    if !class.is_empty() {
        usage.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
    }
    if let Some(size) = quantity(claim.at("spec.resources.requests.storage")) {
        usage.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), size);
        }
    }
}

/// A count as an amount.
fn units(n: i64) -> Quantity {
    Quantity::new(n, Format::DecimalSi)
}
