//! Services and slices -> which virtual address and port leads to which endpoints, as this node has to do it.
//!
//! Upstream: pkg/proxy (service port map, endpoint categories, traffic policies, topology hints).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::endpoints::HEADLESS;

/// Seconds for which a client stays with its endpoint when `sessionAffinityConfig` does not say.
const AFFINITY_SECONDS: u32 = 10_800;
/// A service with this label is left to another proxy.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Who asks: endpoints may be preferred by node or zone.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub name: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
}

/// One virtual address and port with the endpoints it leads to. Without endpoints, callers are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub frontend: Frontend,
    pub protocol: Protocol,
    pub port: u16,
    pub backends: Vec<(IpAddr, u16)>,
    pub affinity_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    Address(IpAddr),
    /// Every address of the node.
    NodePort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// The entries of one service.
pub fn entries(service: &Service, slices: &[&EndpointSlice], node: &NodeView) -> Vec<Entry> {
    if !is_proxied(service) {
        return Vec::new();
    }
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    ports.iter().flat_map(|port| entries_of_port(service, port, slices, node)).collect()
}

fn is_proxied(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let address = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    let alias = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    let elsewhere = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY));
    !(alias || elsewhere || address.is_empty() || address == "None")
}

fn entries_of_port(service: &Service, port: &ServicePort, slices: &[&EndpointSlice], node: &NodeView) -> Vec<Entry> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let Some(protocol) = protocol(port.protocol.as_deref()) else { return Vec::new() };
    let members = members(slices, port, protocol);
    let affinity_seconds = affinity(service);
    let entry = |frontend, port: i32, backends: &[(IpAddr, u16)]| {
        let fits = |(ip, _): &&(IpAddr, u16)| match frontend {
            Frontend::Address(address) => ip.is_ipv4() == address.is_ipv4(),
            Frontend::NodePort => true,
        };
        let backends = backends.iter().filter(fits).copied().collect();
        Some(Entry { frontend, protocol, port: u16::try_from(port).ok()?, backends, affinity_seconds })
    };
    let inside = choose(&members, spec.internal_traffic_policy.as_deref() == Some("Local"), node);
    let outside = choose(&members, spec.external_traffic_policy.as_deref() == Some("Local"), node);
    let mut entries = Vec::new();
    for address in cluster_addresses(service) {
        entries.extend(entry(Frontend::Address(address), port.port, &inside));
    }
    for address in external_addresses(service) {
        entries.extend(entry(Frontend::Address(address), port.port, &outside));
    }
    if let Some(node_port) = port.node_port.filter(|number| *number > 0) {
        entries.extend(entry(Frontend::NodePort, node_port, &outside));
    }
    entries
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn affinity(service: &Service) -> Option<u32> {
    let spec = service.spec.as_ref()?;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    Some(configured.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY_SECONDS))
}

fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let listed: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if listed.is_empty() { spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect() } else { listed }
}

/// `spec.externalIPs`, and the load balancer's addresses unless its traffic comes through the balancer anyway.
fn external_addresses(service: &Service) -> Vec<IpAddr> {
    let external = service.spec.iter().flat_map(|s| s.external_ips.iter().flatten()).map(String::as_str);
    let balancer =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|b| b.ingress.iter().flatten());
    let balancer = balancer.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_deref());
    let mut addresses: Vec<IpAddr> = external.chain(balancer).filter_map(|ip| ip.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// An endpoint as the choice sees it.
#[derive(Clone, Debug)]
struct Member<'a> {
    backend: (IpAddr, u16),
    endpoint: &'a Endpoint,
}

impl Member<'_> {
    fn is_ready(&self) -> bool {
        self.endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
    }

    /// Still serves while it ends: the last resort.
    fn is_leaving(&self) -> bool {
        let conditions = self.endpoint.conditions.as_ref();
        conditions.is_some_and(|c| c.serving.or(c.ready) != Some(false) && c.terminating == Some(true))
    }

    fn is_on(&self, node: &NodeView) -> bool {
        self.endpoint.node_name.as_deref() == Some(node.name.as_str())
    }

    fn is_for_node(&self, node: &NodeView) -> bool {
        let hints = self.endpoint.hints.as_ref().and_then(|h| h.for_nodes.as_ref());
        hints.is_some_and(|list| list.iter().any(|hint| hint.name == node.name))
    }

    fn is_for_zone(&self, zone: &str) -> bool {
        let hints = self.endpoint.hints.as_ref().and_then(|h| h.for_zones.as_ref());
        hints.is_some_and(|list| list.iter().any(|hint| hint.name == zone))
    }
}

