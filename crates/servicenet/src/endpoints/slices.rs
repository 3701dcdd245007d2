//! The slices of one service: what is wanted, and the smallest change that leads there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::{
    Family, HEADLESS, MANAGED_BY, Port, SERVICE_NAME, SLICE_CONTROLLER, SLICE_ENDPOINTS_MAX, TRIGGER_TIME, addresses,
    changed_at, condition, earliest, families, hostname, is_headless, ports_of, publishes_not_ready, selects,
    set_annotation, suffix,
};

/// What the slices of a service are decided from.
#[derive(Clone, Copy, Debug)]
pub struct SliceInput<'a> {
    pub service: &'a Service,
    /// Pods of the service's namespace; those that it does not select are passed over.
    pub pods: &'a [&'a Pod],
    /// Zone by node name (label `topology.kubernetes.io/zone`).
    pub zones: &'a BTreeMap<String, String>,
    /// The slices that the controller keeps for this service now.
    pub existing: &'a [&'a EndpointSlice],
}

/// The writes that make the slices right. Slices in `update` keep their resource version: a conflict means "look again".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlicePlan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<String>,
}

impl SlicePlan {
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }
}

/// Decides what to write. Endpoints stay in the slice they are in; a slice that needs no change is not touched.
pub fn plan_slices(input: SliceInput<'_>) -> SlicePlan {
    let mut groups = wanted(&input);
    let mut draft = Draft::default();
    for slice in input.existing {
        let key = (slice.address_type.clone(), ports_key(slice));
        match groups.get_mut(&key) {
            Some(group) => group.slices.push(slice),
            None => draft.remove.push(slice),
        }
    }
    for (key, group) in groups {
        fill(key, group, &mut draft);
    }
    draft.finish(&input)
}

type GroupKey = (String, Vec<Port>);

/// The endpoints of one address family that have the same ports, and the slices that are there for them.
#[derive(Debug, Default)]
struct Group<'a> {
    wanted: BTreeMap<String, Wanted<'a>>,
    slices: Vec<&'a EndpointSlice>,
}

#[derive(Debug)]
struct Wanted<'a> {
    endpoint: Endpoint,
    changed_at: Option<&'a Time>,
}

fn wanted<'a>(input: &SliceInput<'a>) -> BTreeMap<GroupKey, Group<'a>> {
    let mut groups: BTreeMap<GroupKey, Group<'a>> = BTreeMap::new();
    for pod in input.pods.iter().filter(|pod| selects(input.service, pod)) {
        for family in families(input.service) {
            let Some(endpoint) = endpoint_of(input, pod, family) else { continue };
            let mut ports = ports_of(input.service, pod);
            ports.sort();
            let group = groups.entry((family.name().to_owned(), ports)).or_default();
            group.wanted.insert(identity(&endpoint), Wanted { endpoint, changed_at: changed_at(pod) });
        }
    }
    groups
}

/// What makes an endpoint the same one over time: its pod and address.
fn identity(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let part = |value: Option<&String>| value.cloned().unwrap_or_default();
    format!(
        "{}/{}/{}",
        part(target.and_then(|t| t.name.as_ref())),
        part(target.and_then(|t| t.uid.as_ref())),
        endpoint.addresses.join(",")
    )
}

fn endpoint_of(input: &SliceInput<'_>, pod: &Pod, family: Family) -> Option<Endpoint> {
    let state = condition(pod)?;
    let addresses: Vec<String> =
        addresses(pod).iter().filter(|a| Family::of(a) == family).map(ToString::to_string).collect();
    if addresses.is_empty() {
        return None;
    }
    let ready = publishes_not_ready(input.service) || (state.serving && !state.terminating);
    let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
    let zone = node_name.as_ref().and_then(|node| input.zones.get(node)).cloned();
    let hints = if ready { hints(input.service, zone.as_deref(), node_name.as_deref()) } else { None };
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(state.serving),
            terminating: Some(state.terminating),
        }),
        hostname: hostname(input.service, pod),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        node_name,
        zone,
        hints,
        deprecated_topology: None,
    })
}

