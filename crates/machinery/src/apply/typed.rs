//! Objects with their schema, as field management sees them: comparison, field sets, merging, removal, checking.
//!
//! Source of the rules: `sigs.k8s.io/structured-merge-diff/typed`.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use stead_api::schema::{Field, ListType, Schema, Shape, Zero};

use super::set::{Element, Set, field_element, field_name, show_element};

static EMPTY: LazyLock<Value> = LazyLock::new(|| json!({}));
static NULL: Value = Value::Null;

/// A place in the schema.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    schema: &'s Schema,
    shape: Shape,
    field: Option<&'s Field>,
}

/// How a value at a place is taken apart.
enum Parts<'s> {
    /// It is owned as a whole.
    Leaf,
    /// Fields of a type, or entries of a map.
    Map,
    /// Scalars, each once.
    Set,
    /// Objects told apart by these fields.
    Keyed(&'static [&'static str], Place<'s>),
}

impl<'s> Place<'s> {
    pub(super) fn new(schema: &'s Schema, shape: Shape) -> Self {
        Self { schema, shape, field: None }
    }

    fn parts(self) -> Parts<'s> {
        let atomic = self.field.is_some_and(|f| f.atomic);
        match self.shape {
            Shape::Struct(id) if !atomic && !self.schema.get(id).atomic => Parts::Map,
            Shape::Map(_) if !atomic => Parts::Map,
            Shape::List(inner) => match self.field.map(|f| f.list) {
                Some(ListType::Set) => Parts::Set,
                Some(ListType::Map(keys)) => Parts::Keyed(keys, Self::new(self.schema, self.schema.shape(inner))),
                Some(ListType::Atomic) | None => Parts::Leaf,
            },
            _ => Parts::Leaf,
        }
    }

    /// The place of a field or entry; none when the type does not declare it.
    fn entry(self, name: &str) -> Option<Self> {
        match self.shape {
            Shape::Struct(id) => {
                let field = self.schema.get(id).field(name)?;
                Some(Self { schema: self.schema, shape: field.shape, field: Some(field) })
            }
            Shape::Map(inner) => Some(Self::new(self.schema, self.schema.shape(inner))),
            _ => None,
        }
    }

    /// The place of anything that an element of a set can name.
    fn below(self, element: &str) -> Option<Self> {
        match (field_name(element), self.parts()) {
            (Some(name), _) => self.entry(name),
            (None, Parts::Keyed(_, item)) => Some(item),
            (None, _) => None,
        }
    }

    /// What an object without the field still has there, as Go's types do.
    fn implied(self) -> Option<&'static Value> {
        let field = self.field.filter(|f| f.zero == Zero::Written)?;
        Some(if matches!(field.shape, Shape::Struct(_)) { &EMPTY } else { &NULL })
    }

    /// The element of a list's item. The error is upstream's.
    fn element_of(self, keys: &[&str], item: &Value) -> Result<Element, String> {
        let Value::Object(object) = item else {
            return Err("associative list with keys may not have non-map elements".to_owned());
        };
        let default = |key: &str| self.entry(key).and_then(|p| p.field).and_then(|f| f.default).map(Value::from);
        let mut found = Map::new();
        for key in keys {
            let value = object.get(*key).filter(|v| !v.is_null()).cloned().or_else(|| default(key));
            if let Some(value) = value {
                found.insert((*key).to_owned(), value);
            }
        }
        if found.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                keys.join(" ")
            ));
        }
        Ok(format!("k:{}", sorted(found)))
    }
}

/// The keys of an item in the order of their names, whatever order the map keeps.
fn sorted(map: Map<String, Value>) -> String {
    let mut entries: Vec<(String, Value)> = map.into_iter().collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<String> =
        entries.into_iter().map(|(key, value)| format!("{}:{value}", Value::from(key))).collect();
    format!("{{{}}}", entries.join(","))
}

fn value_element(item: &Value) -> Element {
    format!("v:{item}")
}

fn as_map(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn as_list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What changed from one object to another.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) removed: Set,
    pub(super) modified: Set,
}

impl Comparison {
    /// Everything that is not as it was.
    pub(super) fn all(&self) -> Set {
        let mut all = self.modified.union(&self.added);
        all.unite(&self.removed);
        all
    }

