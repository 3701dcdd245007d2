//! `LimitRanger`: defaults and bounds of what one pod, container or claim may ask for.

use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::ApiError;

use crate::context::Context;
use crate::view::{Fill, View, quantity};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills absent requests and limits of a pod, then checks it against every range of its namespace.
pub(super) fn pod(kind: &Kind, pod: &mut Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let ranges = ctx.lookup.list("", "limitranges", Some(pod.text("metadata.namespace")));
    if ranges.is_empty() {
        return Ok(());
    }
    let mut set = Vec::new();
    for range in &ranges {
        let (limits, requests) = container_defaults(range);
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in pod.at_mut("spec").map(|s| s.items_mut(list)).unwrap_or_default() {
                let name = container.text("name").to_owned();
                for (of, defaults, word) in [("limits", &limits, "limit"), ("requests", &requests, "request")] {
                    let Some(target) =
                        (!defaults.is_empty()).then(|| container.object(&format!("resources.{of}"))).flatten()
                    else {
                        continue;
                    };
                    let mut filled: Vec<&str> = Vec::new();
                    for (resource, quantity) in defaults {
                        if !target.contains_key(resource) {
                            target.insert(resource.clone(), quantity.clone());
                            filled.push(resource);
                        }
                    }
                    if !filled.is_empty() {
                        let names = filled.join(", ");
                        set.push((word, format!("{names} {word} for {what} {name}")));
                    }
                }
            }
        }
    }
    if !set.is_empty() {
        set.sort_by_key(|(word, _)| *word != "request");
        let texts: Vec<String> = set.into_iter().map(|(_, text)| text).collect();
        if let Some(annotations) = pod.object("metadata.annotations") {
            annotations.insert(ANNOTATION.to_owned(), json!(format!("LimitRanger plugin set: {}", texts.join("; "))));
        }
    }
    let mut errors = Vec::new();
    ranges.iter().for_each(|range| judge_pod(range, pod, &mut errors));
    refuse(kind, pod, &errors)
}

pub(super) fn claim(kind: &Kind, claim: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    for range in ctx.lookup.list("", "limitranges", Some(claim.text("metadata.namespace"))) {
        for item in range.items("spec.limits").iter().filter(|i| i.text("type") == "PersistentVolumeClaim") {
            let requests = claim.at("spec.resources.requests");
            bounds(item, "PersistentVolumeClaim", requests, &Value::Null, &mut errors);
        }
    }
    refuse(kind, claim, &errors)
}

fn refuse(kind: &Kind, object: &Value, errors: &[String]) -> Result<(), ApiError> {
    let why = match errors {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Err(ApiError::forbidden(kind, object.text("metadata.name"), &why))
}

type Amounts = serde_json::Map<String, Value>;

fn container_defaults(range: &Value) -> (Amounts, Amounts) {
    let (mut limits, mut requests) = (Amounts::new(), Amounts::new());
    for item in range.items("spec.limits").iter().filter(|item| item.text("type") == "Container") {
        limits.extend(item.entries("default").clone());
        requests.extend(item.entries("defaultRequest").clone());
    }
    (limits, requests)
}

fn judge_pod(range: &Value, pod: &Value, errors: &mut Vec<String>) {
    for item in range.items("spec.limits") {
        match item.text("type") {
            "Container" => {
                for container in pod.items("spec.containers").iter().chain(pod.items("spec.initContainers")) {
                    let resources = container.at("resources");
                    bounds(item, "Container", resources.at("requests"), resources.at("limits"), errors);
                }
            }
            "Pod" => {
                let (requests, limits) = (total(pod, "requests"), total(pod, "limits"));
                bounds(item, "Pod", &requests, &limits, errors);
            }
            _ => {}
        }
    }
}

/// What a pod asks for: the sum of its containers, or one init container when that asks for more.
pub(super) fn total(pod: &Value, of: &str) -> Value {
    let mut sum = Amounts::new();
    for container in pod.items("spec.containers") {
        for (name, value) in container.at("resources").entries(of) {
            let before = sum.get(name).and_then(quantity).unwrap_or_default();
            let amount = quantity(value).unwrap_or_default();
            sum.insert(name.clone(), (before + amount).to_string().into());
        }
    }
    for container in pod.items("spec.initContainers") {
        for (name, value) in container.at("resources").entries(of) {
            if quantity(value) > sum.get(name).and_then(quantity) {
                sum.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(sum)
}

/// One item of a range against one set of requests and limits.
fn bounds(item: &Value, what: &str, requests: &Value, limits: &Value, errors: &mut Vec<String>) {
    let amount = |from: &Value, name: &str| from.get(name).and_then(quantity);
    for (name, bound) in item.entries("min") {
        let Some(min) = quantity(bound) else { continue };
        let (request, limit) = (amount(requests, name), amount(limits, name));
        match request {
            None => errors.push(format!("minimum {name} usage per {what} is {min}.  No request is specified")),
            Some(r) if r < min => errors.push(format!("minimum {name} usage per {what} is {min}, but request is {r}")),
            Some(_) => {
                if let Some(l) = limit.filter(|l| *l < min) {
                    errors.push(format!("minimum {name} usage per {what} is {min}, but limit is {l}"));
                }
            }
        }
    }
    let claim = what == "PersistentVolumeClaim";
    for (name, bound) in item.entries("max") {
        let Some(max) = quantity(bound) else { continue };
        let (request, limit) = (amount(requests, name), amount(limits, name));
        match (limit, request) {
            (_, Some(r)) if claim && r > max => {
                errors.push(format!("maximum {name} usage per {what} is {max}, but request is {r}"));
            }
            _ if claim => {}
            (None, _) => errors.push(format!("maximum {name} usage per {what} is {max}.  No limit is specified")),
            (Some(l), _) if l > max => {
                errors.push(format!("maximum {name} usage per {what} is {max}, but limit is {l}"))
            }
            (_, Some(r)) if r > max => {
                errors.push(format!("maximum {name} usage per {what} is {max}, but request is {r}"));
            }
            _ => {}
        }
    }
    for (name, bound) in item.entries("maxLimitRequestRatio") {
        let Some(max) = quantity(bound) else { continue };
        let (request, limit) = (amount(requests, name), amount(limits, name));
        let text = format!("{name} max limit to request ratio per {what} is {max}, but ");
        match (request.filter(|r| !r.is_zero()), limit.filter(|l| !l.is_zero())) {
            (None, _) => errors.push(format!("{text}no request is specified or request is 0")),
            (_, None) => errors.push(format!("{text}no limit is specified or limit is 0")),
            (Some(r), Some(l)) if l.to_f64() / r.to_f64() > max.to_f64() => {
                errors.push(format!("{text}provided ratio is {:.6}", l.to_f64() / r.to_f64()));
            }
            _ => {}
        }
    }
}
