//! Why a pod is not Ready: ending, not placed, its volumes, its containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use stead_workloads::owner::controller_of;
use stead_workloads::pod::{condition, is_ready, phase};

use crate::finding::{Finding, Report};
use crate::mend::{Owner, RollOut, create};
use crate::snapshot::{Lookup, Snapshot, name};
use crate::{container, ending, place};

pub(crate) fn report(snapshot: &Snapshot, pod: &Pod) -> Report {
    let mut findings: Vec<Finding> = state(snapshot, pod).into_iter().collect();
    for found in crate::claim::of_pod(snapshot, pod) {
        if !mentions(&findings, &found) {
            findings.push(found);
        }
    }
    let phase = phase(pod);
    let ready = if is_ready(pod) && pod.metadata.deletion_timestamp.is_none() { "Ready" } else { "not Ready" };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let place = node.map_or_else(|| "on no node".to_owned(), |node| format!("on node {node}"));
    Report { object: word(pod), headline: format!("{phase}, {ready}, {place}"), findings }
}

/// Whether a finding about the same object is there already.
pub(crate) fn mentions(findings: &[Finding], wanted: &Finding) -> bool {
    let mut found = false;
    for finding in findings {
        finding.walk(&mut |one| found |= one.object == wanted.object && one.rule == wanted.rule);
    }
    found
}

pub(crate) fn word(pod: &Pod) -> String {
    format!("pod/{}", name(&pod.metadata))
}

/// The pods of an owner that is no StatefulSet, through ReplicaSets as well.
pub(crate) fn of_workload(snapshot: &Snapshot, kind: &str, own: &str, uid: &str, wanted: Option<i32>) -> Report {
    let belongs = |pod: &&Pod| {
        controller_of(&pod.metadata).is_some_and(|owner| {
            owner.uid == uid || (owner.kind == "ReplicaSet" && Owner::of(snapshot, pod).word == format!("{kind}/{own}"))
        })
    };
    let pods: Vec<&Pod> = snapshot.pods.values().filter(belongs).collect();
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut findings: Vec<Finding> = pods.iter().filter_map(|pod| state(snapshot, pod)).collect();
    let object = format!("{kind}/{own}");
    let wanted = wanted.map_or(pods.len(), |wanted| usize::try_from(wanted).unwrap_or(0));
    if pods.len() < wanted {
        findings.push(not_made(snapshot, &object, own, pods.len(), wanted));
    }
    Report { object, headline: format!("{ready} of {wanted} pods are Ready"), findings }
}

fn not_made(snapshot: &Snapshot, object: &str, own: &str, there: usize, wanted: usize) -> Finding {
    let told = snapshot.events.iter().rev().find(|event| {
        let about = event.involved_object.name.as_deref().unwrap_or_default();
        event.reason.as_deref() == Some("FailedCreate")
            && (about == own || about.strip_prefix(own).is_some_and(|rest| rest.starts_with('-')))
    });
    let finding = Finding::new("NotCreated", object, format!("{} of its {wanted} pods do not exist", wanted - there));
    match told {
        Some(event) => {
            let cause = refusal(snapshot, event.message.as_deref().unwrap_or_default());
            finding.with([snapshot.shown(event)]).because(cause)
        }
        None => finding.waiting(),
    }
}

/// What stands behind the server's refusal of a pod.
pub(crate) fn refusal(snapshot: &Snapshot, message: &str) -> Option<Finding> {
    let quota = message.split("exceeded quota: ").nth(1)?.split(',').next()?.trim();
    let known = snapshot.quotas.get(quota).found();
    let shown = known.and_then(|quota| {
        let status = quota.status.as_ref()?;
        let used = status.used.clone().unwrap_or_default();
        let lines = status
            .hard
            .iter()
            .flatten()
            .map(|(key, hard)| format!("{key} {} of {}", used.get(key).map_or("0", |q| q.0.as_str()), hard.0));
        Some(lines.collect::<Vec<_>>().join(", "))
    });
    let mut finding = Finding::new("Quota", format!("resourcequota/{quota}"), "it allows no more");
    if let Some(shown) = shown {
        finding = finding.seen("status.used", shown);
    }
    let patch = r#"{"spec":{"hard":{"RESOURCE":"AMOUNT"}}}"#;
    Some(
        finding.mended_by(
            "raise it, or use less",
            format!("{} patch resourcequota {quota} -p '{patch}'", snapshot.kubectl()),
        ),
    )
}