    pub(super) fn map(self, filter: impl Fn(Set) -> Set) -> Self {
        Self { added: filter(self.added), removed: filter(self.removed), modified: filter(self.modified) }
    }
}

pub(super) fn compare(place: Place<'_>, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    compare_at(place, Some(old), Some(new), &mut Vec::new(), &mut out);
    out
}

fn compare_at(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    if old.is_some() && old == new {
        return;
    }
    let leaf = match place.parts() {
        Parts::Leaf => true,
        Parts::Map => {
            let empty = |value: Option<&Value>| as_map(value).is_none_or(Map::is_empty);
            let leaf = empty(old) && empty(new);
            if !leaf {
                compare_entries(place, old, new, path, out);
            }
            leaf
        }
        Parts::Set => {
            let (old, new) = (as_list(old), as_list(new));
            let gone = old.iter().filter(|item| !new.contains(item));
            gone.for_each(|item| insert(&mut out.removed, path, value_element(item)));
            let come = new.iter().filter(|item| !old.contains(item));
            come.for_each(|item| insert(&mut out.added, path, value_element(item)));
            old.is_empty() && new.is_empty()
        }
        Parts::Keyed(keys, item) => {
            compare_items(item, keys, as_list(old), as_list(new), path, out);
            as_list(old).is_empty() && as_list(new).is_empty()
        }
    };
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (old, new) if leaf && old != new => out.modified.insert(path),
        _ => {}
    }
}

fn insert(set: &mut Set, path: &[Element], last: Element) {
    let mut full = path.to_vec();
    full.push(last);
    set.insert(&full);
}

fn compare_entries(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let (old_map, new_map) = (as_map(old), as_map(new));
    let new_only = new_map.into_iter().flatten().filter(|(key, _)| !old_map.is_some_and(|m| m.contains_key(*key)));
    let keys: Vec<&String> = old_map.into_iter().flatten().chain(new_only).map(|(key, _)| key).collect();
    for key in keys {
        let Some(below) = place.entry(key) else { continue };
        let (was, is) = (present(below, key, old), present(below, key, new));
        if was == is {
            continue;
        }
        path.push(field_element(key));
        compare_at(below, was, is, path, out);
        path.pop();
    }
}

/// The value of an entry; a type that is there has its fields by value too.
fn present<'v>(entry: Place<'_>, key: &str, whole: Option<&'v Value>) -> Option<&'v Value> {
    as_map(whole).and_then(|map| map.get(key)).or_else(|| entry.implied().filter(|_| whole.is_some()))
}

fn compare_items(
    item: Place<'_>,
    keys: &[&str],
    old: &[Value],
    new: &[Value],
    path: &mut Vec<Element>,
    out: &mut Comparison,
) {
    let (old, new) = (grouped(item, keys, old), grouped(item, keys, new));
    let new_only = new.iter().filter(|(element, _)| values_of(&old, element).is_empty());
    for (element, _) in old.iter().chain(new_only) {
        let (was, is) = (values_of(&old, element), values_of(&new, element));
        match (was, is) {
            ([] | [_], [] | [_]) => {
                path.push(element.clone());
                compare_at(item, was.first().copied(), is.first().copied(), path, out);
                path.pop();
            }
            // duplicates count as one value, owned as a whole
            (was, is) if was != is => insert(&mut out.modified, path, element.clone()),
            _ => {}
        }
    }
}

type Groups<'v> = Vec<(Element, Vec<&'v Value>)>;

fn values_of<'g, 'v>(groups: &'g Groups<'v>, element: &Element) -> &'g [&'v Value] {
    groups.iter().find(|(e, _)| e == element).map_or(&[], |(_, values)| values)
}

/// The items of a list by their elements; more than one of the same is a fault of the object.
fn grouped<'v>(item: Place<'_>, keys: &[&str], list: &'v [Value]) -> Groups<'v> {
    let mut groups: Groups<'v> = Vec::new();
    for value in list {
        let Ok(element) = item.element_of(keys, value) else { continue };
        match groups.iter_mut().find(|(e, _)| *e == element) {
            Some((_, group)) => group.push(value),
            None => groups.push((element, vec![value])),
        }
    }
    groups
}

/// The fields that an object names; with it a manager says what it owns.
pub(super) fn field_set(place: Place<'_>, value: &Value) -> Set {
    let mut out = Set::default();
    collect(place, value, &mut Vec::new(), &mut out);
    out
}

