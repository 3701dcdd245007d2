//! Replacements: the value of one field, or of a text, for the fields of other objects.
//!
//! Source of the rules and texts: `sigs.k8s.io/kustomize/api/filters/replacement`, `sigs.k8s.io/kustomize/kyaml/yaml` (`PathMatcher`).

use serde_json::{Map, Value};

use super::file::{Aim, FieldOptions, Replacement, Source};
use super::resource::{Id, Kinds, Resource};
use crate::failure::{Result, plain};

/// What is replaced when nothing is said.
const NAME: &str = "metadata.name";

/// Puts the value of a replacement where it is wanted.
pub(super) fn replace(all: &mut [Resource], replacement: &Replacement) -> Result {
    let Some(aims) = &replacement.targets else {
        return plain("replacements must specify a source and at least one target");
    };
    let value = match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => {
            return plain("value and resource selectors are mutually exclusive in replacements");
        }
        (None, None) => return plain("replacements must specify a source and at least one target"),
        (Some(source), None) => value_of(all, source)?,
        (None, Some(text)) => Value::String(text.clone()),
    };
    aims.iter().try_for_each(|aim| put(all, aim, &value))
}

/// The value that a source names.
fn value_of(all: &[Resource], source: &Source) -> Result<Value> {
    let fits = |id: &Id| {
        id.is_of(Kinds { group: &source.group, version: &source.version, kind: &source.kind })
            && (source.name.is_empty() || source.name == id.name)
            && (source.namespace.is_empty() || source.namespace == id.effective_namespace())
    };
    let mut found = all.iter().filter(|resource| resource.answers_to(fits));
    let (first, second) = (found.next(), found.next());
    let Some(resource) = first else { return plain(format!("nothing selected by {}", shown(source))) };
    if second.is_some() {
        return plain(format!("multiple matches for selector {}", shown(source)));
    }
    let path = if source.field_path.is_empty() { NAME } else { &source.field_path };
    let mut object = resource.object.clone();
    let mut found = None;
    visit(&mut object, &parts(path), None, &mut |value| {
        found.get_or_insert_with(|| value.clone());
        Ok(())
    })?;
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    match found.filter(|value| !empty(value)) {
        Some(value) => part_of(value, &source.options),
        None => plain(format!("fieldPath `{path}` is missing for replacement source {}", id(source))),
    }
}

fn id(source: &Source) -> Id {
    let Source { group, version, kind, name, namespace, .. } = source.clone();
    Id { group, version, kind, name, namespace }
}

/// As upstream's errors have it: `ConfigMap.[noVer].[noGrp]/conf.[noNs]:data.a:.(1), create=false`.
fn shown(source: &Source) -> String {
    let mut shown = id(source).to_string();
    if !source.field_path.is_empty() {
        shown = format!("{shown}:{}", source.field_path);
    }
    let FieldOptions { delimiter, index, create, .. } = &source.options;
    if !delimiter.is_empty() || *create {
        shown = format!("{shown}:{delimiter}({index}), create={create}");
    }
    shown
}

