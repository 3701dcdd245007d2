//! When a Job is over, and how.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::make::indexes;
use super::tally::Tally;
use super::{Happening, Observed, Plan, condition, set_condition};

/// How a Job ends. First its pods are ended, then it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    success: bool,
    reason: String,
    message: String,
}

impl Goal {
    fn failure(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { success: false, reason: reason.to_owned(), message: message.into() })
    }

    fn success(reason: &str, message: impl Into<String>) -> Option<Self> {
        Some(Self { success: true, reason: reason.to_owned(), message: message.into() })
    }

    /// The condition that announces the end, and the one that seals it.
    fn conditions(&self) -> (&'static str, &'static str) {
        if self.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") }
    }
}

/// Since when a Job is over, if it is.
pub(super) fn over_since(status: &JobStatus) -> Option<Timestamp> {
    let over = ["Complete", "Failed"].into_iter().filter_map(|kind| condition(status, kind));
    let over = over.into_iter().find(|condition| condition.status == "True")?;
    Some(over.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether the Job is to end, by what was announced already or by what is seen now.
pub(super) fn judge(observed: &Observed<'_>, spec: &JobSpec, status: &JobStatus, tally: &Tally) -> Option<Goal> {
    announced(status)
        .or_else(|| tally.fails_job.clone().and_then(|why| Goal::failure("PodFailurePolicy", why)))
        .or_else(|| exceeded(observed, spec, status, tally))
        .or_else(|| success_policy(spec, tally))
        .or_else(|| completed(spec, tally))
}

fn announced(status: &JobStatus) -> Option<Goal> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [(true, "SuccessCriteriaMet"), (false, "FailureTarget")].into_iter().find_map(|(success, kind)| {
        let condition = condition(status, kind).filter(|condition| condition.status == "True")?;
        Some(Goal { success, reason: text(&condition.reason), message: text(&condition.message) })
    })
}

fn exceeded(observed: &Observed<'_>, spec: &JobSpec, status: &JobStatus, tally: &Tally) -> Option<Goal> {
    let limit = spec.backoff_limit.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(if spec.backoff_limit_per_index.is_some() { usize::MAX } else { 6 });
    if tally.failed > limit || restarts_exceed(spec, tally, limit) {
        return Goal::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(spec, status).is_some_and(|at| at <= observed.now) {
        return Goal::failure("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    let failed = tally.indexes.as_ref().map_or(0, |indexes| indexes.failed.0.len());
    let most = spec.max_failed_indexes.and_then(|most| usize::try_from(most).ok());
    if most.is_some_and(|most| failed > most) {
        let text = "Job has exceeded the specified maximal number of failed indexes";
        return Goal::failure("MaxFailedIndexesExceeded", text);
    }
    None
}

/// With `restartPolicy: OnFailure` the restarts within pods count.
fn restarts_exceed(spec: &JobSpec, tally: &Tally, limit: usize) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let statuses = tally.active.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let restarts: usize = statuses.map(|status| usize::try_from(status.restart_count).unwrap_or(0)).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// When `activeDeadlineSeconds` will be over.
pub(super) fn deadline(spec: &JobSpec, status: &JobStatus) -> Option<Timestamp> {
    if spec.suspend == Some(true) || over_since(status).is_some() {
        return None;
    }
    let start = status.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(spec.active_deadline_seconds?)).ok()
}

/// `spec.successPolicy`: the first rule that is met.
fn success_policy(spec: &JobSpec, tally: &Tally) -> Option<Goal> {
    let done = &tally.indexes.as_ref()?.done.0;
    let completions = tally.indexes.as_ref()?.completions;
    let met = spec.success_policy.as_ref()?.rules.iter().position(|rule| {
        let named = rule.succeeded_indexes.as_ref().map(|_| indexes(rule.succeeded_indexes.as_ref(), completions).0);
        let hits = named.as_ref().map_or(done.len(), |named| named.intersection(done).count());
        let wanted = rule.succeeded_count.and_then(|count| usize::try_from(count).ok());
        match (wanted, &named) {
            (Some(wanted), _) => hits >= wanted,
            (None, Some(named)) => hits == named.len(),
            (None, None) => false,
        }
    })?;
    Goal::success("SuccessPolicy", format!("Matched rules at index {met}"))
}

fn completed(spec: &JobSpec, tally: &Tally) -> Option<Goal> {
    let reached = || Goal::success("CompletionsReached", "Reached expected number of succeeded pods");
    let Some(completions) = spec.completions.and_then(|completions| usize::try_from(completions).ok()) else {
        // A work queue is done when one pod succeeded and the others ended.
        return if tally.succeeded() > 0 && tally.active.is_empty() { reached() } else { None };
    };
    let failed = tally.indexes.as_ref().map_or(0, |indexes| indexes.failed.0.len());
    if failed > 0 && tally.succeeded() + failed >= completions {
        return Goal::failure("FailedIndexes", "Job has failed indexes");
    }
    if tally.succeeded() >= completions { reached() } else { None }
}

/// Announces the end.
pub(super) fn note(status: &mut JobStatus, goal: &Goal, now: Timestamp) {
    set_condition(status, goal.conditions().0, "True", &goal.reason, &goal.message, now);
}

/// Seals the end, once nothing runs and everything is counted.
pub(super) fn conclude(status: &mut JobStatus, goal: &Goal, now: Timestamp, plan: &mut Plan) {
    set_condition(status, goal.conditions().1, "True", &goal.reason, &goal.message, now);
    let happening = if goal.success {
        status.completion_time = Some(Time(now));
        Happening { warning: false, reason: "Completed".to_owned(), message: "Job completed".to_owned() }
    } else {
        Happening { warning: true, reason: goal.reason.clone(), message: goal.message.clone() }
    };
    plan.happenings.push(happening);
}
