//! Volumes of this node after they were made: grown when they are larger than before, unmounted when no pod uses them, and removed
//! (the data, then the volume object) when their claim is gone.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use stead_client::{Class, classify};
use stead_informer::Severity;
use stead_podlife::{backoff, spec};

use crate::Node;
use crate::volumes::image::{self, Growth};
use crate::volumes::{blocking, has_grown, image_of, is_ours, is_shared, marker_of, remove_tree};

const HOSTNAME: &str = "kubernetes.io/hostname";

impl Node {
    /// Follows the volumes for ever.
    pub(crate) async fn reclaim_volumes(self: Arc<Self>) {
        let cache = self.storage.of::<PersistentVolume>();
        let mut changes = cache.subscribe();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => if let Some(volume) = change.new {
                        self.grow(&volume).await;
                        self.reclaim(&volume).await;
                    },
                    None => return,
                },
                // A pod that used one may have ended.
                () = self.pods.ended.notified() => for volume in cache.list() {
                    self.unmount_image(&volume).await;
                    self.reclaim(&volume).await;
                },
            }
        }
    }

    /// Grows a volume that is mounted here, and says so in its claim.
    async fn grow(self: &Arc<Self>, volume: &Arc<PersistentVolume>) {
        if volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()) {
            // A driver may take its time; other volumes do not wait for it.
            if !self.users(volume).is_empty() {
                let (node, volume) = (self.clone(), volume.clone());
                tokio::spawn(async move {
                    let mut pause = None;
                    while !node.try_grow_driver_volume(&volume).await {
                        let now = (node.clock)();
                        let next = backoff::Backoff::next(pause, backoff::MOUNT, now, now);
                        let waited = tokio::time::sleep(next.delay.unsigned_abs());
                        if node.stop.run_until_cancelled(waited).await.is_none() {
                            return;
                        }
                        pause = Some(next);
                    }
                });
            }
            return;
        }
        let Some((path, bytes)) = image_of(volume).filter(|_| self.is_here(volume)) else { return };
        let grown = {
            let _turn = self.images.lock().await;
            blocking(move || if image::is_mounted(&path) { image::grow(&path, bytes) } else { Ok(Growth::AtNextMount) })
                .await
        };
        let told = match grown {
            Ok(Growth::None | Growth::AtNextMount) => return,
            Ok(Growth::Done) => self.tell_claim(volume).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = told {
            self.recorder.event(&**volume, Severity::Warning, "FileSystemResizeFailed", cause);
        }
    }

    /// Grows a volume of a driver; whether nothing is left to be tried.
    async fn try_grow_driver_volume(&self, volume: &PersistentVolume) -> bool {
        match self.claim_of(volume).await {
            Ok(Some(claim)) => self.grow_driver_volume(&claim, volume).await,
            Ok(None) => true,
            Err(cause) => {
                tracing::warn!(cause, "cannot look up the claim of a volume that has grown");
                false
            }
        }
    }

    async fn tell_claim(&self, volume: &PersistentVolume) -> Result<(), String> {
        match self.claim_of(volume).await? {
            Some(claim) => has_grown(self, &claim, volume).await,
            None => Ok(()),
        }
    }

    /// The claim that the volume is bound to, as the API has it now.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<PersistentVolumeClaim>, String> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone()).unwrap_or_default();
        let (namespace, name) = (reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default());
        // Not in the node's own name: it may read it only while its pod is there.
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.storage.client().clone(), &namespace);
        match claims.get_opt(&name).await {
            Ok(claim) => Ok(claim.filter(|claim| claim.metadata.uid == reference.uid)),
            Err(error) => Err(stead_client::message(&error)),
        }
    }

    /// Unmounts an image volume that no pod of this node uses.
    async fn unmount_image(&self, volume: &PersistentVolume) {
        let Some((path, _)) = image_of(volume).filter(|_| self.is_here(volume)) else { return };
        let _turn = self.images.lock().await;
        if self.is_used(volume, None) {
            return;
        }
        if let Err(error) = blocking(move || image::unmount(&path)).await {
            tracing::warn!(%error, "image volume");
        }
    }

    async fn reclaim(&self, volume: &PersistentVolume) {
        let Some(path) = self.released_directory(volume) else { return };
        if self.is_used(volume, None) {
            return;
        }
        let shared = is_shared(volume);
        let removed = blocking(move || {
            // Out of the way first: a directory that is half removed must not be taken for a whole one.
            let trash = path.with_extension("removed");
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            image::unmount(&path)?;
            let file = image::file_of(&path);
            if image::is_mounted(&path) {
                return Err(format!("{} is still in use", path.display()));
            }
            if shared && path.parent().is_some_and(|parent| !parent.exists()) {
                return Err(format!("the directory above {} is not there on this node: mount it", path.display()));
            }
            if path.exists() {
                std::fs::rename(&path, &trash).map_err(failed)?;
            }
            remove_tree(&trash).map_err(failed)?;
            remove_tree(&file).map_err(failed)?;
            remove_tree(&marker_of(&path)).map_err(failed)
        })
        .await;
        if let Err(cause) = removed {
            self.recorder.event(volume, Severity::Warning, "VolumeFailedDelete", cause);
            return;
        }
        let api: Api<PersistentVolume> = Api::all(self.storage.client().clone());
        let how = DeleteParams {
            preconditions: Some(Preconditions { uid: volume.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let mut pause = None;
        loop {
            match api.delete(name, &how).await {
                Ok(_) => return,
                Err(error) if classify(&error) == Class::Retryable => {
                    let now = (self.clock)();
                    let next = backoff::Backoff::next(pause, backoff::MOUNT, now, now);
                    tokio::time::sleep(next.delay.unsigned_abs()).await;
                    pause = Some(next);
                }
                Err(error) => return tracing::debug!(name, %error, "volume object not deleted"),
            }
        }
    }

    /// The directory of a volume of ours, on this node, that is to go.
    fn released_directory(&self, volume: &PersistentVolume) -> Option<PathBuf> {
        let spec = volume.spec.as_ref()?;
        let released = volume.status.as_ref()?.phase.as_deref() == Some("Released");
        let delete = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
        let here = volume.metadata.deletion_timestamp.is_none() && self.is_here(volume);
        let path = spec.local.as_ref().map(|local| &local.path).or(spec.host_path.as_ref().map(|host| &host.path))?;
        (is_ours(volume) && released && delete && here).then(|| PathBuf::from(path))
    }

    /// Whether the volume is tied to this node, or shared: the first node that can removes a shared directory.
    fn is_here(&self, volume: &PersistentVolume) -> bool {
        let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
        let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else { return is_shared(volume) };
        let mut rules = required.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
        rules.any(|rule| rule.key == HOSTNAME && rule.values.as_deref().unwrap_or_default().contains(&self.config.name))
    }

    /// Whether a pod that is still on this node, other than the one with the uid `but`, has the volume's claim.
    pub(crate) fn is_used(&self, volume: &PersistentVolume, but: Option<&str>) -> bool {
        self.users(volume).iter().any(|pod| Some(spec::identity(pod).2) != but)
    }

    /// The pods that are still on this node and have the volume's claim.
    pub(crate) fn users(&self, volume: &PersistentVolume) -> Vec<Arc<Pod>> {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some((namespace, name)) =
            claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.as_deref()?)))
        else {
            return Vec::new();
        };
        let mut pods = self.pods.holding();
        pods.retain(|pod| {
            let (pod_name, pod_namespace, _) = spec::identity(pod);
            let volumes = spec::pod_spec(pod).volumes.as_deref().unwrap_or_default();
            // A pod that has ended for good has let go of its volumes.
            pod_namespace == namespace
                && !spec::is_terminal(pod)
                && volumes.iter().any(|one| {
                    let own = one.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name == name);
                    own || (one.ephemeral.is_some() && name == format!("{pod_name}-{}", one.name))
                })
        });
        pods
    }
}
