//! Claims of a pod: those that are bound keep it where their volume is, those that wait get one where the pod goes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};

use super::{Cause, Refusal};
use crate::pick::node_name;
use crate::place::ClaimPlan;
use crate::pod::PodInfo;
use crate::storage::{Need, SELECTED_NODE, access_modes, annotation, reaches};
use crate::view::View;

const NO_MATCH: &str = "node(s) didn't find available persistent volumes to bind";

/// The claims of one pod, by what they need.
#[derive(Debug, Default)]
pub(super) struct Volumes<'a> {
    /// Names of the volumes that the pod has.
    bound: Vec<String>,
    delayed: Vec<(&'a str, &'a PersistentVolumeClaim)>,
    /// Another pod has the only access to one of the claims.
    in_use: bool,
}

impl<'a> Volumes<'a> {
    /// # Errors
    /// When a claim is missing, going away, or waits for something that no choice of node brings about.
    pub(super) fn prepare(view: &'a View, pod: &'a PodInfo) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let mut immediate = false;
        for name in &pod.claims {
            let claim = usable(view, pod, name)?;
            found.in_use |= access_modes(claim).iter().any(|mode| mode == "ReadWriteOncePod") && used(view, pod, name);
            match view.storage.need(claim) {
                Need::Bound(volume) => found.bound.push(volume),
                Need::Delayed => found.delayed.push((name, claim)),
                Need::Immediate => immediate = true,
            }
        }
        match immediate {
            true => Err(refuse("pod has unbound immediate PersistentVolumeClaims")),
            false => Ok(found),
        }
    }

    pub(super) fn restrictions(&self) -> Result<(), Refusal> {
        let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
        if self.in_use { Err(Refusal::new(Cause::VolumeRestrictions, reason)) } else { Ok(()) }
    }

    /// What has to be bound or made for the pod to have its volumes on this node.
    pub(super) fn binding(&self, view: &View, node: &Node) -> Result<Vec<ClaimPlan>, Refusal> {
        for name in &self.bound {
            let Some(volume) = view.storage.volumes.get(name) else {
                return Err(refuse("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
            };
            if !reaches(volume, node) {
                return Err(refuse("node(s) didn't match PersistentVolume's node affinity"));
            }
        }
        let mut plans: Vec<ClaimPlan> = Vec::new();
        for (name, claim) in &self.delayed {
            let chosen = annotation(claim, SELECTED_NODE).filter(|node| !node.is_empty());
            if chosen.is_some_and(|chosen| chosen != node_name(node)) {
                return Err(refuse(NO_MATCH));
            }
            let taken: Vec<&str> = plans.iter().filter_map(ClaimPlan::volume).collect();
            let found = view.storage.find_volume(name, claim, node, &taken).filter(|_| chosen.is_none());
            plans.push(match found {
                Some(volume) => ClaimPlan::Bind { claim: (*name).to_owned(), volume: volume.to_owned() },
                None if view.storage.can_provision(claim, node) => ClaimPlan::Provision { claim: (*name).to_owned() },
                None => return Err(refuse(NO_MATCH)),
            });
        }
        Ok(plans)
    }
}

fn refuse(reason: impl Into<String>) -> Refusal {
    Refusal::helpless(Cause::VolumeBinding, reason)
}

/// A claim of the pod, if it is there and stays.
fn usable<'a>(view: &'a View, pod: &PodInfo, full_name: &str) -> Result<&'a Arc<PersistentVolumeClaim>, Refusal> {
    let name = full_name.split_once('/').map_or(full_name, |(_, name)| name);
    let ephemeral = is_ephemeral(pod, name);
    let Some(claim) = view.storage.claims.get(full_name) else {
        return Err(refuse(match ephemeral {
            true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""),
            false => format!("persistentvolumeclaim \"{name}\" not found"),
        }));
    };
    let spec = claim.spec.as_ref();
    let volume = spec.and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let owned = || claim.metadata.owner_references.iter().flatten().any(|owner| owner.uid == pod.uid());
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return Err(refuse(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        )));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(refuse(format!("persistentvolumeclaim \"{name}\" is being deleted")));
    }
    if ephemeral && !owned() {
        let (namespace, pod) = (pod.namespace(), pod.name());
        return Err(refuse(format!(
            "PVC \"{namespace}/{name}\" was not created for pod \"{namespace}/{pod}\" (pod is not owner)"
        )));
    }
    Ok(claim)
}

fn is_ephemeral(pod: &PodInfo, claim: &str) -> bool {
    let volumes = pod.spec().into_iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut made = volumes.filter(|volume| volume.ephemeral.is_some() && volume.persistent_volume_claim.is_none());
    made.any(|volume| format!("{}-{}", pod.name(), volume.name) == claim)
}

/// Whether another pod that is on a node uses the claim.
fn used(view: &View, pod: &PodInfo, claim: &str) -> bool {
    view.pods().any(|(_, other)| other.uid() != pod.uid() && other.claims.iter().any(|name| name == claim))
}
