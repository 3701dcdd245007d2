//! Bugs that are planted on purpose are found, each by the rule that is there for it.

use stead_simulator::{BUGS, Bug, run_with};

/// Seeds that are tried when those that are known to find a bug do so no more, because something changed their course.
const SEARCH_SEEDS: u64 = 150;

#[test]
fn every_planted_bug_is_found() {
    let missed: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = BUGS.iter().map(|bug| (bug, scope.spawn(|| found(bug)))).collect();
        tries.into_iter().filter_map(|(bug, found)| (!found.join().expect("no panic")).then_some(bug)).collect()
    });
    assert!(missed.is_empty(), "look with `stead-simulator --hunt 2 --plant NAME`: {missed:#?}");
}

/// Whether some seed finds the bug by its rule.
fn found(bug: &Bug) -> bool {
    let seeds = bug.seeds.iter().copied().chain(0..SEARCH_SEEDS);
    let mut told = seeds.filter_map(|seed| run_with(seed, Some(bug.plant), false).expect("a simulation").violation);
    told.any(|told| bug.told.iter().any(|text| told.contains(text)))
}
