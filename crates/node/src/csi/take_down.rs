//! Takes volumes of drivers away from pods, and from the node when no pod has them any more.

use std::path::Path;
use std::sync::Arc;

use stead_csi::messages::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};
use stead_podlife::csi::{Left, StepBack, next_back};

use super::record::{Record, published_in, remove};
use crate::Node;

impl Node {
    /// Takes every volume of a driver away from a pod that runs nothing any more.
    ///
    /// # Errors
    /// The first volume that its driver did not take away; nothing of it is removed.
    pub(crate) async fn release_driver_volumes(&self, pod_dir: &Path) -> Result<(), String> {
        for (dir, record) in published_in(pod_dir) {
            let _turn = self.drivers.turn(&record.volume).lock_owned().await;
            self.release_one(&dir, &record).await?;
        }
        Ok(())
    }

    async fn release_one(&self, dir: &Path, record: &Record) -> Result<(), String> {
        let staging = self.staging_dir(&record.driver_name, &record.volume_handle);
        loop {
            let published = dir.exists();
            let left = Left {
                published,
                others: usize::from(!published && self.is_published(&record.driver_name, &record.volume_handle)),
                staged: staging.exists(),
            };
            match next_back(left) {
                StepBack::Unpublish => self.unpublish(dir, record).await?,
                StepBack::Unstage => self.unstage(&staging, record).await?,
                StepBack::Gone => {
                    self.look.notify_one();
                    return Ok(());
                }
            }
        }
    }

    fn driver_for(&self, record: &Record) -> Result<super::Driver, String> {
        self.drivers.get(&record.driver_name).ok_or_else(|| {
            format!("driver name {} not found in the list of registered CSI drivers", record.driver_name)
        })
    }

    async fn unpublish(&self, dir: &Path, record: &Record) -> Result<(), String> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: record.volume_handle.clone(),
            target_path: dir.join("mount").to_string_lossy().into_owned(),
        };
        let done = self.driver_for(record)?.call(&request).await;
        done.map_err(|status| format!("UnmountVolume.TearDown failed for volume \"{}\" : {status}", record.volume))?;
        remove(dir, "mount")
    }

    async fn unstage(&self, staging: &Path, record: &Record) -> Result<(), String> {
        let driver = self.driver_for(record)?;
        if driver.abilities.stages {
            let request = NodeUnstageVolumeRequest {
                volume_id: record.volume_handle.clone(),
                staging_target_path: staging.join("globalmount").to_string_lossy().into_owned(),
            };
            let done = driver.call(&request).await;
            done.map_err(|status| format!("UnmountDevice failed for volume \"{}\" : {status}", record.volume))?;
        }
        remove(staging, "globalmount")
    }

    /// Takes away, for ever, what is staged and no pod has: the process may have ended between the two.
    pub(super) async fn sweep_stages(self: Arc<Self>) {
        let mut known = self.drivers.known.subscribe();
        loop {
            for (dir, record) in self.staged() {
                let _turn = self.drivers.turn(&record.volume).lock_owned().await;
                let unused = !self.is_published(&record.driver_name, &record.volume_handle);
                if unused
                    && self.drivers.get(&record.driver_name).is_some()
                    && dir.exists()
                    && let Err(cause) = self.unstage(&dir, &record).await
                {
                    tracing::warn!(volume = record.volume, cause, "a volume without a pod stays staged");
                }
            }
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return },
                () = self.pods.ended.notified() => {}
            }
        }
    }
}
