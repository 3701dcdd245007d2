//! The pages of Services and Endpoints.

use serde_json::Value;

use super::{Page, Related, or_none};
use crate::print::{at, int, list, pairs};

/// How many addresses are shown before the rest is only counted.
const ADDRESSES_SHOWN: usize = 3;

/// A Service.
pub(super) fn service(page: &mut Page, service: &Value, related: &Related) {
    let spec = &service["spec"];
    page.field(0, "Name", at(service, "/metadata/name"));
    page.field(0, "Namespace", at(service, "/metadata/namespace"));
    page.labels("Labels", &service["metadata"]["labels"]);
    page.annotations("Annotations", &service["metadata"]["annotations"]);
    page.field(0, "Selector", or_none(&pairs(&spec["selector"]).join(",")));
    page.field(0, "Type", at(spec, "/type"));
    if !at(spec, "/ipFamilyPolicy").is_empty() {
        page.field(0, "IP Family Policy", at(spec, "/ipFamilyPolicy"));
    }
    let texts = |pointer: &str| list(spec, pointer).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    page.field(0, "IP Families", or_none(&texts("/ipFamilies")));
    page.field(0, "IP", at(spec, "/clusterIP"));
    page.field(0, "IPs", or_none(&texts("/clusterIPs")));
    if !list(spec, "/externalIPs").is_empty() {
        page.field(0, "External IPs", &texts("/externalIPs"));
    }
    if !at(spec, "/loadBalancerIP").is_empty() {
        page.field(0, "Desired LoadBalancer IP", at(spec, "/loadBalancerIP"));
    }
    if !at(spec, "/externalName").is_empty() {
        page.field(0, "External Name", at(spec, "/externalName"));
    }
    let ingress = list(service, "/status/loadBalancer/ingress");
    if !ingress.is_empty() {
        let shown = |point: &Value| match at(point, "/ip") {
            "" => at(point, "/hostname").to_owned(),
            ip => format!(
                "{ip}{}",
                if at(point, "/ipMode").is_empty() { String::new() } else { format!(" ({})", at(point, "/ipMode")) }
            ),
        };
        page.field(0, "LoadBalancer Ingress", &ingress.iter().map(shown).collect::<Vec<_>>().join(", "));
    }
    for port in list(spec, "/ports") {
        let name = or_unset(at(port, "/name"));
        let protocol = at(port, "/protocol");
        page.line(0, &format!("Port:\t{name}\t{}/{protocol}", int(port, "/port")));
        let target = crate::print::go_text(&port["targetPort"]);
        page.line(0, &format!("TargetPort:\t{target}/{protocol}"));
        if int(port, "/nodePort") != 0 {
            page.line(0, &format!("NodePort:\t{name}\t{}/{protocol}", int(port, "/nodePort")));
        }
        page.field(0, "Endpoints", &addresses(&related.endpoint_slices, at(port, "/name")));
    }
    page.field(0, "Session Affinity", at(spec, "/sessionAffinity"));
    for (name, pointer) in
        [("External Traffic Policy", "/externalTrafficPolicy"), ("Internal Traffic Policy", "/internalTrafficPolicy")]
    {
        if !at(spec, pointer).is_empty() {
            page.field(0, name, at(spec, pointer));
        }
    }
    if int(spec, "/healthCheckNodePort") != 0 {
        page.field(0, "HealthCheck NodePort", &int(spec, "/healthCheckNodePort").to_string());
    }
    if let Some(ranges) = spec.get("loadBalancerSourceRanges") {
        let ranges: Vec<&str> = crate::resources::items(ranges).iter().filter_map(Value::as_str).collect();
        page.field(0, "LoadBalancer Source Ranges", &ranges.join(","));
    }
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// The ready addresses of a port, all slices together.
pub(super) fn addresses(slices: &[Value], port: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    for slice in slices {
        for slice_port in list(slice, "/ports").iter().filter(|p| at(p, "/name") == port) {
            for endpoint in list(slice, "/endpoints").iter().filter(|e| e["conditions"]["ready"] != false) {
                for address in list(endpoint, "/addresses").iter().filter_map(Value::as_str) {
                    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
                    found.push(format!("{address}:{}", int(slice_port, "/port")));
                }
            }
        }
    }
    // kubectl leaves the line empty when nothing is ready.
    if found.len() > ADDRESSES_SHOWN {
        let rest = found.len() - ADDRESSES_SHOWN;
        return format!("{} + {rest} more...", found[..ADDRESSES_SHOWN].join(","));
    }
    found.join(",")
}

/// Endpoints.
pub(super) fn endpoints(page: &mut Page, endpoints: &Value) {
    page.field(0, "Name", at(endpoints, "/metadata/name"));
    page.field(0, "Namespace", at(endpoints, "/metadata/namespace"));
    page.labels("Labels", &endpoints["metadata"]["labels"]);
    page.annotations("Annotations", &endpoints["metadata"]["annotations"]);
    page.line(0, "Subsets:");
    for subset in list(endpoints, "/subsets") {
        let addresses =
            |pointer: &str| list(subset, pointer).iter().map(|a| at(a, "/ip")).collect::<Vec<_>>().join(",");
        page.field(1, "Addresses", or_none(&addresses("/addresses")));
        page.field(1, "NotReadyAddresses", or_none(&addresses("/notReadyAddresses")));
        let ports = list(subset, "/ports");
        if !ports.is_empty() {
            page.line(1, "Ports:");
            page.line(2, "Name\tPort\tProtocol");
            page.line(2, "----\t----\t--------");
            for port in ports {
                page.line(
                    2,
                    &format!("{}\t{}\t{}", or_unset(at(port, "/name")), int(port, "/port"), at(port, "/protocol")),
                );
            }
        }
        page.line(0, "");
    }
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(page: &mut Page, slice: &Value) {
    page.field(0, "Name", at(slice, "/metadata/name"));
    page.field(0, "Namespace", at(slice, "/metadata/namespace"));
    page.labels("Labels", &slice["metadata"]["labels"]);
    page.annotations("Annotations", &slice["metadata"]["annotations"]);
    page.field(0, "AddressType", at(slice, "/addressType"));
    let ports = list(slice, "/ports");
    if ports.is_empty() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        page.line(1, "Name\tPort\tProtocol");
        page.line(1, "----\t----\t--------");
        for port in ports {
            let number = port["port"].as_i64().map_or("<unset>".to_owned(), |number| number.to_string());
            page.line(1, &format!("{}\t{number}\t{}", or_unset(at(port, "/name")), at(port, "/protocol")));
        }
    }
    let endpoints = list(slice, "/endpoints");
    if endpoints.is_empty() {
        return page.line(0, "Endpoints: <none>");
    }
    page.line(0, "Endpoints:");
    for endpoint in endpoints {
        let addresses: Vec<&str> = list(endpoint, "/addresses").iter().filter_map(Value::as_str).collect();
        page.line(1, &format!("- Addresses:\t{}", or_none(&addresses.join(", "))));
        page.line(2, "Conditions:");
        let ready = endpoint["conditions"]["ready"].as_bool().map_or("<unset>".to_owned(), |ready| ready.to_string());
        page.field(3, "Ready", &ready);
        page.field(2, "Hostname", or_unset(at(endpoint, "/hostname")));
        if endpoint["targetRef"].is_object() {
            let target = format!("{}/{}", at(endpoint, "/targetRef/kind"), at(endpoint, "/targetRef/name"));
            page.field(2, "TargetRef", &target);
        }
        page.field(2, "NodeName", or_unset(at(endpoint, "/nodeName")));
        page.field(2, "Zone", or_unset(at(endpoint, "/zone")));
    }
}
