//! What controllers ask of a pod.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// How far a pod has come, as far as controllers care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Phase Pending: not all of its containers have started once.
    Pending,
    /// Running but not Ready (or of unknown phase).
    Starting,
    /// Running and Ready, but not for `minReadySeconds` yet.
    Ready,
    /// Running and Ready for `minReadySeconds`.
    Available,
    /// Phase Failed or Succeeded: this pod will never run again.
    Finished,
}

impl Health {
    #[must_use]
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready | Self::Available)
    }
}

/// What a pod has shown of itself so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// It is Ready, or was at some time.
    WasReady,
    /// It was Ready at some time, and now crashes again and again.
    CrashLoops,
    /// It has never been Ready.
    NeverReady,
}

/// The record of `pod`, from its conditions: the node writes `Ready` down as false when it takes the pod on, so that
/// only a later transition to false means that it had been true.
#[must_use]
pub fn record(pod: &Pod) -> Record {
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let since = |condition: &PodCondition| condition.last_transition_time.clone();
    let was_ready = condition(pod, "Ready").is_some_and(|ready| {
        ready.status == "True" || since(ready).zip(started).is_some_and(|(since, start)| since.0 > start.0)
    });
    if !was_ready {
        Record::NeverReady
    } else if crash_loops(pod) {
        Record::CrashLoops
    } else {
        Record::WasReady
    }
}

/// Whether a container is being held back because it crashed too often.
#[must_use]
pub fn crash_loops(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    waiting.into_iter().any(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

/// The health of `pod` at `now`.
#[must_use]
pub fn health(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Health {
    match phase(pod) {
        "Failed" | "Succeeded" => Health::Finished,
        "Pending" | "" => Health::Pending,
        "Running" if is_ready(pod) => match available_at(pod, min_ready_seconds) {
            Some(at) if at > now => Health::Ready,
            _ => Health::Available,
        },
        _ => Health::Starting,
    }
}

/// Whether a pod counts for its controller: neither finished nor on its way out.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Phase Failed or Succeeded.
#[must_use]
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The condition of that type.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition `Ready` is true, whatever the phase.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Since when a ready pod counts (or will count) as available; `None` when it is at once.
#[must_use]
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    if min_ready_seconds <= 0 {
        return None;
    }
    let since = condition(pod, "Ready")?.last_transition_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_record_tells_a_pod_that_stopped_being_ready_from_one_that_never_was() {
        let (start, later) = ("2026-11-20T14:00:00Z", "2026-11-20T14:00:09Z");
        for (ready, since, reason, expected) in [
            (None, start, "ContainerCreating", Record::NeverReady),
            (Some("False"), start, "ImagePullBackOff", Record::NeverReady),
            (Some("False"), start, "CrashLoopBackOff", Record::NeverReady),
            (Some("True"), start, "", Record::WasReady),
            (Some("False"), later, "", Record::WasReady),
            (Some("False"), later, "CrashLoopBackOff", Record::CrashLoops),
        ] {
            let conditions =
                ready.map(|status| json!([{"type": "Ready", "status": status, "lastTransitionTime": since}]));
            let pod: Pod = serde_json::from_value(json!({"status": {
                "phase": "Running", "startTime": start, "conditions": conditions,
                "containerStatuses": [{
                    "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": reason}},
                }],
            }}))
            .expect("a pod");
            assert_eq!(record(&pod), expected, "{ready:?} since {since}, {reason}");
        }
    }
}