fn collect(place: Place<'_>, value: &Value, path: &mut Vec<Element>, out: &mut Set) {
    match place.parts() {
        Parts::Leaf => out.insert(path),
        Parts::Map => {
            for (key, value) in as_map(Some(value)).into_iter().flatten() {
                let Some(below) = place.entry(key) else { continue };
                path.push(field_element(key));
                collect(below, value, path, out);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || matches!(place.shape, Shape::Map(_)) {
                    out.insert(path);
                }
                path.pop();
            }
        }
        Parts::Set => as_list(Some(value)).iter().for_each(|item| insert(out, path, value_element(item))),
        Parts::Keyed(keys, item) => {
            for value in as_list(Some(value)) {
                let Ok(element) = item.element_of(keys, value) else { continue };
                path.push(element);
                collect(item, value, path, out);
                out.insert(path);
                path.pop();
            }
        }
    }
}

/// Lays `new` over `old`: leaves are replaced, objects and lists of items merge.
pub(super) fn merge(place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Value {
    let (Some(below), Some(over)) = (old, new) else { return new.or(old).cloned().unwrap_or_default() };
    match (place.parts(), below, over) {
        (Parts::Map, Value::Object(old), Value::Object(new)) => {
            let mut out = Map::new();
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let at = place.entry(key).unwrap_or(Place { shape: Shape::Any, field: None, ..place });
                out.insert(key.clone(), merge(at, old.get(key), new.get(key)));
            }
            out.into()
        }
        (Parts::Set, Value::Array(old), Value::Array(new)) => {
            merge_lists(old, new, |item| Some(value_element(item)), |_, item| item.clone())
        }
        (Parts::Keyed(keys, item), Value::Array(old), Value::Array(new)) => merge_lists(
            old,
            new,
            |value| item.element_of(keys, value).ok(),
            |old, new| old.map_or_else(|| new.clone(), |old| merge(item, Some(old), Some(new))),
        ),
        _ => over.clone(),
    }
}

/// Both lists in one: items of `new` keep their order; those of `old` alone stay where they stood among the common ones.
fn merge_lists(
    old: &[Value],
    new: &[Value],
    element_of: impl Fn(&Value) -> Option<Element>,
    merged: impl Fn(Option<&Value>, &Value) -> Value,
) -> Value {
    let named = |list: &'_ [Value]| -> Vec<(Option<Element>, Value)> {
        list.iter().map(|item| (element_of(item), item.clone())).collect()
    };
    let (old, new) = (named(old), named(new));
    let in_old =
        |element: &Option<Element>| old.iter().find(|(e, _)| e.is_some() && e == element).map(|(_, item)| item);
    let in_new = |element: &Option<Element>| element.is_some() && new.iter().any(|(e, _)| e == element);
    // the common items that `new` still has to give, in its order
    let mut shared = new.iter().map(|(e, _)| e).filter(|e| in_old(e).is_some()).peekable();
    let (mut left, mut right) = (old.iter().peekable(), new.iter().peekable());
    let mut out = Vec::new();
    while let Some((element, item)) = right.peek() {
        match left.peek() {
            Some((own, kept)) if !in_new(own) => {
                // an item of `old` alone
                out.push((*kept).clone());
                left.next();
                continue;
            }
            Some((own, _)) if own != element && shared.peek().is_some_and(|next| *next != own) => {
                // a common item that `new` has elsewhere
                left.next();
                continue;
            }
            Some((own, _)) if own == element => _ = left.next(),
            _ => {}
        }
        if shared.peek() == Some(&element) {
            shared.next();
        }
        out.push(merged(in_old(element), item));
        right.next();
    }
    out.extend(left.filter(|(element, _)| !in_new(element)).map(|(_, item)| (*item).clone()));
    out.into()
}

