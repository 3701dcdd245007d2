//! Ingress, NetworkPolicy, Endpoints, EndpointSlice.

use serde_json::Value;
use stead_machinery::Path;

use super::meta::{immutable, invalid_all};
use super::{Judge, one_of, port_number, selector};
use crate::names;
use crate::view::View;

pub(super) fn ingress(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    if spec.items("rules").is_empty() && !spec.has("defaultBackend") {
        judge.errors.invalid(&path, spec.at("rules"), "either `defaultBackend` or `rules` must be specified");
    }
    if spec.has("defaultBackend") {
        backend(spec.at("defaultBackend"), &path.child("defaultBackend"), judge);
    }
    for (i, rule) in spec.items("rules").iter().enumerate() {
        let at = path.child("rules").index(i);
        let host = rule.text("host");
        if !host.is_empty() {
            if host.parse::<std::net::IpAddr>().is_ok() {
                judge.errors.invalid(&at.child("host"), &host, "must be a DNS name, not an IP address");
            } else if host.contains('*') {
                invalid_all(&at.child("host"), host, names::wildcard_subdomain(host), judge.errors);
            } else {
                invalid_all(&at.child("host"), host, names::dns_subdomain(host), judge.errors);
            }
        }
        if !rule.has("http") {
            continue;
        }
        let at = at.child("http").child("paths");
        if rule.items("http.paths").is_empty() {
            judge.errors.required(&at, "");
        }
        for (j, entry) in rule.items("http.paths").iter().enumerate() {
            ingress_path(entry, &at.index(j), judge);
        }
    }
    for (i, tls) in spec.items("tls").iter().enumerate() {
        let at = path.child("tls").index(i).child("hosts");
        for (j, host) in tls.items("hosts").iter().filter_map(Value::as_str).enumerate() {
            let wrong = if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns_subdomain(host) };
            invalid_all(&at.index(j), host, wrong, judge.errors);
        }
    }
    let class = spec.text("ingressClassName");
    if !class.is_empty() {
        invalid_all(&path.child("ingressClassName"), class, names::dns_subdomain(class), judge.errors);
    }
}

