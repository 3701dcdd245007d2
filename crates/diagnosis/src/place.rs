//! Why no node can take a pod: the scheduler's reasons, each followed to what it comes from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use stead_machinery::quantity::{Format, Quantity};
use stead_workloads::pod::is_finished;

use crate::finding::Finding;
use crate::mend::Owner;
use crate::pod::word;
use crate::snapshot::{Snapshot, name};

type Rule = fn(&Snapshot, &Pod, &str) -> Option<Finding>;

/// What the scheduler's texts contain, the first that fits each reason, and the rule that follows it up.
const RULES: &[(&str, Rule)] = &[
    ("unbound immediate PersistentVolumeClaims", claims),
    ("persistentvolumeclaim ", claims),
    ("find available persistent volumes to bind", claims),
    ("non-existent PersistentVolume", claims),
    ("non-existent pv", claims),
    ("storageclass", claims),
    ("Insufficient ", resources),
    ("Too many pods", too_many),
    ("anti-affinity", anti_affinity),
    ("pod affinity", affinity),
    ("node affinity/selector", selector),
    ("topology spread", spread),
    ("untolerated taint", taint),
    ("had taint", taint),
    ("unschedulable", cordoned),
    ("volume node affinity conflict", elsewhere),
    ("ReadWriteOncePod", in_use),
    ("not have enough free storage", storage),
    ("max volume count", volumes),
    ("free ports", ports),
    ("no nodes available", no_nodes),
];

pub(crate) fn state(snapshot: &Snapshot, pod: &Pod, message: &str) -> Finding {
    let event = snapshot.event("Pod", &pod.metadata, "FailedScheduling");
    let finding = Finding::new("Unschedulable", word(pod), "no node can take it")
        .with(event.filter(|event| event.text.starts_with(message) || message.is_empty()));
    let finding =
        if finding.evidence.is_empty() { finding.seen("status.conditions[PodScheduled]", message) } else { finding };
    let mut causes: Vec<Finding> = Vec::new();
    for reason in reasons(message) {
        let Some((_, rule)) = RULES.iter().find(|(text, _)| reason.contains(text)) else { continue };
        if let Some(cause) = rule(snapshot, pod, reason)
            .filter(|cause| !causes.iter().any(|known| known.object == cause.object && known.rule == cause.rule))
        {
            causes.push(cause);
        }
    }
    if causes.is_empty() {
        causes = crate::claim::of_pod(snapshot, pod);
    }
    if causes.is_empty() {
        return finding.mended_by(
            "see what the pod asks for and what the nodes have",
            format!("{} describe pod {}", snapshot.kubectl(), name(&pod.metadata)),
        );
    }
    finding.because_all(causes)
}

/// The reasons in `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: ...`.
fn reasons(message: &str) -> Vec<&str> {
    let all = message.split_once("nodes are available: ").map_or(message, |(_, rest)| rest);
    // Behind the reasons come sentences of their own: `. no new claims to deallocate, preemption: ...`.
    let all = all.split(". ").next().unwrap_or(all).trim_end_matches('.');
    all.split(", ").map(str::trim).filter(|reason| !reason.is_empty()).collect()
}

fn claims(snapshot: &Snapshot, pod: &Pod, _: &str) -> Option<Finding> {
    let mut found = crate::claim::of_pod(snapshot, pod);
    if found.is_empty() {
        return None;
    }
    let mut first = found.remove(0);
    first.causes.extend(found);
    Some(first)
}

/// What a pod asks for of a resource: its containers together, or its largest init container.
fn requested(pod: &Pod, resource: &str) -> Quantity {
    let Some(spec) = &pod.spec else { return Quantity::default() };
    let of = |container: &k8s_openapi::api::core::v1::Container| -> Quantity {
        let resources = container.resources.as_ref();
        let amount = resources
            .and_then(|r| r.requests.as_ref()?.get(resource))
            .or_else(|| resources?.limits.as_ref()?.get(resource));
        amount.and_then(|amount| amount.0.parse().ok()).unwrap_or_default()
    };
    let together: Quantity = spec.containers.iter().map(of).sum();
    let largest = spec.init_containers.iter().flatten().map(of).max().unwrap_or_default();
    together.max(largest)
}

fn allocatable(node: &Node, resource: &str) -> Quantity {
    let amounts = node.status.as_ref().and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    amounts.and_then(|amounts| amounts.get(resource)?.0.parse().ok()).unwrap_or_default()
}

