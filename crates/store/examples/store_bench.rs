//! Figures of the store on disk: durable creates per second with 1, 32 and 64 writers, their latency, and the time to reopen.
//!
//! `cargo run --release -p stead-store --example store_bench [DIR]`; DIR should be on the disk that matters.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use stead_store::{Durability, Expect, Options, Store, Write, open_disk};

const VALUE_BYTES: usize = 1024;
const SECONDS: u64 = 3;

#[tokio::main]
async fn main() {
    let root = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{:>8} {:>12} {:>9} {:>9} {:>9}", "writers", "creates/s", "p50 ms", "p99 ms", "max ms");
    for writers in [1, 32, 64] {
        let dir = tempfile::tempdir_in(&root).expect("a directory to write in");
        let store = open_disk(dir.path(), Options::default()).await.expect("a new store opens");
        let (count, mut took) = run(&store, writers).await;
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("{writers:>8} {:>12.0} {:>9.2} {:>9.2} {:>9.2}", count, at(0.5), at(0.99), at(1.0));
        if writers == 64 {
            reopen(store, dir.path()).await;
        }
    }
}

async fn run(store: &Arc<dyn Store>, writers: usize) -> (f64, Vec<Duration>) {
    let start = Instant::now();
    let end = start + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..writers).map(|writer| tokio::spawn(create(store.clone(), writer, end))).collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a writer does not panic"));
    }
    (took.len() as f64 / start.elapsed().as_secs_f64(), took)
}

async fn create(store: Arc<dyn Store>, writer: usize, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let write = Write {
            key: Bytes::from(format!("/registry/configmaps/default/{writer}-{}", took.len())),
            value: Some(Bytes::from(vec![b'v'; VALUE_BYTES])),
            expect: Expect::Absent,
            durability: Durability::Now,
        };
        let begun = Instant::now();
        store.write(write).await.expect("the key is new");
        took.push(begun.elapsed());
    }
    took
}

async fn reopen(store: Arc<dyn Store>, dir: &std::path::Path) {
    store.close().await.expect("a sound store closes");
    drop(store);
    let begun = Instant::now();
    let store = open_disk(dir, Options::default()).await.expect("a sound store opens");
    let took = begun.elapsed();
    let keys = store.range(b"", b"", 0, None).await.expect("reads work").entries.len();
    println!("reopen of {keys} keys ({} MiB of values): {took:?}", (keys * VALUE_BYTES) >> 20);
}
