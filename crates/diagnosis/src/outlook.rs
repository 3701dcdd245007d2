//! What a change of a set would come to, pod by pod and in order: the controller's own plan, run forward, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde::Serialize;
use stead_workloads::owner::{controller_of, selects};
use stead_workloads::statefulset::{
    Action, Deletion, End, Observed, Policy, Revision, Slot, Snapshot as State, Wait, Why, claims, companion, forecast,
    forecast_by, identity, revisions, wishes,
};

use crate::companion::Treatment;
use crate::finding::Severity;
use crate::set::waited_for;
use crate::snapshot::{Lookup, Snapshot, name};

/// One step, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Steps of one round are done together.
    pub round: usize,
    /// `create pod web-0`.
    pub what: String,
    /// The pod that it makes, for those who want to ask the server whether it would take it.
    #[serde(skip)]
    pub makes: Option<u32>,
    pub why: String,
    /// Pods that work now and would not while this goes on.
    #[serde(rename = "notAvailable")]
    pub unavailable: Vec<String>,
}

/// Everything that would happen to the pods and claims of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    pub steps: Vec<Step>,
    /// Pods that would be left as they are.
    pub kept: Vec<String>,
    /// Why it would not come to its end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stops: Option<String>,
    /// How many pods that work now would not, at the worst moment; of how many wanted ones.
    #[serde(rename = "notAvailableAtMost")]
    pub at_most: usize,
    pub wanted: usize,
}

/// Looks forward from the present pods and claims to those of `set`, the object as the change would leave it.
#[must_use]
pub fn outlook(snapshot: &Snapshot, set: &StatefulSet) -> Outlook {
    let pods = own_pods(snapshot, set);
    let objects: Vec<Arc<Pod>> = pods.iter().map(|pod| Arc::new((*pod).clone())).collect();
    let treated = Treatment::of(snapshot, set);
    let seen = &treated.set;
    let known: Vec<_> = snapshot
        .revisions
        .values()
        .filter(|revision| {
            controller_of(&revision.metadata).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
        })
        .map(|revision| Arc::new(revision.clone()))
        .collect();
    let collisions = set.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let mut decision = revisions::decide(set, &known, collisions);
    if let Some(share) = treated.share {
        decision.current = companion::current(set, share, &objects, &|name| snapshot.may_have_revision(name));
    }
    let (state, _) = Observed {
        set: seen,
        pods: &objects,
        claim: &|claim| snapshot.claims.get(claim).found().map(|claim| Arc::new(claim.clone())),
        current: &decision.current,
        update: decision.update.name(),
        waits_for_others: waited_for(snapshot, seen).next().is_some(),
        budgets: &snapshot.asked_budgets(seen),
        now: snapshot.now,
    }
    .look();
    let is_stuck =
        |pod: &&&Pod| crate::pod::state(snapshot, pod).is_some_and(|finding| finding.severity == Severity::Fault);
    let stuck: BTreeSet<u32> = pods.iter().filter(is_stuck).filter_map(|pod| identity::ordinal_of(set, pod)).collect();
    let forecast = match treated.share {
        Some(share) => forecast_by(&state, &stuck, &|set| companion::together(set, share)),
        None => forecast(&state, &stuck),
    };
    let teller = Teller {
        snapshot,
        set,
        seen,
        current: &decision.current,
        update: decision.update.name(),
        ordered: state.policy == Policy::OrderedReady,
        misfits: misfits(set, &pods, &state),
    };
    let names = |ordinals: &[u32]| ordinals.iter().map(|ordinal| identity::pod_name(set, *ordinal)).collect::<Vec<_>>();
    let mut remade = BTreeSet::new();
    let mut steps = Vec::new();
    for step in &forecast.steps {
        let (what, why) = teller.words(step.action, &mut remade);
        let makes = match step.action {
            Action::CreatePod { ordinal, .. } => Some(ordinal),
            _ => None,
        };
        steps.push(Step { round: step.round, what, makes, why, unavailable: names(&step.unavailable) });
    }
    let at_most = steps.iter().map(|step| step.unavailable.len()).max().unwrap_or(0);
    let wanted =
        if state.deletion == Deletion::No { state.replicas.iter().filter(|slot| !slot.stopped).count() } else { 0 };
    Outlook { steps, kept: names(&forecast.kept), stops: teller.end(forecast.end), at_most, wanted }
}