/// The part of a value that a delimiter and an index mean.
fn part_of(value: Value, options: &FieldOptions) -> Result<Value> {
    if options.delimiter.is_empty() {
        return Ok(value);
    }
    let Some(text) = scalar(&value) else {
        return plain("delimiter option can only be used with scalar nodes");
    };
    let part = usize::try_from(options.index).ok().and_then(|index| text.split(&options.delimiter).nth(index));
    match part {
        Some(part) => Ok(Value::String(part.to_owned())),
        None => plain(format!("options.index {} is out of bounds for value {text}", options.index)),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Puts a value into the fields that one entry of the targets means.
fn put(all: &mut [Resource], aim: &Aim, value: &Value) -> Result {
    let Some(select) = &aim.select else { return plain("target must specify resources to select") };
    let mut rejected = Vec::new();
    for target in &aim.reject {
        rejected.extend(target.select(all)?);
    }
    let paths = if aim.field_paths.is_empty() { vec![NAME.to_owned()] } else { aim.field_paths.clone() };
    for place in select.select(all)?.into_iter().filter(|place| !rejected.contains(place)) {
        let resource = &mut all[place];
        resource.remember();
        for path in &paths {
            let mut met = false;
            let new = aim.options.create.then_some(value);
            visit(&mut resource.object, &parts(path), new, &mut |field| {
                met = true;
                set(field, value, &aim.options)
            })?;
            if !met {
                let how = if aim.options.create { "find or create" } else { "find" };
                return plain(format!("unable to {how} field {path:?} in replacement target"));
            }
        }
    }
    Ok(())
}

/// A field that is a text stays one, and one that is a number stays one where it can.
fn set(field: &mut Value, value: &Value, options: &FieldOptions) -> Result {
    let (old, new) = (scalar(field), scalar(value));
    let Some(old) = old else {
        if !options.delimiter.is_empty() {
            return plain("delimiter option can only be used with scalar nodes");
        }
        value.clone_into(field);
        return Ok(());
    };
    let text = match new {
        None => {
            value.clone_into(field);
            return Ok(());
        }
        Some(new) if options.delimiter.is_empty() => new,
        Some(new) => {
            let mut parts: Vec<&str> = old.split(&options.delimiter).collect();
            match usize::try_from(options.index) {
                Err(_) => parts.insert(0, &new),
                Ok(index) if index < parts.len() => parts[index] = &new,
                Ok(_) => parts.push(&new),
            }
            parts.join(&options.delimiter)
        }
    };
    *field = match field {
        Value::Number(_) | Value::Bool(_) => serde_json::from_str(&text)
            .ok()
            .filter(|read: &Value| read.is_number() || read.is_boolean())
            .unwrap_or(Value::String(text)),
        _ => Value::String(text),
    };
    Ok(())
}

/// The steps of a path: dots between, brackets around what has dots itself, `\.` for a dot.
fn parts(path: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'.') => {
                let _ = chars.next();
                push(&mut parts, '.');
            }
            '.' if depth == 0 => parts.push(String::new()),
            c => {
                depth = match c {
                    '[' => depth + 1,
                    ']' => depth.saturating_sub(1),
                    _ => depth,
                };
                push(&mut parts, c);
            }
        }
    }
    // `[a.b/c]` without an equals sign is a name with dots.
    for part in &mut parts {
        if let Some(name) =
            part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|name| !name.contains('='))
        {
            *part = name.to_owned();
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn push(parts: &mut [String], c: char) {
    parts.last_mut().into_iter().for_each(|part| part.push(c));
}

/// Calls `set` with every field that a path leads to. `new`: made where it is not there.
fn visit(value: &mut Value, path: &[String], new: Option<&Value>, set: &mut dyn FnMut(&mut Value) -> Result) -> Result {
    let Some((first, rest)) = path.split_first() else { return set(value) };
    let member = first.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')?.split_once('='));
    if value.is_null() && new.is_some() {
        *value = if member.is_some() { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
    match value {
        Value::Array(list) => {
            let fits = |at: usize, item: &Value| match (&**first, member) {
                ("*", _) => true,
                (_, Some(("", wanted))) => scalar(item).is_some_and(|text| text == wanted),
                (_, Some((key, wanted))) => item.get(key).and_then(scalar).is_some_and(|text| text == wanted),
                (index, None) => index.parse() == Ok(at),
            };
            let places: Vec<usize> = (0..list.len()).filter(|at| fits(*at, &list[*at])).collect();
            if let (true, Some((key, wanted)), Some(_)) = (places.is_empty(), member, new) {
                let mut made = Value::String(wanted.to_owned());
                if !key.is_empty() {
                    made = Value::Object(Map::from_iter([(key.to_owned(), made)]));
                }
                visit(&mut made, rest, new, set)?;
                list.push(made);
            }
            places.into_iter().try_for_each(|at| visit(&mut list[at], rest, new, set))
        }
        Value::Object(map) if first == "*" => map.values_mut().try_for_each(|inner| visit(inner, rest, new, set)),
        Value::Object(map) => match (map.get_mut(first), new) {
            (Some(inner), _) => visit(inner, rest, new, set),
            (None, Some(new)) => {
                let mut made = if rest.is_empty() { new.clone() } else { Value::Null };
                visit(&mut made, rest, Some(new), set)?;
                map.insert(first.clone(), made);
                Ok(())
            }
            (None, None) => Ok(()),
        },
        _ => Ok(()),
    }
}
