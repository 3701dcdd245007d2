//! The Endpoints object of a service: the older form, one object with the ready and the other addresses of each port set.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{
    ENDPOINTS_CONTROLLER, ENDPOINTS_MANAGED_BY, Family, HEADLESS, OBJECT_ADDRESSES_MAX, OVER_CAPACITY, Port,
    TRIGGER_TIME, addresses, changed_at, condition, earliest, families, hostname, ports_of, publishes_not_ready,
    selects, set_annotation,
};

/// What to do with the Endpoints object.
#[derive(Clone, Debug, PartialEq)]
pub enum ObjectPlan {
    Keep,
    Create(Box<Endpoints>),
    /// Keeps the resource version: a conflict means "look again".
    Update(Box<Endpoints>),
}

/// Decides the Endpoints object of `service`.
pub fn plan_object(service: &Service, pods: &[&Pod], existing: Option<&Endpoints>) -> ObjectPlan {
    let (members, times) = members(service, pods);
    let (subsets, truncated) = truncate(subsets(members));
    let subsets = Some(subsets).filter(|s| !s.is_empty());
    let labels = labels(service);
    let Some(now) = existing else {
        let mut metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        let created = service.metadata.creation_timestamp.iter();
        annotate(&mut metadata, earliest(created.chain(times)), truncated);
        return ObjectPlan::Create(Box::new(Endpoints { metadata, subsets }));
    };
    let marked = now.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY)).is_some();
    let same_subsets = now.subsets.as_deref().unwrap_or_default() == subsets.as_deref().unwrap_or_default();
    if same_subsets && marked == truncated && now.metadata.labels.as_ref() == Some(&labels) {
        return ObjectPlan::Keep;
    }
    let known: BTreeSet<&str> = now.subsets.iter().flatten().flat_map(ready_names).collect();
    let wanted: BTreeSet<&str> = subsets.iter().flatten().flat_map(ready_names).collect();
    let is_new = |pod: &&&Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        known.contains(name) != wanted.contains(name)
    };
    let trigger = earliest(pods.iter().filter(is_new).filter_map(|pod| changed_at(pod)));
    let mut next = Endpoints { metadata: now.metadata.clone(), subsets };
    next.metadata.labels = Some(labels);
    annotate(&mut next.metadata, trigger, truncated);
    ObjectPlan::Update(Box::new(next))
}

fn annotate(metadata: &mut ObjectMeta, trigger: Option<String>, truncated: bool) {
    set_annotation(&mut metadata.annotations, TRIGGER_TIME, trigger);
    set_annotation(&mut metadata.annotations, OVER_CAPACITY, truncated.then(|| "truncated".into()));
}

fn ready_names(subset: &EndpointSubset) -> impl Iterator<Item = &str> {
    subset.addresses.iter().flatten().filter_map(|a| a.target_ref.as_ref()?.name.as_deref())
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let address = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    if address.is_empty() || address == "None" {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    labels.insert(ENDPOINTS_MANAGED_BY.into(), ENDPOINTS_CONTROLLER.into());
    labels
}

/// One address behind one port; `None`: a headless service without ports.
#[derive(Debug)]
struct Member {
    port: Option<Port>,
    address: EndpointAddress,
    ready: bool,
}

fn members<'a>(service: &Service, pods: &[&'a Pod]) -> (Vec<Member>, Vec<&'a Time>) {
    let mut members = Vec::new();
    let mut times = Vec::new();
    for pod in pods.iter().filter(|pod| selects(service, pod)) {
        let (Some(state), Some(address)) = (condition(pod), address_of(service, pod)) else { continue };
        let tolerant = publishes_not_ready(service);
        if state.terminating && !tolerant {
            continue;
        }
        let ready = state.serving || tolerant;
        times.extend(changed_at(pod));
        let has_ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).is_some_and(|p| !p.is_empty());
        if !has_ports {
            members.push(Member { port: None, address, ready });
            continue;
        }
        for port in ports_of(service, pod) {
            members.push(Member { port: Some(port), address: address.clone(), ready });
        }
    }
    (members, times)
}

fn address_of(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let family = families(service).first().copied()?;
    let ip = addresses(pod).into_iter().find(|a| Family::of(a) == family)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

/// An address as sorted: by its text, then by its pod, as upstream does.
type AddressKey = (String, String);

/// An address and whether it is ready.
type ReadyAddress = (EndpointAddress, bool);

/// Ports with the same addresses share a subset.
fn subsets(members: Vec<Member>) -> Vec<EndpointSubset> {
    let mut by_port: BTreeMap<Option<Port>, BTreeMap<AddressKey, (EndpointAddress, bool)>> = BTreeMap::new();
    for member in members {
        let uid = member.address.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
        let key = (member.address.ip.clone(), uid);
        by_port.entry(member.port).or_default().insert(key, (member.address, member.ready));
    }
    let mut by_addresses: Vec<(Vec<ReadyAddress>, Vec<Port>)> = Vec::new();
    for (port, addresses) in by_port {
        let addresses: Vec<_> = addresses.into_values().collect();
        match by_addresses.iter_mut().find(|(known, _)| *known == addresses) {
            Some((_, ports)) => ports.extend(port),
            None => by_addresses.push((addresses, port.into_iter().collect())),
        }
    }
    by_addresses.into_iter().map(|(addresses, ports)| subset(addresses, ports)).collect()
}

fn subset(addresses: Vec<ReadyAddress>, ports: Vec<Port>) -> EndpointSubset {
    let (ready, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
    let list = |part: Vec<(EndpointAddress, bool)>| {
        Some(part.into_iter().map(|(address, _)| address).collect::<Vec<_>>()).filter(|l| !l.is_empty())
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|port| EndpointPort {
            name: Some(port.name).filter(|n| !n.is_empty()),
            port: port.number,
            protocol: Some(port.protocol),
            app_protocol: port.app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: list(ready),
        not_ready_addresses: list(other),
        ports: Some(ports).filter(|p| !p.is_empty()),
    }
}

/// Leaves at most [`OBJECT_ADDRESSES_MAX`] addresses, the ready ones first.
fn truncate(mut subsets: Vec<EndpointSubset>) -> (Vec<EndpointSubset>, bool) {
    let mut room = OBJECT_ADDRESSES_MAX;
    let mut truncated = false;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            truncated |= addresses.len() > room;
            addresses.truncate(room);
            room -= addresses.len();
        }
    };
    for subset in &mut subsets {
        cut(&mut subset.addresses);
    }
    for subset in &mut subsets {
        cut(&mut subset.not_ready_addresses);
    }
    (subsets, truncated)
}
