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
