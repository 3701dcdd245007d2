//! Counts results exactly once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;

use super::make::{failures_before, index_of, indexes, is_tracked};
use super::policy::{Verdict, judge};
use super::{Indexes, Observed, Plan};
use crate::pod::{is_finished, is_ready, phase};

/// Most pods that wait in the status to be counted; the others have their turn afterwards.
const UNCOUNTED_MAX: usize = 500;

/// Where a Job stands.
#[derive(Debug)]
pub(super) struct Tally {
    /// Neither finished nor on their way out.
    pub(super) active: Vec<Arc<Pod>>,
    /// Of `active`: of an index that is taken, done or not known.
    pub(super) redundant: Vec<Arc<Pod>>,
    pub(super) ready: usize,
    pub(super) terminating: usize,
    /// Terminating pods that are replaced only once they are gone.
    pub(super) not_replaced: usize,
    /// Finished pods that the status will account for.
    pub(super) count: Vec<Arc<Pod>>,
    /// Succeeded pods of a Job without indexes, counted or not.
    plain_succeeded: usize,
    pub(super) failed: usize,
    pub(super) indexes: Option<IndexTally>,
    /// Why a pod's failure fails the whole Job.
    pub(super) fails_job: Option<String>,
    uncounted: UncountedTerminatedPods,
}

/// Where an indexed Job stands.
#[derive(Debug, Default)]
pub(super) struct IndexTally {
    pub(super) completions: u32,
    pub(super) done: Indexes,
    pub(super) failed: Indexes,
    taken: BTreeSet<u32>,
    /// How often each index failed.
    failures: BTreeMap<u32, u32>,
}

impl IndexTally {
    /// The lowest indexes without pod and result, with their earlier failures.
    pub(super) fn next(&self, count: usize) -> Vec<(u32, u32)> {
        let busy =
            |index: &u32| self.taken.contains(index) || self.done.0.contains(index) || self.failed.0.contains(index);
        let open = (0..self.completions).filter(|index| !busy(index)).take(count);
        open.map(|index| (index, self.failures.get(&index).copied().unwrap_or(0))).collect()
    }
}

impl Tally {
    /// Looks at every pod, and moves what has lost its finalizer from the waiting list of `status` to its counters.
    pub(super) fn take(observed: &Observed<'_>, spec: &JobSpec, status: &mut JobStatus) -> Self {
        let mut tally = Self::begin(spec, status);
        tally.settle(observed, status);
        let waiting = |list: &Option<Vec<String>>| list.iter().flatten().cloned().collect::<HashSet<_>>();
        let known: HashSet<String> =
            waiting(&tally.uncounted.succeeded).union(&waiting(&tally.uncounted.failed)).cloned().collect();
        for pod in observed.pods {
            let replaced_early = spec.pod_replacement_policy.as_deref() != Some("Failed");
            let leaving = pod.metadata.deletion_timestamp.is_some();
            if is_finished(pod) || (leaving && replaced_early) {
                tally.finished(spec, pod, &known);
            }
            if !is_finished(pod) && leaving {
                tally.terminating += 1;
                tally.not_replaced += usize::from(!replaced_early);
            }
            if !is_finished(pod) && !leaving {
                tally.running(pod);
            }
        }
        tally.plain_succeeded = count(status.succeeded) + length(&tally.uncounted.succeeded);
        tally.failed = count(status.failed) + length(&tally.uncounted.failed);
        tally
    }

    fn begin(spec: &JobSpec, status: &JobStatus) -> Self {
        let indexed = spec.completion_mode.as_deref() == Some("Indexed");
        let completions = spec.completions.and_then(|completions| u32::try_from(completions).ok()).unwrap_or(0);
        Self {
            active: Vec::new(),
            redundant: Vec::new(),
            ready: 0,
            terminating: 0,
            not_replaced: 0,
            count: Vec::new(),
            plain_succeeded: 0,
            failed: 0,
            indexes: indexed.then(|| IndexTally {
                completions,
                done: indexes(status.completed_indexes.as_ref(), completions),
                failed: indexes(status.failed_indexes.as_ref(), completions),
                ..IndexTally::default()
            }),
            fails_job: None,
            uncounted: status.uncounted_terminated_pods.clone().unwrap_or_default(),
        }
    }

