//! Services.

use std::collections::BTreeSet;

use serde_json::Value;
use stead_machinery::Path;

use super::meta::{invalid_all, labels};
use super::{Judge, Raw, one_of, port_number};
use crate::names;
use crate::view::View;

pub(super) fn service(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    let kind = spec.text("type");
    let headless = spec.text("clusterIP") == "None";
    if spec.items("ports").is_empty() && !headless && kind != "ExternalName" {
        judge.errors.required(&path.child("ports"), "");
    }
    of_type(spec, kind, headless, &path, judge);
    ports(spec, headless, &path.child("ports"), judge);
    labels(spec.at("selector"), &path.child("selector"), judge.errors);
    affinity(spec, &path, judge);
    for (i, ip) in spec.items("externalIPs").iter().filter_map(Value::as_str).enumerate() {
        external_ip(ip, &path.child("externalIPs").index(i), judge);
    }
    one_of(kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &path.child("type"), judge);
    one_of_when_set(spec, "externalTrafficPolicy", &["Cluster", "Local"], &path, judge);
    one_of_when_set(spec, "internalTrafficPolicy", &["Cluster", "Local"], &path, judge);
    cluster_ips(spec, kind, &path, judge);
    if kind != "LoadBalancer" {
        for field in ["loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            let here = spec.at(field);
            if !here.is_null() && here.as_array().is_none_or(|list| !list.is_empty()) {
                judge.errors.forbidden(&path.child(field), "may only be used when `type` is 'LoadBalancer'");
            }
        }
    }
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || !spec.items("externalIPs").is_empty();
    if spec.has("externalTrafficPolicy") && !outside {
        let shown = spec.text("externalTrafficPolicy");
        let why = "may only be set for externally-accessible services";
        judge.errors.invalid(&path.child("externalTrafficPolicy"), &shown, why);
    }
    if spec.int("healthCheckNodePort").is_some_and(|port| port != 0)
        && (kind != "LoadBalancer" || spec.text("externalTrafficPolicy") != "Local")
    {
        let shown = spec.int("healthCheckNodePort").unwrap_or(0);
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        judge.errors.invalid(&path.child("healthCheckNodePort"), &shown, why);
    }
    if let Some(old) = old {
        update(spec, old.at("spec"), &path, judge);
    }
}

fn one_of_when_set(spec: &Value, field: &str, allowed: &[&str], path: &Path, judge: &mut Judge<'_>) {
    let value = spec.text(field);
    if !value.is_empty() && !allowed.contains(&value) {
        judge.errors.not_supported(&path.child(field), &value, allowed);
    }
}

fn of_type(spec: &Value, kind: &str, headless: bool, path: &Path, judge: &mut Judge<'_>) {
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            judge.errors.invalid(&path.child("clusterIPs").index(0), &"None", &why);
        }
        "ExternalName" => {
            if spec.has("clusterIP") {
                judge.errors.forbidden(&path.child("clusterIPs"), "may not be set when `type` is 'ExternalName'");
            }
            let name = spec.text("externalName").trim_end_matches('.');
            let at = path.child("externalName");
            if name.is_empty() {
                judge.errors.required(&at, "");
            } else {
                invalid_all(&at, name, names::dns_subdomain(name), judge.errors);
            }
        }
        _ => {}
    }
}

fn ports(spec: &Value, headless: bool, path: &Path, judge: &mut Judge<'_>) {
    let list = spec.items("ports");
    let kind = spec.text("type");
    let (mut known, mut node_ports, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, port) in list.iter().enumerate() {
        let at = path.index(i);
        let name = port.text("name");
        if name.is_empty() {
            if list.len() > 1 {
                judge.errors.required(&at.child("name"), "");
            }
        } else {
            invalid_all(&at.child("name"), name, names::dns_label(name), judge.errors);
            if !known.insert(name) {
                judge.errors.duplicate(&at.child("name"), &name);
            }
        }
        port_number(port.int("port").unwrap_or(0), &at.child("port"), judge);
        one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol"), judge);
        super::container::named_port(port.at("targetPort"), &at.child("targetPort"), judge);
        let protocol = port.text("appProtocol");
        if !protocol.is_empty() {
            invalid_all(&at.child("appProtocol"), protocol, names::qualified_name(protocol), judge.errors);
        }
        // A headless Service with a selector needs no translation of ports.
        let _ = headless;
        if let Some(number) = port.int("nodePort").filter(|n| *n != 0) {
            if !matches!(kind, "NodePort" | "LoadBalancer") {
                let why = format!("may not be used when `type` is '{kind}'");
                judge.errors.forbidden(&at.child("nodePort"), &why);
            } else if !node_ports.insert((number, port.text("protocol"))) {
                judge.errors.duplicate(&at.child("nodePort"), &number);
            }
        }
    }
    for (i, port) in list.iter().enumerate() {
        let (number, protocol) = (port.int("port").unwrap_or(0), port.text("protocol"));
        if !keys.insert((number, protocol)) {
            // Upstream shows its internal type, whose fields have their Go names.
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            judge.errors.duplicate(&path.index(i), &Raw(shown));
        }
    }
}

