//! Faults that come over time: each kind by a clock of its own, until the world calms down.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stead_store::Store;
use tokio::time::sleep;

use crate::parts::{self, PROCESSES};
use crate::profile::LATE_MAX_MS;
use crate::rng::Rng;
use crate::run::open;
use crate::world::{Part, World};

/// How far a clock jumps at most.
pub(crate) const JUMP_MAX_MS: u64 = 120_000;
const DISK_FULL_MAX_MS: u64 = 6000;
const RIVAL_MAX_MS: u64 = 40_000;
/// How long a node is cut off at most: longer than it takes until its pods are evicted.
const CUT_OFF_MAX_MS: u64 = 500_000;
const STORM_MAX_MS: u64 = 40_000;
/// How long the API server is away at most.
const AWAY_MAX_MS: u64 = 8000;
/// Between two tries to start it.
const OPEN_AGAIN: Duration = Duration::from_millis(500);
/// How long a node is dark at most.
const DARK_MAX_MS: u64 = 300_000;
/// What a part may see late while it sees everything else in time; the first stands for everything.
const LATE: &[&str] = &["", "", "pods", "statefulsets", "persistentvolumeclaims", "persistentvolumes", "nodes"];
/// Numbers of the second processes of a part begin here.
const RIVALS: u32 = 1000;

/// Starts every kind of fault that the seed has.
pub(crate) fn start(world: &Arc<World>, store: &Arc<dyn Store>) {
    let profile = &world.profile;
    every(world, "late", profile.late, |world, rng| {
        let (part, resource) = (any_part(rng), *rng.pick(LATE));
        let by = rng.spread(LATE_MAX_MS);
        world.say(&format!("watches of {part:?} {resource} are late by {by:?}"));
        world.make_late(part, resource, by);
        async {}
    });
    every(world, "storm", profile.storm, |world, rng| {
        let (part, time) = (any_part(rng), rng.spread(STORM_MAX_MS));
        world.say(&format!("every change of {part:?} meets a conflict for {time:?}"));
        world.storm(part, time);
        async {}
    });
    restarts(world, store);
    power_cuts(world);
    every(world, "clock", profile.clock_jump, |world, rng| {
        let mut parts = vec![Part::Server, any_part(rng)];
        parts.extend((0..world.profile.nodes).map(Part::Node));
        let part = *rng.pick(&parts);
        let jump = rng.below(2 * JUMP_MAX_MS) as i64 - JUMP_MAX_MS as i64;
        world.say(&format!("the clock of {part:?} jumps to {jump} ms"));
        world.set_skew(part, jump);
        async {}
    });
    every(world, "disk", profile.disk_full, |world, rng| {
        let time = rng.spread(DISK_FULL_MAX_MS);
        world.say(&format!("the disk is full for {time:?}"));
        world.disk_full.store(true, Ordering::Relaxed);
        let world = world.clone();
        async move {
            sleep(time).await;
            world.disk_full.store(false, Ordering::Relaxed);
        }
    });
    let compacted = store.clone();
    every(world, "compact", profile.compact, move |world, _| {
        world.say("the history is compacted");
        let store = compacted.clone();
        async move {
            // A store that cannot is a store that refuses writes, which is another fault.
            let _ = store.compact(store.revision()).await;
        }
    });
    let mut number = RIVALS;
    every(world, "rival", profile.second_leader, move |world, rng| {
        let part = *rng.pick(&[Part::Sets, Part::Sets, Part::Claims, Part::Upkeep]);
        number += 1;
        parts::rival(world.clone(), part, number, rng.spread(RIVAL_MAX_MS))
    });
    cut_offs(world);
}

fn restarts(world: &Arc<World>, store: &Arc<dyn Store>) {
    let on = store.clone();
    every(world, "restart", world.profile.restart, move |world, rng| {
        let away = rng.spread(AWAY_MAX_MS);
        world.say(&format!("the server is away for {away:?}"));
        world.serve(None);
        let (world, store) = (world.clone(), on.clone());
        async move {
            sleep(away).await;
            loop {
                match open(&store).await {
                    Ok(server) => return world.serve(Some(server)),
                    // The disk may be full.
                    Err(error) => world.say(&format!("the server does not start: {error:#}")),
                }
                sleep(OPEN_AGAIN).await;
            }
        }
    });
}

fn power_cuts(world: &Arc<World>) {
    every(world, "power", world.profile.power, |world, rng| {
        let node = rng.below(u64::from(world.profile.nodes)) as u8;
        let time = rng.spread(DARK_MAX_MS);
        world.say(&format!("node-{node} is without power for {time:?}"));
        world.switch_off(node, true);
        let world = world.clone();
        async move {
            sleep(time).await;
            world.switch_off(node, false);
        }
    });
}

fn cut_offs(world: &Arc<World>) {
    every(world, "partition", world.profile.partition, |world, rng| {
        let node = rng.below(u64::from(world.profile.nodes)) as u8;
        let long = || Duration::from_millis(rng.between(CUT_OFF_MAX_MS / 4, CUT_OFF_MAX_MS));
        let time = if world.profile.silent { long() } else { rng.spread(CUT_OFF_MAX_MS) };
        world.say(&format!("node-{node} is cut off for {time:?}"));
        world.cut_off(node, true);
        let world = world.clone();
        async move {
            sleep(time).await;
            world.cut_off(node, false);
        }
    });
}

fn any_part(rng: &Rng) -> Part {
    rng.pick(PROCESSES).0
}

/// Brings a fault about again and again, `mean_seconds` apart on average (0: never).
fn every<F>(
    world: &Arc<World>,
    label: &str,
    mean_seconds: u64,
    mut fault: impl FnMut(&Arc<World>, &Rng) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    if mean_seconds == 0 {
        return;
    }
    let (world, rng) = (world.clone(), world.rng(label));
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(rng.below(2000 * mean_seconds))).await;
            if world.is_calm() {
                return;
            }
            fault(&world, &rng).await;
        }
    });
}
