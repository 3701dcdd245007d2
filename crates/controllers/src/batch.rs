//! Does many things at once, carefully: 1, 2, 4, ... so that what fails for all is tried only a few times.
//!
//! Source of the idea: `slowStartBatch` in `pkg/controller`.

use std::future::Future;

use tokio::task::JoinSet;

/// Most things that are under way at the same time.
const BATCH_MAX: usize = 500;

/// Does `step` for every item, in batches that double as long as nothing fails. Returns what succeeded in the order of
/// the items, and the first error in that order; what was begun is finished.
pub async fn slow_start<T, F, E>(items: &[T], step: impl Fn(T) -> F) -> (Vec<T>, Result<(), E>)
where
    T: Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let (mut done, mut at, mut size) = (Vec::with_capacity(items.len()), 0, 1);
    while at < items.len() {
        let batch = &items[at..items.len().min(at + size)];
        let mut results = run(batch, &step).await;
        results.sort_unstable_by_key(|(n, _)| *n);
        let mut failed = None;
        for (n, result) in results {
            match result {
                Ok(()) => done.push(batch[n].clone()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return (done, Err(error));
        }
        at += batch.len();
        size = (size * 2).min(BATCH_MAX);
    }
    (done, Ok(()))
}

async fn run<T, F, E>(batch: &[T], step: &impl Fn(T) -> F) -> Vec<(usize, Result<(), E>)>
where
    T: Clone,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    if let [only] = batch {
        return vec![(0, step(only.clone()).await)];
    }
    let mut tasks = JoinSet::new();
    for (n, item) in batch.iter().enumerate() {
        let work = step(item.clone());
        tasks.spawn(async move { (n, work.await) });
    }
    tasks.join_all().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stops_after_the_batch_in_which_something_failed() {
        let items: Vec<u32> = (0..100).collect();
        let step = |n: u32| async move { if n == 5 { Err(format!("{n} is bad")) } else { Ok(()) } };
        let (done, result) = slow_start(&items, step).await;
        assert_eq!(done, [0, 1, 2, 3, 4, 6], "batches are 0, 1-2, 3-6");
        assert_eq!(result, Err("5 is bad".to_owned()));
        let (done, result) = slow_start(&items, |_| async { Ok::<(), ()>(()) }).await;
        assert_eq!((done.len(), result), (100, Ok(())));
    }
}
