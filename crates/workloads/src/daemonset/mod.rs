//! What a DaemonSet should do next: one pod on every node that fits, and roll-outs node by node.
//!
//! Behaviour is that of upstream's `pkg/controller/daemon` at Kubernetes 1.37.
//!
//! Invariant: without surge, a new pod is made on a node only once no pod of the set is left there.

mod nodes;
mod roll;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::history::{self, Draft, Update};
use crate::owner::controller_ref;
use crate::pod::{Health, available_at, health, is_ready, phase};
use crate::replicaset;
pub use nodes::{Fit, fit};

/// On a pod and a revision of a DaemonSet: the hash of the revision.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// Most pods that one plan creates or deletes.
pub const BURST_MAX: usize = 250;
const HISTORY_DEFAULT: i32 = 10;
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// What the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    /// The pods that the set controls.
    pub pods: &'a [Arc<Pod>],
    /// The hash of the revision to roll out.
    pub hash: &'a str,
    /// Nodes whose pods failed again and again: until when the failed pod is left there.
    pub held: &'a BTreeMap<String, Timestamp>,
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Names of the nodes to make a pod for.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Pods of `delete` that ended by themselves, worth an event each.
    pub ended: Vec<Arc<Pod>>,
    pub wake_at: Option<Timestamp>,
}

/// The pods of each node, oldest first, scheduled ones before others.
type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<Pod>>>;

/// Decides.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut plan = Plan { wake_at: wake_at(observed), ..Plan::default() };
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let by_node = by_node(observed.pods);
    for node in observed.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pods = by_node.get(name).map(Vec::as_slice).unwrap_or_default();
        tend(observed, node, pods, &mut plan);
    }
    for (node, pods) in &by_node {
        let exists = observed.nodes.iter().any(|n| n.metadata.name.as_deref() == Some(node));
        if !exists {
            let unscheduled = pods.iter().filter(|pod| is_alive(pod) && !is_scheduled(pod));
            plan.delete.extend(unscheduled.map(|pod| (*pod).clone()));
        }
    }
    // As upstream: a roll-out begins only from what is as it should be.
    if plan.create.is_empty() && plan.delete.is_empty() {
        roll::roll_out(observed, &by_node, &mut plan);
    }
    plan.create.truncate(BURST_MAX);
    plan.delete.truncate(BURST_MAX);
    plan
}

/// One node: what is missing there and what is too much.
fn tend(observed: &Observed<'_>, node: &Node, pods: &[&Arc<Pod>], plan: &mut Plan) {
    let fit = fits(observed.set, node);
    let name = node.metadata.name.clone().unwrap_or_default();
    if fit.run && pods.is_empty() {
        plan.create.push(name);
        return;
    }
    let alive = pods.iter().filter(|pod| is_alive(pod));
    if !fit.stay {
        plan.delete.extend(alive.map(|pod| (*pod).clone()));
        return;
    }
    let (ended, running): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        alive.copied().partition(|pod| matches!(phase(pod), "Failed" | "Succeeded"));
    let held = observed.held.get(&name).filter(|until| **until > observed.now);
    for pod in ended {
        match held {
            Some(until) if phase(pod) == "Failed" => plan.wake_at = plan.wake_at.or(Some(*until)).min(Some(*until)),
            _ => {
                plan.ended.push(pod.clone());
                plan.delete.push(pod.clone());
            }
        }
    }
    if !roll::may_surge(observed.set) {
        plan.delete.extend(running.into_iter().skip(1).cloned());
        return;
    }
    if running.is_empty() && fit.run {
        plan.create.push(name);
    }
    plan.delete.extend(roll::surplus(observed, &running));
}