/// The value without the items of a set; none when nothing is left of it.
pub(super) fn remove(place: Place<'_>, value: &Value, gone: &Set) -> Option<Value> {
    match (place.parts(), value) {
        (Parts::Map, Value::Object(map)) => {
            let mut out = Map::new();
            for (key, value) in map {
                let element = field_element(key);
                if gone.has_member(&element) {
                    continue;
                }
                match (gone.child(&element), place.entry(key)) {
                    (Some(below), Some(at)) => {
                        if let Some(rest) = remove(at, value, below) {
                            out.insert(key.clone(), rest);
                        }
                    }
                    _ => _ = out.insert(key.clone(), value.clone()),
                }
            }
            (!out.is_empty()).then(|| out.into())
        }
        (Parts::Set, Value::Array(list)) => {
            let kept = list.iter().filter(|item| !gone.has_member(&value_element(item)));
            let kept: Vec<Value> = kept.cloned().collect();
            (!kept.is_empty()).then(|| kept.into())
        }
        (Parts::Keyed(keys, item), Value::Array(list)) => {
            let kept = list.iter().filter_map(|value| match item.element_of(keys, value) {
                Ok(element) if gone.has_member(&element) => None,
                Ok(element) => match gone.child(&element) {
                    Some(below) => remove(item, value, below),
                    None => Some(value.clone()),
                },
                Err(_) => Some(value.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then(|| kept.into())
        }
        (_, value) => Some(value.clone()),
    }
}

/// The set with every declared field on its paths as a member too, so that removal takes what is left empty.
pub(super) fn with_named_fields(place: Place<'_>, set: &Set) -> Set {
    let mut out = set.clone();
    for (element, child) in set.children() {
        let declared = field_name(element)
            .is_some_and(|name| matches!(place.shape, Shape::Struct(_)) && place.entry(name).is_some());
        if declared {
            out.add_member(element);
        }
        if let Some(below) = place.below(element) {
            out.put_child(element, with_named_fields(below, child));
        }
    }
    out
}

/// What is wrong with an applied configuration, in upstream's words; empty when nothing is.
pub(super) fn check(place: Place<'_>, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check_at(place, value, &mut String::new(), &mut out);
    out
}

fn check_at(place: Place<'_>, value: &Value, path: &mut String, out: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut wrong = |text: String| out.push(if path.is_empty() { text } else { format!("{path}: {text}") });
    match place.shape {
        Shape::Struct(_) | Shape::Map(_) => {
            let Some(map) = value.as_object() else {
                return wrong(format!("expected map, got {}", boxed(value)));
            };
            for (key, value) in map {
                let length = path.len();
                path.push('.');
                path.push_str(key);
                match place.entry(key) {
                    Some(at) => check_at(at, value, path, out),
                    None => {
                        out.push(format!("{path}: field not declared in schema"));
                        path.truncate(length);
                        return;
                    }
                }
                path.truncate(length);
            }
        }
        Shape::List(inner) => {
            let Some(list) = value.as_array() else {
                return wrong(format!("expected list, got {}", boxed(value)));
            };
            check_items(place, Place::new(place.schema, place.schema.shape(inner)), list, path, out);
        }
        Shape::Int32 | Shape::Int64 | Shape::Double if !value.is_number() => {
            wrong(format!("expected numeric (int or float), got {}", go_type(value)));
        }
        Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime if !value.is_string() => {
            wrong(format!("expected string, got {}", boxed(value)));
        }
        Shape::Bool if !value.is_boolean() => wrong(format!("expected boolean, got {}", boxed(value))),
        Shape::Quantity | Shape::IntOrString if value.is_array() || value.is_object() => {
            wrong(format!("expected any scalar, got {}", boxed(value)));
        }
        _ => {}
    }
}

fn check_items(place: Place<'_>, item: Place<'_>, list: &[Value], path: &mut String, out: &mut Vec<String>) {
    let mut seen: Vec<Element> = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let element = match place.parts() {
            Parts::Keyed(keys, at) => at.element_of(keys, value),
            Parts::Set if value.is_object() => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Parts::Set if value.is_null() => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            Parts::Set => Ok(value_element(value)),
            Parts::Leaf | Parts::Map => Ok(format!("i:{index}")),
        };
        let element = match element {
            Ok(element) => element,
            Err(why) => return out.push(format!("{path}: element {index}: {why}")),
        };
        if seen.contains(&element) {
            out.push(format!("{path}: duplicate entries for key {}", show_element(&element)));
        }
        let length = path.len();
        path.push_str(&show_element(&element));
        check_at(item, value, path, out);
        path.truncate(length);
        seen.push(element);
    }
}

/// The Go type of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
    }
}

/// As upstream's error shows its wrapper of a value.
fn boxed(value: &Value) -> String {
    format!("&value.valueUnstructured{{Value:{value}}}")
}