/// The hints that `spec.trafficDistribution` asks for.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = Some(vec![ForZone { name: zone?.to_owned() }]);
    match distribution {
        "PreferClose" | "PreferSameZone" => Some(EndpointHints { for_zones, for_nodes: None }),
        "PreferSameNode" => {
            Some(EndpointHints { for_zones, for_nodes: node.map(|name| vec![ForNode { name: name.to_owned() }]) })
        }
        _ => None,
    }
}

fn ports_key(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<Port> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().unwrap_or_default(),
            number: port.port.unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}

/// The slices as they shall be, before names and labels.
#[derive(Debug, Default)]
struct Draft<'a> {
    keep: Vec<Kept<'a>>,
    create: Vec<(GroupKey, Vec<Endpoint>)>,
    remove: Vec<&'a EndpointSlice>,
    changes: Vec<&'a Time>,
}

#[derive(Debug)]
struct Kept<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Keeps what is right, then puts new endpoints into changed slices, then into the fullest unchanged one that holds them
/// all, then into new slices.
fn fill<'a>(key: GroupKey, mut group: Group<'a>, draft: &mut Draft<'a>) {
    let mut kept: Vec<Kept<'a>> = Vec::new();
    for slice in &group.slices {
        let one = keep(slice, &mut group.wanted, &mut draft.changes);
        if one.endpoints.is_empty() { draft.remove.push(slice) } else { kept.push(one) }
    }
    draft.changes.extend(group.wanted.values().filter_map(|w| w.changed_at));
    let mut rest: Vec<Endpoint> = group.wanted.into_values().map(|w| w.endpoint).collect();
    kept.sort_by_key(|k| std::cmp::Reverse(k.endpoints.len()));
    for one in kept.iter_mut().filter(|k| k.changed) {
        let room = SLICE_ENDPOINTS_MAX.saturating_sub(one.endpoints.len()).min(rest.len());
        one.endpoints.extend(rest.drain(..room));
    }
    let fits = |k: &&mut Kept<'_>| k.endpoints.len() + rest.len() % SLICE_ENDPOINTS_MAX <= SLICE_ENDPOINTS_MAX;
    if !rest.len().is_multiple_of(SLICE_ENDPOINTS_MAX)
        && let Some(one) = kept.iter_mut().filter(|k| !k.changed).find(fits)
    {
        one.endpoints.extend(rest.drain(..rest.len() % SLICE_ENDPOINTS_MAX));
        one.changed = true;
    }
    draft.keep.extend(kept);
    while !rest.is_empty() {
        let part = rest.drain(..rest.len().min(SLICE_ENDPOINTS_MAX)).collect();
        draft.create.push((key.clone(), part));
    }
}

/// Takes out of `wanted` what the slice holds, in the form that is wanted now.
fn keep<'a>(
    slice: &'a EndpointSlice,
    wanted: &mut BTreeMap<String, Wanted<'a>>,
    changes: &mut Vec<&'a Time>,
) -> Kept<'a> {
    let mut kept = Kept { slice, endpoints: Vec::new(), changed: false };
    for endpoint in slice.endpoints.iter().flatten() {
        match wanted.remove(&identity(endpoint)) {
            Some(now) => {
                if now.endpoint != *endpoint {
                    kept.changed = true;
                    changes.extend(now.changed_at);
                }
                kept.endpoints.push(now.endpoint);
            }
            None => kept.changed = true,
        }
    }
    kept
}

