//! The engine on disk: an ordered list of checksummed records in a fjall database. Format: `docs/internals/store-format.md`.
//!
//! Reads never come here after the load, so the caches are as small as they go. What fjall would drop silently (everything
//! behind a damaged place of its journal) is looked for before it opens: see [`journal`].

mod journal;
mod record;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::door::{Revision, Store, StoreError};
use crate::engine::{Engine, Loaded, Record};
use crate::{LAZY_WRITES_MAX, Options};

/// Version of the format in `docs/internals/store-format.md`.
const FORMAT: u64 = 1;
/// Bytes of records that are in memory below the working set before they are written as a table.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of journal files before the tables they belong to are written early. The least that fjall takes.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Blocks of tables kept in memory: the load reads each once.
const CACHE_BYTES: u64 = 256 * 1024;
/// Open table files.
const FILES_MAX: usize = 64;

/// Opens or makes a store in `dir`.
///
/// # Errors
/// [`StoreError::Damaged`] when what is there is not what was written, [`StoreError::Engine`] when the directory cannot be
/// used, for example because another process has it open.
pub async fn open_disk(dir: &Path, options: Options) -> Result<Arc<dyn Store>, StoreError> {
    let dir = dir.to_owned();
    let make = move || Disk::open(&dir).map(|disk| Box::new(disk) as Box<dyn Engine>);
    crate::writer::open_with(make, options).await
}

/// An open data directory.
pub(crate) struct Disk {
    // Order matters: the database is dropped before the lock.
    records: Keyspace,
    meta: Keyspace,
    database: Database,
    _lock: File,
    newest: Revision,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("newest", &self.newest).finish_non_exhaustive()
    }
}

impl Disk {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let lock = lock(dir)?;
        let path = dir.join("db");
        if path.exists() {
            journal::inspect(&path)?;
        }
        let database = Database::builder(&path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .manual_journal_persist(true)
            .worker_threads(1)
            .open()
            .map_err(|error| at_open(dir, error))?;
        let keyspace = |name: &str| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
            database.keyspace(name, options).map_err(|error| at_open(dir, error))
        };
        let (records, meta) = (keyspace("records")?, keyspace("meta")?);
        Ok(Self { records, meta, database, _lock: lock, newest: 0 })
    }

    fn read_meta(&self, name: Meta) -> Result<Option<u64>, StoreError> {
        let value = self.meta.get(name.key()).map_err(damaged)?;
        value.map(|value| record::decode_meta(name.key(), &value)).transpose()
    }

    /// Writes marks (`None` removes one) in one durable batch.
    fn write_meta(&self, marks: &[(Meta, Option<u64>)], dead: &[Revision]) -> Result<(), StoreError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (name, value) in marks {
            match value {
                Some(value) => batch.insert(&self.meta, name.key(), record::encode_meta(name.key(), *value)),
                None => batch.remove(&self.meta, name.key()),
            }
        }
        for revision in dead {
            batch.remove(&self.records, revision.to_be_bytes());
        }
        batch.commit().map_err(failed)
    }

    fn check_format(&self, empty: bool) -> Result<(), StoreError> {
        match self.read_meta(Meta::Format)? {
            Some(FORMAT) => Ok(()),
            Some(other) => Err(StoreError::Engine(format!(
                "the data directory has format {other}; this version knows {FORMAT}: use the version that wrote it"
            ))),
            None if empty => self.write_meta(&[(Meta::Format, Some(FORMAT))], &[]),
            None => Err(StoreError::Damaged("it has records but no mark of its format".to_owned())),
        }
    }

    /// The revision to go on from. After a crash some are skipped: a power loss may have taken lazy writes that were seen.
    fn begin(&mut self, newest: Revision) -> Result<Revision, StoreError> {
        let known = newest.max(self.read_meta(Meta::Base)?.unwrap_or(0));
        let clean = self.read_meta(Meta::Clean)? == Some(known) || known == 0;
        let base = if clean { known } else { known + LAZY_WRITES_MAX as u64 };
        self.write_meta(&[(Meta::Base, Some(base)), (Meta::Clean, None)], &[])?;
        Ok(base)
    }
}

impl Engine for Disk {
    fn load(&mut self, each: &mut dyn FnMut(Record) -> Result<(), StoreError>) -> Result<Loaded, StoreError> {
        let mut newest = 0;
        for item in self.records.iter() {
            let (key, value) = item.into_inner().map_err(damaged)?;
            let record = record::decode(&key, &value)?;
            newest = record.revision;
            each(record)?;
        }
        self.check_format(newest == 0)?;
        let floor = self.read_meta(Meta::Floor)?.unwrap_or(0);
        self.newest = self.begin(newest)?;
        Ok(Loaded { floor, base: self.newest })
    }

    fn append(&mut self, records: &[Record], sync: bool) -> Result<(), StoreError> {
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.database.batch().durability(Some(mode));
        for record in records {
            batch.insert(&self.records, record.revision.to_be_bytes(), record::encode(record, sync)?);
            self.newest = record.revision;
        }
        batch.commit().map_err(failed)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncData).map_err(failed)
    }

    fn forget(&mut self, floor: Revision, dead: &[Revision]) -> Result<(), StoreError> {
        // Durable at once, because a table could otherwise reach the disk without the records and before the floor.
        self.write_meta(&[(Meta::Floor, Some(floor))], dead)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.write_meta(&[(Meta::Base, Some(self.newest)), (Meta::Clean, Some(self.newest))], &[])
    }
}

/// Marks beside the records.
#[derive(Clone, Copy, Debug)]
enum Meta {
    Format,
    Floor,
    Base,
    Clean,
}

impl Meta {
    fn key(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Floor => "floor",
            Self::Base => "base",
            Self::Clean => "clean",
        }
    }
}

/// Makes the directory and takes its lock, which the kernel frees when the process ends.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let file = || {
        std::fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        File::options().create(true).truncate(false).write(true).open(dir.join("lock"))
    };
    let file = file().map_err(|error| cannot(dir, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(cannot(dir, &error)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Engine(format!(
            "data directory {} is in use by another process: stop it or choose another directory",
            dir.display()
        ))),
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Engine(format!("cannot use data directory {}: {error}", path.display()))
}

fn at_open(dir: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => cannot(dir, &error),
        fjall::Error::Storage(fjall::LsmError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
            cannot(dir, &error)
        }
        error => damaged(error),
    }
}

fn damaged(error: fjall::Error) -> StoreError {
    StoreError::Damaged(error.to_string())
}

fn failed(error: fjall::Error) -> StoreError {
    StoreError::Engine(error.to_string())
}

/// The journal files of a database, oldest first.
fn journals(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for file in std::fs::read_dir(path)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "jnl")
            && let Some(number) = number(&file)
        {
            files.push((number, file));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, file)| file).collect())
}
