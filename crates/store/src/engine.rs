//! What the store needs from below: a durable, ordered list of records. Reads never come here after the load.

use bytes::Bytes;

use crate::door::{Revision, StoreError};

/// One write as it is made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub revision: Revision,
    /// The revision before this one. They differ by more than one only where a restart may have lost lazy writes.
    pub previous: Revision,
    pub key: Bytes,
    /// `None`: the key was deleted.
    pub value: Option<Bytes>,
    /// Revision of the write that made the key; for a deletion, of the key that it deleted.
    pub created: Revision,
    /// Number of keys that exist after this write: a missing record shows at the next load.
    pub live: u64,
}

/// What is known after a load besides the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Changes up to here have been forgotten; of older revisions only what was still valid then is there.
    pub floor: Revision,
    /// The next write comes after this revision, even if the newest record is older.
    pub base: Revision,
}

/// A durable list of records. Called by one thread only; may block.
pub trait Engine: Send + std::fmt::Debug + 'static {
    /// Hands over every kept record in revision order.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when something that was made durable is not there as it was; errors of `each` are passed on.
    fn load(&mut self, each: &mut dyn FnMut(Record) -> Result<(), StoreError>) -> Result<Loaded, StoreError>;

    /// Appends the records as one unit: all or none are there after a crash. When `sync`, they and everything appended
    /// before survive a power loss once this returns; otherwise they survive the death of the process only.
    ///
    /// # Errors
    /// After an error the state below is unknown; the store does not call the engine again but to drop it.
    fn append(&mut self, records: &[Record], sync: bool) -> Result<(), StoreError>;

    /// Makes everything appended so far survive a power loss.
    ///
    /// # Errors
    /// As [`Engine::append`].
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Moves the floor and drops the records that nothing at or above it needs. Need not be durable before a later append is.
    ///
    /// # Errors
    /// As [`Engine::append`].
    fn forget(&mut self, floor: Revision, dead: &[Revision]) -> Result<(), StoreError>;

    /// Makes everything durable and notes that nothing was lost.
    ///
    /// # Errors
    /// As [`Engine::append`].
    fn close(&mut self) -> Result<(), StoreError>;
}
