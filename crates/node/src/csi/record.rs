//! What is written beside a staged or published volume, so that whoever finds it later knows what it is.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Node;
use crate::volumes::{is_mounted, make_dir};

const FILE: &str = "vol_data.json";
/// The part of a pod's directory that holds volumes of drivers.
pub(super) const PLUGIN: &str = "volumes/kubernetes.io~csi";

/// The kubelet's record of a volume of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub driver_name: String,
    pub volume_handle: String,
    #[serde(default, rename = "specVolID")]
    pub volume: String,
    #[serde(default)]
    pub node_name: String,
    /// Name of the attachment; empty for a volume that is not attached.
    #[serde(default, rename = "attachmentID")]
    pub attachment: String,
    #[serde(default)]
    pub volume_lifecycle_mode: String,
}

impl Record {
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(dir.join(FILE)).ok()?).ok()
    }

    /// # Errors
    /// The file system's, as text.
    pub(super) fn write(&self, dir: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot write {}: {error}", dir.join(FILE).display());
        make_dir(dir, 0o750).map_err(failed)?;
        let text = serde_json::to_string(self).expect("text fields alone");
        let new = dir.join(".vol_data.new");
        fs::write(&new, text).map_err(failed)?;
        fs::rename(&new, dir.join(FILE)).map_err(failed)
    }

    /// What the node's status calls the volume.
    pub(super) fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver_name, self.volume_handle)
    }
}

/// Removes the record in `dir`, and the directory, which has to be empty.
///
/// # Errors
/// The file system's, as text.
pub(super) fn remove(dir: &Path, inner: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot remove {}: {error}", dir.display());
    let inner = dir.join(inner);
    if is_mounted(&inner) {
        return Err(format!("{} is still mounted", inner.display()));
    }
    if inner.is_dir() {
        fs::remove_dir(&inner).map_err(failed)?;
    } else if inner.exists() {
        fs::remove_file(&inner).map_err(failed)?;
    }
    let _ = fs::remove_file(dir.join(FILE));
    fs::remove_dir(dir).map_err(failed)
}

/// The hexadecimal SHA-256 of a text.
pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the object that says where a volume is attached (upstream: `getAttachmentName`).
pub(super) fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hash(&format!("{handle}{driver}{node}")))
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Directory and record of each volume of a driver in a pod's directory.
pub(super) fn published_in(pod_dir: &Path) -> Vec<(PathBuf, Record)> {
    let dirs = directories(&pod_dir.join(PLUGIN)).into_iter();
    dirs.filter_map(|dir| Record::read(&dir).map(|record| (dir, record))).collect()
}

impl Node {
    /// Where a volume is staged; the mount is `globalmount` in it.
    pub(super) fn staging_dir(&self, driver: &str, handle: &str) -> PathBuf {
        self.staging_root().join(driver).join(hash(handle))
    }

    /// Directory and record of each volume that is staged here.
    pub(super) fn staged(&self) -> Vec<(PathBuf, Record)> {
        let volumes = directories(&self.staging_root()).into_iter().flat_map(|driver| directories(&driver));
        volumes.filter_map(|dir| Record::read(&dir).map(|record| (dir, record))).collect()
    }

    /// Whether a pod of this node has the volume.
    pub(super) fn is_published(&self, driver: &str, handle: &str) -> bool {
        let pods = directories(&self.config.data_dir.join("pods")).into_iter();
        pods.flat_map(|pod| published_in(&pod))
            .any(|(_, record)| record.driver_name == driver && record.volume_handle == handle)
    }

    /// The attached volumes that this node still uses, as its status names them: nobody may detach these.
    pub(crate) fn volumes_in_use(&self) -> Vec<String> {
        let pods = directories(&self.config.data_dir.join("pods")).into_iter();
        let published = pods.flat_map(|pod| published_in(&pod));
        let records = published.chain(self.staged()).map(|(_, record)| record);
        let mut names: Vec<String> =
            records.filter(|record| !record.attachment.is_empty()).map(|record| record.unique_name()).collect();
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_records_are_the_kubelets() {
        assert_eq!(attachment_name("vol", "driver", "node"), format!("csi-{}", hash("voldrivernode")),);
        assert_eq!(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let dir = tempfile::tempdir().expect("a directory");
        let own = dir.path().join("volumes/kubernetes.io~csi/pvc-1");
        let record = Record {
            driver_name: "d".to_owned(),
            volume_handle: "h".to_owned(),
            volume: "pvc-1".to_owned(),
            ..Record::default()
        };
        record.write(&own).expect("written");
        let text = fs::read_to_string(own.join(FILE)).expect("there");
        assert!(text.contains(r#""specVolID":"pvc-1""#) && text.contains(r#""volumeHandle":"h""#), "{text}");
        assert_eq!(published_in(dir.path()), [(own.clone(), record.clone())]);
        assert_eq!(record.unique_name(), "kubernetes.io/csi/d^h");
        fs::create_dir(own.join("mount")).expect("made");
        fs::write(own.join("mount/data"), "precious").expect("written");
        assert!(remove(&own, "mount").is_err(), "a directory with something in it stays");
        assert!(own.join("mount/data").exists());
    }
}
