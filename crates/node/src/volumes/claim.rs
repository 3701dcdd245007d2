//! Claims: from the pod's volume to the claim, to the bound volume, to a path on this node.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::Api;
use kube::api::{Patch, PatchParams};
use stead_informer::Severity;
use stead_podlife::{cgroup, spec};

use super::{MountError, Request, blocking, disk, fs_group, image};
use crate::Node;
use crate::csi;

/// Annotation that names a volume's provisioner.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The provisioner whose directories are made at the first mount, on the node where the pod is.
pub const PROVISIONER_LOCAL: &str = "stead.dev/local";
/// The provisioner whose directories lie below one that all nodes share.
const PROVISIONER_SHARED: &str = "stead.dev/shared";
/// Annotation of a volume that is a file system in a file when it says `image`.
const FORM: &str = "stead.dev/volume-type";
/// Upstream's condition of a claim whose file system is still to be grown.
const RESIZE_PENDING: &str = "FileSystemResizePending";

pub(super) async fn mount(
    request: &Request<'_>,
    (volume, read_only): (&Volume, bool),
    claim: &str,
) -> Result<PathBuf, MountError> {
    let (claim, bound) =
        bound_volume(request, claim).await.map_err(|cause| unattached(request, volume, claim, &cause))?;
    let name = bound.metadata.name.clone().unwrap_or_default();
    let spec = bound.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        let cause = "volumes of mode Block are not offered by this node";
        return Err(MountError(format!("MapVolume.SetUpDevice failed for volume \"{name}\" : {cause}")));
    }
    take_sole_use(request, &bound).map_err(|cause| MountError::set_up(&name, cause))?;
    if let Some(source) = &spec.csi {
        return csi::mount(request, (&volume.name, read_only), &claim, &bound, source).await;
    }
    if let Some(source) = &spec.nfs {
        let options = spec.mount_options.as_deref().unwrap_or_default();
        let mounted = request.nfs(&name, source, read_only, options).await;
        return mounted.map_err(|cause| MountError::set_up(&name, cause));
    }
    if let Some((path, bytes)) = image_of(&bound) {
        let failed = |cause| MountError::set_up(&name, cause);
        let growth = mount_image(request, &bound, path, bytes).await.map_err(failed)?;
        if growth != image::Growth::AtNextMount {
            has_grown(request.node, &claim, &bound).await.map_err(failed)?;
        }
    }
    let is_ours = is_ours(&bound);
    let source = match (&spec.local, &spec.host_path) {
        (Some(local), _) => Source::Local(PathBuf::from(&local.path)),
        (None, Some(host)) => Source::Host(PathBuf::from(&host.path), host.type_.clone().unwrap_or_default()),
        (None, None) => return Err(MountError::set_up(&name, "no volume plugin matched")),
    };
    let uid = bound.metadata.uid.clone().unwrap_or_default();
    let (is_image, shared) = (image_of(&bound).is_some(), is_shared(&bound));
    let group = fs_group(request.pod);
    let on_mismatch = on_root_mismatch(request);
    blocking(move || {
        let path = match source {
            Source::Local(path) | Source::Host(path, _) if is_image => path,
            Source::Local(path) | Source::Host(path, _) if is_ours => provision(&path, &uid, shared).map(|()| path)?,
            Source::Host(path, kind) => return disk::host_path(&path, &kind).map(|()| path),
            Source::Local(path) if path.exists() => path,
            Source::Local(path) => return Err(format!("path \"{}\" does not exist", path.display())),
        };
        match group.filter(|group| !(on_mismatch && disk::belongs_to_group(&path, *group))) {
            Some(group) => disk::give_to_group(&path, group).map(|()| path).map_err(|error| error.to_string()),
            None => Ok(path),
        }
    })
    .await
    .map_err(|cause| MountError::set_up(&name, cause))
}

