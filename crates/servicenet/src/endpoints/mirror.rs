//! Endpoints made by hand, for services that select no pods -> slices, so that everything reads slices only.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::{
    Family, MANAGED_BY, MIRRORING_CONTROLLER, SERVICE_NAME, SKIP_MIRROR, SLICE_ENDPOINTS_MAX, SlicePlan, TRIGGER_TIME,
    suffix,
};

/// Annotation of an Endpoints object that only serves an election.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most addresses of one subset that are mirrored (upstream's default of `--mirroring-max-endpoints-per-subset`).
const SUBSET_ADDRESSES_MAX: usize = 1000;

/// What the mirrored slices are decided from.
#[derive(Clone, Copy, Debug)]
pub struct MirrorInput<'a> {
    pub endpoints: Option<&'a Endpoints>,
    pub service: Option<&'a Service>,
    /// The slices that the mirroring controller keeps for this name now.
    pub existing: &'a [&'a EndpointSlice],
}

/// Whether these Endpoints are to be mirrored for this service.
pub fn wants_mirroring(endpoints: &Endpoints, service: &Service) -> bool {
    let selects = service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|map| !map.is_empty());
    let skipped = endpoints.metadata.labels.as_ref().and_then(|l| l.get(SKIP_MIRROR)).is_some_and(|v| v == "true");
    let election = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    !selects && !skipped && !election
}

/// Decides the slices that show the Endpoints object.
pub fn mirror(input: MirrorInput<'_>) -> SlicePlan {
    let wanted = match (input.endpoints, input.service) {
        (Some(endpoints), Some(service)) if wants_mirroring(endpoints, service) => slices(endpoints),
        _ => Vec::new(),
    };
    let names: BTreeSet<&str> = wanted.iter().filter_map(|s| s.metadata.name.as_deref()).collect();
    let mut plan = SlicePlan {
        delete: input
            .existing
            .iter()
            .filter_map(|s| s.metadata.name.clone())
            .filter(|name| !names.contains(name.as_str()))
            .collect(),
        ..SlicePlan::default()
    };
    for slice in wanted {
        match input.existing.iter().find(|now| now.metadata.name == slice.metadata.name) {
            None => plan.create.push(slice),
            Some(now) if same(now, &slice) => {}
            Some(now) => plan.update.push(onto(now, slice)),
        }
    }
    plan
}

fn same(now: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    now.endpoints == wanted.endpoints
        && now.ports == wanted.ports
        && now.metadata.labels == wanted.metadata.labels
        && now.metadata.annotations == wanted.metadata.annotations
}

fn onto(now: &EndpointSlice, wanted: EndpointSlice) -> EndpointSlice {
    let mut metadata = now.metadata.clone();
    metadata.labels = wanted.metadata.labels;
    metadata.annotations = wanted.metadata.annotations;
    EndpointSlice { metadata, ..wanted }
}

fn slices(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for (number, subset) in endpoints.subsets.iter().flatten().enumerate() {
        for family in [Family::V4, Family::V6] {
            let list = endpoints_of(subset, family);
            for (part, chunk) in list.chunks(SLICE_ENDPOINTS_MAX).enumerate() {
                slices.push(slice(endpoints, subset, family, chunk.to_vec(), &format!("{number}/{part}")));
            }
        }
    }
    slices
}

fn endpoints_of(subset: &EndpointSubset, family: Family) -> Vec<Endpoint> {
    let ready = subset.addresses.iter().flatten().map(|a| (a, true));
    let other = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
    ready
        .chain(other)
        .filter(|(a, _)| a.ip.parse().is_ok_and(|ip| Family::of(&ip) == family))
        .take(SUBSET_ADDRESSES_MAX)
        .map(|(address, ready)| endpoint(address, ready))
        .collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: None, terminating: None }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(
    endpoints: &Endpoints,
    subset: &EndpointSubset,
    family: Family,
    list: Vec<Endpoint>,
    place: &str,
) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let uid = endpoints.metadata.uid.clone().unwrap_or_default();
    let ports = subset
        .ports
        .iter()
        .flatten()
        .map(|port| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(port.port),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    let mut labels: BTreeMap<String, String> = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MIRRORING_CONTROLLER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    annotations.remove(TRIGGER_TIME);
    EndpointSlice {
        address_type: family.name().into(),
        endpoints: Some(list),
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", suffix(&format!("{uid}/{}/{place}", family.name())))),
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|a| !a.is_empty()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Endpoints".into(),
                name,
                uid,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        ports: Some(ports),
    }
}
