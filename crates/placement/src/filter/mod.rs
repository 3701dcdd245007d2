//! Can the pod run on a node? One function per upstream filter plugin, asked in upstream's order; the first refusal counts.

mod affinity;
pub(crate) mod node;
pub(crate) mod resources;
pub(crate) mod spread;
mod volumes;

use std::collections::BTreeSet;

use crate::place::ClaimPlan;
use crate::pod::PodInfo;
use crate::view::{NodeInfo, View};

use affinity::Affinity;
use spread::Spread;
use volumes::Volumes;

/// What refused a pod, by upstream's plugin: it tells which changes of the cluster can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    NodeUnschedulable,
    NodeName,
    TaintToleration,
    NodeAffinity,
    NodePorts,
    NodeResourcesFit,
    VolumeRestrictions,
    VolumeBinding,
    PodTopologySpread,
    InterPodAffinity,
}

impl Cause {
    /// The plugin's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeUnschedulable => "NodeUnschedulable",
            Self::NodeName => "NodeName",
            Self::TaintToleration => "TaintToleration",
            Self::NodeAffinity => "NodeAffinity",
            Self::NodePorts => "NodePorts",
            Self::NodeResourcesFit => "NodeResourcesFit",
            Self::VolumeRestrictions => "VolumeRestrictions",
            Self::VolumeBinding => "VolumeBinding",
            Self::PodTopologySpread => "PodTopologySpread",
            Self::InterPodAffinity => "InterPodAffinity",
        }
    }
}

/// Why a pod cannot run on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub cause: Cause,
    /// Upstream's words; more than one when several resources are short.
    pub reasons: Vec<String>,
    /// Evicting other pods from the node cannot change it.
    pub helpless: bool,
}

impl Refusal {
    fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reasons: vec![reason.into()], helpless: false }
    }

    fn helpless(cause: Cause, reason: impl Into<String>) -> Self {
        Self { helpless: true, ..Self::new(cause, reason) }
    }
}

/// What is worked out once for a pod, before any node is looked at.
#[derive(Debug)]
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    view: &'a View,
    /// The only nodes that the pod's affinity names, where it does so.
    named: Option<BTreeSet<&'a str>>,
    volumes: Volumes<'a>,
    spread: Spread<'a>,
    affinity: Affinity<'a>,
}

impl<'a> Cycle<'a> {
    /// # Errors
    /// A refusal that holds for every node.
    pub(crate) fn prepare(view: &'a View, pod: &'a PodInfo) -> Result<Self, Refusal> {
        let named = node::named(pod)?;
        let volumes = Volumes::prepare(view, pod)?;
        let (spread, affinity) = (Spread::required(view, pod), Affinity::prepare(view, pod));
        Ok(Self { pod, view, named, volumes, spread, affinity })
    }

    /// What has to be bound for the pod to run on this node.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) fn check(&self, info: &NodeInfo) -> Result<Vec<ClaimPlan>, Refusal> {
        let Some(node) = info.node.as_deref() else {
            return Err(Refusal::helpless(Cause::NodeName, "node(s) didn't match the requested node name"));
        };
        if self.named.as_ref().is_some_and(|named| !named.contains(info.name())) {
            return Err(Refusal::helpless(Cause::NodeAffinity, "node(s) didn't satisfy plugin(s) [NodeAffinity]"));
        }
        node::unschedulable(self.pod, node)?;
        node::name(self.pod, node)?;
        node::taints(self.pod, node)?;
        node::affinity(self.pod, node)?;
        resources::ports(self.pod, info)?;
        resources::fit(self.pod, info)?;
        self.volumes.restrictions()?;
        let plans = self.volumes.binding(self.view, node)?;
        self.spread.check(self.pod, node)?;
        self.affinity.check(self.pod, node)?;
        Ok(plans)
    }

    /// As [`Cycle::check`], and also as the node will be once the pods have come that are to get it and are not less
    /// important.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) fn check_with_nominated(&self, info: &NodeInfo) -> Result<Vec<ClaimPlan>, Refusal> {
        let plans = self.check(info)?;
        let pod = self.pod;
        let to_come = self.view.nominated.get(info.name()).into_iter().flatten();
        let mut rivals = to_come.filter(|n| n.uid() != pod.uid() && n.priority() >= pod.priority()).peekable();
        if rivals.peek().is_some() {
            let mut fuller = info.clone();
            rivals.for_each(|rival| fuller.insert(rival.clone()));
            let later = self.view.with_node(fuller.clone());
            Cycle::prepare(&later, pod)?.check(&fuller)?;
        }
        Ok(plans)
    }
}
