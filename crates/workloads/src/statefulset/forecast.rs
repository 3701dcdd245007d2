//! The plan run forward: what would be done, step by step, if nodes do their part.
//!
//! It asks the same [`plan`] that the controller follows, on a copy, and lets time pass in between: what terminates goes,
//! what starts becomes available.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Action, Budget, Deletion, GiveUp, Guard, HandOver, Plan, Pod, Revision, Slot, Snapshot, Wait, plan};
use crate::pod::{Health, Record};

/// One thing that would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    /// Steps of one round are done together; between rounds, pods end and become available.
    pub round: usize,
    /// Ordinals that work now and, after this step, would not.
    pub unavailable: Vec<u32>,
}

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything is as wanted.
    Settled,
    /// It gets no further before somebody does something.
    Stopped(Wait),
    /// What it would do does not work, and would be tried again and again.
    Refused,
    /// It takes more rounds than are looked ahead.
    Open,
}

/// What would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub steps: Vec<Step>,
    pub end: End,
    /// Ordinals whose pods would be left as they are.
    pub kept: Vec<u32>,
}

/// How many rounds are looked ahead for each pod; a replaced pod takes two.
const ROUNDS_PER_POD: usize = 4;
/// How often the plan is asked again before time passes.
const PLANS_PER_ROUND: usize = 16;
/// Rounds for the set itself.
const ROUNDS_MORE: usize = 8;

/// Runs the plan forward from `start`. Pods with the ordinals of `stuck` do not become ready, unless they are replaced.
#[must_use]
pub fn forecast(start: &Snapshot, stuck: &BTreeSet<u32>) -> Forecast {
    forecast_by(start, stuck, &plan)
}

/// The same where something else than [`plan`] decides.
#[must_use]
pub fn forecast_by(start: &Snapshot, stuck: &BTreeSet<u32>, plan: &dyn Fn(&Snapshot) -> Plan) -> Forecast {
    let budgets = start.budgets.clone();
    let mut world = World { set: start.clone(), stuck: stuck.clone(), began: healthy(start), budgets, plan };
    // How long it takes is not known, so that no deadline ends it.
    world.set.give_up = GiveUp::Never;
    let mut steps: Vec<Step> = Vec::new();
    let most = ROUNDS_MORE + ROUNDS_PER_POD * (start.replicas.len() + start.condemned.len());
    let mut end = End::Open;
    for round in 0..most {
        let refused = world.act(round, &mut steps);
        let before = world.set.clone();
        world.pass();
        if world.set != before {
            continue;
        }
        end = match plan(&world.set).wait {
            Some(wait) => End::Stopped(wait),
            None if refused => End::Refused,
            None => End::Settled,
        };
        break;
    }
    let touched = |ordinal: u32| steps.iter().any(|step| changes_pod(step.action) == Some(ordinal));
    let pods = start.replicas.iter().filter(|slot| slot.pod.is_some()).map(|slot| slot.ordinal);
    let kept = pods.filter(|ordinal| !touched(*ordinal)).collect();
    Forecast { steps, end, kept }
}

fn changes_pod(action: Action) -> Option<u32> {
    match action {
        Action::CreatePod { ordinal, .. } | Action::DeletePod { ordinal, .. } | Action::EvictPod { ordinal } => {
            Some(ordinal)
        }
        Action::CreateClaims { .. }
        | Action::RefuseClaims { .. }
        | Action::RepairPod { .. }
        | Action::RepairClaims { .. }
        | Action::AskHandOver { .. }
        | Action::WithdrawHandOver { .. }
        | Action::GrowClaims { .. }
        | Action::LabelClaims { .. }
        | Action::RollBack
        | Action::HoldDeletion
        | Action::ReleaseDeletion => None,
    }
}

fn healthy(set: &Snapshot) -> BTreeSet<u32> {
    let works = |slot: &&Slot| slot.pod.is_some_and(|pod| pod.is_healthy());
    set.running().filter(works).map(|slot| slot.ordinal).collect()
}

struct World<'a> {
    set: Snapshot,
    plan: &'a dyn Fn(&Snapshot) -> Plan,
    stuck: BTreeSet<u32>,
    /// What works at the beginning.
    began: BTreeSet<u32>,
    /// What disruption budgets allow at the beginning.
    budgets: Vec<Budget>,
}

