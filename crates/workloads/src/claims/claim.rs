//! What is done next about one claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::{
    BETA_STORAGE_PROVISIONER, BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_FINALIZER, Event, SELECTED_NODE,
    STORAGE_PROVISIONER, annotate, annotation, bind, claim_ref, class_of_claim, has_finalizer, matching, name,
    points_at, volume_name, without_finalizer,
};
use crate::provision::{self, Place};

/// A pod that mounts the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// The node on which its containers may run.
    pub node: Option<String>,
    /// That node is there.
    pub on_known_node: bool,
}

/// All that the decision about one claim may look at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub claim: Arc<PersistentVolumeClaim>,
    /// The volume that the claim names, those that point at the claim, and the free ones of its class.
    pub volumes: Vec<Arc<PersistentVolume>>,
    /// The claim's class, if it exists.
    pub class: Option<Arc<StorageClass>>,
    /// Name of the default class.
    pub default_class: Option<String>,
    /// Pods that mount the claim.
    pub users: Vec<User>,
    /// Nodes that can hold a local volume.
    pub places: Vec<Place>,
    /// Where local volumes are kept; `None` when somebody else provisions them.
    pub storage_dir: Option<String>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a plan has few of them and lives for a moment")]
pub enum Act {
    /// Write metadata and spec of the claim.
    Update(PersistentVolumeClaim),
    /// Write the claim's status.
    Status(PersistentVolumeClaim),
    /// Bind the claim to this volume; see [`bind`].
    Bind(Arc<PersistentVolume>),
    /// Create this volume, then bind it to the claim, which says now who made it.
    Provision { volume: PersistentVolume, claim: PersistentVolumeClaim },
    /// Write metadata and spec of a volume.
    UpdateVolume(PersistentVolume),
    /// Ask the server, past the cache, which pods mount the claim, and decide again with what it says.
    AskPods,
}

/// What to do, in order, and what to tell about the claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub acts: Vec<Act>,
    pub events: Vec<Event>,
}

impl Plan {
    fn act(act: Act) -> Self {
        Self { acts: vec![act], events: Vec::new() }
    }

    /// Nothing can be done now: the claim is in `phase`, and this is why.
    fn stay(claim: &PersistentVolumeClaim, phase: &str, event: Option<Event>) -> Self {
        let acts = bind::claim_in_phase(claim, phase).map(Act::Status).into_iter().collect();
        Self { acts, events: event.into_iter().collect() }
    }
}

/// Decides about one claim. `asked`: the users are those that the server knows of, and not only the cache. Without that no
/// claim is let go: a pod that has just got its node may have it (as `kubernetes.io/pvc-protection` upstream).
#[must_use]
pub fn plan(snapshot: &Snapshot, asked: bool) -> Plan {
    let claim = &*snapshot.claim;
    if claim.metadata.deletion_timestamp.is_some() && may_go(snapshot) {
        if !asked {
            return Plan::act(Act::AskPods);
        }
        let update = without_finalizer(&claim.metadata, CLAIM_FINALIZER)
            .map(|metadata| Act::Update(PersistentVolumeClaim { metadata, ..claim.clone() }));
        return update.map(Plan::act).unwrap_or_default();
    }
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        bound_before(snapshot)
    } else if claim.metadata.deletion_timestamp.is_some() {
        Plan::default()
    } else {
        unbound(snapshot)
    }
}

/// Whether nothing keeps a claim that is to be deleted: no pod with a node mounts it.
fn may_go(snapshot: &Snapshot) -> bool {
    has_finalizer(&snapshot.claim.metadata, CLAIM_FINALIZER) && !snapshot.users.iter().any(|user| user.node.is_some())
}

/// A claim that was bound once keeps its volume or is lost.
fn bound_before(snapshot: &Snapshot) -> Plan {
    let claim = &*snapshot.claim;
    let lost = |reason, text: &str| {
        let told = super::claim_phase(claim) != "Lost";
        Plan::stay(claim, "Lost", told.then(|| Event::warning(reason, text)))
    };
    if volume_name(claim).is_empty() {
        return lost("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!");
    }
    let Some(volume) = named(snapshot) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match claim_ref(volume) {
        Some(reference) if reference.uid != claim.metadata.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => {
            let plan = keep(claim, volume);
            if plan.acts.is_empty() { Plan { acts: provision::resize(claim, volume), ..plan } } else { plan }
        }
    }
}

/// Binding again mends whatever is missing of it.
fn keep(claim: &PersistentVolumeClaim, volume: &Arc<PersistentVolume>) -> Plan {
    let complete = bind::volume(volume, claim).is_none()
        && bind::volume_status(volume).is_none()
        && bind::claim(claim, volume).is_none()
        && bind::claim_status(claim, volume).is_none();
    if complete { Plan::default() } else { Plan::act(Act::Bind(volume.clone())) }
}

fn named(snapshot: &Snapshot) -> Option<&Arc<PersistentVolume>> {
    let wanted = volume_name(&snapshot.claim);
    snapshot.volumes.iter().find(|volume| name(&volume.metadata) == wanted)
}

fn unbound(snapshot: &Snapshot) -> Plan {
    let claim = &*snapshot.claim;
    if !volume_name(claim).is_empty() {
        return by_name(snapshot);
    }
    let delayed = is_delayed(snapshot);
    let default = snapshot.default_class.as_ref().filter(|_| class_of_claim(claim).is_none());
    match (matching::best(claim, &snapshot.volumes, delayed), default) {
        (Some(volume), _) => Plan::act(Act::Bind(volume.clone())),
        // The default came after the claim.
        (None, Some(class)) => {
            let mut given = claim.clone();
            given.spec.get_or_insert_default().storage_class_name = Some(class.clone());
            Plan::act(Act::Update(given))
        }
        (None, None) => without_volume(snapshot, delayed),
    }
}

