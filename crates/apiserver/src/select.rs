//! Which objects a list, watch or collection delete is about: selectors over labels and fields of encoded objects.
//!
//! Only the labels and the fields that a selector may name are read; the rest of the bytes is skipped.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use stead_api::{Kind, convert};
use stead_machinery::ApiError;
use stead_store::{Entry, Revision};

use crate::objects;
use crate::path::Query;

/// Attributes of recent revisions that watchers share, by revision modulo this.
const RECENT_SLOTS: usize = 1024;

/// What selectors may look at.
#[derive(Debug, Default)]
struct Attributes {
    labels: Map<String, Value>,
    /// In the order of the kind's selectable fields.
    fields: Vec<Option<Value>>,
}

/// The selectors of one request.
#[derive(Debug)]
pub(crate) struct Selection {
    kind: &'static Kind,
    /// Not empty when one object is named by the URL or by `metadata.name=`.
    name: String,
    namespace: String,
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
    recent: Arc<Recent>,
}

#[derive(Debug)]
struct Requirement {
    key: String,
    value: String,
    equal: bool,
}

#[derive(Debug)]
struct FieldRequirement {
    index: usize,
    value: String,
    equal: bool,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; `name` is the object that the URL names, if any.
    pub(crate) fn read(recent: &Arc<Recent>, kind: &'static Kind, name: &str, query: &Query) -> Result<Self, ApiError> {
        let mut selection = Self {
            kind,
            name: name.to_owned(),
            namespace: String::new(),
            labels: Vec::new(),
            fields: Vec::new(),
            recent: recent.clone(),
        };
        for part in query.get("labelSelector").split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = split(part)?;
            selection.labels.push(Requirement { key, value, equal });
        }
        for part in query.get("fieldSelector").split(',').filter(|p| !p.is_empty()) {
            let (key, value, equal) = split(part)?;
            match key.as_str() {
                "metadata.name" if equal => selection.name = value,
                "metadata.namespace" if equal => selection.namespace = value,
                _ => {
                    let index = kind
                        .selectable
                        .iter()
                        .position(|f| *f == key)
                        .ok_or_else(|| ApiError::bad_request(format!("field label not supported: {key}")))?;
                    selection.fields.push(FieldRequirement { index, value, equal });
                }
            }
        }
        Ok(selection)
    }

    /// Nothing is left out.
    pub(crate) fn is_all(&self) -> bool {
        self.name.is_empty() && self.namespace.is_empty() && self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        let (namespace, name) = objects::names_of_key(&entry.key);
        if !self.name.is_empty() && self.name != name || !self.namespace.is_empty() && self.namespace != namespace {
            return false;
        }
        if self.labels.is_empty() && self.fields.is_empty() {
            return true;
        }
        let attributes = self.recent.attributes(self.kind, entry);
        self.labels.iter().all(|r| (attributes.labels.get(&r.key).and_then(Value::as_str) == Some(&r.value)) == r.equal)
            && self.fields.iter().all(|r| (text(attributes.fields[r.index].as_ref()) == r.value) == r.equal)
    }
}

fn split(part: &str) -> Result<(String, String, bool), ApiError> {
    let (key, value, equal) = if let Some((k, v)) = part.split_once("!=") {
        (k, v, false)
    } else if let Some((k, v)) = part.split_once('=') {
        (k, v.trim_start_matches('='), true)
    } else {
        return Err(ApiError::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'")));
    };
    Ok((key.trim().to_owned(), value.trim().to_owned(), equal))
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

type Slot = Mutex<Option<(Revision, &'static str, Arc<Attributes>)>>;

/// Attributes of recent revisions, read once for all who ask about the same revision at about the same time.
pub(crate) struct Recent(Box<[Slot]>);

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recent")
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self((0..RECENT_SLOTS).map(|_| Mutex::new(None)).collect())
    }
}

impl Recent {
    fn attributes(&self, kind: &'static Kind, entry: &Entry) -> Arc<Attributes> {
        let slot = &self.0[(entry.modified % RECENT_SLOTS as u64) as usize];
        if let Some((revision, group, found)) = &*slot.lock()
            && *revision == entry.modified
            && *group == kind.group
        {
            return found.clone();
        }
        let read = Arc::new(read_attributes(kind, &entry.value));
        *slot.lock() = Some((entry.modified, kind.group, read.clone()));
        read
    }
}

/// Reads the labels and every selectable field in one pass.
fn read_attributes(kind: &'static Kind, stored: &[u8]) -> Attributes {
    let mut paths = vec!["metadata.labels".to_owned()];
    paths.extend(kind.selectable.iter().map(|field| convert::field_to_storage(kind, field)));
    let mut found = vec![None; paths.len()];
    let seek = Seek { paths: &paths, prefix: "", found: &mut found };
    // Stored bytes are JSON; what is not there just stays unfound.
    let _ = seek.deserialize(&mut serde_json::Deserializer::from_slice(stored));
    let mut found = found.into_iter();
    let labels = match found.next().flatten() {
        Some(Value::Object(labels)) => labels,
        _ => Map::new(),
    };
    Attributes { labels, fields: found.collect() }
}

/// Picks the values at dotted paths out of JSON and skips the rest.
struct Seek<'a> {
    paths: &'a [String],
    /// Where we are, with a dot at the end unless at the top.
    prefix: &'a str,
    found: &'a mut Vec<Option<Value>>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            let here = |path: &String| path.strip_prefix(self.prefix).is_some_and(|rest| rest == key);
            if let Some(index) = self.paths.iter().position(here) {
                self.found[index] = Some(map.next_value()?);
                continue;
            }
            let below = |path: &String| {
                path.strip_prefix(self.prefix)
                    .and_then(|rest| rest.strip_prefix(key.as_ref()))
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            if self.paths.iter().any(below) {
                let prefix = format!("{}{key}.", self.prefix);
                map.next_value_seed(Seek { paths: self.paths, prefix: &prefix, found: self.found })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
