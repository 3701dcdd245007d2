//! Ends the pods that do not tolerate the taints of their node. The decision is [`stead_workloads::taints`].

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use stead_client::{Class, classify};
use stead_informer::{Cache, Key, Next, Queue, Severity, index};
use stead_workloads::taints::{Eviction, Snapshot, eviction, target};

use crate::{Context, Controller, Error, sources};

/// The controller; its keys are pods.
#[derive(Clone, Debug)]
pub struct TaintEviction {
    cx: Context,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    /// Since when nodes have taints that end pods.
    noticed: Arc<Mutex<HashMap<String, Timestamp>>>,
    /// Pods that were told that their time is running.
    condemned: Arc<Mutex<HashMap<Key, Timestamp>>>,
}

impl Controller for TaintEviction {
    const NAME: &'static str = "taint-eviction-controller";
    const ACCOUNT: &'static str = "node-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (pods, nodes) = (cx.caches.of::<Pod>(), cx.caches.of::<Node>());
        pods.add_index(index::NODE_NAME, index::by_node);
        sources::wake(&pods, queue, |change| {
            // It was placed, or asks for other times than before.
            let matters = |pod: &Option<Arc<Pod>>| {
                let spec = pod.as_ref().and_then(|pod| pod.spec.as_ref());
                spec.map(|spec| (spec.node_name.clone(), spec.tolerations.clone()))
            };
            (matters(&change.old) != matters(&change.new)).then(|| change.key.clone()).into_iter().collect()
        });
        let of_node = pods.clone();
        sources::wake(&nodes, queue, move |change| {
            let matters = |node: &Option<Arc<Node>>| node.as_ref().map(|node| deadly(node));
            if matters(&change.old) == matters(&change.new) {
                return Vec::new();
            }
            of_node.by_index(index::NODE_NAME, &change.key.name).iter().map(|pod| Key::of(&pod.metadata)).collect()
        });
        Self { cx, pods, nodes, noticed: Arc::default(), condemned: Arc::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.pods.synced(), self.nodes.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.by_key(key) else {
            self.condemned.lock().remove(key);
            return Ok(Next::Done);
        };
        let node = pod.spec.as_ref().and_then(|spec| self.nodes.get("", spec.node_name.as_deref()?));
        let Some(node) = node else { return Ok(Next::Done) };
        let now = self.cx.now();
        match eviction(&Snapshot { pod: &pod, node: &node, noticed: self.noticed(&node, now), now }) {
            Eviction::No => {
                if self.condemned.lock().remove(key).is_some() && pod.metadata.deletion_timestamp.is_none() {
                    self.tell(&pod, &format!("Cancelling deletion of Pod {key}"));
                }
                Ok(Next::Done)
            }
            Eviction::At(end) => {
                self.condemned.lock().insert(key.clone(), end);
                Ok(Next::After((end - now).try_into().unwrap_or_default()))
            }
            Eviction::Now => {
                self.condemned.lock().remove(key);
                self.evict(key, &pod, now).await.map(|()| Next::Done)
            }
        }
    }
}

impl TaintEviction {
    fn noticed(&self, node: &Node, now: Timestamp) -> Timestamp {
        let (name, mut noticed) = (node.metadata.name.clone().unwrap_or_default(), self.noticed.lock());
        if deadly(node).is_empty() {
            noticed.remove(&name);
            return now;
        }
        *noticed.entry(name).or_insert(now)
    }

    async fn evict(&self, key: &Key, pod: &Pod, now: Timestamp) -> Result<(), Error> {
        self.tell(pod, &format!("Marking for deletion Pod {key}"));
        self.mark(key, pod, target(now)).await?;
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let how = DeleteParams { preconditions, ..DeleteParams::default() };
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        match api.delete(&key.name, &how).await {
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            done => done.map(|_| ()).map_err(Error::doing(format!("delete pod {key} from its tainted node"))),
        }
    }

    async fn mark(&self, key: &Key, pod: &Pod, condition: PodCondition) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => Ok(()),
            done => done.map(|_| ()).map_err(Error::doing(format!("write the conditions of pod {key}"))),
        }
    }

    fn tell(&self, pod: &Pod, text: &str) {
        self.cx.recorder.event(pod, Severity::Normal, "TaintManagerEviction", text);
    }
}

/// The taints that end pods.
fn deadly(node: &Node) -> Vec<(String, String)> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let deadly = taints.filter(|taint| taint.effect == "NoExecute");
    deadly.map(|taint| (taint.key.clone(), taint.value.clone().unwrap_or_default())).collect()
}
