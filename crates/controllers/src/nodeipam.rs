//! Gives every node its part of the pods' range. The decision is [`stead_workloads::nodeipam`].

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use stead_informer::{Cache, Key, Next, Queue, Severity};
use stead_workloads::nodeipam::Parts;

use crate::{Context, Controller, Error, sources};

/// The controller; its keys are nodes.
#[derive(Clone, Debug)]
pub struct NodeRanges {
    cx: Context,
    nodes: Cache<Node>,
    parts: Option<Parts>,
    /// What was given and is perhaps not yet in the cache, by node.
    given: Arc<Mutex<HashMap<String, String>>>,
}

fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
}

impl Controller for NodeRanges {
    const NAME: &'static str = "node-ipam-controller";
    const ACCOUNT: &'static str = "node-controller";
    /// Each decision rests on all earlier ones.
    const WORKERS: usize = 1;

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let nodes = cx.caches.of::<Node>();
        let all = nodes.clone();
        sources::wake(&nodes, queue, move |change| match &change.new {
            Some(node) if range_of(node).is_none() => vec![change.key.clone()],
            Some(_) => Vec::new(),
            // Its range is free now: somebody may wait for one.
            None => {
                let waiting = all.list().into_iter().filter(|node| range_of(node).is_none());
                waiting.map(|node| Key::of(&node.metadata)).collect()
            }
        });
        let parts = cx.config.pod_ranges;
        Self { cx, nodes, parts, given: Arc::default() }
    }

    async fn synced(&self) {
        self.nodes.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(parts) = self.parts else { return Ok(Next::Done) };
        let Some(node) = self.nodes.by_key(key).filter(|node| range_of(node).is_none()) else {
            return Ok(Next::Done);
        };
        let Some(range) = self.choose(&parts, &key.name) else {
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.cx.recorder.event(&*node, Severity::Normal, "CIDRNotAvailable", text);
            return Ok(Next::Done);
        };
        let api: Api<Node> = Api::all(self.cx.client.clone());
        let patch = json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
        });
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if patched.is_err() {
            self.given.lock().remove(&*key.name);
        }
        patched.map_err(Error::doing(format!("give the range {range} to node {:?}", key.name)))?;
        Ok(Next::Done)
    }
}

impl NodeRanges {
    fn choose(&self, parts: &Parts, name: &str) -> Option<String> {
        let nodes = self.nodes.list();
        let mut given = self.given.lock();
        // What the cache shows, or whose node is gone, need not be remembered.
        given.retain(|name, _| self.nodes.get("", name).is_some_and(|node| range_of(&node).is_none()));
        given.remove(name);
        let taken = nodes.iter().filter_map(|node| range_of(node)).chain(given.values().map(String::as_str));
        let range = parts.free(taken)?;
        given.insert(name.to_owned(), range.clone());
        Some(range)
    }
}
