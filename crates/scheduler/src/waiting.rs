//! Pods without a node: which is next, who waits for what. No IO.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use stead_informer::Key;
use stead_placement::{Cause, PodInfo};
use tokio::time::Instant;

use crate::config::{BACK_OFF_FIRST, BACK_OFF_MAX};

/// What changed in the cluster, as far as it can help a pod that fits nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helps {
    /// A node came or changed in a way that matters.
    Node,
    /// A pod left its node.
    PodGone,
    /// A pod got a node, or the labels of one that has changed.
    PodCame,
    /// A claim, a volume or a class changed.
    Storage,
    Namespace,
}

impl Helps {
    fn can_help(self, cause: Cause) -> bool {
        match self {
            Self::Node => true,
            Self::PodGone => match cause {
                Cause::NodeResourcesFit
                | Cause::NodePorts
                | Cause::InterPodAffinity
                | Cause::PodTopologySpread
                | Cause::VolumeRestrictions => true,
                Cause::NodeUnschedulable
                | Cause::NodeName
                | Cause::TaintToleration
                | Cause::NodeAffinity
                | Cause::VolumeBinding => false,
            },
            Self::PodCame => matches!(cause, Cause::InterPodAffinity | Cause::PodTopologySpread),
            Self::Storage => matches!(cause, Cause::VolumeBinding | Cause::VolumeRestrictions),
            Self::Namespace => cause == Cause::InterPodAffinity,
        }
    }
}

/// All pods that this scheduler has to place.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pods: HashMap<Key, Entry>,
    /// Most important first, then in the order in which they came.
    ready: BTreeMap<(Reverse<i32>, u64), Key>,
    /// Those that fit nowhere.
    refused: HashSet<Key>,
    /// When the back-off of a pod ends.
    later: BTreeSet<(Instant, Key)>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    at: Stage,
    failures: u32,
}

#[derive(Debug)]
enum Stage {
    /// Under this in `ready`.
    Ready((Reverse<i32>, u64)),
    /// It was refused for these causes.
    Refused(BTreeSet<Cause>),
    /// It has a node and is being bound.
    Binding,
    BackOff(Instant),
}

impl Waiting {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|entry| &entry.pod)
    }

    /// Takes in a pod or its new state; `again` says whether the change can make it fit.
    pub(crate) fn put(&mut self, key: &Key, pod: Arc<PodInfo>, again: bool) {
        match self.pods.get_mut(key) {
            None => {
                let entry = Entry { pod, at: Stage::Binding, failures: 0 };
                self.pods.insert(key.clone(), entry);
                self.make_ready(key);
            }
            Some(entry) => {
                let important = entry.pod.priority() != pod.priority();
                entry.pod = pod;
                let refused = matches!(entry.at, Stage::Refused(_));
                let ready = matches!(entry.at, Stage::Ready(_));
                if (again && refused) || (important && ready) {
                    self.make_ready(key);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<PodInfo>> {
        self.leave(key);
        self.pods.remove(key).map(|entry| entry.pod)
    }

    /// Takes the next pod to place; it counts as being bound until somebody says otherwise.
    pub(crate) fn pop(&mut self) -> Option<(Key, Arc<PodInfo>)> {
        let (_, key) = self.ready.pop_first()?;
        let entry = self.pods.get_mut(&key).expect("what is ready is there");
        entry.at = Stage::Binding;
        Some((key, entry.pod.clone()))
    }

    pub(crate) fn refused(&mut self, key: &Key, causes: BTreeSet<Cause>) {
        self.leave(key);
        if let Some(entry) = self.pods.get_mut(key) {
            entry.at = Stage::Refused(causes);
            self.refused.insert(key.clone());
        }
    }

    /// The binding of the pod failed: it is placed again after its back-off. Says how long that is.
    pub(crate) fn failed(&mut self, key: &Key, now: Instant) -> Option<Duration> {
        let entry = self.pods.get_mut(key)?;
        let delay = BACK_OFF_FIRST.saturating_mul(1 << entry.failures.min(8)).min(BACK_OFF_MAX);
        entry.failures += 1;
        entry.at = Stage::BackOff(now + delay);
        self.later.insert((now + delay, key.clone()));
        Some(delay)
    }

    /// When the next back-off ends.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Ends the back-offs that are over.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((_, key)) = self.later.first().filter(|(at, _)| *at <= now).cloned() {
            self.make_ready(&key);
        }
    }

    /// Looks again at the pods that the change can help. Says how many.
    pub(crate) fn wake(&mut self, helps: Helps) -> usize {
        self.wake_where(|_, causes| causes.iter().any(|cause| helps.can_help(*cause)))
    }

    /// Looks again at the pods that wait for this claim.
    pub(crate) fn wake_claim(&mut self, claim: &str) -> usize {
        self.wake_where(|pod, causes| {
            pod.claims.iter().any(|name| name == claim) && causes.iter().any(|cause| Helps::Storage.can_help(*cause))
        })
    }

    fn wake_where(&mut self, helped: impl Fn(&PodInfo, &BTreeSet<Cause>) -> bool) -> usize {
        let is_helped = |key: &&Key| {
            self.pods
                .get(*key)
                .is_some_and(|entry| matches!(&entry.at, Stage::Refused(causes) if helped(&entry.pod, causes)))
        };
        let mut woken: Vec<Key> = self.refused.iter().filter(is_helped).cloned().collect();
        // In the order in which a set does not keep them.
        woken.sort();
        woken.iter().for_each(|key| self.make_ready(key));
        woken.len()
    }

    fn make_ready(&mut self, key: &Key) {
        self.leave(key);
        let Some(entry) = self.pods.get_mut(key) else { return };
        self.sequence += 1;
        let place = (Reverse(entry.pod.priority()), self.sequence);
        entry.at = Stage::Ready(place);
        self.ready.insert(place, key.clone());
    }

    /// Takes the pod out of the order it stands in.
    fn leave(&mut self, key: &Key) {
        match self.pods.get(key).map(|entry| &entry.at) {
            Some(Stage::Ready(place)) => drop(self.ready.remove(place)),
            Some(Stage::BackOff(at)) => drop(self.later.remove(&(*at, key.clone()))),
            Some(Stage::Refused(_)) => drop(self.refused.remove(key)),
            Some(Stage::Binding) | None => {}
        }
    }
}
