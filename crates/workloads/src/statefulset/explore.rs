//! Visits every state of small sets, whatever brought it about, and checks that the plan is safe in each of them and
//! that each of them settles once the nodes behave.
//!
//! Dimensions: policy x strategy (every partition and `maxUnavailable`, `OnDelete`) x healing x replicas x for each
//! ordinal no pod, or one of any health (waiting for `minReadySeconds` included), on its way out or not, of the
//! current, the new or a third template. Pods of the third template that never were Ready never will be: with healing
//! they must not hold the set up. A second walk does the same for the states of claims, a third for pausing, a fourth for
//! pods whose volumes are not those of the claim templates, a fifth for stopped ordinals,
//! a sixth for evictions, a seventh for handing over.

use std::collections::BTreeMap;

use super::world::{END, Miniature, World, words};
use super::{Action, Claims, HandOver, Plan, Policy, Revision, Snapshot, Strategy, Why, plan};
use crate::pod::{Health, Record};

pub(super) const ORDINALS: u32 = 3;
/// Nodes and plan take turns at most this often until everything is as wanted.
pub(super) const ROUNDS_MAX: usize = 40;
const CURRENT: u8 = 0;
pub(super) const UPDATE: u8 = 1;
pub(super) const THIRD: u8 = 2;

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
    for strategy in strategies() {
        for (replicas, pods) in (0..=ORDINALS).flat_map(|replicas| rows.iter().map(move |row| (replicas, row))) {
            // With OnDelete people replace pods, and so they do broken ones.
            let broken = (strategy != Strategy::OnDelete).then_some(THIRD);
            let world = World { strategy, replicas, update: UPDATE, broken, pods: pods.clone(), ..World::new(policy) };
            assert_safe(&world);
            assert_settles(&world);
            states += 1;
            // Without healing everything that upstream waits for has to come by itself. How many may be unavailable
            // makes no difference to that.
            if matches!(strategy, Strategy::RollingUpdate { max_unavailable: 2.., .. }) {
                continue;
            }
            let upstream = World { heals: false, broken: None, ..world };
            assert_safe(&upstream);
            assert_settles(&upstream);
            states += 1;
        }
    }
    assert!(states > 450_000, "only {states} states: the walk has lost its point");
}

#[test]
fn every_state_of_claims_is_safe_and_settles() {
    let pods: Vec<_> = every_pod().into_iter().filter(|pod| pod.is_none_or(|pod| pod.template != THIRD)).collect();
    let rows = every_row(2, &pods);
    let flags = every_claims();
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for replicas in 0..=2 {
            for pods in &rows {
                for (first, second) in flags.iter().flat_map(|a| flags.iter().map(move |b| (*a, *b))) {
                    let claims = BTreeMap::from([(0, first), (1, second)]);
                    let world = World { replicas, update: UPDATE, pods: pods.clone(), claims, ..World::new(policy) };
                    assert_claims_are_safe(&world);
                    assert_settles(&world);
                    states += 1;
                }
            }
        }
    }
    assert!(states > 50_000, "only {states} states: the walk has lost its point");
}

#[test]
fn no_paused_state_rolls_out_and_every_one_settles() {
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for strategy in strategies() {
            for pods in every_row(ORDINALS, &every_pod()) {
                let world =
                    World { strategy, replicas: ORDINALS, update: UPDATE, paused: true, pods, ..World::new(policy) };
                assert_safe(&world);
                let plan = plan(&world.snapshot());
                let rolls = |a: &Action| {
                    matches!(a, Action::DeletePod { why: Why::Outdated | Why::Recreate | Why::Broken, .. })
                };
                assert!(!plan.actions.iter().any(rolls), "{world:?}\n{}", told(&plan));
                assert_settles(&world);
            }
        }
    }
}

