//! JSON merge patches (RFC 7386): applied, and made from two or three objects.

use serde_json::{Map, Value};

/// Merges a patch into a value: objects merge, null deletes, anything else replaces.
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            apply(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// The patch that makes `modified` of `original`.
#[must_use]
pub fn diff(original: &Value, modified: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (original, modified) else { return modified.clone() };
    let mut patch = changes(old, new);
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        if let (Some(Value::Object(_)), Value::Object(_)) = (old.get(key), value) {
            let inner = diff(&old[key], value);
            if inner.as_object().is_some_and(|map| !map.is_empty()) {
                patch.insert(key.clone(), inner);
            }
        }
    }
    patch.into()
}

/// The patch for `current` that makes the changes of `modified`, and deletes what `original` had and `modified` has not.
#[must_use]
pub fn three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = additions(current, modified);
    overlay(&mut patch, deletions(original, modified));
    patch
}

/// Scalars, lists and new values that differ; objects on both sides are left to the caller.
fn changes(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let differs = |(key, value): &(&String, &Value)| match (old.get(*key), value) {
        (Some(Value::Object(_)), Value::Object(_)) => false,
        (before, value) => before != Some(*value),
    };
    new.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn additions(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let mut patch = changes(old, new);
    for (key, value) in new {
        if let (Some(before @ Value::Object(_)), Value::Object(_)) = (old.get(key), value) {
            keep(&mut patch, key, additions(before, value));
        }
    }
    patch.into()
}

fn deletions(old: &Value, new: &Value) -> Value {
    let mut patch = Map::new();
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        for (key, before) in old {
            match new.get(key) {
                None => _ = patch.insert(key.clone(), Value::Null),
                Some(after) => keep(&mut patch, key, deletions(before, after)),
            }
        }
    }
    patch.into()
}

fn keep(patch: &mut Map<String, Value>, key: &str, inner: Value) {
    if inner.as_object().is_some_and(|map| !map.is_empty()) {
        patch.insert(key.to_owned(), inner);
    }
}

/// Adds the nulls of `deletions` to `patch`.
fn overlay(patch: &mut Value, deletions: Value) {
    let (Value::Object(patch), Value::Object(deletions)) = (patch, deletions) else { return };
    for (key, value) in deletions {
        match patch.get_mut(&key) {
            Some(inner) => overlay(inner, value),
            None => _ = patch.insert(key, value),
        }
    }
}
