//! Walks worlds of two claims and two volumes through every order of syncs, crashes and deletions, to a depth.
//!
//! In every state: no volume serves two claims. From every state: everything settles, and what can be bound is bound.

use std::collections::HashSet;

use super::world::{Life, World};
use super::{claim_phase, claim_ref, volume_phase};

/// Steps from the start.
const DEPTH: usize = 8;

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim(&'static str, Option<usize>),
    Volume(&'static str),
    Delete(&'static str),
    Remove(&'static str),
}

fn steps() -> Vec<Step> {
    let mut steps = vec![Step::Volume("v"), Step::Volume("w"), Step::Delete("a"), Step::Remove("v")];
    for own in ["a", "b"] {
        steps.push(Step::Claim(own, None));
        steps.extend((1..4).map(|writes| Step::Claim(own, Some(writes))));
    }
    steps
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Claim(own, life) => drop(world.sync_claim(own, &mut Life(life))),
        Step::Volume(own) => drop(world.sync_volume(own, &mut Life(None))),
        Step::Delete(own) => world.delete_claim(own),
        Step::Remove(own) => world.delete_volume(own),
    }
}

/// What must be true once nothing changes any more.
fn settled(mut world: World) {
    world.settle();
    world.check();
    for claim in world.claims.values().filter(|claim| claim_phase(claim) == "Pending") {
        let free = world.volumes.values().any(|v| {
            claim_ref(v).is_none() && v.metadata.deletion_timestamp.is_none() && volume_phase(v) == "Available"
        });
        assert!(!free || !super::volume_name(claim).is_empty(), "a claim waits beside a free volume: {}", world.draw());
    }
    let mut served = HashSet::new();
    for volume in world.volumes.values().filter(|volume| volume_phase(volume) == "Bound") {
        let uid = claim_ref(volume).and_then(|r| r.uid.clone());
        assert!(served.insert(uid), "two volumes are bound to one claim: {}", world.draw());
    }
}

#[test]
fn two_claims_two_volumes() {
    let mut start = World::default();
    start.volume("v", "1Gi", "");
    start.volume("w", "2Gi", "");
    start.claim("a", "1Gi", "\"\"");
    start.claim("b", "1Gi", "\"\"");
    let (mut seen, mut front) = (HashSet::new(), vec![start]);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for world in front {
            for step in steps() {
                let mut world = world.clone();
                take(&mut world, step);
                world.check();
                if seen.insert(world.fingerprint()) {
                    settled(world.clone());
                    next.push(world);
                }
            }
        }
        front = next;
    }
    assert!(seen.len() > 100, "only {} states", seen.len());
}