/// What each node has left, when all pods are known.
fn left(snapshot: &Snapshot, resource: &str) -> Option<BTreeMap<String, (Quantity, Quantity)>> {
    let placed = snapshot.placed.as_ref()?;
    let node_of = |pod: &&Pod, node: &Node| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == node.metadata.name.as_ref() && !is_finished(pod)
    };
    let of = |node: &Node| {
        let used: Quantity = placed.iter().filter(|pod| node_of(pod, node)).map(|pod| requested(pod, resource)).sum();
        let has = allocatable(node, resource);
        (name(&node.metadata).to_owned(), (has - used, has))
    };
    Some(snapshot.nodes.values().map(of).collect())
}

fn resources(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let resource = reason.split_once("Insufficient ")?.1.trim();
    let asked = requested(pod, resource);
    let owner = Owner::of(snapshot, pod);
    let mut finding =
        Finding::new("Resources", word(pod), format!("it asks for {asked} {resource}, more than any node has left"))
            .seen("resources.requests", format!("{resource}: {asked}"));
    let left = left(snapshot, resource);
    for (node, (free, has)) in left.iter().flatten() {
        finding = finding.seen(format!("node/{node}"), format!("{free} of {has} {resource} left"));
    }
    let largest = snapshot.nodes.values().map(|node| allocatable(node, resource)).max();
    if snapshot.nodes.is_known() && largest.is_some_and(|largest| largest < asked) {
        finding.what = format!("it asks for {asked} {resource}, more than any node has at all");
    }
    let best = left.iter().flatten().map(|(_, (free, _))| *free).max();
    let (container, value) = smaller(snapshot, pod, resource, best);
    let command = format!(
        "{} set resources {} -c {container} --requests={resource}={value}{}",
        snapshot.kubectl(),
        owner.word,
        limits(pod, &container, resource, &value)
    );
    let finding = crate::pod::mended(snapshot, pod, finding, "ask for less", Some(command));
    Some(finding.advice("or add a node, or remove other pods"))
}

/// The container that asks for most, and how much it may ask for to fit on the best node beside the others of its owner that
/// have no node either.
fn smaller(snapshot: &Snapshot, pod: &Pod, resource: &str, best: Option<Quantity>) -> (String, String) {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let of = |container: &&k8s_openapi::api::core::v1::Container| -> Quantity {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        requests.and_then(|r| r.get(resource)?.0.parse().ok()).unwrap_or_default()
    };
    let Some(largest) = containers.max_by_key(of) else { return ("CONTAINER".to_owned(), "AMOUNT".to_owned()) };
    let others = requested(pod, resource) - of(&largest);
    let mates = unplaced(snapshot, pod);
    let nodes = snapshot.nodes.values().count().max(1);
    let share = i64::try_from(mates.div_ceil(nodes).max(1)).unwrap_or(1);
    let value = best.map(|best| (best - others).milli_value() / share).filter(|milli| *milli > 0);
    let shown = value.map_or_else(|| "AMOUNT".to_owned(), |milli| amount(resource, milli));
    (largest.name.clone(), shown)
}

/// How many pods of its owner have no node yet, those that do not exist included.
fn unplaced(snapshot: &Snapshot, pod: &Pod) -> usize {
    let owner = stead_workloads::owner::controller_of(&pod.metadata);
    let Some(owner) = owner else { return 1 };
    let same = |other: &&Pod| {
        stead_workloads::owner::controller_of(&other.metadata).is_some_and(|of| of.uid == owner.uid)
            && other.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
    };
    let placed = snapshot.pods.values().filter(same).count();
    let set = snapshot.sets.get(&owner.name).found().filter(|_| owner.kind == "StatefulSet");
    let wanted = set.map_or(1, |set| usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0));
    wanted.saturating_sub(placed).max(1)
}

/// Thousandths in the unit that people use: `1500m` processors, `200Mi` of memory.
fn amount(resource: &str, milli: i64) -> String {
    match resource {
        "cpu" => Quantity::from_milli(milli, Format::DecimalSi).to_string(),
        "memory" | "ephemeral-storage" => format!("{}Mi", milli / 1000 / (1 << 20)),
        _ => (milli / 1000).to_string(),
    }
}

/// Extended resources have to be asked for and limited alike.
fn limits(pod: &Pod, container: &str, resource: &str, value: &str) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).find(|one| one.name == container);
    let both = resource.contains('/')
        && containers.and_then(|c| c.resources.as_ref()?.limits.as_ref()?.get(resource)).is_some();
    if both { format!(" --limits={resource}={value}") } else { String::new() }
}

