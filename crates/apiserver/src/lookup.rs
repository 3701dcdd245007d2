//! Parsed objects for admission and authorisation: read from the store, parsed once per revision.
//!
//! The store serves reads from memory without waiting, so what admission sees is never older than the newest write.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use stead_admission::Lookup;
use stead_admission::authz::{Grants, Referent};
use stead_api::Kind;
use stead_api::kinds::KINDS;
use stead_store::{Entry, Revision, Store};

use crate::followed::{Granted, Relations};
use crate::objects;

/// Parsed objects that are kept. When there are more, all are forgotten and parsed again as needed.
const MEMO_OBJECTS_MAX: usize = 4096;

/// Parsed objects by key, each with the revision it was parsed from.
#[derive(Debug, Default)]
pub(crate) struct Memo(Mutex<HashMap<bytes::Bytes, (Revision, Arc<Value>)>>);

impl Memo {
    /// The parsed form of an entry.
    pub(crate) fn parse(&self, entry: &Entry) -> Option<Arc<Value>> {
        if let Some((revision, value)) = self.0.lock().get(&entry.key)
            && *revision == entry.modified
        {
            return Some(value.clone());
        }
        let value = Arc::new(objects::decode(&entry.value, entry.modified).ok()?);
        let mut kept = self.0.lock();
        if kept.len() >= MEMO_OBJECTS_MAX {
            kept.clear();
        }
        kept.insert(entry.key.clone(), (entry.modified, value.clone()));
        Some(value)
    }
}

/// Admission's view of the store.
#[derive(Debug)]
pub(crate) struct StoreLookup<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) memo: &'a Memo,
    pub(crate) relations: &'a Relations,
    pub(crate) granted: &'a Granted,
}

impl Lookup for StoreLookup<'_> {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = objects::key_of(kind(group, plural)?, namespace, name);
        let entry = self.store.get(key.as_bytes()).now_or_never()?.ok()??;
        self.memo.parse(&entry)
    }

    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(kind) = kind(group, plural) else { return Vec::new() };
        let prefix = objects::prefix_of(kind, namespace.unwrap_or(""));
        let Some(Ok(range)) = self.store.range(prefix.as_bytes(), b"", 0, None).now_or_never() else {
            return Vec::new();
        };
        range.entries.iter().filter_map(|entry| self.memo.parse(entry)).collect()
    }

    fn node_needs(&self, node: &str, namespace: &str, what: Referent, name: &str) -> bool {
        self.relations.needs(self, (node, namespace), what, name)
    }

    fn grants(&self, user: &str, groups: &[String]) -> Arc<Grants> {
        self.granted.of(self, user, groups)
    }
}

fn kind(group: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.group == group && kind.plural == plural)
}