/// What keeps a pod from being Ready; `None` when it is.
pub(crate) fn state(snapshot: &Snapshot, pod: &Pod) -> Option<Finding> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(ending::state(snapshot, pod));
    }
    match phase(pod) {
        "Succeeded" if Owner::of(snapshot, pod).word.starts_with("job/") || controller_of(&pod.metadata).is_none() => {
            return None;
        }
        "Failed" | "Succeeded" => return Some(ending::finished(snapshot, pod)),
        _ => {}
    }
    let gone = lost_node(snapshot, pod);
    if is_ready(pod) {
        return gone;
    }
    if gone.is_some() {
        return gone;
    }
    if let Some(refused) = condition(pod, "PodScheduled").filter(|c| c.status == "False") {
        return Some(place::state(snapshot, pod, refused.message.as_deref().unwrap_or_default()));
    }
    let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    if !placed {
        let what = "it is about to be placed on a node";
        let finding = Finding::new("Placing", word(pod), what).because_all(crate::claim::of_pod(snapshot, pod));
        let late = age(snapshot, pod.metadata.creation_timestamp.as_ref().map(|t| t.0)) > PATIENCE_SECONDS;
        return Some(match late {
            true if finding.causes.is_empty() => {
                Finding { what: "no scheduler has looked at it".to_owned(), ..finding }
                    .seen("spec.schedulerName", scheduler(pod))
                    .advice("a scheduler of that name has to run")
            }
            _ => finding.weighed(),
        });
    }
    Some(mounts(snapshot, pod).or_else(|| container::state(snapshot, pod)).unwrap_or_else(|| gates(snapshot, pod)))
}

/// How long what somebody else does may take before it is told as a fault, in seconds.
const PATIENCE_SECONDS: i64 = 10;

fn scheduler(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler")
}

/// Seconds since then.
pub(crate) fn age(snapshot: &Snapshot, at: Option<Timestamp>) -> i64 {
    at.map_or(0, |at| snapshot.now.as_second() - at.as_second())
}

/// The pod's node does not answer, or is gone.
pub(crate) fn lost_node(snapshot: &Snapshot, pod: &Pod) -> Option<Finding> {
    let node_name = pod.spec.as_ref()?.node_name.as_deref()?;
    let word = word(pod);
    match snapshot.nodes.get(node_name) {
        Lookup::Unknown => None,
        Lookup::Absent => Some(
            Finding::new("NodeGone", word, format!("its node {node_name} does not exist any more"))
                .seen("spec.nodeName", node_name)
                .waiting(),
        ),
        Lookup::Found(node) => not_ready(node).map(|(status, message)| {
            Finding::new("NodeNotReady", word, format!("its node {node_name} does not answer"))
                .seen(format!("node/{node_name} status.conditions[Ready]"), format!("{status}: {message}"))
                .advice("bring the node back; its pods are ended by themselves after their tolerationSeconds, and then wait for the node's word")
                .mended_by(
                    "or, when the machine is off for good, delete it: only then is it safe to start its pods elsewhere",
                    format!("kubectl delete node {node_name}"),
                )
        }),
    }
}

/// The status and message of the condition Ready, when it is not true.
pub(crate) fn not_ready(node: &Node) -> Option<(String, String)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready").filter(|c| c.status != "True")?;
    Some((ready.status.clone(), ready.message.clone().unwrap_or_default()))
}

/// Volumes that the node cannot have.
fn mounts(snapshot: &Snapshot, pod: &Pod) -> Option<Finding> {
    let begun = pod.status.iter().flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
    if begun
        .into_iter()
        .any(|c| c.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some()))
    {
        return None;
    }
    let event = snapshot.events_of("Pod", &pod.metadata).find(|event| {
        matches!(event.reason.as_deref(), Some("FailedMount" | "FailedAttachVolume" | "FailedMapVolume"))
    })?;
    let message = event.message.as_deref().unwrap_or_default();
    let finding =
        Finding::new("Volumes", word(pod), "its node cannot have one of its volumes").with([snapshot.shown(event)]);
    if message.contains("Multi-Attach") {
        let claims: Vec<String> = crate::claim_names(pod).collect();
        return Some(
            Finding {
                rule: "MultiAttach",
                what: format!("its volume is still attached to another node (claim {})", claims.join(", ")),
                ..finding
            }
            .advice("wait until the pod that has it is gone; when its node is lost for good: kubectl delete node NODE"),
        );
    }
    let claims = crate::claim::of_pod(snapshot, pod);
    let missing = absent_object(snapshot, message);
    if claims.is_empty() && missing.is_none() {
        return Some(finding.advice("mend what the event says; the node tries again by itself"));
    }
    Some(finding.because_all(claims).because(missing))
}