fn too_many(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let mut finding =
        Finding::new("TooManyPods", word(pod), "every node has as many pods as it may have").seen("scheduler", reason);
    for node in snapshot.nodes.values() {
        finding = finding
            .seen(format!("node/{}", name(&node.metadata)), format!("at most {} pods", allocatable(node, "pods")));
    }
    Some(finding.advice("add a node, or remove other pods"))
}

fn anti_affinity(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let spec = pod.spec.as_ref()?;
    let terms = spec
        .affinity
        .as_ref()
        .and_then(|a| a.pod_anti_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    let mut finding = Finding::new(
        "AntiAffinity",
        word(pod),
        "its anti-affinity cannot be met: every node has a pod that it must not share with",
    )
    .seen("scheduler", reason);
    for term in terms.into_iter().flatten() {
        let selector = term.label_selector.as_ref().and_then(|s| s.match_labels.clone()).unwrap_or_default();
        finding = finding.seen(
            "podAntiAffinity",
            format!("not with {} on one {}", crate::service::shown(&selector), term.topology_key),
        );
        for other in snapshot.pods.values().filter(|other| name(&other.metadata) != name(&pod.metadata)) {
            let labels = other.metadata.labels.clone().unwrap_or_default();
            let selected = term.label_selector.as_ref().is_some_and(|s| stead_workloads::owner::selects(s, &labels));
            if let Some(node) = other.spec.as_ref().and_then(|s| s.node_name.as_ref()).filter(|_| selected) {
                finding = finding.seen(format!("node/{node}"), format!("has pod {}", name(&other.metadata)));
            }
        }
    }
    let finding = finding.advice("add a node (stead agent --server URL --token TOKEN), or turn the rule into a preference (preferredDuringSchedulingIgnoredDuringExecution)");
    let owner = Owner::of(snapshot, pod);
    let placed = snapshot
        .pods
        .values()
        .filter(|other| {
            Owner::of(snapshot, other).word == owner.word && other.spec.as_ref().is_some_and(|s| s.node_name.is_some())
        })
        .count();
    if !owner.has_template || placed == 0 {
        return Some(finding);
    }
    Some(finding.mended_by(
        format!("or want no more pods than can have a node of their own: {placed}"),
        format!("{} scale {} --replicas={placed}", snapshot.kubectl(), owner.word),
    ))
}

fn affinity(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    Some(
        Finding::new("PodAffinity", word(pod), "no node has the pods that its affinity wants beside it")
            .seen("scheduler", reason)
            .advice("start those pods first, or take the rule away"),
    )
}

fn selector(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let spec = pod.spec.as_ref()?;
    let wanted = spec.node_selector.clone().unwrap_or_default();
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref());
    let mut finding =
        Finding::new("NodeSelector", word(pod), "no node has the labels that it asks for").seen("scheduler", reason);
    if !wanted.is_empty() {
        finding = finding.seen("spec.nodeSelector", crate::service::shown(&wanted));
    }
    if let Some(affinity) = affinity {
        finding = finding.seen("spec.affinity.nodeAffinity", json!(affinity).to_string());
    }
    let node = snapshot.nodes.names().next().unwrap_or("NODE");
    if wanted.is_empty() {
        return Some(finding.mended_by(
            "label a node so, or change what the pod asks for",
            format!("kubectl label node {node} KEY=VALUE"),
        ));
    }
    let words: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Some(finding.mended_by(
        "label a node so, or change what the pod asks for",
        format!("kubectl label node {node} --overwrite {}", words.join(" ")),
    ))
}

fn spread(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    Some(Finding::new("TopologySpread", word(pod), "its topology spread constraints cannot be met").seen("scheduler", reason).advice("add nodes in the other domains, label the nodes with the topology key, or let whenUnsatisfiable be ScheduleAnyway"))
}

