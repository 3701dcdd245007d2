//! The managers of an object's fields: `metadata.managedFields` read and written.
//!
//! Source: `k8s.io/apimachinery/pkg/util/managedfields`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::set::Set;
use crate::time;

/// Entries of plain updates beyond this number are merged, the oldest first.
const MAX_UPDATERS: usize = 10;
/// The manager that merged entries go to.
const ANCIENT: &str = "ancient-changes";

/// Tells entries apart. Appliers have one entry whatever version they apply; updaters have one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) manager: String,
    pub(super) applied: bool,
    /// Empty for an applier.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Id {
    pub(super) fn update(manager: &str, api_version: &str, subresource: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            applied: false,
            api_version: api_version.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    pub(super) fn apply(manager: &str, subresource: &str) -> Self {
        Self {
            manager: manager.to_owned(),
            applied: true,
            api_version: String::new(),
            subresource: subresource.to_owned(),
        }
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }

    /// Upstream's identifier, by which it sorts managers.
    fn key(&self) -> String {
        let mut key = format!("{{\"manager\":{:?},\"operation\":{:?}", self.manager, self.operation());
        for (name, value) in [("apiVersion", &self.api_version), ("subresource", &self.subresource)] {
            if !value.is_empty() {
                key.push_str(&format!(",{name:?}:{value:?}"));
            }
        }
        key.push('}');
        key
    }

    /// As conflicts name it: `"kubectl" with subresource "scale" using apps/v1`.
    pub(super) fn show(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applied {
            shown.push_str(&format!(" using {}", self.api_version));
        }
        shown
    }
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: Id,
    /// Of the set's paths.
    pub(super) api_version: String,
    pub(super) set: Set,
    pub(super) time: Option<String>,
}

/// The entries, in the order of upstream's identifiers.
#[derive(Clone, Debug, Default)]
pub(super) struct Managers(BTreeMap<String, Entry>);

impl Managers {
    /// None when an entry is not well formed: then upstream forgets all of them.
    pub(super) fn decode(fields: &Value) -> Option<Self> {
        let mut out = Self::default();
        for entry in fields.as_array().into_iter().flatten() {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return None,
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() || text("fieldsType") != "FieldsV1" {
                return None;
            }
            let set = if entry["fieldsV1"].is_null() { Set::default() } else { Set::from_fields(&entry["fieldsV1"])? };
            let id = if applied {
                Id::apply(text("manager"), text("subresource"))
            } else {
                Id::update(text("manager"), api_version, text("subresource"))
            };
            let time = entry["time"].as_str().map(str::to_owned);
            out.put(Entry { id, api_version: api_version.to_owned(), set, time });
        }
        Some(out)
    }

    /// Null when there are none.
    pub(super) fn encode(&self) -> Value {
        let mut entries: Vec<&Entry> = self.0.values().collect();
        entries.sort_by_key(|e| (e.id.operation(), e.time.clone(), &e.id.manager, &e.api_version, &e.id.subresource));
        if entries.is_empty() {
            return Value::Null;
        }
        entries.into_iter().map(encode_entry).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Entry> {
        self.0.get(&id.key())
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.0.insert(entry.id.key(), entry);
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<Entry> {
        self.0.remove(&id.key())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.values_mut()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.0.retain(|_, entry| keep(entry));
    }

    /// Says that a manager changed something now.
    pub(super) fn touch(&mut self, id: &Id, now: Timestamp) {
        if let Some(entry) = self.0.get_mut(&id.key()) {
            entry.time = Some(time::rfc3339(now));
        }
    }

    /// Merges the oldest updaters of each version into one entry until there are few enough.
    pub(super) fn cap(&mut self) {
        if self.0.values().filter(|entry| !entry.id.applied).count() <= MAX_UPDATERS {
            return;
        }
        let mut updaters: Vec<Entry> = self.0.values().filter(|e| !e.id.applied).cloned().collect();
        let mut left = updaters.len();
        updaters.sort_by_key(|e| (e.time.clone(), e.id.key()));
        let mut first_of_version: BTreeMap<String, Id> = BTreeMap::new();
        for entry in updaters {
            if left <= MAX_UPDATERS {
                return;
            }
            let Some(first) = first_of_version.get(&entry.api_version) else {
                first_of_version.insert(entry.api_version.clone(), entry.id);
                continue;
            };
            let bucket = Id::update(ANCIENT, &entry.api_version, "");
            let earlier = self.get(&bucket).cloned().or_else(|| self.remove(first));
            let set = earlier.map_or_else(|| entry.set.clone(), |earlier| entry.set.union(&earlier.set));
            self.remove(&entry.id);
            self.put(Entry { id: bucket, set, ..entry });
            left -= 1;
        }
    }
}

fn encode_entry(entry: &Entry) -> Value {
    let mut out = json!({
        "manager": entry.id.manager, "operation": entry.id.operation(), "apiVersion": entry.api_version,
        "fieldsType": "FieldsV1", "fieldsV1": entry.set.to_fields(),
    });
    if let Some(time) = &entry.time {
        out["time"] = time.as_str().into();
    }
    if !entry.id.subresource.is_empty() {
        out["subresource"] = entry.id.subresource.as_str().into();
    }
    out
}
