//! Patches of customised objects: strategic merge and JSON patches, and which objects they are for.
//!
//! Source of the rules: `sigs.k8s.io/kustomize/kyaml/yaml/merge2`. They differ from the server's in the order of lists: what a
//! patch names comes first.

use serde_json::{Map, Value};
use stead_api::schema::{Field, ListType, Schema, Shape};

use super::file::Target;
use super::resource::{Id, Resource};
use crate::failure::{Failure, Result, plain};

/// What a map or list in a patch says about itself.
const DIRECTIVE: &str = "$patch";
/// Other words of strategic merge patches; this merge does not know them.
const OTHER_DIRECTIVES: [&str; 3] = ["$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys"];

/// What a patch makes of an object; none when it deletes it.
pub(super) fn strategic(object: Value, patch: &Value) -> Result<Option<Value>> {
    if let Some(word) = find_other(patch) {
        return plain(format!("the patch directive {word:?} is not supported here"));
    }
    let id = Id::of(&object);
    let schema = stead_api::schema::schema();
    let shape = schema.of_object(&id.group, &id.version, &id.kind).map(Shape::Struct);
    Ok(merged(schema, shape, Some(object), patch))
}

fn find_other(patch: &Value) -> Option<String> {
    match patch {
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let other = OTHER_DIRECTIVES.iter().any(|word| key.starts_with(word));
            if other { Some(key.clone()) } else { find_other(value) }
        }),
        Value::Array(list) => list.iter().find_map(find_other),
        _ => None,
    }
}

/// One value with what a patch says of it.
fn merged(schema: &Schema, shape: Option<Shape>, old: Option<Value>, patch: &Value) -> Option<Value> {
    match patch {
        Value::Null => None,
        Value::Object(patch) => {
            let old = match old {
                Some(Value::Object(old)) => old,
                _ => Map::new(),
            };
            map(schema, shape, old, patch).map(Value::Object)
        }
        other => Some(other.clone()),
    }
}

fn map(
    schema: &Schema,
    shape: Option<Shape>,
    mut old: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Option<Map<String, Value>> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("delete") => return None,
        Some("replace") => old = Map::new(),
        _ => {}
    }
    for (name, new) in patch.iter().filter(|(name, _)| *name != DIRECTIVE) {
        let before = old.get_mut(name).map(Value::take).filter(|before| !before.is_null());
        let (field, inner) = field(schema, shape, name);
        let key = field.and_then(keys);
        let after = match (new, key) {
            (Value::Array(new), Some(keys)) => list(schema, inner, keys, before, new).map(Value::Array),
            _ => merged(schema, inner, before, new),
        };
        match after {
            Some(after) => drop(old.insert(name.clone(), after)),
            None => drop(old.remove(name)),
        }
    }
    Some(old)
}

/// A field of a type and the shape of its value; of the items, when it is a list.
fn field(schema: &Schema, shape: Option<Shape>, name: &str) -> (Option<&'static Field>, Option<Shape>) {
    let field = match shape {
        Some(Shape::Struct(id)) => static_schema(schema).get(id).field(name),
        Some(Shape::Map(inner)) => return (None, Some(schema.shape(inner))),
        _ => None,
    };
    let inner = field.map(|field| match field.shape {
        Shape::List(items) => schema.shape(items),
        other => other,
    });
    (field, inner)
}

/// There is one schema, and it lives as long as the program.
fn static_schema(_: &Schema) -> &'static Schema {
    stead_api::schema::schema()
}

/// By which fields a list's items are told apart, when they are merged one by one; no field for scalars.
fn keys(field: &'static Field) -> Option<Vec<&'static str>> {
    if !field.patch.merge || !matches!(field.shape, Shape::List(_)) {
        return None;
    }
    Some(match (field.list, field.patch.key) {
        (ListType::Map(keys), Some(_)) => keys.to_vec(),
        (_, Some(key)) => vec![key],
        (_, None) => Vec::new(),
    })
}

/// A list whose items are merged: first those of the patch, then those that only the old list has.
fn list(
    schema: &Schema,
    items: Option<Shape>,
    keys: Vec<&'static str>,
    old: Option<Value>,
    patch: &[Value],
) -> Option<Vec<Value>> {
    let mut old = match old {
        Some(Value::Array(old)) => old,
        _ => Vec::new(),
    };
    match patch.iter().find_map(whole_list) {
        Some("delete") => return None,
        Some("replace") => old = Vec::new(),
        _ => {}
    }
    let mut new: Vec<Value> = Vec::new();
    for item in patch.iter().filter(|item| whole_list(item).is_none()) {
        if keys.is_empty() {
            old.retain(|other| other != item);
            if !new.contains(item) {
                new.push(item.clone());
            }
            continue;
        }
        let before = old.iter().position(|other| same_item(&keys, other, item)).map(|at| old.remove(at));
        new.extend(merged(schema, items, before, item));
    }
    new.append(&mut old);
    Some(new)
}

/// An item that is only a directive is meant for the whole list.
fn whole_list(item: &Value) -> Option<&str> {
    item.as_object().filter(|map| map.len() == 1)?.get(DIRECTIVE)?.as_str()
}

/// Items are the same when no key differs and one is equal; a key that one of them leaves out does not differ.
fn same_item(keys: &[&str], one: &Value, other: &Value) -> bool {
    let pairs = || keys.iter().map(|key| (one.get(*key), other.get(*key)));
    pairs().all(|(a, b)| a.is_none() || b.is_none() || a == b) && pairs().any(|(a, b)| a.is_some() && a == b)
}

impl Target {
    /// The places of the objects that it means.
    pub(super) fn select(&self, all: &[Resource]) -> Result<Vec<usize>> {
        let expression = |pattern: &str| {
            let anchored = regex::Regex::new(&format!("^(?:{pattern})$"));
            anchored.map_err(|error| Failure::Plain(format!("error parsing regexp {pattern:?}: {error}")))
        };
        let (group, version, kind) = (expression(&self.group)?, expression(&self.version)?, expression(&self.kind)?);
        let (name, namespace) = (expression(&self.name)?, expression(&self.namespace)?);
        let selector = |text: &str| stead_machinery::selector::Selector::parse(text).map_err(Failure::Plain);
        let (labels, annotations) = (selector(&self.label_selector)?, selector(&self.annotation_selector)?);
        let fits = |pattern: &str, expression: &regex::Regex, is: &str| pattern.is_empty() || expression.is_match(is);
        let wanted = |resource: &Resource| {
            let (now, before) = (resource.id(), resource.original());
            let metadata = &resource.object["metadata"];
            [&before, &now].iter().any(|id| fits(&self.namespace, &namespace, id.effective_namespace()))
                && [&before, &now].iter().any(|id| fits(&self.name, &name, &id.name))
                && fits(&self.group, &group, &now.group)
                && fits(&self.version, &version, &now.version)
                && fits(&self.kind, &kind, &now.kind)
                && labels.matches_labels(&metadata["labels"])
                && annotations.matches_labels(&metadata["annotations"])
        };
        Ok(all.iter().enumerate().filter(|(_, resource)| wanted(resource)).map(|(at, _)| at).collect())
    }
}
