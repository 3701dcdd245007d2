//! The conditions of a Deployment: whether it makes progress, has stopped to, or is paused.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{View, Work, status};

const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";
const AVAILABLE_REASON: &str = "NewReplicaSetAvailable";
const TIMED_OUT_REASON: &str = "ProgressDeadlineExceeded";
const PAUSED_REASON: &str = "DeploymentPaused";
/// `progressDeadlineSeconds` of this value means none.
const NO_DEADLINE: i32 = i32::MAX;

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_.as_deref() == Some(kind))
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(kind));
    }
}

/// Sets a condition unless it has that status and reason already; the time of transition is that of the status.
pub(super) fn set(
    status: &mut DeploymentStatus,
    kind: &str,
    state: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let old = find(status, kind);
    if old.is_some_and(|old| old.status.as_deref() == Some(state) && old.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = old.filter(|old| old.status.as_deref() == Some(state)).and_then(|old| old.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(state.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    remove(status, kind);
    status.conditions.get_or_insert_default().push(condition);
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|seconds| *seconds != NO_DEADLINE)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Notes pausing and resuming, so that the deadline does not run meanwhile.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.clone());
    if deadline(deployment).is_none() || reason.as_deref() == Some(TIMED_OUT_REASON) {
        return;
    }
    let noted = reason.as_deref() == Some(PAUSED_REASON);
    match (deployment.spec.paused == Some(true), noted) {
        (true, false) => {
            set(status, PROGRESSING, "Unknown", PAUSED_REASON, "Deployment is paused".to_owned(), now);
        }
        (false, true) => {
            set(status, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now);
        }
        (true, true) | (false, false) => {}
    }
}

/// Notes that the ReplicaSet of the present template was found, or is made now.
pub(super) fn note_new(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    name: &str,
    existed: bool,
    now: Timestamp,
) {
    if deadline(deployment).is_none() {
        return;
    }
    if !existed {
        let text = format!("Created new replica set {name:?}");
        set(status, PROGRESSING, "True", "NewReplicaSetCreated", text, now);
    } else if find(status, PROGRESSING).is_none() {
        set(status, PROGRESSING, "True", "FoundNewReplicaSet", format!("Found new replica set {name:?}"), now);
    }
}

/// Judges progress by comparing the new numbers with those that were published; when to look again for the deadline.
pub(super) fn note(work: &Work<'_>, status: &mut DeploymentStatus) -> Option<Timestamp> {
    let (deployment, now) = (work.deployment(), work.observed.now);
    note_failure(work, status);
    let Some(deadline) = deadline(deployment) else {
        remove(status, PROGRESSING);
        return None;
    };
    let before = deployment.status.clone().unwrap_or_default();
    let known = find(&before, PROGRESSING).is_some_and(|c| c.reason.as_deref() == Some(AVAILABLE_REASON));
    let was_complete = known && status.replicas == status.updated_replicas;
    if !was_complete {
        let what = match &work.new {
            Some(new) => format!("ReplicaSet {:?}", new.name()),
            None => format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        if status::is_complete_status(deployment, status) {
            set(status, PROGRESSING, "True", AVAILABLE_REASON, format!("{what} has successfully progressed."), now);
        } else if has_progressed(&before, status) {
            renew(status, format!("{what} is progressing."), now);
        } else if has_timed_out(status, deadline, now) {
            let text = format!("{what} has timed out progressing.");
            set(status, PROGRESSING, "False", TIMED_OUT_REASON, text, now);
        }
    }
    wake_at(deployment, status, deadline)
}

/// A new `lastUpdateTime` even when nothing else of the condition changes: the deadline starts again.
fn renew(status: &mut DeploymentStatus, message: String, now: Timestamp) {
    let old = find(status, PROGRESSING).filter(|old| old.status.as_deref() == Some("True"));
    let since = old.and_then(|old| old.last_transition_time.clone());
    remove(status, PROGRESSING);
    set(status, PROGRESSING, "True", "ReplicaSetUpdated", message, now);
    let renewed = status.conditions.as_mut().and_then(|conditions| conditions.last_mut());
    if let (Some(renewed), Some(since)) = (renewed, since) {
        renewed.last_transition_time = Some(since);
    }
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |number: Option<i32>| number.unwrap_or(0);
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

fn has_timed_out(status: &DeploymentStatus, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(condition) = find(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(AVAILABLE_REASON) => false,
        Some(TIMED_OUT_REASON) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|since| now.duration_since(since.0) > deadline),
    }
}

fn wake_at(deployment: &Deployment, status: &DeploymentStatus, deadline: SignedDuration) -> Option<Timestamp> {
    let condition = find(status, PROGRESSING)?;
    if status::is_complete_status(deployment, status) || condition.reason.as_deref() == Some(TIMED_OUT_REASON) {
        return None;
    }
    // One second more, so that it has certainly passed.
    let since = condition.last_update_time.as_ref()?.0;
    since.checked_add(deadline).ok()?.checked_add(SignedDuration::from_secs(1)).ok()
}

/// Shows a failure of a ReplicaSet to create or delete pods, the new one's first.
fn note_failure(work: &Work<'_>, status: &mut DeploymentStatus) {
    let of = |view: &View| {
        let conditions = view.set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_.as_deref() == Some(FAILURE)).cloned()
    };
    match work.new.iter().chain(&work.old).find_map(of) {
        Some(failure) => {
            let text = failure.message.unwrap_or_default();
            let state = failure.status.unwrap_or_default();
            set(status, FAILURE, &state, &failure.reason.unwrap_or_default(), text, work.observed.now);
        }
        None => remove(status, FAILURE),
    }
}
