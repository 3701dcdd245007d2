//! The store with a model beside it: every write is judged the moment it has happened, and none happens on a full disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stead_store::{Change, Changes, Entry, Expect, Range, Revision, Store, StoreError, Write};

use crate::model::BUDGETS;
use crate::plant::{Plant, forgets};
use crate::rng::Rng;
use crate::world::{World, actor};

/// How long a slow disk takes for one write at most.
const SLOW_MAX_MS: u64 = 400;

#[derive(Debug)]
pub(crate) struct Disk {
    inner: Arc<dyn Store>,
    world: Arc<World>,
    rng: Rng,
}

impl Disk {
    #[must_use]
    pub(crate) fn new(inner: Arc<dyn Store>, world: Arc<World>) -> Self {
        world.model.lock().begins_at(inner.revision());
        Self { inner, rng: world.rng("disk"), world }
    }

    /// The write as it is done when a bug is planted in the server; `None` when it is not done at all.
    fn bent(&self, mut write: Write) -> Option<Write> {
        let plant = self.world.plant;
        let counts = actor().evicts && write.key.starts_with(BUDGETS.as_bytes());
        if forgets(plant, &self.rng) || plant == Some(Plant::EvictionUncounted) && counts {
            return None;
        }
        if plant == Some(Plant::ConflictIgnored) && matches!(write.expect, Expect::Modified(_)) {
            write.expect = Expect::Exists;
        }
        Some(write)
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
        let (slow, calm) = (self.world.profile.slow_disk, self.world.is_calm());
        if !calm && self.rng.below(1000) < slow {
            // Others may come in between: the read that a write is based on, and the write.
            tokio::time::sleep(Duration::from_millis(self.rng.below(SLOW_MAX_MS))).await;
        }
        let Some(write) = self.bent(write) else { return Ok(self.inner.revision()) };
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
