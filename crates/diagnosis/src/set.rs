//! A StatefulSet: its pods, what waits for what, its names, its claims. The plan that the controller follows says what it waits for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use stead_machinery::hand_over::HAND_OVER;
use stead_workloads::owner::controller_of;
use stead_workloads::pod::is_ready;
use stead_workloads::statefulset::{Observed, Plan, Snapshot as State, Wait, companion, identity, plan, wishes};

use crate::companion::Treatment;
use crate::finding::{Finding, Report};
use crate::snapshot::{Lookup, Snapshot, name};
use crate::{claim, pod, roll_out, service};

/// A set with what belongs to it, and what its controller would do now.
pub(crate) struct Set<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) set: &'a StatefulSet,
    /// The same as this cluster treats it.
    pub(crate) treated: Treatment,
    /// The revision that its pods come from.
    pub(crate) current: String,
    /// Its own pods, by ordinal.
    pub(crate) pods: BTreeMap<u32, &'a Pod>,
    /// The ordinals that are to have a pod now.
    pub(crate) wanted: Vec<u32>,
    pub(crate) state: State,
    pub(crate) plan: Plan,
    /// What is wrong with each pod, until it has been told.
    pub(crate) faults: BTreeMap<u32, Finding>,
}

impl<'a> Set<'a> {
    fn of(snapshot: &'a Snapshot, set: &'a StatefulSet) -> Self {
        let owned = |pod: &&Pod| {
            controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
        };
        let pods: BTreeMap<u32, &Pod> = identity::by_ordinal(set, snapshot.pods.values().filter(owned));
        let objects: Vec<Arc<Pod>> = pods.values().map(|pod| Arc::new((*pod).clone())).collect();
        let treated = Treatment::of(snapshot, set);
        let seen = &treated.set;
        let revision = |get: fn(&k8s_openapi::api::apps::v1::StatefulSetStatus) -> Option<&String>| {
            set.status.as_ref().and_then(get).cloned().unwrap_or_default()
        };
        let update = revision(|s| s.update_revision.as_ref());
        let current = match treated.share {
            Some(share) => companion::current(set, share, &objects, &|name| snapshot.may_have_revision(name)),
            None => revision(|s| s.current_revision.as_ref()),
        };
        let waits_for_others = waited_for(snapshot, seen).next().is_some();
        let (state, _) = Observed {
            set: seen,
            pods: &objects,
            claim: &|claim| snapshot.claims.get(claim).found().map(|claim| Arc::new(claim.clone())),
            current: &current,
            update: &update,
            waits_for_others,
            budgets: &snapshot.asked_budgets(seen),
            now: snapshot.now,
        }
        .look();
        let plan = plan(&state);
        let stopped = wishes::stopped(seen);
        let wanted = identity::ordinals(seen).into_iter().filter(|ordinal| !stopped.contains(*ordinal)).collect();
        let faults = pods.iter().filter_map(|(ordinal, pod)| Some((*ordinal, pod::state(snapshot, pod)?))).collect();
        Self { snapshot, set, treated, current, wanted, pods, state, plan, faults }
    }

    pub(crate) fn word(&self) -> String {
        format!("statefulset/{}", name(&self.set.metadata))
    }

    pub(crate) fn pod_name(&self, ordinal: u32) -> String {
        identity::pod_name(self.set, ordinal)
    }

    /// What is wrong with a pod, told once.
    pub(crate) fn fault(&mut self, ordinal: u32) -> Option<Finding> {
        self.faults.remove(&ordinal)
    }

    fn is_ordered(&self) -> bool {
        self.set.spec.pod_management_policy.as_deref() != Some("Parallel")
    }
}

/// The sets that have to be ready before the first pod of this one.
pub(crate) fn waited_for<'a>(snapshot: &'a Snapshot, set: &'a StatefulSet) -> impl Iterator<Item = &'a str> {
    wishes::depends_on(set).filter(|other| match snapshot.sets.get(other) {
        Lookup::Found(found) => !wishes::is_ready(found),
        Lookup::Absent => true,
        Lookup::Unknown => false,
    })
}

