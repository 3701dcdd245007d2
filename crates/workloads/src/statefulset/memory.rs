//! What a look at a set found of its pods, kept for the next look.
//!
//! Most pods are the same objects at the next look, and in a large cluster they have left the processor's caches by
//! then. To compare where an object lies instead of reading it is most of what makes a look at a set cheap, and its cost
//! independent of the cluster.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod as PodObject;

use super::snapshot::Pod;

/// What was found of the pods of one set. It is only ever used for pods that are still the same objects, and forgotten
/// when the set or its revisions are not what they were.
#[derive(Debug, Default)]
pub struct Memory {
    set: Option<Remembered>,
    /// By the place in memory of the object, which is held here and so stays where it is.
    pods: HashMap<usize, Known>,
    /// The number of the present look.
    look: u64,
}

/// All of a set, but for its status, that what is found of its pods depends on.
#[derive(Debug)]
struct Remembered {
    uid: Option<String>,
    generation: Option<i64>,
    annotations: Option<BTreeMap<String, String>>,
    revisions: [String; 2],
}

#[derive(Debug)]
struct Known {
    object: Arc<PodObject>,
    seat: Seat,
    /// It would be found again at any time from then on.
    since: Timestamp,
    look: u64,
}

/// Which pod of its set a pod is, and what was found of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) ordinal: u32,
    /// Its name is that of its ordinal, without zeros that lead.
    pub(super) named: bool,
    pub(super) pod: Pod,
}

impl Memory {
    /// Whether `pod` is known as one of `set` by its labels and its name.
    #[must_use]
    pub fn knows(&self, set: &StatefulSet, pod: &PodObject) -> bool {
        self.pods.contains_key(&place(pod)) && self.set.as_ref().is_some_and(|remembered| remembered.is(set))
    }

    /// Begins a look.
    pub(super) fn turn_to(&mut self, set: &StatefulSet, revisions: [&str; 2]) {
        self.look += 1;
        if self.set.as_ref().is_some_and(|remembered| remembered.is(set) && remembered.revisions == revisions) {
            return;
        }
        self.pods.clear();
        self.set = Some(Remembered {
            uid: set.metadata.uid.clone(),
            generation: set.metadata.generation,
            annotations: set.metadata.annotations.clone(),
            revisions: revisions.map(str::to_owned),
        });
    }

    /// What would be found of `pod` now, if that is known.
    pub(super) fn recall(&mut self, pod: &PodObject, now: Timestamp) -> Option<Seat> {
        let known = self.pods.get_mut(&place(pod)).filter(|known| known.since <= now)?;
        known.look = self.look;
        Some(known.seat)
    }

    /// Remembers what was found of `object`, which holds from `since` on.
    pub(super) fn note(&mut self, object: &Arc<PodObject>, seat: Seat, since: Timestamp) {
        let known = Known { object: object.clone(), seat, since, look: self.look };
        self.pods.insert(place(&known.object), known);
    }

    /// Ends a look at `pods` pods: forgets those that were not among them.
    pub(super) fn close(&mut self, pods: usize) {
        if self.pods.len() != pods || self.pods.values().any(|known| known.look != self.look) {
            self.pods.retain(|_, known| known.look == self.look);
        }
    }
}

impl Remembered {
    fn is(&self, set: &StatefulSet) -> bool {
        let meta = &set.metadata;
        // An object without generation was not read from a server.
        self.generation.is_some()
            && (&self.uid, self.generation) == (&meta.uid, meta.generation)
            && self.annotations == meta.annotations
    }
}

fn place(pod: &PodObject) -> usize {
    std::ptr::from_ref(pod).addr()
}
