//! The node's image store: an index of references, small blobs by digest, and unpacked layers for overlayfs.
//!
//! `images/index.json` says what there is; whatever it does not name is rubbish of an interrupted import or pull and is swept at
//! the next start. Layers are kept unpacked only: their archives would double the disk space and are never read again.
//!
//! Nobody waits for the disk: a new image is marked with the machine's boot id until it has been synced in the background.
//! After a power cut a mark of an earlier boot says that the content may be torn, and the image is forgotten; a mere kill of
//! the process loses nothing.
//!
//! Several processes may use one store (the server and `stead image`): who changes it holds the lock file, who reads looks first
//! whether the index file is another one by now.

pub(crate) mod archive;
pub(crate) mod layer;
mod pull;
pub(crate) mod reference;
pub(crate) mod registries;
mod registry;
mod stage;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::engine::{EngineError, Image};
use reference::Reference;

/// Hex digits of a layer's chain id that name its directory. Short, because overlayfs takes all of them in one page of mount
/// options: 127 layers fit.
const LAYER_NAME_LENGTH: usize = 28;

/// What the store knows of one image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the configuration.
    pub id: String,
    pub references: BTreeSet<String>,
    pub digests: BTreeSet<String>,
    pub size: u64,
    pub config: RunConfig,
    /// Chain ids, lowest first.
    pub layers: Vec<String>,
    /// Digests under `blobs`: manifest and configuration.
    pub blobs: BTreeSet<String>,
    /// The boot in which it was put in, until it is surely on disk.
    #[serde(default)]
    pub unsynced: Option<String>,
}

/// The part of an image's configuration that says how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RunConfig {
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

/// An image configuration, as far as it is needed.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<String>,
}

/// Go writes empty lists as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    images: BTreeMap<String, Arc<ImageRecord>>,
    /// Which index file this was read from or written to.
    #[serde(skip)]
    stamp: Option<Stamp>,
}

/// Tells one index file from the next: inode, time of change in nanoseconds, size.
type Stamp = (u64, i128, u64);

#[derive(Debug)]
pub(crate) struct ImageStore {
    root: PathBuf,
    index: Mutex<Index>,
    /// Imports and pulls put content in one at a time: it is disk and CPU bound, and layers are shared.
    writing: Mutex<()>,
    boot: String,
}

/// The right to change the store.
#[derive(Debug)]
struct Exclusive<'a> {
    _here: MutexGuard<'a, ()>,
    _elsewhere: File,
}

impl ImageStore {
    /// Opens the store below `root`.
    pub(crate) fn open(root: &Path) -> io::Result<ImageStore> {
        for dir in ["images/blobs/sha256", "images/stage", "layers/empty"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(ImageStore { root: root.to_owned(), index: Mutex::default(), writing: Mutex::default(), boot })
    }

    /// Removes what interrupted imports and pulls have left; those under way are spared.
    pub(crate) fn clean(&self) -> io::Result<()> {
        let exclusive = self.exclusive()?;
        stage::clean(&self.stage_dir())?;
        self.sweep(&exclusive);
        Ok(())
    }

    /// Waits for the right to change the store, in this process and in others.
    fn exclusive(&self) -> io::Result<Exclusive<'_>> {
        let here = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = File::options().create(true).truncate(false).write(true).open(self.root.join("images/lock"))?;
        file.lock()?;
        Ok(Exclusive { _here: here, _elsewhere: file })
    }

    fn is_whole(&self, image: &ImageRecord) -> bool {
        let synced = image.unsynced.as_ref().is_none_or(|boot| *boot == self.boot);
        synced && image.layers.iter().all(|chain| self.layer_path(chain).exists())
    }

