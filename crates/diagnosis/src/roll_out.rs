//! A roll-out: how far it is, what it is stuck on, and what holds it on purpose.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use stead_workloads::disruption::covers;
use stead_workloads::statefulset::companion::{PARTITION, Share};
use stead_workloads::statefulset::{Revision, Strategy, Wait, identity, wishes};

use crate::finding::{Evidence, Finding};
use crate::set::{Set, handing_over};
use crate::snapshot::name;

/// How the roll-out of a set stands; `None` when none is under way.
pub(crate) fn state(set: &mut Set<'_>) -> Option<Finding> {
    let status = set.set.status.as_ref()?;
    let update = status.update_revision.clone()?;
    if set.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let undone = undone(set);
    let outdated: Vec<u32> = set
        .state
        .replicas
        .iter()
        .filter(|slot| !slot.stopped && slot.pod.is_some_and(|pod| !pod.is_updated()))
        .map(|slot| slot.ordinal)
        .collect();
    let broken = broken(set);
    let rolling = set.current != update;
    if outdated.is_empty() && !(rolling && broken.is_some()) {
        return undone;
    }
    let total = set.wanted.len();
    let done = total.saturating_sub(outdated.len());
    let before = &set.current;
    let finding =
        Finding::new("RollOut", set.word(), format!("roll-out of {update}: {done} of {total} pods are of it"))
            .seen("status.updateRevision", format!("{update} (before: {before})"))
            .with(misfits(set));
    if let Some(ordinal) = broken {
        let name = set.pod_name(ordinal);
        let newest = set
            .state
            .replicas
            .iter()
            .find(|slot| slot.ordinal == ordinal)
            .and_then(|slot| slot.pod)
            .is_some_and(|pod| pod.revision == Revision::UPDATE);
        let of = if newest { "it has the new revision" } else { "it has an old revision" };
        let what = format!("roll-out of {update}: {done} of {total} pods are of it; it is stuck on {name} ({of})");
        let cause = set.fault(ordinal);
        return Some(Finding { rule: "RollOutStuck", what, ..finding }.because(cause).weighed());
    }
    held(set, &finding, &outdated).or_else(|| Some(going_on(set, finding)))
}

/// The pods that are replaced for their volumes or overrides.
fn misfits(set: &Set<'_>) -> Vec<Evidence> {
    let misfits = set.state.replicas.iter().filter(|slot| slot.pod.is_some_and(|pod| pod.misfit));
    let evidence = misfits.map(|slot| {
        let name = set.pod_name(slot.ordinal);
        let fits = set.pods.get(&slot.ordinal).is_some_and(|pod| identity::storage_matches(set.set, pod, slot.ordinal));
        match fits {
            true => Evidence {
                source: format!("pod/{name} metadata.annotations[{}]", wishes::OVERRIDE_HASH),
                text: format!("not that of the patch in {}", wishes::OVERRIDES),
            },
            false => Evidence {
                source: format!("pod/{name} spec.volumes"),
                text: "not those that spec.volumeClaimTemplates asks for".to_owned(),
            },
        }
    });
    evidence.collect()
}

/// The pod that the roll-out does not get past: the highest that is not as it should be.
fn broken(set: &Set<'_>) -> Option<u32> {
    set.wanted
        .iter()
        .rev()
        .copied()
        .find(|ordinal| set.faults.get(ordinal).is_some_and(|f| f.severity == crate::Severity::Fault))
}

/// Held on purpose: partition, OnDelete, pause.
fn held(set: &Set<'_>, finding: &Finding, outdated: &[u32]) -> Option<Finding> {
    let kubectl = set.snapshot.kubectl();
    let word = set.word();
    let with = |rule, why: String| Finding { rule, what: format!("{}: {why}", finding.what), ..finding.clone() }.note();
    if wishes::is_paused(&set.treated.set) {
        return Some(
            with("Paused", "it is paused".to_owned())
                .seen(format!("metadata.annotations[{}]", wishes::PAUSED), "true")
                .mended_by("let it go on", format!("{kubectl} annotate {word} {}-", wishes::PAUSED)),
        );
    }
    match set.state.strategy {
        Strategy::OnDelete => {
            let names: Vec<String> = outdated.iter().rev().map(|ordinal| set.pod_name(*ordinal)).collect();
            Some(
                with("OnDelete", "pods are updated only when somebody deletes them".to_owned())
                    .seen("spec.updateStrategy.type", "OnDelete")
                    .mended_by("update them, one after the other", format!("{kubectl} delete pod {}", names.join(" "))),
            )
        }
        Strategy::Recreate => None,
        Strategy::RollingUpdate { partition, .. } => {
            let below: Vec<u32> = set.state.replicas.iter().take(partition as usize).map(|slot| slot.ordinal).collect();
            if !outdated.iter().all(|ordinal| below.contains(ordinal)) {
                return None;
            }
            let names: Vec<String> = outdated.iter().map(|ordinal| set.pod_name(*ordinal)).collect();
            let patch = r#"{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}"#;
            let (field, command) = if set.treated.share == Some(Share::RollOuts) {
                (format!("metadata.annotations[{PARTITION}]"), format!("annotate {word} {PARTITION}-"))
            } else {
                ("spec.updateStrategy.rollingUpdate.partition".to_owned(), format!("patch {word} -p '{patch}'"))
            };
            Some(
                with("Partition", format!("{} stay as they are, below the partition", names.join(", ")))
                    .seen(field, partition.to_string())
                    .mended_by("let it go on", format!("{kubectl} {command}")),
            )
        }
    }
}

