//! What changed in a cache, as a stream that cannot overflow.
//!
//! A slow reader does not make the stream grow: changes of one key are merged (oldest `old`, newest `new`),
//! so that at most one entry per object waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Key;

/// One object before and after. `old` is `None` for an object that is new, `new` for one that is gone.
#[derive(Debug)]
pub struct Change<K> {
    pub key: Key,
    pub old: Option<Arc<K>>,
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), old: self.old.clone(), new: self.new.clone() }
    }
}

impl<K> Change<K> {
    /// The newest state there is: `new`, or `old` of an object that is gone.
    pub fn newest(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}

/// A subscription to a cache. Begins with every object that is there, each as new.
#[derive(Debug)]
pub struct Changes<K> {
    pending: Arc<Pending<K>>,
}

#[derive(Debug)]
pub(crate) struct Pending<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

type OldNew<K> = (Option<Arc<K>>, Option<Arc<K>>);

#[derive(Debug)]
struct State<K> {
    order: VecDeque<Key>,
    merged: HashMap<Key, OldNew<K>>,
    closed: bool,
}

impl<K> Changes<K> {
    pub(crate) fn new() -> (Self, Weak<Pending<K>>) {
        let state = State { order: VecDeque::new(), merged: HashMap::new(), closed: false };
        let pending = Arc::new(Pending { state: Mutex::new(state), wake: Notify::new() });
        let weak = Arc::downgrade(&pending);
        (Self { pending }, weak)
    }

    /// The next change; `None` when the cache has been shut down and everything was read. Cancel safe.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            let woken = self.pending.wake.notified();
            {
                let mut state = self.pending.state.lock();
                if let Some(change) = state.pop() {
                    return Some(change);
                }
                if state.closed {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// A change that waits already, without waiting for one.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.pending.state.lock().pop()
    }
}

impl<K> State<K> {
    fn pop(&mut self) -> Option<Change<K>> {
        while let Some(key) = self.order.pop_front() {
            let (old, new) = self.merged.remove(&key).expect("every queued key has its change");
            // Came and went while nobody looked.
            if old.is_some() || new.is_some() {
                return Some(Change { key, old, new });
            }
        }
        None
    }
}

impl<K> Pending<K> {
    pub(crate) fn push(&self, change: &Change<K>) {
        let mut state = self.state.lock();
        if let Some(merged) = state.merged.get_mut(&change.key) {
            merged.1 = change.new.clone();
        } else {
            state.order.push_back(change.key.clone());
            state.merged.insert(change.key.clone(), (change.old.clone(), change.new.clone()));
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(name: &str, old: Option<u8>, new: Option<u8>) -> Change<u8> {
        Change { key: Key::new("", name), old: old.map(Arc::new), new: new.map(Arc::new) }
    }

    #[tokio::test]
    async fn a_slow_reader_sees_the_first_old_and_the_last_new() {
        let (mut changes, pending) = Changes::new();
        let pending = pending.upgrade().expect("the reader lives");
        pending.push(&change("a", None, Some(1)));
        pending.push(&change("b", None, Some(7)));
        pending.push(&change("a", Some(1), Some(2)));
        let first = changes.next().await.expect("open");
        assert_eq!((first.old, first.new.as_deref().copied()), (None, Some(2)));
        assert_eq!(changes.next().await.expect("open").key.name.as_ref(), "b");
        pending.close();
        assert!(changes.next().await.is_none());
    }

    #[test]
    fn what_came_and_went_unseen_is_not_told() {
        let (mut changes, pending) = Changes::new();
        let pending = pending.upgrade().expect("the reader lives");
        pending.push(&change("a", None, Some(1)));
        pending.push(&change("a", Some(1), None));
        assert!(changes.try_next().is_none());
    }
}
