//! Defaults of Secret, Namespace, Node, Endpoints, LimitRange, RBAC bindings, definitions and webhooks.

use serde_json::{Map, Value, json};

use super::{made, with};
use crate::view::{Fill, View};

const RBAC: &str = "rbac.authorization.k8s.io";

/// `stringData` is a way to write `data`; it is never stored.
pub(super) fn secret(object: &mut Value) {
    object.fill("type", "Opaque");
    let plain = object.entries("stringData").clone();
    if let Some(data) = (!plain.is_empty()).then(|| object.object("data")).flatten() {
        for (key, value) in plain {
            data.insert(key, base64(value.as_str().unwrap_or("").as_bytes()).into());
        }
    }
    object.drop_key("stringData");
}

/// Standard base64 with padding (Go's encoding of bytes in JSON).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]);
            out.push(if i <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

pub(super) fn namespace(object: &mut Value) {
    let name = object.text("metadata.name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object.object("metadata.labels")
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    if let Some(spec) = made(object, "spec") {
        spec.fill_null("finalizers", json!([]));
    }
    if let Some(status) = made(object, "status") {
        status.fill("phase", "Active");
    }
}

/// What a node can give to pods is all that it has, unless it says otherwise.
pub(super) fn node(object: &mut Value) {
    object.object("spec");
    let capacity = object.at("status.capacity").clone();
    if capacity.is_object() && !object.has("status.allocatable") {
        with(object, "status", |status| status.put("allocatable", capacity));
    }
}

pub(super) fn endpoints(object: &mut Value) {
    for port in object.items_mut("subsets").iter_mut().flat_map(|subset| subset.items_mut("ports")) {
        port.fill("protocol", "TCP");
    }
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in object.items_mut("ports") {
        port.fill_null("name", "");
        port.fill_null("protocol", "TCP");
    }
    object.fill_null("endpoints", json!([]));
    object.fill_null("ports", json!([]));
}

/// For containers a maximum is a default limit, a default limit or a minimum is a default request.
pub(super) fn limit_range(object: &mut Value) {
    for item in object.items_mut("spec.limits") {
        if item.text("type") != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let source: Map<String, Value> = item.entries(from).clone();
            if let Some(target) = (!source.is_empty()).then(|| item.object(to)).flatten() {
                for (name, quantity) in source {
                    target.entry(name).or_insert(quantity);
                }
            }
        }
    }
}

pub(super) fn binding(object: &mut Value) {
    with(object, "roleRef", |role| role.fill("apiGroup", RBAC));
    for subject in object.items_mut("subjects") {
        if matches!(subject.text("kind"), "User" | "Group") {
            subject.fill("apiGroup", RBAC);
        }
    }
}

pub(super) fn definition(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    let kind = spec.text("names.kind").to_owned();
    with(spec, "names", |names| {
        if !kind.is_empty() {
            names.fill("singular", kind.to_lowercase());
            names.fill("listKind", format!("{kind}List"));
        }
    });
    if let Some(conversion) = made(spec, "conversion") {
        conversion.fill("strategy", "None");
        with(conversion, "webhook.clientConfig.service", |service| service.fill_null("port", 443));
    }
}

pub(super) fn webhooks(object: &mut Value, mutating: bool) {
    for hook in object.items_mut("webhooks") {
        hook.fill_null("failurePolicy", "Fail");
        hook.fill_null("matchPolicy", "Equivalent");
        hook.fill_null("namespaceSelector", json!({}));
        hook.fill_null("objectSelector", json!({}));
        hook.fill_null("timeoutSeconds", 10);
        if mutating {
            hook.fill_null("reinvocationPolicy", "Never");
        }
        with(hook, "clientConfig.service", |service| service.fill_null("port", 443));
        hook.items_mut("rules").iter_mut().for_each(|rule| rule.fill_null("scope", "*"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_every_length() {
        let stories = [("", ""), ("b", "Yg=="), ("bc", "YmM="), ("bcd", "YmNk"), ("bcde", "YmNkZQ==")];
        stories.iter().for_each(|(plain, encoded)| assert_eq!(super::base64(plain.as_bytes()), *encoded));
    }
}
