//! What this node, its pods and their containers use: samples from cgroups and `/proc`, and the rates between two of them.
//!
//! A sample is taken when somebody asks, and every [`SAMPLE_PERIOD`] so that there is one to compare with.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use stead_podlife::spec;
use stead_runtime::{Container, ContainerState, Sandbox, SandboxState, Stats};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ledger::Page;
use crate::{Node, system};

/// Between two samples that nobody has asked for (upstream's metrics-server looks as often).
pub(crate) const SAMPLE_PERIOD: Duration = Duration::from_secs(15);
/// A rate is over at least this long: over less it would jump (upstream's kubelet measures over as much).
const WINDOW_MIN: Duration = Duration::from_secs(10);
/// What is younger counts from its start, when it had used nothing.
const YOUNG_MAX: Duration = Duration::from_secs(30);
/// Samples of one thing that are kept.
const POINTS_MAX: usize = 2;
/// The key of the node itself among container and sandbox ids.
const NODE: &str = "";

/// CPU in use over a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub nanocores: u64,
    pub window: Duration,
}

/// What one thing uses. The rate is not known before it has been looked at for long enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub stats: Stats,
    pub rate: Option<Rate>,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub at: Timestamp,
    pub node: Use,
    pub pods: Vec<PodUse>,
}

#[derive(Clone, Debug)]
pub(crate) struct PodUse {
    pub pod: Arc<Pod>,
    /// With all containers, those that have ended too.
    pub total: Use,
    pub containers: Vec<ContainerUse>,
}

#[derive(Clone, Debug)]
pub(crate) struct ContainerUse {
    pub name: String,
    pub started: Timestamp,
    pub own: Use,
}

/// The CPU time that something had used at a moment.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Instant,
    cpu_nanos: u64,
}

/// The last samples by container or sandbox id.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<HashMap<String, VecDeque<Point>>>);

impl Samples {
    /// Keeps a sample of everything there is, and forgets what is no longer there.
    fn keep(&self, at: Instant, all: impl IntoIterator<Item = (String, u64)>) {
        let mut kept = self.0.lock();
        let mut before = std::mem::take(&mut *kept);
        for (key, cpu_nanos) in all {
            let mut points = before.remove(&key).unwrap_or_default();
            points.push_back(Point { at, cpu_nanos });
            while points.len() > POINTS_MAX {
                points.pop_front();
            }
            kept.insert(key, points);
        }
    }

    /// The rate since the newest sample that is old enough, or since the start of what is young. `age`: since when it runs.
    fn rate(&self, key: &str, now: Instant, cpu_nanos: u64, age: Option<Duration>) -> Option<Rate> {
        let old_enough = |since: Instant| now.saturating_duration_since(since) >= WINDOW_MIN;
        let kept = self.0.lock();
        let point = kept.get(key).and_then(|points| points.iter().rev().find(|point| old_enough(point.at)).copied());
        let start = || {
            let age = age.filter(|age| (WINDOW_MIN..YOUNG_MAX).contains(age))?;
            Some(Point { at: now.checked_sub(age)?, cpu_nanos: 0 })
        };
        let point = point.or_else(start)?;
        // Less than before: another thing has the name by now.
        let used = cpu_nanos.checked_sub(point.cpu_nanos)?;
        let window = now.saturating_duration_since(point.at);
        let nanocores = u128::from(used) * 1_000_000_000 / window.as_nanos().max(1);
        Some(Rate { nanocores: u64::try_from(nanocores).unwrap_or(u64::MAX), window })
    }
}

impl Node {
    /// Takes samples for ever.
    pub(crate) async fn sample_usage(self: Arc<Self>) {
        let mut ticks = interval(SAMPLE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(page) = self.ledger.fresh().await else { continue };
            let mut all = vec![(NODE.to_owned(), node_stats().cpu_usage_nanos)];
            for container in page.containers.values().flatten().filter(|one| started(one).is_some()) {
                if let Ok(stats) = self.engine.stats(&container.id).await {
                    all.push((container.id.clone(), stats.cpu_usage_nanos));
                }
            }
            for sandbox in page.sandboxes.values().filter_map(|all| ready(all)) {
                if let Ok(stats) = self.engine.sandbox_stats(&sandbox.id).await {
                    all.push((sandbox.id.clone(), stats.cpu_usage_nanos));
                }
            }
            self.samples.keep(Instant::now(), all);
        }
    }

    /// What is in use now, by everything that runs.
    pub(crate) async fn measure(&self) -> Measured {
        let page = self.ledger.fresh().await.unwrap_or_default();
        let mut pods = Vec::new();
        for pod in self.pods.list() {
            pods.extend(self.measure_pod(pod, &page).await);
        }
        let stats = node_stats();
        let rate = self.samples.rate(NODE, Instant::now(), stats.cpu_usage_nanos, None);
        Measured { at: (self.clock)(), node: Use { stats, rate }, pods }
    }

