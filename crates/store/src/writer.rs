//! The single writer: checks expectations, makes a group of writes durable with one sync, publishes them, acknowledges them.
//!
//! Nothing is visible to readers or watchers before the engine has it. After an error of the engine nothing is written any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::Options;
use crate::door::{Change, Changes, Durability, Entry, Expect, Range, Revision, Store, StoreError, Write};
use crate::engine::{Engine, Record};
use crate::mvcc::{WorkingSet, change_of};
use crate::watchers::Watchers;

/// Writes that may wait for the writer; more callers wait for room.
pub const WRITE_QUEUE_MAX: usize = 4096;
/// Writes that share one sync.
pub const GROUP_WRITES_MAX: usize = 1024;
/// Bytes of values that share one sync (the write that exceeds it still takes part).
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lazy writes that may be without a sync. Also how many revisions a restart after a crash skips.
pub const LAZY_WRITES_MAX: usize = 4096;
/// A lazy write is durable after this time at the latest.
pub const LAZY_DELAY_MAX: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
#[derive(Debug)]
enum Command {
    Write(Write, Reply<Revision>),
    Compact(Revision, Reply<()>),
    Close(Reply<()>),
}

/// What readers, watchers and the writer share.
#[derive(Debug)]
struct Shared {
    working: RwLock<WorkingSet>,
    /// Locked before `working` where both are needed.
    watchers: Mutex<Watchers>,
}

/// A [`Store`] over any [`Engine`].
#[derive(Debug)]
pub(crate) struct Mvcc {
    shared: Arc<Shared>,
    lane: Lane,
}

/// How writes reach the writer.
#[derive(Debug)]
enum Lane {
    /// The caller is the writer: for engines that never block.
    Inline(Box<Mutex<Writer>>),
    /// A thread of its own, so that nobody else waits for a disk.
    Thread(mpsc::Sender<Command>),
}

/// Loads `engine` and serves it as a store. The writer gets a thread of its own.
///
/// # Errors
/// What the load of the engine says.
pub async fn open_engine(engine: Box<dyn Engine>, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    open_with(move || Ok(engine), options).await
}

