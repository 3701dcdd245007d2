//! A work queue of keys: what is added twice is done once, and no key is done by two workers at once.
//!
//! Semantics of client-go's rate-limited work queue (`k8s.io/client-go/util/workqueue`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Back-off of a key that failed once; doubles with each further failure up to [`RETRY_MAX`].
pub const RETRY_FIRST: Duration = Duration::from_millis(5);
pub const RETRY_MAX: Duration = Duration::from_secs(60);

/// A queue of keys shared by its workers. Cheap to clone. It holds at most one entry per key.
pub struct Queue<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Waiting in `ready`, or to be put there when the worker is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    later: BinaryHeap<Reverse<Later<K>>>,
    /// The earliest moment for which each key stands in `later`; other entries of the key there are void.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    closed: bool,
}

/// Ordered by time only.
struct Later<K> {
    at: Instant,
    key: K,
}

impl<K> PartialEq for Later<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl<K> Eq for Later<K> {}
impl<K> PartialOrd for Later<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Later<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// A key that one worker has; handed back when dropped.
pub struct Claimed<K: Clone + Eq + Hash> {
    key: K,
    queue: Queue<K>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.inner.state.lock();
        f.debug_struct("Queue")
            .field("ready", &state.ready.len())
            .field("working", &state.working.len())
            .field("later", &state.due.len())
            .finish()
    }
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            later: BinaryHeap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            closed: false,
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// Asks for `key` to be worked on. While it waits, or is worked on, further calls are merged into one.
    pub fn add(&self, key: K) {
        let mut state = self.inner.state.lock();
        if state.add(key) {
            drop(state);
            self.inner.wake.notify_one();
        }
    }

    /// Asks for `key` after `delay`; of several delays the shortest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.inner.state.lock();
        if state.closed || state.due.get(&key).is_some_and(|due| *due <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.later.push(Reverse(Later { at, key }));
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Asks for `key` again after its back-off, which grows with every call until [`Queue::forget`].
    pub fn retry(&self, key: K) {
        let delay = {
            let mut state = self.inner.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = back_off(*failures);
            *failures += 1;
            delay
        };
        self.add_after(key, delay);
    }

    /// How often `key` failed since the last [`Queue::forget`].
    #[must_use]
    pub fn failures(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The key succeeded: its next failure is the first one again.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    /// Keys that wait to be taken now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.state.lock().ready.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No more keys are taken in; workers get `None`.
    pub fn shut_down(&self) {
        self.inner.state.lock().closed = true;
        self.inner.wake.notify_waiters();
        self.inner.wake.notify_one();
    }

    /// The next key to work on, once there is one; `None` after [`Queue::shut_down`]. Cancel safe.
    pub async fn next(&self) -> Option<Claimed<K>> {
        loop {
            let woken = self.inner.wake.notified();
            let due = {
                let mut state = self.inner.state.lock();
                if state.closed {
                    drop(state);
                    self.inner.wake.notify_one();
                    return None;
                }
                let due = state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    let more = !state.ready.is_empty() || due.is_some();
                    drop(state);
                    if more {
                        self.inner.wake.notify_one();
                    }
                    return Some(Claimed { key, queue: self.clone() });
                }
                due
            };
            match due {
                None => woken.await,
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = woken => {}
                        () = sleep_until(at) => {}
                    }
                }
            }
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether there is something new for a worker.
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) {
            return false;
        }
        if self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves what is due into `ready`; the moment of the next one.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(next)) = self.later.peek() {
            let current = self.due.get(&next.key) == Some(&next.at);
            if current && next.at > now {
                return Some(next.at);
            }
            let Reverse(next) = self.later.pop().expect("just seen");
            if current {
                self.due.remove(&next.key);
                self.add(next.key);
            }
        }
        None
    }
}

impl<K: Clone + Eq + Hash> Deref for Claimed<K> {
    type Target = K;
    fn deref(&self) -> &K {
        &self.key
    }
}

impl<K: Clone + Eq + Hash + fmt::Debug> fmt::Debug for Claimed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claimed").field(&self.key).finish()
    }
}

impl<K: Clone + Eq + Hash> Drop for Claimed<K> {
    fn drop(&mut self) {
        let mut state = self.queue.inner.state.lock();
        state.working.remove(&self.key);
        if state.dirty.contains(&self.key) {
            state.ready.push_back(self.key.clone());
            drop(state);
            self.queue.inner.wake.notify_one();
        }
    }
}

fn back_off(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(20)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_added_twice_is_done_once() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(*queue.next().await.expect("open"), "a");
        assert_eq!(*queue.next().await.expect("open"), "b");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_worked_on_comes_back_afterwards_and_not_before() {
        let queue = Queue::new();
        queue.add("a");
        let claimed = queue.next().await.expect("open");
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty(), "a second worker must not get it");
        drop(claimed);
        assert_eq!(*queue.next().await.expect("open"), "a");
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_delays_the_shorter_counts() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(5));
        drop(queue.next().await);
        assert_eq!(start.elapsed().as_secs(), 2);
        queue.add_after("b", Duration::from_secs(20));
        assert_eq!(*queue.next().await.expect("open"), "b", "the void entries of a are not delivered");
    }

    #[tokio::test(start_paused = true)]
    async fn the_back_off_doubles_until_the_key_succeeds() {
        let queue = Queue::new();
        let mut delays = vec![];
        for _ in 0..4 {
            let start = Instant::now();
            queue.retry("a");
            drop(queue.next().await);
            delays.push(start.elapsed().as_millis());
        }
        assert_eq!(delays, [5, 10, 20, 40]);
        queue.forget(&"a");
        let start = Instant::now();
        queue.retry("a");
        drop(queue.next().await);
        assert_eq!(start.elapsed().as_millis(), 5);
        assert_eq!(back_off(63), RETRY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn every_worker_learns_of_the_shutdown() {
        let queue: Queue<u8> = Queue::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await.is_none() })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.shut_down();
        for worker in workers {
            assert!(worker.await.expect("no panic"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_workers_share_what_many_add() {
        let queue = Queue::new();
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut done = 0;
                    while let Some(claimed) = queue.next().await {
                        tokio::task::yield_now().await;
                        drop(claimed);
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        for n in 0..1000 {
            queue.add_after(n, Duration::from_millis(n % 7));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        queue.shut_down();
        let mut done = 0;
        for worker in workers {
            done += worker.await.expect("no panic");
        }
        assert_eq!(done, 1000);
    }
}
