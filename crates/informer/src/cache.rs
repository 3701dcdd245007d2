//! A live copy of all objects of one kind.

use std::collections::HashSet;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use crate::changes::Pending;
use crate::event;
use crate::reflect::Mirror;
use crate::store::{IndexFn, Store};
use crate::{Change, Changes, Key};

/// What a cache can hold: any typed object, or the metadata of any kind.
pub trait Object: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}
impl<K> Object for K where K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send>;

/// A shared, read-only copy of one kind, kept up to date by one watch. Cheap to clone.
///
/// Objects are shared and without `managedFields`. A reader may see an old state, never a mixed one:
/// who must not act on an old state waits with [`Cache::reached`].
///
/// The watch goes on as long as this, another cache of the same [`crate::Caches`] or that itself is held.
pub struct Cache<K> {
    inner: Arc<Inner<K>>,
    /// Ends the watches when the last holder goes; the watching task itself holds none.
    alive: Option<Arc<DropGuard>>,
}

pub(crate) struct Inner<K> {
    what: String,
    store: RwLock<Store<K>>,
    /// Held while a change is applied and told, so that a new listener misses nothing and sees nothing twice.
    listeners: Mutex<Listeners<K>>,
    /// The revision up to which the copy is complete; 0 until the first list.
    revision: Reached,
}

/// A number that only grows, and who waits for it. Waiters are woken in the order in which they came, which tokio's own
/// channel for this does by chance: a simulated cluster has to go the same way each time.
#[derive(Default)]
struct Reached {
    at: AtomicU64,
    told: Notify,
}

impl Reached {
    fn get(&self) -> u64 {
        self.at.load(Ordering::Acquire)
    }

    /// Whether that is further than before.
    fn raise(&self, to: u64) -> bool {
        self.at.fetch_max(to, Ordering::AcqRel) < to
    }

    /// Waits until `holds`; it is asked once now and whenever somebody tells of a change.
    async fn until(&self, mut holds: impl FnMut() -> bool) {
        loop {
            let mut told = pin!(self.told.notified());
            // From here on no change is missed.
            told.as_mut().enable();
            if holds() {
                return;
            }
            told.await;
        }
    }
}

struct Listeners<K> {
    handlers: Vec<Handler<K>>,
    streams: Vec<Weak<Pending<K>>>,
    closed: bool,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), alive: self.alive.clone() }
    }
}

impl<K> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("what", &self.inner.what).field("len", &self.inner.store.read().len()).finish()
    }
}

impl<K: Object> Cache<K> {
    pub(crate) fn new(what: String) -> Self {
        let listeners = Listeners { handlers: Vec::new(), streams: Vec::new(), closed: false };
        let inner = Inner {
            what,
            store: RwLock::new(Store::default()),
            listeners: Mutex::new(listeners),
            revision: Reached::default(),
        };
        Self { inner: Arc::new(inner), alive: None }
    }

    /// The same cache for those who read it.
    pub(crate) fn kept_alive_by(&self, guard: &Arc<DropGuard>) -> Self {
        Self { inner: self.inner.clone(), alive: Some(guard.clone()) }
    }