/// As [`open_engine`], with an engine that is made on the writer's thread because that blocks as well.
pub(crate) async fn open_with<F>(make: F, options: Options) -> Result<Arc<dyn Store>, StoreError>
where
    F: FnOnce() -> Result<Box<dyn Engine>, StoreError> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(WRITE_QUEUE_MAX);
    let (opened, wait) = oneshot::channel();
    let run = move || match make().and_then(|engine| Writer::load(engine, options)) {
        Ok(writer) => {
            if opened.send(Ok(writer.shared.clone())).is_ok() {
                run_thread(writer, receiver);
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    };
    let spawned = std::thread::Builder::new().name("store-writer".to_owned()).spawn(run);
    spawned.map_err(|error| StoreError::Engine(format!("start the writer of the store: {error}")))?;
    let shared =
        wait.await.map_err(|_| StoreError::Damaged("loading the store panicked; see the log".to_owned()))??;
    Ok(Arc::new(Mvcc { shared, lane: Lane::Thread(sender) }))
}

impl Mvcc {
    /// A store whose callers do the writing. The engine must be empty and must not block.
    pub(crate) fn inline(engine: Box<dyn Engine>, options: Options) -> Self {
        let writer = Writer::new(engine, WorkingSet::new(options));
        Self { shared: writer.shared.clone(), lane: Lane::Inline(Box::new(Mutex::new(writer))) }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        match &self.lane {
            Lane::Inline(writer) => writer.lock().run(vec![command(reply)]),
            Lane::Thread(sender) => sender.send(command(reply)).await.map_err(|_| StoreError::Closed)?,
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

#[async_trait::async_trait]
impl Store for Mvcc {
    fn revision(&self) -> Revision {
        self.shared.working.read().revision()
    }

    fn delivered(&self) -> Revision {
        // Publishing holds this lock from before a change is visible until every watcher has it.
        let _watchers = self.shared.watchers.lock();
        self.shared.working.read().revision()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(self.shared.working.read().get(key).cloned())
    }

    async fn range(
        &self,
        prefix: &[u8],
        start: &[u8],
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Range, StoreError> {
        self.shared.working.read().range(prefix, start, limit, at)
    }

    async fn write(&self, write: Write) -> Result<Revision, StoreError> {
        self.ask(|reply| Command::Write(write, reply)).await
    }

    async fn watch(&self, prefix: &[u8], after: Revision) -> Result<Changes, StoreError> {
        let mut watchers = self.shared.watchers.lock();
        let working = self.shared.working.read();
        let backlog = working.changes(prefix, after)?;
        let complete = working.revision().max(after);
        drop(working);
        Ok(watchers.add(prefix, backlog, complete))
    }

    async fn history(&self, prefix: &[u8]) -> Result<Vec<Arc<Change>>, StoreError> {
        Ok(self.shared.working.read().history(prefix))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Command::Compact(before, reply)).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        match self.ask(Command::Close).await {
            // It is closed already.
            Err(StoreError::Closed) => Ok(()),
            done => done,
        }
    }
}

/// Serves commands until the store is closed or everybody who could send one is gone.
fn run_thread(mut writer: Writer, mut commands: mpsc::Receiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return writer.poison(&StoreError::Engine(format!("start the timer of the writer: {error}"))),
    };
    let mut group = Vec::with_capacity(GROUP_WRITES_MAX);
    while let Some(wake) = runtime.block_on(next(&mut commands, writer.sync_due)) {
        match wake {
            Wake::SyncDue => writer.sync(),
            Wake::Command(first) => {
                group.push(first);
                gather(&mut group, &mut commands);
                writer.run(std::mem::take(&mut group));
            }
        }
        if writer.closed {
            return;
        }
    }
    // Everybody dropped the store without closing it: keep what it promised.
    writer.run(vec![Command::Close(oneshot::channel().0)]);
}

enum Wake {
    Command(Command),
    SyncDue,
}

async fn next(commands: &mut mpsc::Receiver<Command>, due: Option<Instant>) -> Option<Wake> {
    let Some(due) = due else { return commands.recv().await.map(Wake::Command) };
    match tokio::time::timeout_at(due.into(), commands.recv()).await {
        Ok(command) => command.map(Wake::Command),
        Err(_) => Some(Wake::SyncDue),
    }
}

/// Adds what is already waiting, within the limits of a group.
fn gather(group: &mut Vec<Command>, commands: &mut mpsc::Receiver<Command>) {
    let size = |command: &Command| match command {
        Command::Write(write, _) => write.value.as_ref().map_or(0, Bytes::len),
        Command::Compact(..) | Command::Close(_) => 0,
    };
    let mut bytes: usize = group.iter().map(size).sum();
    while group.len() < GROUP_WRITES_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(command) = commands.try_recv() else { return };
        bytes += size(&command);
        group.push(command);
    }
}

/// Owns the engine.
#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    /// `None` once closed: dropping it frees the directory.
    engine: Option<Box<dyn Engine>>,
    poison: Option<String>,
    closed: bool,
    /// Lazy writes since the last sync, and when they must be synced.
    unsynced: usize,
    sync_due: Option<Instant>,
}

/// Writes of a group that may happen, and all the answers, which wait until the group is durable.
#[derive(Debug, Default)]
struct Group {
    records: Vec<Record>,
    changes: Vec<Arc<Change>>,
    replies: Vec<(Reply<Revision>, Result<Revision, StoreError>)>,
    /// Somebody waits for the sync.
    sync: bool,
    lazy: usize,
}

impl Writer {
    fn new(engine: Box<dyn Engine>, working: WorkingSet) -> Self {
        let shared = Arc::new(Shared { working: RwLock::new(working), watchers: Mutex::default() });
        Self { shared, engine: Some(engine), poison: None, closed: false, unsynced: 0, sync_due: None }
    }

    fn load(mut engine: Box<dyn Engine>, options: Options) -> Result<Self, StoreError> {
        let mut working = WorkingSet::new(options);
        let mut last = None;
        let now = Instant::now();
        let loaded = engine.load(&mut |record| {
            last = Some((record.revision, record.live));
            working.load(record, now)
        })?;
        working.loaded(loaded, last)?;
        Ok(Self::new(engine, working))
    }

    /// Does the commands in order; consecutive writes share a sync.
    fn run(&mut self, commands: Vec<Command>) {
        let mut writes = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Write(write, reply) => writes.push((write, reply)),
                Command::Compact(before, reply) => {
                    self.write(std::mem::take(&mut writes));
                    // Nobody is there any more to hear it: then it does not matter.
                    let _ = reply.send(self.compact(before));
                }
                Command::Close(reply) => {
                    self.write(std::mem::take(&mut writes));
                    let _ = reply.send(self.close());
                }
            }
        }
        self.write(writes);
    }

    fn write(&mut self, writes: Vec<(Write, Reply<Revision>)>) {
        if writes.is_empty() {
            return;
        }
        let group = judge(&self.shared.working.read(), writes);
        match self.make_durable(&group) {
            Ok(()) => {
                self.publish(group.changes);
                group.replies.into_iter().for_each(|(reply, answer)| drop(reply.send(answer)));
                self.trim();
            }
            Err(error) => group.replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone())))),
        }
    }

    fn make_durable(&mut self, group: &Group) -> Result<(), StoreError> {
        self.usable()?;
        if group.records.is_empty() {
            return Ok(());
        }
        let unsynced = self.unsynced + group.lazy;
        let sync = group.sync || unsynced >= LAZY_WRITES_MAX;
        self.with_engine(|engine| engine.append(&group.records, sync))?;
        self.unsynced = if sync { 0 } else { unsynced };
        self.sync_due = if sync { None } else { self.sync_due.or_else(|| Some(Instant::now() + LAZY_DELAY_MAX)) };
        Ok(())
    }

    fn publish(&self, changes: Vec<Arc<Change>>) {
        let now = Instant::now();
        // Held from before the changes are visible until they are sent: see `delivered`.
        let mut watchers = self.shared.watchers.lock();
        let mut working = self.shared.working.write();
        changes.iter().for_each(|change| working.apply(change.clone(), now));
        drop(working);
        changes.iter().for_each(|change| watchers.publish(change));
    }

    fn sync(&mut self) {
        // An error is kept as poison and told to whoever writes next.
        if self.with_engine(|engine| engine.sync()).is_ok() {
            self.unsynced = 0;
        }
        self.sync_due = None;
    }

    fn trim(&mut self) {
        let trimmed = self.shared.working.write().trim(Instant::now());
        if let Some(trimmed) = trimmed {
            // As in `sync`.
            let _ = self.with_engine(|engine| engine.forget(trimmed.floor, &trimmed.dead));
        }
    }

    fn compact(&mut self, before: Revision) -> Result<(), StoreError> {
        self.usable()?;
        let trimmed = self.shared.working.write().trim_to(before.saturating_sub(1));
        self.with_engine(|engine| engine.forget(trimmed.floor, &trimmed.dead))
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.shared.watchers.lock().close();
        let done = match self.usable() {
            Ok(()) => self.with_engine(|engine| engine.close()),
            Err(error) => Err(error),
        };
        self.engine = None;
        self.closed = true;
        self.sync_due = None;
        done
    }

    fn usable(&self) -> Result<(), StoreError> {
        match &self.poison {
            _ if self.closed => Err(StoreError::Closed),
            Some(why) => Err(StoreError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    fn with_engine<T>(&mut self, act: impl FnOnce(&mut dyn Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.usable()?;
        let engine = self.engine.as_mut().ok_or(StoreError::Closed)?;
        act(engine.as_mut()).map_err(|error| {
            self.poison(&error);
            StoreError::Poisoned(error.to_string())
        })
    }

    fn poison(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store takes no writes any more");
        self.poison = Some(error.to_string());
        self.sync_due = None;
    }
}

/// Which writes of a group may happen: each is judged as if those before it had happened.
fn judge(working: &WorkingSet, writes: Vec<(Write, Reply<Revision>)>) -> Group {
    let mut group = Group::default();
    let mut pending: HashMap<Bytes, Option<Entry>> = HashMap::new();
    let (mut revision, mut previous, mut live) = (working.revision(), working.newest(), working.live());
    for (write, reply) in writes {
        let current = pending.get(&write.key).cloned().unwrap_or_else(|| working.get(&write.key).cloned());
        if !may_happen(&write, current.as_ref()) {
            group.replies.push((reply, Err(StoreError::Unmet { current })));
            continue;
        }
        revision += 1;
        live = live + u64::from(write.value.is_some()) - u64::from(current.is_some());
        let created = current.as_ref().map_or(revision, |entry| entry.created);
        let record = Record { revision, previous, key: write.key, value: write.value, created, live };
        let change = change_of(&record, current);
        pending.insert(record.key.clone(), change.now.clone());
        group.sync |= write.durability == Durability::Now;
        group.lazy += usize::from(write.durability == Durability::Lazy);
        group.records.push(record);
        group.changes.push(Arc::new(change));
        group.replies.push((reply, Ok(revision)));
        previous = revision;
    }
    group
}

fn may_happen(write: &Write, current: Option<&Entry>) -> bool {
    let met = match write.expect {
        Expect::Absent => current.is_none(),
        Expect::Modified(revision) => current.is_some_and(|entry| entry.modified == revision),
        Expect::Exists => current.is_some(),
        Expect::Any => true,
    };
    met && (write.value.is_some() || current.is_some())
}
