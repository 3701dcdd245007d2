//! Why a claim has no volume, down to the class, the provisioner or the volumes that do not fit.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use stead_machinery::quantity::Quantity;
use stead_workloads::owner::selects;

use crate::finding::{Finding, Report};
use crate::mend::{Owner, create, quoted};
use crate::snapshot::{Lookup, Snapshot, claim_names, event_time, name};

/// Makes a class the one of claims that name none.
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// Its volumes are made by hand.
const BY_HAND: &str = "kubernetes.io/no-provisioner";
/// On a claim whose pod has been placed.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// How long a provisioner may take before it is suspected of not being there, in seconds.
const PROVISIONER_PATIENCE_SECONDS: i64 = 15;
/// How many volumes that do not fit are told one by one.
const MISFITS_MAX: usize = 5;

pub(crate) fn report(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Report {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|volume| !volume.is_empty());
    let headline = volume.map_or_else(|| phase.to_owned(), |volume| format!("{phase} to {volume}"));
    let mut findings: Vec<Finding> = state(snapshot, claim).into_iter().collect();
    if findings.is_empty() && phase == "Pending" {
        findings.push(by_design(snapshot, claim));
    }
    Report { object: word(name(&claim.metadata)), headline, findings }
}

pub(crate) fn word(claim: &str) -> String {
    format!("persistentvolumeclaim/{claim}")
}

/// What is wrong with the claims of a pod.
pub(crate) fn of_pod(snapshot: &Snapshot, pod: &Pod) -> Vec<Finding> {
    claim_names(pod)
        .filter_map(|claim| match snapshot.claims.get(&claim) {
            Lookup::Found(claim) => state(snapshot, claim),
            Lookup::Absent => Some(absent(snapshot, pod, &claim)),
            Lookup::Unknown => None,
        })
        .collect()
}

fn absent(snapshot: &Snapshot, pod: &Pod, claim: &str) -> Finding {
    let pod_name = name(&pod.metadata);
    let missing = Finding::new("ClaimMissing", word(claim), "it does not exist")
        .seen(format!("pod/{pod_name} spec.volumes"), format!("persistentVolumeClaim.claimName: {claim}"));
    if Owner::of(snapshot, pod).word.starts_with("statefulset/") {
        return missing.mended_by(
            "have the pod and its claim made anew",
            format!("{} delete pod {pod_name}", snapshot.kubectl()),
        );
    }
    let object = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "SIZE"}}},
    });
    missing.mended_by("create it, SIZE being how much it is to hold", create(&snapshot.kubectl(), &object))
}

/// What is wrong with a claim; `None` when it is bound, or waits for its pod to be placed, which is no fault of its own.
pub(crate) fn state(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Option<Finding> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(going(snapshot, claim));
    }
    match claim.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Bound") => bound(snapshot, claim),
        Some("Lost") => Some(lost(snapshot, claim)),
        _ => pending(snapshot, claim),
    }
}

