//! Read your own writes: a key is not looked at again before the caches have seen what was written for it.
//!
//! Otherwise a cache that lags makes a controller act twice: create one pod more, delete the next one too.
//! Upstream's name for this: expectations, and since 1.36 the "stale controller consistency".

use std::collections::HashMap;
use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use stead_informer::{Cache, Key, Object};

type Wait = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What was written for each key and is perhaps not yet in the caches.
#[derive(Default)]
pub struct OwnWrites {
    open: Mutex<HashMap<Key, Vec<Wait>>>,
}

impl fmt::Debug for OwnWrites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnWrites").field("keys", &self.open.lock().len()).finish()
    }
}

impl OwnWrites {
    /// `object` is what the server answered to a create, update or patch on behalf of `key`.
    pub fn wrote<K: Object>(&self, key: &Key, cache: &Cache<K>, object: &K) {
        let Some(revision) = object.meta().resource_version.as_ref().and_then(|rv| rv.parse::<u64>().ok()) else {
            return;
        };
        let cache = cache.clone();
        self.expect(key, move || {
            let cache = cache.clone();
            async move { cache.reached(revision).await }.boxed()
        });
    }

    /// `object`, as it was before, was deleted with success on behalf of `key`.
    pub fn deleted<K: Object>(&self, key: &Key, cache: &Cache<K>, object: &K) {
        let (name, uid, cache) = (Key::of(object.meta()), object.meta().uid.clone(), cache.clone());
        self.expect(key, move || {
            let (name, uid, cache) = (name.clone(), uid.clone(), cache.clone());
            let going = move |cache: &Cache<K>| {
                let live = cache.by_key(&name);
                live.is_none_or(|o| o.meta().uid != uid || o.meta().deletion_timestamp.is_some())
            };
            async move { cache.until(going).await }.boxed()
        });
    }

    /// Waits until everything that was written for `key` is in the caches. Cancel safe.
    pub async fn seen(&self, key: &Key) {
        loop {
            let wait = match self.open.lock().get(key).and_then(|waits| waits.last()) {
                Some(wait) => wait(),
                None => break,
            };
            wait.await;
            // Only the worker that has this key adds to its list, so the last one is still the one that was awaited.
            let mut open = self.open.lock();
            let empty = open.get_mut(key).is_none_or(|waits| {
                waits.pop();
                waits.is_empty()
            });
            if empty {
                open.remove(key);
            }
        }
    }

    fn expect(&self, key: &Key, wait: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        self.open.lock().entry(key.clone()).or_default().push(Box::new(wait));
    }
}
