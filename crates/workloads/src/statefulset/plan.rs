//! The decision. Pure: the same snapshot always gives the same plan.

use jiff::Timestamp;

use super::{Budget, Deletion, GiveUp, Guard, HandOver, Pod, Policy, Revision, Slot, Snapshot, Strategy};
use crate::pod::{Health, Record};

/// One step. Steps of a plan are done in order and the first failure ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Create the claims of that ordinal that are missing, then its pod from that revision.
    CreatePod {
        ordinal: u32,
        revision: Revision,
    },
    /// Create the claims that a pod which is Pending lacks.
    CreateClaims {
        ordinal: u32,
    },
    /// Cannot create the pod or its claims: a claim of that name is being deleted.
    RefuseClaims {
        ordinal: u32,
    },
    /// Put labels and the owners of claims right.
    RepairPod {
        ordinal: u32,
    },
    /// Put the owners of a condemned pod's claims right before it goes.
    RepairClaims {
        ordinal: u32,
    },
    DeletePod {
        ordinal: u32,
        why: Why,
    },
    /// Take an outdated pod that works away if its disruption budget allows it.
    EvictPod {
        ordinal: u32,
    },
    /// Ask a pod to hand over before it is taken down.
    AskHandOver {
        ordinal: u32,
    },
    /// Take such a request back: the pod stays.
    WithdrawHandOver {
        ordinal: u32,
    },
    /// Let the claims of that ordinal ask for as much storage as their templates do.
    GrowClaims {
        ordinal: u32,
    },
    /// Give the claims of that ordinal the labels and annotations of their templates.
    LabelClaims {
        ordinal: u32,
    },
    /// Give the set the template of its current revision again.
    RollBack,
    /// Make the deletion of the set wait for this controller.
    HoldDeletion,
    /// Let the set go, or do without its wait.
    ReleaseDeletion,
}

/// Why a pod is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It failed or ended, and is to be made anew.
    Finished,
    /// Its ordinal is no longer wanted.
    ScaleDown,
    /// Its ordinal is stopped for now.
    Stopped,
    /// It is of an old revision, or has other volumes than the claim templates ask for.
    Outdated,
    /// The same, where all such pods go at once.
    Recreate,
    /// It is of a revision that it should not be of, or has the wrong volumes, and never worked.
    Broken,
    /// Its set is deleted, in order.
    SetDeleted,
}

/// What the set waits for; the first such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// A pod to become Running and Ready.
    ToBeReady(u32),
    /// A Ready pod to stay so for `minReadySeconds`.
    ToBeAvailable(u32),
    /// A terminating pod to be gone for good.
    ToBeGone(u32),
    /// A claim of an earlier pod of that name to be deleted by the garbage collector.
    ForOldClaim(u32),
    /// Scaling down: an unhealthy pod with a lower ordinal than this one to recover.
    BeforeRemoving(u32),
    /// Roll-out: as many pods are unavailable as `maxUnavailable` allows.
    ForBudget,
    /// Roll-out: this pod is not evicted before its disruption budget allows it.
    ForDisruption(u32),
    /// A pod to hand over before it is taken down.
    ForHandOver(u32),
    /// The sets that this one depends on to be ready.
    ForOthers,
}

/// What to do, what is waited for, and when to look again even if nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wait: Option<Wait>,
    pub wake_at: Option<Timestamp>,
}

/// Scale up and repair first, then scale down, then roll out.
///
/// With `OrderedReady` each phase starts only when those before have nothing left to do or to wait for;
/// with `Parallel` everything that can be done is done at once.
#[must_use]
pub fn plan(set: &Snapshot) -> Plan {
    let mut plan = Plan { wake_at: wake_at(set), ..Plan::default() };
    match set.deletion {
        Deletion::No if set.ordered_delete && !set.held => plan.act(Action::HoldDeletion),
        Deletion::No if !set.ordered_delete && set.held => plan.act(Action::ReleaseDeletion),
        Deletion::No => {}
        Deletion::ByOthers => {
            if set.held {
                plan.act(Action::ReleaseDeletion);
            }
            return plan;
        }
        Deletion::InOrder => {
            take_down(set, &mut plan);
            return plan;
        }
    }
    if set.give_up == GiveUp::Now && set.current != Revision::UPDATE {
        // The template changes, and with it everything that could be decided now.
        plan.act(Action::RollBack);
        return plan;
    }
    live(set, &mut plan);
    withdraw(set, &mut plan);
    // Last, since a class may refuse it, and no pod is to wait for that.
    for slot in set.replicas.iter().filter(|slot| slot.claims.small) {
        plan.act(Action::GrowClaims { ordinal: slot.ordinal });
    }
    for slot in set.replicas.iter().filter(|slot| slot.claims.unlabelled) {
        plan.act(Action::LabelClaims { ordinal: slot.ordinal });
    }
    plan
}

