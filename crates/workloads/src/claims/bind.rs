//! The four writes that bind a volume to a claim; each is `None` when there is nothing left to write.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
};

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, annotate, annotation, claim_phase, claim_ref, name, points_at, volume_name,
    volume_phase,
};

/// First: the volume points at the claim. From here on no other claim can have it.
#[must_use]
pub fn volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let reference = claim_ref(volume);
    if points_at(volume, claim) && reference.is_some_and(|r| r.uid == claim.metadata.uid) {
        return None;
    }
    let mut bound = volume.clone();
    if reference.is_none() {
        annotate(&mut bound.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    bound.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
    Some(bound)
}

/// The reference that a volume keeps of its claim.
#[must_use]
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Second: the volume's phase.
#[must_use]
pub fn volume_status(volume: &PersistentVolume) -> Option<PersistentVolume> {
    phase(volume, "Bound", "")
}

/// A volume with another phase.
#[must_use]
pub fn phase(volume: &PersistentVolume, phase: &str, message: &str) -> Option<PersistentVolume> {
    if volume_phase(volume) == phase {
        return None;
    }
    let message = (!message.is_empty()).then(|| message.to_owned());
    let before = volume.status.clone().unwrap_or_default();
    let status = PersistentVolumeStatus { phase: Some(phase.to_owned()), message, reason: None, ..before };
    Some(PersistentVolume { status: Some(status), ..volume.clone() })
}

/// Third: the claim names the volume.
#[must_use]
pub fn claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let named = volume_name(claim) == name(&volume.metadata);
    if named && annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return None;
    }
    let mut bound = claim.clone();
    if !named {
        bound.spec.get_or_insert_default().volume_name.clone_from(&volume.metadata.name);
        annotate(&mut bound.metadata, BOUND_BY_CONTROLLER, "yes");
    }
    annotate(&mut bound.metadata, BIND_COMPLETED, "yes");
    Some(bound)
}

/// Fourth: the claim's phase, and what it has got.
#[must_use]
pub fn claim_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let spec = volume.spec.clone().unwrap_or_default();
    let before = claim.status.clone().unwrap_or_default();
    let mut status = PersistentVolumeClaimStatus { phase: Some("Bound".to_owned()), ..before };
    status.access_modes = spec.access_modes;
    if claim_phase(claim) != "Bound" {
        // Later on the one who resizes says what there is.
        let storage = spec.capacity.unwrap_or_default().remove("storage");
        status.capacity = Some(storage.map(|size| BTreeMap::from([("storage".to_owned(), size)])).unwrap_or_default());
    }
    let changed = claim.status.as_ref() != Some(&status);
    changed.then(|| PersistentVolumeClaim { status: Some(status), ..claim.clone() })
}

/// A claim in another phase than `Bound`.
#[must_use]
pub fn claim_in_phase(claim: &PersistentVolumeClaim, phase: &str) -> Option<PersistentVolumeClaim> {
    let said = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    (said != Some(phase)).then(|| {
        let before = claim.status.clone().unwrap_or_default();
        let phase = Some(phase.to_owned());
        let status = PersistentVolumeClaimStatus { phase, capacity: None, access_modes: None, ..before };
        PersistentVolumeClaim { status: Some(status), ..claim.clone() }
    })
}
