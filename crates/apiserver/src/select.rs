//! Which objects a list, watch or collection delete is about: selectors over labels and fields of encoded objects.
//!
//! Only the labels and the fields that a selector may name are read; the rest of the bytes is skipped.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::ApiError;
use stead_machinery::selector::{FieldSelector, Selector};
use stead_store::{Entry, Revision};

use crate::objects;
use crate::path::Query;

/// Sparse objects of recent revisions that watchers share, by revision modulo this.
const RECENT_SLOTS: usize = 1024;

/// The selectors of one request.
#[derive(Debug)]
pub(crate) struct Selection {
    kind: &'static Kind,
    /// Not empty when the URL names one object, as the old watch paths do.
    name: String,
    labels: Selector,
    fields: FieldSelector,
    recent: Arc<Recent>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; `name` is the object that the URL names, if any.
    pub(crate) fn read(recent: &Arc<Recent>, kind: &'static Kind, name: &str, query: &Query) -> Result<Self, ApiError> {
        let labels = Selector::parse(query.get("labelSelector")).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(kind, query.get("fieldSelector")).map_err(ApiError::bad_request)?;
        Ok(Self { kind, name: name.to_owned(), labels, fields, recent: recent.clone() })
    }

    /// Nothing is left out.
    pub(crate) fn is_all(&self) -> bool {
        self.name.is_empty() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// The only name that can match, if there is only one.
    pub(crate) fn name(&self) -> Option<&str> {
        if self.name.is_empty() { self.fields.exact("metadata.name") } else { Some(&self.name) }
    }

    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        let (_, name) = objects::names_of_key(&entry.key);
        if self.name().is_some_and(|wanted| wanted != name) {
            return false;
        }
        if self.labels.is_everything() && self.fields.is_everything() {
            return true;
        }
        let attributes = self.recent.attributes(self.kind, entry);
        self.labels.matches_labels(&attributes["metadata"]["labels"]) && self.fields.matches(&attributes)
    }
}

/// A sparse object by its revision: names, labels and selectable fields.
type Slot = Mutex<Option<(Revision, Arc<Value>)>>;

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
    fn attributes(&self, kind: &'static Kind, entry: &Entry) -> Arc<Value> {
        let slot = &self.0[(entry.modified % RECENT_SLOTS as u64) as usize];
        if let Some((revision, found)) = &*slot.lock()
            && *revision == entry.modified
        {
            return found.clone();
        }
        let read = Arc::new(read_attributes(kind.storage_kind(), entry));
        *slot.lock() = Some((entry.modified, read.clone()));
        read
    }
}

/// The path that a selectable field is read from, where it is another.
fn source_of(field: &'static str) -> &'static str {
    match field {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        other => other,
    }
}

/// Reads the labels and every selectable field in one pass, into an object that has nothing else.
fn read_attributes(kind: &'static Kind, entry: &Entry) -> Value {
    let mut paths = vec!["metadata.labels"];
    paths.extend(kind.selectable.iter().map(|field| source_of(field)));
    let mut found = vec![None; paths.len()];
    let seek = Seek { paths: &paths, prefix: "", found: &mut found };
    // Stored bytes are JSON; what is not there just stays unfound.
    let _ = seek.deserialize(&mut serde_json::Deserializer::from_slice(&entry.value));
    let (namespace, name) = objects::names_of_key(&entry.key);
    let mut sparse = json!({"metadata": {"name": name, "namespace": namespace}});
    for (path, value) in paths.iter().zip(found) {
        if let Some(value) = value {
            let mut here = &mut sparse;
            for part in path.split('.') {
                here = &mut here[part];
            }
            *here = value;
        }
    }
    sparse
}

/// Picks the values at dotted paths out of JSON and skips the rest.
struct Seek<'a> {
    paths: &'a [&'static str],
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
            let here = |path: &&'static str| path.strip_prefix(self.prefix).is_some_and(|rest| rest == key);
            if let Some(index) = self.paths.iter().position(here) {
                self.found[index] = Some(map.next_value()?);
                continue;
            }
            let below = |path: &&'static str| {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use stead_api::kinds;

    use super::*;

    fn entry(key: &str, object: &Value) -> Entry {
        Entry { key: Bytes::from(key.to_owned()), value: objects::encode(object), created: 1, modified: 1 }
    }

    #[test]
    fn labels_and_fields_of_encoded_objects() {
        let pod = json!({
            "metadata": {"name": "web-0", "labels": {"app": "web"}, "annotations": {"labels": "x"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "status"}], "hostNetwork": true},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "web-0"}, "source": {"component": "kubelet"}});
        let pod = entry("/registry/pods/http/web-0", &pod);
        let event = entry("/registry/events/http/e", &event);
        for (kind, entry, query, want) in [
            ("pods", &pod, "labelSelector=app=web", true),
            ("pods", &pod, "labelSelector=app!=web", false),
            ("pods", &pod, "labelSelector=app in (a,web),!tier", true),
            ("pods", &pod, "fieldSelector=spec.nodeName=n1,status.phase!=Failed", true),
            ("pods", &pod, "fieldSelector=spec.nodeName=n2", false),
            ("pods", &pod, "fieldSelector=metadata.name=web-0,metadata.namespace=http", true),
            ("pods", &pod, "fieldSelector=metadata.namespace=other", false),
            ("pods", &pod, "fieldSelector=metadata.name=web-1", false),
            ("pods", &pod, "fieldSelector=spec.hostNetwork=true,status.podIPs=10.0.0.1", true),
            ("events", &event, "fieldSelector=involvedObject.name=web-0,source=kubelet", true),
            ("events", &event, "fieldSelector=involvedObject.name=web-1", false),
        ] {
            let kind = kinds::by_name(kind).unwrap();
            let query = Query::parse(Some(&query.replace(' ', "+")));
            let selection = Selection::read(&Arc::default(), kind, "", &query).unwrap();
            assert_eq!(selection.matches(entry), want, "{query:?}");
        }
        let newer = kinds::by_resource("events.k8s.io", "v1", "events").unwrap();
        let query = Query::parse(Some("fieldSelector=regarding.name=web-0"));
        assert!(Selection::read(&Arc::default(), newer, "", &query).unwrap().matches(&event));
    }
}
