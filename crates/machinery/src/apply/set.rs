//! Sets of fields, as managers own them: a trie of path elements, in the `FieldsV1` form of the wire.
//!
//! An element is kept as the wire writes it: `f:NAME` a field, `k:{...}` an item of a list by its keys, `v:VALUE` an item of a
//! set, `i:N` an item by its place. Source: `sigs.k8s.io/structured-merge-diff/fieldpath`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// One step of a path, as the wire writes it.
pub(super) type Element = String;

/// The element of a field or map entry.
pub(super) fn field_element(name: &str) -> Element {
    format!("f:{name}")
}

/// The name in a field's element.
pub(super) fn field_name(element: &str) -> Option<&str> {
    element.strip_prefix("f:")
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    members: BTreeSet<Element>,
    children: BTreeMap<Element, Set>,
}

impl Set {
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.values().all(Self::is_empty)
    }

    /// Does nothing for the empty path: the object as a whole is no field.
    pub(super) fn insert(&mut self, path: &[Element]) {
        match path {
            [] => {}
            [last] => _ = self.members.insert(last.clone()),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    pub(super) fn has_member(&self, element: &str) -> bool {
        self.members.contains(element)
    }

    /// What is below an element, when there is anything.
    pub(super) fn child(&self, element: &str) -> Option<&Self> {
        self.children.get(element).filter(|child| !child.is_empty())
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Element, &Self)> {
        self.children.iter()
    }

    pub(super) fn put_child(&mut self, element: &str, child: Self) {
        self.children.insert(element.to_owned(), child);
    }

    pub(super) fn add_member(&mut self, element: &str) {
        self.members.insert(element.to_owned());
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.unite(other);
        out
    }

    /// Takes the elements of another set in.
    pub(super) fn unite(&mut self, other: &Self) {
        self.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            match self.children.get_mut(element) {
                Some(own) => own.unite(child),
                None => _ = self.children.insert(element.clone(), child.clone()),
            }
        }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let both = |(element, child): (&Element, &Self)| {
            let common = child.intersection(other.children.get(element)?);
            (!common.is_empty()).then(|| (element.clone(), common))
        };
        Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: self.children.iter().filter_map(both).collect(),
        }
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.subtract(other);
        out
    }

    /// Gives the elements of another set up.
    pub(super) fn subtract(&mut self, other: &Self) {
        for member in &other.members {
            self.members.remove(member);
        }
        for (element, gone) in &other.children {
            let Some(child) = self.children.get_mut(element) else { continue };
            child.subtract(gone);
            if child.is_empty() {
                self.children.remove(element);
            }
        }
    }

    /// Without these top fields, or fields of them, and all that is below: `["f:status"]`.
    pub(super) fn without_all_below(mut self, path: &[&str]) -> Self {
        match path {
            [] => {}
            [last] => {
                self.members.remove(*last);
                self.children.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(child) = self.children.remove(*first) {
                    let child = child.without_all_below(rest);
                    if !child.is_empty() {
                        self.children.insert((*first).to_owned(), child);
                    }
                }
            }
        }
        self
    }

    /// Every path in the set, members of a place before what is below it.
    pub(super) fn paths(&self) -> Vec<Vec<Element>> {
        fn collect(set: &Set, path: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
            for member in &set.members {
                let mut full = path.clone();
                full.push(member.clone());
                out.push(full);
            }
            for (element, child) in &set.children {
                path.push(element.clone());
                collect(child, path, out);
                path.pop();
            }
        }
        let mut out = Vec::new();
        collect(self, &mut Vec::new(), &mut out);
        out
    }

    /// From the wire. Anything that is not such a trie is refused.
    pub(super) fn from_fields(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (element, below) in fields.as_object()? {
            if element == "." {
                continue;
            }
            if !["f:", "k:", "v:", "i:"].iter().any(|kind| element.starts_with(kind)) {
                return None;
            }
            let below_map = below.as_object()?;
            if below_map.is_empty() || below_map.contains_key(".") {
                set.members.insert(element.clone());
            }
            let child = Self::from_fields(below)?;
            if !child.is_empty() {
                set.children.insert(element.clone(), child);
            }
        }
        Some(set)
    }

    pub(super) fn to_fields(&self) -> Value {
        let mut out = Map::new();
        for member in &self.members {
            out.insert(member.clone(), Value::Object(Map::new()));
        }
        for (element, child) in self.children.iter().filter(|(_, child)| !child.is_empty()) {
            let mut below = child.to_fields();
            if self.members.contains(element)
                && let Some(map) = below.as_object_mut()
            {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            out.insert(element.clone(), below);
        }
        out.into()
    }
}

/// A path as errors show it: `.spec.containers[name="a"].image`.
pub(super) fn show(path: &[Element]) -> String {
    path.iter().map(|element| show_element(element)).collect()
}

pub(super) fn show_element(element: &str) -> String {
    let (kind, rest) = element.split_at_checked(2).unwrap_or(("", element));
    match kind {
        "f:" => format!(".{rest}"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", shown.join(","))
        }
        "v:" => format!("[={rest}]"),
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> Set {
        Set::from_fields(&fields).expect("a set")
    }

    #[test]
    fn a_set_reads_and_writes_the_form_of_the_wire() {
        let fields =
            json!({"f:spec": {"f:a": {}, "f:l": {".": {}, "k:{\"name\":\"x\"}": {".": {}, "f:i": {}}, "v:\"y\"": {}}}});
        let read = set(fields.clone());
        assert_eq!(read.to_fields(), fields);
        let paths: Vec<String> = read.paths().iter().map(|p| show(p)).collect();
        assert_eq!(paths, [".spec.a", ".spec.l", ".spec.l[name=\"x\"]", ".spec.l[=\"y\"]", ".spec.l[name=\"x\"].i"]);
        assert_eq!(Set::from_fields(&json!({"x": {}})), None);
    }

    #[test]
    fn sets_unite_intersect_and_differ_element_by_element() {
        let a = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}}));
        let b = set(json!({"f:b": {"f:c": {}}, "f:e": {}}));
        assert_eq!(a.union(&b), set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}, "f:e": {}})));
        assert_eq!(a.intersection(&b), set(json!({"f:b": {"f:c": {}}})));
        assert_eq!(a.difference(&b), set(json!({"f:a": {}, "f:b": {".": {}, "f:d": {}}})));
        assert_eq!(a.without_all_below(&["f:b"]), set(json!({"f:a": {}})));
    }
}
