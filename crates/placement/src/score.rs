//! Which of the nodes that can run the pod is best: upstream's score plugins and their weights.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::{Node, TopologySpreadConstraint};

use crate::amounts::{CPU, MEMORY};
use crate::filter::spread::{constraints, counts, is_spread};
use crate::pick::{label, node_term, taints, tolerates, tolerations};
use crate::pod::{PodInfo, Term};
use crate::view::{NodeInfo, View};

const MAX: f64 = 100.0;
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// What a required affinity of another pod for this one is worth as a wish.
const HARD_AFFINITY_WEIGHT: i64 = 1;
/// Images below the first size count as nothing, above the second (times the containers) in full.
const IMAGE_BYTES_MIN: f64 = 23.0 * 1024.0 * 1024.0;
const IMAGE_BYTES_MAX: f64 = 1000.0 * 1024.0 * 1024.0;

/// The score of each of `nodes`, which all can run the pod: higher is better, 1200 is the most.
pub(crate) fn scores(view: &View, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
    let plugins: [(f64, Vec<f64>); 7] = [
        (3.0, fewest(nodes.iter().map(|info| untolerated(pod, info)).collect())),
        (2.0, most(nodes.iter().map(|info| preferred_node(pod, info)).collect())),
        (1.0, nodes.iter().map(|info| least_allocated(pod, info)).collect()),
        (2.0, spread(view, pod, nodes)),
        (2.0, between(affinity(view, pod, nodes))),
        (1.0, nodes.iter().map(|info| balanced(pod, info)).collect()),
        (1.0, images(view, pod, nodes)),
    ];
    let score = |at: usize| plugins.iter().map(|(weight, scores)| weight * scores[at].floor()).sum::<f64>();
    #[expect(clippy::cast_possible_truncation, reason = "a sum of seven scores of at most 100 each")]
    (0..nodes.len()).map(|at| score(at) as i64).collect()
}

/// The largest becomes 100, the others in proportion.
fn most(scores: Vec<f64>) -> Vec<f64> {
    let largest = scores.iter().copied().fold(0.0, f64::max);
    scores.into_iter().map(|score| if largest > 0.0 { score * MAX / largest } else { score }).collect()
}

/// The other way round: none is 100.
fn fewest(scores: Vec<f64>) -> Vec<f64> {
    most(scores).into_iter().map(|score| MAX - score).collect()
}

/// The least becomes 0, the largest 100.
fn between(scores: Vec<f64>) -> Vec<f64> {
    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let range = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    scores.into_iter().map(|score| if range > 0.0 { (score - least) * MAX / range } else { 0.0 }).collect()
}

fn node_of(info: &NodeInfo) -> Option<&Node> {
    info.node.as_deref()
}

fn untolerated(pod: &PodInfo, info: &NodeInfo) -> f64 {
    let soft = node_of(info).into_iter().flat_map(taints).filter(|taint| taint.effect == "PreferNoSchedule");
    count(soft.filter(|taint| !tolerates(tolerations(&pod.pod), taint)))
}

fn preferred_node(pod: &PodInfo, info: &NodeInfo) -> f64 {
    let affinity = pod.spec().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let terms =
        affinity.into_iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten());
    let fits = terms.filter(|term| node_of(info).is_some_and(|node| node_term(&term.preference, node)));
    fits.map(|term| f64::from(term.weight)).sum()
}

/// The share of each of cpu and memory that is free once the pod is there.
fn least_allocated(pod: &PodInfo, info: &NodeInfo) -> f64 {
    let known: Vec<f64> = [CPU, MEMORY]
        .into_iter()
        .filter(|name| info.allocatable.get(name) > 0)
        .map(|name| {
            let wanted = info.scored.get(name).saturating_add(pod.scored.get(name));
            (1.0 - share(wanted, info.allocatable.get(name))) * MAX
        })
        .collect();
    mean(&known)
}

