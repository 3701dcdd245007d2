//! Read your own writes: a key is not looked at again before the caches have seen what was written for it.
//!
//! Otherwise a cache that lags makes a controller act twice: create one pod more, delete the next one too.
//! Upstream's name for this: expectations, and since 1.36 the "stale controller consistency".

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use stead_client::{Class, classify};
use stead_informer::{Cache, Key, Object};

/// How long to wait before the server is asked again that could not be: first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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

    /// Whether `object` was deleted on behalf of `key` is not known, since the answer was lost. The caches have to be as new
    /// as what the server says of it now.
    pub fn doubted<K: Object>(&self, key: &Key, cache: &Cache<K>, api: &Api<K>, object: &K) {
        let (name, uid) = (Key::of(object.meta()), object.meta().uid.clone());
        let (cache, api) = (cache.clone(), api.clone());
        self.expect(key, move || {
            let (name, uid, cache, api) = (name.clone(), uid.clone(), cache.clone(), api.clone());
            async move { settle(&name, uid.as_deref(), &cache, &api).await }.boxed()
        });
    }

    /// Deletes this very object on behalf of `key`, and no other of that name; with a `resource_version` only
    /// as long as it is as it was then.
    ///
    /// # Errors
    /// The server's: `Conflict` and `NotFound` where it is no longer that object.
    pub async fn delete<K: Object>(
        &self,
        key: &Key,
        cache: &Cache<K>,
        api: &Api<K>,
        object: &K,
        resource_version: Option<String>,
    ) -> Result<(), kube::Error> {
        let only_this = Preconditions { uid: object.meta().uid.clone(), resource_version };
        let name = object.meta().name.as_deref().unwrap_or_default();
        let result = api.delete(name, &DeleteParams::default().preconditions(only_this)).await;
        match &result {
            Ok(_) => self.deleted(key, cache, object),
            Err(error) if classify(error) == Class::Retryable => self.doubted(key, cache, api, object),
            Err(_) => {}
        }
        result.map(|_| ())
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

/// Waits until the cache knows what the server says of an object now.
async fn settle<K: Object>(name: &Key, uid: Option<&str>, cache: &Cache<K>, api: &Api<K>) {
    let (mut pause, longest) = ASK_AGAIN;
    loop {
        match api.get_metadata_opt(&name.name).await {
            Ok(Some(live)) if live.metadata.uid.as_deref() == uid => {
                let revision = live.metadata.resource_version.and_then(|version| version.parse().ok());
                return cache.reached(revision.unwrap_or_default()).await;
            }
            Ok(_) => {
                let gone = |cache: &Cache<K>| cache.by_key(name).is_none_or(|o| o.meta().uid.as_deref() != uid);
                return cache.until(gone).await;
            }
            Err(error) if classify(&error) == Class::Retryable => tokio::time::sleep(pause).await,
            Err(error) => {
                tracing::warn!(%name, %error, "whether it was deleted cannot be asked");
                return;
            }
        }
        pause = longest.min(pause * 2);
    }
}
