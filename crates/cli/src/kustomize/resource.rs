//! Objects under customisation: what they are called now, what they were called before, and how they were made.
//!
//! Source of the rules: `sigs.k8s.io/kustomize/api/resource`, `sigs.k8s.io/kustomize/kyaml/resid`.

use std::fmt;

use serde_json::Value;

use crate::failure::{Result, plain};
use crate::print::at;

/// Kinds without a namespace that this program does not serve, but manifests have.
const CLUSTER_KINDS: &[(&str, &str)] = &[
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "APIService"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("node.k8s.io", "RuntimeClass"),
];

/// Which object: its kind, name and namespace at some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

/// Kinds that are meant; what is empty may be anything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinds<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
}

impl Id {
    pub(super) fn of(object: &Value) -> Self {
        let api_version = at(object, "/apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: at(object, "/kind").to_owned(),
            name: at(object, "/metadata/name").to_owned(),
            namespace: at(object, "/metadata/namespace").to_owned(),
        }
    }

    pub(super) fn is_of(&self, kinds: Kinds<'_>) -> bool {
        let fits = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
        fits(kinds.group, &self.group) && fits(kinds.version, &self.version) && fits(kinds.kind, &self.kind)
    }

    /// Whether objects of its kind have no namespace.
    pub(super) fn is_cluster_wide(&self) -> bool {
        let known = stead_api::KINDS.iter().find(|kind| kind.group == self.group && kind.kind == self.kind);
        known.map_or_else(|| CLUSTER_KINDS.contains(&(&*self.group, &*self.kind)), |kind| !kind.namespaced())
    }

    /// The namespace that it ends up in when nothing else is said.
    pub(super) fn effective_namespace(&self) -> &str {
        match &*self.namespace {
            _ if self.is_cluster_wide() => "_non_namespaceable_",
            "" => "default",
            namespace => namespace,
        }
    }

    pub(super) fn shares_namespace(&self, other: &Self) -> bool {
        self.effective_namespace() == other.effective_namespace()
    }

    /// The same kind, name and namespace.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.group, &self.version, &self.kind, &self.name) == (&other.group, &other.version, &other.kind, &other.name)
            && self.shares_namespace(other)
    }

    /// `StatefulSet.v1.apps`
    pub(super) fn kinds_text(&self) -> String {
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let (kind, version) = (or(&self.kind, "[noKind]"), or(&self.version, "[noVer]"));
        format!("{kind}.{version}.{}", or(&self.group, "[noGrp]"))
    }
}

/// `StatefulSet.v1.apps/web.[noNs]`, as upstream's errors have it.
impl fmt::Display for Id {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "[noName]" } else { &self.name };
        let namespace = if self.namespace.is_empty() { "[noNs]" } else { &self.namespace };
        write!(to, "{}/{name}.{namespace}", self.kinds_text())
    }
}

/// What a generated object does with one of the same name that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Behavior {
    #[default]
    Unspecified,
    Create,
    Replace,
    Merge,
}

impl Behavior {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "create" => Self::Create,
            "replace" => Self::Replace,
            "merge" => Self::Merge,
            _ => Self::Unspecified,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Merge => "merge",
        }
    }
}

/// An object and its history.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    pub(super) object: Value,
    /// What it was called before each change of name or namespace, oldest first.
    pub(super) previous: Vec<Id>,
    pub(super) prefixes: Vec<String>,
    pub(super) suffixes: Vec<String>,
    pub(super) behavior: Behavior,
    /// Whether its name is to end with a hash of its content.
    pub(super) hashed: bool,
}

impl Resource {
    pub(super) fn new(object: Value) -> Self {
        Self { object, ..Self::default() }
    }

    pub(super) fn id(&self) -> Id {
        Id::of(&self.object)
    }

    pub(super) fn original(&self) -> Id {
        self.previous.first().cloned().unwrap_or_else(|| self.id())
    }

    /// Notes what it is called now, before that changes.
    pub(super) fn remember(&mut self) {
        self.previous.push(self.id());
    }

    /// Whether it is called so, or ever was.
    pub(super) fn answers_to(&self, fits: impl Fn(&Id) -> bool) -> bool {
        self.previous.iter().any(&fits) || fits(&self.id())
    }

    pub(super) fn set_name(&mut self, name: &str) {
        self.object["metadata"]["name"] = name.into();
    }
}

/// Adds an object to a list in which every id is there once.
pub(super) fn append(all: &mut Vec<Resource>, resource: Resource) -> Result {
    let id = resource.id();
    if all.iter().any(|other| other.id().is(&id)) {
        return plain(format!("may not add resource with an already registered id: {id}"));
    }
    all.push(resource);
    Ok(())
}

/// Adds a generated object, or makes it one with the object of that name.
pub(super) fn absorb(all: &mut Vec<Resource>, mut resource: Resource) -> Result {
    let id = resource.id();
    let mut same = all.iter_mut().filter(|other| other.answers_to(|other| other.is(&id)));
    let joins = matches!(resource.behavior, Behavior::Merge | Behavior::Replace);
    let Some(old) = same.next() else {
        return match joins {
            true => plain(format!("id {id} does not exist; cannot merge or replace")),
            false => append(all, resource),
        };
    };
    if let Some(other) = same.next() {
        return plain(format!("found multiple objects [{} {}] that could accept merge of {id}", id, other.id()));
    }
    if !joins {
        let behavior = resource.behavior.text();
        return plain(format!("id {id} exists; can not use behavior: '{behavior}', behavior must be merge or replace"));
    }
    for map in ["labels", "annotations"] {
        overlay(&mut resource.object["metadata"], &old.object["metadata"], map);
    }
    if resource.behavior == Behavior::Merge {
        for map in ["data", "binaryData"] {
            overlay(&mut resource.object, &old.object, map);
        }
    }
    for field in ["name", "namespace"] {
        match old.object["metadata"].get(field) {
            Some(value) => resource.object["metadata"][field] = value.clone(),
            None => drop(resource.object["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field))),
        }
    }
    old.object = resource.object;
    old.hashed &= resource.hashed;
    Ok(())
}

/// Adds the entries of an old map that a new one does not have.
fn overlay(new: &mut Value, old: &Value, field: &str) {
    let Some(before) = old.get(field).and_then(Value::as_object) else { return };
    let mut map = before.clone();
    map.extend(new.get(field).and_then(Value::as_object).cloned().unwrap_or_default());
    new[field] = map.into();
}
