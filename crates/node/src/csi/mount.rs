//! Brings a volume of a driver to a pod: waits for the driver and the attachment, stages, publishes, grows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Secret, SecretReference,
};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::Api;
use stead_csi::messages::{
    CapacityRange, NodeExpandVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, VolumeCapability,
};
use stead_csi::{Code, access_mode, mounted};
use stead_informer::Severity;
use stead_podlife::cgroup;
use stead_podlife::csi::{Step, Wanted, next};
use stead_podlife::spec;
use tokio::time::timeout;

use super::record::{PLUGIN, Record, attachment_name};
use super::{Driver, Drivers};
use crate::Node;
use crate::volumes::{MountError, Request, blocking, fs_group, give_to_group, has_grown, is_mounted, make_dir};

/// How long a pod waits for a driver that is not there before it says so: drivers start along with everything else.
const DRIVER_WAIT: Duration = Duration::from_secs(10);
/// How long a pod waits for an attachment before it says so, as in upstream's kubelet.
const ATTACH_WAIT: Duration = Duration::from_secs(120);

/// One volume of one pod, on its way.
struct Mounting<'a> {
    node: &'a Node,
    pod: &'a Pod,
    claim: &'a PersistentVolumeClaim,
    volume: &'a PersistentVolume,
    source: &'a CSIPersistentVolumeSource,
    record: Record,
    /// What the pod calls the volume.
    own_name: &'a str,
    read_only: bool,
    /// Where it is staged: `globalmount` in it.
    staging: PathBuf,
    /// Where it is published: `mount` in it.
    target: PathBuf,
}

/// Mounts a volume of a driver; returns the place of it.
///
/// # Errors
/// The text of the event that upstream tells of it.
pub(crate) async fn mount(
    request: &Request<'_>,
    (own_name, read_only): (&str, bool),
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
    source: &CSIPersistentVolumeSource,
) -> Result<PathBuf, MountError> {
    let node = request.node;
    let name = volume.metadata.name.clone().unwrap_or_default();
    let _turn = node.drivers.turn(&name).lock_owned().await;
    let (_, _, uid) = spec::identity(request.pod);
    let record = Record {
        driver_name: source.driver.clone(),
        volume_handle: source.volume_handle.clone(),
        volume: name.clone(),
        node_name: node.config.name.clone(),
        attachment: String::new(),
        volume_lifecycle_mode: "Persistent".to_owned(),
    };
    let mut mounting = Mounting {
        node,
        pod: request.pod,
        claim,
        volume,
        source,
        record,
        own_name,
        read_only: read_only || source.read_only.unwrap_or(false),
        staging: node.staging_dir(&source.driver, &source.volume_handle),
        target: node.config.pod_dir(uid).join(PLUGIN).join(&name),
    };
    mounting.run().await
}

impl Drivers {
    /// The object that says how a driver wants to be called.
    async fn object(&self, name: &str) -> Option<std::sync::Arc<CSIDriver>> {
        self.objects.synced().await;
        self.objects.get("", name)
    }
}

