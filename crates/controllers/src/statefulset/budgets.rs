//! Roll-outs that ask disruption budgets: which change of a budget wakes which set, and what is told of the wait.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use stead_informer::{Cache, Change, Key, Severity};
use stead_workloads::disruption::covers;
use stead_workloads::statefulset::{Plan, Wait, identity, wishes};

use super::observe::Seen;
use super::{Inner, StatefulSets};

/// The sets that may have waited for what has changed of a budget.
pub(super) fn sets_that_wait_for(sets: &Cache<StatefulSet>, change: &Change<PodDisruptionBudget>) -> Vec<Key> {
    let says = |budget: &Option<Arc<PodDisruptionBudget>>| {
        budget.as_ref().map(|budget| {
            let status = budget.status.clone().unwrap_or_default();
            (budget.spec.clone(), status.disruptions_allowed, status.observed_generation)
        })
    };
    if says(&change.old) == says(&change.new) {
        return Vec::new();
    }
    let evicting = sets.list_ns(&change.key.namespace).into_iter().filter(|set| wishes::evicts(set));
    evicting.map(|set| Key::of(&set.metadata)).collect()
}

impl StatefulSets {
    /// Tells once that a roll-out waits for a disruption budget.
    pub(super) fn tell_of_budgets(&self, seen: &Seen, plan: &Plan) {
        let Some(Wait::ForDisruption(ordinal)) = plan.wait else {
            self.inner.held.lock().remove(&seen.key);
            return;
        };
        let pod = seen.pods.iter().find(|pod| identity::ordinal_of(&seen.set, pod) == Some(ordinal));
        if let Some(pod) = pod {
            self.inner.tell_of_budget(&seen.key, &seen.set, pod, None);
        }
    }
}

impl Inner {
    /// The disruption budgets that the set's roll-outs ask, if they do.
    pub(super) fn budgets_of(&self, namespace: &str, set: &StatefulSet) -> Vec<Arc<PodDisruptionBudget>> {
        let asked = self.budgets.as_ref().filter(|_| wishes::evicts(set));
        asked.map(|budgets| budgets.list_ns(namespace)).unwrap_or_default()
    }

    /// Tells why a pod is not evicted, unless that has been told; `refusal`: what the server said.
    pub(super) fn tell_of_budget(&self, key: &Key, set: &StatefulSet, pod: &Pod, refusal: Option<&str>) {
        if !self.held.lock().insert(key.clone()) {
            return;
        }
        let covering: Vec<_> =
            self.budgets_of(&key.namespace, set).into_iter().filter(|budget| covers(budget, pod)).collect();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let (severity, why) = match (&covering[..], refusal) {
            ([one, _, ..], _) => (
                Severity::Warning,
                format!(
                    "more than one PodDisruptionBudget selects it ({}, ...), which eviction does not support; let only one do so",
                    named(one)
                ),
            ),
            ([one], Some(refusal)) => (Severity::Normal, format!("PodDisruptionBudget {}: {refusal}", named(one))),
            ([one], None) => (Severity::Normal, format!("PodDisruptionBudget {} allows no disruption now", named(one))),
            ([], refusal) => (Severity::Normal, refusal.unwrap_or("its disruption budget").to_owned()),
        };
        let text = format!("update of Pod {name} in StatefulSet {} waits: {why}", key.name);
        self.cx.recorder.event(set, severity, "WaitingForDisruptionBudget", text);
    }
}

fn named(budget: &PodDisruptionBudget) -> &str {
    budget.metadata.name.as_deref().unwrap_or_default()
}
