//! Runs a number of workers on a queue until shutdown.

use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Queue;

/// What is to become of a key after it was worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until something changes.
    Done,
    /// Look again after that time even if nothing changes.
    After(Duration),
    /// It failed: again after the key's back-off.
    Retry,
}

/// Works on `queue` with `count` workers until `shutdown`; work that was begun is finished.
///
/// A panic in `work` is logged and counts as [`Next::Retry`].
pub async fn run_workers<K, W, F>(queue: Queue<K>, count: usize, shutdown: CancellationToken, work: W)
where
    K: Clone + Eq + Hash + std::fmt::Display + Send + Sync + 'static,
    W: Fn(K) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Next> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..count {
        let (queue, work) = (queue.clone(), work.clone());
        workers.spawn(async move {
            while let Some(claimed) = queue.next().await {
                let key = (*claimed).clone();
                let outcome = AssertUnwindSafe(work(key.clone())).catch_unwind().await;
                finish(&queue, key, outcome.ok());
            }
        });
    }
    shutdown.cancelled().await;
    queue.shut_down();
    while workers.join_next().await.is_some() {}
}

fn finish<K>(queue: &Queue<K>, key: K, outcome: Option<Next>)
where
    K: Clone + Eq + Hash + std::fmt::Display,
{
    match outcome {
        Some(Next::Done) => queue.forget(&key),
        Some(Next::After(delay)) => {
            queue.forget(&key);
            queue.add_after(key, delay);
        }
        Some(Next::Retry) => queue.retry(key),
        None => {
            tracing::error!(%key, "a worker panicked; the key is tried again");
            queue.retry(key);
        }
    }
}
