//! When to probe which container, and what the answers add up to: upstream's prober workers as one table.
//!
//! Differs from upstream in one thing, so that a pod is Ready in milliseconds: until a startup or readiness probe has
//! succeeded for the first time it is repeated quickly between its regular turns. Such extra tries can only succeed;
//! their failures count for nothing and are not reported.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStatus, Pod, Probe};

use crate::backoff::later;
use crate::spec::{self, Role};
use crate::view::Container;

/// First pause between quick tries; doubles up to the probe's period.
const QUICK_FIRST: SignedDuration = SignedDuration::from_millis(25);
/// The same for commands, which cost a process each.
const QUICK_FIRST_EXEC: SignedDuration = SignedDuration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// The container's probe of this kind.
    #[must_use]
    pub fn of(self, container: &Spec) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// As events name it: `Readiness`.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// As messages name it: `liveness`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "startup",
            ProbeKind::Liveness => "liveness",
            ProbeKind::Readiness => "readiness",
        }
    }
}

/// What one answer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The failure is to be reported as an event.
    pub report: bool,
    /// The verdict on the container has changed.
    pub changed: bool,
}

/// The probes of one pod's running containers.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    entries: BTreeMap<(String, ProbeKind), Entry>,
    /// Running containers: name and id.
    running: BTreeMap<String, String>,
    ending: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    container: String,
    period: SignedDuration,
    success_threshold: u32,
    failure_threshold: u32,
    quick_first: SignedDuration,
    /// `None` as long as the answers do not add up to anything.
    verdict: Option<bool>,
    last: Option<bool>,
    streak: u32,
    in_flight: bool,
    /// The try under way is a regular one.
    counted: bool,
    due: Timestamp,
    regular: Timestamp,
    quick_tries: u32,
}

impl Probes {
    /// Takes in which containers run; those that are `held` (their start is not through) do not count yet.
    /// `ending`: liveness and startup no longer matter.
    pub fn observe(&mut self, pod: &Pod, containers: &[Container], held: &BTreeSet<String>, ending: bool) {
        self.ending = ending;
        self.running.clear();
        for container in containers {
            if container.running_since().is_some() && !held.contains(&container.name) {
                self.running.insert(container.name.clone(), container.id.clone());
            }
        }
        let running = &self.running;
        self.entries.retain(|(name, _), entry| running.get(name) == Some(&entry.container));
        for container in containers {
            let Some(started) = container.running_since().filter(|_| !held.contains(&container.name)) else { continue };
            let probed = matches!(spec::role(pod, &container.name), Some(Role::Main | Role::Sidecar));
            let Some(spec) = spec::container(pod, &container.name).filter(|_| probed) else { continue };
            for kind in ProbeKind::ALL {
                let key = (container.name.clone(), kind);
                if let Some(probe) = kind.of(&spec).filter(|_| !self.entries.contains_key(&key)) {
                    let verdict = reported(pod, container, kind);
                    self.entries.insert(key, Entry::new(kind, probe, &container.id, started, verdict));
                }
            }
        }
    }

    /// Probes whose turn it is.
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Vec<(String, ProbeKind)> {
        self.open().filter(|(_, entry)| entry.due <= now).map(|(key, _)| key.clone()).collect()
    }

