//! Does what was decided for one pod: its claims first, then the binding.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stead_client::{Class, Client, classify, message};
use stead_informer::Cache;
use stead_placement::{ClaimPlan, reaches};
use tokio::sync::Semaphore;

use crate::config::BIND_TIMEOUT;
use crate::mirror::Assumed;

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Why a pod was not bound.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The pod or what it needs has changed; what comes next is decided from the caches.
    #[error("{0}")]
    Moved(String),
    #[error("{0}")]
    Failed(String),
}

impl From<kube::Error> for BindError {
    fn from(error: kube::Error) -> Self {
        match classify(&error) {
            Class::Conflict | Class::NotFound | Class::NamespaceTerminating => Self::Moved(message(&error)),
            Class::AlreadyExists | Class::Expired | Class::Retryable | Class::Final => Self::Failed(message(&error)),
        }
    }
}

/// What a binding needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Binder {
    pub(crate) client: Client,
    pub(crate) claims: Cache<PersistentVolumeClaim>,
    pub(crate) volumes: Cache<PersistentVolume>,
    pub(crate) nodes: Cache<Node>,
    /// Requests that may be under way at the same time.
    pub(crate) slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Binder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binder").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Binder {
    /// Binds the claims and then the pod.
    pub(crate) async fn bind(&self, assumed: &Assumed) -> Result<(), BindError> {
        if !assumed.claims.is_empty() {
            for plan in &assumed.claims {
                let _slot = self.slots.acquire().await;
                self.start_claim(assumed, plan).await?;
            }
            self.await_claims(assumed).await?;
            self.check_volumes(assumed).await?;
        }
        let _slot = self.slots.acquire().await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), assumed.pod.namespace());
        let (name, uid) = (assumed.pod.name(), assumed.pod.uid());
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": assumed.pod.namespace(), "uid": uid},
            "target": {"kind": "Node", "name": assumed.node},
        });
        let _: Value = pods.create_subresource("binding", name, &PostParams::default(), &binding).await?;
        Ok(())
    }

    /// Asks for a claim's volume, and waits until the cache knows that we did.
    async fn start_claim(&self, assumed: &Assumed, plan: &ClaimPlan) -> Result<(), BindError> {
        let (namespace, name) = split(plan.claim());
        let live = self.claims.get(namespace, name);
        let live = live.ok_or_else(|| BindError::Moved(format!("persistentvolumeclaim {name:?} not found")))?;
        match plan {
            ClaimPlan::Provision { .. } => {
                let done = self.select(&assumed.node, live).await?;
                self.claims.reached(revision(&done.metadata)).await;
            }
            ClaimPlan::Bind { volume, .. } => {
                let reference = json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name,
                    "uid": live.metadata.uid, "resourceVersion": live.metadata.resource_version,
                });
                let seen = self.volumes.get("", volume).and_then(|volume| volume.metadata.resource_version.clone());
                let seen = seen.ok_or_else(|| BindError::Moved(format!("persistentvolume {volume:?} not found")))?;
                let annotations = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
                let patch = json!({
                    // Somebody else may have taken it.
                    "metadata": {"resourceVersion": seen, "annotations": annotations}, "spec": {"claimRef": reference}
                });
                let api: Api<PersistentVolume> = Api::all(self.client.clone());
                api.patch(volume, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
        }
        Ok(())
    }

    /// Tells the provisioner of a claim the node, unless it has been told another one: there the volume is being made.
    async fn select(
        &self,
        node: &str,
        mut claim: Arc<PersistentVolumeClaim>,
    ) -> Result<Arc<PersistentVolumeClaim>, BindError> {
        let meta = &claim.metadata;
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        loop {
            match selected(&claim) {
                None => {}
                Some(chosen) if chosen == node => return Ok(claim),
                Some(chosen) => {
                    let text =
                        format!("the volume of persistentvolumeclaim {name:?} is being made for node {chosen:?}");
                    return Err(BindError::Moved(text));
                }
            }
            let meta = &claim.metadata;
            let patch = json!({"metadata": {
                "uid": meta.uid, "resourceVersion": meta.resource_version, "annotations": {SELECTED_NODE: node}
            }});
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(done) => return Ok(Arc::new(done)),
                // It has changed; whether that matters only it can say.
                Err(error) if classify(&error) == Class::Conflict => {
                    let live = api.get(&name).await?;
                    if live.metadata.uid != meta.uid {
                        return Err(error.into());
                    }
                    claim = Arc::new(live);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The volumes that the claims got are where the pod goes.
    async fn check_volumes(&self, assumed: &Assumed) -> Result<(), BindError> {
        for plan in &assumed.claims {
            let (namespace, name) = split(plan.claim());
            let claim = self.claims.get(namespace, name);
            let volume = claim.and_then(|claim| claim.spec.as_ref()?.volume_name.clone()).unwrap_or_default();
            let known = self.volumes.until(|volumes| volumes.get("", &volume).is_some());
            if tokio::time::timeout(BIND_TIMEOUT, known).await.is_err() {
                let text = format!("binding volumes: failed to get pv {volume:?} from cache");
                return Err(BindError::Failed(text));
            }
            let (there, node) = (self.volumes.get("", &volume), self.nodes.get("", &assumed.node));
            let reaches = there.zip(node).is_some_and(|(volume, node)| reaches(&volume, &node));
            if !reaches {
                let node = &assumed.node;
                let text = format!(
                    "binding volumes: pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
                );
                return Err(BindError::Failed(text));
            }
        }
        Ok(())
    }

    /// Waits until every claim is bound, or one of them is not going to be.
    async fn await_claims(&self, assumed: &Assumed) -> Result<(), BindError> {
        let mut outcome = Ok(false);
        let all_bound = |claims: &Cache<PersistentVolumeClaim>| -> Result<bool, BindError> {
            let states: Result<Vec<bool>, BindError> =
                assumed.claims.iter().map(|plan| is_bound(claims, plan, &assumed.node)).collect();
            Ok(states?.into_iter().all(|bound| bound))
        };
        let wait = self.claims.until(|claims| {
            outcome = all_bound(claims);
            !matches!(outcome, Ok(false))
        });
        let waited = tokio::time::timeout(BIND_TIMEOUT, wait).await.is_ok();
        match outcome {
            Err(error) => Err(error),
            Ok(true) => Ok(()),
            Ok(false) if waited => Err(BindError::Moved("the scheduler stops".to_owned())),
            Ok(false) => Err(BindError::Failed("binding volumes: context deadline exceeded".to_owned())),
        }
    }
}

fn is_bound(claims: &Cache<PersistentVolumeClaim>, plan: &ClaimPlan, node: &str) -> Result<bool, BindError> {
    let (namespace, name) = split(plan.claim());
    let Some(claim) = claims.get(namespace, name) else {
        return Err(BindError::Moved(format!("persistentvolumeclaim {name:?} not found")));
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(BindError::Moved(format!("persistentvolumeclaim {name:?} is being deleted")));
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let refused = matches!(plan, ClaimPlan::Provision { .. }) && volume.is_empty() && selected(&claim) != Some(node);
    match refused {
        // The provisioner cannot make it there: it asks for another node by taking the annotation away.
        true => Err(BindError::Failed(format!("provisioning failed for PVC {name:?}"))),
        false => Ok(phase == Some("Bound") && !volume.is_empty()),
    }
}

fn selected(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str).filter(|node| !node.is_empty())
}

fn split(full_name: &str) -> (&str, &str) {
    full_name.split_once('/').unwrap_or(("", full_name))
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