fn affinity(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let kind = spec.text("sessionAffinity");
    one_of(kind, &["ClientIP", "None"], &path.child("sessionAffinity"), judge);
    let at = path.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
    if let Some(seconds) = spec.int("sessionAffinityConfig.clientIP.timeoutSeconds")
        && kind == "ClientIP"
        && !(1..=86_400).contains(&seconds)
    {
        judge.errors.invalid(&at, &seconds, "must be greater than 0 and less than or equal to 86400");
    }
}

fn external_ip(ip: &str, path: &Path, judge: &mut Judge<'_>) {
    let wrong = names::ip(ip);
    let good = wrong.is_empty();
    invalid_all(path, ip, wrong, judge.errors);
    let Some(address) = ip.parse::<std::net::IpAddr>().ok().filter(|_| good) else { return };
    if address.is_unspecified() {
        judge.errors.invalid(path, &ip, "may not be unspecified (0.0.0.0 or ::)");
    }
    if address.is_loopback() {
        judge.errors.invalid(path, &ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if address.is_multicast() {
        judge.errors.invalid(path, &ip, "may not be in the multicast range (224.0.0.0/4, ff00::/10)");
    }
}

/// `clusterIP` and `clusterIPs` say the same, and the families are ours.
fn cluster_ips(spec: &Value, kind: &str, path: &Path, judge: &mut Judge<'_>) {
    let list: Vec<&str> = spec.items("clusterIPs").iter().filter_map(Value::as_str).collect();
    let at = path.child("clusterIPs");
    if kind == "ExternalName" {
        return;
    }
    let single = spec.text("clusterIP");
    if let Some(first) = list.first().filter(|first| **first != single) {
        judge.errors.invalid(&at.index(0), first, "element [0] must match clusterIP");
    }
    if list.contains(&"None") && list.len() > 1 {
        judge.errors.invalid(&at.index(0), &"None", "'None' must be the first and only value");
    }
    for (i, ip) in list.iter().enumerate() {
        if *ip != "None" {
            invalid_all(&at.index(i), ip, names::ip(ip), judge.errors);
        }
    }
    let by_hand = single == "None" && spec.entries("selector").is_empty();
    let families = path.child("ipFamilies");
    for (i, family) in spec.items("ipFamilies").iter().filter_map(Value::as_str).enumerate() {
        if !["IPv4", "IPv6"].contains(&family) {
            judge.errors.not_supported(&families.index(i), &family, &["IPv4", "IPv6"]);
        } else if family == "IPv6" && !by_hand {
            judge.errors.invalid(&families.index(i), &family, "not configured on this cluster");
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    let policy = spec.text("ipFamilyPolicy");
    if !policy.is_empty() && !policies.contains(&policy) {
        judge.errors.not_supported(&path.child("ipFamilyPolicy"), &policy, &policies);
    }
    if policy == "RequireDualStack" && !by_hand {
        let why = "this cluster is not configured for dual-stack services";
        judge.errors.invalid(&path.child("ipFamilyPolicy"), &policy, why);
    }
}

/// An address stays with a Service for as long as it has one.
fn update(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    let address = |spec: &Value| spec.text("clusterIP").to_owned();
    let has = |spec: &Value| spec.text("type") != "ExternalName" && !address(spec).is_empty();
    if has(old) && has(new) && address(old) != address(new) {
        // Upstream shows the list, although it names the first element.
        judge.errors.invalid(&path.child("clusterIPs").index(0), new.at("clusterIPs"), "may not change once set");
    }
    if old.has("loadBalancerClass")
        && old.text("type") == "LoadBalancer"
        && new.text("type") == "LoadBalancer"
        && old.at("loadBalancerClass") != new.at("loadBalancerClass")
    {
        let shown = new.text("loadBalancerClass");
        judge.errors.invalid(&path.child("loadBalancerClass"), &shown, "may not change once set");
    }
}
