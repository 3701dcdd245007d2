//! What the scheduler knows: the view that pods are placed by, what it has promised beyond the API, and who waits.
//!
//! No IO and no clock: changes come in, decisions come out.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use stead_informer::{Change, Key};
use stead_placement::{Cause, ClaimPlan, Placement, PodInfo, Refused, View, place};
use tokio::time::Instant;

use crate::waiting::{Helps, Waiting};

const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

/// What is to be done for one pod.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Do the claims, then bind the pod.
    Bind(Assumed),
    /// Tell that it fits nowhere, and evict whom its preemption names.
    Refuse(Key, Arc<PodInfo>, Refused),
}

/// A pod that was placed and counts on its node already.
#[derive(Clone, Debug)]
pub(crate) struct Assumed {
    pub(crate) key: Key,
    pub(crate) pod: Arc<PodInfo>,
    pub(crate) node: String,
    pub(crate) claims: Vec<ClaimPlan>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mirror {
    scheduler: String,
    view: View,
    waiting: Waiting,
    /// Nodes of pods, bound or assumed, by key: uid and node.
    placed: HashMap<Key, (String, String)>,
    /// Claims as they will be once what was decided is done.
    promised: HashMap<String, Arc<PersistentVolumeClaim>>,
    budgets: HashMap<Key, Arc<PodDisruptionBudget>>,
}

impl Mirror {
    pub(crate) fn new(scheduler: &str) -> Self {
        Self {
            scheduler: scheduler.to_owned(),
            view: View::default(),
            waiting: Waiting::default(),
            placed: HashMap::new(),
            promised: HashMap::new(),
            budgets: HashMap::new(),
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.next_due()
    }

    pub(crate) fn advance(&mut self, now: Instant) {
        self.waiting.advance(now);
    }

    /// Places the next pod that is ready.
    pub(crate) fn decide(&mut self) -> Option<Decision> {
        let (key, pod) = self.waiting.pop()?;
        match place(&pod, &self.view) {
            Placement::On { node, claims, .. } => {
                let assumed = Assumed { key, pod, node, claims };
                self.assume(&assumed);
                Some(Decision::Bind(assumed))
            }
            Placement::Nowhere(refused) => {
                self.waiting.refused(&key, refused.causes.clone());
                match &refused.preemption {
                    Some(plan) => self.view.nominate(&plan.node, pod.clone()),
                    None if !awaits(&refused) => self.view.unnominate(pod.uid()),
                    None => {}
                }
                Some(Decision::Refuse(key, pod, refused))
            }
        }
    }

    /// The names of the claims that have not been seen, where a pod was refused for its volumes.
    pub(crate) fn unknown_claims(&self, pod: &PodInfo, refused: &Refused) -> Vec<String> {
        if !refused.causes.contains(&Cause::VolumeBinding) {
            return Vec::new();
        }
        let names = pod.claims.iter().filter(|name| !self.view.storage.claims.contains_key(*name));
        names.filter_map(|name| Some(name.split_once('/')?.1.to_owned())).collect()
    }

    /// The binding was accepted: the watch will say so.
    pub(crate) fn bound(&mut self, assumed: &Assumed) {
        self.view.unnominate(assumed.pod.uid());
        // If the pod was deleted and made anew meanwhile, the entry is another pod's.
        if self.waiting.get(&assumed.key).is_some_and(|pod| pod.uid() == assumed.pod.uid()) {
            self.waiting.remove(&assumed.key);
        }
    }

    /// The binding failed: everything as it was, and again later.
    pub(crate) fn unbound(
        &mut self,
        assumed: &Assumed,
        now: Instant,
        claim: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    ) {
        let uid = assumed.pod.uid();
        if self.placed.get(&assumed.key).is_some_and(|(placed, _)| placed == uid) {
            self.placed.remove(&assumed.key);
        }
        self.view.remove_pod(&assumed.node, uid);
        for plan in &assumed.claims {
            self.promised.remove(plan.claim());
            if let ClaimPlan::Bind { volume, .. } = plan {
                self.view.storage_mut().promised.remove(volume);
            }
            match claim(plan.claim()) {
                Some(claim) => drop(self.view.storage_mut().claims.insert(plan.claim().to_owned(), claim)),
                None => drop(self.view.storage_mut().claims.remove(plan.claim())),
            }
        }
        if self.waiting.get(&assumed.key).is_some_and(|pod| pod.uid() == uid) {
            self.waiting.failed(&assumed.key, now);
        }
        self.waiting.wake(Helps::PodGone);
        self.waiting.wake(Helps::Storage);
    }

    fn assume(&mut self, assumed: &Assumed) {
        self.view.add_pod(&assumed.node, assumed.pod.clone());
        self.placed.insert(assumed.key.clone(), (assumed.pod.uid().to_owned(), assumed.node.clone()));
        for plan in &assumed.claims {
            let storage = self.view.storage_mut();
            let Some(claim) = storage.claims.get(plan.claim()) else { continue };
            let promised = Arc::new(as_promised(claim, plan, &assumed.node));
            if let ClaimPlan::Bind { volume, claim } = plan {
                storage.promised.insert(volume.clone(), claim.clone());
            }
            storage.claims.insert(plan.claim().to_owned(), promised.clone());
            self.promised.insert(plan.claim().to_owned(), promised);
        }
        self.waiting.wake(Helps::PodCame);
    }

    pub(crate) fn pod(&mut self, change: &Change<Pod>) {
        let Some(pod) = change.new.as_ref().filter(|pod| !is_over(pod)) else {
            return self.pod_gone(&change.key);
        };
        // A pod of the same name that is another one takes nothing over from it.
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let other = |known: &str| known != uid;
        if self.placed.get(&change.key).is_some_and(|(known, _)| other(known))
            || self.waiting.get(&change.key).is_some_and(|known| other(known.uid()))
        {
            self.pod_gone(&change.key);
        }
        let info = Arc::new(PodInfo::new(pod.clone()));
        match info.node().map(str::to_owned) {
            Some(node) => self.pod_on(&change.key, info, &node),
            None => self.pod_without_node(change, info),
        }
    }

    fn pod_on(&mut self, key: &Key, pod: Arc<PodInfo>, node: &str) {
        self.waiting.remove(key);
        self.view.unnominate(pod.uid());
        let before = self.placed.insert(key.clone(), (pod.uid().to_owned(), node.to_owned()));
        if let Some((uid, old)) = before.as_ref().filter(|(_, old)| old != node) {
            self.view.remove_pod(old, uid);
        }
        let labels =
            self.view.node(node).and_then(|info| info.pods.get(pod.uid())).map(|p| p.pod.metadata.labels.clone());
        let news = labels != Some(pod.pod.metadata.labels.clone());
        self.view.add_pod(node, pod);
        if news {
            self.waiting.wake(Helps::PodCame);
        }
    }

    fn pod_without_node(&mut self, change: &Change<Pod>, pod: Arc<PodInfo>) {
        let Some(spec) = &pod.pod.spec else { return };
        let ours = spec.scheduler_name.as_deref().unwrap_or(&self.scheduler) == self.scheduler;
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if !ours || gated || pod.is_terminating() {
            // If it is being bound, that may still succeed; it is not placed again.
            self.waiting.remove(&change.key);
            self.view.unnominate(pod.uid());
            return;
        }
        // A restart of the scheduler must not forget what room is being made.
        let nominated = pod.pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
        if let (None, Some(node)) = (self.waiting.get(&change.key), nominated.filter(|name| !name.is_empty())) {
            self.view.nominate(&node, pod.clone());
        }
        let again = self
            .waiting
            .get(&change.key)
            .is_none_or(|known| known.pod.spec != pod.pod.spec || known.pod.metadata.labels != pod.pod.metadata.labels);
        self.waiting.put(&change.key, pod, again);
    }

    fn pod_gone(&mut self, key: &Key) {
        if let Some(pod) = self.waiting.remove(key) {
            self.view.unnominate(pod.uid());
        }
        if let Some((uid, node)) = self.placed.remove(key) {
            self.view.remove_pod(&node, &uid);
        }
        self.waiting.wake(Helps::PodGone);
    }

    pub(crate) fn node(&mut self, change: &Change<Node>) {
        match &change.new {
            Some(node) => {
                let before = self.view.node(&change.key.name).and_then(|info| info.node.clone());
                self.view.set_node(node.clone());
                if before.is_none_or(|before| differs(&before, node)) {
                    self.waiting.wake(Helps::Node);
                }
            }
            None => {
                self.view.remove_node(&change.key.name);
                // Fewer domains may even out a spread.
                self.waiting.wake(Helps::PodGone);
            }
        }
    }

    pub(crate) fn claim(&mut self, change: &Change<PersistentVolumeClaim>) {
        let name = change.key.to_string();
        let storage = self.view.storage_mut();
        match &change.new {
            Some(claim) => {
                let promised = self.promised.get(&name).filter(|promised| !is_kept(promised, claim)).cloned();
                if promised.is_none() {
                    self.promised.remove(&name);
                }
                storage.claims.insert(name.clone(), promised.unwrap_or_else(|| claim.clone()));
            }
            None => {
                storage.claims.remove(&name);
                self.promised.remove(&name);
                storage.promised.retain(|_, claim| *claim != name);
            }
        }
        self.waiting.wake_claim(&name);
    }

    pub(crate) fn volume(&mut self, change: &Change<PersistentVolume>) {
        let storage = self.view.storage_mut();
        match &change.new {
            Some(volume) => {
                // What the API says of the volume replaces what was promised.
                if volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some()) {
                    storage.promised.remove(&*change.key.name);
                }
                storage.volumes.insert(change.key.name.to_string(), volume.clone());
            }
            None => {
                storage.volumes.remove(&*change.key.name);
                storage.promised.remove(&*change.key.name);
            }
        }
        self.waiting.wake(Helps::Storage);
    }

