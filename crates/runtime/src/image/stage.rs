//! Content on its way into the store: files with their digests, layers being unpacked.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::reference::parse_digest;
use super::{ConfigFile, ImageRecord, ImageStore, layer, layer_name};
use crate::mounts::{self, Overlay};

const COPY_BYTES: usize = 128 << 10;

/// A directory for one import or pull; removed when dropped.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
    next: u64,
    /// Locked for as long as the import or pull goes on.
    _lock: File,
}

/// A file in a stage.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub path: PathBuf,
    pub digest: String,
    pub size: u64,
}

/// A layer's archive and what it claims to be.
#[derive(Clone, Debug)]
pub(super) struct LayerSource {
    pub path: PathBuf,
    pub diff_id: String,
}

impl Stage {
    pub(super) fn new(parent: &Path) -> io::Result<Stage> {
        let dir = parent.join(uuid::Uuid::new_v4().simple().to_string());
        std::fs::create_dir_all(&dir)?;
        let lock = File::open(&dir)?;
        lock.lock()?;
        Ok(Stage { dir, next: 0, _lock: lock })
    }

    pub(super) fn next_path(&mut self) -> PathBuf {
        self.next += 1;
        self.dir.join(self.next.to_string())
    }

    /// Copies a stream to a file and takes its digest on the way.
    pub(super) fn write(&mut self, stream: &mut impl Read) -> io::Result<Staged> {
        let path = self.next_path();
        let mut file = File::create(&path)?;
        let (mut digest, mut size, mut buffer) = (Sha256::new(), 0, vec![0; COPY_BYTES]);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                count => {
                    digest.update(&buffer[..count]);
                    file.write_all(&buffer[..count])?;
                    size += count as u64;
                }
            }
        }
        Ok(Staged { path, digest: digest_text(digest), size })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Removes the stages in `parent` whose process has died.
pub(super) fn clean(parent: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let dir = entry?.path();
        if File::open(&dir)?.try_lock().is_err() {
            continue;
        }
        for left in mounts::mounts_below(&dir)? {
            mounts::unmount(&left)?;
        }
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

pub(super) fn digest_text(digest: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in digest.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

/// A stream, decompressed when its first bytes say that it is gzip or zstd.
pub(super) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::with_capacity(COPY_BYTES, stream);
    let start = io::BufRead::fill_buf(&mut buffered)?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(buffered))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(zstd::Decoder::with_buffer(buffered)?)
    } else {
        Box::new(buffered)
    })
}

/// Takes the digest of all that is read through it.
struct Hashing<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

pub(super) fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Unpacks an archive and says the digest of its uncompressed content.
fn unpack_verified(archive: &Path, dir: &Path) -> io::Result<String> {
    let mut hashing = Hashing { inner: decompress(File::open(archive)?)?, digest: Sha256::new() };
    layer::unpack(&mut hashing, dir)?;
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(digest_text(hashing.digest))
}

/// Names of layers that say what is below them too (the OCI image specification's chain ids), because what is unpacked
/// depends on it.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chains: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let chain = chains.last().map(|below| digest_of(format!("{below} {diff_id}").as_bytes()));
        chains.push(chain.unwrap_or_else(|| diff_id.clone()));
    }
    chains
}

impl ImageStore {
    /// Unpacks a layer over those below it, unless it is there already. The directory appears under its name only when its
    /// digest is right.
    fn put_layer(&self, stage: &mut Stage, source: &LayerSource, chain: &str, below: &[String]) -> io::Result<()> {
        let diff_id =
            parse_digest(&source.diff_id).map_err(|_| invalid(format!("bad diff id {:?}", source.diff_id)))?;
        let target = self.layer_path(chain);
        if target.exists() {
            return Ok(());
        }
        let dir = stage.next_path();
        std::fs::create_dir(&dir)?;
        let found = if below.is_empty() {
            std::fs::create_dir(dir.join("upper"))?;
            unpack_verified(&source.path, &dir.join("upper"))
        } else {
            let names: Vec<String> = below.iter().rev().map(|chain| layer_name(chain).to_owned()).collect();
            let layers_root = self.layers_root();
            Overlay { layers_root: &layers_root, layers: &names, dir: &dir, devices: false }.mount()?;
            let found = unpack_verified(&source.path, &dir.join("rootfs"));
            mounts::unmount(&dir.join("rootfs"))?;
            found
        }?;
        if found != diff_id {
            return Err(invalid(format!("layer {diff_id} is corrupt: its content has digest {found}")));
        }
        std::fs::rename(dir.join("upper"), &target)
    }

    /// Puts an image in: its layers, its small blobs, and then its entry in the index.
    pub(super) fn put_image(
        &self,
        stage: &mut Stage,
        image: &mut ImageRecord,
        config: &[u8],
        manifest: Option<&[u8]>,
        layers: &[PathBuf],
    ) -> io::Result<()> {
        let file: ConfigFile = serde_json::from_slice(config).map_err(|e| invalid(format!("bad image config: {e}")))?;
        if file.rootfs.diff_ids.len() != layers.len() {
            let (listed, there) = (file.rootfs.diff_ids.len(), layers.len());
            return Err(invalid(format!("image config lists {listed} layers, its manifest {there}")));
        }
        let chains = chain_ids(&file.rootfs.diff_ids);
        for (at, (path, diff_id)) in layers.iter().zip(&file.rootfs.diff_ids).enumerate() {
            let source = LayerSource { path: path.clone(), diff_id: diff_id.clone() };
            self.put_layer(stage, &source, &chains[at], &chains[..at])?;
        }
        image.id = digest_of(config);
        image.config = file.config;
        image.layers = chains;
        for blob in [Some(config), manifest].into_iter().flatten() {
            let digest = digest_of(blob);
            std::fs::write(self.blob_path(&digest), blob)?;
            image.blobs.insert(digest);
        }
        Ok(())
    }
}
