//! New names and namespaces, and the references that follow them.
//!
//! Source of the rules: `sigs.k8s.io/kustomize/api/filters/nameref`, `api/filters/namespace`.

use serde_json::Value;

use super::fields::{self, Reference};
use super::resource::{Id, Kinds, Resource};
use crate::failure::{Result, plain};
use crate::print::at;

/// Kinds whose names are not theirs to change.
const FIXED: &[Kinds<'static>] = &[
    Kinds { group: "", version: "", kind: "CustomResourceDefinition" },
    Kinds { group: "apiregistration.k8s.io", version: "", kind: "APIService" },
    Kinds { group: "", version: "", kind: "Namespace" },
];

/// Which end of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Prefix,
    Suffix,
}

/// Adds to one end of every name.
pub(super) fn extend(all: &mut [Resource], end: End, text: &str) {
    if text.is_empty() {
        return;
    }
    for resource in all {
        let original = resource.original();
        if FIXED.iter().any(|kinds| original.is_of(*kinds)) {
            continue;
        }
        let name = at(&resource.object, "/metadata/name").to_owned();
        resource.remember();
        match end {
            End::Prefix => {
                resource.prefixes.push(text.to_owned());
                resource.set_name(&format!("{text}{name}"));
            }
            End::Suffix => {
                resource.suffixes.push(text.to_owned());
                resource.set_name(&format!("{name}{text}"));
            }
        }
    }
}

/// Puts everything into a namespace.
pub(super) fn move_to(all: &mut [Resource], namespace: &str) -> Result {
    if namespace.is_empty() {
        return Ok(());
    }
    let new = Value::from(namespace);
    let others = fields::namespaces();
    for number in 0..all.len() {
        let resource = &mut all[number];
        resource.remember();
        let object = &mut resource.object;
        if !Id::of(object).is_cluster_wide() {
            object["metadata"]["namespace"] = new.clone();
        }
        if matches!(at(object, "/kind"), "RoleBinding" | "ClusterRoleBinding") {
            let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
            for subject in subjects.into_iter().flatten().filter(|subject| subject["name"] == "default") {
                subject["namespace"] = new.clone();
            }
        }
        for field in &others {
            field.set(object, &new, &mut |value| *value = new.clone());
        }
        let id = all[number].id();
        if all.iter().filter(|other| other.id().is(&id)).count() > 1 {
            return plain(format!("namespace transformation produces ID conflict: {id}"));
        }
    }
    Ok(())
}

/// Where a reference leads to now.
struct New {
    name: String,
    /// Empty where none is said.
    namespace: String,
}

/// Corrects the references of all objects to each other.
pub(super) fn follow(all: &mut [Resource]) -> Result {
    let references = fields::references();
    for number in 0..all.len() {
        let original = all[number].original();
        let mut object = std::mem::take(&mut all[number].object);
        let referrer = Resource { object: object.clone(), ..all[number].clone() };
        // Objects may refer to themselves.
        all[number].object = object.clone();
        let known = reachable(all, &referrer);
        let mut failure = None;
        for reference in references.iter().filter(|reference| original.is_of(reference.by.kinds)) {
            let mut set = |value: &mut Value| {
                if let Err(error) = correct(value, &known, &referrer, reference) {
                    failure.get_or_insert(error);
                }
            };
            fields::each(&mut object, &reference.by.path, &mut set);
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        all[number].object = object;
    }
    Ok(())
}

/// The objects that one may refer to: of its own namespace, of none, and of those that its subjects name.
fn reachable<'r>(all: &'r [Resource], referrer: &Resource) -> Vec<&'r Resource> {
    let id = referrer.id();
    let subjects = crate::print::list(&referrer.object, "/subjects");
    let binding = matches!(&*id.kind, "RoleBinding" | "ClusterRoleBinding");
    let named = |other: &Id| binding && subjects.iter().any(|subject| at(subject, "/namespace") == other.namespace);
    let fits = |resource: &&Resource| {
        let other = resource.id();
        id.is_cluster_wide() || other.is_cluster_wide() || other.shares_namespace(&id) || named(&other)
    };
    all.iter().filter(fits).collect()
}

