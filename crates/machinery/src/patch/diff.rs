//! Strategic merge patches made from two objects (kubectl's edit) or three (kubectl's apply).
//!
//! Source of the rules: `k8s.io/apimachinery/pkg/util/strategicpatch`.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};
use stead_api::schema::{Schema, Shape};

use super::strategic::{
    DELETE_FROM, DIRECTIVE, Into, Object, RETAIN_KEYS, SET_ORDER, StrategicError, merge_map, meta_of, no_key,
};

/// Which differences count.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    ignore_deletions: bool,
    ignore_changes: bool,
    retain_keys: bool,
}

/// The patch that makes `modified` of `original`, both objects of the given shape; empty when they are equal.
///
/// # Errors
/// A list item without its merge key, a list of lists that should merge.
pub fn two_way(schema: &Schema, shape: Shape, original: &Value, modified: &Value) -> Result<Value, StrategicError> {
    let (Value::Object(original), Value::Object(modified)) = (original, modified) else { return Ok(json!({})) };
    diff_maps(schema, shape, original, modified, Options::default()).map(Value::Object)
}

/// The patch for `current` that brings in what `modified` wants and deletes what `original` (the object as last applied) had
/// and `modified` has no more. What others set stays.
///
/// # Errors
/// As [`two_way`].
pub fn three_way(
    schema: &Schema,
    shape: Shape,
    original: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, StrategicError> {
    let empty = Map::new();
    let original = original.as_object().unwrap_or(&empty);
    let (Value::Object(modified), Value::Object(current)) = (modified, current) else { return Ok(json!({})) };
    let delta = Options { ignore_deletions: true, ..Options::default() };
    let delta = diff_maps(schema, shape, current, modified, delta)?;
    let deletions = Options { ignore_changes: true, ..Options::default() };
    let deletions = diff_maps(schema, shape, original, modified, deletions)?;
    merge_map(schema, shape, deletions, delta, Into::Patch).map(Value::Object)
}

fn diff_maps(
    schema: &Schema,
    shape: Shape,
    original: &Object,
    modified: &Object,
    options: Options,
) -> Result<Object, StrategicError> {
    let mut patch = Object::new();
    for (key, new) in modified {
        match (original.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                diff_map_field(schema, shape, key, old, new, options, &mut patch)?;
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                diff_list_field(schema, shape, key, old, new, options, &mut patch)?;
            }
            (old, new) => {
                if !options.ignore_changes && old != Some(new) {
                    patch.insert(key.clone(), new.clone());
                }
            }
        }
    }
    if !options.ignore_deletions {
        for key in original.keys().filter(|key| !modified.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    let new_field = modified.iter().any(|(key, value)| !value.is_null() && !original.contains_key(key));
    if options.retain_keys && (!patch.is_empty() || new_field) {
        let mut keys: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(key, _)| key).collect();
        keys.sort_unstable();
        if !keys.is_empty() {
            patch.insert(RETAIN_KEYS.into(), json!(keys));
        }
    }
    Ok(patch)
}

fn diff_map_field(
    schema: &Schema,
    shape: Shape,
    key: &str,
    old: &Object,
    new: &Object,
    options: Options,
    patch: &mut Object,
) -> Result<(), StrategicError> {
    let (inner, meta) = meta_of(schema, shape, key);
    if meta.replace {
        // Upstream does not look whether it differs.
        if !options.ignore_changes {
            patch.insert(key.to_owned(), new.clone().into());
        }
        return Ok(());
    }
    let options = Options { retain_keys: meta.retain_keys, ..options };
    let difference = diff_maps(schema, inner, old, new, options)?;
    if !difference.is_empty() {
        patch.insert(key.to_owned(), difference.into());
    }
    Ok(())
}

fn diff_list_field(
    schema: &Schema,
    shape: Shape,
    key: &str,
    old: &[Value],
    new: &[Value],
    options: Options,
    patch: &mut Object,
) -> Result<(), StrategicError> {
    let (inner, meta) = meta_of(schema, shape, key);
    if !meta.merge {
        if !options.ignore_changes && old != new {
            patch.insert(key.to_owned(), new.into());
        }
        return Ok(());
    }
    let options = Options { retain_keys: meta.retain_keys, ..options };
    if old.is_empty() {
        if !new.is_empty() && !options.ignore_changes {
            patch.insert(key.to_owned(), new.into());
        }
        return Ok(());
    }
    if old.iter().chain(new).any(Value::is_array) {
        return Err(StrategicError::ListOfLists);
    }
    let parts = if old.iter().chain(new).any(Value::is_object) {
        let Some(merge_key) = meta.key else { return Err(StrategicError::ListWithoutKey(schema.go_name(inner))) };
        diff_items(schema, inner, old, new, merge_key, options)?
    } else {
        diff_scalars(old, new, options)
    };
    let mut put = |prefix: &str, list: Vec<Value>| {
        if !list.is_empty() {
            patch.insert(format!("{prefix}{key}"), list.into());
        }
    };
    put("", parts.items);
    put(DELETE_FROM, parts.deletions);
    put(SET_ORDER, parts.order);
    Ok(())
}

/// What a patch says of a list: items, scalars to delete, the wanted order.
#[derive(Default)]
struct Parts {
    items: Vec<Value>,
    deletions: Vec<Value>,
    order: Vec<Value>,
}

fn diff_scalars(old: &[Value], new: &[Value], options: Options) -> Parts {
    let only = |list: &[Value], other: &[Value]| {
        let mut found: Vec<Value> = Vec::new();
        for item in list {
            if !other.contains(item) && !found.contains(item) {
                found.push(item.clone());
            }
        }
        found
    };
    let items = if options.ignore_changes { Vec::new() } else { only(new, old) };
    let deletions = if options.ignore_deletions { Vec::new() } else { only(old, new) };
    let changed = (!options.ignore_deletions && !deletions.is_empty()) || (!options.ignore_changes && old != new);
    let order = if changed { new.to_vec() } else { Vec::new() };
    Parts { items, deletions, order }
}

fn diff_items(
    schema: &Schema,
    shape: Shape,
    old: &[Value],
    new: &[Value],
    key: &str,
    options: Options,
) -> Result<Parts, StrategicError> {
    for item in old.iter().chain(new) {
        if item.get(key).is_none() {
            return Err(no_key(item, key));
        }
    }
    let by_key = |list: &[Value], item: &Value| list.iter().find(|other| other[key] == item[key]).cloned();
    let mut items = Vec::new();
    for item in new {
        match (by_key(old, item), item) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                let mut difference = diff_maps(schema, shape, &before, after, options)?;
                if !difference.is_empty() {
                    difference.insert(key.to_owned(), item[key].clone());
                    items.push(difference.into());
                }
            }
            _ if options.ignore_changes => {}
            (_, item) => items.push(item.clone()),
        }
    }
    if !options.ignore_deletions {
        let mut gone: Vec<&Value> = old.iter().filter(|item| by_key(new, item).is_none()).collect();
        gone.sort_by(|a, b| compare(&a[key], &b[key]));
        items.extend(gone.iter().map(|item| json!({key: item[key], DIRECTIVE: "delete"})));
    }
    let same_order = same_order(old, new, key);
    let content = !items.is_empty();
    let told = (!options.ignore_changes && (content || !same_order)) || (!options.ignore_deletions && content);
    let order = if told { new.iter().map(|item| json!({key: item[key]})).collect() } else { Vec::new() };
    Ok(Parts { items, deletions: Vec::new(), order })
}

/// Whether the lists have the same items, by their keys, in the same order. As upstream has it, one that is longer is another.
fn same_order(old: &[Value], new: &[Value], key: &str) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old[key] == new[key])
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_str(), b.as_str()) {
        (Some(a), Some(b)) => a.cmp(b),
        _ => a.to_string().cmp(&b.to_string()),
    }
}
