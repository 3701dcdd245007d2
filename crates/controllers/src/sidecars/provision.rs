//! Volumes: made for claims, grown with them, deleted after them.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use stead_client::{Class, classify};
use stead_csi::Code;
use stead_csi::messages::DeleteVolumeRequest;
use stead_informer::{Key, Severity};
use stead_machinery::quantity::{Format, Quantity};
use stead_workloads::claims::{SELECTED_NODE, annotation, class_of_claim, matching, points_at, volume_name};
use stead_workloads::csi::{ClaimStep, Made, Wish, attached_volume, claim, is_to_go, name_of, volume};

use super::calls::handle;
use super::{CALL_MAX, Sidecars, refused};
use crate::Error;

impl Sidecars {
    pub(super) async fn claim(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.claims.by_key(key) else { return Ok(()) };
        let class = self.classes.get("", class_of_claim(&object).unwrap_or_default());
        let bound = self.volumes.get("", volume_name(&object));
        let step = claim(&self.driver.name, &object, class.as_deref(), bound.as_deref());
        if step == ClaimStep::Nothing || !self.acts(annotation(&object.metadata, SELECTED_NODE)) {
            return Ok(());
        }
        match (step, class, bound) {
            (ClaimStep::Create(wish), Some(class), _) => self.create(key, &object, &class, &wish).await,
            (ClaimStep::Refuse(why), Some(class), _) => {
                self.failed(&object, &class, &why);
                Ok(())
            }
            (ClaimStep::Grow { bytes }, _, Some(bound)) => self.grow(key, &object, &bound, bytes).await,
            _ => Ok(()),
        }
    }

    fn failed(&self, claim: &PersistentVolumeClaim, class: &StorageClass, why: &str) {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        let text = format!("failed to provision volume with StorageClass \"{class}\": {why}");
        self.recorder.event(claim, Severity::Warning, "ProvisioningFailed", text);
    }

    async fn create(
        &self,
        key: &Key,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        wish: &Wish,
    ) -> Result<(), Error> {
        if !self.driver.abilities.creates {
            self.failed(claim, class, "the driver cannot make volumes");
            return Ok(());
        }
        let text = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.event(claim, Severity::Normal, "Provisioning", text);
        let answer = match self.driver.endpoint.call(&self.create_request(wish), CALL_MAX).await {
            Ok(answer) => answer.volume.unwrap_or_default(),
            Err(status) => {
                self.failed(claim, class, &status.to_string());
                // No room where the pod was to go: the scheduler may choose another node.
                if status.code == Code::ResourceExhausted && wish.node.is_some() {
                    self.choose_again(key, claim).await?;
                }
                return Err(refused(format!("make a volume for claim {key}"), &status));
            }
        };
        let made = Made {
            handle: answer.volume_id,
            bytes: answer.capacity_bytes,
            context: answer.volume_context,
            topologies: answer.accessible_topology.into_iter().map(|topology| topology.segments).collect(),
        };
        let object = match volume(&self.driver.name, claim, class, wish, made) {
            Ok(object) => object,
            Err(why) => {
                self.failed(claim, class, &why);
                return Ok(());
            }
        };
        self.put_new(key, claim, &object).await?;
        let text = format!("Successfully provisioned volume {}", wish.name);
        self.recorder.event(claim, Severity::Normal, "ProvisioningSucceeded", text);
        Ok(())
    }

    async fn put_new(&self, key: &Key, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = name_of(volume);
        match api.create(&PostParams::default(), volume).await {
            Ok(_) => Ok(()),
            // Made before a crash, or by another node: the name holds the claim's UID.
            Err(error) if classify(&error) == Class::AlreadyExists => {
                let there = api.get(name).await.map_err(Error::doing(format!("look up volume {name:?}")))?;
                if points_at(&there, claim) {
                    return Ok(());
                }
                Err(Error::Blocked(format!("volume {name:?} exists and belongs to another claim than {key}")))
            }
            Err(error) => Err(Error::doing(format!("create volume {name:?} for claim {key}"))(error)),
        }
    }