    /// When the next turn comes.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.open().map(|(_, entry)| entry.due).min()
    }

    /// Notes that a probe was sent; returns the id of the container that it goes to.
    pub fn begin(&mut self, name: &str, kind: ProbeKind, now: Timestamp) -> Option<String> {
        let entry = self.entries.get_mut(&(name.to_owned(), kind))?;
        entry.in_flight = true;
        entry.counted = entry.regular <= now;
        if entry.counted {
            entry.regular = later(now, entry.period);
        }
        Some(entry.container.clone())
    }

    /// Notes an answer. One for a container that no longer runs is dropped.
    pub fn record(&mut self, name: &str, kind: ProbeKind, container: &str, ok: bool, now: Timestamp) -> Recorded {
        match self.entries.get_mut(&(name.to_owned(), kind)) {
            Some(entry) if entry.container == container => entry.record(kind, ok, now),
            _ => Recorded::default(),
        }
    }

    /// Whether the container runs and its startup probe, if any, has succeeded.
    #[must_use]
    pub fn started(&self, name: &str, container: &str) -> bool {
        self.running.get(name).is_some_and(|id| id == container)
            && self.entry(name, ProbeKind::Startup).is_none_or(|entry| entry.verdict == Some(true))
    }

    /// Whether the container is started and its readiness probe, if any, says so.
    #[must_use]
    pub fn ready(&self, name: &str, container: &str) -> bool {
        self.started(name, container)
            && self.entry(name, ProbeKind::Readiness).is_none_or(|entry| entry.verdict == Some(true))
    }

    /// The probe for whose sake the container has to be restarted.
    #[must_use]
    pub fn unhealthy(&self, name: &str, container: &str) -> Option<ProbeKind> {
        [ProbeKind::Startup, ProbeKind::Liveness].into_iter().find(|kind| {
            self.entry(name, *kind).is_some_and(|entry| entry.container == container && entry.verdict == Some(false))
        })
    }

    fn entry(&self, name: &str, kind: ProbeKind) -> Option<&Entry> {
        self.entries.get(&(name.to_owned(), kind))
    }

    /// Entries that are probed at all in this state of their container.
    fn open(&self) -> impl Iterator<Item = (&(String, ProbeKind), &Entry)> {
        self.entries.iter().filter(|((name, kind), entry)| {
            let wanted = match kind {
                ProbeKind::Startup => !self.ending && entry.verdict.is_none(),
                ProbeKind::Liveness => {
                    !self.ending && entry.verdict != Some(false) && self.started(name, &entry.container)
                }
                ProbeKind::Readiness => self.started(name, &entry.container),
            };
            wanted && !entry.in_flight
        })
    }
}

impl Entry {
    fn new(kind: ProbeKind, probe: &Probe, container: &str, started: Timestamp, reported: Option<bool>) -> Self {
        let delay = SignedDuration::from_secs(i64::from(probe.initial_delay_seconds.unwrap_or(0)));
        let first = later(started, delay);
        let threshold =
            |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default).max(1);
        Entry {
            container: container.to_owned(),
            period: SignedDuration::from_secs(i64::from(probe.period_seconds.unwrap_or(10).max(1))),
            success_threshold: threshold(probe.success_threshold, 1),
            failure_threshold: threshold(probe.failure_threshold, 3),
            quick_first: if probe.exec.is_some() { QUICK_FIRST_EXEC } else { QUICK_FIRST },
            verdict: if kind == ProbeKind::Liveness { Some(true) } else { reported },
            last: None,
            streak: 0,
            in_flight: false,
            counted: false,
            due: first,
            regular: first,
            quick_tries: 0,
        }
    }

    fn record(&mut self, kind: ProbeKind, ok: bool, now: Timestamp) -> Recorded {
        let before = self.verdict;
        self.in_flight = false;
        if ok || self.counted {
            self.streak = if self.last == Some(ok) { self.streak + 1 } else { 1 };
            self.last = Some(ok);
        }
        if ok && self.streak >= self.success_threshold {
            self.verdict = Some(true);
        } else if !ok && self.counted && self.streak >= self.failure_threshold {
            self.verdict = Some(false);
        }
        self.due = self.next(kind, now);
        Recorded { report: !ok && self.counted, changed: self.verdict != before }
    }

    /// The regular turn, or sooner while the container has never been up.
    fn next(&mut self, kind: ProbeKind, now: Timestamp) -> Timestamp {
        let never_up = kind != ProbeKind::Liveness && self.verdict.is_none() && self.success_threshold == 1;
        if !never_up {
            return self.regular;
        }
        let pause = self.quick_first * 2_i32.saturating_pow(self.quick_tries.min(16));
        self.quick_tries += 1;
        later(now, pause).min(self.regular)
    }
}

/// What the API already says of this very container: a restarted node does not make a ready pod unready.
fn reported(pod: &Pod, container: &Container, kind: ProbeKind) -> Option<bool> {
    let status = reported_status(pod, &container.name)?;
    status.container_id.as_deref().filter(|id| id.ends_with(&container.id))?;
    let up = match kind {
        ProbeKind::Startup => status.started.unwrap_or(false),
        ProbeKind::Readiness => status.ready,
        ProbeKind::Liveness => true,
    };
    up.then_some(true)
}

fn reported_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|one| one.name == name)
}
