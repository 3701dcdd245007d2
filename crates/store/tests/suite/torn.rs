//! Cuts and flips bytes of the files on disk: a reopened store has everything that was acknowledged, or says that it is damaged.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stead_store::{Durability, Expect, Options, Store, StoreError, Write, open_disk};

use crate::story::block_on;

const WRITES: usize = 60;

fn put(n: usize) -> Write {
    let value: Vec<u8> = (0..200 + 37 * n).map(|at| (at * 7 + n) as u8 | 1).collect();
    let durability = if n % 5 == 3 { Durability::Lazy } else { Durability::Now };
    Write { key: Bytes::from(format!("k{:02}", n % 40)), value: Some(value.into()), expect: Expect::Any, durability }
}

/// Writes, then copies the files as a crash would leave them (the store is still open).
async fn crashed(dir: &Path) -> (PathBuf, Vec<u64>) {
    let live = dir.join("live");
    let store = open_disk(&live, Options::default()).await.unwrap();
    let (mut sizes, journal) = (Vec::new(), live.join("db/0.jnl"));
    for n in 0..WRITES {
        store.write(put(n)).await.unwrap();
        sizes.push(used(&journal));
    }
    let copy = dir.join("copy");
    copy_dir(&live, &copy);
    (copy, sizes)
}

fn used(journal: &Path) -> u64 {
    // It is 64 MiB long, but these tests write little.
    let mut bytes = vec![0; 1 << 19];
    let length = fs::File::open(journal).unwrap().read(&mut bytes).unwrap();
    bytes[..length].iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        let target = to.join(file.file_name().unwrap());
        if file.is_dir() {
            copy_dir(&file, &target);
        } else if file.extension().is_some_and(|e| e == "jnl") {
            // Without its 64 MiB of zeros.
            let bytes = fs::read(&file).unwrap();
            fs::write(&target, &bytes[..used(&file) as usize]).unwrap();
        } else {
            fs::copy(&file, &target).unwrap();
        }
    }
}

async fn count(store: &Arc<dyn Store>) -> usize {
    let history = store.history(b"k").await.unwrap();
    for (n, change) in history.iter().enumerate() {
        assert_eq!(change.now.as_ref().unwrap().value, put(n).value.unwrap());
        assert_eq!(change.revision, n as u64 + 1);
    }
    history.len()
}

#[test]
fn a_tail_cut_anywhere_loses_only_what_came_after_the_cut() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (copy, sizes) = crashed(dir.path()).await;
        let whole = fs::read(copy.join("db/0.jnl")).unwrap();
        for (n, size) in sizes.iter().enumerate().skip(40) {
            for cut in [*size, size - 1, size - 5, size - 12, size - 100] {
                fs::write(copy.join("db/0.jnl"), &whole[..cut as usize]).unwrap();
                let try_dir = dir.path().join("try");
                copy_dir(&copy, &try_dir);
                let store = open_disk(&try_dir, Options::default()).await.unwrap();
                let want = if cut == *size { n + 1 } else { n };
                assert_eq!(count(&store).await, want, "cut at {cut} of {size}");
                assert!(store.revision() > want as u64, "revisions that were perhaps seen are not used again");
                let next = store.write(put(0)).await.unwrap();
                store.close().await.unwrap();
                let again = open_disk(&try_dir, Options::default()).await.unwrap();
                assert_eq!(again.revision(), next);
                assert_eq!(again.history(b"").await.unwrap().len(), want + 1);
                again.close().await.unwrap();
                fs::remove_dir_all(&try_dir).unwrap();
            }
        }
    });
}

#[test]
fn a_flipped_byte_anywhere_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (copy, _) = block_on(crashed(dir.path()));
    // The same places in each run, spread over all files.
    let mut files = Vec::new();
    list(&copy, &mut files);
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner =
        TestRunner::new_with_rng(Config { cases: 100, failure_persistence: None, ..Config::default() }, rng);
    let damaged = std::cell::Cell::new(0);
    let place = (0..files.len(), any::<proptest::sample::Index>(), 0..8u8);
    let journal = files.iter().position(|file| file.ends_with("0.jnl")).unwrap();
    let place =
        prop_oneof![place.clone(), (journal..=journal, place.clone()).prop_map(|(j, (_, at, bit))| (j, at, bit))];
    let outcome = runner.run(&place, |(file, at, bit)| {
        let file = &files[file];
        let whole = fs::read(file).unwrap();
        if whole.is_empty() {
            return Ok(());
        }
        let at = at.index(whole.len());
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        let try_dir = dir.path().join("try");
        fs::write(file, &bytes).unwrap();
        copy_dir(&copy, &try_dir);
        fs::write(file, &whole).unwrap();
        let opened = block_on(async {
            match open_disk(&try_dir, Options::default()).await {
                Ok(store) => Ok(count(&store).await),
                Err(error) => Err(error),
            }
        });
        fs::remove_dir_all(&try_dir).unwrap();
        match opened {
            Ok(count) => prop_assert_eq!(count, WRITES, "bit {} of byte {} of {}", bit, at, file.display()),
            Err(StoreError::Damaged(_)) => damaged.set(damaged.get() + 1),
            Err(other) => return Err(TestCaseError::fail(format!("{other}: byte {at} of {}", file.display()))),
        }
        Ok(())
    });
    outcome.unwrap();
    assert!(damaged.get() > 40, "only {} flips were noticed", damaged.get());
}

/// Larger than what fits below the tables' threshold, so that there are tables.
const LARGE_BYTES: usize = 512 * 1024;

#[test]
fn a_flipped_byte_in_a_table_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let large = |n: usize| Bytes::from((0..LARGE_BYTES).map(|at| (at / 7 + n) as u8).collect::<Vec<_>>());
    let live = dir.path().join("live");
    let mut count = 0;
    block_on(async {
        let store = open_disk(&live, Options::default()).await.unwrap();
        // Tables are written aside: go on until there is one, and one journal fewer would not do.
        while tables(&live).is_empty() {
            assert!(count < 400, "no table after {count} writes");
            let write = Write { key: Bytes::from(format!("k{count}")), value: Some(large(count)), ..put(0) };
            store.write(write).await.unwrap();
            count += 1;
        }
        store.close().await.unwrap();
    });
    let reopen = || {
        block_on(async {
            let store = open_disk(&live, Options::default()).await?;
            let entries = store.range(b"k", b"", 0, None).await?.entries;
            store.close().await?;
            Ok::<_, StoreError>(entries)
        })
    };
    let whole = reopen().unwrap();
    assert_eq!(whole.len(), count);
    let table = tables(&live).remove(0);
    let bytes = fs::read(&table).unwrap();
    for part in 1..8 {
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 8 * part] ^= 4;
        fs::write(&table, &flipped).unwrap();
        let error = reopen().expect_err("a flipped byte in the middle of a table");
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    }
    fs::write(&table, &bytes).unwrap();
    assert_eq!(reopen().unwrap(), whole);
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    list(dir, &mut files);
    files.retain(|file| file.parent().is_some_and(|parent| parent.ends_with("tables")));
    files
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    found.sort();
    for file in found {
        if file.is_dir() { list(&file, files) } else { files.push(file) }
    }
}