/// Gives a volume whose only access mode is `ReadWriteOncePod` to the first pod that asks, until nothing of that pod runs.
///
/// # Errors
/// Upstream's text for another pod.
fn take_sole_use(request: &Request<'_>, volume: &PersistentVolume) -> Result<(), &'static str> {
    let spec = volume.spec.as_ref();
    let modes = spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    if modes != ["ReadWriteOncePod"] {
        return Ok(());
    }
    let (_, _, own) = spec::identity(request.pod);
    let name = volume.metadata.name.clone().unwrap_or_default();
    let mut holders = request.node.sole_users.lock();
    let users = request.node.users(volume);
    let holds = |pod: &Pod| {
        let uid = spec::identity(pod).2;
        // After a restart of this process: a pod whose containers were made has had its volumes.
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let made = || statuses.into_iter().any(|status| status.container_id.is_some());
        uid != own && (holders.get(&name).is_some_and(|holder| holder == uid) || made())
    };
    if users.iter().any(|pod| holds(pod)) {
        return Err("volume uses the ReadWriteOncePod access mode and is already in use by another pod");
    }
    holders.insert(name, own.to_owned());
    Ok(())
}

fn annotated<'a>(volume: &'a PersistentVolume, key: &str) -> Option<&'a str> {
    volume.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the volume was made by a provisioner of this cluster's own.
#[must_use]
pub(crate) fn is_ours(volume: &PersistentVolume) -> bool {
    annotated(volume, PROVISIONED_BY).is_some_and(|by| by == PROVISIONER_LOCAL || by == PROVISIONER_SHARED)
}

/// Whether the volume lies below a directory that all nodes share.
#[must_use]
pub(crate) fn is_shared(volume: &PersistentVolume) -> bool {
    annotated(volume, PROVISIONED_BY) == Some(PROVISIONER_SHARED)
}

/// Mount point and size in bytes of a volume of ours that is a file system in a file.
#[must_use]
pub(crate) fn image_of(volume: &PersistentVolume) -> Option<(PathBuf, u64)> {
    if !is_ours(volume) || annotated(volume, FORM) != Some("image") {
        return None;
    }
    let spec = volume.spec.as_ref()?;
    let size = spec.capacity.as_ref()?.get("storage")?;
    let bytes = u64::try_from(cgroup::milli(size) / 1000).ok()?;
    Some((PathBuf::from(&spec.host_path.as_ref()?.path), bytes))
}

async fn mount_image(
    request: &Request<'_>,
    volume: &PersistentVolume,
    path: PathBuf,
    bytes: u64,
) -> Result<image::Growth, String> {
    let uid = volume.metadata.uid.clone().unwrap_or_default();
    let options = volume.spec.as_ref().and_then(|spec| spec.mount_options.clone()).unwrap_or_default().join(",");
    let _turn = request.node.images.lock().await;
    let (_, _, own) = spec::identity(request.pod);
    let alone = !request.node.is_used(volume, Some(own));
    blocking(move || image::mount(&path, &uid, bytes, &options, alone)).await
}

