//! `RuntimeClass`: the class of a pod exists, and what it says of overhead and scheduling becomes the pod's.
//!
//! Source: `k8s.io/kubernetes/plugin/pkg/admission/runtimeclass`.

use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::ApiError;

use super::pod::push;
use crate::context::Context;
use crate::view::{Fill, View, quantity};

pub(super) fn apply(kind: &Kind, pod: &mut Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let pod_name = pod.text("metadata.name").to_owned();
    let refused = |why: String| ApiError::forbidden(kind, &pod_name, &why);
    let Some(spec) = pod.at_mut("spec") else { return Ok(()) };
    let name = spec.text("runtimeClassName").to_owned();
    let class = match name.as_str() {
        "" => None,
        name => Some(
            ctx.lookup
                .get("node.k8s.io", "runtimeclasses", "", name)
                .ok_or_else(|| refused(format!("pod rejected: RuntimeClass {name:?} not found")))?,
        ),
    };
    let class = class.as_deref().unwrap_or(&Value::Null);
    overhead(spec, class).map_err(|why| refused(why.to_owned()))?;
    node_selector(spec, class).map_err(refused)?;
    for toleration in class.items("scheduling.tolerations") {
        if !spec.items("tolerations").contains(toleration) {
            push(spec, "tolerations", toleration.clone());
        }
    }
    Ok(())
}

fn overhead(spec: &mut Value, class: &Value) -> Result<(), &'static str> {
    let own = spec.has("overhead");
    if !class.has("overhead") {
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return if own { Err(why) } else { Ok(()) };
    }
    let fixed = class.at("overhead.podFixed");
    if own && !same_amounts(spec.at("overhead"), fixed) {
        return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
    }
    spec.put("overhead", fixed.clone());
    Ok(())
}

fn same_amounts(one: &Value, other: &Value) -> bool {
    let amounts = |of: &Value| of.as_object().map(|map| map.len()).unwrap_or_default();
    let each = one.as_object().into_iter().flatten();
    amounts(one) == amounts(other) && each.into_iter().all(|(name, amount)| quantity(amount) == quantity(&other[name]))
}

fn node_selector(spec: &mut Value, class: &Value) -> Result<(), String> {
    for (key, wanted) in class.entries("scheduling.nodeSelector") {
        spec.fill_null("nodeSelector", json!({}));
        let Some(selector) = spec.object("nodeSelector") else { continue };
        let (wanted, own) = (wanted.as_str().unwrap_or(""), selector.get(key).and_then(Value::as_str));
        if let Some(own) = own.filter(|own| *own != wanted) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        selector.insert(key.clone(), wanted.into());
    }
    Ok(())
}
