//! Faults that come over time: each kind by a clock of its own, until the world calms down.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stead_apiserver::ApiServer;
use stead_store::Store;
use tokio::time::sleep;

use crate::parts::{self, PROCESSES};
use crate::profile::LATE_MAX_MS;
use crate::rng::Rng;
use crate::world::{Part, World};

/// How far a clock jumps at most.
const JUMP_MAX_MS: u64 = 120_000;
const DISK_FULL_MAX_MS: u64 = 6000;
const RIVAL_MAX_MS: u64 = 40_000;
/// How long a node is cut off at most: longer than it takes until its pods are evicted.
const CUT_OFF_MAX_MS: u64 = 500_000;
/// Numbers of the second processes of a part begin here.
const RIVALS: u32 = 1000;

/// Starts every kind of fault that the seed has.
pub(crate) fn start(world: &Arc<World>, server: &ApiServer, store: &Arc<dyn Store>) {
    let profile = &world.profile;
    every(world, "late", profile.late, |world, rng| {
        let part = any_part(rng);
        let by = rng.spread(LATE_MAX_MS);
        world.say(&format!("watches of {part:?} are late by {by:?}"));
        world.make_late(part, by);
        async {}
    });
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
    let server = server.clone();
    let mut number = RIVALS;
    every(world, "rival", profile.second_leader, move |world, rng| {
        let part = *rng.pick(&[Part::Sets, Part::Sets, Part::Claims, Part::Upkeep]);
        number += 1;
        parts::rival(world.clone(), server.clone(), part, number, rng.spread(RIVAL_MAX_MS))
    });
    every(world, "partition", profile.partition, |world, rng| {
        let node = rng.below(u64::from(world.profile.nodes)) as u8;
        let time = rng.spread(CUT_OFF_MAX_MS);
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
