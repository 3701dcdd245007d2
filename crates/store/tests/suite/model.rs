//! Random writes on every backend, compared with a model that is too simple to be wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use stead_store::{Durability, Expect, Options, Revision, Store, StoreError, Write};

use crate::story::{Backend, block_on};

#[derive(Clone, Debug)]
enum Step {
    /// Key, value (or delete), which expectation, lazily?
    Write(u8, Option<u8>, Guess, bool),
    Compact(u8),
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Guess {
    Absent,
    Exists,
    Any,
    /// The right revision, or one that is off by this much.
    Modified(u64),
}

/// Every state that ever was.
#[derive(Debug, Default)]
struct Model {
    states: Vec<BTreeMap<Bytes, (u8, Revision, Revision)>>,
    floor: Revision,
}

impl Model {
    fn now(&self) -> BTreeMap<Bytes, (u8, Revision, Revision)> {
        self.states.last().cloned().unwrap_or_default()
    }

    fn write(&mut self, write: &Write, value: Option<u8>) -> Option<Revision> {
        let mut state = self.now();
        let current = state.get(&write.key).copied();
        let met = match write.expect {
            Expect::Absent => current.is_none(),
            Expect::Exists => current.is_some(),
            Expect::Any => true,
            Expect::Modified(revision) => current.is_some_and(|(_, _, modified)| modified == revision),
        };
        if !met || (value.is_none() && current.is_none()) {
            return None;
        }
        let revision = self.states.len() as Revision + 1;
        match value {
            Some(value) => state.insert(write.key.clone(), (value, current.map_or(revision, |c| c.1), revision)),
            None => state.remove(&write.key),
        };
        self.states.push(state);
        Some(revision)
    }

    fn at(&self, revision: Revision) -> BTreeMap<Bytes, (u8, Revision, Revision)> {
        if revision == 0 { BTreeMap::new() } else { self.states[revision as usize - 1].clone() }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let guess = prop_oneof![
        1 => Just(Guess::Absent),
        1 => Just(Guess::Exists),
        3 => Just(Guess::Any),
        3 => (0u64..2).prop_map(Guess::Modified),
    ];
    let step = prop_oneof![
        12 => (0u8..6, proptest::option::weighted(0.7, any::<u8>()), guess, any::<bool>())
            .prop_map(|(key, value, guess, lazy)| Step::Write(key, value, guess, lazy)),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_backend_is_the_model(steps in steps()) {
        for mut backend in Backend::all(Options::default()) {
            block_on(run(&mut backend, &steps));
        }
    }
}

async fn run(backend: &mut Backend, steps: &[Step]) {
    let mut store = backend.open().await;
    let mut model = Model::default();
    let mut watch = store.watch(b"k", 0).await.unwrap();
    let mut watched: Revision = 0;
    for step in steps {
        match step {
            Step::Write(key, value, guess, lazy) => {
                let write = concrete(&model, *key, *value, *guess, *lazy);
                let want = model.write(&write, *value);
                match store.write(write).await {
                    Ok(revision) => assert_eq!(Some(revision), want),
                    Err(StoreError::Unmet { .. }) => assert_eq!(None, want),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Compact(at) => {
                let before = Revision::from(*at) % (model.states.len() as Revision + 1);
                store.compact(before).await.unwrap();
                model.floor = model.floor.max(before.saturating_sub(1));
            }
            Step::Reopen => {
                store = backend.reopen(store).await;
                watch = store.watch(b"k", watched.max(model.floor)).await.unwrap();
                watched = watched.max(model.floor);
            }
        }
        while let Ok(change) = watch.try_recv() {
            assert_eq!(change.revision, watched + 1, "each change once, in order");
            watched = change.revision;
        }
        assert_eq!(watched, model.states.len() as Revision, "no change is missing");
        compare(&*store, &model).await;
    }
}

fn concrete(model: &Model, key: u8, value: Option<u8>, guess: Guess, lazy: bool) -> Write {
    let key = Bytes::from(format!("k{key}"));
    let modified = model.now().get(&key).map_or(0, |(_, _, modified)| *modified);
    let expect = match guess {
        Guess::Absent => Expect::Absent,
        Guess::Exists => Expect::Exists,
        Guess::Any => Expect::Any,
        Guess::Modified(off) => Expect::Modified(modified + off),
    };
    let durability = if lazy { Durability::Lazy } else { Durability::Now };
    Write { key, value: value.map(|value| Bytes::from(vec![value])), expect, durability }
}

async fn compare(store: &dyn Store, model: &Model) {
    let newest = model.states.len() as Revision;
    assert_eq!(store.revision(), newest);
    for revision in model.floor..=newest {
        let range = store.range(b"", b"", 0, Some(revision)).await.unwrap();
        let got: Vec<_> = range.entries.iter().map(|e| (e.key.clone(), (e.value[0], e.created, e.modified))).collect();
        assert_eq!(got, model.at(revision).into_iter().collect::<Vec<_>>(), "at revision {revision}");
    }
    if model.floor > 0 {
        let old = store.range(b"", b"", 0, Some(model.floor - 1)).await;
        assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
    }
    let history = store.history(b"").await.unwrap();
    assert_eq!(history.iter().map(|c| c.revision).collect::<Vec<_>>(), (model.floor + 1..=newest).collect::<Vec<_>>());
}
