//! All caches of a process: one per kind, started when first asked for.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use kube::Resource;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta, Request};
use parking_lot::Mutex;
use stead_client::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::reflect::Reflector;
use crate::{Cache, Object};

/// Only the metadata of an object of any kind: what the garbage collector needs.
pub type MetaObject = PartialObjectMeta<DynamicObject>;

/// The shared caches. Cheap to clone; the watches end with the last clone and the last cache.
#[derive(Clone)]
pub struct Caches {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    /// Only this namespace.
    namespace: Option<String>,
    open: Mutex<HashMap<(TypeId, String), Open>>,
    stop: CancellationToken,
    alive: Arc<DropGuard>,
}

struct Open {
    cache: Box<dyn Any + Send + Sync>,
    stop: CancellationToken,
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches").field("open", &self.inner.open.lock().len()).finish_non_exhaustive()
    }
}

impl Caches {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::open_for(client, None)
    }

    /// Only what is in one namespace; for kinds that are in namespaces.
    #[must_use]
    pub fn within(client: Client, namespace: &str) -> Self {
        Self::open_for(client, Some(namespace.to_owned()))
    }

    fn open_for(client: Client, namespace: Option<String>) -> Self {
        let stop = CancellationToken::new();
        let alive = Arc::new(stop.clone().drop_guard());
        Self { inner: Arc::new(Inner { client, namespace, open: Mutex::new(HashMap::new()), stop, alive }) }
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The cache of a typed kind, all namespaces or the one of [`Caches::within`]. The first call starts the watch and must be within a tokio runtime.
    #[must_use]
    pub fn of<K>(&self) -> Cache<K>
    where
        K: Object + Resource<DynamicType = ()>,
    {
        self.open(K::url_path(&(), self.inner.namespace.as_deref()))
    }

    /// The metadata of every object of any kind, custom ones included.
    #[must_use]
    pub fn metadata(&self, kind: &ApiResource) -> Cache<MetaObject> {
        self.open(MetaObject::url_path(kind, self.inner.namespace.as_deref()))
    }

    /// Whole objects of a kind without a Rust type.
    #[must_use]
    pub fn dynamic(&self, kind: &ApiResource) -> Cache<DynamicObject> {
        self.open(DynamicObject::url_path(kind, self.inner.namespace.as_deref()))
    }

    /// Ends the metadata watch of a kind that is no longer served.
    pub fn close_metadata(&self, kind: &ApiResource) {
        let path = MetaObject::url_path(kind, self.inner.namespace.as_deref());
        if let Some(open) = self.inner.open.lock().remove(&(TypeId::of::<MetaObject>(), path)) {
            open.stop.cancel();
        }
    }

    /// Ends all watches and closes all streams; the caches keep what they have.
    pub fn shut_down(&self) {
        self.inner.stop.cancel();
    }

    fn open<K: Object>(&self, path: String) -> Cache<K> {
        let mut open = self.inner.open.lock();
        let slot = (TypeId::of::<K>(), path);
        if let Some(existing) = open.get(&slot) {
            return existing.cache.downcast_ref::<Cache<K>>().expect("the slot names the type").clone();
        }
        let cache = Cache::new(slot.1.clone());
        let stop = self.inner.stop.child_token();
        let reflector = Reflector {
            client: self.inner.client.clone(),
            request: Request::new(&slot.1),
            metadata: K::metadata_api(),
            mirror: Box::new(cache.clone()),
        };
        let (token, closing) = (stop.clone(), cache.clone());
        tokio::spawn(async move {
            token.run_until_cancelled(reflector.run()).await;
            closing.close();
        });
        let cache = cache.kept_alive_by(&self.inner.alive);
        open.insert(slot, Open { cache: Box::new(cache.clone()), stop });
        cache
    }
}
