//! The trait that every backend (disk, memory, etcd) implements, and its words.

use bytes::Bytes;
use tokio::sync::mpsc;

/// A point in the history of the whole store. Grows by one with each write; 0 is "before everything".
pub type Revision = u64;

/// One key as it stood at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    /// Revision of the write that made the key (after its last deletion).
    pub created: Revision,
    /// Revision of its last write.
    pub modified: Revision,
}

/// What must be true for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last written at this revision.
    Modified(Revision),
    /// The key exists, whatever its revision.
    Exists,
    /// No condition.
    Any,
}

/// How soon a write must survive a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged and before any watcher sees it.
    Now,
    /// With the next durable write, at the latest after a second: events and leases.
    Lazy,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    pub key: Bytes,
    /// `None` deletes.
    pub value: Option<Bytes>,
    pub expect: Expect,
    pub durability: Durability,
}

/// Objects of a range, and what the reader needs to go on.
#[derive(Clone, Debug)]
pub struct Range {
    pub entries: Vec<Entry>,
    /// Revision at which the range was read.
    pub revision: Revision,
    /// Keys of the range that did not fit the limit.
    pub remaining: usize,
}

/// One change, as watchers see it. Shared, never copied per watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: Bytes,
    /// The key after the change; `None` when it was deleted.
    pub now: Option<Entry>,
    /// The key before the change; `None` when it was created.
    pub before: Option<Entry>,
}

/// Changes of a prefix in revision order. The channel closes when the watcher was too slow or the store stops.
pub type Changes = mpsc::Receiver<std::sync::Arc<Change>>;

/// The embedded store, or a stand-in with the same semantics.
#[async_trait::async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The newest revision that readers can see.
    fn revision(&self) -> Revision;

    /// A revision up to which every change is in the channels of its watchers: whoever finds its channel empty after
    /// this call has seen everything of its prefix up to here.
    fn delivered(&self) -> Revision;

    /// The newest value of a key.
    async fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError>;

    /// The keys with `prefix`, from `start` on (a full key; empty: from the prefix itself), in key order, at most `limit`
    /// (0: all), as they stood at `at` (`None`: now).
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `at` is older than the kept history, [`StoreError::Future`] when it has not happened yet.
    async fn range(&self, prefix: &[u8], start: &[u8], limit: usize, at: Option<Revision>)
    -> Result<Range, StoreError>;

    /// Does one write if its expectation holds, and returns its revision. Deleting an absent key is [`StoreError::Unmet`].
    async fn write(&self, write: Write) -> Result<Revision, StoreError>;

    /// Every change of keys with `prefix` after revision `after`, then on and on.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `after` is older than the kept history.
    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Changes, StoreError>;

    /// Every retained change of keys with `prefix`, oldest first (for `timeline`).
    async fn history(&self, prefix: &[u8]) -> Result<Vec<std::sync::Arc<Change>>, StoreError>;

    /// Forgets the history before `before`.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// Makes everything durable and stops taking writes.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The expectation did not hold; `current` is what is there instead.
    #[error("the expectation of the write does not hold")]
    Unmet { current: Option<Entry> },
    #[error("revision {asked} has been compacted; the oldest kept is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    #[error("revision {asked} has not happened yet; the newest is {newest}")]
    Future { asked: Revision, newest: Revision },
    /// A write or sync of the engine failed: the store takes no writes any more until it is opened again.
    #[error("the store refuses writes since an earlier one failed: {0}")]
    Poisoned(String),
    /// What is on disk is not what was written.
    #[error("the data directory is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    Engine(String),
    #[error("the store is closed")]
    Closed,
}
