//! Volumes of this node whose claim is gone: the directory is removed, then the volume object.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use stead_client::{Class, classify};
use stead_informer::Severity;
use stead_podlife::{backoff, spec};

use crate::Node;
use crate::volumes::{PROVISIONED_BY, PROVISIONER_LOCAL, blocking, marker_of, remove_tree};

const HOSTNAME: &str = "kubernetes.io/hostname";

impl Node {
    /// Follows the volumes for ever.
    pub(crate) async fn reclaim_volumes(self: Arc<Self>) {
        let cache = self.storage.of::<PersistentVolume>();
        let mut changes = cache.subscribe();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => if let Some(volume) = change.new { self.reclaim(&volume).await },
                    None => return,
                },
                // A pod that used one may have ended.
                () = self.pods.ended.notified() => for volume in cache.list() { self.reclaim(&volume).await },
            }
        }
    }

    async fn reclaim(&self, volume: &PersistentVolume) {
        let Some(path) = self.released_directory(volume) else { return };
        if self.is_used(volume) {
            return;
        }
        let removed = blocking(move || {
            // Out of the way first: a directory that is half removed must not be taken for a whole one.
            let trash = path.with_extension("removed");
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            if path.exists() {
                std::fs::rename(&path, &trash).map_err(failed)?;
            }
            remove_tree(&trash).map_err(failed)?;
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
        let is_ours = volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY)? == PROVISIONER_LOCAL;
        let released = volume.status.as_ref()?.phase.as_deref() == Some("Released");
        let delete = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
        let here = volume.metadata.deletion_timestamp.is_none() && self.is_here(spec);
        let path = spec.local.as_ref().map(|local| &local.path).or(spec.host_path.as_ref().map(|host| &host.path))?;
        (is_ours && released && delete && here).then(|| PathBuf::from(path))
    }

    fn is_here(&self, spec: &k8s_openapi::api::core::v1::PersistentVolumeSpec) -> bool {
        let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let terms = required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default();
        let mut rules = terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
        rules.any(|rule| rule.key == HOSTNAME && rule.values.as_deref().unwrap_or_default().contains(&self.config.name))
    }

    /// Whether a pod that is still on this node has the volume's claim.
    fn is_used(&self, volume: &PersistentVolume) -> bool {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some((namespace, name)) =
            claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.as_deref()?)))
        else {
            return false;
        };
        self.pods.list().iter().any(|pod| {
            let (pod_name, pod_namespace, _) = spec::identity(pod);
            let volumes = spec::pod_spec(pod).volumes.as_deref().unwrap_or_default();
            // A pod that has ended for good has let go of its volumes.
            pod_namespace == namespace
                && !spec::is_terminal(pod)
                && volumes.iter().any(|one| {
                    let own = one.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name == name);
                    own || (one.ephemeral.is_some() && name == format!("{pod_name}-{}", one.name))
                })
        })
    }
}