    /// The URL path of the watched collection, for logs.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.inner.store.read().get(namespace, name).cloned()
    }

    #[must_use]
    pub fn by_key(&self, key: &Key) -> Option<Arc<K>> {
        self.get(&key.namespace, &key.name)
    }

    #[must_use]
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.store.read().all().cloned().collect()
    }

    /// The objects of a namespace, in the order of their names.
    #[must_use]
    pub fn list_ns(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.store.read().of_namespace(namespace).cloned().collect()
    }

    /// The objects that `index` has under `value`, in the order of namespace and name. Empty for an index that
    /// was never added.
    #[must_use]
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let store = self.inner.store.read();
        match store.by_index(index, value) {
            Some(found) => found.cloned().collect(),
            None => {
                tracing::error!(index, what = self.inner.what, "no such index");
                Vec::new()
            }
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.store.read().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index; one of that name that exists is kept.
    pub fn add_index(&self, name: &'static str, values_of: IndexFn<K>) {
        self.inner.store.write().add_index(name, values_of);
    }

    /// The revision up to which this copy is complete; 0 before the first list.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.inner.revision.get()
    }

    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.revision() > 0
    }

    /// Waits for the first complete list.
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// Waits until everything up to `revision` has been seen, one's own writes for example.
    pub async fn reached(&self, revision: u64) {
        self.inner.revision.until(|| self.inner.revision.get() >= revision).await;
    }

    /// Waits until `holds` of this cache; it is asked once now and after each change.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        self.inner.revision.until(|| holds(self)).await;
    }

    /// Calls `handler` for every object that is there and for every change to come, in order, from the watching task.
    /// It has to be quick, and must neither wait nor listen to or index this cache. Caches that it holds are watched
    /// until [`crate::Caches::shut_down`].
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + 'static) {
        let mut listeners = self.inner.listeners.lock();
        self.replay(&handler);
        listeners.handlers.push(Box::new(handler));
    }

    /// The same as a stream, which merges what waits by key.
    #[must_use]
    pub fn subscribe(&self) -> Changes<K> {
        let mut listeners = self.inner.listeners.lock();
        let (changes, weak) = Changes::new();
        if let Some(pending) = weak.upgrade() {
            self.replay(&|change| pending.push(change));
            if listeners.closed {
                pending.close();
            }
        }
        listeners.streams.push(weak);
        changes
    }

    fn replay(&self, told: &dyn Fn(&Change<K>)) {
        for object in self.list() {
            told(&Change { key: Key::of(object.meta()), old: None, new: Some(object) });
        }
    }

    /// Takes over one object. An event that was seen already changes nothing. Another object of the same name, of whose
    /// predecessor's end nobody was told because the watch was down, is told as an end and a beginning: whoever keeps
    /// books by UID has to close one.
    fn put(&self, key: Key, mut object: K) {
        // Left out by the decoder, unless the server wrote their name in a way of its own.
        object.meta_mut().managed_fields = None;
        let new = Arc::new(object);
        let listeners = self.inner.listeners.lock();
        let mut store = self.inner.store.write();
        let same = store.get(&key.namespace, &key.name).is_some_and(|old| same_version(old.meta(), new.meta()));
        if same {
            return;
        }
        let mut old = store.insert(&key, &new);
        drop(store);
        if old.as_ref().is_some_and(|old| old.meta().uid != new.meta().uid) {
            listeners.tell(&Change { key: key.clone(), old: old.take(), new: None });
        }
        listeners.tell(&Change { key, old, new: Some(new) });
    }

    pub(crate) fn close(&self) {
        let mut listeners = self.inner.listeners.lock();
        listeners.closed = true;
        listeners.handlers.clear();
        for stream in listeners.streams.iter().filter_map(Weak::upgrade) {
            stream.close();
        }
    }
}

impl<K: Object> Mirror for Cache<K> {
    fn what(&self) -> &str {
        &self.inner.what
    }

    fn apply(&self, object: &str) -> Result<(Key, String), serde_json::Error> {
        let object: K = event::object(object)?;
        let key = Key::of(object.meta());
        let revision = object.meta().resource_version.clone().unwrap_or_default();
        self.put(key.clone(), object);
        Ok((key, revision))
    }

    fn remove(&self, key: Key) {
        let listeners = self.inner.listeners.lock();
        let old = self.inner.store.write().remove(&key);
        if old.is_some() {
            listeners.tell(&Change { key, old, new: None });
        }
    }

    fn retain(&self, keep: &HashSet<Key>) {
        let gone: Vec<Key> = self.inner.store.read().keys().filter(|key| !keep.contains(key)).collect();
        for key in gone {
            self.remove(key);
        }
    }

    fn advance(&self, revision: u64) {
        if self.inner.revision.raise(revision) {
            self.inner.revision.told.notify_waiters();
        }
    }

    fn listed(&self, revision: u64) {
        self.inner.revision.raise(revision.max(1));
        self.inner.revision.told.notify_waiters();
    }
}

impl<K> Listeners<K> {
    fn tell(&self, change: &Change<K>) {
        for handler in &self.handlers {
            handler(change);
        }
        for stream in self.streams.iter().filter_map(Weak::upgrade) {
            stream.push(change);
        }
    }
}

fn same_version(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.uid == b.uid && a.resource_version.is_some() && a.resource_version == b.resource_version
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn an_object_that_took_the_place_of_another_is_told_as_an_end_and_a_beginning() {
        let cache = Cache::<ConfigMap>::new("configmaps".to_owned());
        let told: Arc<Lock<Vec<String>>> = Arc::default();
        let log = told.clone();
        cache.on_change(move |change| {
            let uid = |object: &Option<Arc<ConfigMap>>| object.as_ref().and_then(|o| o.metadata.uid.clone());
            let line = format!("{:?}>{:?}", uid(&change.old), uid(&change.new));
            log.lock().expect("alone").push(line.replace("Some(\"", "").replace("\")", ""));
        });
        let key = Key::new("ns", "a");
        for (uid, version) in [("1", "1"), ("1", "2"), ("2", "3")] {
            let metadata = ObjectMeta {
                name: Some("a".to_owned()),
                namespace: Some("ns".to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            };
            cache.put(key.clone(), ConfigMap { metadata, ..ConfigMap::default() });
        }
        assert_eq!(*told.lock().expect("alone"), ["None>1", "1>1", "1>None", "None>2"]);
    }
}