    /// The index as it is now. A torn or unreadable one is an empty one.
    fn index(&self) -> MutexGuard<'_, Index> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.root.join("images/index.json");
        let stamp = std::fs::metadata(&path).ok().map(|file| stamp(&file));
        if index.stamp != stamp {
            let read = std::fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Index>(&bytes)?));
            *index = read.unwrap_or_else(|error| {
                if stamp.is_some() {
                    tracing::warn!(%error, "image index is torn; images have to be fetched again");
                }
                Index::default()
            });
            index.images.retain(|_, image| self.is_whole(image));
            index.stamp = stamp;
        }
        index
    }

    fn stage_dir(&self) -> PathBuf {
        self.root.join("images/stage")
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.root.join("images/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap_or(digest))
    }

    fn layer_path(&self, chain: &str) -> PathBuf {
        self.root.join("layers").join(layer_name(chain))
    }

    /// The layer directories of an image below [`ImageStore::layers_root`], uppermost first, as overlayfs wants them.
    pub(crate) fn layer_names(image: &ImageRecord) -> Vec<String> {
        if image.layers.is_empty() {
            return vec!["empty".to_owned()];
        }
        image.layers.iter().rev().map(|chain| layer_name(chain).to_owned()).collect()
    }

    pub(crate) fn layers_root(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The image that a reference, an id or a digest names.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<ImageRecord>> {
        let index = self.index();
        if let Some(image) = index.images.get(name) {
            return Some(image.clone());
        }
        let reference = Reference::parse(name).ok()?;
        let text = reference.to_string();
        let by_digest = reference.digest.as_ref().map(|digest| format!("{}@{digest}", reference.name()));
        index
            .images
            .values()
            .find(|image| {
                image.references.contains(&text) || by_digest.as_ref().is_some_and(|d| image.digests.contains(d))
            })
            .cloned()
    }

    pub(crate) fn list(&self) -> Vec<Arc<ImageRecord>> {
        self.index().images.values().cloned().collect()
    }

    /// Adds an image whose content is in place; its references are taken from whatever had them before.
    fn add(&self, exclusive: &Exclusive<'_>, record: ImageRecord) -> io::Result<Arc<ImageRecord>> {
        let mut images = self.index().images.clone();
        for image in images.values_mut().filter(|image| image.id != record.id) {
            if image.references.iter().any(|reference| record.references.contains(reference)) {
                Arc::make_mut(image).references.retain(|reference| !record.references.contains(reference));
            }
        }
        let entry = images.entry(record.id.clone()).or_default();
        let merged = Arc::make_mut(entry);
        let (references, digests) = (std::mem::take(&mut merged.references), std::mem::take(&mut merged.digests));
        let blobs = std::mem::take(&mut merged.blobs);
        *merged = record;
        merged.references.extend(references);
        merged.digests.extend(digests);
        merged.blobs.extend(blobs);
        merged.unsynced = Some(self.boot.clone());
        let added = entry.clone();
        self.save(exclusive, images)?;
        Ok(added)
    }

    /// Removes a reference (or an image by its id), and content that nothing names any more.
    pub(crate) fn remove(&self, name: &str, in_use: &BTreeSet<String>) -> Result<(), EngineError> {
        let failed = |source| EngineError::Io { context: "cannot change the image store".to_owned(), source };
        let exclusive = self.exclusive().map_err(failed)?;
        let found = self.find(name).ok_or_else(|| EngineError::NotFound(format!("image {name:?}")))?;
        let mut images = self.index().images.clone();
        let mut record = (*found).clone();
        if found.id == name {
            record.references.clear();
            record.digests.clear();
        } else if let Ok(reference) = Reference::parse(name) {
            record.references.remove(&reference.to_string());
            record.digests.retain(|digest| !digest.starts_with(&format!("{}@", reference.name())));
        }
        if record.references.is_empty() {
            if in_use.contains(&record.id) {
                return Err(EngineError::WrongState(format!("image {name:?} is used by a container")));
            }
            images.remove(&record.id);
        } else {
            images.insert(record.id.clone(), Arc::new(record));
        }
        self.save(&exclusive, images).map_err(failed)?;
        self.sweep(&exclusive);
        Ok(())
    }

    /// Replaces the index file. Without a sync: see the head of this file.
    fn save(&self, _exclusive: &Exclusive<'_>, images: BTreeMap<String, Arc<ImageRecord>>) -> io::Result<()> {
        let mut index = Index { images, stamp: None };
        let path = self.root.join("images/index.json");
        let new = path.with_extension("json.new");
        std::fs::write(&new, serde_json::to_vec(&index)?)?;
        std::fs::rename(new, &path)?;
        index.stamp = Some(stamp(&std::fs::metadata(&path)?));
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = index;
        Ok(())
    }

    /// Waits until everything is on disk and takes the marks away.
    ///
    /// # Errors
    /// The disk's; the marks stay then.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let marked = |image: &&Arc<ImageRecord>| image.unsynced.is_some();
        let waiting: Vec<String> = self.index().images.values().filter(marked).map(|image| image.id.clone()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let root = File::open(&self.root)?;
        nix::unistd::syncfs(root.as_fd())?;
        {
            let exclusive = self.exclusive()?;
            let mut images = self.index().images.clone();
            for id in waiting {
                if let Some(image) = images.get_mut(&id) {
                    Arc::make_mut(image).unsynced = None;
                }
            }
            self.save(&exclusive, images)?;
        }
        Ok(nix::unistd::syncfs(root.as_fd())?)
    }

    /// Deletes blobs and layers that no image names.
    fn sweep(&self, _exclusive: &Exclusive<'_>) {
        let index = self.index();
        let images = || index.images.values();
        let layers: BTreeSet<&str> = images().flat_map(|image| &image.layers).map(|id| layer_name(id)).collect();
        let blobs: BTreeSet<PathBuf> = images().flat_map(|i| &i.blobs).map(|digest| self.blob_path(digest)).collect();
        for entry in std::fs::read_dir(self.layers_root()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name != "empty" && !name.to_str().is_some_and(|name| layers.contains(name)) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        for entry in std::fs::read_dir(self.root.join("images/blobs/sha256")).into_iter().flatten().flatten() {
            if !blobs.contains(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn stamp(file: &std::fs::Metadata) -> Stamp {
    (file.ino(), i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec()), file.len())
}

fn layer_name(chain: &str) -> &str {
    let hex = chain.strip_prefix("sha256:").unwrap_or(chain);
    &hex[..LAYER_NAME_LENGTH.min(hex.len())]
}

impl ImageRecord {
    pub(crate) fn public(&self) -> Image {
        Image {
            id: self.id.clone(),
            references: self.references.iter().cloned().collect(),
            digests: self.digests.iter().cloned().collect(),
            size_bytes: self.size,
            user: self.config.user.clone(),
        }
    }
}