pub(crate) fn report(snapshot: &Snapshot, object: &StatefulSet) -> Report {
    let mut set = Set::of(snapshot, object);
    let mut findings: Vec<Finding> = service::of_set(snapshot, object).into_iter().collect();
    findings.extend(going(&set));
    findings.extend(unseen(&set));
    findings.extend(set.treated.findings(snapshot));
    findings.extend(missing(&mut set));
    findings.extend(shrinking(&mut set));
    findings.extend(roll_out::state(&mut set));
    findings.extend(stopped(&set));
    findings.extend(unreadable(&set));
    findings.extend(std::mem::take(&mut set.faults).into_values());
    findings.extend(grown_claims(&set, &findings));
    findings.extend(left_over(&set));
    findings.extend(unwise(&set));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let ready = set
        .wanted
        .iter()
        .filter(|ordinal| {
            set.pods.get(ordinal).is_some_and(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
        })
        .count();
    Report { object: set.word(), headline: format!("{ready} of {} pods are Ready", set.wanted.len()), findings }
}

/// The set itself is being deleted.
fn going(set: &Set<'_>) -> Option<Finding> {
    set.set.metadata.deletion_timestamp.as_ref()?;
    let finalizers = set.set.metadata.finalizers.clone().unwrap_or_default();
    let finding =
        Finding::new("SetDeleted", set.word(), format!("it is being deleted; {} of its pods are left", set.pods.len()));
    Some(if finalizers.is_empty() {
        finding.waiting()
    } else {
        finding.seen("metadata.finalizers", finalizers.join(", ")).waiting()
    })
}

/// The controller has not looked at the newest spec.
fn unseen(set: &Set<'_>) -> Option<Finding> {
    let seen = set.set.status.as_ref().and_then(|status| status.observed_generation);
    let wanted = set.set.metadata.generation?;
    if seen.unwrap_or(0) >= wanted {
        return None;
    }
    let finding = Finding::new("Unseen", set.word(), "its controller has not looked at the newest spec yet")
        .seen("status.observedGeneration", format!("{} of {wanted}", seen.unwrap_or(0)));
    Some(finding.waiting())
}

/// Pods that are wanted and do not exist.
fn missing(set: &mut Set<'_>) -> Vec<Finding> {
    if set.set.metadata.deletion_timestamp.is_some() || !set.snapshot.pods.is_known() {
        return Vec::new();
    }
    let absent: Vec<u32> = set.wanted.iter().copied().filter(|ordinal| !set.pods.contains_key(ordinal)).collect();
    let Some(first) = absent.first().copied() else { return Vec::new() };
    let mut findings = Vec::new();
    let names = |ordinals: &[u32]| ordinals.iter().map(|o| identity::pod_name(set.set, *o)).collect::<Vec<_>>();
    let (next, others) = (set.pod_name(first), names(&absent[1..]));
    let all = listed(&names(&absent));
    if let Some(gate) = gate(set, &all, absent.len(), first) {
        return vec![gate];
    }
    if let Some(refused) = refused(set, &next) {
        findings.push(refused);
    } else {
        let what = format!("{all} {} about to be made", are(absent.len()));
        let newest =
            set.snapshot.events_of("StatefulSet", &set.set.metadata).next().map(|event| set.snapshot.shown(event));
        findings.push(Finding::new("NotMadeYet", set.word(), what).with(newest).waiting());
        return findings;
    }
    if !others.is_empty() && set.is_ordered() {
        let what = format!("{} {} for {next} (OrderedReady)", listed(&others), waits(others.len()));
        let cause = findings.pop();
        findings.push(Finding::new("OrderedGate", set.word(), what).because(cause).weighed());
    }
    findings
}

fn listed(names: &[String]) -> String {
    match names {
        [first, .., last] if names.len() > 4 => format!("{first} to {last}"),
        names => names.join(", "),
    }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn waits(count: usize) -> &'static str {
    if count == 1 { "waits" } else { "wait" }
}

/// What the missing pods wait for, as the controller's own plan has it.
fn gate(set: &mut Set<'_>, all: &str, count: usize, first: u32) -> Option<Finding> {
    let wait = set.plan.wait?;
    let waits = waits(count);
    let finding = |rule, what: String| Finding::new(rule, set.word(), what);
    Some(match wait {
        Wait::ToBeReady(ordinal) if set.is_ordered() || ordinal == first => {
            let what = format!("{all} {waits} for {} to be Running and Ready (OrderedReady)", set.pod_name(ordinal));
            let gate = finding("OrderedGate", what);
            gate.because(set.fault(ordinal)).weighed()
        }
        Wait::ToBeAvailable(ordinal) if set.is_ordered() => {
            let min_ready = set.set.spec.min_ready_seconds.unwrap_or(0);
            let since = set.pods.get(&ordinal).and_then(|pod| {
                let since = stead_workloads::pod::condition(pod, "Ready")?.last_transition_time.as_ref()?.0;
                Some(set.snapshot.now.as_second() - since.as_second())
            });
            let what = format!(
                "{all} {waits} for {}: Ready for {} s of {min_ready} s (minReadySeconds)",
                set.pod_name(ordinal),
                since.unwrap_or(0)
            );
            finding("MinReady", what).waiting()
        }
        Wait::ToBeGone(ordinal) if set.is_ordered() || ordinal == first => {
            let what = format!("{all} {waits} for the old {} to be gone", set.pod_name(ordinal));
            let gate = finding("OrderedGate", what);
            gate.because(set.fault(ordinal)).weighed()
        }
        Wait::ForOldClaim(ordinal) => {
            let claims = identity::claim_templates(set.set)
                .iter()
                .map(|t| identity::claim_name(set.set, t, ordinal))
                .collect::<Vec<_>>()
                .join(", ");
            finding("OldClaim", format!("{all} {waits} for the claim of an earlier pod to be deleted: {claims}"))
                .seen("spec.persistentVolumeClaimRetentionPolicy", "whenScaled: Delete")
                .waiting()
        }
        Wait::ForOthers => depends_on(set, &format!("{all} {waits}")),
        Wait::ToBeReady(_)
        | Wait::ToBeAvailable(_)
        | Wait::ToBeGone(_)
        | Wait::BeforeRemoving(_)
        | Wait::ForBudget
        | Wait::ForDisruption(_)
        | Wait::ForHandOver(_) => {
            return None;
        }
    })
}

/// The sets that the first pod waits for, each with what keeps it. `who`: the pods that wait, and that they do.
fn depends_on(set: &Set<'_>, who: &str) -> Finding {
    let others: Vec<&str> = waited_for(set.snapshot, set.set).collect();
    let causes = others
        .iter()
        .map(|other| match set.snapshot.sets.get(other) {
            Lookup::Found(found) => {
                let report = report(set.snapshot, found);
                let bad = report.findings.into_iter().filter(|f| f.severity > crate::Severity::Note).collect();
                Finding::new("Dependency", format!("statefulset/{other}"), report.headline)
                    .because_all(bad)
                    .weighed()
                    .or_waiting()
            }
            Lookup::Absent | Lookup::Unknown => {
                Finding::new("Dependency", format!("statefulset/{other}"), "it does not exist")
                    .advice("create it, or take its name out of the annotation")
            }
        })
        .collect();
    Finding::new("DependsOn", set.word(), format!("{who} for other sets to be ready: {}", others.join(", ")))
        .seen(
            format!("metadata.annotations[{}]", wishes::DEPENDS_ON),
            wishes::depends_on(set.set).collect::<Vec<_>>().join(","),
        )
        .because_all(causes)
        .weighed()
}

impl Finding {
    /// A cause without anything bad below it is on its way.
    fn or_waiting(mut self) -> Self {
        if self.causes.is_empty() {
            self.severity = crate::Severity::Waiting;
        }
        self
    }
}

/// The pod cannot be made: somebody else has its name, its claim goes, or the server refuses it.
fn refused(set: &Set<'_>, pod_name: &str) -> Option<Finding> {
    let snapshot = set.snapshot;
    let object = format!("pod/{pod_name}");
    if let Some(stranger) = snapshot.pods.get(pod_name).found() {
        let owner = controller_of(&stranger.metadata)
            .map_or_else(|| "nobody".to_owned(), |owner| format!("{} {}", owner.kind, owner.name));
        return Some(
            Finding::new("Stranger", object, "it exists, but is not of this set, which cannot make its own")
                .seen("metadata.ownerReferences", owner)
                .seen("metadata.labels", service::shown(&stranger.metadata.labels.clone().unwrap_or_default()))
                .mended_by("delete it, when nobody needs it", format!("{} delete pod {pod_name}", snapshot.kubectl())),
        );
    }
    let about = |event: &&k8s_openapi::api::core::v1::Event| {
        event.message.as_deref().is_some_and(|text| {
            let text = text.to_lowercase();
            text.contains(&format!("pod {pod_name} in ")) || text.contains(&format!(" {pod_name} "))
        })
    };
    let newest = snapshot.events_of("StatefulSet", &set.set.metadata).find(about)?;
    if newest.reason.as_deref() != Some("FailedCreate") {
        return None;
    }
    let message = newest.message.as_deref().unwrap_or_default();
    let why = message.split_once("failed error: ").map_or(message, |(_, why)| why);
    let finding = Finding::new("NotCreated", object, format!("it cannot be made: {}", shortened(why)))
        .with([snapshot.shown(newest)]);
    if let Some(quota) = pod::refusal(snapshot, message) {
        return Some(
            Finding { what: "it cannot be made: a quota forbids it".to_owned(), ..finding }.because(Some(quota)),
        );
    }
    let claims = identity::claim_templates(set.set).iter().filter_map(|template| {
        let ordinal = pod_name.rsplit('-').next()?.parse().ok()?;
        claim::state(snapshot, snapshot.claims.get(&identity::claim_name(set.set, template, ordinal)).found()?)
    });
    let claims: Vec<Finding> = claims.filter(|found| found.rule == "ClaimDeleted").collect();
    if !claims.is_empty() {
        return Some(
            Finding { what: "it cannot be made: a claim of its name is being deleted".to_owned(), ..finding }
                .because_all(claims),
        );
    }
    Some(finding.mended_by("correct what the server refuses", format!("{} edit {}", snapshot.kubectl(), set.word())))
}

/// Long refusals print whole objects: the first and the last part say most.
fn shortened(text: &str) -> String {
    const MAX: usize = 240;
    if text.chars().count() <= MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(MAX / 2).collect();
    let tail: Vec<char> = text.chars().rev().take(MAX / 2).collect();
    format!("{head} ... {}", tail.into_iter().rev().collect::<String>())
}

/// Pods beyond those that are wanted.
fn shrinking(set: &mut Set<'_>) -> Option<Finding> {
    let condemned: Vec<u32> = set.pods.keys().rev().copied().filter(|ordinal| !set.wanted.contains(ordinal)).collect();
    if condemned.is_empty() || set.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let names: Vec<String> = condemned.iter().map(|ordinal| set.pod_name(*ordinal)).collect();
    let stopped = set.state.replicas.iter().any(|slot| slot.stopped && slot.pod.is_some());
    let wanted = if stopped { "stopped or no longer wanted" } else { "no longer wanted" };
    let what: String = format!(
        "{} {} {wanted} and {} next, from the highest",
        listed(&names),
        are(names.len()),
        if names.len() == 1 { "goes" } else { "go" }
    );
    let finding = Finding::new("ScaleDown", set.word(), what.clone());
    Some(match set.plan.wait {
        Some(Wait::ToBeGone(ordinal)) => finding.because(set.fault(ordinal)).weighed().or_waiting(),
        Some(Wait::ForHandOver(ordinal)) => {
            let what = format!("{what}; {}", handing_over(set, ordinal));
            Finding { what, ..finding }.waiting()
        }
        Some(Wait::ToBeReady(ordinal)) => {
            let what = format!(
                "{} {} {wanted}, but none is removed before {} is Running and Ready",
                listed(&names),
                are(names.len()),
                set.pod_name(ordinal)
            );
            Finding { rule: "ScaleDownHeld", what, ..finding }.because(set.fault(ordinal)).weighed().or_waiting()
        }
        Some(Wait::BeforeRemoving(above)) => {
            let sick =
                condemned.iter().rev().copied().find(|ordinal| set.faults.contains_key(ordinal) && *ordinal != above);
            let name = sick.map_or_else(|| "a lower one".to_owned(), |ordinal| set.pod_name(ordinal));
            let what = format!(
                "{} {} {wanted}, but {} is not removed before {name} works",
                listed(&names),
                are(names.len()),
                set.pod_name(above)
            );
            let cause = sick.and_then(|ordinal| set.fault(ordinal));
            Finding { rule: "ScaleDownHeld", what, ..finding }.because(cause).weighed().or_waiting()
        }
        _ => finding.waiting(),
    })
}

/// Overrides that cannot be understood, or do not fit.
fn unreadable(set: &Set<'_>) -> Option<Finding> {
    let template = &set.set.spec.template;
    let why = set.wanted.iter().find_map(|ordinal| identity::overridden(&set.treated.set, template, *ordinal).err())?;
    let annotation = set.set.metadata.annotations.as_ref()?.get(wishes::OVERRIDES)?;
    let what = "its overrides cannot be used: pods are neither made nor updated with them";
    Some(
        Finding::new("Overrides", set.word(), format!("{what}; {why}"))
            .seen(format!("metadata.annotations[{}]", wishes::OVERRIDES), shortened(annotation))
            .mended_by("correct the annotation", format!("{} edit {}", set.snapshot.kubectl(), set.word())),
    )
}

/// What a pod that is to hand over first is waited for.
pub(crate) fn handing_over(set: &Set<'_>, ordinal: u32) -> String {
    let seconds = wishes::hand_over_seconds(set.set);
    format!("{} hands over before it is taken down, within {seconds} s ({})", set.pod_name(ordinal), HAND_OVER)
}

/// Pods that are taken down on purpose.
fn stopped(set: &Set<'_>) -> Option<Finding> {
    let still = set.state.replicas.iter().filter(|slot| slot.stopped);
    let names: Vec<String> = still.map(|slot| set.pod_name(slot.ordinal)).collect();
    if names.is_empty() || set.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotation = set.set.metadata.annotations.as_ref()?.get(wishes::STOPPED)?;
    let what = format!("{} {} stopped on purpose; claims and place stay", listed(&names), are(names.len()));
    let start = format!("{} annotate {} {}-", set.snapshot.kubectl(), set.word(), wishes::STOPPED);
    Some(
        Finding::new("Stopped", set.word(), what)
            .seen(format!("metadata.annotations[{}]", wishes::STOPPED), annotation.clone())
            .mended_by("start what is stopped, with its data", start)
            .note(),
    )
}

/// Claims of running pods that cannot grow, vanished or are being deleted.
fn grown_claims(set: &Set<'_>, told: &[Finding]) -> Vec<Finding> {
    let all = set.pods.values().flat_map(|pod| claim::of_pod(set.snapshot, pod));
    all.filter(|found| !pod::mentions(told, found)).collect()
}

/// Claims of ordinals that are not wanted any more.
fn left_over(set: &Set<'_>) -> Option<Finding> {
    let set_name = name(&set.set.metadata);
    let wanted = identity::ordinals(&set.treated.set);
    let is_left = |claim: &str| {
        identity::claim_templates(set.set).iter().any(|template| {
            let ordinal = claim
                .strip_prefix(&format!("{}-{set_name}-", name(&template.metadata)))
                .and_then(|n| n.parse::<u32>().ok());
            ordinal.is_some_and(|ordinal| !wanted.contains(&ordinal) && !set.pods.contains_key(&ordinal))
        })
    };
    let left: Vec<String> = set.snapshot.claims.names().filter(|claim| is_left(claim)).map(str::to_owned).collect();
    if left.is_empty() || set.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let what = format!(
        "{} of pods that are not wanted {} kept with the data: scaling up uses them again",
        listed(&left),
        are(left.len())
    );
    Some(
        Finding::new("ClaimsKept", set.word(), what)
            .seen("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain")
            .mended_by(
                "delete them when the data is not needed",
                format!("{} delete pvc {}", set.snapshot.kubectl(), left.join(" ")),
            )
            .note(),
    )
}

/// What upstream's documentation advises against.
fn unwise(set: &Set<'_>) -> Option<Finding> {
    let grace = set.set.spec.template.spec.as_ref()?.termination_grace_period_seconds?;
    (grace == 0).then(|| {
        Finding::new(
            "NoGrace",
            set.word(),
            "its pods are killed at once when they are to end, without a chance to write what they hold",
        )
        .seen("spec.template.spec.terminationGracePeriodSeconds", "0")
        .note()
    })
}