/// The pods that the set controls, or would adopt.
fn own_pods<'a>(snapshot: &'a Snapshot, set: &StatefulSet) -> Vec<&'a Pod> {
    let none = BTreeMap::new();
    let own = |pod: &&Pod| match controller_of(&pod.metadata) {
        Some(owner) => Some(&owner.uid) == set.metadata.uid.as_ref(),
        None => selects(&set.spec.selector, pod.metadata.labels.as_ref().unwrap_or(&none)),
    };
    snapshot.pods.values().filter(own).filter(|pod| identity::ordinal_of(set, pod).is_some()).collect()
}

struct Teller<'a> {
    snapshot: &'a Snapshot,
    set: &'a StatefulSet,
    /// The set as this cluster treats it.
    seen: &'a StatefulSet,
    current: &'a str,
    update: &'a str,
    ordered: bool,
    /// Why pods of the right revision are replaced all the same.
    misfits: BTreeMap<u32, &'static str>,
}

fn misfits(set: &StatefulSet, pods: &[&Pod], state: &State) -> BTreeMap<u32, &'static str> {
    let misfit = |slot: &&Slot| slot.pod.is_some_and(|pod| pod.misfit);
    let why = |ordinal: u32| {
        let pod = pods.iter().find(|pod| identity::ordinal_of(set, pod) == Some(ordinal));
        match pod.is_some_and(|pod| identity::storage_matches(set, pod, ordinal)) {
            true => "its override is not the one that it should have",
            false => "its volumes are not those that the claim templates ask for",
        }
    };
    state.replicas.iter().filter(misfit).map(|slot| (slot.ordinal, why(slot.ordinal))).collect()
}