#[test]
fn every_state_with_other_volumes_is_safe_and_settles() {
    let rows = every_row(ORDINALS, &every_misfit());
    let rolling = |partition, max_unavailable| Strategy::RollingUpdate { partition, max_unavailable };
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        let by_hand_or_at_once = [Strategy::OnDelete, Strategy::Recreate];
        for strategy in
            [rolling(0, 1), rolling(0, 2), rolling(1, 1), rolling(3, 1)].into_iter().chain(by_hand_or_at_once)
        {
            for (replicas, pods) in (2..=ORDINALS).flat_map(|replicas| rows.iter().map(move |row| (replicas, row))) {
                for (heals, update) in [(true, UPDATE), (false, UPDATE), (true, CURRENT)] {
                    // Where people replace pods, and where nothing is healed, they have to come by themselves.
                    let breaks = heals && strategy != Strategy::OnDelete;
                    let broken = breaks.then_some(THIRD);
                    let world = World { strategy, replicas, heals, update, broken, ..World::new(policy) };
                    let world = World { misfits_break: breaks, pods: pods.clone(), ..world };
                    assert_safe(&world);
                    assert_settles(&world);
                    states += 1;
                }
            }
        }
    }
    assert!(states > 150_000, "only {states} states: the walk has lost its point");
}

#[test]
fn every_state_with_stopped_ordinals_is_safe_and_settles() {
    let pods: Vec<_> = every_pod().into_iter().filter(matters_when_stopped).collect();
    let rows = every_row(ORDINALS, &pods);
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for strategy in strategies() {
            for stopped in [vec![0], vec![1], vec![2], vec![0, 2]] {
                for (replicas, pods) in (1..=ORDINALS).flat_map(|replicas| rows.iter().map(move |row| (replicas, row)))
                {
                    let (stopped, pods) = (stopped.clone(), pods.clone());
                    let world = World { strategy, replicas, update: UPDATE, stopped, pods, ..World::new(policy) };
                    assert_safe(&world);
                    assert_settles(&world);
                    states += 1;
                }
            }
        }
    }
    assert!(states > 40_000, "only {states} states: the walk has lost its point");
}

#[test]
fn every_state_of_a_roll_out_that_evicts_is_safe_and_settles() {
    let rows = every_row(ORDINALS, &every_pod().into_iter().filter(matters_when_stopped).collect::<Vec<_>>());
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for strategy in strategies() {
            for (budget, pods) in
                [None, Some(1), Some(2)].into_iter().flat_map(|b| rows.iter().map(move |row| (b, row)))
            {
                let pods = pods.clone();
                let world = World {
                    strategy,
                    replicas: ORDINALS,
                    update: UPDATE,
                    evicts: true,
                    budget,
                    pods,
                    ..World::new(policy)
                };
                assert_safe(&world);
                assert_settles(&world);
                let none = World { evicted: 2, ..world };
                let taken = plan(&none.snapshot()).actions.into_iter().filter(|a| matches!(a, Action::EvictPod { .. }));
                assert!(budget.is_none() || taken.count() == 0, "evicted beyond the budget: {none:?}");
                states += 1;
            }
        }
    }
    assert!(states > 8_000, "only {states} states: the walk has lost its point");
}

#[test]
fn every_state_of_handing_over_is_safe_and_settles() {
    let rows = every_row(ORDINALS, &every_pod().into_iter().filter(matters_when_stopped).collect::<Vec<_>>());
    let each = [None, Some(HandOver::Asked(END)), Some(HandOver::Over)];
    let mut states = 0;
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        for strategy in strategies() {
            for (pods, replicas) in rows.iter().flat_map(|row| [2, ORDINALS].map(|replicas| (row, replicas))) {
                for (first, last) in each.iter().flat_map(|first| each.iter().map(move |last| (*first, *last))) {
                    let asked = [(0, first), (2, last)].into_iter().filter(|(ordinal, _)| pods.contains_key(ordinal));
                    let asked = asked.filter_map(|(ordinal, asked)| Some((ordinal, asked?))).collect();
                    let pods = pods.clone();
                    let world = World {
                        strategy,
                        replicas,
                        update: UPDATE,
                        hands_over: true,
                        asked,
                        pods,
                        ..World::new(policy)
                    };
                    assert_safe(&world);
                    assert_settles(&world);
                    states += 1;
                }
            }
        }
    }
    assert!(states > 90_000, "only {states} states: the walk has lost its point");
}