fn ingress_path(entry: &Value, at: &Path, judge: &mut Judge<'_>) {
    let (kind, target) = (entry.text("pathType"), entry.text("path"));
    match kind {
        "" => judge.errors.required(&at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !target.starts_with('/') {
                judge.errors.invalid(&at.child("path"), &target, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if target.contains(bad) {
                    judge.errors.invalid(&at.child("path"), &target, &format!("must not contain '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !target.is_empty() && !target.starts_with('/') {
                judge.errors.invalid(&at.child("path"), &target, "must be an absolute path");
            }
        }
        other => {
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            judge.errors.not_supported(&at.child("pathType"), &other, &supported);
        }
    }
    backend(entry.at("backend"), &at.child("backend"), judge);
}

fn backend(backend: &Value, path: &Path, judge: &mut Judge<'_>) {
    match (backend.has("service"), backend.has("resource")) {
        (true, true) => judge.errors.invalid(path, &"", "cannot set both resource and service backends"),
        (false, true) => {}
        _ => {
            let at = path.child("service");
            let name = backend.text("service.name");
            if name.is_empty() {
                judge.errors.required(&at.child("name"), "");
            } else {
                invalid_all(&at.child("name"), name, names::dns_1035_label(name), judge.errors);
            }
            let (number, port) = (backend.int("service.port.number"), backend.text("service.port.name"));
            let at = at.child("port");
            match (number.filter(|n| *n != 0), port.is_empty()) {
                (Some(_), false) => judge.errors.invalid(&at, &"", "cannot set both port name & port number"),
                (Some(n), true) => port_number(n, &at.child("number"), judge),
                (None, false) => invalid_all(&at.child("name"), port, names::port_name(port), judge.errors),
                (None, true) => judge.errors.required(&at, "port name or number is required"),
            }
        }
    }
}

pub(super) fn policy(object: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    let spec = object.at("spec");
    selector::selector(spec.at("podSelector"), &path.child("podSelector"), judge);
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in spec.items(list).iter().enumerate() {
            let at = path.child(list).index(i);
            for (j, port) in rule.items("ports").iter().enumerate() {
                policy_port(port, &at.child("ports").index(j), judge);
            }
            for (j, peer) in rule.items(peers).iter().enumerate() {
                policy_peer(peer, &at.child(peers).index(j), judge);
            }
        }
    }
    let types = spec.items("policyTypes");
    if types.len() > 2 {
        judge.errors.invalid(
            &path.child("policyTypes"),
            spec.at("policyTypes"),
            "may not specify more than two policyTypes",
        );
    }
    for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
        if !["Egress", "Ingress"].contains(&kind) {
            judge.errors.not_supported(&path.child("policyTypes").index(i), &kind, &["Egress", "Ingress"]);
        }
    }
}

fn policy_port(port: &Value, at: &Path, judge: &mut Judge<'_>) {
    if port.has("protocol") {
        one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol"), judge);
    }
    if port.has("port") {
        super::container::named_port(port.at("port"), &at.child("port"), judge);
    }
    if let Some(end) = port.int("endPort") {
        match port.int("port") {
            None if port.has("port") => {
                judge.errors.invalid(&at.child("endPort"), &end, "may not be specified when `port` is non-numeric");
            }
            None => judge.errors.required(&at.child("port"), "may not be empty when `endPort` is specified"),
            Some(first) if end < first => {
                judge.errors.invalid(&at.child("endPort"), &end, "must be greater than or equal to `port`");
            }
            Some(_) => port_number(end, &at.child("endPort"), judge),
        }
    }
}

fn policy_peer(peer: &Value, at: &Path, judge: &mut Judge<'_>) {
    let mut found = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if peer.has(field) {
            found += 1;
            selector::selector(peer.at(field), &at.child(field), judge);
        }
    }
    if peer.has("ipBlock") {
        let cidr = peer.text("ipBlock.cidr");
        let good = cidr.split_once('/').is_some_and(|(ip, bits)| {
            ip.parse::<std::net::IpAddr>()
                .is_ok_and(|ip| bits.parse::<u8>().is_ok_and(|b| b <= if ip.is_ipv4() { 32 } else { 128 }))
        });
        if cidr.is_empty() {
            judge.errors.required(&at.child("ipBlock").child("cidr"), "");
        } else if !good {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            judge.errors.invalid(&at.child("ipBlock").child("cidr"), &cidr, why);
        }
        if found > 0 {
            judge.errors.forbidden(at, "may not specify both ipBlock and another peer");
        }
        found += 1;
    }
    if found == 0 {
        judge.errors.required(at, "must specify a peer");
    }
}

pub(super) fn endpoints(object: &Value, judge: &mut Judge<'_>) {
    for (i, subset) in object.items("subsets").iter().enumerate() {
        let at = Path::new("subsets").index(i);
        if subset.items("addresses").is_empty() && subset.items("notReadyAddresses").is_empty() {
            judge.errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (j, address) in subset.items(list).iter().enumerate() {
                let at = at.child(list).index(j);
                endpoint_ip(address.text("ip"), &at.child("ip"), judge);
                let host = address.text("hostname");
                if !host.is_empty() {
                    invalid_all(&at.child("hostname"), host, names::dns_label(host), judge.errors);
                }
            }
        }
        let several = subset.items("ports").len() > 1;
        for (j, port) in subset.items("ports").iter().enumerate() {
            let at = at.child("ports").index(j);
            let name = port.text("name");
            if name.is_empty() {
                if several {
                    judge.errors.required(&at.child("name"), "");
                }
            } else {
                invalid_all(&at.child("name"), name, names::dns_label(name), judge.errors);
            }
            port_number(port.int("port").unwrap_or(0), &at.child("port"), judge);
            one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol"), judge);
        }
    }
}

fn endpoint_ip(ip: &str, path: &Path, judge: &mut Judge<'_>) {
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
    if matches!(address, std::net::IpAddr::V4(v4) if v4.is_link_local()) {
        judge.errors.invalid(path, &ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if address.is_multicast() {
        judge.errors.invalid(path, &ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub(super) fn slice(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    /// Most endpoints and most ports of one slice.
    const MAX: (usize, usize) = (1000, 20_000);
    let kind = object.text("addressType");
    one_of(kind, &["FQDN", "IPv4", "IPv6"], &Path::new("addressType"), judge);
    let at = Path::new("endpoints");
    let list = object.items("endpoints");
    if list.len() > MAX.0 {
        judge.errors.too_many(&at, list.len(), MAX.0);
    }
    for (i, endpoint) in list.iter().enumerate() {
        let at = at.index(i).child("addresses");
        if endpoint.items("addresses").is_empty() {
            judge.errors.required(&at, "must contain at least 1 address");
        }
        for (j, address) in endpoint.items("addresses").iter().filter_map(Value::as_str).enumerate() {
            match kind {
                "FQDN" => invalid_all(&at.index(j), address, names::dns_subdomain(address), judge.errors),
                _ => endpoint_ip(address, &at.index(j), judge),
            }
        }
    }
    let ports = object.items("ports");
    if ports.len() > MAX.1 {
        judge.errors.too_many(&Path::new("ports"), ports.len(), MAX.1);
    }
    for (i, port) in ports.iter().enumerate() {
        let at = Path::new("ports").index(i);
        let name = port.text("name");
        if !name.is_empty() {
            invalid_all(&at.child("name"), name, names::dns_label(name), judge.errors);
        }
        if ports[..i].iter().any(|p| p.text("name") == name) {
            judge.errors.duplicate(&at.child("name"), &name);
        }
        one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &at.child("protocol"), judge);
    }
    if let Some(old) = old {
        immutable(object.at("addressType"), old.at("addressType"), &Path::new("addressType"), judge.errors);
    }
}
