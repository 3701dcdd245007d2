//! EndpointSlices of services that select pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use stead_informer::{Cache, Change, Key, Next, Queue};
use stead_servicenet::endpoints::{SLICE_CONTROLLER, SliceInput, is_kept_by, is_managed, plan_slices};

use super::{BY_SERVICE, by_service, service_of_slice, services_of_pod, write_slices};
use crate::{Context, Controller, Error, OwnWrites, sources};

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The EndpointSlice controller.
#[derive(Debug)]
pub struct Slices {
    cx: Context,
    services: Cache<Service>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    slices: Cache<EndpointSlice>,
    writes: OwnWrites,
}

impl Controller for Slices {
    const NAME: &'static str = "endpointslice-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (services, pods) = (cx.caches.of::<Service>(), cx.caches.of::<Pod>());
        let (nodes, slices) = (cx.caches.of::<Node>(), cx.caches.of::<EndpointSlice>());
        slices.add_index(BY_SERVICE, by_service);
        sources::wake_self(&services, queue);
        let of_pod = services.clone();
        sources::wake(&pods, queue, move |change| services_of_pod(&of_pod, change));
        sources::wake(&slices, queue, service_of_slice);
        let of_node = services.clone();
        sources::wake(&nodes, queue, move |change| services_of_node(&of_node, change));
        Self { cx, services, pods, nodes, slices, writes: OwnWrites::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.services.synced(), self.pods.synced(), self.nodes.synced(), self.slices.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(service) = self.services.by_key(key) else { return Ok(Next::Done) };
        if !is_managed(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let pods = self.pods.list_ns(&key.namespace);
        let pods: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let existing: Vec<&EndpointSlice> =
            slices.iter().map(|slice| &**slice).filter(|slice| is_kept_by(slice, SLICE_CONTROLLER)).collect();
        let zones = self.zones();
        let plan = plan_slices(SliceInput { service: &service, pods: &pods, zones: &zones, existing: &existing });
        write_slices(&self.cx, key, plan, &self.slices, &self.writes).await?;
        Ok(Next::Done)
    }
}

impl Slices {
    fn zones(&self) -> BTreeMap<String, String> {
        let nodes = self.nodes.list();
        nodes.iter().filter_map(|node| Some((node.metadata.name.clone()?, zone(node)?.to_owned()))).collect()
    }
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE).map(String::as_str)
}

/// All services when a node's zone changes; a node without a zone, or a heartbeat, matters to none.
fn services_of_node(services: &Cache<Service>, change: &Change<Node>) -> Vec<Key> {
    let zone_of = |node: &Option<std::sync::Arc<Node>>| node.as_deref().and_then(zone).map(str::to_owned);
    if zone_of(&change.old) == zone_of(&change.new) {
        return Vec::new();
    }
    services.list().iter().map(|service| Key::of(&service.metadata)).collect()
}
