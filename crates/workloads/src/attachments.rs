//! Which volumes of storage drivers are to be attached to which node: those that the pods of the node need, and those that it
//! still uses.
//!
//! Source: `pkg/controller/volume/attachdetach`. A volume is attached when a pod that needs it has got its node. It is detached
//! when no pod of the node needs it any more and the node no longer says that it uses it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use sha2::{Digest, Sha256};

use crate::claims::{Event, name};

/// All that is known of one node.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub node: String,
    /// The node object is there.
    pub exists: bool,
    /// Volumes that its status says to be in use.
    pub in_use: BTreeSet<String>,
    /// Volumes that are wanted, by their names, with the pods that want them. Only such that have to be attached.
    pub wanted: BTreeMap<String, Want>,
    /// What is attached, or on its way.
    pub attachments: Vec<std::sync::Arc<VolumeAttachment>>,
    /// What a node's status calls each volume that has an attachment here.
    pub unique_names: BTreeMap<String, String>,
}

/// A volume that pods of the node want.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    pub driver: String,
    pub handle: String,
    /// Name of its attachment to this node.
    pub attachment: String,
    /// It may be attached to several nodes at once.
    pub shared: bool,
    /// The nodes, other than this one, that it is attached to.
    pub elsewhere: Vec<String>,
    pub pods: Vec<ObjectReference>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a plan has few of them and lives for a moment")]
pub enum Act {
    Create(VolumeAttachment),
    /// By name.
    Delete(String),
}

/// What to do, and what to tell which pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub acts: Vec<Act>,
    /// The pod, the volume, and what to tell.
    pub events: Vec<(ObjectReference, String, Event)>,
}

/// Decides about the attachments of one node.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let there: BTreeMap<&str, &VolumeAttachment> =
        snapshot.attachments.iter().map(|one| (name(&one.metadata), &**one)).collect();
    for (volume, want) in &snapshot.wanted {
        match there.get(want.attachment.as_str()) {
            Some(attachment) => tell(&mut plan, volume, want, attachment),
            None if !want.shared && !want.elsewhere.is_empty() => refuse(&mut plan, volume, want),
            None => plan.acts.push(Act::Create(attachment(&snapshot.node, volume, want))),
        }
    }
    for (own, attachment) in there {
        let volume = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
        let wanted = snapshot.wanted.get(volume).is_some_and(|want| want.attachment == own);
        let used = snapshot.unique_names.get(volume).is_some_and(|unique| snapshot.in_use.contains(unique));
        let needed = wanted || (used && snapshot.exists);
        if !needed && attachment.metadata.deletion_timestamp.is_none() {
            plan.acts.push(Act::Delete(own.to_owned()));
        }
    }
    plan
}

fn attachment(node: &str, volume: &str, want: &Want) -> VolumeAttachment {
    VolumeAttachment {
        metadata: ObjectMeta { name: Some(want.attachment.clone()), ..ObjectMeta::default() },
        spec: VolumeAttachmentSpec {
            attacher: want.driver.clone(),
            node_name: node.to_owned(),
            source: VolumeAttachmentSource {
                persistent_volume_name: Some(volume.to_owned()),
                ..VolumeAttachmentSource::default()
            },
        },
        status: None,
    }
}

fn tell(plan: &mut Plan, volume: &str, want: &Want, attachment: &VolumeAttachment) {
    let going = attachment.metadata.deletion_timestamp.is_some();
    let Some(status) = attachment.status.as_ref().filter(|_| !going) else { return };
    let event = if status.attached {
        Event::normal("SuccessfulAttachVolume", format!("AttachVolume.Attach succeeded for volume \"{volume}\" "))
    } else if let Some(message) = status.attach_error.as_ref().and_then(|error| error.message.as_deref()) {
        Event::warning("FailedAttachVolume", format!("AttachVolume.Attach failed for volume \"{volume}\" : {message}"))
    } else {
        return;
    };
    plan.events.extend(want.pods.iter().map(|pod| (pod.clone(), volume.to_owned(), event.clone())));
}

fn refuse(plan: &mut Plan, volume: &str, want: &Want) {
    let text = format!(
        "Multi-Attach error for volume \"{volume}\" Volume is already exclusively attached to one node and can't be attached to another"
    );
    let event = Event::warning("FailedAttachVolume", text);
    plan.events.extend(want.pods.iter().map(|pod| (pod.clone(), volume.to_owned(), event.clone())));
}

/// Name of the object that says where a volume is attached (upstream: `getAttachmentName`).
#[must_use]
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let hash = Sha256::digest(format!("{handle}{driver}{node}").as_bytes());
    hash.iter().fold("csi-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// What a node's status calls a volume.
#[must_use]
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Whether a pod needs its volumes on its node: it has a node, and has not ended.
#[must_use]
pub fn needs_volumes(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    placed && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the volume may be attached to several nodes at once.
#[must_use]
pub fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn want(elsewhere: &[&str]) -> Want {
        Want {
            driver: "d".to_owned(),
            handle: "h".to_owned(),
            attachment: "csi-1".to_owned(),
            shared: false,
            elsewhere: elsewhere.iter().map(|node| (*node).to_owned()).collect(),
            pods: vec![ObjectReference { name: Some("p".to_owned()), ..ObjectReference::default() }],
        }
    }

    fn snapshot(wanted: Option<Want>, there: bool, in_use: bool) -> Snapshot {
        let unique = "kubernetes.io/csi/d^h".to_owned();
        let made = attachment("n", "v", &want(&[]));
        Snapshot {
            node: "n".to_owned(),
            exists: true,
            in_use: in_use.then(|| unique.clone()).into_iter().collect(),
            wanted: wanted.map(|want| ("v".to_owned(), want)).into_iter().collect(),
            attachments: there.then(|| Arc::new(made)).into_iter().collect(),
            unique_names: BTreeMap::from([("v".to_owned(), unique)]),
        }
    }

    fn acts(snapshot: &Snapshot) -> Vec<&'static str> {
        let word = |act: &Act| if matches!(act, Act::Create(_)) { "create" } else { "delete" };
        plan(snapshot).acts.iter().map(word).collect()
    }

    #[test]
    fn attached_while_wanted_or_in_use() {
        assert_eq!(acts(&snapshot(Some(want(&[])), false, false)), ["create"]);
        assert_eq!(acts(&snapshot(Some(want(&[])), true, false)), [""; 0]);
        assert_eq!(acts(&snapshot(None, true, true)), [""; 0], "the node has not let go");
        assert_eq!(acts(&snapshot(None, true, false)), ["delete"]);
        let gone = Snapshot { exists: false, ..snapshot(None, true, true) };
        assert_eq!(acts(&gone), ["delete"], "a node that was removed uses nothing");
    }

    #[test]
    fn a_volume_for_one_node_is_not_attached_to_a_second() {
        let elsewhere = snapshot(Some(want(&["other"])), false, false);
        let told = plan(&elsewhere);
        assert!(told.acts.is_empty());
        assert!(told.events[0].2.message.starts_with("Multi-Attach error for volume \"v\""));
        let shared = Want { shared: true, ..want(&["other"]) };
        assert_eq!(acts(&snapshot(Some(shared), false, false)), ["create"]);
    }
}