fn going(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Finding {
    let own = name(&claim.metadata);
    let users: Vec<&str> = snapshot
        .pods
        .values()
        .filter(|pod| claim_names(pod).any(|named| named == own))
        .map(|pod| name(&pod.metadata))
        .collect();
    let finalizers = claim.metadata.finalizers.clone().unwrap_or_default().join(", ");
    let finding = Finding::new("ClaimDeleted", word(own), "it is being deleted, and goes when no pod uses it any more")
        .seen("metadata.finalizers", finalizers.clone());
    if users.is_empty() {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        return finding.mended_by(
            format!("no pod uses it: who put {finalizers} there has to take it away; by hand, when nobody will"),
            format!("{} patch pvc {own} --type=merge -p {}", snapshot.kubectl(), quoted(patch)),
        );
    }
    finding.seen("used by", users.join(", ")).mended_by(
        "delete its pods: the claim goes with its data, and both are made anew",
        format!("{} delete pod {}", snapshot.kubectl(), users.join(" ")),
    )
}

/// A bound claim whose volume vanished, or that grows.
fn bound(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Option<Finding> {
    let own = name(&claim.metadata);
    let volume = claim.spec.as_ref()?.volume_name.as_deref()?;
    if matches!(snapshot.volumes.get(volume), Lookup::Absent) {
        return Some(lost(snapshot, claim));
    }
    let conditions = claim.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.status == "True")?;
    let seen = format!("status.conditions[{}]", condition.type_);
    let message = condition.message.clone().unwrap_or_default();
    let users = snapshot.pods.values().find(|pod| claim_names(pod).any(|named| named == own));
    match condition.type_.as_str() {
        "FileSystemResizePending" => {
            let finding = Finding::new("ClaimGrows", word(own), "its file system grows when its pod starts again")
                .seen(seen, message);
            Some(match users {
                Some(pod) => finding.mended_by(
                    "start the pod again",
                    format!("{} delete pod {}", snapshot.kubectl(), name(&pod.metadata)),
                ),
                None => finding.waiting(),
            })
        }
        "Resizing" => Some(Finding::new("ClaimGrows", word(own), "it is being grown").seen(seen, message).waiting()),
        "ControllerResizeError" | "NodeResizeError" => Some(
            Finding::new("ClaimGrows", word(own), "it cannot be grown")
                .seen(seen, message)
                .with(snapshot.event("PersistentVolumeClaim", &claim.metadata, "VolumeResizeFailed"))
                .advice("ask for less (not below what it has), or mend what the storage says"),
        ),
        _ => None,
    }
}

fn lost(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Finding {
    let own = name(&claim.metadata);
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    Finding::new(
        "ClaimLost",
        word(own),
        format!("its volume {volume:?} does not exist any more: its data is gone or out of reach"),
    )
    .seen("spec.volumeName", volume)
    .with(snapshot.event("PersistentVolumeClaim", &claim.metadata, "ClaimLost"))
    .mended_by(
        "restore the PersistentVolume, or begin with an empty one: delete the claim and its pod",
        format!("{} delete pvc {own}", snapshot.kubectl()),
    )
}

fn pending(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Option<Finding> {
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(volume) = spec.volume_name.as_deref().filter(|volume| !volume.is_empty()) {
        return chosen(snapshot, claim, volume);
    }
    match class_of(claim) {
        None => Some(classless(snapshot, claim)),
        Some("") => Some(no_volume(snapshot, claim, "")),
        Some(class) => match snapshot.classes.get(class) {
            Lookup::Absent => Some(class_missing(snapshot, claim, class)),
            Lookup::Found(found) => of_class(snapshot, claim, found),
            Lookup::Unknown => from_events(snapshot, claim, class),
        },
    }
}

fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    let beta = claim.metadata.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    beta.or(claim.spec.as_ref()?.storage_class_name.as_ref()).map(String::as_str)
}

/// The claim names its volume.
fn chosen(snapshot: &Snapshot, claim: &PersistentVolumeClaim, volume: &str) -> Option<Finding> {
    let own = name(&claim.metadata);
    let events = ["FailedBinding", "VolumeMismatch"]
        .iter()
        .filter_map(|reason| snapshot.event("PersistentVolumeClaim", &claim.metadata, reason));
    let what = match snapshot.volumes.get(volume) {
        Lookup::Absent => format!("the volume {volume:?} that it names does not exist"),
        Lookup::Found(found) => match misfit(claim, found) {
            Some(why) => format!("the volume {volume:?} that it names does not fit: {why}"),
            None => {
                return Some(
                    Finding::new("ClaimBinds", word(own), format!("it is about to be bound to {volume}")).waiting(),
                );
            }
        },
        Lookup::Unknown => format!("it has not got the volume {volume:?} that it names"),
    };
    Some(
        Finding::new("VolumeChosen", word(own), what)
            .seen("spec.volumeName", volume)
            .with(events)
            .advice("free that volume or make one that fits; or delete the claim and create it without volumeName"),
    )
}

/// No class was named, and none is the default.
fn classless(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Finding {
    let finding =
        Finding::new("NoClass", word(name(&claim.metadata)), "no storage class is set, and none is the default")
            .seen("spec.storageClassName", "(none)")
            .with(snapshot.event("PersistentVolumeClaim", &claim.metadata, "FailedBinding"));
    let finding = match likeliest(snapshot).map(|class| name(&class.metadata)) {
        Some(class) => {
            let patch = json!({"metadata": {"annotations": {DEFAULT: "true"}}});
            let all: Vec<&str> = snapshot.classes.names().collect();
            finding.mended_by(
                format!("make a class the default one (there are: {})", all.join(", ")),
                format!("kubectl patch storageclass {class} -p {}", quoted(&patch.to_string())),
            )
        }
        None => finding,
    };
    let misfits = misfits(snapshot, claim);
    finding.with(misfits).mended_by("or create a volume for it, PATH being a directory of the node", by_hand(claim, ""))
}

fn class_missing(snapshot: &Snapshot, claim: &PersistentVolumeClaim, class: &str) -> Finding {
    let finding = Finding::new(
        "ClassMissing",
        word(name(&claim.metadata)),
        format!("its storage class {class:?} does not exist"),
    )
    .seen("spec.storageClassName", class)
    .with(snapshot.event("PersistentVolumeClaim", &claim.metadata, "ProvisioningFailed"));
    let known: Vec<&str> = snapshot.classes.names().collect();
    let like = likeliest(snapshot);
    let finding = finding.seen("storage classes", if known.is_empty() { "none".to_owned() } else { known.join(", ") });
    match like {
        Some(like) => finding.mended_by(
            format!(
                "create it, for example as another name of {:?}; a set that names the wrong class has to be made anew (kubectl delete sts --cascade=orphan), since claim templates cannot be changed",
                name(&like.metadata)
            ),
            create("kubectl", &renamed(like, class)),
        ),
        None => finding.advice("create it, with a provisioner that the cluster has"),
    }
}

/// The class that most likely works: the default one, one that was it, one that has made volumes; none that makes none.
fn likeliest(snapshot: &Snapshot) -> Option<&StorageClass> {
    let serves = |class: &StorageClass| {
        let of_class = |volume: &PersistentVolume| {
            volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref()) == class.metadata.name.as_ref()
        };
        snapshot.volumes.values().any(of_class)
    };
    let rank = |class: &&StorageClass| {
        let default = class.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEFAULT));
        (default.is_some_and(|value| value == "true"), default.is_some(), serves(class))
    };
    let makes = |class: &&StorageClass| class.provisioner != BY_HAND;
    // The last of equals would win: the first in the alphabet is to.
    let classes: Vec<&StorageClass> = snapshot.classes.values().filter(makes).collect();
    classes.into_iter().rev().max_by_key(rank)
}

