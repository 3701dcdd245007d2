//! An engine that fails when it is told to: nothing acknowledged is lost, nothing unacknowledged is seen, and no write is taken
//! any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_store::{
    Durability, Engine, Expect, Loaded, Options, Record, Revision, Store, StoreError, Write, open_engine,
};

/// A disk that keeps what was appended, over "restarts".
#[derive(Clone, Debug, Default)]
struct Faulty {
    kept: Arc<Mutex<Vec<Record>>>,
    /// Calls until one fails; 0 fails now.
    calls_left: Arc<AtomicUsize>,
    syncs: Arc<AtomicUsize>,
    /// Somebody waits here for the next sync.
    synced: Arc<tokio::sync::Notify>,
}

impl Faulty {
    fn new(calls_left: usize) -> Self {
        Self { calls_left: Arc::new(AtomicUsize::new(calls_left)), ..Self::default() }
    }

    fn call(&self) -> Result<(), StoreError> {
        let took = self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        took.map(drop).map_err(|_| StoreError::Engine("no space left on device".to_owned()))
    }
}

impl Engine for Faulty {
    fn load(&mut self, each: &mut dyn FnMut(Record) -> Result<(), StoreError>) -> Result<Loaded, StoreError> {
        self.kept.lock().iter().cloned().try_for_each(each)?;
        Ok(Loaded::default())
    }

    fn append(&mut self, records: &[Record], sync: bool) -> Result<(), StoreError> {
        self.call()?;
        self.kept.lock().extend(records.iter().cloned());
        self.syncs.fetch_add(usize::from(sync), Ordering::SeqCst);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.call()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.synced.notify_one();
        Ok(())
    }

    fn forget(&mut self, _floor: Revision, _dead: &[Revision]) -> Result<(), StoreError> {
        self.call()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn write(key: &str, durability: Durability) -> Write {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Write { key, value: Some(Bytes::from_static(b"v")), expect: Expect::Absent, durability }
}

async fn open(engine: &Faulty) -> Arc<dyn Store> {
    open_engine(Box::new(engine.clone()), Options::default()).await.unwrap()
}

#[tokio::test]
async fn after_a_failed_append_the_store_is_poisoned_and_shows_only_what_was_acknowledged() {
    let engine = Faulty::new(2);
    let store = open(&engine).await;
    let mut watch = store.watch(b"", 0).await.unwrap();
    store.write(write("a", Durability::Now)).await.unwrap();
    store.write(write("b", Durability::Now)).await.unwrap();

    let failed = store.write(write("c", Durability::Now)).await.unwrap_err();
    assert!(matches!(&failed, StoreError::Poisoned(why) if why == "no space left on device"), "{failed}");
    engine.calls_left.store(100, Ordering::SeqCst);
    for error in [
        store.write(write("d", Durability::Now)).await.unwrap_err(),
        store.write(write("d", Durability::Lazy)).await.unwrap_err(),
        // Even an answer that needs no write: what it would rest on is not known.
        store.write(write("a", Durability::Now)).await.unwrap_err(),
        store.compact(1).await.unwrap_err(),
        store.close().await.unwrap_err(),
    ] {
        let text = "the store refuses writes since an earlier one failed: no space left on device";
        assert_eq!(error.to_string(), text);
    }

    assert_eq!(store.revision(), 2);
    assert!(store.get(b"c").await.unwrap().is_none());
    assert_eq!(store.range(b"", b"", 0, None).await.unwrap().entries.len(), 2);
    let seen: Vec<Revision> = std::iter::from_fn(|| watch.try_recv().ok().map(|change| change.revision)).collect();
    assert_eq!(seen, [1, 2]);

    let reopened = open(&engine).await;
    assert_eq!(reopened.range(b"", b"", 0, None).await.unwrap().entries.len(), 2);
    assert_eq!(reopened.write(write("c", Durability::Now)).await.unwrap(), 3);
}

#[tokio::test]
async fn writers_of_one_failed_group_are_all_told() {
    let engine = Faulty::new(0);
    let store = open(&engine).await;
    let writes = (0..50).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.write(write(&format!("k{n}"), Durability::Now)).await })
    });
    for task in writes.collect::<Vec<_>>() {
        assert!(matches!(task.await.unwrap(), Err(StoreError::Poisoned(_))));
    }
    assert_eq!(store.revision(), 0);
}

#[tokio::test]
async fn a_failed_compaction_poisons_but_loses_nothing() {
    let engine = Faulty::new(2);
    let store = open(&engine).await;
    store.write(write("a", Durability::Now)).await.unwrap();
    store.write(write("b", Durability::Now)).await.unwrap();
    assert!(store.compact(2).await.is_err());
    assert!(matches!(store.write(write("c", Durability::Now)).await, Err(StoreError::Poisoned(_))));
    assert_eq!(store.range(b"", b"", 0, None).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn lazy_writes_wait_for_no_sync_and_are_synced_soon_after() {
    let engine = Faulty::new(100);
    let store = open(&engine).await;
    store.write(write("a", Durability::Lazy)).await.unwrap();
    store.write(write("b", Durability::Lazy)).await.unwrap();
    assert_eq!(engine.syncs.load(Ordering::SeqCst), 0);
    engine.synced.notified().await;
    assert_eq!(engine.syncs.load(Ordering::SeqCst), 1);
    // They ride along with a durable write, and then no timer is needed.
    store.write(write("c", Durability::Lazy)).await.unwrap();
    store.write(write("d", Durability::Now)).await.unwrap();
    assert_eq!(engine.syncs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_record_that_is_missing_or_out_of_place_is_damage() {
    let engine = Faulty::new(100);
    let store = open(&engine).await;
    for key in ["a", "b", "c"] {
        store.write(write(key, Durability::Now)).await.unwrap();
    }
    let whole = engine.kept.lock().clone();
    for (harm, text) in
        [(vec![0, 2], "revision 2 is missing"), (vec![1, 2], "keys should exist"), (vec![0, 2, 1], "comes after")]
    {
        *engine.kept.lock() = harm.iter().map(|at: &usize| whole[*at].clone()).collect();
        let error = open_engine(Box::new(engine.clone()), Options::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged(_)), "{harm:?}");
        println!("{harm:?}: {error}, wanted {text}");
    }
}
