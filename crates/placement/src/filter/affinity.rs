//! Required affinity and anti-affinity between pods, in both directions.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;

use super::{Cause, Refusal};
use crate::pick::label;
use crate::pod::{PodInfo, Term};
use crate::view::View;

/// A topology domain: key and value of a label of nodes.
type Domain<'a> = (&'a str, &'a str);

/// Domains that matter for one pod.
#[derive(Debug, Default)]
pub(super) struct Affinity<'a> {
    /// Where there are pods that the pod wants to be near.
    near: BTreeSet<Domain<'a>>,
    /// Where there are pods that the pod wants to be away from.
    away: BTreeSet<Domain<'a>>,
    /// Where there are pods that want to be away from this one.
    unwanted: BTreeSet<Domain<'a>>,
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
            let domain = |term: &'a Term| label(node, term.topology_key()).map(|value| (term.topology_key(), value));
            for other in info.pods.values().filter(|other| other.uid() != pod.uid()) {
                let theirs = view.namespace_labels(other.namespace());
                if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, theirs)) {
                    found.near.extend(pod.affinity.iter().filter_map(domain));
                }
                let away = pod.anti_affinity.iter().filter(|term| term.matches(other, theirs));
                found.away.extend(away.filter_map(domain));
                let unwanted = other.anti_affinity.iter().filter(|term| term.matches(pod, own));
                found.unwanted.extend(unwanted.filter_map(domain));
            }
        }
        found.first = found.near.is_empty() && pod.affinity.iter().all(|term| term.matches(pod, own));
        found
    }

    pub(super) fn check(&self, pod: &PodInfo, node: &Node) -> Result<(), Refusal> {
        let refuse = |reason: &str| Refusal::new(Cause::InterPodAffinity, reason);
        let is_in = |domains: &BTreeSet<Domain<'_>>, key: &str| {
            label(node, key).is_some_and(|value| domains.contains(&(key, value)))
        };
        let has_key = |term: &Term| label(node, term.topology_key()).is_some();
        let near = pod.affinity.iter().all(|term| is_in(&self.near, term.topology_key()));
        let begins = self.first && pod.affinity.iter().all(has_key);
        if !(near || begins) {
            let reason = "node(s) didn't match pod affinity rules";
            return Err(Refusal { helpless: true, ..refuse(reason) });
        }
        if pod.anti_affinity.iter().any(|term| is_in(&self.away, term.topology_key())) {
            return Err(refuse("node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwanted.iter().any(|(key, value)| label(node, key) == Some(value)) {
            return Err(refuse("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }
}
