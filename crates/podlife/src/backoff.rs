//! Exponential back-off as upstream keeps it for crashed containers, image pulls, mounts and sandboxes
//! (client-go `util/flowcontrol/backoff.go`).

use jiff::{SignedDuration, Timestamp};

/// First wait and longest wait of one kind of back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub initial: SignedDuration,
    pub longest: SignedDuration,
}

/// Restarts of a container that exited, and pulls of an image that failed.
pub const RESTART: Policy = Policy { initial: SignedDuration::from_secs(10), longest: SignedDuration::from_secs(300) };
/// Set-up of volumes that failed (upstream's nested pending operations).
pub const MOUNT: Policy = Policy { initial: SignedDuration::from_millis(500), longest: SignedDuration::from_secs(122) };
/// Sandboxes that could not be made.
pub const SANDBOX: Policy = Policy { initial: SignedDuration::from_secs(1), longest: SignedDuration::from_secs(60) };
/// Containers that could not be made for a reason that only a change elsewhere mends; such a change is looked at
/// at once, so this is only the safety net.
pub const CREATE: Policy = Policy { initial: SignedDuration::from_secs(10), longest: SignedDuration::from_secs(60) };

/// The wait after the last try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub delay: SignedDuration,
    /// When the delay was set.
    pub since: Timestamp,
}

impl Backoff {
    /// The back-off after one more failure at `event`, seen at `now`. Twice the longest wait without failure starts afresh.
    #[must_use]
    pub fn next(entry: Option<Backoff>, policy: Policy, event: Timestamp, now: Timestamp) -> Backoff {
        let delay = match entry.filter(|entry| !entry.expired(policy, event)) {
            None => policy.initial,
            Some(entry) => (entry.delay * 2).min(policy.longest),
        };
        Backoff { delay, since: now }
    }

    /// Whether the last failure is so long before `event` that it no longer counts.
    #[must_use]
    pub fn expired(&self, policy: Policy, event: Timestamp) -> bool {
        event.duration_since(self.since) > policy.longest * 2
    }

    /// When the next try is allowed, counted from the moment the delay was set.
    #[must_use]
    pub fn due(&self) -> Timestamp {
        later(self.since, self.delay)
    }
}

/// `time + by`, held at the end of time.
#[must_use]
pub fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}
