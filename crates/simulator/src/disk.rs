//! The store with a model beside it: every write is judged the moment it has happened, and none happens on a full disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use stead_store::{Change, Changes, Entry, Range, Revision, Store, StoreError, Write};

use crate::world::{World, actor};

#[derive(Debug)]
pub(crate) struct Disk {
    inner: Arc<dyn Store>,
    world: Arc<World>,
}

impl Disk {
    #[must_use]
    pub(crate) fn new(inner: Arc<dyn Store>, world: Arc<World>) -> Self {
        Self { inner, world }
    }
}

#[async_trait::async_trait]
impl Store for Disk {
    fn revision(&self) -> Revision {
        self.inner.revision()
    }

    fn delivered(&self) -> Revision {
        self.inner.delivered()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Range, StoreError> {
        self.inner.range(prefix, start, limit, at).await
    }

    async fn write(&self, write: Write) -> Result<Revision, StoreError> {
        if self.world.disk_full.load(Ordering::Relaxed) {
            return Err(StoreError::Engine("no space left on device".to_owned()));
        }
        let (key, value) = (write.key.clone(), write.value.clone());
        let revision = self.inner.write(write).await?;
        self.world.wrote(actor(), revision, &key, value.as_deref());
        Ok(revision)
    }

    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Changes, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn history(&self, prefix: &[u8]) -> Result<Vec<Arc<Change>>, StoreError> {
        self.inner.history(prefix).await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
