//! What is done next about one volume.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::{
    BOUND_BY_CONTROLLER, Event, PROVISIONED_BY, VOLUME_FINALIZER, annotation, bind, claim_ref, matching, name,
    volume_name, volume_phase, without_finalizer,
};

/// All that the decision about one volume may look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub volume: Arc<PersistentVolume>,
    /// The claim of the name that the volume points at, whatever its UID.
    pub claim: Option<Arc<PersistentVolumeClaim>>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Write metadata and spec of the volume.
    Update(PersistentVolume),
    /// Write the volume's status.
    Status(PersistentVolume),
    /// Look at the claim that the volume waits for.
    WakeClaim,
    /// The claim is not in the cache: ask the server before the volume is given up.
    AskClaim,
}

/// What to do, in order, and what to tell about the volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub acts: Vec<Act>,
    pub events: Vec<Event>,
}

/// Decides about one volume. `asked`: the server itself said that the claim is gone.
#[must_use]
pub fn plan(snapshot: &Snapshot, asked: bool) -> Plan {
    let volume = &*snapshot.volume;
    if volume.metadata.deletion_timestamp.is_some() && volume_phase(volume) != "Bound" {
        let act = without_finalizer(&volume.metadata, VOLUME_FINALIZER)
            .map(|metadata| Act::Update(PersistentVolume { metadata, ..volume.clone() }));
        return Plan { acts: act.into_iter().collect(), events: Vec::new() };
    }
    let Some(reference) = claim_ref(volume) else { return phase(volume, "Available", "") };
    let uid = reference.uid.as_deref().unwrap_or_default();
    if uid.is_empty() {
        // Kept for a claim that is still to come, or still to be bound.
        let mut plan = phase(volume, "Available", "");
        plan.acts.push(Act::WakeClaim);
        return plan;
    }
    match snapshot.claim.as_deref().filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
        // A claim of that name with another UID may be an old one that the cache has not seen go.
        None => claim_gone(volume, asked),
        Some(claim) => claim_there(volume, claim),
    }
}

fn phase(volume: &PersistentVolume, phase: &str, message: &str) -> Plan {
    let acts = bind::phase(volume, phase, message).map(Act::Status).into_iter().collect();
    Plan { acts, events: Vec::new() }
}

fn claim_there(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Plan {
    if volume_name(claim).is_empty() {
        let mut plan = Plan { acts: vec![Act::WakeClaim], events: Vec::new() };
        if !matching::same_mode(claim, volume) {
            let text = format!(
                "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                name(&claim.metadata)
            );
            plan.events.push(Event::warning("VolumeMismatch", text));
        }
        return plan;
    }
    if volume_name(claim) == name(&volume.metadata) {
        // The claim's side of the binding is the claim's own matter; it is woken when that is not complete.
        let mut plan = phase(volume, "Bound", "");
        if bind::claim(claim, volume).is_some() || bind::claim_status(claim, volume).is_some() {
            plan.acts.push(Act::WakeClaim);
        }
        return plan;
    }
    // The claim has another volume: this one is free again, or was made for nothing.
    let made = annotation(&volume.metadata, PROVISIONED_BY).is_some();
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if made && policy == Some("Delete") {
        return released(volume);
    }
    Plan { acts: vec![Act::Update(freed(volume))], events: Vec::new() }
}

/// A volume without its claim: without any reference when the controller chose the claim, else without its UID.
fn freed(volume: &PersistentVolume) -> PersistentVolume {
    let mut free = volume.clone();
    let by_controller = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    if let Some(annotations) = &mut free.metadata.annotations {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    if let Some(spec) = &mut free.spec {
        if by_controller {
            spec.claim_ref = None;
        } else if let Some(reference) = &mut spec.claim_ref {
            reference.uid = None;
            reference.resource_version = None;
        }
    }
    free
}

fn claim_gone(volume: &PersistentVolume, certain: bool) -> Plan {
    match volume_phase(volume) {
        "Released" | "Failed" => reclaim(volume),
        _ if certain => released(volume),
        _ => Plan { acts: vec![Act::AskClaim], events: Vec::new() },
    }
}

fn released(volume: &PersistentVolume) -> Plan {
    let mut plan = phase(volume, "Released", "");
    if plan.acts.is_empty() {
        plan = reclaim(volume);
    }
    plan
}

/// What happens to the data: kept, or deleted by whoever made the volume.
fn reclaim(volume: &PersistentVolume) -> Plan {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let made = annotation(&volume.metadata, PROVISIONED_BY).is_some();
    let driver = volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some());
    match policy {
        Some("Delete") if !made && !driver && volume_phase(volume) != "Failed" => {
            let why = "error getting deleter volume plugin for volume \"".to_owned()
                + name(&volume.metadata)
                + "\": no volume plugin matched";
            fail(volume, "VolumeFailedDelete", &why)
        }
        Some("Recycle") if volume_phase(volume) != "Failed" => {
            fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!")
        }
        _ => Plan::default(),
    }
}

fn fail(volume: &PersistentVolume, reason: &'static str, why: &str) -> Plan {
    let mut plan = phase(volume, "Failed", why);
    plan.events.push(Event::warning(reason, why));
    plan
}
