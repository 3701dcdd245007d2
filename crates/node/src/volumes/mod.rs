//! The volumes of a pod on this node's disk: made before its containers, unmounted after them.
//!
//! Invariants: what a pod did not ask for is never touched; nothing is removed through a mount; a directory that once held a
//! claim's data is never silently replaced by an empty one.

mod atomic;
mod claim;
mod disk;
pub(crate) mod image;
mod nfs;
pub(crate) mod payload;
mod subpath;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{NFSVolumeSource, Pod, ServiceAccount, Volume};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use stead_podlife::{backoff, cgroup, spec};

use crate::Node;
use crate::inbox::Inbox;
use crate::surroundings;
use payload::{Found, TokenWish};

pub use claim::{PROVISIONED_BY, PROVISIONER_LOCAL};
pub(crate) use claim::{has_grown, image_of, is_ours, is_shared, marker_of};
pub(crate) use disk::{give_to_group, make_dir, remove_tree, unmount_below};
pub(crate) use image::is_mounted;
pub(crate) use subpath::mount as mount_subpath;

/// Longest time for which a token is used before a new one is asked for.
const TOKEN_AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Where a pod's volumes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounted {
    pub paths: BTreeMap<String, PathBuf>,
    /// When tokens have to be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// Why a volume cannot be had: the text of the `FailedMount` event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MountError(pub String);

impl MountError {
    fn set_up(volume: &str, cause: impl std::fmt::Display) -> Self {
        MountError(format!("MountVolume.SetUp failed for volume \"{volume}\" : {cause}"))
    }
}

/// Tokens of one pod that are still good.
pub(crate) type Tokens = Mutex<std::collections::HashMap<TokenWish, Token>>;

#[derive(Clone, Debug)]
pub(crate) struct Token {
    text: String,
    renew_at: Timestamp,
}

/// One pod whose volumes are to be made.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub node: &'a Node,
    pub pod: &'a Pod,
    pub inbox: &'a Arc<Inbox>,
    pub tokens: &'a Tokens,
}

