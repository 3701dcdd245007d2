//! Labels, annotations, images and numbers of replicas.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{self, Field, REPLICATED};
use super::file::{Image, Kustomization, Label, Replicas, Where};
use super::resource::{Kinds, Resource};
use crate::failure::{Failure, Result, plain};

/// Adds all labels.
pub(super) fn labels(all: &mut [Resource], file: &Kustomization) {
    for label in &file.labels {
        let mut fields = own_fields(label);
        fields.push(fields::metadata("labels"));
        if label.include_selectors || label.include_templates {
            fields.extend(fields::templates("labels"));
            fields.push(fields::claims());
        }
        if label.include_selectors {
            fields.extend(fields::selectors());
        }
        put(all, &fields, &label.pairs);
    }
    let mut fields = fields::selectors();
    fields.push(fields::metadata("labels"));
    fields.extend(fields::templates("labels"));
    fields.push(fields::claims());
    put(all, &fields, &file.common_labels);
}

fn own_fields(label: &Label) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    for Where { group, version, kind, path, create } in &label.fields {
        fields.push(Field { kinds: Kinds { group, version, kind }, path: path.clone(), create: *create });
    }
    fields
}

/// Adds all annotations.
pub(super) fn annotations(all: &mut [Resource], file: &Kustomization) {
    let mut fields = vec![fields::metadata("annotations")];
    fields.extend(fields::templates("annotations"));
    put(all, &fields, &file.common_annotations);
}

/// Adds entries to the maps in fields.
fn put(all: &mut [Resource], fields: &[Field<'_>], pairs: &BTreeMap<String, String>) {
    if pairs.is_empty() {
        return;
    }
    let new = Value::Object(Map::new());
    let mut set = |value: &mut Value| {
        if let Value::Object(map) = value {
            map.extend(pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())));
        }
    };
    for resource in all {
        fields.iter().for_each(|field| field.set(&mut resource.object, &new, &mut set));
    }
}

/// Sets the number of the objects that are or were called so.
pub(super) fn replicas(all: &mut [Resource], wanted: &Replicas) -> Result {
    let mut found = false;
    for kind in REPLICATED {
        let kinds = Kinds { kind, ..Kinds::default() };
        for resource in all.iter_mut() {
            if !resource.answers_to(|id| id.name == wanted.name && id.is_of(kinds)) {
                continue;
            }
            found = true;
            let field = Field { kinds, path: "spec/replicas".to_owned(), create: true };
            field.set(&mut resource.object, &Value::Null, &mut |value| *value = wanted.count.into());
        }
    }
    if found {
        return Ok(());
    }
    let kinds: Vec<String> = REPLICATED.iter().map(|kind| format!("{kind}.[noVer].[noGrp]")).collect();
    plain(format!(
        "resource with name {} does not match a config with the following GVK [{}]",
        wanted.name,
        kinds.join(" ")
    ))
}

/// Replaces an image wherever a container or a volume has it.
pub(super) fn image(all: &mut [Resource], wanted: &Image) -> Result {
    let pattern =
        format!(r"^{}(:[a-zA-Z0-9_.{{}}-]*)?(@[a-zA-Z0-9]+([.+_-][a-zA-Z0-9]+)*:[a-zA-Z0-9_.{{}}-]*)?$", wanted.name);
    let pattern = regex::Regex::new(&pattern).map_err(|error| {
        Failure::Plain(format!("the name {:?} of an image is no regular expression: {error}", wanted.name))
    })?;
    for resource in all.iter_mut().filter(|resource| resource.object["kind"] != "CustomResourceDefinition") {
        walk(&mut resource.object, &mut |image| {
            if let Value::String(image) = image
                && pattern.is_match(image)
            {
                *image = replaced(image, wanted);
            }
        });
    }
    Ok(())
}

/// Calls `set` with every image of a container, and with every volume that is one.
fn walk(value: &mut Value, set: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, set)),
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                let path = match &**name {
                    "containers" | "initContainers" => "image",
                    "volumes" => "image/reference",
                    _ => "",
                };
                if !path.is_empty() && inner.is_array() {
                    fields::each(inner, path, set);
                }
                walk(inner, set);
            }
        }
        _ => {}
    }
}

fn replaced(image: &str, wanted: &Image) -> String {
    let (name, tag, digest) = split(image);
    let mut new = if wanted.new_name.is_empty() { name.to_owned() } else { wanted.new_name.clone() };
    let (tag, digest) = match (&*wanted.new_tag, &*wanted.digest) {
        ("", "") if wanted.tag_suffix.is_empty() => (tag.to_owned(), digest.to_owned()),
        ("", "") => (format!("{tag}{}", wanted.tag_suffix), String::new()),
        (tag, digest) => (tag.to_owned(), digest.to_owned()),
    };
    for (sign, part) in [(':', tag), ('@', digest)] {
        if !part.is_empty() {
            new.push(sign);
            new.push_str(&part);
        }
    }
    new
}

/// Name, tag and digest of an image.
fn split(image: &str) -> (&str, &str, &str) {
    let (rest, digest) = image.split_once('@').unwrap_or((image, ""));
    let path = rest.rfind('/').map_or(0, |slash| slash + 1);
    match rest[path..].find(':') {
        Some(colon) => (&rest[..path + colon], &rest[path + colon + 1..], digest),
        None => (rest, "", digest),
    }
}
