//! Everything that the rules look at, and what could not be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use stead_workloads::statefulset::wishes;

use crate::finding::Evidence;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Set(String),
    Pod(String),
    Claim(String),
    Service(String),
    Autoscaler(String),
    /// Another owner of pods: `deployment`, its name and uid, and how many pods it wants.
    Workload {
        kind: String,
        name: String,
        uid: String,
        wanted: Option<i32>,
    },
}

/// Objects of one kind by name, or that they could not be listed.
#[derive(Clone, Debug)]
pub struct Listed<T>(pub Option<BTreeMap<String, T>>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Some(BTreeMap::new()))
    }
}

/// What is known of one object.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<T> {
    Found(T),
    /// It does not exist.
    Absent,
    /// Its kind could not be listed.
    Unknown,
}

impl<T> Lookup<T> {
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(object) => Some(object),
            Self::Absent | Self::Unknown => None,
        }
    }
}

impl<T> Listed<T> {
    #[must_use]
    pub fn get(&self, name: &str) -> Lookup<&T> {
        match &self.0 {
            None => Lookup::Unknown,
            Some(objects) => objects.get(name).map_or(Lookup::Absent, Lookup::Found),
        }
    }

    /// Those that are known.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(BTreeMap::values)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }
}

/// A kind that could not be listed, and the server's words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unread {
    /// `storageclasses.storage.k8s.io`.
    pub resource: String,
    pub why: String,
}

/// One namespace, and what it needs of the cluster, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub namespace: String,
    pub now: Timestamp,
    /// The cluster replaces broken pods of a roll-out by itself unless a set says otherwise: it is a stead.
    pub heals: bool,
    /// Whether a companion (`stead controller`) runs; `None` when that is not known.
    pub companion: Option<bool>,
    pub sets: Listed<StatefulSet>,
    pub pods: Listed<Pod>,
    pub claims: Listed<PersistentVolumeClaim>,
    pub services: Listed<Service>,
    /// Those that are to be explained.
    pub autoscalers: Listed<HorizontalPodAutoscaler>,
    pub revisions: Listed<ControllerRevision>,
    pub quotas: Listed<ResourceQuota>,
    pub budgets: Listed<PodDisruptionBudget>,
    pub classes: Listed<StorageClass>,
    pub volumes: Listed<PersistentVolume>,
    pub nodes: Listed<Node>,
    /// Pods of all namespaces that have a node, when what nodes have left is of interest and they could be listed.
    pub placed: Option<Vec<Pod>>,
    /// Events of the namespace, oldest first.
    pub events: Vec<Event>,
    /// The last lines of containers' logs, by pod and container.
    pub logs: BTreeMap<(String, String), Vec<String>>,
    pub unread: Vec<Unread>,
}

impl Snapshot {
    /// Whether there is a revision of that name, or revisions could not be listed.
    pub(crate) fn may_have_revision(&self, name: &str) -> bool {
        !matches!(self.revisions.get(name), Lookup::Absent)
    }
}

/// When an event was seen last.
#[must_use]
pub fn event_time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let micro = event.event_time.as_ref().map(|time| time.0);
    let made = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    series.or(last).or(micro).or(made)
}

/// How often it was seen.
pub(crate) fn event_count(event: &Event) -> i32 {
    event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1)
}

/// The claims that a pod's volumes name.
pub fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    let own = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{own}-{}", volume.name)),
        (None, None) => None,
    })
}

impl Snapshot {
    /// The disruption budgets that have a say in what becomes of the pods of `set`, if it asks them.
    pub(crate) fn asked_budgets(&self, set: &StatefulSet) -> Vec<Arc<PodDisruptionBudget>> {
        let asked = wishes::evicts(set).then(|| self.budgets.values().map(|budget| Arc::new(budget.clone())));
        asked.into_iter().flatten().collect()
    }

    /// The events of one object, newest first; those of an earlier object of its name are left out.
    pub(crate) fn events_of<'a>(&'a self, kind: &'a str, meta: &'a ObjectMeta) -> impl Iterator<Item = &'a Event> {
        self.events.iter().rev().filter(move |event| {
            let about = &event.involved_object;
            about.kind.as_deref() == Some(kind)
                && about.name == meta.name
                && (about.uid.is_none() || meta.uid.is_none() || about.uid == meta.uid)
        })
    }

    /// The newest event of an object with that reason.
    pub(crate) fn newest<'a>(&'a self, kind: &'a str, meta: &'a ObjectMeta, reason: &'a str) -> Option<&'a Event> {
        self.events_of(kind, meta).find(|event| event.reason.as_deref() == Some(reason))
    }

    /// The newest event of an object with that reason as evidence.
    pub(crate) fn event<'a>(&'a self, kind: &'a str, meta: &'a ObjectMeta, reason: &'a str) -> Option<Evidence> {
        self.newest(kind, meta, reason).map(|event| self.shown(event))
    }

    /// An event as evidence: its reason, how often and how long ago, and its message.
    pub(crate) fn shown(&self, event: &Event) -> Evidence {
        let ago = event_time(event).map(|at| format!("{} ago", self.since(at)));
        let often = Some(event_count(event)).filter(|count| *count > 1).map(|count| format!("x{count}"));
        let details: Vec<String> = often.into_iter().chain(ago).collect();
        Evidence {
            source: format!("event {} ({})", event.reason.as_deref().unwrap_or("-"), details.join(", ")),
            text: event.message.as_deref().unwrap_or_default().trim().to_owned(),
        }
    }

    /// How long ago that was: `4s`, `3m`.
    pub(crate) fn since(&self, at: Timestamp) -> String {
        crate::text::duration(self.now.as_second() - at.as_second())
    }

    /// `kubectl -n NAMESPACE`.
    pub(crate) fn kubectl(&self) -> String {
        format!("kubectl -n {}", self.namespace)
    }
}

/// The name of an object.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}