/// On its way; what it waits for.
fn going_on(set: &mut Set<'_>, finding: Finding) -> Finding {
    let what = finding.what.clone();
    let with = |why: String| Finding { what: format!("{what}; {why}"), ..finding.clone() }.waiting();
    match set.plan.wait {
        Some(Wait::ToBeReady(ordinal)) => {
            let name = set.pod_name(ordinal);
            with(format!("it waits for {name} to be Running and Ready")).because(set.fault(ordinal))
        }
        Some(Wait::ToBeAvailable(ordinal)) => {
            with(format!("it waits for {} to be Ready for minReadySeconds", set.pod_name(ordinal)))
        }
        Some(Wait::ToBeGone(ordinal)) => {
            let name = set.pod_name(ordinal);
            with(format!("it waits for {name} to be gone")).because(set.fault(ordinal)).weighed()
        }
        Some(Wait::ForBudget) => {
            let first = set.faults.keys().next_back().copied();
            with("as many pods are unavailable as maxUnavailable allows".to_owned())
                .because(first.and_then(|ordinal| set.fault(ordinal)))
        }
        Some(Wait::ForHandOver(ordinal)) => with(handing_over(set, ordinal)),
        Some(Wait::ForDisruption(ordinal)) => {
            let name = set.pod_name(ordinal);
            let budgets = set.pods.get(&ordinal).map(|pod| budgets(set, pod)).unwrap_or_default();
            with(format!("it waits for a disruption budget to let {name} go")).because_all(budgets).weighed()
        }
        Some(Wait::BeforeRemoving(_) | Wait::ForOldClaim(_) | Wait::ForOthers) | None => finding.waiting(),
    }
}

/// The disruption budgets that hold a pod.
fn budgets(set: &Set<'_>, pod: &Pod) -> Vec<Finding> {
    let covering: Vec<_> = set.snapshot.budgets.values().filter(|budget| covers(budget, pod)).collect();
    let several = covering.len() > 1;
    let one = |budget: &&PodDisruptionBudget| {
        let status = budget.status.clone().unwrap_or_default();
        let (needs, has) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
        let object = format!("poddisruptionbudget/{}", name(&budget.metadata));
        let what = match several {
            true => "it is one of several that select the pod, and then nothing can be evicted".to_owned(),
            false => format!("it needs {needs} healthy pods and has {has}"),
        };
        let finding =
            Finding::new("Budget", object, what).seen("status.disruptionsAllowed", number(status.disruptions_allowed));
        // Where all that are expected have to be healthy, none is ever let go.
        let never = !several && needs >= status.expected_pods.unwrap_or(0) && has >= needs;
        match (several, never) {
            (true, _) => finding.advice("let only one of them select the pod"),
            (false, true) => finding.advice("let it allow at least one disruption, else nothing is ever updated"),
            (false, false) => finding.waiting(),
        }
    };
    covering.iter().map(one).collect()
}

fn number(number: Option<i32>) -> String {
    number.unwrap_or(0).to_string()
}

/// A roll-out that was given up and undone.
fn undone(set: &Set<'_>) -> Option<Finding> {
    let from = set.set.metadata.annotations.as_ref()?.get(wishes::ROLLED_BACK_FROM)?;
    let event = set.snapshot.event("StatefulSet", &set.set.metadata, "StatefulSetRollback");
    let own = name(&set.set.metadata);
    Some(
        Finding::new(
            "RolledBack",
            set.word(),
            format!("the roll-out of {from} took longer than its deadline and was undone"),
        )
        .seen(format!("metadata.annotations[{}]", wishes::ROLLED_BACK_FROM), from.clone())
        .with(event)
        .mended_by(
            "see what that revision was",
            format!("{} get controllerrevision {from} -o yaml", set.snapshot.kubectl()),
        )
        .mended_by(
            "when it is dealt with",
            format!("{} annotate statefulset/{own} {}-", set.snapshot.kubectl(), wishes::ROLLED_BACK_FROM),
        )
        .note(),
    )
}