/// A class of another name that does the same.
fn renamed(like: &StorageClass, name: &str) -> serde_json::Value {
    let mut object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": like.provisioner,
    });
    for (key, value) in [
        ("parameters", json!(like.parameters)),
        ("reclaimPolicy", json!(like.reclaim_policy)),
        ("volumeBindingMode", json!(like.volume_binding_mode)),
        ("allowVolumeExpansion", json!(like.allow_volume_expansion)),
    ] {
        if !value.is_null() {
            object[key] = value;
        }
    }
    object
}

fn of_class(snapshot: &Snapshot, claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<Finding> {
    let own = name(&claim.metadata);
    let class_name = name(&class.metadata);
    if class.provisioner == BY_HAND {
        return Some(no_volume(snapshot, claim, class_name));
    }
    let delayed = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let placed = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SELECTED_NODE));
    if delayed && !placed {
        return None;
    }
    let provisioner = &class.provisioner;
    if let Some(event) = snapshot.newest("PersistentVolumeClaim", &claim.metadata, "ProvisioningFailed") {
        let failed =
            Finding::new("ProvisioningFailed", word(own), format!("provisioner {provisioner} cannot make its volume"))
                .with([snapshot.shown(event)])
                .seen(format!("storageclass/{class_name} provisioner"), provisioner);
        return Some(failed.advice(format!(
            "ask for what the class can give (size, access modes), or name another class ({})",
            snapshot.classes.names().collect::<Vec<_>>().join(", ")
        )));
    }
    Some(slow(snapshot, claim, class_name, provisioner))
}

