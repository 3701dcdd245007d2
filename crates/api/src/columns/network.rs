//! The tables of services, endpoints, ingresses and network policies.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{age, first_three, int, items, labels, name, selector_or_none, text};

pub(crate) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let ip = items(&spec["clusterIPs"]).first().unwrap_or(&spec["clusterIP"]);
    vec![
        name(object),
        text(&spec["type"]).into(),
        super::text_or(ip, "<none>").into(),
        external_ip(object).into(),
        service_ports(items(&spec["ports"])).into(),
        age(object, now),
        labels(&spec["selector"]).into(),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let mut own: Vec<String> = items(&spec["externalIPs"]).iter().map(|ip| text(ip).to_owned()).collect();
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let mut all: Vec<String> = balancer_addresses(service).into_iter().collect();
            all.append(&mut own);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// In order, each once.
fn balancer_addresses(object: &Value) -> BTreeSet<String> {
    let ingress = items(&object["status"]["loadBalancer"]["ingress"]);
    let address = |i: &Value| super::text_or(&i["ip"], text(&i["hostname"])).to_owned();
    ingress.iter().map(address).filter(|a| !a.is_empty()).collect()
}

fn service_ports(ports: &[Value]) -> String {
    let port = |port: &Value| {
        let (number, protocol) = (int(&port["port"]), text(&port["protocol"]));
        match int(&port["nodePort"]) {
            0 => format!("{number}/{protocol}"),
            node => format!("{number}:{node}/{protocol}"),
        }
    };
    if ports.is_empty() { "<none>".to_owned() } else { ports.iter().map(port).collect::<Vec<_>>().join(",") }
}

pub(crate) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut list = Vec::new();
    for subset in items(&object["subsets"]) {
        let addresses = || items(&subset["addresses"]).iter().map(|a| text(&a["ip"]));
        let ports = items(&subset["ports"]);
        if ports.is_empty() {
            list.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            list.extend(addresses().map(|ip| with_port(ip, int(&port["port"]))));
        }
    }
    vec![name(object), first_three(&list, "<none>").into(), age(object, now)]
}

fn with_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(crate) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    };
    let ports: Vec<String> = items(&object["ports"]).iter().map(port).collect();
    let addresses = items(&object["endpoints"]).iter().flat_map(|e| items(&e["addresses"]));
    let addresses: Vec<String> = addresses.map(|a| text(a).to_owned()).collect();
    vec![
        name(object),
        text(&object["addressType"]).into(),
        first_three(&ports, "<unset>").into(),
        first_three(&addresses, "<unset>").into(),
        age(object, now),
    ]
}

pub(crate) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let addresses: Vec<String> = balancer_addresses(object).into_iter().collect();
    let ports = if items(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        hosts(items(&spec["rules"])).into(),
        addresses.join(",").into(),
        ports.into(),
        age(object, now),
    ]
}

/// The first three hosts; what is more is counted in rules, as upstream does.
fn hosts(rules: &[Value]) -> String {
    const SHOWN: usize = 3;
    let mut list: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= list.len() == SHOWN;
        let host = text(&rule["host"]);
        if !more && !host.is_empty() {
            list.push(host);
        }
    }
    match (list.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, true) => format!("{} + {} more...", list.join(","), rules.len() - SHOWN),
        (false, false) => list.join(","),
    }
}

pub(crate) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = &object["spec"]["parameters"];
    let shown = if parameters.is_null() {
        "<none>".to_owned()
    } else {
        let group = parameters["apiGroup"].as_str().map_or_else(String::new, |group| format!(".{group}"));
        format!("{}{group}/{}", text(&parameters["kind"]), text(&parameters["name"]))
    };
    vec![name(object), text(&object["spec"]["controller"]).into(), shown.into(), age(object, now)]
}

pub(crate) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector_or_none(&object["spec"]["podSelector"]).into(), age(object, now)]
}

pub(crate) fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let list: Vec<&str> = items(&object["spec"]["cidrs"]).iter().map(text).collect();
    vec![name(object), list.join(",").into(), age(object, now)]
}

pub(crate) fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let shown = if parent.is_null() {
        "<none>".to_owned()
    } else {
        let (group, resource) = (text(&parent["group"]), text(&parent["resource"]));
        let of = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let parts = [of.to_lowercase().as_str(), text(&parent["namespace"]), text(&parent["name"])].map(str::to_owned);
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    };
    vec![name(object), shown.into(), age(object, now)]
}
