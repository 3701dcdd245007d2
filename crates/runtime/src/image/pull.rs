//! Pulls an image from the first endpoint that has it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use super::archive::{Descriptor, ImageIndex, Manifest, choose};
use super::reference::{Reference, parse_digest};
use super::registries::{Endpoint, HostAuth, Registries};
use super::registry::{Registry, RegistryError, SILENCE_MAX};
use super::stage::{Stage, chain_ids, digest_of, digest_text};
use super::{ConfigFile, ImageRecord, ImageStore};
use crate::engine::{PullError, RegistryAuth};

/// Layers fetched at once, as docker and containerd do.
const LAYERS_AT_ONCE: usize = 3;
/// Connections that may break before a blob is given up; each goes on where the last one stopped.
const ATTEMPTS_MAX: usize = 5;
/// Indexes within indexes.
const NESTING_MAX: usize = 4;

/// Where an image was found.
struct Found {
    registry: Registry,
    digest: String,
    manifest: Bytes,
}

impl ImageStore {
    /// Fetches `reference` and puts it into the store.
    ///
    /// # Errors
    /// In containerd's words, which the kubelet shows.
    pub(crate) async fn pull(
        self: &Arc<Self>,
        registries: &Registries,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Arc<ImageRecord>, PullError> {
        let found = find(registries, reference, auth).await.map_err(|error| resolve_error(reference, &error))?;
        let failed =
            |error: &str| PullError::Failed(format!("failed to pull and unpack image \"{reference}\": {error}"));
        let named = format!("{}@{}", reference.name(), found.digest);
        if let Some(present) = self.list().into_iter().find(|image| image.digests.contains(&named)) {
            return self.refer(&present, reference).map_err(|error| failed(&error.to_string()));
        }
        let fetched = self.fetch(&found, &named, reference).await;
        fetched.map_err(|error| match error {
            RegistryError::NotFound => PullError::NotFound(text_of(&failed("failed to copy: content is not found"))),
            RegistryError::Unauthorized(why) => PullError::Unauthorized(text_of(&failed(&why))),
            RegistryError::Failed(why) => failed(&why),
        })
    }

    /// The content is there already; only the name may be new.
    fn refer(&self, image: &ImageRecord, reference: &Reference) -> io::Result<Arc<ImageRecord>> {
        let mut record = image.clone();
        if !record.references.insert(reference.to_string()) {
            return Ok(Arc::new(record));
        }
        let exclusive = self.exclusive()?;
        self.add(&exclusive, record)
    }

    async fn fetch(
        self: &Arc<Self>,
        found: &Found,
        named: &str,
        reference: &Reference,
    ) -> Result<Arc<ImageRecord>, RegistryError> {
        let manifest_bytes = self.platform_manifest(found).await?;
        let manifest: Manifest = parse("manifest", &manifest_bytes)?;
        let mut stage = Stage::new(&self.stage_dir()).map_err(io_failed)?;
        let config = self.small_blob(found, &mut stage, &manifest.config).await?;
        let file: ConfigFile = parse("image config", &config)?;
        let chains = chain_ids(&file.rootfs.diff_ids);
        let present = |at: usize| chains.get(at).is_some_and(|chain| self.layer_path(chain).exists());
        let wanted: Vec<(usize, PathBuf)> = (0..manifest.layers.len()).map(|at| (at, stage.next_path())).collect();
        let mut downloads = Vec::new();
        for (at, path) in wanted.iter().filter(|(at, _)| !present(*at)).cloned() {
            downloads.push(fetch_blob(&found.registry, &manifest.layers[at], path));
        }
        stream::iter(downloads).buffer_unordered(LAYERS_AT_ONCE).try_collect::<Vec<()>>().await?;
        let mut record = ImageRecord {
            references: BTreeSet::from([reference.to_string()]),
            digests: BTreeSet::from([named.to_owned()]),
            size: manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
            ..ImageRecord::default()
        };
        let store = self.clone();
        let put = tokio::task::spawn_blocking(move || {
            let exclusive = store.exclusive()?;
            let layers: Vec<PathBuf> = wanted.into_iter().map(|(_, path)| path).collect();
            store.put_image(&mut stage, &mut record, &config, Some(&manifest_bytes), &layers)?;
            store.add(&exclusive, record)
        });
        let put = put.await.map_err(|error| RegistryError::Failed(error.to_string()))?;
        put.map_err(|error| RegistryError::Failed(format!("failed to extract layer: {error}")))
    }

    /// The manifest for this machine, by way of indexes.
    async fn platform_manifest(&self, found: &Found) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = found.manifest.clone();
        for _ in 0..NESTING_MAX {
            let document: serde_json::Value = parse("manifest", &bytes)?;
            if document.get("manifests").is_none() {
                if document.get("config").is_none() {
                    let kind = document.get("mediaType").or_else(|| document.get("schemaVersion"));
                    let kind = kind.map(ToString::to_string).unwrap_or_default();
                    return Err(RegistryError::Failed(format!("unsupported manifest {kind}")));
                }
                return Ok(bytes.to_vec());
            }
            let index: ImageIndex = parse("image index", &bytes)?;
            let chosen = choose(&index).ok_or_else(|| {
                let arch = super::archive::architecture();
                RegistryError::Failed(format!("no match for platform in manifest: linux/{arch} is not found"))
            })?;
            bytes = found.registry.manifest(&chosen.digest).await?;
            verify(&bytes, &chosen.digest)?;
        }
        Err(RegistryError::Failed("image indexes are nested too deep".to_owned()))
    }

