//! Revisions, compare-and-put, ranges and watches: etcd's semantics behind one small trait.
//!
//! Invariants: knows no kinds; an acknowledged write survives kill -9 and power loss; watchers see every change once, in
//! revision order, and never a change that is not durable (lazy writes apart: that is what lazy means).

#![forbid(unsafe_code)]

mod disk;
pub mod door;
pub mod engine;
mod memory;
mod mvcc;
mod watchers;
mod writer;

use std::sync::Arc;

pub use disk::open_disk;
pub use door::*;
pub use engine::{Engine, Loaded, Record};
pub use watchers::WATCH_BUFFER_CHANGES_MAX;
pub use writer::{GROUP_BYTES_MAX, GROUP_WRITES_MAX, LAZY_DELAY_MAX, LAZY_WRITES_MAX, WRITE_QUEUE_MAX, open_engine};

use memory::Memory;

/// Changes that are kept for watches, old-revision ranges and `history`. The oldest go first.
pub const HISTORY_CHANGES_MAX: usize = 50_000;
/// Bytes of superseded values that the kept changes may hold in memory.
pub const HISTORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Age beyond which a change is forgotten (at the next write; counted from the start of the process).
pub const HISTORY_AGE_SECONDS_MAX: u64 = 3600;

/// How much history a store keeps.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub history_changes_max: usize,
    pub history_bytes_max: usize,
    pub history_age_max: std::time::Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_changes_max: HISTORY_CHANGES_MAX,
            history_bytes_max: HISTORY_BYTES_MAX,
            history_age_max: std::time::Duration::from_secs(HISTORY_AGE_SECONDS_MAX),
        }
    }
}

/// A store that forgets everything when it is dropped. It starts no thread and needs no runtime: writes are done by the caller.
pub fn memory() -> Arc<dyn Store> {
    memory_with(Options::default())
}

/// As [`memory`], with other limits of history.
pub fn memory_with(options: Options) -> Arc<dyn Store> {
    Arc::new(writer::Mvcc::inline(Box::new(Memory), options))
}
