//! Reads image archives: the OCI layout and docker's `save` form, in a tar file, compressed or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tar::{Archive, EntryType};

use super::reference::Reference;
use super::stage::{Stage, Staged, decompress, invalid};
use super::{Exclusive, ImageRecord, ImageStore, null_is_default};
use crate::engine::EngineError;

/// Largest JSON document in an archive or a registry.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Indexes within indexes.
const NESTING_MAX: usize = 8;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Descriptor {
    #[serde(deserialize_with = "null_is_default")]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    pub platform: Option<Platform>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(deserialize_with = "null_is_default")]
    pub variant: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ImageIndex {
    #[serde(deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Manifest {
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<String>,
}

pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The manifest of an index for this machine.
pub(super) fn choose(index: &ImageIndex) -> Option<&Descriptor> {
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture(),
        None => false,
    };
    let unnamed = || index.manifests.iter().find(|descriptor| descriptor.platform.is_none());
    index.manifests.iter().find(fits).or_else(unnamed)
}

impl ImageStore {
    /// Imports all images of an archive. A broken archive changes nothing.
    pub(crate) fn import(&self, archive: &Path) -> Result<Vec<Arc<ImageRecord>>, EngineError> {
        let named = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other
            | io::ErrorKind::InvalidInput => {
                EngineError::Invalid(format!("cannot import {}: {error}", archive.display()))
            }
            _ => EngineError::Io { context: format!("cannot import {}", archive.display()), source: error },
        };
        let mut stage = Stage::new(&self.stage_dir()).map_err(named)?;
        let contents = Contents::read(archive, &mut stage).map_err(named)?;
        let exclusive = self.exclusive().map_err(named)?;
        let result = self.import_contents(&exclusive, &mut stage, &contents).map_err(named);
        if result.is_err() {
            self.sweep(&exclusive);
        }
        result
    }

    fn import_contents(
        &self,
        exclusive: &Exclusive<'_>,
        stage: &mut Stage,
        contents: &Contents,
    ) -> io::Result<Vec<Arc<ImageRecord>>> {
        let mut records = Vec::new();
        for plan in contents.images()? {
            let mut record = ImageRecord { references: plan.references, size: plan.size, ..ImageRecord::default() };
            let config = contents.document(&plan.config)?;
            let manifest = plan.manifest.as_ref().map(|file| contents.document(file)).transpose()?;
            let layers: Vec<PathBuf> = plan.layers.iter().map(|layer| layer.path.clone()).collect();
            self.put_image(stage, &mut record, &config, manifest.as_deref(), &layers)?;
            records.push(record);
        }
        if records.is_empty() {
            return Err(invalid("it holds no image for this machine"));
        }
        records.into_iter().map(|record| self.add(exclusive, record)).collect()
    }
}

/// An image found in an archive.
#[derive(Debug)]
struct Plan {
    references: BTreeSet<String>,
    manifest: Option<Staged>,
    config: Staged,
    layers: Vec<Staged>,
    size: u64,
}

/// An archive's files, copied out of it.
#[derive(Debug)]
struct Contents {
    files: BTreeMap<String, Staged>,
    links: BTreeMap<String, String>,
}

