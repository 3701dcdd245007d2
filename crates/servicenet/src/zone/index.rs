//! What the zone knows, kept up to date object by object.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::ZoneConfig;
use crate::endpoints::SERVICE_NAME;

/// The names of a cluster. Reads take `&self` and touch no other state.
#[derive(Debug)]
pub struct Zone {
    pub(super) domain: String,
    pub(super) server: Option<IpAddr>,
    pub(super) ranges: Vec<(IpAddr, u8)>,
    namespaces: HashSet<String>,
    services: HashMap<String, HashMap<String, Entry>>,
    /// Which services an address belongs to, as cluster address or as endpoint.
    by_address: HashMap<IpAddr, Vec<Place>>,
    /// Which service a slice belongs to, by namespace and name: the label may change.
    slice_service: HashMap<(String, String), String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) service: String,
    /// `None`: a cluster address of the service.
    pub(super) slice: Option<String>,
}

/// All that is known of one service name; slices may be there before or after the service.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) service: Option<ServiceView>,
    pub(super) slices: BTreeMap<String, SliceView>,
}

/// A service as names see it.
#[derive(Debug)]
pub(super) struct ServiceView {
    pub(super) form: Form,
    pub(super) ports: Vec<PortView>,
}

#[derive(Debug)]
pub(super) enum Form {
    Headless,
    Virtual(Vec<IpAddr>),
    Alias(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortView {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) number: u16,
}

/// The ready endpoints of a slice.
#[derive(Debug, Default)]
pub(super) struct SliceView {
    pub(super) ports: Vec<PortView>,
    pub(super) endpoints: Vec<EndpointView>,
    /// Places in `endpoints` by label.
    pub(super) by_label: HashMap<String, Vec<usize>>,
}

#[derive(Debug)]
pub(super) struct EndpointView {
    pub(super) address: IpAddr,
    /// The name below the service: the host name, or the address with dashes.
    pub(super) label: String,
    /// Whether the label is a host name, so that the address leads back to it.
    pub(super) named: bool,
}

impl Zone {
    pub fn new(config: ZoneConfig) -> Self {
        Self {
            domain: config.domain.trim_matches('.').to_ascii_lowercase(),
            server: config.server,
            ranges: config.ranges,
            namespaces: HashSet::new(),
            services: HashMap::new(),
            by_address: HashMap::new(),
            slice_service: HashMap::new(),
        }
    }

    /// The zone's own name, lower-case, without the last dot.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    pub fn set_namespace(&mut self, name: &str) {
        self.namespaces.insert(name.to_owned());
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Takes in a service as it is now.
    pub fn set_service(&mut self, service: &Service) {
        let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else { return };
        self.remove_service(namespace, name);
        let Some(view) = view_service(service) else { return };
        if let Form::Virtual(addresses) = &view.form {
            let place = Place { namespace: namespace.clone(), service: name.clone(), slice: None };
            for address in addresses {
                self.by_address.entry(*address).or_default().push(place.clone());
            }
        }
        self.entry(namespace, name).service = Some(view);
    }

    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        let Some(entry) = self.services.get_mut(namespace).and_then(|names| names.get_mut(name)) else { return };
        let old = entry.service.take();
        if let Some(ServiceView { form: Form::Virtual(addresses), .. }) = old {
            let place = Place { namespace: namespace.to_owned(), service: name.to_owned(), slice: None };
            self.forget(addresses.iter().copied(), &place);
        }
        self.prune(namespace, name);
    }

    /// Takes in a slice as it is now. A slice of no service is forgotten.
    pub fn set_slice(&mut self, slice: &EndpointSlice) {
        let (Some(namespace), Some(name)) = (&slice.metadata.namespace, &slice.metadata.name) else { return };
        self.remove_slice(namespace, name);
        let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else { return };
        let view = view_slice(slice);
        let place = Place { namespace: namespace.clone(), service: service.clone(), slice: Some(name.clone()) };
        for endpoint in &view.endpoints {
            self.by_address.entry(endpoint.address).or_default().push(place.clone());
        }
        self.entry(namespace, service).slices.insert(name.clone(), view);
        self.slice_service.insert((namespace.clone(), name.clone()), service.clone());
    }