/// The provisioner has not answered.
fn slow(snapshot: &Snapshot, claim: &PersistentVolumeClaim, class: &str, provisioner: &str) -> Finding {
    let made = claim.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = made.map_or(0, |made| snapshot.now.as_second() - made.as_second());
    let waiting =
        Finding::new("Provisioner", word(own_name(claim)), format!("no volume yet from provisioner {provisioner}"))
            .seen(format!("storageclass/{class} provisioner"), provisioner)
            .with(snapshot.event("PersistentVolumeClaim", &claim.metadata, "ExternalProvisioning"));
    if age < PROVISIONER_PATIENCE_SECONDS {
        return waiting.waiting();
    }
    waiting
        .mended_by("see whether its provisioner runs", "kubectl get pods -A")
        .mended_by("or create a volume by hand, PATH being a directory of the node", by_hand(claim, class))
}

fn own_name(claim: &PersistentVolumeClaim) -> &str {
    name(&claim.metadata)
}

/// Classes could not be read: events are all there is.
fn from_events(snapshot: &Snapshot, claim: &PersistentVolumeClaim, class: &str) -> Option<Finding> {
    let own = own_name(claim);
    let event = snapshot.events_of("PersistentVolumeClaim", &claim.metadata).next()?;
    let text = event.message.as_deref().unwrap_or_default();
    let finding = |rule, what: String| {
        Finding::new(rule, word(own), what).seen("spec.storageClassName", class).with([snapshot.shown(event)])
    };
    match event.reason.as_deref() {
        Some("ProvisioningFailed") if text.contains("not found") => Some(
            finding("ClassMissing", format!("its storage class {class:?} does not exist"))
                .advice(format!("have somebody who may create the StorageClass {class:?}")),
        ),
        Some("ProvisioningFailed" | "FailedBinding") => Some(
            finding("ProvisioningFailed", "no volume can be had for it".to_owned())
                .advice("ask who runs the cluster for a volume of that class"),
        ),
        Some("ExternalProvisioning") => {
            let since = event.first_timestamp.as_ref().map(|time| time.0).or_else(|| event_time(event));
            let late =
                since.is_some_and(|at| snapshot.now.as_second() - at.as_second() >= PROVISIONER_PATIENCE_SECONDS);
            let finding = finding("Provisioner", format!("no volume yet from the provisioner of class {class:?}"));
            Some(if late {
                finding.advice("ask who runs the cluster whether the provisioner runs")
            } else {
                finding.waiting()
            })
        }
        _ => None,
    }
}

/// Nobody makes volumes for this claim, and none that is there fits.
fn no_volume(snapshot: &Snapshot, claim: &PersistentVolumeClaim, class: &str) -> Finding {
    let how = match class {
        "" => "no volume is available: it asks for none to be made (storageClassName: \"\"), and none fits".to_owned(),
        class => format!("no volume is available: those of class {class:?} are made by hand, and none fits"),
    };
    let events = ["FailedBinding", "ProvisioningFailed", "WaitForFirstConsumer", "WaitForPodScheduled"]
        .iter()
        .find_map(|reason| snapshot.event("PersistentVolumeClaim", &claim.metadata, reason));
    let mut finding = Finding::new("NoVolume", word(own_name(claim)), how)
        .seen("asks for", asked(claim))
        .with(events)
        .with(misfits(snapshot, claim));
    if let Some(volume) = released(snapshot, claim) {
        let patch = r#"[{"op":"remove","path":"/spec/claimRef"}]"#;
        finding = finding.mended_by(
            format!(
                "{volume} would fit, but an earlier claim had it: let it be used again, with the data that is in it"
            ),
            format!("kubectl patch pv {volume} --type=json -p {}", quoted(patch)),
        );
    }
    let or = if finding.mend.is_empty() { "" } else { "or " };
    finding.mended_by(format!("{or}create one that fits, PATH being a directory of the node"), by_hand(claim, class))
}

/// `1Gi, ReadWriteOnce`.
fn asked(claim: &PersistentVolumeClaim) -> String {
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default().join(",");
    let size = size_of(claim).map_or_else(|| "-".to_owned(), |size| size.to_string());
    format!("{size}, {modes}, class {:?}", class_of(claim).unwrap_or_default())
}

fn size_of(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}

