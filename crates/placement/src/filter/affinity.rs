//! Required affinity and anti-affinity between pods, in both directions.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::Node;

use super::{Cause, Refusal};
use crate::pick::label;
use crate::pod::{PodInfo, Term};
use crate::view::View;

/// Topology domains: values of labels of nodes, by the label's key.
#[derive(Debug, Default)]
struct Domains<'a>(HashMap<&'a str, HashSet<&'a str>>);

impl<'a> Domains<'a> {
    /// Adds the domain that the node is in for this term.
    fn add(&mut self, term: &'a Term, node: &'a Node) {
        if let Some(value) = label(node, term.topology_key()) {
            self.0.entry(term.topology_key()).or_default().insert(value);
        }
    }

    fn has(&self, key: &str, node: &Node) -> bool {
        self.0.get(key).is_some_and(|values| label(node, key).is_some_and(|value| values.contains(value)))
    }
}

/// Domains that matter for one pod.
#[derive(Debug, Default)]
pub(super) struct Affinity<'a> {
    /// Where there are pods that the pod wants to be near.
    near: Domains<'a>,
    /// Where there are pods that the pod wants to be away from.
    away: Domains<'a>,
    /// Where there are pods that want to be away from this one.
    unwanted: Domains<'a>,
    /// The pod is the first of those that want to be near each other.
    first: bool,
}

impl<'a> Affinity<'a> {
    pub(super) fn prepare(view: &'a View, pod: &'a PodInfo) -> Self {
        let mut found = Self::default();
        let own = view.namespace_labels(pod.namespace());
        for info in view.nodes() {
            if info.with_affinity == 0 && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
                continue;
            }
            let Some(node) = info.node.as_deref() else { continue };
            for other in info.pods.values().filter(|other| other.uid() != pod.uid()) {
                let theirs = view.namespace_labels(other.namespace());
                if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, theirs)) {
                    pod.affinity.iter().for_each(|term| found.near.add(term, node));
                }
                let away = pod.anti_affinity.iter().filter(|term| term.matches(other, theirs));
                away.for_each(|term| found.away.add(term, node));
                let unwanted = other.anti_affinity.iter().filter(|term| term.matches(pod, own));
                unwanted.for_each(|term| found.unwanted.add(term, node));
            }
        }
        found.first = found.near.0.is_empty() && pod.affinity.iter().all(|term| term.matches(pod, own));
        found
    }

    pub(super) fn check(&self, pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
        let refuse = |reason: &str| Refusal::new(Cause::InterPodAffinity, reason);
        let has_key = |term: &Term| label(node, term.topology_key()).is_some();
        let near = pod.affinity.iter().all(|term| self.near.has(term.topology_key(), node));
        let begins = self.first && pod.affinity.iter().all(has_key);
        if !(near || begins) {
            let reason = "node(s) didn't match pod affinity rules";
            return Err(Refusal { helpless: true, ..refuse(reason) });
        }
        if pod.anti_affinity.iter().any(|term| self.away.has(term.topology_key(), node)) {
            return Err(refuse("node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwanted.0.keys().any(|key| self.unwanted.has(key, node)) {
            return Err(refuse("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}
