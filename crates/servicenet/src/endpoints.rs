//! Service and pods -> Endpoints object and EndpointSlices.
//!
//! Upstream: pkg/controller/endpoint, staging/src/k8s.io/endpointslice, pkg/controller/endpointslicemirroring.

mod mirror;
mod object;
mod slices;
#[cfg(test)]
mod stories;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use mirror::{MirrorInput, mirror, wants_mirroring};
pub use object::{ObjectPlan, plan_object};
pub use slices::{SliceInput, SlicePlan, plan_slices};

/// The label by which a slice belongs to its service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says which controller keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
pub const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label on Endpoints and slices of services without a cluster address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// When the change happened that an object reports, for measuring how long it took to become known.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The label that says which controller keeps an Endpoints object.
pub const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";
/// The label that keeps an Endpoints object from being mirrored.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Most endpoints in one slice (upstream's default of `--max-endpoints-per-slice`).
pub const SLICE_ENDPOINTS_MAX: usize = 100;
/// Most addresses in one Endpoints object; the rest is left out and the object says so.
pub const OBJECT_ADDRESSES_MAX: usize = 1000;

/// Whether the controllers keep endpoints for this service: it selects pods and is not an alias.
pub fn is_managed(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|s| {
        s.selector.as_ref().is_some_and(|map| !map.is_empty()) && s.type_.as_deref() != Some("ExternalName")
    })
}

/// Whether the service selects the pod.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(k, v)| labels.is_some_and(|l| l.get(k) == Some(v)))
    })
}

/// Whether the service has no cluster address.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// `IPv4` and `IPv6`, as slices name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The families that a service wants endpoints of; from its cluster address where the list is missing.
pub(crate) fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|s| s.ip_families.as_ref()).filter(|list| !list.is_empty());
    match listed {
        Some(list) => list.iter().map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 }).collect(),
        None if spec.and_then(|s| s.cluster_ip.as_deref()).is_some_and(|a| a.contains(':')) => vec![Family::V6],
        None => vec![Family::V4],
    }
}

/// One port of an endpoint as compared and sorted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) protocol: String,
    pub(crate) app_protocol: Option<String>,
}

/// The service's ports as this pod has them; a named port that the pod lacks is left out.
pub(crate) fn ports_of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    ports.iter().filter_map(|port| port_of(port, pod)).collect()
}

fn port_of(port: &ServicePort, pod: &Pod) -> Option<Port> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        number,
        protocol,
        app_protocol: port.app_protocol.clone(),
    })
}

/// Looks a port name up in the containers, then in the sidecars (init containers that are always restarted).
fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|port| port.container_port)
}

/// What a pod is as an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

/// The pod's condition, or `None` when it can be no endpoint: it has ended, or has no address yet.
pub(crate) fn condition(pod: &Pod) -> Option<Condition> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) || addresses(pod).is_empty() {
        return None;
    }
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Some(Condition { serving: ready, terminating: pod.metadata.deletion_timestamp.is_some() })
}

/// All addresses of a pod, the first one first.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = pod.status.as_ref() else { return Vec::new() };
    let listed: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|entry| entry.ip.parse().ok()).collect();
    if listed.is_empty() { status.pod_ip.iter().filter_map(|ip| ip.parse().ok()).collect() } else { listed }
}

/// The pod's host name in this service's domain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|name| ours && !name.is_empty())
}

/// When the pod's readiness changed last.
pub(crate) fn changed_at(pod: &Pod) -> Option<&Time> {
    let ready = pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "Ready")?;
    ready.last_transition_time.as_ref()
}

/// The time for the trigger annotation: the earliest of the changes that an update reports.
pub(crate) fn earliest<'a>(times: impl Iterator<Item = &'a Time>) -> Option<String> {
    times.map(|time| time.0).min().map(|time| time.to_string())
}

/// Writes or removes one annotation.
pub(crate) fn set_annotation(annotations: &mut Option<BTreeMap<String, String>>, name: &str, value: Option<String>) {
    match value {
        Some(value) => {
            annotations.get_or_insert_default().insert(name.into(), value);
        }
        None => {
            if let Some(map) = annotations {
                map.remove(name);
            }
        }
    }
    if annotations.as_ref().is_some_and(BTreeMap::is_empty) {
        *annotations = None;
    }
}

/// Five letters that stand for `seed`, from upstream's alphabet for generated names (no vowels, no look-alikes).
pub(crate) fn suffix(seed: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // FNV-1a, 64 bits: names must be the same in every process and version.
    let mut hash =
        seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut text = String::new();
    for _ in 0..5 {
        text.push(char::from(ALPHABET[(hash % ALPHABET.len() as u64) as usize]));
        hash /= ALPHABET.len() as u64;
    }
    text
}

/// Whether two states of a pod are the same to every service: nothing that endpoints are made from differs.
pub fn same_endpoint(old: &Pod, new: &Pod) -> bool {
    let place = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        let of = |get: fn(&k8s_openapi::api::core::v1::PodSpec) -> &Option<String>| spec.and_then(|s| get(s).clone());
        (of(|s| &s.node_name), of(|s| &s.hostname), of(|s| &s.subdomain))
    };
    old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && condition(old) == condition(new)
        && addresses(old) == addresses(new)
        && place(old) == place(new)
}

/// The service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// Whether a slice is kept by the named controller.
pub fn is_kept_by(slice: &EndpointSlice, controller: &str) -> bool {
    slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|name| name == controller)
}
