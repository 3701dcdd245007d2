//! The decision: filter, score, choose; or the reasons, in upstream's words, and a preemption where one helps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::filter::{Cause, Cycle, Refusal};
use crate::pod::PodInfo;
use crate::preempt::{Preemption, preempt};
use crate::score::scores;
use crate::view::{NodeInfo, View};

/// What is said when there is no node at all.
pub const NO_NODES: &str = "no nodes available to schedule pods";
/// What upstream's plugin for dynamic resources says of every pod that has no resource claims.
const NO_CLAIMS: &str = "no new claims to deallocate";

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// There, once the claims are done.
    On {
        node: String,
        claims: Vec<ClaimPlan>,
        score: i64,
    },
    Nowhere(Refused),
}

/// What has to happen to a claim before its pod is bound. Claims are named `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimPlan {
    /// This volume is reserved for it.
    Bind { claim: String, volume: String },
    /// Its provisioner is told the node.
    Provision { claim: String },
}

impl ClaimPlan {
    #[must_use]
    pub fn claim(&self) -> &str {
        match self {
            Self::Bind { claim, .. } | Self::Provision { claim } => claim,
        }
    }

    pub(crate) fn volume(&self) -> Option<&str> {
        match self {
            Self::Bind { volume, .. } => Some(volume),
            Self::Provision { .. } => None,
        }
    }
}

/// Why a pod fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For the pod's condition and the event.
    pub message: String,
    /// What refused it on at least one node: only changes of these can help.
    pub causes: BTreeSet<Cause>,
    /// Each node with its refusal, unless something refused the pod before any node was looked at.
    pub nodes: BTreeMap<String, Refusal>,
    /// Whom to evict so that it fits.
    pub preemption: Option<Preemption>,
}

/// Chooses the node for a pod that has none.
#[must_use]
pub fn place(pod: &PodInfo, view: &View) -> Placement {
    let nodes: Vec<&Arc<NodeInfo>> = view.nodes().collect();
    if nodes.is_empty() {
        let message = NO_NODES.to_owned();
        let causes = BTreeSet::from([Cause::NodeName]);
        return Placement::Nowhere(Refused { message, causes, nodes: BTreeMap::new(), preemption: None });
    }
    let cycle = match Cycle::prepare(view, pod) {
        Ok(cycle) => cycle,
        Err(refusal) => return Placement::Nowhere(refused_by_all(pod, view, refusal, nodes.len())),
    };
    let mut fit: Vec<(&NodeInfo, Vec<ClaimPlan>)> = Vec::new();
    let mut refused = BTreeMap::new();
    for info in nodes {
        match cycle.check_with_nominated(info) {
            Ok(claims) => fit.push((info, claims)),
            Err(refusal) => drop(refused.insert(info.name().to_owned(), refusal)),
        }
    }
    match best(view, pod, fit) {
        Some(placement) => placement,
        None => Placement::Nowhere(refused_by_each(pod, view, refused)),
    }
}

/// The highest score; among equals the node with the fewest pods, then the first by name.
fn best(view: &View, pod: &PodInfo, fit: Vec<(&NodeInfo, Vec<ClaimPlan>)>) -> Option<Placement> {
    let nodes: Vec<&NodeInfo> = fit.iter().map(|(info, _)| *info).collect();
    let scores = if nodes.len() == 1 { vec![0] } else { scores(view, pod, &nodes) };
    let rank = |((info, _), score): &((&NodeInfo, Vec<ClaimPlan>), i64)| {
        (*score, std::cmp::Reverse(info.pods.len()), std::cmp::Reverse(info.name().to_owned()))
    };
    let ((info, claims), score) = fit.into_iter().zip(scores).max_by_key(rank)?;
    Some(Placement::On { node: info.name().to_owned(), claims, score })
}

/// Something about the pod itself is in the way.
fn refused_by_all(pod: &PodInfo, view: &View, refusal: Refusal, count: usize) -> Refused {
    let nodes: BTreeMap<String, Refusal> =
        view.nodes().map(|info| (info.name().to_owned(), Refusal { helpless: true, ..refusal.clone() })).collect();
    let (said, preemption) = preempt(pod, view, &nodes);
    let text = format!("0/{count} nodes are available: {}.", refusal.reasons.join(", "));
    let causes = BTreeSet::from([refusal.cause]);
    Refused { message: with_preemption(text, &said, preemption.as_ref()), causes, nodes: BTreeMap::new(), preemption }
}

fn refused_by_each(pod: &PodInfo, view: &View, nodes: BTreeMap<String, Refusal>) -> Refused {
    let (said, preemption) = preempt(pod, view, &nodes);
    let reasons = nodes.values().flat_map(|refusal| refusal.reasons.iter().map(String::as_str));
    let text = not_available(nodes.len(), reasons);
    let causes = nodes.values().map(|refusal| refusal.cause).collect();
    Refused { message: with_preemption(text, &said, preemption.as_ref()), causes, nodes, preemption }
}

fn with_preemption(mut text: String, said: &str, preemption: Option<&Preemption>) -> String {
    if preemption.is_none() {
        let _ = write!(text, " {NO_CLAIMS}, preemption: {said}");
    }
    text
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub(crate) fn not_available<'a>(count: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    reasons.for_each(|reason| *counts.entry(reason).or_default() += 1);
    let mut told: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    // As texts, as upstream: "10 x" comes before "2 y".
    told.sort();
    match told.is_empty() {
        true => format!("0/{count} nodes are available:"),
        false => format!("0/{count} nodes are available: {}.", told.join(", ")),
    }
}