impl World<'_> {
    /// Does what the plan says until it says nothing more; whether it says something that changes nothing.
    fn act(&mut self, round: usize, steps: &mut Vec<Step>) -> bool {
        for _ in 0..PLANS_PER_ROUND {
            let actions = (self.plan)(&self.set).actions;
            let before = self.set.clone();
            for action in actions {
                let was = self.set.clone();
                self.apply(action);
                let known = steps.iter().any(|step| step.action == action && step.round == round);
                if self.set != was || (matches!(action, Action::RefuseClaims { .. }) && !known) {
                    let works = healthy(&self.set);
                    let unavailable = self.began.difference(&works).copied().collect();
                    steps.push(Step { action, round, unavailable });
                }
            }
            if self.set == before {
                return !(self.plan)(&self.set).actions.is_empty();
            }
        }
        true
    }

    fn slot(&mut self, ordinal: u32) -> Option<&mut Slot> {
        self.set.replicas.iter_mut().chain(&mut self.set.condemned).find(|slot| slot.ordinal == ordinal)
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::CreatePod { ordinal, revision } => {
                let pod = Pod {
                    health: Health::Pending,
                    record: Record::NeverReady,
                    terminating: false,
                    revision,
                    damaged: false,
                    misfit: false,
                    last: false,
                    guard: self.guard(),
                    hand_over: HandOver::No,
                    available_at: None,
                };
                self.stuck.remove(&ordinal);
                if let Some(slot) = self.slot(ordinal) {
                    slot.pod = Some(pod);
                    (slot.claims.missing, slot.claims.owners) = (false, false);
                }
            }
            Action::CreateClaims { ordinal } => self.claims(ordinal, |slot| slot.claims.missing = false),
            Action::RefuseClaims { .. } => {}
            Action::RepairPod { ordinal } => self.claims(ordinal, |slot| {
                slot.claims.owners = false;
                if let Some(pod) = &mut slot.pod {
                    pod.damaged = false;
                }
            }),
            Action::RepairClaims { ordinal } => self.claims(ordinal, |slot| slot.claims.owners = false),
            Action::AskHandOver { ordinal } => self.hand_over(ordinal, HandOver::Asked(Timestamp::MAX)),
            Action::WithdrawHandOver { ordinal } => self.hand_over(ordinal, HandOver::No),
            Action::GrowClaims { ordinal } => self.claims(ordinal, |slot| slot.claims.small = false),
            Action::LabelClaims { ordinal } => self.claims(ordinal, |slot| slot.claims.unlabelled = false),
            Action::DeletePod { ordinal, .. } | Action::EvictPod { ordinal } => {
                self.claims(ordinal, |slot| slot.pod = slot.pod.map(|pod| Pod { terminating: true, ..pod }));
                self.count_budgets();
            }
            // No deadline runs out here.
            Action::RollBack => {}
            Action::HoldDeletion => self.set.held = true,
            Action::ReleaseDeletion => self.set.held = false,
        }
    }

    fn hand_over(&mut self, ordinal: u32, hand_over: HandOver) {
        self.claims(ordinal, |slot| slot.pod = slot.pod.map(|pod| Pod { hand_over, ..pod }));
    }

    fn claims(&mut self, ordinal: u32, change: impl FnOnce(&mut Slot)) {
        if let Some(slot) = self.slot(ordinal) {
            change(slot);
        }
    }

    /// The budget of the set's pods, for new ones: they have the labels of one template.
    fn guard(&self) -> Guard {
        self.set.replicas.iter().find_map(|slot| slot.pod).map_or(Guard::Free, |pod| pod.guard)
    }

    /// What the disruption budgets allow follows how many of the set's own pods work; those of others stay as they are.
    fn count_budgets(&mut self) {
        let (began, works) = (i64::try_from(self.began.len()), i64::try_from(healthy(&self.set).len()));
        let more = works.unwrap_or(0) - began.unwrap_or(0);
        for (budget, start) in self.set.budgets.iter_mut().zip(&self.budgets) {
            let allowed = i64::from(start.allowed) - i64::from(start.short) + more;
            budget.allowed = u32::try_from(allowed).unwrap_or(0);
        }
    }

    /// Time passes: what terminates is gone, what starts is available, and a roll-out that is complete is over.
    fn pass(&mut self) {
        let stuck = self.stuck.clone();
        for slot in self.set.replicas.iter_mut().chain(&mut self.set.condemned) {
            slot.claims.stale = false;
            let Some(pod) = &mut slot.pod else { continue };
            if let HandOver::Asked(_) = pod.hand_over {
                pod.hand_over = HandOver::Over;
            }
            if pod.terminating {
                slot.pod = None;
            } else if pod.health != Health::Finished && !stuck.contains(&slot.ordinal) {
                pod.health = Health::Available;
                pod.record = Record::WasReady;
                pod.available_at = None;
            }
        }
        self.set.condemned.retain(|slot| slot.pod.is_some());
        self.count_budgets();
        let complete = |slot: &Slot| slot.pod.is_some_and(|pod| pod.is_healthy() && pod.is_updated());
        let rolls = self.set.strategy.is_automatic() && self.set.deletion == Deletion::No;
        if rolls && self.set.condemned.is_empty() && self.set.running().all(complete) {
            self.set.current = Revision::UPDATE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::{Miniature, World as Miniatures, words};
    use super::super::{Policy, Strategy};
    use super::*;

    /// `replicas` pods of template 0 that work, of a set that wants `wanted` of template `update`.
    fn world(policy: Policy, replicas: u32, wanted: u32, update: u8) -> Miniatures {
        let mut world = Miniatures::new(policy);
        let pod = Miniature::new((Health::Available, Record::WasReady), 0);
        world.pods = (0..replicas).map(|ordinal| (ordinal, pod)).collect();
        (world.replicas, world.update) = (wanted, update);
        world
    }

    /// Each step as `round: action [what does not work]`, and how it ends.
    fn told(world: &Miniatures, stuck: &[u32]) -> String {
        let forecast = forecast(&world.snapshot(), &stuck.iter().copied().collect());
        let mut text: Vec<String> = forecast
            .steps
            .iter()
            .map(|step| format!("{}: {} {:?}", step.round, words(step.action), step.unavailable))
            .collect();
        text.push(format!("{:?}, kept {:?}", forecast.end, forecast.kept));
        text.join("\n")
    }

    #[test]
    fn an_update_goes_down_one_by_one_and_never_makes_more_unavailable() {
        let text = "\
0: delete 2 (outdated) [2]
1: create 2 new [2]
2: delete 1 (outdated) [1]
3: create 1 new [1]
4: delete 0 (outdated) [0]
5: create 0 new [0]
Settled, kept []";
        assert_eq!(told(&world(Policy::OrderedReady, 3, 3, 1), &[]), text);
    }

    #[test]
    fn a_partition_keeps_what_is_below_it() {
        let mut partitioned = world(Policy::OrderedReady, 3, 3, 1);
        partitioned.strategy = Strategy::RollingUpdate { partition: 2, max_unavailable: 1 };
        assert_eq!(told(&partitioned, &[]), "0: delete 2 (outdated) [2]\n1: create 2 new [2]\nSettled, kept [0, 1]");
        let mut by_hand = world(Policy::OrderedReady, 2, 2, 1);
        by_hand.strategy = Strategy::OnDelete;
        assert_eq!(told(&by_hand, &[]), "Settled, kept [0, 1]");
    }

    #[test]
    fn scaling_is_in_order_or_at_once() {
        let text = "0: create 1 new []\n1: create 2 new []\nSettled, kept [0]";
        assert_eq!(told(&world(Policy::OrderedReady, 1, 3, 0), &[]), text);
        let text = "0: create 1 new []\n0: create 2 new []\nSettled, kept [0]";
        assert_eq!(told(&world(Policy::Parallel, 1, 3, 0), &[]), text);
        let text = "0: delete 2 (scale) []\n1: delete 1 (scale) []\nSettled, kept [0]";
        assert_eq!(told(&world(Policy::OrderedReady, 3, 1, 0), &[]), text);
    }

    #[test]
    fn a_pod_that_does_not_work_stops_what_comes_after_it() {
        let mut sick = world(Policy::OrderedReady, 2, 3, 0);
        sick.pods.get_mut(&1).expect("it is there").health = Health::Starting;
        assert_eq!(told(&sick, &[1]), "Stopped(ToBeReady(1)), kept [0, 1]");
        assert_eq!(told(&sick, &[]), "1: create 2 new []\nSettled, kept [0, 1]");
        // A broken one of an old revision is replaced, and then works.
        sick.replicas = 2;
        sick.update = 1;
        sick.pods.get_mut(&1).expect("it is there").record = Record::NeverReady;
        let text = "0: delete 1 (broken) []\n1: create 1 new []\n2: delete 0 (outdated) [0]\n3: create 0 new [0]\nSettled, kept []";
        assert_eq!(told(&sick, &[1]), text);
    }

    #[test]
    fn a_stopped_ordinal_goes_and_the_others_roll_out_past_it() {
        let mut stopping = world(Policy::OrderedReady, 3, 3, 1);
        stopping.stopped = vec![1];
        let text = "\
0: delete 1 (stopped) []
1: delete 2 (outdated) [2]
2: create 2 new [2]
3: delete 0 (outdated) [0]
4: create 0 new [0]
Settled, kept []";
        assert_eq!(told(&stopping, &[]), text);
    }

    #[test]
    fn evictions_wait_for_the_budget_and_go_on_when_what_is_down_is_back() {
        let mut evicting = world(Policy::Parallel, 2, 2, 1);
        (evicting.evicts, evicting.strategy) = (true, Strategy::RollingUpdate { partition: 0, max_unavailable: 2 });
        evicting.budget = Some(1);
        let text = "\
0: evict 1 [1]
1: create 1 new [1]
2: evict 0 [0]
3: create 0 new [0]
Settled, kept []";
        assert_eq!(told(&evicting, &[]), text);
        evicting.budget = Some(0);
        assert_eq!(told(&evicting, &[]), "Stopped(ForDisruption(1)), kept [0, 1]");
    }

    #[test]
    fn pods_hand_over_before_they_go() {
        let mut handing = world(Policy::OrderedReady, 2, 1, 1);
        handing.hands_over = true;
        let text = "\
0: ask 1 []
1: delete 1 (scale) []
2: ask 0 []
3: delete 0 (outdated) [0]
4: create 0 new [0]
Settled, kept []";
        assert_eq!(told(&handing, &[]), text);
    }

    #[test]
    fn a_set_that_depends_on_others_waits() {
        let mut waiting = world(Policy::OrderedReady, 0, 2, 0);
        waiting.waits_for_others = true;
        assert_eq!(told(&waiting, &[]), "Stopped(ForOthers), kept []");
    }
}
