//! Strategic merge patches: lists merge item by item where the schema says so, and directives say what merging cannot.
//!
//! Directives: `$patch: replace | delete`, `$retainKeys`, `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`.
//! Source of the rules: `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::{Map, Value};
use stead_api::schema::{Patch, Schema, Shape};

use super::go_value;
use super::order::{self, key_of};

pub(super) type Object = Map<String, Value>;

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
pub(super) const SET_ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied or made. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: String },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergingLists,
    #[error("cannot merge lists without merge key for {0}")]
    ListWithoutKey(String),
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    SetOrder,
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { patch: String, order: String },
    #[error("lists of lists are not supported")]
    ListOfLists,
}

/// What a patch is merged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Into {
    /// An object: directives are obeyed, nulls delete.
    Object,
    /// Another patch: directives and nulls are kept for the one who applies it.
    Patch,
}

/// Merges `patch` into `original`, an object of the given shape, and returns the result.
///
/// # Errors
/// When the patch is not well formed: a list item without its merge key, an unknown directive.
pub fn apply(schema: &Schema, shape: Shape, original: Value, patch: Value) -> Result<Value, StrategicError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else { return Ok(Value::Null) };
    merge_map(schema, shape, original, patch, Into::Object).map(Value::Object)
}

/// How a field of a value merges, and the shape of the field's value or of its items.
pub(super) fn meta_of(schema: &Schema, shape: Shape, field: &str) -> (Shape, Patch) {
    match shape {
        Shape::Struct(id) => match schema.get(id).field(field) {
            Some(found) => match found.shape {
                Shape::List(items) => (schema.shape(items), found.patch),
                other => (other, found.patch),
            },
            None => (Shape::Any, Patch::default()),
        },
        Shape::Map(inner) => (schema.shape(inner), Patch::default()),
        _ => (Shape::Any, Patch::default()),
    }
}

pub(super) fn merge_map(
    schema: &Schema,
    shape: Shape,
    mut original: Object,
    mut patch: Object,
    into: Into,
) -> Result<Object, StrategicError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch, into)?;
    ordered_lists(schema, shape, &mut original, &mut patch, into)?;
    for (key, value) in patch {
        let deletion = key.strip_prefix(DELETE_FROM);
        if let (Some(field), Into::Object) = (deletion, into) {
            delete_scalars(&mut original, field, &value)?;
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) if into == Into::Object => continue,
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (inner, meta) = meta_of(schema, shape, &key);
                if meta.replace { Value::Object(new) } else { merge_map(schema, inner, old, new, into)?.into() }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (inner, meta) = meta_of(schema, shape, &key);
                merge_list(schema, inner, meta, old, new, into)?.into()
            }
            (_, value) => taken(value, into),
        };
        original.insert(key, merged);
    }
    if into == Into::Patch {
        sort_by_directives(schema, shape, &mut original)?;
    }
    Ok(original)
}

/// Two patches made one: the items of each list have to stand as its `$setElementOrder` says.
fn sort_by_directives(schema: &Schema, shape: Shape, patch: &mut Object) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let field = directive.trim_start_matches(SET_ORDER);
        if let (Some(Value::Array(wanted)), Some(Value::Array(items))) = (patch.get(&directive), patch.get(field)) {
            let (_, meta) = meta_of(schema, shape, field);
            let sorted = order::arrange(items.clone(), wanted, &[], meta.key)?;
            patch.insert(field.to_owned(), sorted.into());
        }
    }
    Ok(())
}

fn unknown_directive(directive: &Value, mut map: Object) -> StrategicError {
    map.insert(DIRECTIVE.into(), directive.clone());
    StrategicError::UnknownDirective { directive: go_value(directive), map: go_value(&map.into()) }
}

