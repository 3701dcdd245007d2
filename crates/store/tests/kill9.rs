//! Kills a writing process at random moments, many times over one data directory, and checks that everything it was told is
//! written is there, at the revision it was told, and that history, watch and state agree.
//!
//! The child is this test binary again, told by the environment to be the writer.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_store::{Change, Durability, Entry, Expect, Options, Revision, Store, StoreError, Write, open_disk};

const ROUNDS: usize = 20;
const WRITERS: usize = 8;
const KEYS: u64 = 40;
const DIR: &str = "STORE_KILL9_DIR";

fn options() -> Options {
    // Small, so that compaction is under way when the process dies.
    Options { history_changes_max: 2000, ..Options::default() }
}

/// One acknowledged write: what the child was told.
#[derive(Debug)]
struct Ack {
    key: String,
    /// `None`: deleted.
    value: Option<String>,
    revision: Revision,
}

/// The child: writes until it is killed. Not a test of its own.
#[test]
fn writer_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open_disk(Path::new(&dir), options()).await.unwrap();
        let out = Arc::new(Mutex::new(std::io::stdout()));
        writeln!(out.lock(), "ready").unwrap();
        let tasks: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write_for_ever(store.clone(), out.clone(), n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn write_for_ever(store: Arc<dyn Store>, out: Arc<Mutex<std::io::Stdout>>, writer: usize) {
    let mut seed = u64::from(std::process::id()) * 31 + writer as u64;
    for n in 0u64.. {
        // xorshift: good enough to choose keys and sizes.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let key = format!("w{writer}/{}", seed % KEYS);
        let delete = seed.is_multiple_of(5);
        let value = (!delete).then(|| format!("{n}:{}", "x".repeat((seed >> 8) as usize % 3000)));
        let write = Write {
            key: Bytes::from(key.clone()),
            value: value.clone().map(Bytes::from),
            expect: Expect::Any,
            durability: if seed.is_multiple_of(3) { Durability::Lazy } else { Durability::Now },
        };
        match store.write(write).await {
            Ok(revision) => {
                let told = value.as_deref().unwrap_or("-");
                writeln!(out.lock(), "ack {key} {revision} {told} end").unwrap();
            }
            Err(StoreError::Unmet { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut known: BTreeMap<String, Ack> = BTreeMap::new();
    let mut acks = 0;
    for round in 0..ROUNDS {
        let told = run_and_kill(dir.path(), Duration::from_millis(20 + (round as u64 * 7919) % 150));
        acks += told.len();
        for ack in told {
            if known.get(&ack.key).is_none_or(|older| older.revision < ack.revision) {
                known.insert(ack.key.clone(), ack);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(verify(dir.path(), &mut known, round));
    }
    println!("{ROUNDS} kills, {acks} acknowledged writes, {:?}", started.elapsed());
    assert!(acks > ROUNDS * 20, "only {acks} writes were acknowledged: this proves nothing");
}

/// Lets a child write for `time` and kills it. Returns every acknowledgement that reached us whole.
fn run_and_kill(dir: &Path, time: Duration) -> Vec<Ack> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_that_is_killed", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test harness writes its own words before it on the same line.
    while !lines.next().expect("the writer never got ready").unwrap().ends_with("ready") {}
    let killer = std::thread::spawn(move || {
        std::thread::park_timeout(time);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    // A last line that the kill cut short does not parse; it is not an acknowledgement.
    let acks = lines.map_while(Result::ok).filter_map(|line| parse(&line)).collect();
    killer.join().unwrap();
    acks
}

fn parse(line: &str) -> Option<Ack> {
    let mut words = line.strip_prefix("ack ")?.split(' ');
    let (key, revision, value) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    words.next().filter(|word| *word == "end")?;
    Some(Ack { key: key.to_owned(), value: (value != "-").then(|| value.to_owned()), revision })
}

/// Opens what the killed process left behind. Odd rounds leave it without closing, as a crash soon after the start would.
async fn verify(dir: &Path, known: &mut BTreeMap<String, Ack>, round: usize) {
    let begun = Instant::now();
    let store = open_disk(dir, options()).await.unwrap();
    let opened = begun.elapsed();
    let entries: HashMap<String, Entry> = store
        .range(b"", b"", 0, None)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| (String::from_utf8(entry.key.to_vec()).unwrap(), entry))
        .collect();
    let history = store.history(b"").await.unwrap();
    for ack in known.values() {
        check_ack(ack, entries.get(&ack.key), &history, round);
    }
    check_history(&*store, &history, &entries).await;

    let newest = known.values().map(|ack| ack.revision).max().unwrap_or(0);
    assert!(store.revision() >= newest, "revisions go on");
    let write = Write {
        key: Bytes::from_static(b"probe"),
        value: Some(Bytes::from(round.to_string())),
        expect: Expect::Any,
        durability: Durability::Now,
    };
    let revision = store.write(write).await.unwrap();
    assert!(revision > newest && history.last().is_none_or(|last| last.revision < revision));
    let ack = Ack { key: "probe".to_owned(), value: Some(round.to_string()), revision };
    known.insert(ack.key.clone(), ack);
    println!("round {round}: opened in {opened:?}, {} changes, checked after {:?}", history.len(), begun.elapsed());
    if round.is_multiple_of(2) {
        store.close().await.unwrap();
    } else {
        wait_until_free(store, dir).await;
    }
}

/// An acknowledged write is there, or something newer is that was never acknowledged to us.
fn check_ack(ack: &Ack, entry: Option<&Entry>, history: &[Arc<Change>], round: usize) {
    let newer = || history.iter().any(|change| change.revision > ack.revision && change.key == ack.key.as_bytes());
    match (entry, &ack.value) {
        (Some(entry), Some(value)) if entry.modified == ack.revision => {
            assert!(entry.value == value.as_bytes(), "round {round}: {} has another value", ack.key);
        }
        (Some(entry), _) if entry.modified > ack.revision => {}
        (None, None) => {}
        (None, Some(_)) if newer() => {}
        (found, _) => panic!("round {round}: told {} @{}, found {found:?}", ack.key, ack.revision),
    }
}

/// The history leads from the oldest kept state to the newest, and a watch tells the same.
async fn check_history(store: &dyn Store, history: &[Arc<Change>], entries: &HashMap<String, Entry>) {
    let Some(first) = history.first() else { return };
    let start = store.range(b"", b"", 0, Some(first.revision - 1)).await;
    // The revision before the oldest change may be one that a crash skipped.
    if let Ok(start) = start {
        let mut state: BTreeMap<Bytes, Entry> = start.entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        for change in history {
            assert_eq!(state.get(&change.key), change.before.as_ref());
            match &change.now {
                Some(entry) => state.insert(change.key.clone(), entry.clone()),
                None => state.remove(&change.key),
            };
        }
        assert_eq!(state.len(), entries.len());
        assert!(state.values().all(|entry| entries[std::str::from_utf8(&entry.key).unwrap()] == *entry));
    }
    let middle = history[history.len() / 2].revision;
    let mut watch = store.watch(b"", middle).await.unwrap();
    for change in history.iter().filter(|change| change.revision > middle) {
        assert_eq!(watch.try_recv().unwrap(), *change);
    }
}

/// Drops the store without closing it and waits until its writer has let go of the directory.
async fn wait_until_free(store: Arc<dyn Store>, dir: &Path) {
    drop(store);
    let lock = std::fs::File::open(dir.join("lock")).unwrap();
    lock.lock().unwrap();
}
