//! Limits: history is bounded, a slow watcher is closed, one directory has one process.

use std::time::Duration;

use bytes::Bytes;
use stead_store::{Durability, Expect, Options, StoreError, WATCH_BUFFER_CHANGES_MAX, Write, memory, open_disk};

use crate::story::Backend;

fn put(key: &str, value: usize) -> Write {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Write { key, value: Some(Bytes::from(vec![b'x'; value])), expect: Expect::Any, durability: Durability::Lazy }
}

#[tokio::test]
async fn history_is_bounded_by_count_and_by_bytes_and_the_rest_survives_a_restart() {
    let by_count = Options { history_changes_max: 100, ..Options::default() };
    let by_bytes = Options { history_bytes_max: 40_000, ..Options::default() };
    for (options, size) in [(by_count, 10), (by_bytes, 100)] {
        for mut backend in Backend::all(options) {
            let store = backend.open().await;
            for n in 0..1000 {
                store.write(put(&format!("k{}", n % 10), size)).await.unwrap();
            }
            let kept = store.history(b"").await.unwrap();
            assert!((90..=115).contains(&kept.len()), "{} changes kept on {}", kept.len(), backend.name());
            let old = store.watch(b"", 1).await;
            assert!(matches!(old, Err(StoreError::Compacted { asked: 1, .. })));
            if backend.name() == "disk" {
                store.close().await.unwrap();
                let again = backend.open().await;
                assert_eq!(again.history(b"").await.unwrap(), kept);
                assert_eq!(again.revision(), 1000);
                assert!(matches!(again.watch(b"", 1).await, Err(StoreError::Compacted { .. })));
            }
        }
    }
}

#[tokio::test]
async fn old_history_is_forgotten_at_the_next_write() {
    let options = Options { history_age_max: Duration::ZERO, ..Options::default() };
    for mut backend in Backend::all(options) {
        let store = backend.open().await;
        for n in 0..10 {
            store.write(put(&format!("k{n}"), 1)).await.unwrap();
        }
        assert!(store.history(b"").await.unwrap().len() <= 2);
        assert_eq!(store.range(b"", b"", 0, None).await.unwrap().entries.len(), 10);
    }
}

#[tokio::test]
async fn a_slow_watcher_is_closed_and_hinders_nobody() {
    let store = memory();
    let mut slow = store.watch(b"", 0).await.unwrap();
    let mut quick = store.watch(b"", 0).await.unwrap();
    let count = WATCH_BUFFER_CHANGES_MAX + 10;
    for n in 1..=count {
        store.write(put("k", 1)).await.unwrap();
        assert_eq!(quick.recv().await.unwrap().revision, n as u64);
    }
    let mut got = 0;
    while let Some(change) = slow.recv().await {
        got += 1;
        assert_eq!(change.revision, got as u64);
    }
    assert_eq!(got, WATCH_BUFFER_CHANGES_MAX);
    // It comes back and misses nothing.
    let mut again = store.watch(b"", got as u64).await.unwrap();
    assert_eq!(again.recv().await.unwrap().revision, got as u64 + 1);
}

#[tokio::test]
async fn a_directory_is_open_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_disk(dir.path(), Options::default()).await.unwrap();
    let error = open_disk(dir.path(), Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    first.close().await.unwrap();
    open_disk(dir.path(), Options::default()).await.unwrap();
}