/// The set is there to stay.
fn live(set: &Snapshot, plan: &mut Plan) {
    let has_none = set.replicas.iter().chain(&set.condemned).all(|slot| slot.pod.is_none());
    if set.waits_for_others && has_none && set.running().next().is_some() {
        return plan.wait_for(Wait::ForOthers);
    }
    if recreate(set, plan) == Flow::Stop {
        return;
    }
    if scale_up(set, plan) == Flow::Stop {
        return;
    }
    if scale_down(set, plan) == Flow::Stop {
        return;
    }
    roll_out(set, plan);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// The highest pod first, each only after the one above it is gone for good; healthy or not. Then the set itself.
fn take_down(set: &Snapshot, plan: &mut Plan) {
    match set.condemned.first() {
        None => plan.act(Action::ReleaseDeletion),
        Some(slot) if slot.pod.is_some_and(|pod| pod.terminating) => plan.wait_for(Wait::ToBeGone(slot.ordinal)),
        Some(slot) => plan.act(Action::DeletePod { ordinal: slot.ordinal, why: Why::SetDeleted }),
    }
}

/// With `Recreate`, every pod that a new one would not be like goes, whatever its health and its ordinal, all at once;
/// nothing else is done before all are gone.
fn recreate(set: &Snapshot, plan: &mut Plan) -> Flow {
    if set.strategy != Strategy::Recreate || set.paused || !set.has_outdated() {
        return Flow::Continue;
    }
    repair_leaving(set, plan);
    let slots = set.condemned.iter().chain(set.replicas.iter().rev());
    for (slot, pod) in slots.filter_map(|slot| Some((slot, slot.pod?))).filter(|(_, pod)| !pod.is_updated()) {
        if pod.terminating {
            plan.wait_for(Wait::ToBeGone(slot.ordinal));
        } else {
            plan.act(Action::DeletePod { ordinal: slot.ordinal, why: Why::Recreate });
        }
    }
    Flow::Stop
}

/// Every wanted ordinal that is not stopped, lowest first.
fn scale_up(set: &Snapshot, plan: &mut Plan) -> Flow {
    for slot in set.running() {
        let step = replica(set, slot, plan);
        if step == Flow::Stop && set.policy == Policy::OrderedReady {
            return Flow::Stop;
        }
    }
    Flow::Continue
}

fn replica(set: &Snapshot, slot: &Slot, plan: &mut Plan) -> Flow {
    let ordinal = slot.ordinal;
    let Some(pod) = slot.pod else { return create(set, slot, plan) };
    if set.is_broken(slot, &pod) {
        plan.act(Action::DeletePod { ordinal, why: Why::Broken });
        return Flow::Stop;
    }
    if set.hands_over && pod.hand_over != HandOver::No && set.is_to_go(slot) && is_unready(&pod) {
        // It may be just because it hands over. What is unavailable anyway is not waited for any longer than that.
        if may_go(set, slot, plan) {
            plan.act(Action::DeletePod { ordinal, why: Why::Outdated });
        }
        return Flow::Stop;
    }
    match pod.health {
        Health::Finished => {
            if pod.terminating {
                plan.wait_for(Wait::ToBeGone(ordinal));
            } else {
                plan.act(Action::DeletePod { ordinal, why: Why::Finished });
            }
            return Flow::Stop;
        }
        Health::Pending if slot.claims.deleting => {
            plan.act(Action::RefuseClaims { ordinal });
            return Flow::Stop;
        }
        Health::Pending if slot.claims.missing => plan.act(Action::CreateClaims { ordinal }),
        Health::Pending | Health::Starting | Health::Ready | Health::Available => {}
    }
    let wait = waits_for(ordinal, &pod);
    if let Some(wait) = wait {
        plan.wait_for(wait);
        if set.policy == Policy::OrderedReady {
            return Flow::Stop;
        }
    }
    if pod.damaged || slot.claims.owners {
        plan.act(Action::RepairPod { ordinal });
    }
    Flow::Continue
}

fn create(set: &Snapshot, slot: &Slot, plan: &mut Plan) -> Flow {
    let ordinal = slot.ordinal;
    if slot.claims.stale {
        plan.wait_for(Wait::ForOldClaim(ordinal));
    } else if slot.claims.deleting {
        plan.act(Action::RefuseClaims { ordinal });
    } else {
        plan.act(Action::CreatePod { ordinal, revision: set.revision_for(slot) });
    }
    Flow::Stop
}

/// Why this pod does not count as available yet.
fn waits_for(ordinal: u32, pod: &Pod) -> Option<Wait> {
    if pod.terminating {
        return Some(Wait::ToBeGone(ordinal));
    }
    match pod.health {
        Health::Pending | Health::Starting | Health::Finished => Some(Wait::ToBeReady(ordinal)),
        Health::Ready => Some(Wait::ToBeAvailable(ordinal)),
        Health::Available => None,
    }
}

/// Every pod that is not wanted or stopped, highest ordinal first.
fn scale_down(set: &Snapshot, plan: &mut Plan) -> Flow {
    repair_leaving(set, plan);
    let leaving = set.leaving();
    let sickest = first_unhealthy(set, &leaving);
    for slot in leaving {
        let Some(pod) = slot.pod else { continue };
        let ordinal = slot.ordinal;
        let ordered = set.policy == Policy::OrderedReady;
        if pod.terminating {
            plan.wait_for(Wait::ToBeGone(ordinal));
        } else if ordered && set.may_recover(slot, &pod) && sickest != Some(ordinal) {
            plan.wait_for(Wait::BeforeRemoving(ordinal));
        } else {
            let why = if slot.stopped { Why::Stopped } else { Why::ScaleDown };
            if may_go(set, slot, plan) {
                plan.act(Action::DeletePod { ordinal, why });
            }
        }
        if ordered {
            return Flow::Stop;
        }
    }
    Flow::Continue
}

/// Before a condemned pod goes its claims must have the owner that goes with it; those of stopped ones keep theirs.
fn repair_leaving(set: &Snapshot, plan: &mut Plan) {
    for slot in set.leaving().into_iter().filter(|slot| slot.claims.owners) {
        plan.act(Action::RepairClaims { ordinal: slot.ordinal });
    }
}

/// The unhealthy pod with the lowest ordinal, the only one that scaling down in order may remove. It is one of those
/// that are not wanted: as long as one that is wanted is unhealthy, nothing is scaled down in order.
fn first_unhealthy(set: &Snapshot, leaving: &[&Slot]) -> Option<u32> {
    let waited_for = |slot: &&&Slot| slot.pod.is_some_and(|pod| set.may_recover(slot, &pod));
    leaving.iter().rev().find(waited_for).map(|slot| slot.ordinal)
}

/// Replaces outdated pods, highest ordinal first, down to the partition; those that are to be last after all others.
fn roll_out(set: &Snapshot, plan: &mut Plan) {
    let Strategy::RollingUpdate { partition, max_unavailable } = set.strategy else { return };
    if set.paused {
        return;
    }
    let mut outdated: Vec<&Slot> =
        set.replicas.iter().skip(partition as usize).rev().filter(|slot| is_outdated(slot)).collect();
    // What has been asked to hand over goes first: it has begun to.
    let asked = |pod: Pod| set.hands_over && pod.hand_over != HandOver::No;
    outdated.sort_by_key(|slot| slot.pod.map(|pod| (!asked(pod), pod.last)));
    // One that is Ready and not available yet serves: it is waited for, as upstream does.
    let sick = |slot: &&Slot| slot.pod.is_none_or(|pod| !pod.health.is_ready());
    let mut budget = (max_unavailable as usize).saturating_sub(set.unavailable());
    let mut budgets = set.budgets.clone();
    for free in [true, false] {
        for slot in outdated.iter().filter(|slot| sick(slot) == free) {
            // With OrderedReady nothing is unavailable here: `scale_up` would have stopped.
            if !free && budget == 0 {
                if plan.actions.is_empty() {
                    plan.wait_for(Wait::ForBudget);
                }
                return;
            }
            budget -= usize::from(!free);
            if replace(set, slot, &mut budgets, plan) == Flow::Stop {
                return;
            }
        }
    }
}

/// Takes an outdated pod away; one that works only with the consent of its disruption budget, where that is asked for.
fn replace(set: &Snapshot, slot: &Slot, budgets: &mut [Budget], plan: &mut Plan) -> Flow {
    let Some(pod) = slot.pod.filter(|pod| set.evicts && pod.health.is_ready()) else {
        if may_go(set, slot, plan) {
            plan.delete_once(slot.ordinal);
        }
        return Flow::Continue;
    };
    let allowed = match pod.guard {
        Guard::Free => true,
        Guard::Budget(at) => budgets.get_mut(at).is_none_or(Budget::spend),
        Guard::Many => false,
    };
    if !allowed {
        plan.wait_for(Wait::ForDisruption(slot.ordinal));
        return Flow::Stop;
    }
    if may_go(set, slot, plan) {
        plan.act(Action::EvictPod { ordinal: slot.ordinal });
    }
    Flow::Continue
}

/// Whether a pod may be taken down as far as handing over goes. One that is Ready is asked first, and then waited for.
fn may_go(set: &Snapshot, slot: &Slot, plan: &mut Plan) -> bool {
    let Some(pod) = slot.pod.filter(|_| set.hands_over) else { return true };
    match pod.hand_over {
        HandOver::Over => true,
        HandOver::No if !pod.health.is_ready() => true,
        HandOver::No => {
            plan.act(Action::AskHandOver { ordinal: slot.ordinal });
            false
        }
        HandOver::Asked(_) => {
            plan.wait_for(Wait::ForHandOver(slot.ordinal));
            false
        }
    }
}

/// Takes back what was asked of pods that are to stay after all.
fn withdraw(set: &Snapshot, plan: &mut Plan) {
    for slot in &set.replicas {
        let asked = slot.pod.is_some_and(|pod| pod.hand_over != HandOver::No && !pod.terminating);
        if asked && !(set.hands_over && set.is_to_go(slot)) && !plan.takes(slot.ordinal) {
            plan.act(Action::WithdrawHandOver { ordinal: slot.ordinal });
        }
    }
}

fn is_unready(pod: &Pod) -> bool {
    !pod.terminating && matches!(pod.health, Health::Pending | Health::Starting)
}

fn is_outdated(slot: &Slot) -> bool {
    !slot.stopped && slot.pod.is_some_and(|pod| !pod.is_updated() && !pod.terminating)
}

/// The first moment at which a Ready pod becomes available, or the roll-out runs out of time.
fn wake_at(set: &Snapshot) -> Option<Timestamp> {
    let slots = set.replicas.iter().chain(&set.condemned);
    let available = slots.clone().filter_map(|slot| slot.pod?.available_at);
    let handed_over = slots.filter_map(|slot| match slot.pod?.hand_over {
        HandOver::Asked(end) if set.hands_over => Some(end),
        HandOver::Asked(_) | HandOver::No | HandOver::Over => None,
    });
    let over = match set.give_up {
        GiveUp::At(end) => Some(end),
        GiveUp::Never | GiveUp::Now => None,
    };
    available.chain(handed_over).chain(over).min()
}

impl Budget {
    /// Takes one disruption, if there is one.
    fn spend(&mut self) -> bool {
        let had = self.allowed > 0;
        self.allowed = self.allowed.saturating_sub(1);
        had
    }
}

impl Plan {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wait_for(&mut self, wait: Wait) {
        self.wait = self.wait.or(Some(wait));
    }

    /// A pod that failed or is broken is deleted once only.
    fn delete_once(&mut self, ordinal: u32) {
        if !self.takes(ordinal) {
            self.act(Action::DeletePod { ordinal, why: Why::Outdated });
        }
    }

    /// Whether that pod is deleted.
    fn takes(&self, ordinal: u32) -> bool {
        self.actions.iter().any(|a| matches!(a, Action::DeletePod { ordinal: o, .. } if *o == ordinal))
    }

    /// Nothing to do and nothing to wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.actions.is_empty() && self.wait.is_none()
    }
}

