//! An image of this very binary: an OCI archive with it as its only program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the image is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The program of `stead quickstart`, with a volume and a port.
    Demo,
    /// Any of the binary's commands.
    Any,
}

impl Purpose {
    /// The image's name; the version keeps images of different binaries apart.
    fn name(self) -> &'static str {
        match self {
            Self::Demo => concat!("stead.dev/demo:", env!("CARGO_PKG_VERSION")),
            Self::Any => concat!("stead.dev/stead:", env!("CARGO_PKG_VERSION")),
        }
    }

    fn config(self) -> Value {
        match self {
            Self::Demo => json!({
                "Entrypoint": ["/stead", "demo"], "Env": ["PATH=/"], "ExposedPorts": {"8080/tcp": {}}, "Volumes": {"/data": {}},
            }),
            Self::Any => json!({"Entrypoint": ["/stead"], "Env": ["PATH=/"]}),
        }
    }
}

/// Writes the archive and returns the image's name.
pub(crate) fn write(archive: &Path, purpose: Purpose) -> Result<&'static str> {
    let program = std::env::current_exe().context("this program's own file")?;
    let layer = layer(&program)?;
    let layer_digest = digest(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(), "os": "linux",
        "config": purpose.config(),
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut named = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    named["annotations"] = json!({"org.opencontainers.image.ref.name": purpose.name()});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [named]}))?;

    let mut tar = tar::Builder::new(File::create(archive).with_context(|| archive.display().to_string())?);
    add(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    add(&mut tar, "index.json", 0o644, &index)?;
    for blob in [&layer, &config, &manifest] {
        add(&mut tar, &format!("blobs/sha256/{}", digest(blob).trim_start_matches("sha256:")), 0o644, blob)?;
    }
    tar.into_inner()?.flush()?;
    Ok(purpose.name())
}

/// The binary, the libraries that it needs (none when it is linked statically), and a directory for the volume.
fn layer(program: &Path) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "stead", 0o755, &read(program)?)?;
    for library in libraries(program)? {
        let inside = library.strip_prefix("/").unwrap_or(&library).display().to_string();
        add(&mut tar, &inside, 0o755, &read(&library)?)?;
    }
    let mut data = tar::Header::new_gnu();
    data.set_entry_type(tar::EntryType::Directory);
    data.set_mode(0o755);
    data.set_size(0);
    tar.append_data(&mut data, "data/", io::empty())?;
    Ok(tar.into_inner()?)
}

/// The shared objects that are mapped into this process.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])))
        .filter(|path| path != program && path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so")))
        .collect();
    found.sort();
    found.dedup();
    // The program names its loader by the path of the ABI, which is often a link.
    let loader = PathBuf::from("/lib64/ld-linux-x86-64.so.2");
    if !found.is_empty() && loader.exists() {
        found.push(loader);
    }
    Ok(found)
}

fn add<W: Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).with_context(|| path.display().to_string())?;
    Ok(bytes)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
