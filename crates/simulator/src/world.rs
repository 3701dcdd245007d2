//! What all parts of one simulated cluster share: seed, clock, faults, the model of what is stored, the trace.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use stead_apiserver::ApiServer;
use stead_informer::Caches;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::Model;
use crate::parts::PROCESSES;
use crate::plant::Plant;
use crate::profile::{LATE_MAX_MS, Profile};
use crate::rng::Rng;

/// Seconds since 1970 at which every simulation begins.
pub(crate) const EPOCH_SECONDS: i64 = 1_767_225_600;

/// How late the StatefulSet controller hears of a pod that it ended, where people lie in wait for that.
const ECHO_TRAPPED: Duration = Duration::from_secs(15);

/// Who talks to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The API server itself.
    Server,
    /// The StatefulSet controller.
    Sets,
    /// The controller of claims and volumes.
    Claims,
    Garbage,
    /// Node life cycle, taints, pod garbage and disruption budgets.
    Upkeep,
    Scheduler,
    Node(u8),
    User,
}

/// A part, and which of its processes: a crash ends one, and the next one knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Actor {
    pub(crate) part: Part,
    pub(crate) process: u32,
    /// The request is an eviction.
    pub(crate) evicts: bool,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            Part::Node(n) => write!(f, "node-{n}"),
            part => write!(f, "{}#{}", format!("{part:?}").to_lowercase(), self.process),
        }
    }
}

tokio::task_local! {
    /// In whose name the present request runs.
    pub(crate) static ACTOR: Actor;
}

#[must_use]
pub(crate) fn actor() -> Actor {
    ACTOR.try_with(|actor| *actor).unwrap_or(Actor { part: Part::Server, process: 0, evicts: false })
}

/// Everything that happened, as a hash; and as text when somebody wants to read it.
#[derive(Debug, Default)]
struct Trace {
    hash: u64,
    events: u64,
    tell: bool,
}

/// One simulated cluster's shared state.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    /// The bug that is there on purpose.
    pub(crate) plant: Option<Plant>,
    pub(crate) model: Mutex<Model>,
    /// The API server, while it runs, and the end of that.
    server: Mutex<Option<(ApiServer, CancellationToken)>>,
    /// The caches of every process that runs.
    pub(crate) views: Mutex<BTreeMap<Actor, Caches>>,
    /// No more faults.
    calm: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    began: Instant,
    skew_ms: Mutex<BTreeMap<Part, i64>>,
    /// Until when the watches of a part are late: of one resource, or all (`""`).
    late: Mutex<BTreeMap<(Part, &'static str), Instant>>,
    /// The next pod that the StatefulSet controller ends is the last thing that it hears of for a while; and: that has
    /// just been so, and even the answer to its request is lost.
    trap: AtomicBool,
    sprung: AtomicBool,
    pub(crate) snapped: Notify,
    echo: Rng,
    /// Until when nearly every change of a part meets a conflict.
    storms: Mutex<BTreeMap<Part, Instant>>,
    /// Nodes that nobody reaches and that reach nobody.
    cut_off: Mutex<BTreeMap<u8, bool>>,
    /// Nodes that are switched off.
    dark: Mutex<BTreeMap<u8, bool>>,
    /// Something is new for a node.
    pub(crate) wake_nodes: Vec<Notify>,
    trace: Mutex<Trace>,
    violation: Mutex<Option<String>>,
    pub(crate) failed: Notify,
    /// The simulation ends: processes let go of their caches, which would outlive it otherwise.
    pub(crate) over: CancellationToken,
}

impl World {
    #[must_use]
    pub(crate) fn new(seed: u64, profile: Profile, plant: Option<Plant>, tell: bool) -> Arc<Self> {
        let nodes = profile.nodes;
        Arc::new(Self {
            seed,
            profile,
            plant,
            model: Mutex::default(),
            server: Mutex::default(),
            views: Mutex::default(),
            calm: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            began: Instant::now(),
            skew_ms: Mutex::default(),
            late: Mutex::default(),
            trap: AtomicBool::new(false),
            sprung: AtomicBool::new(false),
            snapped: Notify::new(),
            echo: Rng::new(seed, "echo"),
            storms: Mutex::default(),
            cut_off: Mutex::default(),
            dark: Mutex::default(),
            wake_nodes: (0..nodes).map(|_| Notify::new()).collect(),
            trace: Mutex::new(Trace { tell, ..Trace::default() }),
            violation: Mutex::default(),
            failed: Notify::new(),
            over: CancellationToken::new(),
        })
    }

    /// Random numbers of their own for one purpose.
    #[must_use]
    pub(crate) fn rng(&self, label: &str) -> Rng {
        Rng::new(self.seed, label)
    }