    async fn measure_pod(&self, pod: Arc<Pod>, page: &Page) -> Option<PodUse> {
        let uid = spec::identity(&pod).2;
        let sandbox = page.sandboxes.get(uid).and_then(|all| ready(all))?;
        let mut containers = Vec::new();
        for container in page.containers.get(uid).into_iter().flatten() {
            let Some(started) = started(container) else { continue };
            // It may have ended meanwhile.
            let Ok(stats) = self.engine.stats(&container.id).await else { continue };
            let own = self.used(&container.id, stats, started);
            containers.push(ContainerUse { name: container.name.clone(), started, own });
        }
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let stats = self.engine.sandbox_stats(&sandbox.id).await.ok()?;
        let started = Timestamp::from_nanosecond(sandbox.created_at_unix_nanos.into()).unwrap_or_default();
        Some(PodUse { total: self.used(&sandbox.id, stats, started), pod, containers })
    }

    fn used(&self, key: &str, stats: Stats, started: Timestamp) -> Use {
        let age = Duration::try_from((self.clock)().duration_since(started)).ok();
        Use { stats, rate: self.samples.rate(key, Instant::now(), stats.cpu_usage_nanos, age) }
    }
}

/// When a container that runs was started.
fn started(container: &Container) -> Option<Timestamp> {
    match container.state {
        ContainerState::Running { started_at_unix_nanos, .. } => {
            Some(Timestamp::from_nanosecond(started_at_unix_nanos.into()).unwrap_or_default())
        }
        ContainerState::Created | ContainerState::Starting | ContainerState::Exited(_) => None,
    }
}

/// The sandbox of a pod that is up: the newest one.
fn ready(sandboxes: &[Sandbox]) -> Option<&Sandbox> {
    let up = sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
    up.max_by_key(|sandbox| sandbox.created_at_unix_nanos)
}

/// The whole machine, as upstream reckons it for the root of the cgroups: memory that is free or holds pages of files that
/// have not been used of late does not count as the working set.
fn node_stats() -> Stats {
    let memory = |name| system::meminfo(name).unwrap_or(0);
    let usage = memory("MemTotal").saturating_sub(memory("MemFree"));
    Stats {
        cpu_usage_nanos: system::busy_nanos().unwrap_or(0),
        memory_usage_bytes: usage,
        memory_working_set_bytes: usage.saturating_sub(memory("Inactive(file)")),
        memory_rss_bytes: memory("AnonPages"),
        ..Stats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds since the start of a sample or a question | the CPU seconds by then | nanocores, window.
    #[test]
    fn rates_are_over_the_newest_sample_that_is_old_enough() {
        let zero = Instant::now();
        let at = |seconds: u64| zero + Duration::from_secs(seconds);
        let nanos = |seconds: u64| seconds * 1_000_000_000;
        let samples = Samples::default();
        let ask = |key: &str, seconds, cpu, age: Option<u64>| {
            let rate = samples.rate(key, at(seconds), nanos(cpu), age.map(Duration::from_secs));
            rate.map(|rate| (rate.nanocores, rate.window.as_secs()))
        };
        assert_eq!(ask("a", 100, 5, None), None, "never seen");
        assert_eq!(ask("a", 100, 5, Some(7)), None, "too young for a rate");
        assert_eq!(ask("a", 100, 5, Some(20)), Some((250_000_000, 20)), "young: since its start");
        assert_eq!(ask("a", 100, 5, Some(31)), None, "old, and not seen yet");
        samples.keep(at(100), [("a".to_owned(), nanos(5))]);
        assert_eq!(ask("a", 105, 6, Some(36)), None, "the sample is too new");
        assert_eq!(ask("a", 110, 6, Some(41)), Some((100_000_000, 10)));
        samples.keep(at(115), [("a".to_owned(), nanos(20)), ("b".to_owned(), nanos(9))]);
        assert_eq!(
            ask("a", 116, 21, None),
            Some((1_000_000_000, 16)),
            "the newest sample is too new, the other is not"
        );
        assert_eq!(ask("a", 125, 40, None), Some((2_000_000_000, 10)));
        assert_eq!(ask("b", 125, 3, None), None, "less than before");
        samples.keep(at(130), [("b".to_owned(), nanos(9))]);
        assert_eq!(ask("a", 145, 40, None), None, "what is gone is forgotten");
        for tick in 9..20 {
            samples.keep(at(tick * 15), [("b".to_owned(), nanos(9))]);
        }
        assert_eq!(samples.0.lock()["b"].len(), POINTS_MAX);
    }
}
