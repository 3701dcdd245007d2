//! Watches over nodes: silence, conditions, taints. The decision is [`stead_workloads::nodelife`].

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use stead_informer::{Cache, Key, Next, Queue};
use stead_workloads::nodelife::{Plan, Snapshot, plan};

use crate::{Context, Controller, Error, sources};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";

/// The controller; its keys are nodes.
#[derive(Clone, Debug)]
pub struct NodeLife {
    cx: Context,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    /// Silence counts from here at the earliest: while nobody watched, no node could be heard.
    began: Timestamp,
}

impl Controller for NodeLife {
    const NAME: &'static str = "node-lifecycle-controller";
    const ACCOUNT: &'static str = "node-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (nodes, leases) = (cx.caches.of::<Node>(), cx.caches.of::<Lease>());
        sources::wake_self(&nodes, queue);
        sources::wake(&leases, queue, |change| {
            (&*change.key.namespace == LEASES).then(|| Key::new("", &change.key.name)).into_iter().collect()
        });
        let began = cx.now();
        Self { cx, nodes, leases, began }
    }

    async fn synced(&self) {
        tokio::join!(self.nodes.synced(), self.leases.synced());
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.by_key(key) else { return Ok(Next::Done) };
        let renewed =
            self.leases.get(LEASES, &key.name).and_then(|lease| Some(lease.spec.as_ref()?.renew_time.as_ref()?.0));
        let now = self.cx.now();
        let heard = renewed.map_or(self.began, |renewed| renewed.max(self.began));
        let plan = plan(&Snapshot { node: &node, heard, now });
        self.execute(key, &node, &plan).await?;
        Ok(plan.wake_at.map_or(Next::Done, |at| Next::After((at - now).try_into().unwrap_or_default())))
    }
}

impl NodeLife {
    /// Conditions first: the taints follow from them. The resource version makes a plan over an old node fail.
    async fn execute(&self, key: &Key, node: &Node, plan: &Plan) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.cx.client.clone());
        if !plan.conditions.is_empty() {
            let patch = json!({"status": {"conditions": plan.conditions}});
            let what = format!("mark the silent node {:?} in its conditions", key.name);
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            patched.map_err(Error::doing(what))?;
            // The change of the conditions brings this key back, and the taints with it.
            return Ok(());
        }
        if let Some(taints) = &plan.taints {
            let version = node.metadata.resource_version.as_deref();
            let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
            let what = format!("set the taints of node {:?}", key.name);
            api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(Error::doing(what))?;
        }
        Ok(())
    }
}