    pub(crate) fn class(&mut self, change: &Change<StorageClass>) {
        let (name, classes) = (change.key.name.to_string(), &mut self.view.storage_mut().classes);
        match &change.new {
            Some(class) => drop(classes.insert(name, class.clone())),
            None => drop(classes.remove(&name)),
        }
        self.waiting.wake(Helps::Storage);
    }

    pub(crate) fn namespace(&mut self, change: &Change<Namespace>) {
        let labels = |namespace: &Namespace| namespace.metadata.labels.clone().unwrap_or_default();
        match &change.new {
            Some(namespace) => self.view.set_namespace(&change.key.name, labels(namespace)),
            None => self.view.remove_namespace(&change.key.name),
        }
        if change.old.as_deref().map(labels) != change.new.as_deref().map(labels) {
            self.waiting.wake(Helps::Namespace);
        }
    }

    pub(crate) fn budget(&mut self, change: &Change<PodDisruptionBudget>) {
        match &change.new {
            Some(budget) => drop(self.budgets.insert(change.key.clone(), budget.clone())),
            None => drop(self.budgets.remove(&change.key)),
        }
        let mut all: Vec<_> = self.budgets.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        self.view.set_budgets(all.into_iter().map(|(_, budget)| budget.clone()).collect());
    }
}

/// Its victims are on their way out.
pub(crate) fn awaits(refused: &Refused) -> bool {
    refused.message.ends_with("terminating pod on the nominated node.")
}

fn is_over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether the node changed in a way that a placement looks at; heartbeats do not.
fn differs(a: &Node, b: &Node) -> bool {
    let seen = |node: &Node| {
        let spec = node.spec.as_ref();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.clone());
        (
            node.metadata.labels.clone(),
            spec.and_then(|s| s.taints.clone()),
            spec.and_then(|s| s.unschedulable),
            allocatable,
        )
    };
    seen(a) != seen(b)
}

/// The claim as it will be once the plan is done.
fn as_promised(claim: &PersistentVolumeClaim, plan: &ClaimPlan, node: &str) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    let annotations = claim.metadata.annotations.get_or_insert_default();
    match plan {
        ClaimPlan::Provision { .. } => {
            annotations.insert(SELECTED_NODE.to_owned(), node.to_owned());
        }
        ClaimPlan::Bind { volume, .. } => {
            annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
            claim.spec.get_or_insert_default().volume_name = Some(volume.clone());
        }
    }
    claim
}

/// Whether the API says by now what was promised, or more: then it is believed again.
fn is_kept(promised: &PersistentVolumeClaim, claim: &PersistentVolumeClaim) -> bool {
    let selected = |claim: &PersistentVolumeClaim| claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).cloned();
    let has_volume = claim.spec.as_ref().is_some_and(|spec| spec.volume_name.as_ref().is_some_and(|v| !v.is_empty()));
    claim.metadata.uid != promised.metadata.uid
        || has_volume
        || (selected(promised).is_some() && selected(promised) == selected(claim))
}