    pub fn remove_slice(&mut self, namespace: &str, name: &str) {
        let Some(service) = self.slice_service.remove(&(namespace.to_owned(), name.to_owned())) else { return };
        let entry = self.services.get_mut(namespace).and_then(|names| names.get_mut(&service));
        if let Some(view) = entry.and_then(|entry| entry.slices.remove(name)) {
            let place =
                Place { namespace: namespace.to_owned(), service: service.clone(), slice: Some(name.to_owned()) };
            self.forget(view.endpoints.iter().map(|e| e.address), &place);
        }
        self.prune(namespace, &service);
    }

    fn entry(&mut self, namespace: &str, name: &str) -> &mut Entry {
        self.services.entry(namespace.to_owned()).or_default().entry(name.to_owned()).or_default()
    }

    fn forget(&mut self, addresses: impl Iterator<Item = IpAddr>, place: &Place) {
        for address in addresses {
            if let Some(places) = self.by_address.get_mut(&address) {
                places.retain(|p| p != place);
                if places.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
    }

    fn prune(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.services.get_mut(namespace) else { return };
        if names.get(name).is_some_and(|e| e.service.is_none() && e.slices.is_empty()) {
            names.remove(name);
        }
        if names.is_empty() {
            self.services.remove(namespace);
        }
    }

    /// The service of that name with its slices, if there is one.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<(&ServiceView, &BTreeMap<String, SliceView>)> {
        let entry = self.services.get(namespace)?.get(name)?;
        Some((entry.service.as_ref()?, &entry.slices))
    }

    pub(super) fn places(&self, address: IpAddr) -> &[Place] {
        self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a namespace exists, told by itself or by its services.
    pub(super) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name) || self.services.contains_key(name)
    }
}

fn view_service(service: &Service) -> Option<ServiceView> {
    let spec = service.spec.as_ref()?;
    let form = match (spec.type_.as_deref(), spec.external_name.as_deref(), spec.cluster_ip.as_deref()) {
        (Some("ExternalName"), Some(name), _) => Form::Alias(name.trim_end_matches('.').to_ascii_lowercase()),
        (_, _, Some("None")) => Form::Headless,
        _ => Form::Virtual(cluster_addresses(service)),
    };
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(PortView {
                name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                number: u16::try_from(port.port).ok()?,
            })
        })
        .collect();
    Some(ServiceView { form, ports })
}

fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = service.spec.as_ref() else { return Vec::new() };
    let listed: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if listed.is_empty() { spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect() } else { listed }
}

fn view_slice(slice: &EndpointSlice) -> SliceView {
    let ports = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            Some(PortView {
                name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                number: u16::try_from(port.port?).ok()?,
            })
        })
        .collect();
    let endpoints: Vec<EndpointView> =
        slice.endpoints.iter().flatten().filter(|e| is_ready(e)).flat_map(view_endpoint).collect();
    let mut by_label: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        by_label.entry(endpoint.label.clone()).or_default().push(at);
    }
    SliceView { ports, endpoints, by_label }
}

/// An unknown readiness counts as ready, as the type's documentation says.
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false)
}

fn view_endpoint(endpoint: &Endpoint) -> impl Iterator<Item = EndpointView> {
    endpoint.addresses.iter().filter_map(|text| {
        let address: IpAddr = text.parse().ok()?;
        let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
        let label = hostname.map_or_else(|| dashed(address), str::to_ascii_lowercase);
        Some(EndpointView { address, label, named: hostname.is_some() })
    })
}

/// An address as a label: `10-42-0-5`.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