    async fn choose_again(&self, key: &Key, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let mut free = claim.clone();
        free.metadata.annotations.get_or_insert_default().remove(SELECTED_NODE);
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let put = api.replace(&key.name, &PostParams::default(), &free).await;
        put.map(drop).map_err(Error::doing(format!("let the scheduler choose again for claim {key}")))
    }

    async fn grow(
        &self,
        key: &Key,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        bytes: i64,
    ) -> Result<(), Error> {
        let name = name_of(volume);
        let (bytes, on_node) = if self.driver.abilities.expands {
            let text = format!("External resizer is resizing volume {name}");
            self.recorder.event(claim, Severity::Normal, "Resizing", text);
            match self.driver.endpoint.call(&self.expand_request(volume, bytes), CALL_MAX).await {
                Ok(answer) => (answer.capacity_bytes.max(bytes), answer.node_expansion_required),
                Err(status) => {
                    let by = &self.driver.name;
                    let text = format!("resize volume \"{name}\" by resizer \"{by}\" failed: {status}");
                    self.recorder.event(claim, Severity::Warning, "VolumeResizeFailed", text);
                    return Err(refused(format!("grow volume {name:?}"), &status));
                }
            }
        } else {
            // All of it is up to the node.
            (bytes, true)
        };
        let asked = matching::requested(claim);
        let size = if asked.value() == bytes { asked } else { Quantity::new(bytes, Format::BinarySi) };
        let patch = Patch::Merge(json!({"spec": {"capacity": {"storage": size.to_string()}}}));
        let status = if on_node {
            let message = "Waiting for user to (re-)start a pod to finish file system resize of volume on node.";
            let condition = json!({
                "type": "FileSystemResizePending", "status": "True", "message": message,
                "lastTransitionTime": (self.clock)(),
            });
            json!({"status": {"conditions": [condition]}})
        } else {
            json!({"status": {"capacity": {"storage": size.to_string()}, "conditions": null}})
        };
        // The claim first: the node, woken by the volume, finds the condition and takes it away.
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let told = async {
            let told = claims.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&status)).await;
            told.map(drop).map_err(Error::doing(format!("write the status of claim {key}")))
        };
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let grown = async {
            let grown = volumes.patch(name, &PatchParams::default(), &patch).await;
            grown.map(drop).map_err(Error::doing(format!("write the new size of volume {name:?}")))
        };
        if on_node {
            told.await?;
            grown.await?;
            let text = "Require file system resize of volume on node";
            self.recorder.event(claim, Severity::Normal, "FileSystemResizeRequired", text);
        } else {
            grown.await?;
            told.await?;
            self.recorder.event(claim, Severity::Normal, "VolumeResizeSuccessful", "Resize volume succeeded");
        }
        Ok(())
    }

    pub(super) async fn volume(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.volumes.by_key(key) else { return Ok(()) };
        // A claim may have waited for just this volume to be seen.
        let attached = self.attachments.list().iter().any(|one| attached_volume(one) == key.name.as_ref());
        if !is_to_go(&self.driver.name, &object, attached) || !self.acts(None) {
            return Ok(());
        }
        let request = DeleteVolumeRequest { volume_id: handle(&object), ..DeleteVolumeRequest::default() };
        if let Err(status) = self.driver.endpoint.call(&request, CALL_MAX).await {
            self.recorder.event(&*object, Severity::Warning, "VolumeFailedDelete", status.to_string());
            return Err(refused(format!("delete volume {key}"), &status));
        }
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let how = DeleteParams {
            preconditions: Some(Preconditions { uid: object.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &how).await {
            Err(error) if !matches!(classify(&error), Class::NotFound | Class::Conflict) => {
                Err(Error::doing(format!("delete the object of volume {key}"))(error))
            }
            _ => Ok(()),
        }
    }
}