impl Snapshot {
    /// The ordinals that are to have a pod now, lowest first.
    pub(super) fn running(&self) -> impl Iterator<Item = &Slot> {
        self.replicas.iter().filter(|slot| !slot.stopped)
    }

    /// The ordinals that are to have none: no longer wanted, or stopped; highest first.
    fn leaving(&self) -> Vec<&Slot> {
        let mut leaving: Vec<&Slot> = self.replicas.iter().filter(|slot| slot.stopped).collect();
        leaving.extend(&self.condemned);
        leaving.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.ordinal));
        leaving
    }

    /// The revision that a new pod of that slot is made from.
    fn revision_for(&self, slot: &Slot) -> Revision {
        let partition = match self.strategy {
            Strategy::OnDelete => return Revision::UPDATE,
            Strategy::RollingUpdate { partition, .. } => partition,
            Strategy::Recreate => 0,
        };
        let index = self.replicas.partition_point(|other| other.ordinal < slot.ordinal);
        let held = self.paused && !self.was_rolled(slot.ordinal);
        if index < partition as usize || held { self.current } else { Revision::UPDATE }
    }

    /// Whether the roll-out had got to this ordinal. Rolling ones go downwards: when a lower ordinal has been updated,
    /// this one had been as well. One that recreates gets to all at once.
    fn was_rolled(&self, ordinal: u32) -> bool {
        let all = self.strategy == Strategy::Recreate;
        let told = self.replicas.iter().take_while(|slot| all || slot.ordinal < ordinal);
        told.filter_map(|slot| slot.pod).any(|pod| pod.revision == Revision::UPDATE)
    }

    /// Unhealthy, but not for ever. A finished pod runs nothing and never will, and a broken one never did, so removing
    /// it harms nobody and waiting for it would never end (upstream does wait, and two such pods on the way down block
    /// it for good).
    fn may_recover(&self, slot: &Slot, pod: &Pod) -> bool {
        !pod.is_healthy() && pod.health != Health::Finished && !self.is_broken(slot, pod)
    }

    /// Whether the pod of a wanted ordinal is to be taken down sooner or later, as everything is asked for now.
    fn is_to_go(&self, slot: &Slot) -> bool {
        let Strategy::RollingUpdate { partition, .. } = self.strategy else { return slot.stopped };
        let index = self.replicas.partition_point(|other| other.ordinal < slot.ordinal);
        slot.stopped || !self.paused && index >= partition as usize && is_outdated(slot)
    }

    /// Whether waiting for this pod is waiting in vain, and a new one would be another: it is not of the revision that
    /// it should be of, or has other volumes than it should have; and it never was Ready, or crashes again and again
    /// at a revision that no roll-out completed, or none of its kind works any more.
    ///
    /// Upstream waits for such a pod with `OrderedReady`, so that a template that is mended or rolled back never gets
    /// to it (kubernetes/kubernetes#67250).
    fn is_broken(&self, slot: &Slot, pod: &Pod) -> bool {
        let by_roll_out = matches!(self.strategy, Strategy::RollingUpdate { .. }) && !self.paused;
        let waits = !pod.terminating && matches!(pod.health, Health::Pending | Health::Starting);
        let hopeless = match pod.record {
            Record::NeverReady => true,
            Record::CrashLoops => pod.revision != self.current || !self.works(pod),
            Record::WasReady => false,
        };
        self.heals && by_roll_out && waits && hopeless && (pod.misfit || pod.revision != self.revision_for(slot))
    }

    /// Whether any pod of the kind of `pod` is available: of its revision, with the right volumes or not as it.
    fn works(&self, pod: &Pod) -> bool {
        let like = |other: &Pod| (other.revision, other.misfit) == (pod.revision, pod.misfit);
        self.replicas.iter().filter_map(|slot| slot.pod).any(|other| other.is_healthy() && like(&other))
    }

    /// The pod of that ordinal.
    pub(super) fn pod_at(&self, ordinal: u32) -> Option<Pod> {
        self.replicas.iter().chain(&self.condemned).find(|slot| slot.ordinal == ordinal)?.pod
    }

    /// Whether the pod of that ordinal is broken.
    pub(super) fn is_broken_at(&self, ordinal: u32) -> bool {
        let slot = self.replicas.iter().chain(&self.condemned).find(|slot| slot.ordinal == ordinal);
        slot.is_some_and(|slot| slot.pod.is_some_and(|pod| self.is_broken(slot, &pod)))
    }
}