impl Mounting<'_> {
    fn name(&self) -> &str {
        &self.record.volume
    }

    fn failed(&self, what: &str, cause: impl std::fmt::Display) -> MountError {
        MountError(format!("MountVolume.{what} failed for volume \"{}\" : {cause}", self.name()))
    }

    async fn run(&mut self) -> Result<PathBuf, MountError> {
        let driver = self.driver().await?;
        let object = self.node.drivers.object(&self.source.driver).await;
        let wants = |pick: fn(&k8s_openapi::api::storage::v1::CSIDriverSpec) -> Option<bool>, default| {
            object.as_ref().and_then(|object| pick(&object.spec)).unwrap_or(default)
        };
        // Without the object upstream attaches as well: it cannot know better.
        let attaches = wants(|spec| spec.attach_required, true);
        let tells_pod = wants(|spec| spec.pod_info_on_mount, false);
        let mut attachment: Option<BTreeMap<String, String>> = None;
        let mut grows = driver.abilities.expands && self.is_behind();
        let (mut staged, mut published) = (false, false);
        if attaches {
            self.record.attachment =
                attachment_name(&self.source.volume_handle, &self.source.driver, &self.node.config.name);
        }
        loop {
            let wanted = Wanted {
                registered: true,
                attaches,
                attached: attachment.is_some(),
                stages: driver.abilities.stages,
                staged: staged || is_mounted(&self.staging.join("globalmount")),
                published: published || is_mounted(&self.target.join("mount")),
                grows,
            };
            let context = attachment.clone().unwrap_or_default();
            match next(wanted) {
                Step::AwaitDriver => return Err(self.no_driver()),
                Step::AwaitAttachment => attachment = Some(self.attached().await?),
                Step::Stage => {
                    self.stage(&driver, context).await?;
                    // Some drivers mount nothing here: what they staged cannot be seen.
                    staged = true;
                }
                Step::Publish => {
                    self.publish(&driver, context, tells_pod).await?;
                    published = true;
                }
                Step::Expand => {
                    grows = false;
                    self.expand(&driver).await?;
                }
                Step::Ready => break,
            }
        }
        let policy = object.and_then(|object| object.spec.fs_group_policy.clone());
        self.give_to_group(&driver, policy.as_deref().unwrap_or("ReadWriteOnceWithFSType")).await?;
        Ok(self.target.join("mount"))
    }

    async fn driver(&self) -> Result<Driver, MountError> {
        let mut known = self.node.drivers.known.subscribe();
        let name = &self.source.driver;
        let there = known.wait_for(|known| known.contains_key(name));
        let Ok(Ok(_)) = timeout(DRIVER_WAIT, there).await else { return Err(self.no_driver()) };
        self.node.drivers.get(name).ok_or_else(|| self.no_driver())
    }

    fn no_driver(&self) -> MountError {
        let cause = format!(
            "kubernetes.io/csi: attacher.MountDevice failed to create newCsiDriverClient: driver name {} not found in the list of registered CSI drivers",
            self.source.driver
        );
        self.failed("MountDevice", cause)
    }

    /// Waits for the attachment; what the driver's controller said of it.
    async fn attached(&self) -> Result<BTreeMap<String, String>, MountError> {
        let cache = &self.node.drivers.attachments;
        let name = &self.record.attachment;
        let done = |attachment: &VolumeAttachment| {
            attachment.metadata.deletion_timestamp.is_none()
                && attachment.status.as_ref().is_some_and(|status| status.attached)
        };
        let there = cache.until(|cache| cache.get("", name).is_some_and(|attachment| done(&attachment)));
        if timeout(ATTACH_WAIT, there).await.is_err() {
            let (own, cause) = (self.own_name, "context deadline exceeded");
            return Err(MountError(format!(
                "Unable to attach or mount volumes: unmounted volumes=[{own}], unattached volumes=[{own}], failed to process volumes=[]: {cause}"
            )));
        }
        let attachment = cache.get("", name);
        let status = attachment.as_ref().and_then(|attachment| attachment.status.as_ref());
        Ok(status.and_then(|status| status.attachment_metadata.clone()).unwrap_or_default())
    }

    fn capability(&self, driver: &Driver) -> VolumeCapability {
        let spec = self.volume.spec.clone().unwrap_or_default();
        let first = spec.access_modes.iter().flatten().next().map_or("", String::as_str);
        let mode = access_mode(first, driver.abilities.splits_writers);
        let group = fs_group(self.pod).filter(|_| driver.abilities.sets_group);
        let group = group.map(|group| group.to_string()).unwrap_or_default();
        let fs_type = self.source.fs_type.as_deref().unwrap_or_default();
        mounted(mode, fs_type, spec.mount_options.as_deref().unwrap_or_default(), &group)
    }

    async fn secret(
        &self,
        what: &str,
        reference: Option<&SecretReference>,
    ) -> Result<BTreeMap<String, String>, MountError> {
        let Some(reference) = reference else { return Ok(BTreeMap::new()) };
        let (namespace, name) = (reference.namespace.as_deref(), reference.name.as_deref().unwrap_or_default());
        let api: Api<Secret> = Api::namespaced(self.node.client.clone(), namespace.unwrap_or_default());
        let secret = api.get(name).await.map_err(|error| {
            let cause = stead_client::message(&error);
            self.failed(what, format!("fetching secret {}/{name} failed: {cause}", namespace.unwrap_or_default()))
        })?;
        let data = secret.data.unwrap_or_default().into_iter();
        Ok(data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect())
    }

    async fn stage(&self, driver: &Driver, publish_context: BTreeMap<String, String>) -> Result<(), MountError> {
        let path = self.staging.join("globalmount");
        let fails = |cause: String| self.failed("MountDevice", cause);
        self.record.write(&self.staging).map_err(fails)?;
        make_dir(&path, 0o750).map_err(|error| fails(format!("{}: {error}", path.display())))?;
        self.node.look.notify_one();
        let request = NodeStageVolumeRequest {
            volume_id: self.source.volume_handle.clone(),
            publish_context,
            staging_target_path: path.to_string_lossy().into_owned(),
            volume_capability: Some(self.capability(driver)),
            secrets: self.secret("MountDevice", self.source.node_stage_secret_ref.as_ref()).await?,
            volume_context: self.source.volume_attributes.clone().unwrap_or_default(),
        };
        driver.call(&request).await.map(drop).map_err(|status| fails(status.to_string()))
    }

    async fn publish(
        &self,
        driver: &Driver,
        publish_context: BTreeMap<String, String>,
        tells_pod: bool,
    ) -> Result<(), MountError> {
        self.record.write(&self.target).map_err(|cause| self.failed("SetUp", cause))?;
        self.node.look.notify_one();
        let mut volume_context = self.source.volume_attributes.clone().unwrap_or_default();
        if tells_pod {
            let (name, namespace, uid) = spec::identity(self.pod);
            let account = spec::pod_spec(self.pod).service_account_name.clone().unwrap_or_default();
            let told = [
                ("csi.storage.k8s.io/pod.name", name),
                ("csi.storage.k8s.io/pod.namespace", namespace),
                ("csi.storage.k8s.io/pod.uid", uid),
                ("csi.storage.k8s.io/serviceAccount.name", account.as_str()),
                ("csi.storage.k8s.io/ephemeral", "false"),
            ];
            volume_context.extend(told.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        let request = NodePublishVolumeRequest {
            volume_id: self.source.volume_handle.clone(),
            publish_context,
            staging_target_path: if driver.abilities.stages { self.staged_at() } else { String::new() },
            target_path: self.target.join("mount").to_string_lossy().into_owned(),
            volume_capability: Some(self.capability(driver)),
            readonly: self.read_only,
            secrets: self.secret("SetUp", self.source.node_publish_secret_ref.as_ref()).await?,
            volume_context,
        };
        driver.call(&request).await.map(drop).map_err(|status| self.failed("SetUp", status))
    }

    fn staged_at(&self) -> String {
        self.staging.join("globalmount").to_string_lossy().into_owned()
    }

    /// Whether the volume is larger than what the claim has been told.
    fn is_behind(&self) -> bool {
        let size = self.volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
        let has = self.claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
        matches!((size, has), (Some(size), Some(has)) if cgroup::milli(size) > cgroup::milli(has))
    }

    async fn expand(&self, driver: &Driver) -> Result<(), MountError> {
        let staged = if driver.abilities.stages { self.staged_at() } else { String::new() };
        let at = self.target.join("mount").to_string_lossy().into_owned();
        let secrets = self.secret("NodeExpandVolume", self.source.node_expand_secret_ref.as_ref()).await?;
        let capability = Some(self.capability(driver));
        let request = NodeExpandVolumeRequest {
            volume_id: self.source.volume_handle.clone(),
            volume_path: at,
            capacity_range: Some(CapacityRange { required_bytes: bytes_of(self.volume), limit_bytes: 0 }),
            staging_target_path: staged,
            volume_capability: capability,
            secrets,
        };
        match driver.call(&request).await {
            Ok(_) => {
                let told = has_grown(self.node, self.claim, self.volume).await;
                told.map_err(|cause| self.failed("NodeExpandVolume", cause))
            }
            // Not while it is in use, the driver says: the pod has it as it is.
            Err(status) if status.code == Code::FailedPrecondition => {
                self.node.tell_not_grown(self.pod, self.name(), &status.to_string());
                Ok(())
            }
            Err(status) => Err(self.failed("NodeExpandVolume", status)),
        }
    }

    async fn give_to_group(&self, driver: &Driver, policy: &str) -> Result<(), MountError> {
        let modes = self.volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        let sole = modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod");
        let has_type = self.source.fs_type.as_deref().is_some_and(|fs_type| !fs_type.is_empty());
        let applies = match policy {
            "None" => false,
            "File" => true,
            _ => sole && has_type,
        };
        let applies = applies && !self.read_only && !driver.abilities.sets_group;
        let Some(group) = fs_group(self.pod).filter(|_| applies) else { return Ok(()) };
        let path = self.target.join("mount");
        let given = blocking(move || give_to_group(&path, group).map_err(|error| error.to_string())).await;
        given.map_err(|cause| {
            self.failed("SetUp", format!("applyFSGroup failed for vol {}: {cause}", self.source.volume_handle))
        })
    }
}

/// What the volume holds.
fn bytes_of(volume: &PersistentVolume) -> i64 {
    let size = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    size.and_then(|size| i64::try_from(cgroup::milli(size) / 1000).ok()).unwrap_or_default()
}

impl Node {
    fn tell_not_grown(&self, pod: &Pod, volume: &str, cause: &str) {
        let text = format!("NodeExpandVolume.NodeExpandVolume failed for volume \"{volume}\" : {cause}");
        self.recorder.event(pod, Severity::Warning, "VolumeResizeFailed", text);
    }

    /// Grows a volume of a driver that a pod of this node has, and says so in the claim. Returns whether that is settled: it
    /// was done, or is not to be tried again before the pod comes anew.
    pub(crate) async fn grow_driver_volume(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
        let Some(source) = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref()) else { return true };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let _turn = self.drivers.turn(&name).lock_owned().await;
        let Some(driver) = self.drivers.get(&source.driver).filter(|driver| driver.abilities.expands) else {
            return true;
        };
        let users = self.users(volume);
        let places = users.iter().map(|pod| (pod, self.config.pod_dir(spec::identity(pod).2).join(PLUGIN).join(&name)));
        let Some((pod, target)) = places.into_iter().find(|(_, target)| is_mounted(&target.join("mount"))) else {
            return true;
        };
        let mounting = Mounting {
            node: self,
            pod,
            claim,
            volume,
            source,
            record: Record { volume: name.clone(), ..Record::default() },
            own_name: "",
            read_only: false,
            staging: self.staging_dir(&source.driver, &source.volume_handle),
            target,
        };
        if !mounting.is_behind() {
            return true;
        }
        match mounting.expand(&driver).await {
            Ok(()) => true,
            Err(MountError(cause)) => {
                self.tell_not_grown(pod, &name, &cause);
                false
            }
        }
    }
}
