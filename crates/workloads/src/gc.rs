//! Who goes with whom: owners, dependents, and the three ways of deleting.
//!
//! * Background: the owner goes at once; what it owned is found without an owner and goes too.
//! * Foreground: the owner gets the finalizer `foregroundDeletion` and stays until what blocks it is gone.
//! * Orphan: the owner gets the finalizer `orphan` and stays until nothing refers to it any more.
//!
//! Source of the rules: `pkg/controller/garbagecollector`. Knows no kinds: metadata is all there is.

/// On an owner that waits for its dependents to go.
pub const FOREGROUND: &str = "foregroundDeletion";
/// On an owner that waits for its dependents to be let go.
pub const ORPHAN: &str = "orphan";

/// What is known of one owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The server said that it does not exist.
    Absent,
    /// It exists, or nobody can say.
    Present,
    /// It exists, is being deleted in the foreground, and waits for this object.
    Waiting,
}

/// One object that refers to this one as its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// Its reference says `blockOwnerDeletion`.
    pub blocks: bool,
    /// It is itself being deleted in the foreground.
    pub waiting: bool,
}

/// All that the decision about one object may look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub deleting: bool,
    pub foreground: bool,
    pub orphan: bool,
    /// In the order of its owner references.
    pub owners: Vec<Owner>,
    pub dependents: Vec<Dependent>,
}

/// How an object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    Nothing,
    Delete(Policy),
    /// Its references no longer block their owners; then it is deleted. Undoes a circle of owners.
    UnblockAndDelete,
    /// Remove the owner references at these places.
    DropOwners(Vec<usize>),
    /// Take this object out of the owner references of everything that refers to it, then drop the finalizer.
    LetDependentsGo,
    /// Nothing blocks it any more.
    DropForeground,
}

