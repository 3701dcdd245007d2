//! What all writes share: the words of admission, putting into the store, errors of the store.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use stead_admission::{Context, addresses};
use stead_api::Kind;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;
use stead_store::{Durability, Entry, Expect, StoreError, Write};

use super::Target;
use crate::chain::Identity;
use crate::server::ApiServer;

/// Upstream's alphabet of generated names: no vowels, so no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random suffix for names.
pub(crate) fn suffix(length: usize) -> String {
    let mut out = String::with_capacity(length);
    while out.len() < length {
        let id = crate::source::uuid();
        // Bytes 6 and 8 carry the version and variant of the id.
        let random = id.as_bytes().iter().enumerate().filter(|(i, _)| !matches!(i, 6 | 8)).map(|(_, b)| b);
        let letters = random.map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
        out.extend(letters.take(length - out.len()));
    }
    out
}

/// A time as objects carry it: whole seconds, UTC.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Runs admission with everything that it may know.
pub(crate) fn admit<R>(
    server: &ApiServer,
    user: &Identity,
    dry_run: bool,
    ask: impl FnOnce(&mut Context<'_>) -> Result<R, ApiError>,
) -> Result<R, ApiError> {
    let lookup = server.lookup();
    let mut random = suffix;
    ask(&mut Context {
        now: crate::source::now(),
        user: &user.name,
        groups: &user.groups,
        lookup: &lookup,
        random: &mut random,
        addresses: &server.0.pool,
        dry_run,
    })
}

/// Where a namespace has quotas, its writes go one by one, so that two cannot both take the last place.
pub(crate) async fn quota_turn<'a>(server: &'a ApiServer, namespace: &str) -> Option<tokio::sync::MutexGuard<'a, ()>> {
    if namespace.is_empty() {
        return None;
    }
    let prefix = format!("/registry/resourcequotas/{namespace}/");
    let quotas = server.0.store.range(prefix.as_bytes(), b"", 1, None).await.ok()?;
    if quotas.entries.is_empty() { None } else { Some(server.0.quota.lock().await) }
}

/// Gives addresses back that `old` holds and `new` does not.
pub(crate) fn release(server: &ApiServer, kind: &Kind, old: &Value, new: Option<&Value>, dry_run: bool) {
    if !dry_run && kind.group.is_empty() && kind.plural == "services" {
        addresses::release(&server.0.pool, old, new);
    }
}

/// One put.
pub(crate) struct Put {
    pub(crate) kind: &'static Kind,
    pub(crate) key: String,
    pub(crate) expect: Expect,
    pub(crate) dry_run: bool,
}

/// Whether the expectation of a write held.
pub(crate) enum Outcome {
    Done(Entry),
    Unmet,
}

/// Writes an object in its stored form. A dry run looks whether it could.
pub(crate) async fn put(server: &ApiServer, put: Put, value: Bytes) -> Result<Outcome, ApiError> {
    let key = Bytes::from(put.key);
    if put.dry_run {
        let here = server.0.store.get(&key).await.map_err(store_failed)?;
        let modified = here.as_ref().map_or(0, |entry| entry.modified);
        let met = match put.expect {
            Expect::Absent => here.is_none(),
            Expect::Modified(revision) => modified == revision,
            Expect::Exists => here.is_some(),
            Expect::Any => true,
        };
        let entry = Entry { key, value, created: modified, modified };
        return Ok(if met { Outcome::Done(entry) } else { Outcome::Unmet });
    }
    let durability = durability(put.kind);
    let write = Write { key: key.clone(), value: Some(value.clone()), expect: put.expect, durability };
    match server.0.store.write(write).await {
        Ok(revision) => Ok(Outcome::Done(Entry { key, value, created: revision, modified: revision })),
        Err(StoreError::Unmet { .. }) => Ok(Outcome::Unmet),
        Err(error) => Err(store_failed(error)),
    }
}

/// Removes an object; the revision of the removal, or `None` when it changed meanwhile.
pub(crate) async fn remove(server: &ApiServer, kind: &Kind, entry: &Entry) -> Result<Option<u64>, ApiError> {
    let write = Write {
        key: entry.key.clone(),
        value: None,
        expect: Expect::Modified(entry.modified),
        durability: durability(kind),
    };
    match server.0.store.write(write).await {
        Ok(revision) => Ok(Some(revision)),
        Err(StoreError::Unmet { .. }) => Ok(None),
        Err(error) => Err(store_failed(error)),
    }
}

/// Events and leases are many and cheap to lose: they become durable with the next write that matters.
fn durability(kind: &Kind) -> Durability {
    match (kind.group, kind.plural) {
        ("" | "events.k8s.io", "events") | ("coordination.k8s.io", "leases") => Durability::Lazy,
        _ => Durability::Now,
    }
}

/// What a failing store means to a caller.
pub(crate) fn store_failed(error: StoreError) -> ApiError {
    match error {
        StoreError::Closed => ApiError::new(Reason::ServiceUnavailable, "the store is closed: the server is stopping"),
        other => ApiError::internal(&other.to_string()),
    }
}

/// Checks the namespace of an object against the URL, and fills it in.
pub(crate) fn check_namespace(target: &Target, metadata: &mut Value) -> Result<(), ApiError> {
    let own = metadata["namespace"].as_str().unwrap_or("");
    if !target.kind.namespaced() {
        if let Some(map) = metadata.as_object_mut() {
            map.remove("namespace");
        }
        return Ok(());
    }
    if !own.is_empty() && own != target.namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(text));
    }
    if metadata.is_object() || metadata.is_null() {
        metadata["namespace"] = target.namespace.clone().into();
    }
    Ok(())
}