impl Teller<'_> {
    /// What a step does, and why.
    fn words(&self, action: Action, remade: &mut BTreeSet<u32>) -> (String, String) {
        let pod = |ordinal: u32| identity::pod_name(self.set, ordinal);
        match action {
            Action::CreatePod { ordinal, revision } => {
                let name = if revision == Revision::UPDATE { self.update } else { self.current };
                let at = if self.is_foreign(name) { "a new revision".to_owned() } else { format!("revision {name}") };
                let claims = self.claims(ordinal);
                let again = if remade.contains(&ordinal) { "again " } else { "" };
                (format!("create pod {}", pod(ordinal)), format!("{again}at {at}{claims}"))
            }
            Action::CreateClaims { ordinal } => {
                (format!("create claims of {}", pod(ordinal)), "they are missing".to_owned())
            }
            Action::RefuseClaims { ordinal } => {
                (format!("refuse pod {}", pod(ordinal)), "a claim of its name is being deleted".to_owned())
            }
            Action::RepairPod { ordinal } => {
                (format!("update pod {}", pod(ordinal)), "its labels or claims' owners".to_owned())
            }
            Action::RepairClaims { ordinal } => {
                (format!("update claims of {}", pod(ordinal)), "their owners, as the retention policy says".to_owned())
            }
            Action::DeletePod { ordinal, why } => {
                // Only the first pod of an ordinal can be a misfit: those after it are made as they should be.
                let first = remade.insert(ordinal);
                let misfit = self.misfits.get(&ordinal).filter(|_| first);
                let why = match (why, misfit) {
                    (Why::Finished, _) => "it failed or ended".to_owned(),
                    (Why::ScaleDown, _) => format!("it is no longer wanted{}", self.left_claims(ordinal)),
                    (Why::Stopped, _) => format!("it is stopped ({}); its claims are kept", wishes::STOPPED),
                    (Why::Outdated | Why::Recreate, Some(misfit)) => (*misfit).to_owned(),
                    (Why::Outdated, None) => "it is of an old revision".to_owned(),
                    (Why::Recreate, None) => "all of old revisions go before new ones are made".to_owned(),
                    (Why::Broken, Some(misfit)) => format!("it does not work, and {misfit}"),
                    (Why::Broken, None) => {
                        "it does not work, and is not of the revision that it should be of".to_owned()
                    }
                    (Why::SetDeleted, _) => "its set is deleted".to_owned(),
                };
                (format!("delete pod {}", pod(ordinal)), why)
            }
            Action::EvictPod { ordinal } => {
                let first = remade.insert(ordinal);
                let why = self.misfits.get(&ordinal).filter(|_| first).unwrap_or(&"it is of an old revision");
                let why = format!("{why}, and its disruption budget is asked");
                (format!("evict pod {}", pod(ordinal)), why)
            }
            Action::AskHandOver { ordinal } => {
                let seconds = wishes::hand_over_seconds(self.set);
                let why = format!("before it is taken down; it is given {seconds} s");
                (format!("ask pod {} to hand over", pod(ordinal)), why)
            }
            Action::WithdrawHandOver { ordinal } => {
                (format!("let pod {} be", pod(ordinal)), "it was to hand over, and stays after all".to_owned())
            }
            Action::GrowClaims { ordinal } => (format!("grow claims of {}", pod(ordinal)), self.growth(ordinal)),
            Action::LabelClaims { ordinal } => {
                (format!("update claims of {}", pod(ordinal)), "labels and annotations of their templates".to_owned())
            }
            Action::RollBack => ("roll back".to_owned(), "the roll-out took too long".to_owned()),
            Action::HoldDeletion | Action::ReleaseDeletion => {
                ("update the set".to_owned(), format!("its finalizer {}", wishes::ORDERED_DELETE_FINALIZER))
            }
        }
    }

    /// Whether another cluster makes a revision of that name: its own version of Kubernetes says what it is called.
    fn is_foreign(&self, revision: &str) -> bool {
        !self.snapshot.heals && matches!(self.snapshot.revisions.get(revision), Lookup::Absent)
    }

    /// Which claims a new pod finds or gets.
    fn claims(&self, ordinal: u32) -> String {
        let told = claims::wanted(self.set, ordinal).into_iter().map(|wanted| {
            let claim = name(&wanted.metadata);
            match self.snapshot.claims.get(claim) {
                Lookup::Found(found) => format!(
                    "claim {claim} is used again{}",
                    size(found).map(|size| format!(" ({size})")).unwrap_or_default()
                ),
                Lookup::Absent => {
                    let class = wanted.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
                    let lacks = class.as_deref().filter(|class| {
                        !class.is_empty() && matches!(self.snapshot.classes.get(class), Lookup::Absent)
                    });
                    let lacks = lacks
                        .map(|class| format!("; its class {class:?} does not exist, so it would stay Pending"))
                        .unwrap_or_default();
                    let class = class.map_or_else(|| "default class".to_owned(), |class| format!("class {class}"));
                    format!("claim {claim} is made ({}, {class}){lacks}", size(&wanted).unwrap_or_default())
                }
                Lookup::Unknown => format!("claim {claim}"),
            }
        });
        told.map(|text| format!("; {text}")).collect()
    }

    /// What becomes of the claims of a pod that goes.
    fn left_claims(&self, ordinal: u32) -> String {
        let names: Vec<String> = identity::claim_templates(self.set)
            .iter()
            .map(|template| identity::claim_name(self.set, template, ordinal))
            .collect();
        let policy = self.set.spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = policy.and_then(|policy| policy.when_scaled.as_deref()) == Some("Delete");
        match (names.is_empty(), deletes) {
            (true, _) => String::new(),
            (false, true) => format!("; its data goes with it: claim {}", names.join(", ")),
            (false, false) => format!("; claim {} is kept", names.join(", ")),
        }
    }

    fn growth(&self, ordinal: u32) -> String {
        let grows = claims::wanted(self.seen, ordinal).into_iter().filter_map(|wanted| {
            let claim = name(&wanted.metadata);
            let found = self.snapshot.claims.get(claim).found()?;
            (size(found) != size(&wanted)).then(|| {
                format!("{claim}: {} -> {}", size(found).unwrap_or_default(), size(&wanted).unwrap_or_default())
            })
        });
        grows.collect::<Vec<_>>().join(", ")
    }

    fn end(&self, end: End) -> Option<String> {
        let pod = |ordinal: u32| identity::pod_name(self.set, ordinal);
        let wait = match end {
            End::Settled => return None,
            End::Open => return Some("more steps follow than are looked ahead".to_owned()),
            End::Refused => return Some("the last step does not work and is tried again and again".to_owned()),
            End::Stopped(wait) => wait,
        };
        Some(match wait {
            Wait::ToBeReady(ordinal) if self.ordered => {
                format!(
                    "it stops at {}, which does not become Ready (stead explain pod/{} says why)",
                    pod(ordinal),
                    pod(ordinal)
                )
            }
            Wait::ToBeReady(ordinal) => {
                format!("{} does not become Ready (stead explain pod/{} says why)", pod(ordinal), pod(ordinal))
            }
            Wait::ToBeAvailable(ordinal) => format!("it stops at {}, which does not stay Ready", pod(ordinal)),
            Wait::ToBeGone(ordinal) => format!("it stops at {}, which does not end", pod(ordinal)),
            Wait::ForOldClaim(ordinal) => format!("the old claim of {} has to be deleted first", pod(ordinal)),
            Wait::BeforeRemoving(ordinal) => format!("{} is not removed before the lower ones work", pod(ordinal)),
            Wait::ForBudget => "as many pods are unavailable as maxUnavailable allows".to_owned(),
            Wait::ForHandOver(ordinal) => format!("it waits for {} to hand over", pod(ordinal)),
            Wait::ForDisruption(ordinal) => format!(
                "it stops at {}, which a disruption budget does not let go (stead explain sts/{} says which)",
                pod(ordinal),
                name(&self.set.metadata)
            ),
            Wait::ForOthers => format!(
                "its first pod waits for other sets to be ready: {}",
                waited_for(self.snapshot, self.set).collect::<Vec<_>>().join(", ")
            ),
        })
    }
}

