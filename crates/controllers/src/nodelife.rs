//! Watches over nodes: silence, conditions, taints, and the pods of silent ones. The decision is
//! [`stead_workloads::nodelife`].

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use stead_client::{Class, classify};
use stead_informer::{Cache, Key, Next, Queue, Severity, index};
use stead_workloads::nodelife::{Plan, Snapshot, plan, unready};

use crate::{Context, Controller, Error, sources};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";

/// A renewal by the node's clock, and when it was seen by ours.
type Heard = (Option<Timestamp>, Timestamp);

/// The controller; its keys are nodes.
#[derive(Clone, Debug)]
pub struct NodeLife {
    cx: Context,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    /// The last renewal of each node's lease by the node's clock, and when it was seen by ours. Silence counts from
    /// then; while nobody watched, no node could be heard.
    heard: Arc<Mutex<HashMap<String, Heard>>>,
}

impl Controller for NodeLife {
    const NAME: &'static str = "node-lifecycle-controller";
    const ACCOUNT: &'static str = "node-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (nodes, leases, pods) = (cx.caches.of::<Node>(), cx.caches.of::<Lease>(), cx.caches.of::<Pod>());
        pods.add_index(index::NODE_NAME, index::by_node);
        sources::wake_self(&nodes, queue);
        sources::wake(&leases, queue, |change| {
            (&*change.key.namespace == LEASES).then(|| Key::new("", &change.key.name)).into_iter().collect()
        });
        Self { cx, nodes, leases, pods, heard: Arc::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.nodes.synced(), self.leases.synced(), self.pods.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.by_key(key) else {
            self.heard.lock().remove(&*key.name);
            return Ok(Next::Done);
        };
        let now = self.cx.now();
        let snapshot = Snapshot {
            node: &node,
            heard: self.heard(&key.name, now),
            silence_max: self.cx.config.node_silence_max,
            now,
        };
        let plan = plan(&snapshot);
        self.execute(key, &node, &plan, now).await?;
        Ok(plan.wake_at.map_or(Next::Done, |at| Next::After((at - now).try_into().unwrap_or_default())))
    }
}

impl NodeLife {
    /// When the node was last heard, by our clock.
    fn heard(&self, name: &str, now: Timestamp) -> Timestamp {
        let lease = self.leases.get(LEASES, name);
        let renewed = lease.and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        let mut heard = self.heard.lock();
        let (seen, at) = heard.entry(name.to_owned()).or_insert((renewed, now));
        if *seen != renewed {
            (*seen, *at) = (renewed, now);
        }
        *at
    }

    /// Conditions first: the taints follow from them. The resource version makes a plan over an old node fail.
    async fn execute(&self, key: &Key, node: &Node, plan: &Plan, now: Timestamp) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.cx.client.clone());
        if !plan.conditions.is_empty() {
            let patch = json!({"status": {"conditions": plan.conditions}});
            let what = format!("mark the silent node {:?} in its conditions", key.name);
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            patched.map_err(Error::doing(what))?;
            if plan.conditions.iter().any(|condition| condition.type_ == "Ready") {
                let text = format!("Node {} status is now: NodeNotReady", key.name);
                self.cx.recorder.event(node, Severity::Normal, "NodeNotReady", text);
            }
            // The change of the conditions brings this key back, and the taints with it.
            return Ok(());
        }
        if let Some(taints) = &plan.taints {
            let version = node.metadata.resource_version.as_deref();
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            let what = format!("set the taints of node {:?}", key.name);
            api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Error::doing(what))?;
        }
        if plan.silent { self.mark_pods(&key.name, now).await } else { Ok(()) }
    }

    /// Says of the pods of a silent node that they are not ready: services must not lead to them.
    async fn mark_pods(&self, node: &str, now: Timestamp) -> Result<(), Error> {
        for pod in self.pods.by_index(index::NODE_NAME, node) {
            let Some(patch) = unready(&pod, now) else { continue };
            let (key, params) = (Key::of(&pod.metadata), PatchParams::default());
            let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
            match api.patch_status(&key.name, &params, &Patch::Strategic(patch)).await {
                Ok(_) => self.cx.recorder.event(&*pod, Severity::Warning, "NodeNotReady", "Node is not ready"),
                Err(error) if classify(&error) == Class::NotFound => {}
                Err(error) => return Err(Error::doing(format!("mark pod {key} of a silent node as not ready"))(error)),
            }
        }
        Ok(())
    }
}
