//! Defaults of Services and the other networking kinds.

use serde_json::{Value, json};

use super::{made, with};
use crate::view::{Fill, View, hollow};

/// How long a client sticks to an endpoint, in seconds.
const STICKY_SECONDS: i64 = 10_800;

pub(super) fn service(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill("sessionAffinity", "None");
    if spec.text("sessionAffinity") == "None" {
        spec.drop_key("sessionAffinityConfig");
    } else if spec.text("sessionAffinity") == "ClientIP"
        && let Some(config) = spec.object("sessionAffinityConfig.clientIP")
    {
        config.entry("timeoutSeconds").or_insert(json!(STICKY_SECONDS));
    }
    spec.fill("type", "ClusterIP");
    for port in spec.items_mut("ports") {
        port.fill("protocol", "TCP");
        let number = port.at("port").clone();
        if hollow(port.at("targetPort")) || port.int("targetPort") == Some(0) {
            port.put("targetPort", number);
        }
        if port.int("nodePort") == Some(0) {
            port.drop_key("nodePort");
        }
    }
    let kind = spec.text("type").to_owned();
    let outside = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if outside || (kind == "ClusterIP" && !spec.items("externalIPs").is_empty()) {
        spec.fill("externalTrafficPolicy", "Cluster");
    }
    if outside || kind == "ClusterIP" {
        spec.fill_null("internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        spec.fill_null("allocateLoadBalancerNodePorts", true);
    }
    families(spec, &kind);
    for empty in ["clusterIP", "externalName", "loadBalancerIP", "externalTrafficPolicy"] {
        if spec.at(empty).as_str() == Some("") {
            spec.drop_key(empty);
        }
    }
}

/// `clusterIP` and `clusterIPs[0]` are one thing; families and policy follow from them. One family is served: IPv4.
fn families(spec: &mut Value, kind: &str) {
    if kind == "ExternalName" {
        return;
    }
    let first = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or("").to_owned();
    let single = spec.text("clusterIP").to_owned();
    if first.is_empty() && !single.is_empty() {
        spec.put("clusterIPs", json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        spec.put("clusterIP", first);
    }
    // Endpoints that somebody else writes may be of both families.
    let by_hand = spec.text("clusterIP") == "None" && spec.entries("selector").is_empty();
    if spec.items("ipFamilies").is_empty() {
        let both = by_hand && matches!(spec.text("ipFamilyPolicy"), "" | "RequireDualStack" | "PreferDualStack");
        spec.put("ipFamilies", if both { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) });
    }
    spec.fill_null("ipFamilyPolicy", if by_hand { "RequireDualStack" } else { "SingleStack" });
}

pub(super) fn network_policy(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    if spec.items("policyTypes").is_empty() {
        let types = if spec.items("egress").is_empty() { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.put("policyTypes", types);
    }
    for list in ["ingress", "egress"] {
        for port in spec.items_mut(list).iter_mut().flat_map(|rule| rule.items_mut("ports")) {
            port.fill_null("protocol", "TCP");
        }
    }
}

pub(super) fn ingress_class(object: &mut Value) {
    with(object, "spec.parameters", |parameters| parameters.fill_null("scope", "Cluster"));
}
