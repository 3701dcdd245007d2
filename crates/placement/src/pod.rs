//! A pod with everything that placing it or others needs, worked out once.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};

use crate::amounts::{Amounts, pod_requests};
use crate::pick::{Labels, selects};

/// A pod, parsed for placement. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Amounts,
    /// As scored: pods without requests count as small ones.
    pub(crate) scored: Amounts,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) affinity: Vec<Term>,
    pub(crate) anti_affinity: Vec<Term>,
    /// Preferred terms with their weights; negative for anti-affinity.
    pub(crate) preferred: Vec<(i64, Term)>,
    /// Full names of the claims that its volumes use, `namespace/name`, in the order of the volumes.
    pub claims: Vec<String>,
}

/// A port of the node that a container wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        let same_ip = self.ip == other.ip || self.ip == ANY || other.ip == ANY;
        self.port == other.port && self.protocol == other.protocol && same_ip
    }
}

/// One term of inter-pod (anti-)affinity, with the namespaces it means.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    term: PodAffinityTerm,
    namespaces: BTreeSet<String>,
}

impl Term {
    fn new(term: &PodAffinityTerm, own_namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(own_namespace.to_owned());
        }
        Self { term: term.clone(), namespaces }
    }

    pub(crate) fn topology_key(&self) -> &str {
        &self.term.topology_key
    }

    /// Whether the term means this pod. `namespace_labels` are those of the pod's namespace.
    pub(crate) fn matches(&self, pod: &PodInfo, namespace_labels: &Labels) -> bool {
        let namespace = self.namespaces.contains(pod.namespace())
            || self.term.namespace_selector.as_ref().is_some_and(|s| selects(Some(s), namespace_labels));
        namespace && selects(self.term.label_selector.as_ref(), pod.labels())
    }
}

/// Labels of what has none.
static NO_LABELS: Labels = Labels::new();

impl PodInfo {
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let requests = pod_requests(&pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (mut affinity, mut anti_affinity, mut preferred) = (Vec::new(), Vec::new(), Vec::new());
        let term = |term: &PodAffinityTerm| Term::new(term, namespace);
        let weighted = |sign: i64, wanted: &WeightedPodAffinityTerm| {
            (sign * i64::from(wanted.weight), term(&wanted.pod_affinity_term))
        };
        let affinities = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        if let Some(near) = affinities.and_then(|all| all.pod_affinity.as_ref()) {
            affinity.extend(near.required_during_scheduling_ignored_during_execution.iter().flatten().map(term));
            let soft = near.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            preferred.extend(soft.map(|wanted| weighted(1, wanted)));
        }
        if let Some(far) = affinities.and_then(|all| all.pod_anti_affinity.as_ref()) {
            anti_affinity.extend(far.required_during_scheduling_ignored_during_execution.iter().flatten().map(term));
            let soft = far.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            preferred.extend(soft.map(|wanted| weighted(-1, wanted)));
        }
        let (ports, claims) = (host_ports(&pod), claims(&pod));
        let scored = requests.clone().scored();
        Self { requests, scored, ports, affinity, anti_affinity, preferred, claims, pod }
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    #[must_use]
    pub fn priority(&self) -> i32 {
        self.spec().and_then(|spec| spec.priority).unwrap_or(0)
    }

    /// The node that the pod is bound to.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.spec()?.node_name.as_deref().filter(|name| !name.is_empty())
    }

    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    pub(crate) fn labels(&self) -> &Labels {
        self.pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }

    /// Uid of the controller that made the pod.
    pub(crate) fn controller(&self) -> Option<&str> {
        let owners = self.pod.metadata.owner_references.as_deref().unwrap_or_default();
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
    }

    /// Uid of the controller whose pods this one counts among.
    pub(crate) fn spread_by(&self) -> Option<&str> {
        self.controller().filter(|_| !self.is_terminating())
    }

    pub(crate) fn has_affinity(&self) -> bool {
        !(self.affinity.is_empty() && self.anti_affinity.is_empty() && self.preferred.is_empty())
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = |text: Option<&String>, default: &str| {
        text.filter(|text| !text.is_empty()).map_or_else(|| default.to_owned(), Clone::clone)
    };
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let (ip, protocol) = (wanted(port.host_ip.as_ref(), "0.0.0.0"), wanted(port.protocol.as_ref(), "TCP"));
            Some(HostPort { ip, protocol, port: number })
        })
        .collect()
}

/// Claims of generic ephemeral volumes are named `<pod>-<volume>`.
fn claims(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name)),
            (None, Some(_)) => Some(format!("{namespace}/{name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}
