//! Claims and volumes: which volume serves which claim, what is provisioned, reclaimed and released.
//!
//! The rules are those of `pkg/controller/volume/persistentvolume/pv_controller.go` and of the controllers of the
//! protection finalizers. A claim and a volume point at each other: `volume.spec.claimRef` is written first and decides;
//! whoever crashes in between finds the half-made pair and completes it. Hence a volume never serves two claims.
//!
//! [`claim::plan`] looks at one claim, [`volume::plan`] at one volume. Both answer with objects to write, in order.

pub mod bind;
pub mod claim;
pub mod matching;
pub mod volume;

#[cfg(test)]
mod stories;
#[cfg(test)]
mod walk;
#[cfg(test)]
mod world;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// On a claim: it was bound once; from then on it can only be bound to that volume or be lost.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the controller chose the partner, not the user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same under its old name.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node that the scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim or volume: its class, from before there was a field for it.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Keeps a claim while pods use it.
pub const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Something to tell the user about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Event {
    pub(crate) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: false, reason, message: message.into() }
    }

    pub(crate) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { warning: true, reason, message: message.into() }
    }
}

/// The value of an annotation.
#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The class that a claim asks for: `None` when it says nothing, `Some("")` when it wants none.
#[must_use]
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, BETA_CLASS).or(claim.spec.as_ref()?.storage_class_name.as_deref())
}

/// The class of a volume; empty when it has none.
#[must_use]
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, BETA_CLASS).or_else(field).unwrap_or_default()
}

/// The claim that a volume points at.
#[must_use]
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume points at this very claim: by name, and by UID if it says one.
#[must_use]
pub fn points_at(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid))
    })
}

/// The volume that a claim names; empty when it names none.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// A claim's phase; `Pending` when it says nothing.
#[must_use]
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// A volume's phase; `Pending` when it says nothing.
#[must_use]
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

pub(crate) fn annotate(meta: &mut ObjectMeta, key: &str, value: &str) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
}

pub(crate) fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// The object's metadata without one finalizer; `None` when it has not got it.
pub(crate) fn without_finalizer(meta: &ObjectMeta, finalizer: &str) -> Option<ObjectMeta> {
    has_finalizer(meta, finalizer).then(|| {
        let mut meta = meta.clone();
        meta.finalizers.get_or_insert_default().retain(|f| f != finalizer);
        meta
    })
}
