//! What a Job should do next: pods to run, results to count exactly once, and when it is over.
//!
//! Behaviour is that of upstream's `pkg/controller/job` at Kubernetes 1.37: completions and parallelism, indexed Jobs,
//! back-off, deadlines, suspension, failure and success policies, and clean-up after `ttlSecondsAfterFinished`.
//!
//! Results are counted by the finalizer on each pod: a finished pod is first noted in the status, then loses its
//! finalizer, then moves into the counters. So no pod is counted twice or forgotten, whoever deletes it.
//!
//! Invariants:
//! - a finalizer is removed only from pods that the *published* status accounts for, or that do not count;
//! - a Job that is finished makes no more pods, and its finished state never changes.

mod finish;
mod indexes;
mod make;
mod policy;
mod tally;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pod::phase;
pub use indexes::Indexes;
pub use make::{COMPLETION_INDEX, TRACKING_FINALIZER, is_tracked, job_ref, new_pod};
use tally::Tally;

/// Most pods that one plan creates or deletes.
pub const BURST_MAX: usize = 500;
/// Pause before a pod that failed is replaced: doubles with every failure in a row up to the second.
const BACK_OFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACK_OFF_MAX: SignedDuration = SignedDuration::from_mins(10);
/// Who looks after a Job when `spec.managedBy` says so.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub job: &'a Job,
    /// The pods that it controls.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

/// What happened to a Job, for its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Pods to make: for each its completion index, if the Job is indexed, and how often that index failed before.
    pub create: Vec<Option<(u32, u32)>>,
    /// Pods to delete, their finalizer first: they do not count.
    pub delete: Vec<Arc<Pod>>,
    /// To be published before any finalizer of `count` is removed.
    pub status: JobStatus,
    /// Pods that the status accounts for: remove their finalizers.
    pub count: Vec<Arc<Pod>>,
    pub happenings: Vec<Happening>,
    /// Its time after finishing is over: delete the Job.
    pub expired: bool,
    pub wake_at: Option<Timestamp>,
}

/// Decides.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut status = observed.job.status.clone().unwrap_or_default();
    let Some(spec) = observed.job.spec.as_ref() else { return Plan { status, ..Plan::default() } };
    let foreign = spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER);
    if foreign || observed.job.metadata.deletion_timestamp.is_some() {
        return Plan { count: released(observed), status, ..Plan::default() };
    }
    if let Some(over) = finish::over_since(&status) {
        return after(observed, spec, status, over);
    }
    let mut plan = Plan::default();
    note_suspension(observed, spec, &mut status, &mut plan);
    let tally = Tally::take(observed, spec, &mut status);
    let goal = finish::judge(observed, spec, &status, &tally);
    let suspended = spec.suspend == Some(true);
    if let Some(goal) = &goal {
        finish::note(&mut status, goal, observed.now);
    }
    if goal.is_some() || suspended {
        plan.delete = tally.active.iter().take(BURST_MAX).cloned().collect();
    } else {
        manage(observed, spec, &tally, &mut plan);
    }
    tally.publish(&mut status, &plan);
    if let Some(goal) = goal
        && tally.is_quiet()
    {
        finish::conclude(&mut status, &goal, observed.now, &mut plan);
    }
    plan.count = tally.count;
    plan.wake_at = plan.wake_at.into_iter().chain(finish::deadline(spec, &status)).min();
    plan.status = status;
    plan
}

/// A finished Job: nothing but its remaining finalizers, and its own end.
fn after(observed: &Observed<'_>, spec: &JobSpec, status: JobStatus, over: Timestamp) -> Plan {
    let end =
        spec.ttl_seconds_after_finished.and_then(|ttl| over.checked_add(SignedDuration::from_secs(ttl.into())).ok());
    Plan {
        count: released(observed),
        status,
        expired: end.is_some_and(|end| end <= observed.now),
        wake_at: end.filter(|end| *end > observed.now),
        ..Plan::default()
    }
}

fn released(observed: &Observed<'_>) -> Vec<Arc<Pod>> {
    observed.pods.iter().filter(|pod| is_tracked(pod)).cloned().collect()
}

/// The condition `Suspended`, the start time and their events.
fn note_suspension(observed: &Observed<'_>, spec: &JobSpec, status: &mut JobStatus, plan: &mut Plan) {
    let now = observed.now;
    let suspend = spec.suspend == Some(true);
    let noted = condition(status, "Suspended").is_some_and(|condition| condition.status == "True");
    let (state, word) = if suspend { ("True", "Suspended") } else { ("False", "Resumed") };
    if suspend != noted {
        let message = if suspend { "Job suspended" } else { "Job resumed" };
        set_condition(status, "Suspended", state, &format!("Job{word}"), message, now);
        plan.happenings.push(Happening { warning: false, reason: word.to_owned(), message: message.to_owned() });
        // The deadline counts from the last start.
        status.start_time = (!suspend).then_some(Time(now));
    }
    if !suspend && status.start_time.is_none() {
        status.start_time = Some(Time(now));
    }
}

/// Brings the number of active pods to what is wanted.
fn manage(observed: &Observed<'_>, spec: &JobSpec, tally: &Tally, plan: &mut Plan) {
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let active = tally.active.len();
    let wanted = match spec.completions.and_then(|completions| usize::try_from(completions).ok()) {
        // A work queue: once one succeeded the others finish and no new ones start.
        None if tally.succeeded() > 0 => active.min(parallelism),
        None => parallelism,
        Some(completions) => completions.saturating_sub(tally.succeeded()).min(parallelism),
    };
    let mut surplus: Vec<Arc<Pod>> = tally.redundant.clone();
    let keep = active - surplus.len();
    let excess: Vec<&Arc<Pod>> =
        tally.active.iter().filter(|pod| !surplus.iter().any(|s| Arc::ptr_eq(s, pod))).collect();
    surplus.extend(crate::replicaset::choose(&excess, &[], keep.saturating_sub(wanted), observed.now));
    surplus.truncate(BURST_MAX);
    plan.delete = surplus;
    let missing = wanted.saturating_sub(keep + tally.not_replaced).min(BURST_MAX);
    if missing == 0 {
        return;
    }
    let resume = if spec.backoff_limit_per_index.is_none() { back_off(observed) } else { None };
    if let Some(at) = resume.filter(|at| *at > observed.now) {
        plan.wake_at = Some(at);
        return;
    }
    plan.create = match &tally.indexes {
        None => vec![None; missing],
        Some(indexes) => indexes.next(missing).into_iter().map(Some).collect(),
    };
}

/// When the next pod may start, given the failures since the last success.
fn back_off(observed: &Observed<'_>) -> Option<Timestamp> {
    let mut ends: Vec<(Timestamp, bool)> = observed
        .pods
        .iter()
        .filter(|pod| crate::pod::is_finished(pod))
        .filter_map(|pod| Some((make::finished_at(pod)?, phase(pod) == "Failed")))
        .collect();
    ends.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
    let failures = ends.iter().take_while(|(_, failed)| *failed).count();
    let last = ends.first().filter(|_| failures > 0)?.0;
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
    last.checked_add((BACK_OFF_FIRST * 2_i32.pow(doublings)).min(BACK_OFF_MAX)).ok()
}

fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Sets a condition unless it is so already.
fn set_condition(status: &mut JobStatus, kind: &str, state: &str, reason: &str, message: &str, now: Timestamp) {
    if condition(status, kind).is_some_and(|old| old.status == state && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.to_owned(),
        status: state.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

#[cfg(test)]
mod stories;
