//! Visits every state of small sets as the companion finds them, and checks that what it does is safe in each of them, and
//! that it and a built-in controller bring each of them to its end, whoever acts first.

use super::{Share, built_in, plan, together};
use crate::pod::{Health, Record};
use crate::statefulset::explore::{
    ORDINALS, ROUNDS_MAX, THIRD, UPDATE, assert_within_budget, every_pod, every_row, is_healthy, strategies, told,
};
use crate::statefulset::world::World;
use crate::statefulset::{Action, Plan, Policy, Strategy, Why};

#[test]
fn every_ordered_state_is_safe_and_settles() {
    walk(Policy::OrderedReady);
}

#[test]
fn every_parallel_state_is_safe_and_settles() {
    walk(Policy::Parallel);
}

fn walk(policy: Policy) {
    let rows = every_row(ORDINALS, &every_pod());
    let mut states = 0;
    for (share, strategy, replicas) in sets() {
        for pods in &rows {
            let broken = Some(THIRD);
            let world = World { strategy, replicas, update: UPDATE, broken, pods: pods.clone(), ..World::new(policy) };
            assert_safe(&world, share);
            assert_settles(&world, share, Turns::Together);
            if one_by_one(&strategy) {
                assert_settles(&world, share, Turns::BuiltInFirst);
                assert_settles(&world, share, Turns::CompanionFirst);
            }
            states += 1;
        }
    }
    assert!(states > 90_000, "only {states} states: the walk has lost its point");
}

/// Every strategy for a set that is as large as there are pods; for smaller ones, and where the built-in controller rolls
/// out, those that differ.
fn sets() -> Vec<(Share, Strategy, u32)> {
    let rolls = |strategy: &Strategy| matches!(strategy, Strategy::RollingUpdate { .. });
    let all: Vec<Strategy> = strategies().into_iter().filter(rolls).collect();
    let few: Vec<Strategy> = all.iter().filter(|strategy| one_by_one(strategy)).copied().collect();
    let mut sets: Vec<_> = all.iter().map(|strategy| (Share::RollOuts, *strategy, ORDINALS)).collect();
    sets.extend(few.iter().map(|strategy| (Share::RollOuts, *strategy, ORDINALS - 1)));
    sets.extend(few.iter().map(|strategy| (Share::Healing, *strategy, ORDINALS)));
    sets
}

fn one_by_one(strategy: &Strategy) -> bool {
    matches!(strategy, Strategy::RollingUpdate { partition: 0 | 1, max_unavailable: 1 })
}

#[derive(Clone, Copy, Debug)]
enum Turns {
    /// Both look at the same state, then both act.
    Together,
    BuiltInFirst,
    CompanionFirst,
}

fn assert_safe(world: &World, share: Share) {
    let set = world.snapshot();
    let ours = plan(&set, share);
    let context = || format!("{share:?} {world:?}\n{}", told(&ours));
    let mut named = std::collections::HashSet::new();
    for action in &ours.actions {
        let Action::DeletePod { ordinal, why } = *action else { panic!("only deletes: {}", context()) };
        assert!(named.insert(ordinal), "deleted twice: {}", context());
        assert!(!world.pods[&ordinal].terminating, "deleted what is going: {}", context());
        assert_may_delete(world, share, (ordinal, why), &context);
    }
    for plan in [&ours, &together(&set, share)] {
        assert_within_budget(world, &set, plan, &context);
    }
}

fn assert_may_delete(world: &World, share: Share, (ordinal, why): (u32, Why), context: &dyn Fn() -> String) {
    let Strategy::RollingUpdate { partition, .. } = world.strategy else { panic!("OnDelete is not asked for") };
    let pod = world.pods[&ordinal];
    let sick = matches!(pod.health, Health::Pending | Health::Starting) && pod.record != Record::WasReady;
    match why {
        Why::Outdated => {
            assert!(share == Share::RollOuts && ordinal < world.replicas, "not its business: {}", context());
            assert!(ordinal >= partition, "below the partition: {}", context());
            assert_ne!(pod.template, world.update, "up to date: {}", context());
        }
        Why::Broken => {
            assert!(sick && ordinal < world.replicas, "healed what works or is not wanted: {}", context());
            let made = if share == Share::Healing && ordinal < partition { world.current } else { world.update };
            assert_ne!(pod.template, made, "would come back as it was: {}", context());
            let kept = ordinal < partition && pod.template == world.current;
            assert!(!kept, "updated below the partition: {}", context());
        }
        Why::ScaleDown => assert!(sick && ordinal >= world.replicas, "took down what may recover: {}", context()),
        Why::Finished | Why::Stopped | Why::Recreate | Why::SetDeleted => panic!("not the companion's: {}", context()),
    }
}

fn assert_settles(start: &World, share: Share, turns: Turns) {
    let mut world = start.clone();
    for _ in 0..ROUNDS_MAX {
        if together(&world.snapshot(), share).is_settled() {
            return assert_as_wanted(start, &world, turns);
        }
        match turns {
            Turns::Together => world.obey(&together(&world.snapshot(), share)),
            Turns::BuiltInFirst => {
                world.obey(&built_in(&world.snapshot(), share));
                world.obey(&plan(&world.snapshot(), share));
            }
            Turns::CompanionFirst => {
                world.obey(&plan(&world.snapshot(), share));
                world.obey(&built_in(&world.snapshot(), share));
            }
        }
        world.nodes_behave();
    }
    let last: Plan = together(&world.snapshot(), share);
    panic!("{turns:?} does not settle: {share:?} {start:?}\nends as {world:?}\n{}", told(&last));
}

fn assert_as_wanted(start: &World, end: &World, turns: Turns) {
    let names: Vec<u32> = end.pods.keys().copied().collect();
    assert_eq!(names, (0..end.replicas).collect::<Vec<_>>(), "{turns:?} {start:?}");
    assert!(end.pods.keys().all(|ordinal| is_healthy(end, *ordinal)), "{turns:?} {start:?}\n{end:?}");
    let Strategy::RollingUpdate { partition, .. } = end.strategy else { panic!("OnDelete is not asked for") };
    let stale = end.pods.iter().find(|(ordinal, pod)| **ordinal >= partition && pod.template != end.update);
    assert_eq!(stale, None, "{turns:?} {start:?}\n{end:?}");
}
