//! What the node remembers of a pod between two looks: work under way, failures with their back-off, probe results.
//!
//! Losing it (a restart of the process) is harmless: everything here only saves time or repeats a wait.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::backoff::{self, Backoff, Policy};
use crate::plan::{Action, End, PodPlan, Verdict};
use crate::probe::Probes;

/// Something that was begun and has not reported back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    Mount,
    Sandbox,
    Start {
        name: String,
    },
    /// Ends at `until` at the latest, by SIGKILL.
    Stop {
        id: String,
        until: Timestamp,
    },
    StopSandboxes,
    Teardown,
    Delete,
    Remove {
        id: String,
    },
    HandOver {
        request: String,
    },
    Answer,
}

/// Why a container could not be made or started, as its `waiting` state says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
    pub backoff: Backoff,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub mounted: bool,
    pub torn_down: bool,
    pub working: Vec<Work>,
    pub mount_backoff: Option<Backoff>,
    pub sandbox_backoff: Option<Backoff>,
    /// Taking the pod down failed half-way.
    pub down_backoff: Option<Backoff>,
    /// The API has accepted the deletion; what is left is up to finalizers.
    pub delete_sent: bool,
    pub start_failures: BTreeMap<String, StartFailure>,
    pub restarts: BTreeMap<String, Backoff>,
    /// The pod was judged from outside: deadline exceeded, evicted, refused by the node.
    pub verdict: Option<Verdict>,
    /// Set with the first plan that ends the pod, so that graces count from there.
    pub ending: Option<End>,
    /// Cancelling of pulls and hooks was asked for.
    pub cancelled: bool,
    pub probes: Probes,
    /// The request to hand over that was done last, and the exit code.
    pub handed_over: Option<(String, i32)>,
    /// The answer to it could not be written.
    pub answer_backoff: Option<Backoff>,
}

impl Memory {
    /// Remembers that an action was begun. Called before it runs.
    pub fn begin(&mut self, action: &Action, now: Timestamp) {
        let work = match action {
            Action::MountVolumes => Work::Mount,
            Action::RunSandbox { .. } => Work::Sandbox,
            Action::StartContainer { name, restart_of, .. } => {
                if let Some(finished) = restart_of {
                    let next = Backoff::next(self.restarts.get(name).copied(), backoff::RESTART, *finished, now);
                    self.restarts.insert(name.clone(), next);
                }
                Work::Start { name: name.clone() }
            }
            Action::StopContainer { id, grace, .. } => {
                self.end(&Work::Stop { id: id.clone(), until: now });
                Work::Stop { id: id.clone(), until: backoff::later(now, *grace) }
            }
            Action::RemoveContainer { id } | Action::RemoveSandbox { id } => Work::Remove { id: id.clone() },
            Action::HandOver { request, .. } => Work::HandOver { request: request.clone() },
            Action::AnswerHandOver { .. } => Work::Answer,
            Action::StopSandboxes => Work::StopSandboxes,
            Action::Teardown => Work::Teardown,
            Action::DeleteObject | Action::Forget => Work::Delete,
            Action::Cancel => {
                self.cancelled = true;
                return;
            }
        };
        self.working.push(work);
    }

    /// Forgets work that has reported back. A `Stop` is known by its container.
    pub fn end(&mut self, done: &Work) {
        self.working.retain(|work| match (work, done) {
            (Work::Stop { id, .. }, Work::Stop { id: other, .. }) => id != other,
            _ => work != done,
        });
    }

    /// Keeps what a plan decided once and for all.
    pub fn keep(&mut self, plan: &PodPlan) {
        if self.verdict.is_none() {
            self.verdict.clone_from(&plan.verdict);
        }
        self.ending.clone_from(&plan.end);
    }

    /// A container could not be made or started. Reasons that only a new image state mends back off from 10 s to 300 s.
    pub fn start_failed(&mut self, name: &str, reason: &str, message: &str, now: Timestamp) {
        let policy = start_policy(reason);
        let before = self.start_failures.get(name).filter(|failure| start_policy(&failure.reason) == policy);
        let backoff = Backoff::next(before.map(|failure| failure.backoff), policy, now, now);
        let failure = StartFailure { reason: reason.to_owned(), message: message.to_owned(), at: now, backoff };
        self.start_failures.insert(name.to_owned(), failure);
    }

    pub fn start_succeeded(&mut self, name: &str) {
        self.start_failures.remove(name);
    }

    pub fn mount_done(&mut self, ok: bool, now: Timestamp) {
        self.mounted = ok;
        self.mount_backoff = (!ok).then(|| Backoff::next(self.mount_backoff, backoff::MOUNT, now, now));
    }

    pub fn sandbox_done(&mut self, ok: bool, now: Timestamp) {
        self.sandbox_backoff = (!ok).then(|| Backoff::next(self.sandbox_backoff, backoff::SANDBOX, now, now));
    }

    /// Stopping of a container or of sandboxes, teardown or deletion reported back.
    pub fn down_done(&mut self, ok: bool, now: Timestamp) {
        self.down_backoff = (!ok).then(|| Backoff::next(self.down_backoff, backoff::SANDBOX, now, now));
    }

    /// The command of a request to hand over has ended.
    pub fn handed_over(&mut self, request: &str, code: i32) {
        (self.handed_over, self.answer_backoff) = (Some((request.to_owned(), code)), None);
    }

    /// The answer to such a request was written, or not.
    pub fn answered(&mut self, now: Timestamp) {
        // Whether it was written shows on the pod: until then it is tried again, later and later.
        self.answer_backoff = Some(Backoff::next(self.answer_backoff, backoff::SANDBOX, now, now));
    }

    /// Something that this pod refers to has changed: what failed for want of it is tried again at once.
    pub fn reference_changed(&mut self) {
        self.mount_backoff = None;
        self.start_failures.retain(|_, failure| start_policy(&failure.reason) != backoff::CREATE);
    }

    #[must_use]
    pub fn is_working(&self, kind: impl Fn(&Work) -> bool) -> bool {
        self.working.iter().any(kind)
    }
}

fn start_policy(reason: &str) -> Policy {
    match reason {
        "ErrImagePull" => backoff::RESTART,
        _ => backoff::CREATE,
    }
}