/// Decides about one object.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    if snapshot.deleting {
        return match (snapshot.orphan, snapshot.foreground) {
            (true, _) => Plan::LetDependentsGo,
            (_, true) if snapshot.dependents.iter().all(|dependent| !dependent.blocks) => Plan::DropForeground,
            _ => Plan::Nothing,
        };
    }
    let places = |wanted: fn(Owner) -> bool| -> Vec<usize> {
        snapshot.owners.iter().enumerate().filter(|(_, owner)| wanted(**owner)).map(|(place, _)| place).collect()
    };
    let lost = places(|owner| owner != Owner::Present);
    if lost.is_empty() {
        return Plan::Nothing;
    }
    if lost.len() < snapshot.owners.len() {
        return Plan::DropOwners(lost);
    }
    let waited_for = snapshot.owners.contains(&Owner::Waiting);
    if waited_for && !snapshot.dependents.is_empty() {
        let circle = snapshot.dependents.iter().any(|dependent| dependent.waiting);
        return if circle { Plan::UnblockAndDelete } else { Plan::Delete(Policy::Foreground) };
    }
    Plan::Delete(match (snapshot.orphan, snapshot.foreground) {
        (true, _) => Policy::Orphan,
        (_, true) => Policy::Foreground,
        _ => Policy::Background,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const A: Owner = Owner::Absent;
    const P: Owner = Owner::Present;
    const W: Owner = Owner::Waiting;
    const PLAIN: Dependent = Dependent { blocks: false, waiting: false };
    const BLOCKS: Dependent = Dependent { blocks: true, waiting: false };
    const CIRCLE: Dependent = Dependent { blocks: true, waiting: true };

    #[test]
    fn an_object_that_lives() {
        let stories: &[(&[Owner], &[Dependent], Plan)] = &[
            (&[], &[BLOCKS], Plan::Nothing),
            (&[P], &[], Plan::Nothing),
            (&[A], &[], Plan::Delete(Policy::Background)),
            (&[A, A], &[BLOCKS], Plan::Delete(Policy::Background)),
            (&[P, A], &[], Plan::DropOwners(vec![1])),
            (&[W, P, A], &[], Plan::DropOwners(vec![0, 2])),
            (&[W], &[], Plan::Delete(Policy::Background)),
            (&[W], &[PLAIN], Plan::Delete(Policy::Foreground)),
            (&[A, W], &[BLOCKS], Plan::Delete(Policy::Foreground)),
            (&[W], &[CIRCLE], Plan::UnblockAndDelete),
        ];
        for (owners, dependents, expected) in stories {
            let snapshot = Snapshot { owners: owners.to_vec(), dependents: dependents.to_vec(), ..Snapshot::default() };
            assert_eq!(plan(&snapshot), *expected, "{owners:?} {dependents:?}");
        }
        let kept = Snapshot { owners: vec![A], orphan: true, ..Snapshot::default() };
        assert_eq!(plan(&kept), Plan::Delete(Policy::Orphan));
    }

    #[test]
    fn an_object_that_goes() {
        let stories: &[(bool, bool, &[Dependent], Plan)] = &[
            (false, false, &[BLOCKS], Plan::Nothing),
            (true, false, &[BLOCKS], Plan::Nothing),
            (true, false, &[PLAIN], Plan::DropForeground),
            (true, false, &[], Plan::DropForeground),
            (false, true, &[BLOCKS], Plan::LetDependentsGo),
            (false, true, &[], Plan::LetDependentsGo),
        ];
        for (foreground, orphan, dependents, expected) in stories {
            let snapshot = Snapshot {
                deleting: true,
                foreground: *foreground,
                orphan: *orphan,
                owners: vec![A],
                dependents: dependents.to_vec(),
            };
            assert_eq!(plan(&snapshot), *expected);
        }
    }

    /// Objects by number: owners, and how each is being deleted.
    #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct World(BTreeMap<u8, (BTreeSet<u8>, Option<Policy>, bool)>);

    impl PartialOrd for Policy {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Policy {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            (*self as u8).cmp(&(*other as u8))
        }
    }

    impl World {
        fn delete(&mut self, n: u8, policy: Policy) {
            let has_dependents = self.0.values().any(|(owners, ..)| owners.contains(&n));
            let Some(entry) = self.0.get_mut(&n) else { return };
            match policy {
                Policy::Background => drop(self.0.remove(&n)),
                _ if has_dependents || policy == Policy::Orphan => entry.1 = entry.1.or(Some(policy)),
                _ => drop(self.0.remove(&n)),
            }
        }

        fn step(&mut self, n: u8) {
            let Some((owners, going, blocks)) = self.0.get(&n).cloned() else { return };
            let waits = |o: &u8| self.0.get(o).is_some_and(|(_, going, _)| *going == Some(Policy::Foreground));
            let state = |o: &u8| match () {
                () if waits(o) => W,
                () if self.0.contains_key(o) => P,
                () => A,
            };
            let dependents = self.0.iter().filter(|(_, (owners, ..))| owners.contains(&n));
            let snapshot = Snapshot {
                deleting: going.is_some(),
                foreground: going == Some(Policy::Foreground),
                orphan: going == Some(Policy::Orphan),
                owners: owners.iter().map(state).collect(),
                dependents: dependents
                    .map(|(d, (_, _, blocks))| Dependent { blocks: *blocks, waiting: waits(d) })
                    .collect(),
            };
            let _ = blocks;
            match plan(&snapshot) {
                Plan::Nothing => {}
                Plan::Delete(policy) => self.delete(n, policy),
                Plan::UnblockAndDelete => {
                    self.0.get_mut(&n).expect("there").2 = false;
                    self.delete(n, Policy::Foreground);
                }
                Plan::DropOwners(places) => {
                    let lost: Vec<u8> = places.iter().map(|p| *owners.iter().nth(*p).expect("there")).collect();
                    self.0.get_mut(&n).expect("there").0.retain(|o| !lost.contains(o));
                }
                Plan::LetDependentsGo => {
                    for (owners, ..) in self.0.values_mut() {
                        owners.remove(&n);
                    }
                    self.0.remove(&n);
                }
                Plan::DropForeground => drop(self.0.remove(&n)),
            }
        }
    }

    /// Every graph of three objects with owners among them, every way of deleting the first, every order of looks.
    #[test]
    fn every_small_graph_settles_as_its_policy_says() {
        for bits in 0u32..512 {
            for policy in [Policy::Background, Policy::Foreground, Policy::Orphan] {
                let mut world = World::default();
                for n in 0..3u8 {
                    let owners = (0..3u8).filter(|o| *o != n && bits >> (n * 3 + o) & 1 == 1).collect();
                    world.0.insert(n, (owners, None, true));
                }
                let only = |w: &World, n: u8| w.0[&n].0 == BTreeSet::from([0]);
                let owned: Vec<u8> = (1..3).filter(|n| only(&world, *n)).collect();
                let free: Vec<u8> = (1..3).filter(|n| world.0[n].0.is_empty()).collect();
                world.delete(0, policy);
                for round in 0..12u8 {
                    for n in [round % 3, (round + 1) % 3, (round + 2) % 3] {
                        world.step(n);
                    }
                }
                assert!(!world.0.contains_key(&0), "{policy:?} {bits:b}: the object itself stays");
                for n in &free {
                    assert!(world.0.contains_key(n), "{policy:?} {bits:b}: {n} has no owner and went");
                }
                for n in owned {
                    let stays = world.0.contains_key(&n);
                    assert_eq!(stays, policy == Policy::Orphan, "{policy:?} {bits:b}: {n}");
                }
            }
        }
    }
}
