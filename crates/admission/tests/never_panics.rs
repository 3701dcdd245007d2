//! Whatever arrives, admission answers: objects are damaged at random places and judged. And an update that changes
//! nothing passes for every object that was accepted.

#![allow(clippy::unwrap_used, reason = "test data")]

mod support;

use serde_json::{Map, Value, json};
use stead_admission::{create, update};
use stead_api::{KINDS, Subresource};
use support::{Fixed, World, kind_of, with_context};

/// Damaged copies of each object.
const COPIES: u64 = 300;

/// A small generator: the same walk every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % sides as u64).unwrap()
    }

    fn value(&mut self) -> Value {
        match self.roll(14) {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(i64::MAX),
            3 => json!(0),
            4 => json!(1.5),
            5 => json!(""),
            6 => json!("é/..\n\"x"),
            7 => json!("x".repeat(300)),
            8 => json!([]),
            9 => json!([null, 1, "a", {}]),
            10 => json!({}),
            11 => json!({"": null, "a/b/c": {"x": []}}),
            12 => json!(true),
            _ => json!("999999999999999999999999999999Ei"),
        }
    }

    /// Replaces, removes or adds something somewhere.
    fn damage(&mut self, value: &mut Value) {
        let deeper = self.roll(4) > 0;
        match value {
            Value::Object(map) if deeper && !map.is_empty() => {
                let key = map.keys().nth(self.roll(map.len())).unwrap().clone();
                match self.roll(8) {
                    0 => drop(map.remove(&key)),
                    1 => drop(map.insert("surprise".to_owned(), self.value())),
                    _ => self.damage(map.get_mut(&key).unwrap()),
                }
            }
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.roll(items.len());
                match self.roll(8) {
                    0 => drop(items.remove(at)),
                    1 => items.push(items[at].clone()),
                    _ => self.damage(&mut items[at]),
                }
            }
            other => *other = self.value(),
        }
    }
}

fn samples() -> Vec<Value> {
    let folder = format!("{}/tests/golden", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()).collect()
}

fn world() -> World {
    let mut world = World::new();
    world.add(json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": "obj"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1000"}, "maxLimitRequestRatio": {"cpu": "10"}}, {"type": "Pod", "min": {"memory": "0"}}]}}));
    world.add(json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "obj"},
        "spec": {"hard": {"pods": "1000", "requests.cpu": "1000", "services.nodeports": "100"}}}));
    world
}

#[test]
fn damaged_objects() {
    let (world, mut dice, mut accepted) = (world(), Dice(42), 0);
    for sample in samples() {
        let kind = kind_of(&sample);
        for _ in 0..COPIES {
            let (mut new, mut old) = (sample.clone(), sample.clone());
            (0..=dice.roll(4)).for_each(|_| dice.damage(&mut new));
            (0..=dice.roll(2)).for_each(|_| dice.damage(&mut old));
            let sub =
                [None, Some(Subresource::Status), Some(Subresource::Resize), Some(Subresource::EphemeralContainers)];
            let fixed = Fixed::new("10.96.1.1", 30001);
            let mut changed = new.clone();
            let sub = sub[dice.roll(sub.len())];
            with_context(&world, &fixed, "abcde", |ctx| drop(update(kind, &mut changed, &old, sub, ctx)));
            let made = with_context(&world, &fixed, "abcde", |ctx| create(kind, &mut new, ctx));
            if made.is_ok() && new.is_object() {
                accepted += 1;
                new["metadata"]["resourceVersion"] = "1".into();
                let before = new.clone();
                let same = with_context(&world, &fixed, "abcde", |ctx| update(kind, &mut new, &before, None, ctx));
                assert_eq!(same.map(|_| ()), Ok(()), "{} {before}", kind.kind);
                assert_eq!(new["spec"], before["spec"], "{}", kind.kind);
                assert_eq!(new["metadata"]["generation"], before["metadata"]["generation"], "{}", kind.kind);
            }
        }
    }
    assert!(accepted > 500, "only {accepted} were accepted");
}

#[test]
fn nothing_at_all_of_every_kind() {
    let world = world();
    for kind in KINDS {
        let fixed = Fixed::new("10.96.1.1", 30001);
        for empty in [json!({}), json!(null), json!([]), json!({"metadata": null, "spec": 1, "status": "x"})] {
            let mut object = empty.clone();
            with_context(&world, &fixed, "abcde", |ctx| drop(create(kind, &mut object, ctx)));
            let mut object = empty.clone();
            let old = Value::Object(Map::new());
            with_context(&world, &fixed, "abcde", |ctx| drop(update(kind, &mut object, &old, None, ctx)));
        }
    }
}