/// How alike the shares of cpu and memory are that are taken once the pod is there.
fn balanced(pod: &PodInfo, info: &NodeInfo) -> f64 {
    // Pods that ask for nothing do not unbalance anything.
    if pod.requests.get(CPU) == 0 && pod.requests.get(MEMORY) == 0 {
        return 0.0;
    }
    let taken =
        |name: &str| share(info.requested.get(name).saturating_add(pod.requests.get(name)), info.allocatable.get(name));
    let deviation = (taken(CPU) - taken(MEMORY)).abs() / 2.0;
    (1.0 - deviation) * MAX
}

/// Constraints that are only wished; where a pod has none at all, its siblings are spread over nodes and zones.
fn spread(view: &View, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<f64> {
    let own: Vec<&TopologySpreadConstraint> = constraints(pod, "ScheduleAnyway").collect();
    let has_any = pod.spec().is_some_and(|spec| spec.topology_spread_constraints.iter().flatten().next().is_some());
    let mut wishes: Vec<Wish<'_>> = own
        .into_iter()
        .map(|constraint| {
            let key = constraint.topology_key.as_str();
            let here = move |info: &NodeInfo| info.pods.values().filter(|o| is_spread(constraint, pod, o)).count();
            let on = move |node: &Node| counts(constraint, pod, node);
            Wish { key, skew: constraint.max_skew, strict: true, here: Box::new(here), on: Box::new(on) }
        })
        .collect();
    if let (false, Some(controller)) = (has_any, pod.controller()) {
        let here = move |info: &NodeInfo| info.siblings(controller);
        for (key, skew) in [(HOSTNAME, 3), (ZONE, 5)] {
            wishes.push(Wish { key, skew, strict: false, here: Box::new(here), on: Box::new(|_| true) });
        }
    }
    if wishes.is_empty() { vec![0.0; nodes.len()] } else { skewed(view, nodes, &wishes) }
}

struct Wish<'a> {
    key: &'a str,
    skew: i32,
    /// Nodes without the key are worth nothing.
    strict: bool,
    /// How many of the pods are on a node.
    here: Box<dyn Fn(&NodeInfo) -> usize + 'a>,
    on: Box<dyn Fn(&Node) -> bool + 'a>,
}

