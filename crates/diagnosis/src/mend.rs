//! Commands that mend, and whose pods they are about.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use stead_workloads::owner::controller_of;
use stead_workloads::statefulset::{identity, wishes};

use crate::companion::Treatment;
use crate::snapshot::{Snapshot, name};

/// Where the template of a pod is, and where its roll-out stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// `statefulset/web`; `pod/x` for one without owner.
    pub(crate) word: String,
    /// Whether there is a template, so that a change makes another pod.
    pub(crate) has_template: bool,
    pub(crate) roll_out: RollOut,
    /// Its pods are replaced by themselves when the template is mended.
    pub(crate) heals: bool,
}

/// Of which revision a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollOut {
    /// None is under way.
    None,
    /// Of the one that is being rolled out; the one before works.
    Newest,
    /// Of another than the newest: the template has been changed since.
    Outdated,
}

impl Owner {
    pub(crate) fn of(snapshot: &Snapshot, pod: &Pod) -> Self {
        let alone = || Self {
            word: format!("pod/{}", name(&pod.metadata)),
            has_template: false,
            roll_out: RollOut::None,
            heals: false,
        };
        let Some(owner) = controller_of(&pod.metadata) else { return alone() };
        match owner.kind.as_str() {
            "StatefulSet" => Self::set(snapshot, pod, &owner.name),
            "ReplicaSet" => {
                let deployment = owner.name.rsplit_once('-').map_or(owner.name.as_str(), |(name, _)| name);
                Self { word: format!("deployment/{deployment}"), has_template: true, heals: true, ..alone() }
            }
            kind => Self {
                word: format!("{}/{}", kind.to_lowercase(), owner.name),
                has_template: kind != "Job",
                heals: true,
                ..alone()
            },
        }
    }

    fn set(snapshot: &Snapshot, pod: &Pod, set: &str) -> Self {
        let known = snapshot.sets.get(set).found();
        let treated = known.map(|set| Treatment::of(snapshot, set));
        let seen = treated.as_ref().map(|treated| &treated.set);
        let status = known.and_then(|set| set.status.as_ref());
        let revision = |name: Option<&String>| name.map(|name| identity::revision_label(name).into_owned());
        let (update, current) = (
            revision(status.and_then(|s| s.update_revision.as_ref())),
            revision(seen.and_then(|set| set.status.as_ref()?.current_revision.as_ref())),
        );
        let own = identity::revision_of(pod).map(str::to_owned);
        let roll_out = match (own, update) {
            (Some(own), Some(update)) if own != update => RollOut::Outdated,
            (_, Some(update)) if current.as_ref().is_some_and(|current| *current != update) => RollOut::Newest,
            _ => RollOut::None,
        };
        // Parallel sets replace pods that do not work on every cluster.
        let parallel = known.is_some_and(|set| set.spec.pod_management_policy.as_deref() == Some("Parallel"));
        let on_delete = seen
            .and_then(|set| set.spec.update_strategy.as_ref()?.type_.as_deref())
            .is_some_and(|strategy| strategy == "OnDelete");
        let heals = seen.is_some_and(|set| (wishes::heals(set) && !wishes::is_paused(set)) || parallel);
        Self { word: format!("statefulset/{set}"), has_template: true, roll_out, heals: heals && !on_delete }
    }
}

/// `echo 'JSON' | kubectl create -f -`.
pub(crate) fn create(kubectl: &str, object: &Value) -> String {
    format!("echo {} | {kubectl} create -f -", quoted(&object.to_string()))
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