fn taint(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let key =
        reason.split_once('{').and_then(|(_, rest)| rest.split([':', '}', '=']).next()).unwrap_or_default().trim();
    let mut finding =
        Finding::new("Taint", word(pod), format!("nodes are tainted with {key:?}, which it does not tolerate"))
            .seen("scheduler", reason);
    for node in snapshot.nodes.values() {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter(|taint| taint.key == key);
        for taint in taints {
            let own = name(&node.metadata);
            finding = finding.seen(
                format!("node/{own} spec.taints"),
                format!("{}={}:{}", taint.key, taint.value.as_deref().unwrap_or_default(), taint.effect),
            );
            // A node that does not answer is tainted by the controllers, and so again when somebody takes it away.
            if taint.key.starts_with("node.kubernetes.io/") {
                finding = finding.mended_by("bring the node back", format!("kubectl describe node {own}"));
            } else {
                finding = finding.mended_by(
                    "take the taint away, or let the pod tolerate it",
                    format!("kubectl taint node {own} {}:{}-", taint.key, taint.effect),
                );
            }
        }
    }
    if finding.mend.is_empty() {
        finding = finding.advice("let the pod tolerate it, or have the taint taken away");
    }
    Some(finding)
}

fn cordoned(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let mut finding =
        Finding::new("Cordoned", word(pod), "nodes are taken out of scheduling (cordoned)").seen("scheduler", reason);
    let closed =
        snapshot.nodes.values().filter(|node| node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)));
    for node in closed {
        finding = finding.mended_by("take it back", format!("kubectl uncordon {}", name(&node.metadata)));
    }
    if finding.mend.is_empty() {
        finding = finding.advice("have the nodes taken back: kubectl uncordon NODE");
    }
    Some(finding)
}

/// Its volume is tied to a node that cannot take it.
fn elsewhere(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let mut finding = Finding::new("VolumeElsewhere", word(pod), "its volume is tied to a node that cannot take it")
        .seen("scheduler", reason);
    for claim in crate::claim_names(pod) {
        let volume = snapshot.claims.get(&claim).found().and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
        let found = volume.as_deref().and_then(|volume| snapshot.volumes.get(volume).found());
        let affinity = found.and_then(|volume| volume.spec.as_ref()?.node_affinity.as_ref());
        if let (Some(volume), Some(affinity)) = (volume, affinity) {
            finding =
                finding.seen(format!("claim {claim}, persistentvolume/{volume}"), json!(affinity.required).to_string());
        }
    }
    for node in snapshot.nodes.values() {
        let own = name(&node.metadata);
        if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
            finding = finding.mended_by(format!("{own} is cordoned: take it back"), format!("kubectl uncordon {own}"));
        } else if let Some((status, message)) = crate::pod::not_ready(node) {
            finding = finding.seen(format!("node/{own} status.conditions[Ready]"), format!("{status}: {message}"));
        }
    }
    Some(finding.advice(
        "bring that node back; or give its data up: delete the claim and the pod, and both are made anew elsewhere",
    ))
}

fn in_use(snapshot: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let own: Vec<String> = crate::claim_names(pod).collect();
    let holder = snapshot.pods.values().find(|other| {
        name(&other.metadata) != name(&pod.metadata)
            && !is_finished(other)
            && crate::claim_names(other).any(|claim| own.contains(&claim))
    });
    let finding = Finding::new("ClaimInUse", word(pod), "its claim is ReadWriteOncePod, and another pod has it")
        .seen("scheduler", reason);
    Some(match holder {
        Some(holder) => finding.seen(format!("pod/{}", name(&holder.metadata)), "uses the claim").mended_by(
            "end the pod that has it",
            format!("{} delete pod {}", snapshot.kubectl(), name(&holder.metadata)),
        ),
        None => finding.advice("end the pod that has it"),
    })
}

fn storage(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    Some(
        Finding::new("Storage", word(pod), "no node has enough free storage for its claim")
            .seen("scheduler", reason)
            .advice("ask for less, free storage, or add a node"),
    )
}

fn volumes(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    Some(
        Finding::new("VolumeLimit", word(pod), "every node has as many volumes attached as it may have")
            .seen("scheduler", reason)
            .advice("add a node"),
    )
}

fn ports(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let ports: Vec<String> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| p.host_port)
        .map(|p| p.to_string())
        .collect();
    Some(
        Finding::new("HostPorts", word(pod), format!("the host ports {} are taken on every node", ports.join(", ")))
            .seen("scheduler", reason)
            .advice("use a Service instead of hostPort, another port, or one more node"),
    )
}

fn no_nodes(_: &Snapshot, pod: &Pod, reason: &str) -> Option<Finding> {
    let finding = Finding::new("NoNodes", word(pod), "the cluster has no nodes").seen("scheduler", reason);
    Some(finding.advice("add one: stead agent --server URL --token TOKEN"))
}