/// A value of the patch where the original has none: without nulls and directives, unless it stays a patch.
fn taken(value: Value, into: Into) -> Value {
    if into == Into::Patch {
        return value;
    }
    match value {
        Value::Object(map) => {
            let plain = map.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            plain.map(|(key, value)| (key, taken(value, into))).collect::<Object>().into()
        }
        Value::Array(list) => {
            let is_command = |item: &Value| item.get(DIRECTIVE).is_some_and(|d| d == "delete" || d == "replace");
            let items = list.into_iter().filter(|item| !is_command(item));
            items.map(|item| taken(item, into)).collect::<Vec<_>>().into()
        }
        other => other,
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

fn retain_keys(original: &mut Object, patch: &mut Object, into: Into) -> Result<(), StrategicError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if into == Into::Patch {
        return match original.get(RETAIN_KEYS) {
            Some(earlier) if *earlier != directive => Err(StrategicError::RetainKeys),
            Some(_) => Ok(()),
            None => {
                original.insert(RETAIN_KEYS.into(), directive);
                Ok(())
            }
        };
    }
    let keys = directive.as_array().ok_or(StrategicError::RetainKeys)?;
    let listed = |key: &str| keys.iter().any(|k| k == key);
    let stray = |(key, value): (&String, &Value)| !value.is_null() && !is_directive(key) && !listed(key);
    if patch.iter().any(stray) {
        return Err(StrategicError::RetainKeys);
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// Obeys `$setElementOrder/FIELD`: merges the list and brings it into the wanted order.
fn ordered_lists(
    schema: &Schema,
    shape: Shape,
    original: &mut Object,
    patch: &mut Object,
    into: Into,
) -> Result<(), StrategicError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let wanted = patch.remove(&directive).unwrap_or_default();
        if into == Into::Patch {
            if original.get(&directive).is_some_and(|earlier| *earlier != wanted) {
                return Err(StrategicError::SetOrder);
            }
            original.insert(directive, wanted);
            continue;
        }
        let Value::Array(wanted) = wanted else { return Err(StrategicError::SetOrder) };
        let field = directive.trim_start_matches(SET_ORDER);
        let (inner, meta) = meta_of(schema, shape, field);
        let items = patch.remove(field);
        check_order(items.as_ref(), &wanted, meta.key)?;
        let live = match original.remove(field) {
            Some(Value::Array(list)) => Some(list),
            Some(_) => return Err(StrategicError::SetOrder),
            None => None,
        };
        let server_order = live.clone().unwrap_or_default();
        let merged = match (live, items) {
            (Some(live), Some(Value::Array(items))) => merge_list(schema, inner, meta, live, items, into)?,
            (Some(live), _) => live,
            (None, Some(items @ Value::Array(_))) => match taken(items, into) {
                Value::Array(list) => list,
                _ => Vec::new(),
            },
            (None, _) => continue,
        };
        let ordered = order::arrange(merged, &wanted, &server_order, meta.key)?;
        original.insert(field.to_owned(), ordered.into());
    }
    Ok(())
}

/// The items of the patch have to stand in the order that the directive gives.
fn check_order(items: Option<&Value>, wanted: &[Value], key: Option<&str>) -> Result<(), StrategicError> {
    let Some(Value::Array(items)) = items else { return Ok(()) };
    let plain = items.iter().filter(|item| item.get(DIRECTIVE).is_none());
    let mut rest = wanted.iter();
    for item in plain {
        let same = |other: &&Value| key_of(other, key) == key_of(item, key);
        if rest.by_ref().find(same).is_none() {
            let show = |list: &[Value]| go_value(&Value::Array(list.to_vec()));
            return Err(StrategicError::OrderMismatch { patch: show(items), order: show(wanted) });
        }
    }
    Ok(())
}

fn delete_scalars(original: &mut Object, field: &str, gone: &Value) -> Result<(), StrategicError> {
    let Value::Array(gone) = gone else { return Err(StrategicError::PrimitiveList) };
    if let Some(Value::Array(list)) = original.get_mut(field) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn merge_list(
    schema: &Schema,
    items: Shape,
    meta: Patch,
    mut original: Vec<Value>,
    patch: Vec<Value>,
    into: Into,
) -> Result<Vec<Value>, StrategicError> {
    if !meta.merge {
        return Ok(patch.into_iter().map(|item| taken(item, into)).collect());
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(StrategicError::ListOfLists);
    }
    let server_order = original.clone();
    if !original.iter().chain(&patch).any(Value::is_object) {
        let wanted = patch.clone();
        for item in patch {
            if !original.contains(&item) {
                original.push(item);
            }
        }
        return order::arrange(original, &wanted, &server_order, None);
    }
    let Some(key) = meta.key else { return Err(StrategicError::ListWithoutKey(schema.go_name(items))) };
    let (original, patch) = obey_items(original, patch, key, into)?;
    let wanted = patch.clone();
    let merged = merge_items(schema, items, original, patch, key, into)?;
    order::arrange(merged, &wanted, &server_order, Some(key))
}

/// Obeys the `$patch` directives of single items; what is left are plain items.
fn obey_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    into: Into,
) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
            None => plain.push(item),
            Some("delete") => {
                let value = item.get(key).ok_or_else(|| no_key(&item, key))?;
                original.retain(|other| other.get(key) != Some(value));
                if into == Into::Patch {
                    plain.push(item);
                }
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(StrategicError::MergingLists),
            Some(_) => {
                let Value::Object(mut map) = item else { continue };
                let directive = map.remove(DIRECTIVE).unwrap_or_default();
                return Err(unknown_directive(&directive, map));
            }
        }
    }
    Ok(if replace { (Vec::new(), plain) } else { (original, plain) })
}

pub(super) fn no_key(item: &Value, key: &str) -> StrategicError {
    StrategicError::NoMergeKey { map: go_value(item), key: key.to_owned() }
}

fn merge_items(
    schema: &Schema,
    items: Shape,
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    into: Into,
) -> Result<Vec<Value>, StrategicError> {
    for item in patch {
        let Some(value) = item.get(key) else { return Err(no_key(&item, key)) };
        let found = original.iter_mut().find(|other| other.get(key) == Some(value));
        match (found, item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                *old = merge_map(schema, items, std::mem::take(old), new, into)?;
            }
            (_, item) => original.push(taken(item, into)),
        }
    }
    Ok(original)
}