/// One pod of each kind that an ordinal which is stopped, or its neighbour, can make a difference to.
fn matters_when_stopped(pod: &Option<Miniature>) -> bool {
    pod.is_none_or(|pod| match (pod.health, pod.template, pod.terminating) {
        (Health::Available, CURRENT | UPDATE, _) | (Health::Finished, CURRENT, _) => true,
        (Health::Pending | Health::Starting, CURRENT, _) => pod.record != Record::CrashLoops,
        _ => false,
    })
}

/// Every combination of pods, one for each ordinal.
pub(super) fn every_row(ordinals: u32, pods: &[Option<Miniature>]) -> Vec<BTreeMap<u32, Miniature>> {
    let mut rows = vec![BTreeMap::new()];
    for ordinal in 0..ordinals {
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

/// Every partition, with as many unavailable pods as can make a difference above it, and the other strategies.
pub(super) fn strategies() -> Vec<Strategy> {
    let rolling = |(partition, max_unavailable)| Strategy::RollingUpdate { partition, max_unavailable };
    let each =
        (0..=ORDINALS).flat_map(|partition| (1..=(ORDINALS - partition).max(1)).map(move |most| (partition, most)));
    each.map(rolling).chain([Strategy::OnDelete, Strategy::Recreate]).collect()
}

/// No pod, or one of each health and record, of each template; and what is on its way out.
pub(super) fn every_pod() -> Vec<Option<Miniature>> {
    let mut all = vec![None];
    let live = [
        (Health::Pending, Record::NeverReady),
        (Health::Starting, Record::WasReady),
        (Health::Ready, Record::WasReady),
        (Health::Available, Record::WasReady),
        (Health::Finished, Record::NeverReady),
    ];
    for (health, record) in live {
        for template in [CURRENT, UPDATE, THIRD] {
            all.push(Some(Miniature::new((health, record), template)));
        }
    }
    for template in [CURRENT, THIRD] {
        all.push(Some(Miniature::new((Health::Starting, Record::CrashLoops), template)));
    }
    for (health, template) in [(Health::Available, CURRENT), (Health::Available, UPDATE), (Health::Finished, UPDATE)] {
        let pod = Miniature::new((health, Record::WasReady), template);
        all.push(Some(Miniature { terminating: true, ..pod }));
    }
    all
}

/// No pod, some with the right volumes, and one of each kind with the wrong ones.
fn every_misfit() -> Vec<Option<Miniature>> {
    let fits = [(CURRENT, Health::Available), (UPDATE, Health::Available), (THIRD, Health::Pending)];
    let fits = fits.map(|(template, health)| match health {
        Health::Pending => Miniature::new((health, Record::NeverReady), template),
        _ => Miniature::new((health, Record::WasReady), template),
    });
    let kinds = [
        (Health::Pending, Record::NeverReady),
        (Health::Starting, Record::WasReady),
        (Health::Starting, Record::CrashLoops),
        (Health::Available, Record::WasReady),
        (Health::Finished, Record::NeverReady),
    ];
    let misfits = kinds.into_iter().flat_map(|kind| [CURRENT, UPDATE].map(|template| Miniature::new(kind, template)));
    let going = Miniature { terminating: true, ..Miniature::new((Health::Available, Record::WasReady), UPDATE) };
    let misfits = misfits.chain([going]).map(|pod| Miniature { misfit: true, ..pod });
    [None].into_iter().chain(fits.into_iter().chain(misfits).map(Some)).collect()
}

/// Claims as they should be, and each thing that can be remarkable about them.
fn every_claims() -> Vec<Claims> {
    let none = Claims::default();
    vec![
        none,
        Claims { missing: true, ..none },
        Claims { deleting: true, ..none },
        Claims { stale: true, ..none },
        Claims { owners: true, ..none },
        Claims { small: true, unlabelled: true, ..none },
        Claims { missing: true, deleting: true, owners: true, ..none },
    ]
}

fn assert_safe(world: &World) {
    let set = world.snapshot();
    let plan = plan(&set);
    let context = || format!("{world:?}\n{}", told(&plan));
    let mut named = std::collections::HashSet::new();
    for action in &plan.actions {
        match *action {
            Action::CreatePod { ordinal, revision } => assert_may_create(world, (ordinal, revision), &context),
            Action::DeletePod { ordinal, why } => {
                assert!(named.insert(ordinal), "deleted twice: {}", context());
                assert!(!world.pods[&ordinal].terminating, "deleted what is going: {}", context());
                assert_may_delete(world, ordinal, why, &context);
                // What goes with all others at once has nobody to hand over to.
                if why != Why::Recreate {
                    assert_has_handed_over(world, ordinal, &context);
                }
            }
            Action::EvictPod { ordinal } => {
                assert!(named.insert(ordinal), "deleted twice: {}", context());
                assert!(world.evicts, "evicts unasked: {}", context());
                assert!(world.pods[&ordinal].health.is_ready(), "evicts what does not work: {}", context());
                assert!(!world.pods[&ordinal].terminating, "evicts what is going: {}", context());
                assert_may_delete(world, ordinal, Why::Outdated, &context);
                assert_has_handed_over(world, ordinal, &context);
            }
            Action::AskHandOver { ordinal } => {
                assert!(world.pods[&ordinal].health.is_ready(), "asks what does not work: {}", context());
                assert!(!world.asked.contains_key(&ordinal), "asks again: {}", context());
                assert!(!world.pods[&ordinal].terminating, "asks what is going: {}", context());
            }
            Action::WithdrawHandOver { ordinal } => {
                assert!(world.asked.contains_key(&ordinal), "takes back what was not asked: {}", context());
                assert!(world.running().contains(&ordinal), "takes back what is still wanted: {}", context());
            }
            Action::CreateClaims { .. }
            | Action::RefuseClaims { .. }
            | Action::RepairPod { .. }
            | Action::RepairClaims { .. }
            | Action::GrowClaims { .. }
            | Action::LabelClaims { .. }
            | Action::RollBack
            | Action::HoldDeletion
            | Action::ReleaseDeletion => panic!("claims are in order, nothing is deleted: {}", context()),
        }
    }
    if world.policy == Policy::OrderedReady {
        let outdated = |a: &&Action| {
            matches!(a, Action::DeletePod { why: Why::Outdated | Why::Recreate, .. } | Action::EvictPod { .. })
        };
        let updates = plan.actions.iter().filter(outdated).count();
        let withdrawn = plan.actions.iter().filter(|a| matches!(a, Action::WithdrawHandOver { .. })).count();
        let asks = plan.actions.iter().filter(|a| matches!(a, Action::AskHandOver { .. })).count();
        let steps = plan.actions.len() - withdrawn - asks;
        assert!(steps - updates <= 1, "more than one step at a time: {}", context());
        assert!(updates == 0 || updates == steps, "rolled out while scaling: {}", context());
    }
    assert_highest_first(&plan, &context);
    assert_within_budget(world, &set, &plan, &context);
}

/// Where that is wished, nothing that is Ready goes unasked or before its time.
fn assert_has_handed_over(world: &World, ordinal: u32, context: &dyn Fn() -> String) {
    let over = world.asked.get(&ordinal) == Some(&HandOver::Over);
    let works = world.pods[&ordinal].health.is_ready();
    assert!(!world.hands_over || over || !works, "has not handed over: {}", context());
}

fn assert_may_create(world: &World, (ordinal, revision): (u32, Revision), context: &dyn Fn() -> String) {
    assert!(!world.pods.contains_key(&ordinal), "created over a pod that exists: {}", context());
    assert!(world.running().contains(&ordinal), "created what is not wanted: {}", context());
    if world.policy == Policy::OrderedReady {
        let below = world.running().into_iter().filter(|o| *o < ordinal).all(|o| is_healthy(world, o));
        assert!(below, "started before the pods below are available: {}", context());
    }
    let old = revision != Revision::UPDATE;
    if world.strategy == Strategy::Recreate {
        assert!(!old || world.paused, "the old revision without need: {}", context());
        let outdated = |pod: &Miniature| pod.template != world.update || pod.misfit;
        assert!(world.paused || !world.pods.values().any(outdated), "old and new at once: {}", context());
    } else if let Strategy::RollingUpdate { partition, .. } = world.strategy {
        let same = world.current == world.update;
        assert!(old || same || ordinal >= partition, "the new revision below the partition: {}", context());
        assert!(!old || ordinal < partition || world.paused, "the old revision without need: {}", context());
    } else {
        assert_eq!(revision, Revision::UPDATE, "OnDelete makes new pods: {}", context());
    }
}

fn assert_may_delete(world: &World, ordinal: u32, why: Why, context: &dyn Fn() -> String) {
    let pod = world.pods[&ordinal];
    match why {
        Why::Finished => assert_eq!(pod.health, Health::Finished, "{}", context()),
        Why::ScaleDown | Why::Stopped => {
            let running = world.running();
            assert!(!running.contains(&ordinal), "removed what is wanted: {}", context());
            assert_eq!(why == Why::Stopped, ordinal < world.replicas, "the wrong reason: {}", context());
            if world.policy == Policy::OrderedReady {
                let wanted = running.iter().all(|o| is_healthy(world, *o));
                assert!(wanted, "shrank although a pod that stays is unhealthy: {}", context());
                let highest = world.pods.keys().rfind(|o| !running.contains(o));
                assert_eq!(highest, Some(&ordinal), "not from the top: {}", context());
            }
        }
        Why::SetDeleted => panic!("the set is not deleted: {}", context()),
        Why::Outdated => {
            let Strategy::RollingUpdate { partition, .. } = world.strategy else { panic!("OnDelete: {}", context()) };
            assert!(ordinal >= partition, "below the partition: {}", context());
            assert!(world.running().contains(&ordinal), "updated what is to go: {}", context());
            assert!(pod.template != world.update || pod.misfit, "up to date: {}", context());
        }
        Why::Recreate => {
            assert_eq!((world.strategy, world.paused), (Strategy::Recreate, false), "{}", context());
            assert!(pod.template != world.update || pod.misfit, "up to date: {}", context());
        }
        Why::Broken => {
            let Strategy::RollingUpdate { partition, .. } = world.strategy else { panic!("OnDelete: {}", context()) };
            assert!(world.heals, "healed although that is turned off: {}", context());
            assert!(matches!(pod.health, Health::Pending | Health::Starting), "healed what works: {}", context());
            let like = |other: &Miniature| (other.template, other.misfit) == (pod.template, pod.misfit);
            let works = (0..world.replicas).any(|o| is_healthy(world, o) && like(&world.pods[&o]));
            let hopeless = match pod.record {
                Record::NeverReady => true,
                Record::CrashLoops => pod.template != world.current || !works,
                Record::WasReady => false,
            };
            assert!(hopeless, "healed what worked: {}", context());
            let target = if ordinal < partition { world.current } else { world.update };
            assert!(pod.template != target || pod.misfit, "would come back as it was: {}", context());
            assert!(world.running().contains(&ordinal), "healed what is not wanted: {}", context());
        }
    }
}

/// What is outdated and available goes from the top; so does what is outdated and not available.
fn assert_highest_first(plan: &Plan, context: &dyn Fn() -> String) {
    let scaled = |action: &Action| match *action {
        Action::DeletePod { ordinal, why: Why::ScaleDown | Why::Stopped } => Some(ordinal),
        _ => None,
    };
    let ordinals: Vec<u32> = plan.actions.iter().filter_map(scaled).collect();
    assert!(ordinals.is_sorted_by(|a, b| a > b), "not from the top: {}", context());
}

/// A roll-out takes down available pods only while fewer than `maxUnavailable` are unavailable, the highest first.
pub(super) fn assert_within_budget(world: &World, set: &Snapshot, plan: &Plan, context: &dyn Fn() -> String) {
    let Strategy::RollingUpdate { partition, max_unavailable } = world.strategy else { return };
    let taken = |action: &Action| match *action {
        Action::EvictPod { ordinal } if is_healthy(world, ordinal) => Some(ordinal),
        Action::DeletePod { ordinal, why: Why::Outdated } if is_healthy(world, ordinal) => {
            assert!(!world.evicts, "takes what works without asking: {}", context());
            Some(ordinal)
        }
        _ => None,
    };
    let taken: Vec<u32> = plan.actions.iter().filter_map(taken).collect();
    let down = set.running().filter(|slot| !slot.pod.is_some_and(|pod| pod.is_healthy())).count();
    let most = usize::try_from(max_unavailable).expect("small");
    let evicted = plan.actions.iter().filter(|action| matches!(action, Action::EvictPod { .. })).count();
    let allowed = world.budget.map_or(usize::MAX, |budget| budget.saturating_sub(world.evicted) as usize);
    assert!(evicted <= allowed, "evicts beyond the disruption budget: {}", context());
    assert!(taken.is_empty() || taken.len() + down <= most, "took down too many: {}", context());
    let candidates = world.running().into_iter().filter(|o| *o >= partition).rev();
    let outdated = |o: &u32| world.pods[o].template != world.update || world.pods[o].misfit;
    let candidates = candidates.filter(|o| is_healthy(world, *o) && outdated(o));
    // What was asked to hand over has begun to, and goes first.
    let mut candidates: Vec<u32> = candidates.collect();
    candidates.sort_by_key(|o| world.hands_over && !world.asked.contains_key(o));
    if world.hands_over {
        candidates.truncate(most.saturating_sub(down));
        assert!(taken.iter().all(|o| candidates.contains(o)), "not from the top: {}", context());
    } else {
        candidates.truncate(taken.len());
        assert_eq!(taken, candidates, "not from the top: {}", context());
    }
}

fn assert_claims_are_safe(world: &World) {
    let plan = plan(&world.snapshot());
    let context = || format!("{world:?}\n{}", told(&plan));
    for action in &plan.actions {
        match *action {
            Action::CreatePod { ordinal, .. } => {
                let claims = world.claims[&ordinal];
                assert!(!claims.stale, "started on a claim that goes with an earlier pod: {}", context());
                assert!(!claims.deleting, "started on a claim that is being deleted: {}", context());
            }
            Action::CreateClaims { ordinal } => {
                assert!(world.claims[&ordinal].missing && !world.claims[&ordinal].deleting, "{}", context());
                assert_eq!(world.pods[&ordinal].health, Health::Pending, "{}", context());
            }
            Action::RefuseClaims { ordinal } => assert!(world.claims[&ordinal].deleting, "{}", context()),
            Action::RepairPod { ordinal } | Action::RepairClaims { ordinal } => {
                assert!(world.claims[&ordinal].owners, "nothing to repair: {}", context());
            }
            Action::GrowClaims { ordinal } => {
                assert!(world.claims[&ordinal].small && ordinal < world.replicas, "{}", context());
            }
            Action::LabelClaims { ordinal } => {
                assert!(world.claims[&ordinal].unlabelled && ordinal < world.replicas, "{}", context());
            }
            Action::DeletePod { ordinal, why: Why::ScaleDown } => {
                let repaired = plan.actions.iter().position(|a| *a == Action::RepairClaims { ordinal });
                let deleted = plan.actions.iter().position(|a| a == action);
                let first = repaired < deleted;
                assert!(
                    !world.claims[&ordinal].owners || repaired.is_some() && first,
                    "before its claims: {}",
                    context()
                );
            }
            Action::DeletePod { .. }
            | Action::AskHandOver { .. }
            | Action::WithdrawHandOver { .. }
            | Action::EvictPod { .. }
            | Action::RollBack
            | Action::HoldDeletion
            | Action::ReleaseDeletion => {}
        }
    }
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
    assert_eq!(names, end.running(), "{start:?}");
    assert!(end.pods.keys().all(|o| is_healthy(end, *o)), "{start:?}\n{end:?}");
    let partition = match end.strategy {
        Strategy::RollingUpdate { partition, .. } => partition,
        Strategy::Recreate => 0,
        Strategy::OnDelete => return,
    };
    if !end.paused {
        let is_stale = |pod: &Miniature| pod.template != end.update || pod.misfit;
        let stale = end.pods.iter().find(|(ordinal, pod)| **ordinal >= partition && is_stale(pod));
        assert_eq!(stale, None, "{start:?}\n{end:?}");
    }
}

pub(super) fn is_healthy(world: &World, ordinal: u32) -> bool {
    world.pods.get(&ordinal).is_some_and(|pod| pod.health == Health::Available && !pod.terminating)
}

pub(super) fn told(plan: &Plan) -> String {
    plan.actions.iter().map(|action| words(*action)).collect::<Vec<_>>().join(", ")
}
