//! The forwarding table as it follows the caches.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use stead_informer::{Cache, Caches, Key};
use stead_servicenet::endpoints::service_of;
use stead_servicenet::table::{Entry, Frontend, NodeView, Protocol, entries};
use stead_wire as wire;
use tokio::sync::Notify;

use crate::ProxyConfig;

/// Index of slices by `namespace/service`; the controllers use the same one.
const BY_SERVICE: &str = "service";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Caches, what changed in them, and the entries of each service.
#[derive(Debug)]
pub(crate) struct Mirror {
    config: ProxyConfig,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    nodes: Cache<Node>,
    dirty: Arc<Dirty>,
    entries: Mutex<BTreeMap<Key, Vec<wire::ServiceEntry>>>,
}

/// The services to be computed again.
#[derive(Debug, Default)]
struct Dirty {
    keys: Mutex<HashSet<Key>>,
    wake: Notify,
}

impl Dirty {
    fn add(&self, key: Key) {
        self.keys.lock().insert(key);
        self.wake.notify_one();
    }
}

impl Mirror {
    pub(crate) fn start(config: ProxyConfig, caches: &Caches) -> Self {
        let (services, slices, nodes) = (caches.of::<Service>(), caches.of::<EndpointSlice>(), caches.of::<Node>());
        slices.add_index(BY_SERVICE, |slice| {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service_of(slice).map(|name| format!("{namespace}/{name}")).into_iter().collect()
        });
        let dirty = Arc::new(Dirty::default());
        let of_service = dirty.clone();
        services.on_change(move |change| of_service.add(change.key.clone()));
        let of_slice = dirty.clone();
        slices.on_change(move |change| {
            for name in [&change.old, &change.new].into_iter().flatten().filter_map(|slice| service_of(slice)) {
                of_slice.add(Key::new(&change.key.namespace, name));
            }
        });
        let (of_node, all, own) = (dirty.clone(), services.clone(), config.node_name.clone());
        nodes.on_change(move |change| {
            let zone_of = |node: &Option<Arc<Node>>| node.as_deref().and_then(zone);
            if *change.key.name == *own && zone_of(&change.old) != zone_of(&change.new) {
                for service in all.list() {
                    of_node.add(Key::of(&service.metadata));
                }
            }
        });
        Self { config, services, slices, nodes, dirty, entries: Mutex::default() }
    }

    pub(crate) async fn synced(&self) {
        tokio::join!(self.services.synced(), self.slices.synced(), self.nodes.synced());
        // Even without any service, rules of an earlier time have to go.
        self.wake();
    }

    /// Waits for a change.
    pub(crate) async fn changed(&self) {
        self.dirty.wake.notified().await;
    }

    pub(crate) fn wake(&self) {
        self.dirty.wake.notify_one();
    }

    /// Computes what changed and returns the whole table.
    pub(crate) fn table(&self) -> wire::ServiceTable {
        let dirty = std::mem::take(&mut *self.dirty.keys.lock());
        let mut all = self.entries.lock();
        for key in dirty {
            let list = self.entries_of(&key);
            if list.is_empty() {
                all.remove(&key)
            } else {
                all.insert(key, list)
            };
        }
        wire::ServiceTable { entries: all.values().flatten().cloned().collect() }
    }

    fn entries_of(&self, key: &Key) -> Vec<wire::ServiceEntry> {
        let Some(service) = self.services.by_key(key) else { return Vec::new() };
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
        let node = NodeView {
            name: self.config.node_name.clone(),
            zone: self.nodes.get("", &self.config.node_name).as_deref().and_then(zone),
        };
        let served_here = |entry: &Entry| match entry.frontend {
            Frontend::Address(address) => self.config.served_here.contains(&address),
            Frontend::NodePort => false,
        };
        entries(&service, &slices, &node).into_iter().filter(|entry| !served_here(entry)).map(to_wire).collect()
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(ZONE).cloned()
}

fn to_wire(entry: Entry) -> wire::ServiceEntry {
    wire::ServiceEntry {
        frontend: match entry.frontend {
            Frontend::Address(address) => wire::Frontend::Address(address),
            Frontend::NodePort => wire::Frontend::NodePort,
        },
        protocol: match entry.protocol {
            Protocol::Tcp => wire::Protocol::Tcp,
            Protocol::Udp => wire::Protocol::Udp,
            Protocol::Sctp => wire::Protocol::Sctp,
        },
        port: entry.port,
        backends: entry.backends.into_iter().map(|(address, port)| wire::Backend { address, port }).collect(),
        affinity_seconds: entry.affinity_seconds,
    }
}
