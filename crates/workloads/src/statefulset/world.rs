//! A set, its pods and their nodes in miniature, for the tests of the plan.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{
    Action, Budget, Claims, Deletion, GiveUp, Guard, HandOver, Plan, Pod, Policy, Revision, Slot, Snapshot, Strategy,
    Why, count,
};
use crate::pod::{Health, Record};

/// A pod: health, what it has shown so far, whether it is terminating, and the number of its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Miniature {
    pub(super) health: Health,
    pub(super) record: Record,
    pub(super) terminating: bool,
    pub(super) template: u8,
    /// Its volumes are not those of the claim templates.
    pub(super) misfit: bool,
}

impl Miniature {
    pub(super) fn new((health, record): (Health, Record), template: u8) -> Self {
        Self { health, record, terminating: false, template, misfit: false }
    }
}

/// When pods that were asked to hand over have to be done.
pub(super) const END: Timestamp = Timestamp::MAX;

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) policy: Policy,
    pub(super) strategy: Strategy,
    pub(super) start: u32,
    pub(super) replicas: u32,
    /// Numbers of the templates that the set comes from and goes to.
    pub(super) current: u8,
    pub(super) update: u8,
    pub(super) paused: bool,
    /// The pod that is to be updated last.
    pub(super) leader: Option<u32>,
    pub(super) heals: bool,
    pub(super) give_up: GiveUp,
    pub(super) waits_for_others: bool,
    /// Ordinals that get no pod.
    pub(super) reserved: Vec<u32>,
    /// Ordinals whose pods are taken down and not made again.
    pub(super) stopped: Vec<u32>,
    /// Pods hand over before they are taken down; those that were asked, and those that have answered.
    pub(super) hands_over: bool,
    pub(super) asked: BTreeMap<u32, HandOver>,
    /// Roll-outs evict, and a budget over all pods allows so many evictions until the nodes have done their part.
    pub(super) evicts: bool,
    pub(super) budget: Option<u32>,
    /// How many of them are used up.
    pub(super) evicted: u32,
    /// Pods of this template that are not Ready never will be.
    pub(super) broken: Option<u8>,
    /// Nor will those with the wrong volumes that never were Ready.
    pub(super) misfits_break: bool,
    pub(super) deletion: Deletion,
    pub(super) ordered_delete: bool,
    pub(super) held: bool,
    pub(super) pods: BTreeMap<u32, Miniature>,
    pub(super) claims: BTreeMap<u32, Claims>,
}

