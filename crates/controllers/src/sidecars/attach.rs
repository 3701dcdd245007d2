//! Attachments: a volume is made reachable from a node before the node uses it, and unreachable after.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use stead_client::{Class, classify};
use stead_csi::messages::{ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest};
use stead_csi::{Code, Status};
use stead_informer::Key;
use stead_workloads::csi::{AttachmentStep, attached_volume, attacher_finalizer, attachment};

use super::calls::handle;
use super::{CALL_MAX, Sidecars, refused};
use crate::Error;

impl Sidecars {
    pub(super) async fn attachment(&self, key: &Key) -> Result<(), Error> {
        let Some(object) = self.attachments.by_key(key) else { return Ok(()) };
        let step = attachment(&self.driver.name, &object);
        if step == AttachmentStep::Nothing || !self.acts(Some(&object.spec.node_name)) {
            return Ok(());
        }
        match step {
            AttachmentStep::Nothing => Ok(()),
            AttachmentStep::Hold => self.set_finalizer(&object, true).await,
            AttachmentStep::Attach => self.attach(&object).await,
            AttachmentStep::Detach => self.detach(&object).await,
        }
    }

    fn volume_of(&self, attachment: &VolumeAttachment) -> Result<std::sync::Arc<PersistentVolume>, Status> {
        let name = attached_volume(attachment);
        self.volumes.get("", name).ok_or_else(|| Status::new(Code::NotFound, format!("volume {name:?} is not there")))
    }

    fn node_of(&self, attachment: &VolumeAttachment) -> Result<String, Status> {
        let (node, driver) = (&attachment.spec.node_name, &self.driver.name);
        let missing = || Status::new(Code::Unavailable, format!("node {node:?} has no driver {driver}"));
        self.node_id(node).ok_or_else(missing)
    }

    async fn attach(&self, object: &VolumeAttachment) -> Result<(), Error> {
        let attached = async {
            let (volume, node) = (self.volume_of(object)?, self.node_of(object)?);
            if !self.driver.abilities.attaches {
                return Ok(ControllerPublishVolumeResponse::default());
            }
            self.driver.endpoint.call(&self.publish_request(&volume, node), CALL_MAX).await
        };
        match attached.await {
            Ok(answer) => {
                let metadata = Some(answer.publish_context).filter(|context| !context.is_empty());
                self.tell(object, json!({"attached": true, "attachmentMetadata": metadata, "attachError": null})).await
            }
            Err(status) => {
                self.tell(object, json!({"attached": false, "attachError": self.error(&status)})).await?;
                Err(refused(
                    format!("attach volume {:?} to {}", attached_volume(object), object.spec.node_name),
                    &status,
                ))
            }
        }
    }

    async fn detach(&self, object: &VolumeAttachment) -> Result<(), Error> {
        let detached = async {
            if !self.driver.abilities.attaches {
                return Ok(());
            }
            // A volume or node that is gone needs no detaching.
            let (Ok(volume), Ok(node_id)) = (self.volume_of(object), self.node_of(object)) else { return Ok(()) };
            let volume_id = handle(&volume);
            let request = ControllerUnpublishVolumeRequest { volume_id, node_id, ..Default::default() };
            self.driver.endpoint.call(&request, CALL_MAX).await.map(drop)
        };
        match detached.await {
            Ok(()) => self.set_finalizer(object, false).await,
            Err(status) => {
                self.tell(object, json!({"detachError": self.error(&status)})).await?;
                Err(refused(
                    format!("detach volume {:?} from {}", attached_volume(object), object.spec.node_name),
                    &status,
                ))
            }
        }
    }

    fn error(&self, status: &Status) -> Value {
        json!({"message": status.to_string(), "time": (self.clock)()})
    }

    async fn tell(&self, object: &VolumeAttachment, status: Value) -> Result<(), Error> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "status": status }));
        done(name, api.patch_status(name, &PatchParams::default(), &patch).await)
    }

    async fn set_finalizer(&self, object: &VolumeAttachment, held: bool) -> Result<(), Error> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let finalizer = attacher_finalizer(&self.driver.name);
        let mut all = object.metadata.finalizers.clone().unwrap_or_default();
        all.retain(|one| *one != finalizer);
        if held {
            all.push(finalizer);
        }
        let version = &object.metadata.resource_version;
        let patch = Patch::Merge(json!({"metadata": {"finalizers": all, "resourceVersion": version}}));
        let api: Api<VolumeAttachment> = Api::all(self.client.clone());
        done(name, api.patch(name, &PatchParams::default(), &patch).await)
    }
}

fn done<T>(name: &str, written: Result<T, kube::Error>) -> Result<(), Error> {
    match written {
        Ok(_) => Ok(()),
        Err(error) if classify(&error) == Class::NotFound => Ok(()),
        Err(error) => Err(Error::doing(format!("write attachment {name:?}"))(error)),
    }
}