/// The status to publish.
#[must_use]
pub fn status(observed: &Observed<'_>, collisions: Option<i32>) -> DaemonSetStatus {
    let set = observed.set;
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let by_node = by_node(observed.pods);
    let mut status = DaemonSetStatus::default();
    let (mut available, mut updated) = (0, 0);
    for node in observed.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pod = by_node.get(name).and_then(|pods| pods.first());
        if !fits(set, node).run {
            status.number_misscheduled += i32::from(pod.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = pod else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(health(pod, min_ready, observed.now) == Health::Available);
        updated += i32::from(is_updated(pod, observed.hash));
    }
    let number = |number: i32| Some(number).filter(|number| *number != 0);
    status.number_available = number(available);
    status.number_unavailable = number(status.desired_number_scheduled - available);
    status.updated_number_scheduled = number(updated);
    status.observed_generation = set.metadata.generation;
    status.collision_count = collisions;
    status.conditions = set.status.as_ref().and_then(|status| status.conditions.clone());
    status
}

/// The reference that pods and revisions have to their DaemonSet.
#[must_use]
pub fn set_ref(set: &DaemonSet) -> OwnerReference {
    controller_ref("apps/v1", "DaemonSet", &set.metadata)
}

/// The pod for that node; the server completes its name.
#[must_use]
pub fn new_pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let mut pod = replicaset::new_pod(&set.metadata, &set_ref(set), &set.spec.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = set.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION)) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    nodes::tolerate(spec);
    nodes::pin(spec, node);
    pod
}

/// Decides on the revision of the present template.
#[must_use]
pub fn revision(set: &DaemonSet, revisions: &[Arc<ControllerRevision>], collisions: i32) -> Update {
    let reference = set_ref(set);
    let labels = set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let draft = Draft {
        owner: &set.metadata,
        reference: &reference,
        labels,
        hash_label: HASH_LABEL,
        template: &set.spec.template,
        collisions,
    };
    history::decide(&draft, revisions)
}

/// The hash that pods of a revision carry, from the revision's label or else its name.
#[must_use]
pub fn hash_of(set: &DaemonSet, revision: &str) -> String {
    let prefix = set.metadata.name.as_deref().unwrap_or_default();
    let hash = revision.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-'));
    hash.unwrap_or(revision).to_owned()
}

/// The revisions beyond `spec.revisionHistoryLimit` that no pod is of.
#[must_use]
pub fn superfluous(
    set: &DaemonSet,
    revisions: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
    present: &str,
) -> Vec<String> {
    let limit = set.spec.revision_history_limit.unwrap_or(HISTORY_DEFAULT);
    let hash = |labels: &Option<BTreeMap<String, String>>| labels.as_ref().and_then(|all| all.get(HASH_LABEL)).cloned();
    let live: Vec<String> = pods.iter().filter_map(|pod| hash(&pod.metadata.labels)).collect();
    history::superfluous(limit, revisions, |revision| {
        let in_use = hash(&revision.metadata.labels).is_some_and(|hash| live.contains(&hash));
        in_use || history::name_of(revision) == present
    })
}

fn wake_at(observed: &Observed<'_>) -> Option<Timestamp> {
    let min_ready = observed.set.spec.min_ready_seconds.unwrap_or(0);
    let waiting = observed.pods.iter().filter(|pod| health(pod, min_ready, observed.now) == Health::Ready);
    waiting.filter_map(|pod| available_at(pod, min_ready)).min()
}

fn fits(set: &DaemonSet, node: &Node) -> Fit {
    let mut spec = set.spec.template.spec.clone().unwrap_or_default();
    nodes::tolerate(&mut spec);
    fit(&spec, node)
}

fn by_node(pods: &[Arc<Pod>]) -> ByNode<'_> {
    let mut by_node: ByNode<'_> = BTreeMap::new();
    for pod in pods {
        by_node.entry(nodes::target(pod).unwrap_or_default()).or_default().push(pod);
    }
    for pods in by_node.values_mut() {
        pods.sort_by_key(|pod| {
            let age = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!is_scheduled(pod), age, pod.metadata.name.clone())
        });
    }
    by_node
}

fn is_scheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

fn is_alive(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
}

fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH_LABEL)).is_some_and(|label| label == hash)
}

#[cfg(test)]
mod stories;