impl World {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            strategy: Strategy::RollingUpdate { partition: 0, max_unavailable: 1 },
            start: 0,
            replicas: 0,
            current: 0,
            update: 0,
            paused: false,
            leader: None,
            heals: true,
            give_up: GiveUp::Never,
            waits_for_others: false,
            reserved: Vec::new(),
            stopped: Vec::new(),
            hands_over: false,
            asked: BTreeMap::new(),
            evicts: false,
            budget: None,
            evicted: 0,
            broken: None,
            misfits_break: false,
            deletion: Deletion::No,
            ordered_delete: false,
            held: false,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let wanted = self.wanted();
        let slot = |ordinal: u32| Slot {
            ordinal,
            pod: self.pods.get(&ordinal).map(|pod| Pod {
                health: pod.health,
                record: pod.record,
                terminating: pod.terminating,
                revision: self.revision(pod.template),
                damaged: false,
                misfit: pod.misfit,
                last: self.leader == Some(ordinal),
                hand_over: self.asked.get(&ordinal).copied().unwrap_or_default(),
                guard: self.budget.map_or(Guard::Free, |_| Guard::Budget(0)),
                available_at: None,
            }),
            claims: self.claims.get(&ordinal).copied().unwrap_or_default(),
            stopped: wanted.contains(&ordinal) && self.stopped.contains(&ordinal),
        };
        Snapshot {
            policy: self.policy,
            strategy: self.strategy,
            deletion: self.deletion,
            ordered_delete: self.ordered_delete,
            held: self.held,
            paused: self.paused,
            heals: self.heals,
            give_up: self.give_up,
            waits_for_others: self.waits_for_others,
            hands_over: self.hands_over,
            evicts: self.evicts,
            budgets: self
                .budget
                .map(|allowed| Budget { allowed: allowed.saturating_sub(self.evicted), short: 0 })
                .into_iter()
                .collect(),
            current: self.revision(self.current),
            replicas: wanted.iter().copied().map(slot).collect(),
            condemned: self.pods.keys().rev().filter(|o| !wanted.contains(o)).map(|o| slot(*o)).collect(),
        }
    }

    /// The ordinals that are wanted.
    pub(super) fn wanted(&self) -> Vec<u32> {
        let replicas = if self.deletion == Deletion::InOrder { 0 } else { self.replicas };
        (self.start..).filter(|ordinal| !self.reserved.contains(ordinal)).take(replicas as usize).collect()
    }

    /// The ordinals that are to have a pod now.
    pub(super) fn running(&self) -> Vec<u32> {
        self.wanted().into_iter().filter(|ordinal| !self.stopped.contains(ordinal)).collect()
    }

    fn revision(&self, template: u8) -> Revision {
        match template {
            t if t == self.update => Revision::UPDATE,
            t if t == self.current => Revision::CURRENT,
            _ => Revision::OTHER,
        }
    }

    /// Does what the plan says, and takes note of a finished roll-out as the status does.
    pub(super) fn obey(&mut self, plan: &Plan) {
        let snapshot = self.snapshot();
        for action in &plan.actions {
            match *action {
                Action::CreatePod { ordinal, revision } => {
                    let template = if revision == Revision::UPDATE { self.update } else { self.current };
                    let pod = Miniature::new((Health::Pending, Record::NeverReady), template);
                    assert!(self.pods.insert(ordinal, pod).is_none(), "two pods, one identity");
                    self.claims.remove(&ordinal);
                }
                Action::DeletePod { ordinal, .. } => {
                    self.pods.get_mut(&ordinal).expect("only what exists is deleted").terminating = true;
                }
                Action::AskHandOver { ordinal } => {
                    assert!(self.asked.insert(ordinal, HandOver::Asked(END)).is_none(), "asked twice");
                }
                Action::WithdrawHandOver { ordinal } => {
                    self.asked.remove(&ordinal).expect("only what was asked is taken back");
                }
                Action::EvictPod { ordinal } => {
                    self.pods.get_mut(&ordinal).expect("only what exists is evicted").terminating = true;
                    self.evicted += 1;
                }
                Action::CreateClaims { ordinal } | Action::RepairPod { ordinal } | Action::RepairClaims { ordinal } => {
                    self.claims.remove(&ordinal);
                }
                Action::GrowClaims { ordinal } => self.claims.entry(ordinal).or_default().small = false,
                Action::LabelClaims { ordinal } => self.claims.entry(ordinal).or_default().unlabelled = false,
                Action::RollBack => {
                    self.update = self.current;
                    self.give_up = GiveUp::Never;
                }
                Action::RefuseClaims { .. } => {}
                Action::HoldDeletion => self.held = true,
                Action::ReleaseDeletion => self.held = false,
            }
        }
        let counts = count(&snapshot, &plan.actions);
        let wanted = self.running().len();
        let all = [counts.replicas, counts.ready, counts.updated].into_iter().all(|n| n as usize == wanted);
        if all && self.strategy.is_automatic() {
            self.current = self.update;
        }
    }

    /// The nodes do their part: pods become available unless their template is broken, terminating ones go.
    pub(super) fn nodes_behave(&mut self) {
        self.pods.retain(|_, pod| !pod.terminating);
        let pods = &self.pods;
        self.asked.retain(|ordinal, _| pods.contains_key(ordinal));
        self.asked.values_mut().for_each(|asked| *asked = HandOver::Over);
        self.evicted = 0;
        let (broken, misfits_break) = (self.broken, self.misfits_break);
        for pod in self.pods.values_mut().filter(|pod| pod.health != Health::Finished) {
            let misfit = misfits_break && pod.misfit && pod.record == Record::NeverReady;
            let breaks = Some(pod.template) == broken || misfit;
            if !breaks || pod.record == Record::WasReady {
                (pod.health, pod.record) = (Health::Available, Record::WasReady);
            }
        }
        // What the controllers of claims do.
        self.claims.retain(|_, claims| !claims.stale && !claims.deleting);
    }
}

/// `create 0@1`, `delete 2 (scale)` and so on.
pub(super) fn words(action: Action) -> String {
    match action {
        Action::CreatePod { ordinal, revision: Revision::UPDATE } => format!("create {ordinal} new"),
        Action::CreatePod { ordinal, .. } => format!("create {ordinal} old"),
        Action::CreateClaims { ordinal } => format!("claims {ordinal}"),
        Action::RefuseClaims { ordinal } => format!("refuse {ordinal}"),
        Action::RepairPod { ordinal } => format!("repair {ordinal}"),
        Action::RepairClaims { ordinal } => format!("owners {ordinal}"),
        Action::DeletePod { ordinal, why: Why::Finished } => format!("delete {ordinal} (finished)"),
        Action::DeletePod { ordinal, why: Why::ScaleDown } => format!("delete {ordinal} (scale)"),
        Action::AskHandOver { ordinal } => format!("ask {ordinal}"),
        Action::WithdrawHandOver { ordinal } => format!("withdraw {ordinal}"),
        Action::EvictPod { ordinal } => format!("evict {ordinal}"),
        Action::DeletePod { ordinal, why: Why::Stopped } => format!("delete {ordinal} (stopped)"),
        Action::DeletePod { ordinal, why: Why::Outdated } => format!("delete {ordinal} (outdated)"),
        Action::DeletePod { ordinal, why: Why::Recreate } => format!("delete {ordinal} (recreate)"),
        Action::DeletePod { ordinal, why: Why::Broken } => format!("delete {ordinal} (broken)"),
        Action::GrowClaims { ordinal } => format!("grow {ordinal}"),
        Action::LabelClaims { ordinal } => format!("label {ordinal}"),
        Action::RollBack => "roll back".to_owned(),
        Action::DeletePod { ordinal, why: Why::SetDeleted } => format!("delete {ordinal} (set deleted)"),
        Action::HoldDeletion => "hold deletion".to_owned(),
        Action::ReleaseDeletion => "release deletion".to_owned(),
    }
}