/// The endpoints that have the service's port, in the order of their addresses.
fn members<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, wanted: Protocol) -> Vec<Member<'a>> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut members = Vec::new();
    for slice in slices.iter().filter(|slice| !is_headless(slice)) {
        let found =
            slice.ports.iter().flatten().find(|p| {
                p.name.as_deref().unwrap_or_default() == name && protocol(p.protocol.as_deref()) == Some(wanted)
            });
        let Some(number) = found.and_then(|p| p.port).and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            if let Some(address) = endpoint.addresses.first().and_then(|text| text.parse().ok()) {
                members.push(Member { backend: (address, number), endpoint });
            }
        }
    }
    members.sort_by_key(|member| member.backend);
    members.dedup_by_key(|member| member.backend);
    members
}

fn is_headless(slice: &EndpointSlice) -> bool {
    slice.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(HEADLESS))
}

/// The ready endpoints, near ones if hints say so; the leaving ones when there are no others.
fn choose(members: &[Member<'_>], only_local: bool, node: &NodeView) -> Vec<(IpAddr, u16)> {
    let usable: Vec<&Member<'_>> = members.iter().filter(|m| !only_local || m.is_on(node)).collect();
    let ready: Vec<&Member<'_>> = usable.iter().copied().filter(|m| m.is_ready()).collect();
    let chosen = if ready.is_empty() {
        usable.into_iter().filter(|m| m.is_leaving()).collect()
    } else if only_local {
        ready
    } else {
        near(ready, node)
    };
    chosen.into_iter().map(|m| m.backend).collect()
}

/// Follows hints when every endpoint has them and one is for this node or zone; upstream's safeguard.
fn near<'a, 'b>(ready: Vec<&'a Member<'b>>, node: &NodeView) -> Vec<&'a Member<'b>> {
    let of_node: Vec<_> = ready.iter().copied().filter(|m| m.is_for_node(node)).collect();
    if !of_node.is_empty() {
        return of_node;
    }
    let Some(zone) = node.zone.as_deref() else { return ready };
    let hinted =
        |m: &&Member<'_>| m.endpoint.hints.as_ref().and_then(|h| h.for_zones.as_ref()).is_some_and(|z| !z.is_empty());
    let of_zone: Vec<_> = ready.iter().copied().filter(|m| m.is_for_zone(zone)).collect();
    if of_zone.is_empty() || !ready.iter().all(hinted) { ready } else { of_zone }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        let mut service = json!({"metadata": {"name": "web", "namespace": "n"}, "spec": {
            "clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        for (key, value) in spec.as_object().unwrap() {
            service["spec"][key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    /// A slice from words: `10.0.0.1`, `10.0.0.2 down`, `10.0.0.3 leaving`, `... on=n2`, `... zone=a`, `... for=n2`.
    fn slice(endpoints: &[&str]) -> EndpointSlice {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|text| {
                let mut words = text.split(' ');
                let mut e = json!({"addresses": [words.next()], "nodeName": "n1", "conditions": {"ready": true}});
                for word in words {
                    match word.split_once('=') {
                        None if word == "down" => e["conditions"] = json!({"ready": false, "serving": false}),
                        None => e["conditions"] = json!({"ready": false, "serving": true, "terminating": true}),
                        Some(("on", node)) => e["nodeName"] = json!(node),
                        Some(("zone", zone)) => e["hints"] = json!({"forZones": [{"name": zone}]}),
                        Some((_, node)) => e["hints"] = json!({"forNodes": [{"name": node}]}),
                    }
                }
                e
            })
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
        .unwrap()
    }

    fn check(stories: &[(Value, &[&str])], expected: Expect) {
        let node = NodeView { name: "n1".into(), zone: Some("a".into()) };
        let mut lines = String::new();
        for (spec, endpoints) in stories {
            lines.push_str(&format!("{spec} {} |", endpoints.join(", ")));
            for entry in entries(&service(spec.clone()), &[&slice(endpoints)], &node) {
                let frontend = match entry.frontend {
                    Frontend::Address(address) => address.to_string(),
                    Frontend::NodePort => "node".into(),
                };
                let backends: Vec<String> = entry.backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
                let affinity = entry.affinity_seconds.map(|s| format!(" {s}s")).unwrap_or_default();
                lines.push_str(&format!(" [{frontend}:{}{affinity} -> {}]", entry.port, backends.join(" ")));
            }
            lines.push('\n');
        }
        expected.assert_eq(&lines);
    }

    #[test]
    fn what_leads_where() {
        let ports = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
        check(
            &[
                (json!({}), &["10.0.0.2", "10.0.0.1", "10.0.0.3 down"]),
                (json!({}), &["10.0.0.1 down", "10.0.0.2 leaving"]),
                (json!({}), &["10.0.0.1", "10.0.0.2 leaving"]),
                (json!({}), &[]),
                (json!({"clusterIP": "None"}), &["10.0.0.1"]),
                (json!({"type": "ExternalName", "externalName": "x"}), &["10.0.0.1"]),
                (json!({"sessionAffinity": "ClientIP"}), &["10.0.0.1"]),
                (json!({"ports": ports, "externalIPs": ["203.0.113.5"]}), &["10.0.0.1"]),
                (json!({"ports": ports, "externalTrafficPolicy": "Local"}), &["10.0.0.1 on=n2", "10.0.0.2"]),
                (json!({"internalTrafficPolicy": "Local"}), &["10.0.0.1 on=n2"]),
                (json!({}), &["10.0.0.1 zone=a", "10.0.0.2 zone=b"]),
                (json!({}), &["10.0.0.1 zone=b", "10.0.0.2 zone=b"]),
                (json!({}), &["10.0.0.1 zone=a", "10.0.0.2"]),
                (json!({}), &["10.0.0.1 for=n1", "10.0.0.2 for=n2"]),
                (json!({"ports": [{"name": "other", "port": 81}]}), &["10.0.0.1"]),
            ],
            expect![[r#"
                {} 10.0.0.2, 10.0.0.1, 10.0.0.3 down | [10.43.0.9:80 -> 10.0.0.1:8080 10.0.0.2:8080]
                {} 10.0.0.1 down, 10.0.0.2 leaving | [10.43.0.9:80 -> 10.0.0.2:8080]
                {} 10.0.0.1, 10.0.0.2 leaving | [10.43.0.9:80 -> 10.0.0.1:8080]
                {}  | [10.43.0.9:80 -> ]
                {"clusterIP":"None"} 10.0.0.1 |
                {"externalName":"x","type":"ExternalName"} 10.0.0.1 |
                {"sessionAffinity":"ClientIP"} 10.0.0.1 | [10.43.0.9:80 10800s -> 10.0.0.1:8080]
                {"externalIPs":["203.0.113.5"],"ports":[{"name":"http","nodePort":30080,"port":80}]} 10.0.0.1 | [10.43.0.9:80 -> 10.0.0.1:8080] [203.0.113.5:80 -> 10.0.0.1:8080] [node:30080 -> 10.0.0.1:8080]
                {"externalTrafficPolicy":"Local","ports":[{"name":"http","nodePort":30080,"port":80}]} 10.0.0.1 on=n2, 10.0.0.2 | [10.43.0.9:80 -> 10.0.0.1:8080 10.0.0.2:8080] [node:30080 -> 10.0.0.2:8080]
                {"internalTrafficPolicy":"Local"} 10.0.0.1 on=n2 | [10.43.0.9:80 -> ]
                {} 10.0.0.1 zone=a, 10.0.0.2 zone=b | [10.43.0.9:80 -> 10.0.0.1:8080]
                {} 10.0.0.1 zone=b, 10.0.0.2 zone=b | [10.43.0.9:80 -> 10.0.0.1:8080 10.0.0.2:8080]
                {} 10.0.0.1 zone=a, 10.0.0.2 | [10.43.0.9:80 -> 10.0.0.1:8080 10.0.0.2:8080]
                {} 10.0.0.1 for=n1, 10.0.0.2 for=n2 | [10.43.0.9:80 -> 10.0.0.1:8080]
                {"ports":[{"name":"other","port":81}]} 10.0.0.1 | [10.43.0.9:81 -> ]
            "#]],
        );
    }
}