fn without_volume(snapshot: &Snapshot, delayed: bool) -> Plan {
    let claim = &*snapshot.claim;
    match class_of_claim(claim).unwrap_or_default() {
        _ if delayed => waits_for_pod(snapshot),
        "" => {
            let why = "no persistent volumes available for this claim and no storage class is set";
            Plan::stay(claim, "Pending", Some(Event::normal("FailedBinding", why)))
        }
        _ => provisioned(snapshot),
    }
}

/// The class wants to know first where the pod runs, and nobody has said it yet.
fn is_delayed(snapshot: &Snapshot) -> bool {
    let waits = |class: &Arc<StorageClass>| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    snapshot.class.as_ref().is_some_and(waits) && annotation(&snapshot.claim.metadata, SELECTED_NODE).is_none()
}

fn waits_for_pod(snapshot: &Snapshot) -> Plan {
    // A pod that came past the scheduler, or whose claim was made anew meanwhile: upstream waits for ever.
    if let Some(node) = snapshot.users.iter().find_map(|user| user.node.as_ref().filter(|_| user.on_known_node)) {
        let mut chosen = snapshot.claim.as_ref().clone();
        annotate(&mut chosen.metadata, SELECTED_NODE, node);
        return Plan::act(Act::Update(chosen));
    }
    let waiting = snapshot.users.iter().filter(|user| user.node.is_none());
    let waiting: Vec<&str> = waiting.map(|user| user.name.as_str()).collect();
    let event = match waiting.as_slice() {
        [] => Event::normal("WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        [one] => Event::normal("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
        many => Event::normal("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
    };
    Plan::stay(&snapshot.claim, "Pending", Some(event))
}

/// The user chose the volume.
fn by_name(snapshot: &Snapshot) -> Plan {
    let claim = &*snapshot.claim;
    let Some(volume) = named(snapshot) else { return Plan::stay(claim, "Pending", None) };
    if claim_ref(volume).is_none() {
        return match matching::satisfies(claim, volume) {
            Ok(()) => Plan::act(Act::Bind(volume.clone())),
            Err(why) => {
                let text = format!("Cannot bind to requested volume {:?}: {why}", name(&volume.metadata));
                Plan::stay(claim, "Pending", Some(Event::warning("VolumeMismatch", text)))
            }
        };
    }
    if points_at(volume, claim) {
        return Plan::act(Act::Bind(volume.clone()));
    }
    let ours = annotation(&claim.metadata, BOUND_BY_CONTROLLER).is_some();
    let text = format!("volume {:?} already bound to a different claim.", name(&volume.metadata));
    Plan::stay(claim, "Pending", (!ours).then(|| Event::warning("FailedBinding", text)))
}

/// Nothing that is there fits: the class says who makes a volume.
fn provisioned(snapshot: &Snapshot) -> Plan {
    let claim = &*snapshot.claim;
    let class_name = class_of_claim(claim).unwrap_or_default();
    let Some(class) = &snapshot.class else {
        let text = format!("storageclass.storage.k8s.io {class_name:?} not found");
        return Plan::stay(claim, "Pending", Some(Event::warning("ProvisioningFailed", text)));
    };
    if class.provisioner == "kubernetes.io/no-provisioner" {
        let why = "no volume plugin matched";
        return Plan::stay(claim, "Pending", Some(Event::warning("ProvisioningFailed", why)));
    }
    if provision::makes(class)
        && let Some(dir) = &snapshot.storage_dir
    {
        return local(snapshot, class, dir);
    }
    let update = asking(claim, &class.provisioner).map(Act::Update);
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
        class.provisioner
    );
    let mut plan = Plan::stay(claim, "Pending", Some(Event::normal("ExternalProvisioning", text)));
    // One write at a time: the update brings the claim back here.
    plan.acts = update.map_or(plan.acts, |update| vec![update]);
    plan
}

/// Our own provisioner: the volume is made and bound at once.
fn local(snapshot: &Snapshot, class: &StorageClass, dir: &str) -> Plan {
    let claim = &*snapshot.claim;
    let chosen = annotation(&claim.metadata, SELECTED_NODE);
    let tied = class.provisioner == provision::LOCAL;
    if tied && chosen.is_some_and(|node| snapshot.places.iter().all(|place| place.node != node)) {
        // That node is gone: the scheduler has to choose again.
        let mut free = claim.clone();
        free.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
        return Plan::act(Act::Update(free));
    }
    match provision::volume(claim, class, &snapshot.places, dir) {
        Ok(volume) => {
            let text =
                format!("Successfully provisioned volume {} using {}", name(&volume.metadata), class.provisioner);
            let claim = asking(claim, &class.provisioner).unwrap_or_else(|| claim.clone());
            let events = vec![Event::normal("ProvisioningSucceeded", text)];
            Plan { acts: vec![Act::Provision { volume, claim }], events }
        }
        Err(why) => Plan::stay(claim, "Pending", Some(Event::warning("ProvisioningFailed", why))),
    }
}

/// The claim with the name of who is to make its volume; `None` when it says so already.
fn asking(claim: &PersistentVolumeClaim, provisioner: &str) -> Option<PersistentVolumeClaim> {
    let said = |key| annotation(&claim.metadata, key) == Some(provisioner);
    if said(STORAGE_PROVISIONER) && said(BETA_STORAGE_PROVISIONER) {
        return None;
    }
    let mut asking = claim.clone();
    annotate(&mut asking.metadata, STORAGE_PROVISIONER, provisioner);
    annotate(&mut asking.metadata, BETA_STORAGE_PROVISIONER, provisioner);
    Some(asking)
}
