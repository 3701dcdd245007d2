//! The pages of Ingresses, their classes, and network policies.

use serde_json::Value;

use super::{Backend, Page, Related, or_none, selector_text};
use crate::print::{at, go_text, int, list};

/// An Ingress.
pub(super) fn ingress(page: &mut Page, ingress: &Value, related: &Related) {
    let spec = &ingress["spec"];
    page.field(0, "Name", at(ingress, "/metadata/name"));
    page.labels("Labels", &ingress["metadata"]["labels"]);
    page.field(0, "Namespace", at(ingress, "/metadata/namespace"));
    let points = list(ingress, "/status/loadBalancer/ingress");
    let address = |point: &Value| match at(point, "/ip") {
        "" => at(point, "/hostname").to_owned(),
        ip => ip.to_owned(),
    };
    page.field(0, "Address", &points.iter().map(address).collect::<Vec<_>>().join(","));
    page.field(0, "Ingress Class", or_none(at(spec, "/ingressClassName")));
    let default = match spec.get("defaultBackend") {
        Some(backend) => shown(backend, related),
        None => "<default>".to_owned(),
    };
    page.field(0, "Default backend", &default);
    let tls = list(spec, "/tls");
    if !tls.is_empty() {
        page.line(0, "TLS:");
    }
    for entry in tls {
        let hosts: Vec<&str> = list(entry, "/hosts").iter().filter_map(Value::as_str).collect();
        page.line(
            1,
            &match at(entry, "/secretName") {
                "" => format!("SNI routes {}", hosts.join(",")),
                secret => format!("{secret} terminates {}", hosts.join(",")),
            },
        );
    }
    page.line(0, "Rules:");
    page.line(1, "Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    let rules: Vec<&Value> = list(spec, "/rules").iter().filter(|rule| rule["http"].is_object()).collect();
    for rule in &rules {
        let host = at(rule, "/host");
        page.line(1, &format!("{}\t", if host.is_empty() { "*" } else { host }));
        for path in list(rule, "/http/paths") {
            page.line(2, &format!("\t{} \t{}", at(path, "/path"), shown(&path["backend"], related)));
        }
    }
    if rules.is_empty() {
        page.line(1, &format!("*\t*\t{default}"));
    }
    page.annotations("Annotations", &ingress["metadata"]["annotations"]);
}

/// The names of the Services that an Ingress leads to.
pub(crate) fn services_of(ingress: &Value) -> Vec<String> {
    let rules = list(ingress, "/spec/rules").iter().flat_map(|rule| list(rule, "/http/paths"));
    let backends = rules.map(|path| &path["backend"]).chain(ingress["spec"].get("defaultBackend"));
    let mut names: Vec<String> =
        backends.map(|backend| at(backend, "/service/name").to_owned()).filter(|name| !name.is_empty()).collect();
    names.sort();
    names.dedup();
    names
}

/// `web:80 (10.0.0.1:8080,10.0.0.2:8080)`
fn shown(backend: &Value, related: &Related) -> String {
    if let Some(resource) = backend.get("resource") {
        let group = or_none(at(resource, "/apiGroup"));
        return format!("APIGroup: {group}, Kind: {}, Name: {}", at(resource, "/kind"), at(resource, "/name"));
    }
    let Some(service) = backend.get("service") else { return String::new() };
    let (name, port) = (at(service, "/name"), &service["port"]);
    let number = int(port, "/number");
    let named = format!("{name}:{}", if number != 0 { number.to_string() } else { at(port, "/name").to_owned() });
    let Some(Backend { service, slices, .. }) = related.backends.iter().find(|backend| backend.name == name) else {
        return named;
    };
    let service = match service {
        Ok(service) => service,
        Err(why) => return format!("{named} (<error: {why}>)"),
    };
    let fits = |wanted: &&Value| match number {
        0 => !at(port, "/name").is_empty() && at(port, "/name") == at(wanted, "/name"),
        number => int(wanted, "/port") == number,
    };
    let port = list(service, "/spec/ports").iter().rfind(fits).map_or("", |port| at(port, "/name"));
    format!("{named} ({})", super::network::addresses(slices, port))
}

/// An IngressClass.
pub(super) fn class(page: &mut Page, class: &Value) {
    page.field(0, "Name", at(class, "/metadata/name"));
    page.labels("Labels", &class["metadata"]["labels"]);
    page.annotations("Annotations", &class["metadata"]["annotations"]);
    page.field(0, "Controller", at(class, "/spec/controller"));
    if let Some(parameters) = class["spec"].get("parameters") {
        page.line(0, "Parameters:");
        if !at(parameters, "/apiGroup").is_empty() {
            page.field(1, "APIGroup", at(parameters, "/apiGroup"));
        }
        page.field(1, "Kind", at(parameters, "/kind"));
        page.field(1, "Name", at(parameters, "/name"));
    }
}

/// A NetworkPolicy.
pub(super) fn policy(page: &mut Page, policy: &Value) {
    page.field(0, "Name", at(policy, "/metadata/name"));
    page.field(0, "Namespace", at(policy, "/metadata/namespace"));
    page.field(0, "Created on", &created(&policy["metadata"]["creationTimestamp"]));
    page.labels("Labels", &policy["metadata"]["labels"]);
    page.annotations("Annotations", &policy["metadata"]["annotations"]);
    page.line(0, "Spec:");
    let spec = &policy["spec"];
    let pods = match selector_text(&spec["podSelector"]) {
        none if none.is_empty() => "<none> (Allowing the specific traffic to all pods in this namespace)".to_owned(),
        selector => selector,
    };
    page.line(1, &format!("PodSelector:     {pods}"));
    let types: Vec<&str> = list(spec, "/policyTypes").iter().filter_map(Value::as_str).collect();
    for (kind, word, rules, to, from, sides) in [
        ("Ingress", "ingress", "/ingress", "From", "source", "from"),
        ("Egress", "egress", "/egress", "To", "destination", "to"),
    ] {
        if types.contains(&kind) {
            page.line(1, &format!("Allowing {word} traffic:"));
            traffic(page, list(spec, rules), word, to, from, sides);
        } else {
            page.line(1, &format!("Not affecting {word} traffic"));
        }
    }
    page.line(1, &format!("Policy Types: {}", types.join(", ")));
}

/// A time as Go prints it by itself: `2026-11-20 15:03:38 +0000 UTC`.
fn created(time: &Value) -> String {
    match stead_machinery::time::parse(time) {
        Some(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string(),
        None => "<unset>".to_owned(),
    }
}

/// The rules of one direction.
fn traffic(page: &mut Page, rules: &[Value], word: &str, title: &str, end: &str, sides: &str) {
    if rules.is_empty() {
        return page.line(2, &format!("<none> (Selected pods are isolated for {word} connectivity)"));
    }
    for (number, rule) in rules.iter().enumerate() {
        let ports = list(rule, "/ports");
        if ports.is_empty() {
            page.line(2, "To Port: <any> (traffic allowed to all ports)");
        }
        for port in ports {
            let protocol = if at(port, "/protocol").is_empty() { "TCP" } else { at(port, "/protocol") };
            let first = if port["port"].is_null() { "<nil>".to_owned() } else { go_text(&port["port"]) };
            page.line(
                2,
                &match port["endPort"].as_i64() {
                    Some(last) => format!("To Port Range: {first}-{last}/{protocol}"),
                    None => format!("To Port: {first}/{protocol}"),
                },
            );
        }
        let peers = list(rule, &format!("/{sides}"));
        if peers.is_empty() {
            page.line(2, &format!("{title}: <any> (traffic not restricted by {end})"));
        }
        for peer in peers {
            page.line(2, &format!("{title}:"));
            self::peer(page, peer);
        }
        if number + 1 < rules.len() {
            page.line(2, "----------");
        }
    }
}

/// One side of a connection that is allowed.
fn peer(page: &mut Page, peer: &Value) {
    let selects = |field: &str| {
        peer.get(field).map(|selector| match selector_text(selector) {
            none if none.is_empty() => "<none>".to_owned(),
            selector => selector,
        })
    };
    let (namespaces, pods) = (selects("namespaceSelector"), selects("podSelector"));
    if namespaces.is_none() && pods.is_none() {
        let Some(block) = peer.get("ipBlock") else { return };
        let except: Vec<&str> = list(block, "/except").iter().filter_map(Value::as_str).collect();
        page.line(3, "IPBlock:");
        page.line(4, &format!("CIDR: {}", at(block, "/cidr")));
        return page.line(4, &format!("Except: {}", except.join(", ")));
    }
    for (name, selector) in [("NamespaceSelector", namespaces), ("PodSelector", pods)] {
        if let Some(selector) = selector {
            page.line(3, &format!("{name}: {selector}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_services_of_an_ingress_are_named_once() {
        let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let ingress = json!({"spec": {"defaultBackend": backend("b"), "rules": [{"host": "x"},
            {"http": {"paths": [{"backend": backend("a")}, {"backend": backend("b")}, {"backend": {"resource": {}}}]}}]}});
        assert_eq!(services_of(&ingress), ["a", "b"]);
    }

    #[test]
    fn a_backend_is_shown_with_its_addresses_or_why_there_are_none() {
        let backend = |service: Result<Value, String>, slices: Vec<Value>| Related {
            backends: vec![Backend { name: "web".to_owned(), service, slices }],
            ..Related::default()
        };
        let port = json!({"service": {"name": "web", "port": {"number": 80}}});
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}]}});
        let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(shown(&port, &backend(Ok(service), vec![slice])), "web:80 (10.0.0.1:8080)");
        let missing = backend(Err("services \"web\" not found".to_owned()), Vec::new());
        assert_eq!(shown(&port, &missing), "web:80 (<error: services \"web\" not found>)");
    }
}
