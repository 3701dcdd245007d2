//! Fan-out of changes: one shared change for all watchers of a prefix; a slow watcher is closed, never waited for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::door::{Change, Changes, Revision};

/// Changes that a watcher may lag behind (beyond the history it asked for) before it is closed.
pub const WATCH_BUFFER_CHANGES_MAX: usize = 16_384;

/// The open watches of a store, by prefix.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    by_prefix: HashMap<Bytes, Vec<Watcher>>,
    /// How many prefixes have each length: a change looks only at those prefixes of its key that somebody watches.
    lengths: BTreeMap<usize, usize>,
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    /// Changes up to this revision were replayed or not asked for.
    after: Revision,
    sender: mpsc::Sender<Arc<Change>>,
}

impl Watchers {
    /// Opens a watch that begins with `backlog`; `after` is the revision up to which the backlog is complete.
    pub(crate) fn add(&mut self, prefix: &[u8], backlog: Vec<Arc<Change>>, after: Revision) -> Changes {
        let (sender, receiver) = mpsc::channel(backlog.len() + WATCH_BUFFER_CHANGES_MAX);
        for change in backlog {
            sender.try_send(change).expect("the channel was made larger than the backlog");
        }
        if !self.closed {
            let prefix = Bytes::copy_from_slice(prefix);
            let length = prefix.len();
            let list = self.by_prefix.entry(prefix).or_insert_with(|| {
                *self.lengths.entry(length).or_default() += 1;
                Vec::new()
            });
            list.retain(|watcher| !watcher.sender.is_closed());
            list.push(Watcher { after, sender });
        }
        receiver
    }

    /// Sends one change to all who watch its key.
    pub(crate) fn publish(&mut self, change: &Arc<Change>) {
        let mut emptied = Vec::new();
        for (&length, _) in self.lengths.range(..=change.key.len()) {
            let prefix = &change.key[..length];
            let Some(list) = self.by_prefix.get_mut(prefix) else { continue };
            list.retain(|watcher| watcher.after >= change.revision || watcher.sender.try_send(change.clone()).is_ok());
            if list.is_empty() {
                emptied.push(length);
            }
        }
        for length in emptied {
            self.drop_prefix(&change.key[..length]);
        }
    }

    /// Ends every watch; what was sent can still be read.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.by_prefix.clear();
        self.lengths.clear();
    }

    fn drop_prefix(&mut self, prefix: &[u8]) {
        self.by_prefix.remove(prefix);
        if let Some(count) = self.lengths.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}