fn skewed(view: &View, nodes: &[&NodeInfo], wishes: &[Wish<'_>]) -> Vec<f64> {
    let mut sums: Vec<Option<f64>> = vec![Some(0.0); nodes.len()];
    for wish in wishes {
        let mut domains: HashMap<&str, usize> = HashMap::new();
        for info in view.nodes() {
            let Some(node) = node_of(info).filter(|node| (wish.on)(node)) else { continue };
            let Some(value) = label(node, wish.key) else { continue };
            *domains.entry(value).or_default() += (wish.here)(info);
        }
        let values: Vec<Option<&str>> = nodes.iter().map(|info| label(node_of(info)?, wish.key)).collect();
        let weight = (count(values.iter().flatten().collect::<HashSet<_>>().iter()) + 2.0).ln();
        for (sum, value) in sums.iter_mut().zip(values) {
            match value.and_then(|value| domains.get(value)) {
                #[expect(clippy::cast_precision_loss, reason = "counts of things in memory")]
                Some(pods) => *sum = sum.map(|sum| sum + *pods as f64 * weight + f64::from(wish.skew - 1)),
                None if wish.strict => *sum = None,
                None => {}
            }
        }
    }
    let known = || sums.iter().flatten().map(|sum| sum.round());
    let (least, largest) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
    let score = |sum: &Option<f64>| match sum {
        None => 0.0,
        Some(_) if largest == 0.0 => MAX,
        Some(sum) => MAX * (largest + least - sum.round()) / largest,
    };
    sums.iter().map(score).collect()
}

/// Wishes of the pod for others and of others for the pod, summed up by domain.
fn affinity(view: &View, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<f64> {
    let mut domains: HashMap<String, HashMap<&str, i64>> = HashMap::new();
    let own = view.namespace_labels(pod.namespace());
    for info in view.nodes().filter(|info| !pod.preferred.is_empty() || info.with_affinity > 0) {
        let Some(node) = node_of(info) else { continue };
        let mut add = |weight: i64, term: &Term| {
            let Some(value) = label(node, term.topology_key()) else { return };
            if !domains.contains_key(term.topology_key()) {
                domains.insert(term.topology_key().to_owned(), HashMap::new());
            }
            if let Some(values) = domains.get_mut(term.topology_key()) {
                *values.entry(value).or_default() += weight;
            }
        };
        for other in info.pods.values().filter(|other| other.uid() != pod.uid()) {
            let theirs = view.namespace_labels(other.namespace());
            pod.preferred.iter().filter(|(_, t)| t.matches(other, theirs)).for_each(|(weight, t)| add(*weight, t));
            other.preferred.iter().filter(|(_, t)| t.matches(pod, own)).for_each(|(weight, t)| add(*weight, t));
            other.affinity.iter().filter(|t| t.matches(pod, own)).for_each(|t| add(HARD_AFFINITY_WEIGHT, t));
        }
    }
    let worth = |info: &&NodeInfo| {
        let here = domains.iter().filter_map(|(key, values)| values.get(label(node_of(info)?, key)?));
        #[expect(clippy::cast_precision_loss, reason = "weights are small")]
        here.map(|weight| *weight as f64).sum()
    };
    nodes.iter().map(worth).collect()
}

/// Images that are there already, each by its size and by how many nodes have it.
fn images(view: &View, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<f64> {
    let Some(spec) = pod.spec() else { return vec![0.0; nodes.len()] };
    let wanted: Vec<&str> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter_map(|c| c.image.as_deref())
        .collect();
    let size = |info: &NodeInfo, image: &str| -> Option<f64> {
        let images = node_of(info)?.status.as_ref()?.images.as_ref()?;
        let found = images.iter().find(|i| i.names.iter().flatten().any(|name| same_image(name, image)))?;
        #[expect(clippy::cast_precision_loss, reason = "an approximate score")]
        Some(found.size_bytes.unwrap_or(0) as f64)
    };
    let total = count(view.nodes());
    let having: Vec<f64> =
        wanted.iter().map(|image| count(view.nodes().filter(|info| size(info, image).is_some()))).collect();
    let largest = IMAGE_BYTES_MAX * count(wanted.iter());
    let score = |info: &&NodeInfo| {
        let sizes = wanted.iter().zip(&having).map(|(image, having)| size(info, image).unwrap_or(0.0) * having / total);
        let sum: f64 = sizes.sum::<f64>().clamp(IMAGE_BYTES_MIN, largest.max(IMAGE_BYTES_MIN));
        if largest > IMAGE_BYTES_MIN { MAX * (sum - IMAGE_BYTES_MIN) / (largest - IMAGE_BYTES_MIN) } else { 0.0 }
    };
    nodes.iter().map(score).collect()
}

fn same_image(name: &str, wanted: &str) -> bool {
    let last = wanted.rsplit('/').next().unwrap_or(wanted);
    let tagged = if last.contains([':', '@']) { wanted.to_owned() } else { format!("{wanted}:latest") };
    name == tagged || name.strip_suffix(tagged.as_str()).is_some_and(|registry| registry.ends_with('/'))
}

#[expect(clippy::cast_precision_loss, reason = "shares are approximate")]
fn share(part: i64, all: i64) -> f64 {
    if all <= 0 { 1.0 } else { (part as f64 / all as f64).clamp(0.0, 1.0) }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count(values.iter()) }
}

#[expect(clippy::cast_precision_loss, reason = "counts of things in memory")]
fn count(things: impl Iterator) -> f64 {
    things.count() as f64
}
