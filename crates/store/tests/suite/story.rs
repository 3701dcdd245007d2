//! Runs a story on every backend. A line is `what is done | what the store answers`; the whole table is the expectation.
//!
//! `create K V`, `put K V`, `update K V @R`, `replace K V` (must exist), `delete K [@R]`, each with a trailing `lazy` if wanted;
//! `get K`, `range P [from K] [limit N] [at R]`, `history P`, `compact R`, `reopen` (memory: nothing happens), `close`;
//! `watch NAME P after R` opens, `read NAME` tells what has come since.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use expect_test::Expect;
use stead_store::{
    Change, Changes, Durability, Entry, Expect as Must, Options, Revision, Store, StoreError, Write, memory_with,
    open_disk,
};
use tokio::sync::mpsc::error::TryRecvError;

/// A place where a store lives.
pub(crate) enum Backend {
    Memory(Options, Option<Arc<dyn Store>>),
    Disk(Options, PathBuf),
}

impl Backend {
    pub(crate) fn all(options: Options) -> Vec<Self> {
        let dir = tempfile::tempdir().unwrap();
        vec![Self::Memory(options, None), Self::Disk(options, dir.keep())]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Memory(..) => "memory",
            Self::Disk(..) => "disk",
        }
    }

    /// The store as it is after a restart; the one in memory is simply the same.
    pub(crate) async fn open(&mut self) -> Arc<dyn Store> {
        match self {
            Self::Memory(options, store) => store.get_or_insert_with(|| memory_with(*options)).clone(),
            Self::Disk(options, dir) => open_disk(dir, *options).await.unwrap(),
        }
    }

    pub(crate) async fn reopen(&mut self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        if let Self::Disk(..) = self {
            store.close().await.unwrap();
        }
        drop(store);
        self.open().await
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Self::Disk(_, dir) = self {
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// Runs the left column of `story` on every backend and compares the whole.
pub(crate) fn check(story: &Expect) {
    let options = Options::default();
    let lines: Vec<&str> = story.data().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let lefts: Vec<&str> =
        lines.iter().map(|line| line.split(" | ").next().unwrap().trim_end_matches(" |").trim()).collect();
    let width = lefts.iter().map(|left| left.len()).max().unwrap_or(0);
    let table = |backend: &mut Backend| -> String {
        let answers = block_on(run(backend, &lefts));
        lefts.iter().zip(answers).map(|(left, right)| format!("{left:width$} | {right}\n")).collect()
    };
    let tables: Vec<String> = Backend::all(options).iter_mut().map(table).collect();
    story.assert_eq(&tables[0]);
    assert!(tables.iter().all(|table| *table == tables[0]), "the backends differ: {}", tables.join("\n"));
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn run(backend: &mut Backend, lines: &[&str]) -> Vec<String> {
    let mut store = backend.open().await;
    let mut watches: HashMap<String, Changes> = HashMap::new();
    let mut answers = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[0] {
            "reopen" => {
                store = backend.reopen(store).await;
                format!("@{}", store.revision())
            }
            "watch" => match store.watch(path(words[2]), number(words[4])).await {
                Ok(changes) => {
                    watches.insert(words[1].to_owned(), changes);
                    "ok".to_owned()
                }
                Err(error) => error.to_string(),
            },
            "read" => read(watches.get_mut(words[1]).expect("a watch of that name")),
            _ => ask(&*store, &words).await.unwrap_or_else(|error| tell_error(&error)),
        };
        answers.push(answer);
    }
    answers
}

async fn ask(store: &dyn Store, words: &[&str]) -> Result<String, StoreError> {
    let option = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
    let at = || words.iter().find_map(|word| word.strip_prefix('@')).map(number);
    Ok(match words[0] {
        "create" => wrote(store.write(write(words, Some(words[2]), Must::Absent)).await?),
        "put" => wrote(store.write(write(words, Some(words[2]), Must::Any)).await?),
        "replace" => wrote(store.write(write(words, Some(words[2]), Must::Exists)).await?),
        "update" => wrote(store.write(write(words, Some(words[2]), Must::Modified(at().unwrap()))).await?),
        "delete" => wrote(store.write(write(words, None, at().map_or(Must::Any, Must::Modified))).await?),
        "get" => store.get(words[1].as_bytes()).await?.map_or("nothing".to_owned(), |entry| tell_entry(&entry)),
        "range" => {
            let (from, limit) = (option("from").unwrap_or(""), option("limit").map_or(0, number) as usize);
            let range = store.range(path(words[1]), from.as_bytes(), limit, option("at").map(number)).await?;
            let entries: Vec<String> = range.entries.iter().map(tell_entry).collect();
            format!("@{}: {}, {} more", range.revision, entries.join(" "), range.remaining)
        }
        "history" => tell_changes(&store.history(path(words[1])).await?),
        "compact" => store.compact(number(words[1])).await.map(|()| "ok".to_owned())?,
        "close" => store.close().await.map(|()| "ok".to_owned())?,
        other => panic!("no such verb: {other}"),
    })
}

fn write(words: &[&str], value: Option<&str>, expect: Must) -> Write {
    let lazy = words.last() == Some(&"lazy");
    Write {
        key: Bytes::copy_from_slice(words[1].as_bytes()),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        expect,
        durability: if lazy { Durability::Lazy } else { Durability::Now },
    }
}

/// `*` is the empty prefix.
fn path(word: &str) -> &[u8] {
    if word == "*" { b"" } else { word.as_bytes() }
}

fn number(word: &str) -> Revision {
    word.parse().expect("a number")
}

fn wrote(revision: Revision) -> String {
    format!("@{revision}")
}

fn tell_entry(entry: &Entry) -> String {
    let (key, value) = (text(&entry.key), text(&entry.value));
    match entry.created == entry.modified {
        true => format!("{key}={value}@{}", entry.modified),
        false => format!("{key}={value}@{}-{}", entry.created, entry.modified),
    }
}

fn tell_changes(changes: &[Arc<Change>]) -> String {
    let tell = |change: &Arc<Change>| {
        let before = change.before.as_ref().map_or("-".to_owned(), |entry| text(&entry.value));
        match &change.now {
            Some(entry) => format!("{} (was {before})", tell_entry(entry)),
            None => format!("{} deleted@{} (was {before})", text(&change.key), change.revision),
        }
    };
    let told: Vec<String> = changes.iter().map(tell).collect();
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

/// What is in the channel now: changes are there before their write is acknowledged.
fn read(changes: &mut Changes) -> String {
    let mut got = Vec::new();
    loop {
        match changes.try_recv() {
            Ok(change) => got.push(change),
            Err(TryRecvError::Empty) => return tell_changes(&got),
            Err(TryRecvError::Disconnected) => return format!("{}, closed", tell_changes(&got)),
        }
    }
}

fn tell_error(error: &StoreError) -> String {
    match error {
        StoreError::Unmet { current } => {
            format!("unmet: {}", current.as_ref().map_or("nothing".to_owned(), tell_entry))
        }
        other => other.to_string(),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