fn size(claim: &PersistentVolumeClaim) -> Option<String> {
    Some(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone())
}

/// The steps as aligned lines; the number of the round stands before its first one.
#[must_use]
pub fn text(outlook: &Outlook) -> String {
    let mut out = String::new();
    let width = outlook.steps.iter().map(|step| step.what.chars().count()).max().unwrap_or(0);
    let (mut number, mut round) = (0, None);
    for step in &outlook.steps {
        let mark = if round == Some(step.round) {
            "   ".to_owned()
        } else {
            number += 1;
            round = Some(step.round);
            format!("{number:>2}.")
        };
        let without = match step.unavailable.is_empty() {
            true => String::new(),
            false => format!(" [not available: {}]", step.unavailable.join(", ")),
        };
        out.push_str(&format!("  {mark} {:width$}  {}{without}\n", step.what, step.why));
    }
    if !outlook.kept.is_empty() {
        out.push_str(&format!("      keep {}\n", outlook.kept.join(", ")));
    }
    if outlook.at_most > 0 {
        let of = outlook.wanted;
        out.push_str(&format!("      at most {} of {of} pods not available at a time\n", outlook.at_most));
    }
    if let Some(stops) = &outlook.stops {
        out.push_str(&format!("      {stops}\n"));
    }
    out
}