impl Request<'_> {
    /// Makes every volume of the pod.
    ///
    /// # Errors
    /// The first volume that cannot be had.
    pub(crate) async fn mount(&self) -> Result<Mounted, MountError> {
        let volumes = spec::pod_spec(self.pod).volumes.as_deref().unwrap_or_default();
        let (payloads, others): (Vec<_>, Vec<_>) = volumes.iter().partition(|volume| payload::is_payload(volume));
        let mut mounted = Mounted { refresh_at: self.write(&payloads).await?, ..Mounted::default() };
        for volume in payloads {
            mounted.paths.insert(volume.name.clone(), self.payload_dir(volume));
        }
        for volume in others {
            let path = self.mount_one(volume).await?;
            mounted.paths.insert(volume.name.clone(), path);
        }
        Ok(mounted)
    }

    /// Writes the volumes that are made from objects, as these are now; returns when to do so again.
    ///
    /// # Errors
    /// The first volume whose objects are not there.
    pub(crate) async fn refresh(&self) -> Result<Option<Timestamp>, MountError> {
        let volumes = spec::pod_spec(self.pod).volumes.as_deref().unwrap_or_default();
        let payloads: Vec<_> = volumes.iter().filter(|volume| payload::is_payload(volume)).collect();
        self.write(&payloads).await
    }

    async fn write(&self, volumes: &[&Volume]) -> Result<Option<Timestamp>, MountError> {
        let (_, _, uid) = spec::identity(self.pod);
        let needs: Vec<_> = volumes.iter().map(|volume| (volume, payload::needs(self.pod, volume))).collect();
        let references = needs.iter().flat_map(|(_, needs)| needs.references.iter());
        let data = references
            .map(async |reference| (reference.clone(), self.node.objects.get(reference, uid, self.inbox).await));
        let wishes = needs.iter().flat_map(|(volume, needs)| needs.tokens.iter().map(move |wish| (volume, wish)));
        let tokens = wishes.map(async |(volume, wish)| match self.token(wish).await {
            Ok(token) => Ok((wish.clone(), token)),
            Err(error) => Err(MountError::set_up(&volume.name, error)),
        });
        let (data, tokens) = futures::join!(futures::future::join_all(data), futures::future::try_join_all(tokens));
        let tokens = tokens?;
        let refresh_at = tokens.iter().map(|(_, token)| token.renew_at).min();
        let found = Found {
            data: data.into_iter().collect(),
            tokens: tokens.into_iter().map(|(wish, token)| (wish, token.text)).collect(),
        };
        for volume in volumes {
            self.write_one(volume, &found).await.map_err(|cause| MountError::set_up(&volume.name, cause))?;
        }
        Ok(refresh_at)
    }

    async fn write_one(&self, volume: &Volume, found: &Found) -> Result<(), String> {
        let around = surroundings(self.node, self.pod);
        let files = payload::files(self.pod, volume, found, &around)?;
        let dir = self.payload_dir(volume);
        let in_memory = payload::is_secret(volume);
        let group = fs_group(self.pod);
        let stamp = (self.node.clock)().strftime("%Y_%m_%d_%H_%M_%S.%f").to_string();
        blocking(move || {
            make_dir(&dir, 0o755).map_err(|error| error.to_string())?;
            if in_memory {
                disk::ensure_tmpfs(&dir, None)?;
            }
            atomic::write(&dir, &files, &stamp, group).map(|_| ()).map_err(|error| error.to_string())
        })
        .await
    }

    async fn token(&self, wish: &TokenWish) -> Result<Token, String> {
        let now = (self.node.clock)();
        if let Some(known) = self.tokens.lock().get(wish).filter(|known| known.renew_at > now) {
            return Ok(known.clone());
        }
        let (name, namespace, uid) = spec::identity(self.pod);
        let account = spec::pod_spec(self.pod).service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: wish.audience.clone().map(|audience| vec![audience]),
                expiration_seconds: Some(wish.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(name.to_owned()),
                    uid: Some(uid.to_owned()),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.node.client.clone(), namespace);
        let answer = api.create_token_request(&account, &PostParams::default(), &request).await;
        let answer = answer.map_err(|error| format!("failed to fetch token: {}", stead_client::message(&error)))?;
        let status = answer.status.ok_or("failed to fetch token: the answer has no token")?;
        let text = status.token.ok_or("failed to fetch token: the answer has no token")?;
        let expires = status.expiration_timestamp.map_or(now, |time| time.0);
        let life = expires.duration_since(now);
        // Renewed after four fifths of its life.
        let token = Token { text, renew_at: backoff::later(now, (life * 4 / 5).min(TOKEN_AGE_MAX)) };
        self.tokens.lock().insert(wish.clone(), token.clone());
        Ok(token)
    }

    fn payload_dir(&self, volume: &Volume) -> PathBuf {
        let plugin = match volume {
            Volume { config_map: Some(_), .. } => "configmap",
            Volume { secret: Some(_), .. } => "secret",
            Volume { downward_api: Some(_), .. } => "downward-api",
            _ => "projected",
        };
        self.volume_dir(plugin, &volume.name)
    }

    fn volume_dir(&self, plugin: &str, name: &str) -> PathBuf {
        let (_, _, uid) = spec::identity(self.pod);
        self.node.config.pod_dir(uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
    }

    async fn mount_one(&self, volume: &Volume) -> Result<PathBuf, MountError> {
        let failed = |cause: String| MountError::set_up(&volume.name, cause);
        if let Some(empty) = &volume.empty_dir {
            return self.empty_dir(volume, empty).await.map_err(failed);
        }
        if let Some(host) = &volume.host_path {
            let (path, kind) = (PathBuf::from(&host.path), host.type_.clone().unwrap_or_default());
            return blocking(move || disk::host_path(&path, &kind).map(|()| path)).await.map_err(failed);
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return claim::mount(self, (volume, claim.read_only.unwrap_or(false)), &claim.claim_name).await;
        }
        if volume.ephemeral.is_some() {
            let (name, _, _) = spec::identity(self.pod);
            return claim::mount(self, (volume, false), &format!("{name}-{}", volume.name)).await;
        }
        if let Some(source) = &volume.nfs {
            return self.nfs(&volume.name, source, false, &[]).await.map_err(failed);
        }
        Err(failed("no volume plugin matched".to_owned()))
    }

    /// Mounts a directory of another machine for this pod.
    async fn nfs(
        &self,
        name: &str,
        source: &NFSVolumeSource,
        read_only: bool,
        options: &[String],
    ) -> Result<PathBuf, String> {
        let export = nfs::Export {
            server: source.server.clone(),
            path: source.path.clone(),
            read_only: read_only || source.read_only.unwrap_or(false),
            options: options.to_vec(),
        };
        let dir = self.volume_dir("nfs", name);
        blocking(move || nfs::mount(&export, &dir).map(|()| dir)).await
    }

    async fn empty_dir(
        &self,
        volume: &Volume,
        empty: &k8s_openapi::api::core::v1::EmptyDirVolumeSource,
    ) -> Result<PathBuf, String> {
        let dir = self.volume_dir("empty-dir", &volume.name);
        let in_memory = match empty.medium.as_deref() {
            Some("Memory") => true,
            Some(huge) if huge.starts_with("HugePages") => {
                return Err(format!("emptyDir medium {huge} is not offered by this node"));
            }
            _ => false,
        };
        let limit = empty.size_limit.as_ref().map(|size| cgroup::milli(size) / 1000).filter(|bytes| *bytes > 0);
        let bytes = limit.or_else(|| cgroup::pod_limits(self.pod).memory_bytes.map(i128::from));
        let group = fs_group(self.pod);
        let mode = empty.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o777);
        let path = dir.clone();
        blocking(move || {
            let is_new = !dir.exists();
            make_dir(&dir, mode).map_err(|error| error.to_string())?;
            if in_memory {
                disk::ensure_tmpfs(&dir, bytes)?;
            }
            match group.filter(|_| is_new) {
                Some(group) => give_to_group(&dir, group).map_err(|error| error.to_string()),
                None => Ok(()),
            }
        })
        .await?;
        Ok(path)
    }
}

/// The group that owns a pod's volumes.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let group = spec::pod_spec(pod).security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Runs file work aside from the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("file work was given up: {error}")),
    }
}

/// Unmounts and removes everything that [`Request::mount`] made; data of claims and of the host stays.
///
/// # Errors
/// When something is still mounted: nothing is removed then.
pub(crate) fn unmount(pod_dir: &Path) -> Result<(), String> {
    unmount_below(pod_dir)?;
    for part in ["volume-subpaths", "volumes"] {
        remove_tree(&pod_dir.join(part)).map_err(|error| format!("{}: {error}", pod_dir.join(part).display()))?;
    }
    Ok(())
}