/// The ConfigMap or Secret that a message says is not there.
pub(crate) fn absent_object(snapshot: &Snapshot, message: &str) -> Option<Finding> {
    let (kind, rest) = [("configmap", "configmap \""), ("secret", "secret \"")]
        .iter()
        .find_map(|(kind, start)| Some((*kind, message.split_once(start)?.1)))?;
    let (own, rest) = rest.split_once('"')?;
    if !rest.trim_start().starts_with("not found") {
        return None;
    }
    let full = if kind == "configmap" { "ConfigMap" } else { "Secret" };
    let data = if kind == "configmap" { "data" } else { "stringData" };
    let object = json!({"apiVersion": "v1", "kind": full, "metadata": {"name": own}, data: {"KEY": "VALUE"}});
    Some(Finding::new("ObjectMissing", format!("{kind}/{own}"), "it does not exist").mended_by(
        "create it with what the pod is to find in it; the node tries again by itself",
        create(&snapshot.kubectl(), &object),
    ))
}

/// All containers are ready, the pod is not: its readiness gates; or it has just started.
fn gates(snapshot: &Snapshot, pod: &Pod) -> Finding {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed = gates.into_iter().find(|gate| condition(pod, &gate.condition_type).is_none_or(|c| c.status != "True"));
    if let Some(gate) = closed {
        return Finding::new(
            "ReadinessGate",
            word(pod),
            format!("its readiness gate {} is not open", gate.condition_type),
        )
        .seen("spec.readinessGates", gate.condition_type.clone())
        .advice("whoever sets that condition has to set it to True");
    }
    let newest = snapshot.events_of("Pod", &pod.metadata).next().map(|event| snapshot.shown(event));
    let finding = Finding::new("Starting", word(pod), "it is starting").with(newest);
    let placed = condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let waits = age(snapshot, placed);
    let taken_on = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if !taken_on && waits > PATIENCE_SECONDS {
        return Finding { what: format!("its node {node} has not taken it on for {waits} s"), ..finding }
            .mended_by("see whether the node works", format!("kubectl describe node {node}"));
    }
    finding.waiting()
}

/// The way out of a template that does not work: back to the one before, a pod by hand where nothing replaces it, or
/// what is wrong mended.
pub(crate) fn mended(snapshot: &Snapshot, pod: &Pod, finding: Finding, text: &str, command: Option<String>) -> Finding {
    let owner = Owner::of(snapshot, pod);
    let kubectl = snapshot.kubectl();
    let by_hand = format!("{kubectl} delete pod {}", name(&pod.metadata));
    match owner.roll_out {
        RollOut::Outdated if owner.heals => {
            Finding { severity: crate::Severity::Waiting, ..finding }
                .advice("nothing: it is of a revision that is no longer wanted, and is replaced by itself")
        }
        RollOut::Outdated => finding.mended_by(
            "it is of a revision that is no longer wanted, but an ordered set waits for it: delete it, and it comes back at the newest",
            by_hand,
        ),
        RollOut::Newest => {
            let finding = finding.mended_by("go back to the revision that worked", format!("{kubectl} rollout undo {}", owner.word));
            let finding = if owner.heals { finding } else { finding.mended_by("then replace the broken pod, which the set waits for", by_hand) };
            let or = format!("or go on: {text}");
            match command {
                Some(command) => finding.mended_by(or, command),
                None => finding.advice(or),
            }
        }
        RollOut::None => {
            let finding = match command {
                Some(command) => finding.mended_by(text, command),
                None => finding.advice(text),
            };
            if owner.heals || !owner.has_template || !owner.word.starts_with("statefulset/") {
                return finding;
            }
            finding.mended_by("then replace the broken pod, which the set waits for", by_hand)
        }
    }
}