/// Why each volume that there is does not fit.
fn misfits(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Vec<crate::Evidence> {
    let told = |volume: &PersistentVolume| {
        let why = misfit(claim, volume)?;
        Some(crate::Evidence { source: format!("persistentvolume/{}", name(&volume.metadata)), text: why })
    };
    if snapshot.volumes.is_known() && snapshot.volumes.values().next().is_none() {
        return vec![crate::Evidence { source: "persistentvolumes".to_owned(), text: "there are none".to_owned() }];
    }
    snapshot.volumes.values().filter_map(told).take(MISFITS_MAX).collect()
}

/// Why that volume is not for this claim; `None` when it fits.
fn misfit(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Available");
    let holder = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let named = |reference: &k8s_openapi::api::core::v1::ObjectReference| {
        format!(
            "{}/{}",
            reference.namespace.as_deref().unwrap_or_default(),
            reference.name.as_deref().unwrap_or_default()
        )
    };
    if let Some(holder) = holder {
        let own = holder.name == claim.metadata.name && holder.namespace == claim.metadata.namespace;
        if !own {
            return Some(format!("{phase}, of the claim {}", named(holder)));
        }
        if phase == "Released" {
            return Some("Released: it was bound to an earlier claim of this name".to_owned());
        }
    }
    unlike(claim, volume)
}

/// What of the volume itself does not fit.
fn unlike(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<String> {
    let (has, wants) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    let class = has.storage_class_name.as_deref().unwrap_or_default();
    if class != class_of(claim).unwrap_or_default() {
        return Some(format!("its class is {class:?}"));
    }
    let size: Option<Quantity> = has.capacity.as_ref().and_then(|c| c.get("storage")?.0.parse().ok());
    if let (Some(size), Some(wanted)) = (size, size_of(claim))
        && size < wanted
    {
        return Some(format!("too small: {size}"));
    }
    let modes = has.access_modes.as_deref().unwrap_or_default();
    if let Some(mode) = wants.access_modes.iter().flatten().find(|mode| !modes.contains(mode)) {
        return Some(format!("it does not offer {mode}, only {}", modes.join(",")));
    }
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if mode(&has.volume_mode) != mode(&wants.volume_mode) {
        return Some(format!("its volumeMode is {}", mode(&has.volume_mode)));
    }
    let labels = volume.metadata.labels.clone().unwrap_or_default();
    wants
        .selector
        .as_ref()
        .is_some_and(|selector| !selects(selector, &labels))
        .then(|| "its labels are not those that the claim selects".to_owned())
}

/// A volume that would fit if it were free.
fn released<'a>(snapshot: &'a Snapshot, claim: &PersistentVolumeClaim) -> Option<&'a str> {
    let is_free = |volume: &&PersistentVolume| {
        volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released")
            && unlike(claim, volume).is_none()
    };
    snapshot.volumes.values().find(is_free).map(|volume| name(&volume.metadata))
}

/// The command that makes a volume that fits.
fn by_hand(claim: &PersistentVolumeClaim, class: &str) -> String {
    let spec = claim.spec.clone().unwrap_or_default();
    let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
    let mut object = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": format!("{namespace}-{}", own_name(claim))},
        "spec": {
            "capacity": {"storage": size_of(claim).map(|size| size.to_string())},
            "accessModes": spec.access_modes,
            "hostPath": {"path": "PATH", "type": "DirectoryOrCreate"},
        },
    });
    if !class.is_empty() {
        object["spec"]["storageClassName"] = class.into();
    }
    if let Some(labels) = spec.selector.and_then(|selector| selector.match_labels) {
        object["metadata"]["labels"] = json!(labels);
    }
    create("kubectl", &object)
}

/// A claim by itself that waits as its class says.
fn by_design(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Finding {
    let event = ["WaitForPodScheduled", "WaitForFirstConsumer"]
        .iter()
        .find_map(|reason| snapshot.event("PersistentVolumeClaim", &claim.metadata, reason));
    Finding::new(
        "WaitForFirstConsumer",
        word(own_name(claim)),
        "it waits for a pod that uses it to be placed, as its class says",
    )
    .with(event)
    .waiting()
}