/// Corrects a name, every name of a list, or name and namespace of a map.
fn correct(value: &mut Value, known: &[&Resource], referrer: &Resource, reference: &Reference) -> Result {
    match value {
        Value::String(name) => {
            if let Some(new) = target(name, known, referrer, reference, false)? {
                *name = new.name;
            }
        }
        Value::Array(items) => {
            for item in items {
                correct(item, known, referrer, reference)?;
            }
        }
        Value::Object(map) => {
            let Some(name) = map.get("name").and_then(Value::as_str) else { return Ok(()) };
            let candidates = match map.get("namespace").and_then(Value::as_str) {
                Some(namespace) => of_namespace(known, namespace),
                None => known.to_vec(),
            };
            if let Some(new) = target(name, &candidates, referrer, reference, true)? {
                map.insert("name".to_owned(), new.name.into());
                if !new.namespace.is_empty() {
                    map.insert("namespace".to_owned(), new.namespace.into());
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Those that were first made in a namespace; when there are none, those that are in it now.
fn of_namespace<'r>(known: &[&'r Resource], namespace: &str) -> Vec<&'r Resource> {
    let same = |id: &Id| id.effective_namespace() == if namespace.is_empty() { "default" } else { namespace };
    let originally: Vec<&Resource> = known.iter().copied().filter(|resource| same(&resource.original())).collect();
    match originally.is_empty() {
        true => known.iter().copied().filter(|resource| same(&resource.id())).collect(),
        false => originally,
    }
}

/// The object that a name meant before names changed. None when it is none of these, or cannot be told.
fn target(
    name: &str,
    known: &[&Resource],
    referrer: &Resource,
    reference: &Reference,
    by_namespace: bool,
) -> Result<Option<New>> {
    let new = |resource: &Resource| {
        let id = resource.id();
        New { name: id.name, namespace: id.namespace }
    };
    let own = referrer.id();
    let role = role_of(referrer, &reference.by.path);
    let mut fits: Vec<&Resource> = known
        .iter()
        .copied()
        .filter(|resource| resource.previous.iter().any(|id| id.name == name))
        .filter(|resource| resource.previous.iter().any(|id| id.is_of(reference.to)))
        .filter(|resource| {
            let fits = |(group, kind): (&str, &str)| {
                resource.previous.iter().any(|id| id.is_of(Kinds { group, version: "", kind }))
            };
            role.is_none_or(fits)
        })
        .filter(|resource| {
            let id = resource.id();
            own.is_cluster_wide() || id.is_cluster_wide() || id.kind == "ServiceAccount" || id.shares_namespace(&own)
        })
        .collect();
    if let [one] = fits[..] {
        return Ok(Some(new(one)));
    }
    fits.retain(|resource| same_ends(resource, referrer, true));
    if fits.len() > 1 {
        fits.retain(|resource| same_ends(resource, referrer, false));
    }
    let Some(first) = fits.first().map(|resource| new(resource)) else { return Ok(None) };
    let alike = |resource: &&Resource| {
        let other = new(resource);
        other.name == first.name && (!by_namespace || other.namespace == first.namespace)
    };
    if fits.iter().all(alike) {
        return Ok(Some(first));
    }
    let ids: Vec<String> = fits.iter().map(|resource| resource.id().to_string()).collect();
    plain(format!(
        "updating name reference in '{}' field of '{own}': found multiple possible referrals: {}",
        reference.by.path,
        ids.join(", ")
    ))
}

/// Group and kind that a binding says of its role.
fn role_of<'o>(referrer: &'o Resource, path: &str) -> Option<(&'o str, &'o str)> {
    let (group, kind) = (at(&referrer.object, "/roleRef/apiGroup"), at(&referrer.object, "/roleRef/kind"));
    (path == "roleRef/name" && !group.is_empty() && !kind.is_empty()).then_some((group, kind))
}

/// Whether two objects went through the same prefixes and suffixes at the end of their ways.
fn same_ends(one: &Resource, other: &Resource, empty_fits: bool) -> bool {
    let same = |one: &[String], other: &[String]| {
        if empty_fits && (one.is_empty() || other.is_empty()) {
            return true;
        }
        let common = one.len().min(other.len());
        one[one.len() - common..] == other[other.len() - common..] && (common > 0 || one.len() == other.len())
    };
    same(&one.prefixes, &other.prefixes) && same(&one.suffixes, &other.suffixes)
}