    /// Pods on the waiting list that have no finalizer any more are counted now.
    fn settle(&mut self, observed: &Observed<'_>, status: &mut JobStatus) {
        let held: HashSet<&str> =
            observed.pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let move_over = |waiting: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
            let Some(list) = waiting else { return };
            let before = list.len();
            list.retain(|uid| held.contains(uid.as_str()));
            let moved = i32::try_from(before - list.len()).unwrap_or(i32::MAX);
            if moved > 0 {
                *counter = Some(counter.unwrap_or(0).saturating_add(moved));
            }
            if list.is_empty() {
                *waiting = None;
            }
        };
        move_over(&mut self.uncounted.succeeded, &mut status.succeeded);
        move_over(&mut self.uncounted.failed, &mut status.failed);
    }

    fn finished(&mut self, spec: &JobSpec, pod: &Arc<Pod>, known: &HashSet<String>) {
        let index = self.indexes.as_ref().and_then(|tally| index_of(pod, tally.completions));
        let succeeded = phase(pod) == "Succeeded";
        if !succeeded && let (Some(tally), Some(index)) = (&mut self.indexes, index) {
            let failures = tally.failures.entry(index).or_insert(0);
            *failures = (*failures).max(failures_before(pod) + 1);
        }
        if !is_tracked(pod) {
            return;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let waiting = length(&self.uncounted.succeeded) + length(&self.uncounted.failed);
        if known.contains(&uid) {
            self.count.push(pod.clone());
        } else if waiting < UNCOUNTED_MAX {
            self.count.push(pod.clone());
            self.enter(spec, pod, index, uid, succeeded);
        }
    }

    /// Enters a result that the status does not have yet.
    fn enter(&mut self, spec: &JobSpec, pod: &Pod, index: Option<u32>, uid: String, succeeded: bool) {
        if succeeded {
            match &mut self.indexes {
                Some(tally) => tally.done.0.extend(index),
                None => self.uncounted.succeeded.get_or_insert_default().push(uid),
            }
            return;
        }
        let verdict = judge(spec, pod);
        if verdict == Verdict::Ignore {
            return;
        }
        self.uncounted.failed.get_or_insert_default().push(uid);
        let limit = spec.backoff_limit_per_index.and_then(|limit| u32::try_from(limit).ok());
        let exceeded = limit.is_some_and(|limit| failures_before(pod) + 1 > limit);
        if let (Some(tally), Some(index)) = (&mut self.indexes, index)
            && (exceeded || verdict == Verdict::FailIndex)
            && !tally.done.0.contains(&index)
        {
            tally.failed.0.insert(index);
        }
        if let Verdict::FailJob(why) = verdict {
            self.fails_job.get_or_insert(why);
        }
    }

    fn running(&mut self, pod: &Arc<Pod>) {
        self.active.push(pod.clone());
        self.ready += usize::from(is_ready(pod));
        if let Some(tally) = &mut self.indexes {
            let index = index_of(pod, tally.completions);
            let free = index.is_some_and(|index| !tally.done.0.contains(&index) && tally.taken.insert(index));
            if !free {
                self.redundant.push(pod.clone());
            }
        }
    }

    pub(super) fn succeeded(&self) -> usize {
        self.indexes.as_ref().map_or(self.plain_succeeded, |tally| tally.done.0.len())
    }

    /// No pod runs and no result waits to be counted.
    pub(super) fn is_quiet(&self) -> bool {
        let waiting = length(&self.uncounted.succeeded) + length(&self.uncounted.failed);
        self.active.is_empty() && self.terminating == 0 && waiting == 0 && self.count.is_empty()
    }

    /// Writes the numbers into the status, as they are once the plan is done.
    pub(super) fn publish(&self, status: &mut JobStatus, plan: &Plan) {
        let number = |number: usize| i32::try_from(number).ok().filter(|number| *number != 0);
        status.active = number((self.active.len() + plan.create.len()).saturating_sub(plan.delete.len()));
        status.ready = Some(i32::try_from(self.ready).unwrap_or(i32::MAX));
        status.terminating = Some(i32::try_from(self.terminating).unwrap_or(i32::MAX));
        status.uncounted_terminated_pods = Some(self.uncounted.clone());
        if let Some(tally) = &self.indexes {
            status.completed_indexes = Some(tally.done.to_string()).filter(|text| !text.is_empty());
            status.succeeded = number(tally.done.0.len());
            let per_index = !tally.failed.0.is_empty() || status.failed_indexes.is_some();
            status.failed_indexes = per_index.then(|| tally.failed.to_string());
        }
    }
}

fn count(number: Option<i32>) -> usize {
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn length(list: &Option<Vec<String>>) -> usize {
    list.as_ref().map_or(0, Vec::len)
}
