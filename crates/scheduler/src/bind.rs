//! Does what was decided for one pod: its claims first, then the binding.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use stead_client::{Class, Client, classify, message};
use stead_informer::Cache;
use stead_placement::ClaimPlan;
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
            ClaimPlan::Provision { .. } if selected(&live) == Some(assumed.node.as_str()) => {}
            ClaimPlan::Provision { .. } => {
                let patch = json!({
                    "metadata": {"uid": live.metadata.uid, "annotations": {SELECTED_NODE: assumed.node}}
                });
                let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
                let done = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
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
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

fn split(full_name: &str) -> (&str, &str) {
    full_name.split_once('/').unwrap_or(("", full_name))
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_ref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