    async fn small_blob(
        &self,
        found: &Found,
        stage: &mut Stage,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > super::archive::DOCUMENT_BYTES_MAX {
            return Err(RegistryError::Failed("image config is too large".to_owned()));
        }
        let path = stage.next_path();
        fetch_blob(&found.registry, descriptor, path.clone()).await?;
        std::fs::read(path).map_err(io_failed)
    }
}

/// Asks the endpoints in order. What is not found in one may be in the next; the first other error is the one to report.
async fn find(
    registries: &Registries,
    reference: &Reference,
    auth: Option<&RegistryAuth>,
) -> Result<Found, RegistryError> {
    let mut first = None;
    for endpoint in registries.endpoints(reference).map_err(RegistryError::Failed)? {
        match look(endpoint, reference, auth).await {
            Ok(found) => return Ok(found),
            Err(RegistryError::NotFound) => {}
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or(RegistryError::NotFound))
}

async fn look(endpoint: Endpoint, reference: &Reference, auth: Option<&RegistryAuth>) -> Result<Found, RegistryError> {
    // A pull secret is for the registry itself; a mirror must not learn it.
    let own = auth.filter(|_| endpoint.mirror_of.is_none());
    let credentials = own.map(|auth| HostAuth {
        username: auth.username.clone(),
        password: auth.password.clone(),
        ..HostAuth::default()
    });
    let registry = Registry::new(endpoint, credentials)?;
    let resolved = registry.resolve(reference.object()).await?;
    let known = reference.digest.clone().or(resolved).filter(|digest| parse_digest(digest).is_ok());
    let manifest = registry.manifest(known.as_deref().unwrap_or(reference.object())).await?;
    let digest = known.unwrap_or_else(|| digest_of(&manifest));
    verify(&manifest, &digest)?;
    Ok(Found { registry, digest, manifest })
}

fn verify(bytes: &[u8], digest: &str) -> Result<(), RegistryError> {
    let found = digest_of(bytes);
    if found == digest {
        return Ok(());
    }
    Err(RegistryError::Failed(format!("failed to copy: unexpected commit digest {found}, expected {digest}")))
}

fn parse<T: for<'a> serde::Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| RegistryError::Failed(format!("bad {what}: {error}")))
}

/// A blob that is being written to its file.
struct Download {
    file: std::fs::File,
    digest: Sha256,
    received: u64,
}

/// Fetches a blob to a file, going on where a broken connection stopped, and verifies it.
async fn fetch_blob(registry: &Registry, descriptor: &Descriptor, path: PathBuf) -> Result<(), RegistryError> {
    let digest = parse_digest(&descriptor.digest).map_err(|why| RegistryError::Failed(format!("bad digest: {why}")))?;
    let file = std::fs::File::create(path).map_err(io_failed)?;
    let mut download = Download { file, digest: Sha256::new(), received: 0 };
    let mut error = None;
    for _ in 0..ATTEMPTS_MAX {
        let (response, resumed) = match registry.blob(&digest, download.received).await {
            Ok(answer) => answer,
            Err(RegistryError::Failed(why)) => {
                error = Some(why);
                continue;
            }
            Err(other) => return Err(other),
        };
        if !resumed {
            download.restart().map_err(io_failed)?;
        }
        match download.take(response.into_body(), descriptor.size).await {
            Ok(()) => {
                let found = digest_text(download.digest);
                return if found == digest {
                    Ok(())
                } else {
                    let why = format!("failed to copy: unexpected commit digest {found}, expected {digest}");
                    Err(RegistryError::Failed(why))
                };
            }
            Err(why) => error = Some(why),
        }
    }
    Err(RegistryError::Failed(format!("failed to copy: {}", error.unwrap_or_default())))
}

impl Download {
    fn restart(&mut self) -> io::Result<()> {
        use std::io::Seek;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.digest = Sha256::new();
        self.received = 0;
        Ok(())
    }

    /// Takes a body to its end; `size` bytes must have come then (0: not known).
    async fn take(&mut self, mut body: Incoming, size: u64) -> Result<(), String> {
        loop {
            let frame = tokio::time::timeout(SILENCE_MAX, body.frame());
            let frame = frame.await.map_err(|_| "the registry went silent".to_owned())?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| error.to_string())?;
            let Some(data) = frame.data_ref() else { continue };
            if size > 0 && self.received + data.len() as u64 > size {
                return Err(format!("blob is larger than {size} bytes"));
            }
            self.digest.update(data);
            self.file.write_all(data).map_err(|error| error.to_string())?;
            self.received += data.len() as u64;
        }
        if size > 0 && self.received < size {
            return Err(format!("unexpected EOF after {} of {size} bytes", self.received));
        }
        Ok(())
    }
}

fn io_failed(error: io::Error) -> RegistryError {
    RegistryError::Failed(format!("cannot write to the image store: {error}"))
}

fn resolve_error(reference: &Reference, error: &RegistryError) -> PullError {
    let prefix =
        format!("failed to pull and unpack image \"{reference}\": failed to resolve reference \"{reference}\"");
    match error {
        RegistryError::NotFound => PullError::NotFound(format!("{prefix}: {reference}: not found")),
        RegistryError::Unauthorized(why) => PullError::Unauthorized(format!("{prefix}: {why}")),
        RegistryError::Failed(why) => PullError::Failed(format!("{prefix}: {why}")),
    }
}

fn text_of(error: &PullError) -> String {
    error.to_string()
}
