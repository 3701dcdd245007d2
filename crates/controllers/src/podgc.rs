//! Removes pods that nobody will ever end. The decision is [`stead_workloads::podgc`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use parking_lot::Mutex;
use stead_client::{Class, classify};
use stead_informer::{Cache, Key, Next, Queue, index};
use stead_workloads::podgc::{NodeState, Plan, plan};

use crate::{Context, Controller, Error, sources};

/// The controller; its keys are pods.
#[derive(Clone, Debug)]
pub struct PodGarbage {
    cx: Context,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    /// Since when nodes that pods name are not there.
    missing: Arc<Mutex<HashMap<String, Timestamp>>>,
}

impl Controller for PodGarbage {
    const NAME: &'static str = "pod-garbage-collector";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (pods, nodes) = (cx.caches.of::<Pod>(), cx.caches.of::<Node>());
        pods.add_index(index::NODE_NAME, index::by_node);
        sources::wake(&pods, queue, |change| {
            // Its own progress is of no interest: only that it came, was placed, or is to go.
            let state = |pod: &Option<Arc<Pod>>| {
                pod.as_ref().map(|p| {
                    (p.metadata.deletion_timestamp.is_some(), p.spec.as_ref().and_then(|s| s.node_name.clone()))
                })
            };
            let moved = change.new.is_some() && state(&change.old) != state(&change.new);
            moved.then(|| change.key.clone()).into_iter().collect()
        });
        let of_node = pods.clone();
        sources::wake(&nodes, queue, move |change| {
            let gone = change.new.is_none();
            let tainted = |node: &Option<Arc<Node>>| node.as_ref().and_then(|n| n.spec.clone()?.taints);
            if !gone && tainted(&change.old) == tainted(&change.new) {
                return Vec::new();
            }
            of_node.by_index(index::NODE_NAME, &change.key.name).iter().map(|pod| Key::of(&pod.metadata)).collect()
        });
        Self { cx, pods, nodes, missing: Arc::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.pods.synced(), self.nodes.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.by_key(key) else { return Ok(Next::Done) };
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
        let node = name.and_then(|name| self.nodes.get("", name));
        let now = self.cx.now();
        let state = match (name, &node) {
            (None, _) => None,
            (Some(name), Some(node)) => {
                self.missing.lock().remove(name);
                Some(NodeState::There(node))
            }
            (Some(name), None) => {
                Some(NodeState::MissingSince(*self.missing.lock().entry(name.to_owned()).or_insert(now)))
            }
        };
        match plan(&pod, state, now) {
            Plan::Nothing => Ok(Next::Done),
            Plan::Wait(at) => Ok(Next::After(Duration::try_from(at.duration_since(now)).unwrap_or_default())),
            Plan::Remove { mark } => self.remove(key, &pod, mark).await,
            Plan::GiveUp { mark } => {
                let nodes: Api<Node> = Api::all(self.cx.client.clone());
                let name = name.unwrap_or_default();
                let there = nodes.get_opt(name).await.map_err(Error::doing(format!("look up node {name:?}")))?;
                if there.is_some() { Ok(Next::Done) } else { self.remove(key, &pod, mark).await }
            }
        }
    }
}

impl PodGarbage {
    /// Says why in the pod's status, then removes it without asking its node.
    async fn remove(&self, key: &Key, pod: &Pod, mark: Option<Pod>) -> Result<Next, Error> {
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        if let Some(marked) = mark {
            let written = api.replace_status(&key.name, &PostParams::default(), &marked).await;
            written.map_err(Error::doing(format!("mark pod {key} as failed")))?;
        }
        let preconditions = Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None });
        let how = DeleteParams { preconditions, ..DeleteParams::default().grace_period(0) };
        match api.delete(&key.name, &how).await {
            Err(error) if classify(&error) == Class::NotFound => Ok(Next::Done),
            done => done.map(|_| Next::Done).map_err(Error::doing(format!("remove pod {key}"))),
        }
    }
}