/// Says in the claim's status what it has got, if that is more than before.
pub(crate) async fn has_grown(
    node: &Node,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Result<(), String> {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    let status = claim.status.clone().unwrap_or_default();
    let (Some(capacity), Some(before)) = (capacity, status.capacity.as_ref().and_then(|has| has.get("storage"))) else {
        return Ok(());
    };
    if cgroup::milli(before) >= cgroup::milli(capacity) {
        return Ok(());
    }
    let mut conditions = status.conditions.unwrap_or_default();
    conditions.retain(|condition| condition.type_ != RESIZE_PENDING);
    let patch = serde_json::json!({"status": {
        "capacity": {"storage": capacity.0},
        "conditions": (!conditions.is_empty()).then_some(conditions),
    }});
    let (name, namespace) = (claim.metadata.name.as_deref(), claim.metadata.namespace.as_deref());
    let api: Api<PersistentVolumeClaim> = Api::namespaced(node.client.clone(), namespace.unwrap_or_default());
    let patched = api.patch_status(name.unwrap_or_default(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched
        .map(drop)
        .map_err(|error| format!("cannot write the status of the claim: {}", stead_client::message(&error)))?;
    node.recorder.event(
        claim,
        Severity::Normal,
        "FileSystemResizeSuccessful",
        format!(
            "MountVolume.NodeExpandVolume succeeded for volume \"{}\"",
            volume.metadata.name.as_deref().unwrap_or_default()
        ),
    );
    Ok(())
}

enum Source {
    Local(PathBuf),
    Host(PathBuf, String),
}

fn on_root_mismatch(request: &Request<'_>) -> bool {
    let context = spec::pod_spec(request.pod).security_context.as_ref();
    context.and_then(|context| context.fs_group_change_policy.as_deref()) == Some("OnRootMismatch")
}

/// The text that upstream gives when a claim keeps a pod from its volumes.
fn unattached(request: &Request<'_>, volume: &Volume, claim: &str, cause: &str) -> MountError {
    let (_, namespace, _) = spec::identity(request.pod);
    MountError(format!(
        "Unable to attach or mount volumes: unmounted volumes=[{0}], unattached volumes=[], failed to process volumes=[{0}]: error processing PVC {namespace}/{claim}: {cause}",
        volume.name
    ))
}

async fn bound_volume(request: &Request<'_>, claim: &str) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
    let (_, namespace, _) = spec::identity(request.pod);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(request.node.client.clone(), namespace);
    let found = claims.get(claim).await;
    let found =
        found.map_err(|error| format!("failed to fetch PVC from API server: {}", stead_client::message(&error)))?;
    if found.metadata.deletion_timestamp.is_some()
        && found.metadata.finalizers.as_deref().unwrap_or_default().is_empty()
    {
        return Err("PVC is being deleted".to_owned());
    }
    let status = found.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = found.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    if status != Some("Bound") || name.is_empty() {
        return Err("PVC is not bound".to_owned());
    }
    let volumes: Api<PersistentVolume> = Api::all(request.node.client.clone());
    let volume = volumes.get(&name).await;
    let volume = volume
        .map_err(|error| format!("failed to fetch PV {name} from API server: {}", stead_client::message(&error)))?;
    let claimed_by =
        volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).and_then(|claim| claim.uid.as_deref());
    if claimed_by != found.metadata.uid.as_deref() {
        return Err(format!(
            "PVC UID {} doesn't match PV {name} claimRef UID {}",
            found.metadata.uid.unwrap_or_default(),
            claimed_by.unwrap_or_default()
        ));
    }
    Ok((found, volume))
}

/// The file beside a volume's directory that says: it has been made, and held data from then on.
#[must_use]
pub(crate) fn marker_of(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.made"))
}

/// Makes the directory of a new volume, once. A shared one appears on a node only below a directory that is there.
fn provision(path: &Path, uid: &str, shared: bool) -> Result<(), String> {
    let parent = path.parent().unwrap_or(path);
    if shared && !parent.is_dir() {
        return Err(format!("the shared directory {} is not there on this node: mount it", parent.display()));
    }
    once(path, uid, path, || {
        disk::make_dir(path, 0o777).map_err(|error| format!("cannot make {}: {error}", path.display()))
    })
}

/// Makes what holds the data of the volume at `path`, once. The marker is on disk before the first pod writes: a `holder` that
/// is missing later has been lost, and is not replaced by an empty one.
pub(super) fn once(
    path: &Path,
    uid: &str,
    holder: &Path,
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let marker = marker_of(path);
    match (marker.exists(), holder.exists()) {
        (true, true) => return Ok(()),
        (true, false) => {
            return Err(format!(
                "{} of this volume is gone although it has been in use: restore it, or delete the claim (or the marker {}) to begin with an empty one",
                holder.display(),
                marker.display()
            ));
        }
        (false, _) => {}
    }
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
    let parent = path.parent().unwrap_or(path);
    disk::make_dir(parent, 0o755).map_err(failed)?;
    make()?;
    let next = marker.with_extension("new");
    fs::write(&next, uid).map_err(failed)?;
    for file in [&next, holder] {
        fs::File::open(file).and_then(|file| file.sync_all()).map_err(failed)?;
    }
    fs::rename(&next, &marker).map_err(failed)?;
    fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lost_directory_is_not_replaced_by_an_empty_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("volumes/pvc-1");
        provision(&path, "u", false).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o777);
        provision(&path, "u", false).expect("there already");
        fs::remove_dir(&path).expect("lost");
        let error = provision(&path, "u", false).expect_err("refused");
        assert!(error.contains("is gone although it has been in use"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_shared_directory_that_is_not_mounted_is_not_made_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = provision(&dir.path().join("export/ns-claim"), "u", true).expect_err("refused");
        assert!(error.ends_with("is not there on this node: mount it"), "{error}");
        assert!(!dir.path().join("export").exists());
    }
}
