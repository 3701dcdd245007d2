//! The parts of the control plane as processes that can die: each has its own caches, and a new one knows nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use stead_client::{Client, in_process};
use stead_controllers::{Config, registry, run_only};
use stead_informer::{Caches, Clock};
use tokio_util::sync::CancellationToken;

use crate::line::Line;
use crate::world::{Actor, Part, World};

/// How long a node may be silent.
const SILENCE_MAX: SignedDuration = SignedDuration::from_secs(50);
/// How long it takes at most until a process that died is there again.
const RESTART_MAX_MS: u64 = 5000;

/// The parts that run as processes, and their controllers; the scheduler has none.
pub(crate) const PROCESSES: &[(Part, &[&str])] = &[
    (Part::Sets, &["statefulset-controller"]),
    (Part::Claims, &["persistentvolume-controller"]),
    (Part::Garbage, &["garbage-collector-controller"]),
    (
        Part::Upkeep,
        &[
            "node-lifecycle-controller",
            "taint-eviction-controller",
            "pod-garbage-collector",
            "disruption-controller",
            "disruption-mark-controller",
        ],
    ),
    (Part::Scheduler, &[]),
];

#[must_use]
pub(crate) fn line(world: &Arc<World>, part: Part, process: u32) -> Line {
    Line::new(world.clone(), Actor { part, process, evicts: false })
}

/// Runs one part for ever: starts it again whenever it has died.
pub(crate) async fn keep(world: Arc<World>, part: Part, first: u32) {
    let rng = world.rng(&format!("keeper of {part:?} {first}"));
    for process in first.. {
        let line = line(&world, part, process);
        let stop = CancellationToken::new();
        world.say(&format!("{} starts", line.actor));
        let caches = start(&world, part, &line, &stop);
        let over = world.over.run_until_cancelled(line.crashed()).await.is_none();
        world.say(&format!("{} is dead", line.actor));
        // Whatever it still does, nobody hears of it.
        stop.cancel();
        caches.shut_down();
        world.views.lock().remove(&line.actor);
        if over {
            return;
        }
        tokio::time::sleep(Duration::from_millis(rng.below(RESTART_MAX_MS))).await;
    }
}

/// A second process of a part beside the first, for a while.
pub(crate) async fn rival(world: Arc<World>, part: Part, process: u32, time: Duration) {
    let line = line(&world, part, process);
    let stop = CancellationToken::new();
    world.say(&format!("{} starts beside the other", line.actor));
    let caches = start(&world, part, &line, &stop);
    tokio::select! {
        biased;
        () = line.crashed() => {}
        () = world.over.cancelled() => {}
        () = tokio::time::sleep(time) => line.crash(),
    }
    world.say(&format!("{} is dead", line.actor));
    stop.cancel();
    caches.shut_down();
    world.views.lock().remove(&line.actor);
}

fn start(world: &Arc<World>, part: Part, line: &Line, stop: &CancellationToken) -> Caches {
    let client: Client = in_process(line.clone(), "default");
    let caches = Caches::new(client.clone());
    world.views.lock().insert(line.actor, caches.clone());
    let clock: Clock = {
        let world = world.clone();
        Arc::new(move || world.now(part))
    };
    if part == Part::Scheduler {
        let config = stead_scheduler::Config { clock, ..Default::default() };
        tokio::spawn(stead_scheduler::run_with(config, client, caches.clone(), stop.clone()));
        return caches;
    }
    let names = PROCESSES.iter().find(|(of, _)| *of == part).map_or(&[][..], |(_, names)| names);
    let entries = registry::all().into_iter().filter(|entry| names.contains(&entry.name)).collect();
    let config = Config { clock, node_silence_max: SILENCE_MAX, ..Config::default() };
    tokio::spawn(run_only(entries, config, client, caches.clone(), stop.clone()));
    caches
}