impl Contents {
    fn read(archive: &Path, stage: &mut Stage) -> io::Result<Contents> {
        let mut stream = decompress(File::open(archive)?)?;
        let mut contents = Contents { files: BTreeMap::new(), links: BTreeMap::new() };
        let mut tar = Archive::new(&mut stream);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let name = normal(&entry.path()?.to_string_lossy(), "");
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let size = entry.size();
                    let staged = stage.write(&mut entry)?;
                    if staged.size != size {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive is truncated"));
                    }
                    contents.files.insert(name, staged);
                }
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name()?.unwrap_or_default().to_string_lossy().into_owned();
                    let base = if entry.header().entry_type() == EntryType::Symlink { parent(&name) } else { "" };
                    contents.links.insert(name.clone(), normal(&target, base));
                }
                _ => {}
            }
        }
        // A compressed archive that is cut after the tar's end still fails its checksum.
        io::copy(&mut stream, &mut io::sink())?;
        Ok(contents)
    }

    fn file(&self, name: &str) -> io::Result<Staged> {
        let name = normal(name, "");
        let target = self.links.get(&name).unwrap_or(&name);
        self.files.get(target).cloned().ok_or_else(|| invalid(format!("{name} is missing")))
    }

    /// A blob of an OCI layout, whose content must have the digest of its name.
    fn blob(&self, digest: &str) -> io::Result<Staged> {
        let staged = self.file(&format!("blobs/{}", digest.replacen(':', "/", 1)))?;
        if staged.digest != digest {
            return Err(invalid(format!("blob {digest} is corrupt: its content has digest {}", staged.digest)));
        }
        Ok(staged)
    }

    fn document(&self, file: &Staged) -> io::Result<Vec<u8>> {
        if file.size > DOCUMENT_BYTES_MAX {
            return Err(invalid(format!("document of {} bytes is too large", file.size)));
        }
        std::fs::read(&file.path)
    }

    fn json<T: for<'a> Deserialize<'a>>(&self, file: &Staged, what: &str) -> io::Result<T> {
        serde_json::from_slice(&self.document(file)?).map_err(|error| invalid(format!("bad {what}: {error}")))
    }

    fn images(&self) -> io::Result<Vec<Plan>> {
        let docker: Vec<DockerImage> = match self.files.get("manifest.json") {
            Some(file) => self.json(file, "manifest.json")?,
            None => Vec::new(),
        };
        if let Some(index) = self.files.get("index.json") {
            let index: ImageIndex = self.json(index, "index.json")?;
            let mut plans = Vec::new();
            for descriptor in &index.manifests {
                self.collect(descriptor, &references(descriptor)?, &mut plans, NESTING_MAX)?;
            }
            add_docker_tags(&mut plans, &docker)?;
            return Ok(plans);
        }
        if docker.is_empty() {
            return Err(invalid("it is neither an OCI layout (index.json) nor a docker archive (manifest.json)"));
        }
        docker.iter().map(|image| self.docker_plan(image)).collect()
    }

    /// Follows indexes down to the manifest for this machine.
    fn collect(
        &self,
        descriptor: &Descriptor,
        references: &BTreeSet<String>,
        plans: &mut Vec<Plan>,
        depth: usize,
    ) -> io::Result<()> {
        let file = self.blob(&descriptor.digest)?;
        let document: serde_json::Value = self.json(&file, "manifest")?;
        if document.get("manifests").is_some() {
            let index: ImageIndex = self.json(&file, "image index")?;
            return match choose(&index) {
                Some(chosen) if depth > 0 => self.collect(chosen, references, plans, depth - 1),
                _ => Ok(()),
            };
        }
        if let Some(platform) = &descriptor.platform
            && (platform.os != "linux" || platform.architecture != architecture())
        {
            return Ok(());
        }
        let manifest: Manifest = self.json(&file, "manifest")?;
        let config = self.blob(&manifest.config.digest)?;
        let layers: Vec<Staged> =
            manifest.layers.iter().map(|layer| self.blob(&layer.digest)).collect::<Result<_, _>>()?;
        let size = config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
        plans.push(Plan { references: references.clone(), manifest: Some(file), config, layers, size });
        Ok(())
    }

    fn docker_plan(&self, image: &DockerImage) -> io::Result<Plan> {
        let config = self.file(&image.config)?;
        let layers: Vec<Staged> = image.layers.iter().map(|layer| self.file(layer)).collect::<Result<_, _>>()?;
        let size = config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
        Ok(Plan { references: normalised(&image.repo_tags)?, manifest: None, config, layers, size })
    }
}

fn add_docker_tags(plans: &mut [Plan], docker: &[DockerImage]) -> io::Result<()> {
    for image in docker {
        let config = format!("sha256:{}", image.config.trim_end_matches(".json").rsplit('/').next().unwrap_or(""));
        for plan in plans.iter_mut().filter(|plan| plan.config.digest == config) {
            plan.references.extend(normalised(&image.repo_tags)?);
        }
    }
    Ok(())
}

/// The references that an index entry names: containerd's annotation, or the OCI one when it is a whole reference.
fn references(descriptor: &Descriptor) -> io::Result<BTreeSet<String>> {
    let annotation = |key: &str| descriptor.annotations.get(key);
    let name = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/', '.'])));
    normalised(name.map(std::slice::from_ref).unwrap_or_default())
}

fn normalised(names: &[String]) -> io::Result<BTreeSet<String>> {
    names
        .iter()
        .map(|name| Reference::parse(name).map(|reference| reference.to_string()))
        .map(|result| result.map_err(|error| invalid(format!("bad image name: {error}"))))
        .collect()
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A name within the archive, `.` and `..` resolved (only as a key of the map above, never as a path on disk).
fn normal(name: &str, base: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if name.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
