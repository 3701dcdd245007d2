//! A set, its pods and their nodes in miniature, for the tests of the plan.

use std::collections::BTreeMap;

use super::{Action, Claims, Deletion, Plan, Pod, Policy, Revision, Slot, Snapshot, Strategy, Why, count};
use crate::pod::Health;

/// A pod: health, whether it is terminating, and the number of its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Miniature {
    pub(super) health: Health,
    pub(super) terminating: bool,
    pub(super) template: u8,
}

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
            deletion: Deletion::No,
            ordered_delete: false,
            held: false,
            pods: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let replicas = if self.deletion == Deletion::InOrder { 0 } else { self.replicas };
        let wanted = self.start..self.start + replicas;
        let slot = |ordinal: u32| Slot {
            ordinal,
            pod: self.pods.get(&ordinal).map(|pod| Pod {
                health: pod.health,
                terminating: pod.terminating,
                revision: self.revision(pod.template),
                damaged: false,
                available_at: None,
            }),
            claims: self.claims.get(&ordinal).copied().unwrap_or_default(),
        };
        Snapshot {
            policy: self.policy,
            strategy: self.strategy,
            deletion: self.deletion,
            ordered_delete: self.ordered_delete,
            held: self.held,
            paused: self.paused,
            current: self.revision(self.current),
            replicas: wanted.clone().map(slot).collect(),
            condemned: self.pods.keys().rev().filter(|o| !wanted.contains(o)).map(|o| slot(*o)).collect(),
        }
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
                    let pod = Miniature { health: Health::Pending, terminating: false, template };
                    assert!(self.pods.insert(ordinal, pod).is_none(), "two pods, one identity");
                    self.claims.remove(&ordinal);
                }
                Action::DeletePod { ordinal, .. } => {
                    self.pods.get_mut(&ordinal).expect("only what exists is deleted").terminating = true;
                }
                Action::CreateClaims { ordinal } | Action::RepairPod { ordinal } | Action::RepairClaims { ordinal } => {
                    self.claims.remove(&ordinal);
                }
                Action::RefuseClaims { .. } => {}
                Action::HoldDeletion => self.held = true,
                Action::ReleaseDeletion => self.held = false,
            }
        }
        let counts = count(&snapshot, &plan.actions);
        let all = [counts.replicas, counts.ready, counts.updated].into_iter().all(|n| n == self.replicas);
        if all && matches!(self.strategy, Strategy::RollingUpdate { .. }) {
            self.current = self.update;
        }
    }

    /// The nodes do their part: pods become available, terminating ones go.
    pub(super) fn nodes_behave(&mut self) {
        self.pods.retain(|_, pod| !pod.terminating);
        for pod in self.pods.values_mut().filter(|pod| pod.health != Health::Finished) {
            pod.health = Health::Available;
        }
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
        Action::DeletePod { ordinal, why: Why::Outdated } => format!("delete {ordinal} (outdated)"),
        Action::DeletePod { ordinal, why: Why::SetDeleted } => format!("delete {ordinal} (set deleted)"),
        Action::HoldDeletion => "hold deletion".to_owned(),
        Action::ReleaseDeletion => "release deletion".to_owned(),
    }
}
