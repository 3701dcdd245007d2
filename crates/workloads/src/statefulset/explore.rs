//! Visits every state of small sets, whatever brought it about, and checks that the plan is safe in each of them and
//! that each of them settles once the nodes behave.

use std::collections::BTreeMap;

use super::world::{Miniature, World, words};
use super::{Action, Plan, Policy, Snapshot, Strategy, Why, plan};
use crate::pod::Health;

const ORDINALS: u32 = 3;
/// Nodes and plan take turns at most this often until everything is as wanted.
const ROUNDS_MAX: usize = 40;

#[test]
fn every_state_is_safe_and_settles() {
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for world in worlds(policy) {
            assert_safe(&world);
            assert_settles(&world);
            states += 1;
        }
    }
    assert!(states > 200_000, "only {states} states: the walk has lost its point");
}

/// Every combination of pods, replicas and roll-out.
fn worlds(policy: Policy) -> impl Iterator<Item = World> {
    let rows = every_row();
    strategies().into_iter().flat_map(move |strategy| {
        let rows = rows.clone();
        (0..=ORDINALS).flat_map(move |replicas| {
            let world = move |pods| World { strategy, replicas, update: 1, pods, ..World::new(policy) };
            rows.clone().into_iter().map(world)
        })
    })
}

/// Every combination of pods, one for each ordinal.
fn every_row() -> Vec<BTreeMap<u32, Miniature>> {
    let pods = every_pod();
    let mut rows = vec![BTreeMap::new()];
    for ordinal in 0..ORDINALS {
        rows = rows
            .iter()
            .flat_map(|row| {
                pods.iter().map(move |pod| {
                    let mut row: BTreeMap<u32, Miniature> = row.clone();
                    row.extend(pod.map(|pod| (ordinal, pod)));
                    row
                })
            })
            .collect();
    }
    rows
}

fn strategies() -> Vec<Strategy> {
    let rolling = |(partition, max_unavailable)| Strategy::RollingUpdate { partition, max_unavailable };
    let mut all: Vec<_> = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (3, 1)].into_iter().map(rolling).collect();
    all.push(Strategy::OnDelete);
    all
}

/// No pod, or one of each health, on its way out or not, of the old or the new template.
fn every_pod() -> Vec<Option<Miniature>> {
    let mut all = vec![None];
    for health in [Health::Pending, Health::Ready, Health::Available, Health::Finished] {
        for terminating in [false, true] {
            for template in [0, 1] {
                all.push(Some(Miniature { health, terminating, template }));
            }
        }
    }
    all
}

fn assert_safe(world: &World) {
    let set = world.snapshot();
    let plan = plan(&set);
    let context = || format!("{world:?}\n{}", told(&plan));
    let mut named = std::collections::HashSet::new();
    for action in &plan.actions {
        match *action {
            Action::CreatePod { ordinal, .. } => {
                assert!(!world.pods.contains_key(&ordinal), "created over a pod that exists: {}", context());
                assert!(ordinal < world.replicas, "created what is not wanted: {}", context());
                if world.policy == Policy::OrderedReady {
                    let below = (0..ordinal).all(|o| is_healthy(world, o));
                    assert!(below, "started before the pods below are available: {}", context());
                }
            }
            Action::DeletePod { ordinal, why } => {
                assert!(named.insert(ordinal), "deleted twice: {}", context());
                assert!(!world.pods[&ordinal].terminating, "deleted what is going: {}", context());
                assert_may_delete(world, ordinal, why, &context);
            }
            Action::CreateClaims { .. }
            | Action::RefuseClaims { .. }
            | Action::RepairPod { .. }
            | Action::RepairClaims { .. }
            | Action::HoldDeletion
            | Action::ReleaseDeletion => panic!("claims are in order, nothing is deleted: {}", context()),
        }
    }
    if world.policy == Policy::OrderedReady {
        let outdated = |a: &&Action| matches!(a, Action::DeletePod { why: Why::Outdated, .. });
        let updates = plan.actions.iter().filter(outdated).count();
        assert!(plan.actions.len() - updates <= 1, "more than one step at a time: {}", context());
        assert!(updates == 0 || updates == plan.actions.len(), "rolled out while scaling: {}", context());
    }
    assert_within_budget(world, &set, &plan, &context);
}

fn assert_may_delete(world: &World, ordinal: u32, why: Why, context: &dyn Fn() -> String) {
    let pod = world.pods[&ordinal];
    match why {
        Why::Finished => assert_eq!(pod.health, Health::Finished, "{}", context()),
        Why::ScaleDown => {
            assert!(ordinal >= world.replicas, "removed what is wanted: {}", context());
            if world.policy == Policy::OrderedReady {
                let wanted = (0..world.replicas).all(|o| is_healthy(world, o));
                assert!(wanted, "shrank although a pod that stays is unhealthy: {}", context());
                let highest = world.pods.keys().next_back();
                assert_eq!(highest, Some(&ordinal), "not from the top: {}", context());
            }
        }
        Why::SetDeleted => panic!("the set is not deleted: {}", context()),
        Why::Outdated => {
            let Strategy::RollingUpdate { partition, .. } = world.strategy else { panic!("OnDelete: {}", context()) };
            assert!(ordinal >= partition, "below the partition: {}", context());
            assert_ne!(pod.template, world.update, "up to date: {}", context());
        }
    }
}

/// A roll-out takes down available pods only while fewer than `maxUnavailable` are unavailable.
fn assert_within_budget(world: &World, set: &Snapshot, plan: &Plan, context: &dyn Fn() -> String) {
    let Strategy::RollingUpdate { max_unavailable, .. } = world.strategy else { return };
    let taken = plan.actions.iter().filter(|action| match action {
        Action::DeletePod { ordinal, why: Why::Outdated } => is_healthy(world, *ordinal),
        _ => false,
    });
    let taken = taken.count();
    let down = set.replicas.iter().filter(|slot| !slot.pod.is_some_and(|pod| pod.is_healthy())).count();
    let most = usize::try_from(max_unavailable).expect("small");
    assert!(taken == 0 || taken + down <= most, "took down too many: {}", context());
}

fn assert_settles(start: &World) {
    let mut world = start.clone();
    for _ in 0..ROUNDS_MAX {
        let plan = plan(&world.snapshot());
        if plan.is_settled() {
            return assert_as_wanted(start, &world);
        }
        world.obey(&plan);
        world.nodes_behave();
    }
    panic!("does not settle: {start:?}\nends as {world:?}\n{}", told(&plan(&world.snapshot())));
}

fn assert_as_wanted(start: &World, end: &World) {
    let names: Vec<u32> = end.pods.keys().copied().collect();
    assert_eq!(names, (0..end.replicas).collect::<Vec<_>>(), "{start:?}");
    assert!(end.pods.keys().all(|o| is_healthy(end, *o)), "{start:?}\n{end:?}");
    if let Strategy::RollingUpdate { partition, .. } = end.strategy {
        let stale = end.pods.iter().find(|(ordinal, pod)| **ordinal >= partition && pod.template != end.update);
        assert_eq!(stale, None, "{start:?}\n{end:?}");
    }
}

fn is_healthy(world: &World, ordinal: u32) -> bool {
    world.pods.get(&ordinal).is_some_and(|pod| pod.health == Health::Available && !pod.terminating)
}

fn told(plan: &Plan) -> String {
    plan.actions.iter().map(|action| words(*action)).collect::<Vec<_>>().join(", ")
}