impl<'a> Draft<'a> {
    fn finish(mut self, input: &SliceInput<'a>) -> SlicePlan {
        if self.keep.is_empty() && self.create.is_empty() {
            // Upstream keeps one empty slice, so that "no endpoints" and "not looked at yet" differ.
            let family = families(input.service).first().copied().unwrap_or(Family::V4);
            self.create.push(((family.name().to_owned(), Vec::new()), Vec::new()));
        }
        if input.existing.is_empty() {
            self.changes.extend(input.service.metadata.creation_timestamp.as_ref());
        }
        let trigger = earliest(self.changes.iter().copied());
        let mut plan = SlicePlan::default();
        for kept in self.keep {
            if kept.changed || !is_current(kept.slice, input.service) {
                let ports = kept.slice.ports.clone();
                plan.update.push(rewritten(kept.slice, kept.endpoints, ports, input.service, trigger.clone()));
            }
        }
        let mut names: BTreeSet<String> = input.existing.iter().filter_map(|s| s.metadata.name.clone()).collect();
        for (key, endpoints) in self.create {
            // A slice that would be removed is used again.
            match self.remove.iter().position(|slice| slice.address_type == key.0) {
                Some(at) => {
                    let slice = self.remove.remove(at);
                    let unchanged = endpoints.is_empty()
                        && slice.endpoints.as_ref().is_none_or(Vec::is_empty)
                        && ports_key(slice) == key.1
                        && is_current(slice, input.service);
                    if !unchanged {
                        let ports = Some(ports(&key.1));
                        plan.update.push(rewritten(slice, endpoints, ports, input.service, trigger.clone()));
                    }
                }
                None => plan.create.push(new_slice(input.service, &key, endpoints, trigger.clone(), &mut names)),
            }
        }
        plan.delete = self.remove.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
        plan
    }
}

fn ports(key: &[Port]) -> Vec<EndpointPort> {
    key.iter()
        .map(|port| EndpointPort {
            name: Some(port.name.clone()),
            port: Some(port.number),
            protocol: Some(port.protocol.clone()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect()
}

/// The labels of a service's slices: its own, less the reserved ones, and the controller's.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let own = service.metadata.labels.iter().flatten();
    let mut labels: BTreeMap<String, String> = own
        .filter(|(name, _)| ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), SLICE_CONTROLLER.into());
    labels
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        name: service.metadata.name.clone().unwrap_or_default(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether labels and owner are those of the service.
fn is_current(slice: &EndpointSlice, service: &Service) -> bool {
    slice.metadata.labels.as_ref() == Some(&labels(service))
        && slice.metadata.owner_references.as_deref() == Some(&[owner(service)])
}

fn rewritten(
    slice: &EndpointSlice,
    endpoints: Vec<Endpoint>,
    ports: Option<Vec<EndpointPort>>,
    service: &Service,
    trigger: Option<String>,
) -> EndpointSlice {
    let mut slice = slice.clone();
    slice.endpoints = Some(endpoints);
    slice.ports = ports;
    slice.metadata.labels = Some(labels(service));
    slice.metadata.owner_references = Some(vec![owner(service)]);
    set_annotation(&mut slice.metadata.annotations, TRIGGER_TIME, trigger);
    slice
}

fn new_slice(
    service: &Service,
    key: &GroupKey,
    endpoints: Vec<Endpoint>,
    trigger: Option<String>,
    names: &mut BTreeSet<String>,
) -> EndpointSlice {
    let base = format!("{}-", service.metadata.name.as_deref().unwrap_or_default());
    let name = free_name(&base, service.metadata.uid.as_deref().unwrap_or_default(), key, names);
    let mut metadata = ObjectMeta {
        name: Some(name),
        generate_name: Some(base),
        namespace: service.metadata.namespace.clone(),
        labels: Some(labels(service)),
        owner_references: Some(vec![owner(service)]),
        ..ObjectMeta::default()
    };
    set_annotation(&mut metadata.annotations, TRIGGER_TIME, trigger);
    EndpointSlice { address_type: key.0.clone(), endpoints: Some(endpoints), metadata, ports: Some(ports(&key.1)) }
}

/// A name that the same decision always finds again, so that a repeated plan creates nothing twice.
fn free_name(base: &str, uid: &str, key: &GroupKey, names: &mut BTreeSet<String>) -> String {
    let mut number = 0u32;
    loop {
        let name = format!("{base}{}", suffix(&format!("{uid}/{key:?}/{number}")));
        if names.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}
