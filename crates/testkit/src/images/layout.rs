//! OCI image layouts: blobs by digest and an index of names.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Recipe;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The annotation under which the full name stands.
pub(crate) const NAME: &str = "org.opencontainers.image.ref.name";

pub(super) struct Writer {
    blobs: PathBuf,
    layout: PathBuf,
    manifests: Vec<Value>,
}

impl Writer {
    pub(super) fn create(layout: &Path) -> Result<Self> {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        Ok(Self { blobs, layout: layout.to_owned(), manifests: Vec::new() })
    }

    /// Adds a root file system as one layer, under each of the recipe's names with a configuration of its own, so that two tags
    /// are two images as on a real registry. Returns what [`Writer::add_known`] takes in the place of the files.
    pub(super) fn add(&mut self, recipe: &Recipe, root: &Path) -> Result<Vec<u8>> {
        let (layer, diff_id) = self.layer(root)?;
        let before = self.manifests.len();
        for name in recipe.names {
            let config = self.blob(CONFIG, &serde_json::to_vec(&config(recipe, name, &diff_id))?)?;
            let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
            let mut descriptor = self.blob(MANIFEST, &serde_json::to_vec(&manifest)?)?;
            descriptor["annotations"] = json!({NAME: name});
            descriptor["platform"] = json!({"architecture": "amd64", "os": "linux"});
            self.manifests.push(descriptor);
        }
        Ok(serde_json::to_vec(&self.manifests[before..])?)
    }

    /// Adds images whose files are in the layout since an earlier run.
    pub(super) fn add_known(&mut self, known: &[u8]) -> Result<()> {
        self.manifests.extend(serde_json::from_slice::<Vec<Value>>(known)?);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        fs::write(self.layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(self.layout.join("index.json"), serde_json::to_vec_pretty(&index(&self.manifests))?)?;
        Ok(())
    }

    /// Packs a directory. Programs of the machine do what is slow in a debug build: a layer may have 200 MB.
    fn layer(&self, root: &Path) -> Result<(Value, String)> {
        let plain = self.blobs.join(format!("layer-{}.tmp", std::process::id()));
        let mut tar = tar::Builder::new(BufWriter::new(File::create(&plain)?));
        tar.follow_symlinks(false);
        tar.mode(tar::HeaderMode::Complete);
        tar.append_dir_all(".", root)?;
        tar.into_inner()?.flush()?;
        let diff_id = sha256_of(&plain)?;
        output(Command::new("gzip").args(["-1", "--no-name", "--force"]).arg(&plain))?;
        let packed = plain.with_extension("tmp.gz");
        let digest = sha256_of(&packed)?;
        fs::rename(&packed, self.blobs.join(&digest))?;
        let size = fs::metadata(self.blobs.join(&digest))?.len();
        Ok((
            json!({"mediaType": LAYER, "digest": format!("sha256:{digest}"), "size": size}),
            format!("sha256:{diff_id}"),
        ))
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = hex(&Sha256::digest(bytes));
        fs::write(self.blobs.join(&digest), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()}))
    }
}

fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests})
}

fn config(recipe: &Recipe, name: &str, diff_id: &str) -> Value {
    let set =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>();
    let mut config = json!({"Env": recipe.environment, "Cmd": recipe.command, "Labels": {"dev.stead.test.name": name}});
    if !recipe.entrypoint.is_empty() {
        config["Entrypoint"] = json!(recipe.entrypoint);
    }
    for (key, value) in [("WorkingDir", recipe.working_dir), ("StopSignal", recipe.stop_signal)] {
        if !value.is_empty() {
            config[key] = json!(value);
        }
    }
    for (key, names) in [("Volumes", recipe.volumes), ("ExposedPorts", recipe.ports)] {
        if !names.is_empty() {
            config[key] = Value::Object(set(names));
        }
    }
    json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "from Debian packages"}],
    })
}

pub(super) fn archive(layout: &Path, names: &[&str], to: &Path) -> Result<()> {
    let whole: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let chosen: Vec<Value> = whole["manifests"]
        .as_array()
        .context("index.json has no manifests")?
        .iter()
        .filter(|manifest| manifest["annotations"][NAME].as_str().is_some_and(|name| names.contains(&name)))
        .cloned()
        .collect();
    if chosen.len() != names.len() {
        bail!("the layout does not hold all of {names:?}");
    }
    let mut tar = tar::Builder::new(File::create(to)?);
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut tar, "index.json", &serde_json::to_vec(&index(&chosen))?)?;
    let mut added = Vec::new();
    for manifest in &chosen {
        let bytes = fs::read(blob_path(layout, manifest)?)?;
        let inner: Value = serde_json::from_slice(&bytes)?;
        let parts = inner["layers"].as_array().into_iter().flatten().chain([&inner["config"], manifest]);
        for part in parts {
            let path = blob_path(layout, part)?;
            if !added.contains(&path) {
                tar.append_path_with_name(&path, path.strip_prefix(layout)?)?;
                added.push(path);
            }
        }
    }
    tar.finish()?;
    Ok(())
}

fn blob_path(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest =
        descriptor["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).context("no digest")?;
    Ok(layout.join("blobs/sha256").join(digest))
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes)
}

fn sha256_of(path: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().context("sha256sum prints the digest first")?.to_owned())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