    /// Time since the beginning.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time of day as a part's clock shows it.
    #[must_use]
    pub(crate) fn now(&self, part: Part) -> Timestamp {
        let skew = self.skew_ms.lock().get(&part).copied().unwrap_or(0);
        let elapsed = i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX);
        let epoch = Timestamp::from_second(EPOCH_SECONDS).expect("in range");
        epoch + SignedDuration::from_millis(elapsed + skew)
    }

    pub(crate) fn set_skew(&self, part: Part, ms: i64) {
        self.skew_ms.lock().insert(part, ms);
    }

    #[must_use]
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Ends all faults.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
        self.disk_full.store(false, Ordering::Relaxed);
        self.skew_ms.lock().clear();
        self.late.lock().clear();
        self.storms.lock().clear();
        self.cut_off.lock().clear();
        self.dark.lock().clear();
        self.wake_nodes.iter().for_each(Notify::notify_one);
    }

    /// The server that runs now, and when it ends.
    #[must_use]
    pub(crate) fn server(&self) -> Option<(ApiServer, CancellationToken)> {
        self.server.lock().clone()
    }

    /// A server runs from now on; the one before is no more.
    pub(crate) fn serve(&self, server: Option<ApiServer>) {
        let next = server.map(|server| (server, CancellationToken::new()));
        let before = std::mem::replace(&mut *self.server.lock(), next);
        if let Some((_, life)) = before {
            life.cancel();
        }
    }

    /// Holds the watch events of one resource back, or all (`""`).
    pub(crate) fn make_late(&self, part: Part, resource: &'static str, by: Duration) {
        self.late.lock().insert((part, resource), Instant::now() + by);
    }

    /// Until when a watch event for `part` is held back.
    #[must_use]
    pub(crate) fn late_until(&self, part: Part, resource: &str) -> Option<Instant> {
        let late = self.late.lock();
        let of = |resource: &str| late.iter().find(|((p, r), _)| *p == part && *r == resource).map(|(_, until)| *until);
        of("").max(of(resource)).filter(|until| *until > Instant::now())
    }

    /// Lets the StatefulSet controller not see the next pod that it ends, or no longer.
    pub(crate) fn set_trap(&self, set: bool) {
        self.trap.store(set, Ordering::Relaxed);
    }

    /// Whether the answer to the request that was just done is to be lost.
    #[must_use]
    pub(crate) fn springs(&self) -> bool {
        self.sprung.swap(false, Ordering::Relaxed)
    }

    /// A write has been done: somebody may hear of it late, most of all the one that did it.
    pub(crate) fn echo(&self, writer: Part, resource: &'static str, ends_pod: bool) {
        if self.is_calm() || self.profile.echo == 0 {
            return;
        }
        let trapped = ends_pod && writer == Part::Sets && self.trap.swap(false, Ordering::Relaxed);
        if !trapped && self.echo.below(1000) >= self.profile.echo {
            return;
        }
        if trapped {
            self.sprung.store(self.profile.reply_lost > 0, Ordering::Relaxed);
            self.snapped.notify_one();
        }
        let is_process = PROCESSES.iter().any(|(part, _)| *part == writer);
        let part = if is_process && (trapped || self.echo.percent(50)) { writer } else { self.echo.pick(PROCESSES).0 };
        let by = if trapped { ECHO_TRAPPED } else { self.echo.spread(LATE_MAX_MS) };
        self.say(&format!("{part:?} hears late by {by:?} of {resource}"));
        self.make_late(part, resource, by);
    }

    pub(crate) fn storm(&self, part: Part, time: Duration) {
        self.storms.lock().insert(part, Instant::now() + time);
    }

    #[must_use]
    pub(crate) fn is_stormy(&self, part: Part) -> bool {
        self.storms.lock().get(&part).is_some_and(|until| *until > Instant::now())
    }

    pub(crate) fn switch_off(&self, node: u8, off: bool) {
        self.dark.lock().insert(node, off);
        self.wake_nodes[usize::from(node)].notify_one();
    }

    #[must_use]
    pub(crate) fn is_off(&self, node: u8) -> bool {
        self.dark.lock().get(&node).copied().unwrap_or(false)
    }

    pub(crate) fn cut_off(&self, node: u8, cut: bool) {
        self.cut_off.lock().insert(node, cut);
        self.wake_nodes[usize::from(node)].notify_one();
    }

    #[must_use]
    pub(crate) fn is_cut_off(&self, node: u8) -> bool {
        self.cut_off.lock().get(&node).copied().unwrap_or(false)
    }

    /// Notes that something happened. `text` is made only when somebody reads it; `hash` stands for it otherwise.
    pub(crate) fn note(&self, bytes: &[u8], text: impl FnOnce() -> String) {
        let at = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut trace = self.trace.lock();
        trace.hash = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, trace.hash ^ at.rotate_left(32));
        trace.events += 1;
        if trace.tell {
            println!("{:>9}.{:03}  {}", at / 1000, at % 1000, text());
        }
    }

    /// The same for what is text anyway.
    pub(crate) fn say(&self, text: &str) {
        self.note(text.as_bytes(), || text.to_owned());
    }

    /// Hash and number of the events so far.
    #[must_use]
    pub(crate) fn trace(&self) -> (u64, u64) {
        let trace = self.trace.lock();
        (trace.hash, trace.events)
    }

    /// Something happened that must not.
    pub(crate) fn violated(&self, what: String) {
        self.say(&format!("VIOLATION {what}"));
        self.violation.lock().get_or_insert(what);
        self.failed.notify_one();
    }

    #[must_use]
    pub(crate) fn violation(&self) -> Option<String> {
        self.violation.lock().clone()
    }
}
