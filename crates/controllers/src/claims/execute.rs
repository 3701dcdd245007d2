//! Does what the plans say, one write after the other. Never decides.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::PostParams;
use stead_client::{Class, classify};
use stead_informer::{Key, Severity};
use stead_workloads::claims::{Event, bind, claim, points_at, volume};

use super::{Inner, claim_key};
use crate::Error;

fn severity(event: &Event) -> Severity {
    if event.warning { Severity::Warning } else { Severity::Normal }
}

fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

impl Inner {
    pub(super) async fn execute_claim(
        &self,
        key: &Key,
        snapshot: &claim::Snapshot,
        plan: claim::Plan,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        for act in plan.acts {
            tracing::debug!(claim = %key, act = act_name(&act), "acting");
            result = match act {
                claim::Act::Update(claim) => self.put_claim(key, &claim).await.map(drop),
                claim::Act::Status(claim) => self.put_claim_status(key, &claim).await.map(drop),
                claim::Act::UpdateVolume(volume) => self.put_volume(key, &volume).await.map(drop),
                claim::Act::Bind(volume) => self.bind(key, &volume, &snapshot.claim).await,
                // Done before anything else, see `Inner::claim`.
                claim::Act::AskPods => Ok(()),
                claim::Act::Provision { volume, claim } => self.provision(key, &volume, &claim).await,
            };
            if result.is_err() {
                break;
            }
        }
        // What was not done is not told as done; why nothing can be done is told always.
        if result.is_ok() {
            for event in plan.events {
                self.cx.recorder.event(&*snapshot.claim, severity(&event), event.reason, event.message);
            }
        }
        result
    }

    pub(super) async fn execute_volume(
        &self,
        key: &Key,
        snapshot: &volume::Snapshot,
        plan: volume::Plan,
    ) -> Result<(), Error> {
        for act in plan.acts {
            match act {
                volume::Act::Update(volume) => drop(self.put_volume(key, &volume).await?),
                volume::Act::Status(volume) => drop(self.put_volume_status(key, &volume).await?),
                volume::Act::WakeClaim => claim_key(&snapshot.volume).into_iter().for_each(|key| self.queue.add(key)),
                volume::Act::AskClaim => {}
            }
        }
        for event in plan.events {
            self.cx.recorder.event(&*snapshot.volume, severity(&event), event.reason, event.message);
        }
        Ok(())
    }

    /// The four writes of a binding, in the order that makes a crash between them harmless.
    async fn bind(&self, key: &Key, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let mut volume = volume.clone();
        if let Some(bound) = bind::volume(&volume, claim) {
            volume = self.put_volume(key, &bound).await?;
        }
        if let Some(bound) = bind::volume_status(&volume) {
            volume = self.put_volume_status(key, &bound).await?;
        }
        let mut claim = claim.clone();
        if let Some(bound) = bind::claim(&claim, &volume) {
            claim = self.put_claim(key, &bound).await?;
        }
        if let Some(bound) = bind::claim_status(&claim, &volume) {
            self.put_claim_status(key, &bound).await?;
        }
        Ok(())
    }

    async fn provision(
        &self,
        key: &Key,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Error> {
        let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
        let name = name_of(&volume.metadata);
        let made = match api.create(&PostParams::default(), volume).await {
            Ok(made) => made,
            // Made before a crash, or seen too late: the name holds the claim's UID.
            Err(error) if classify(&error) == Class::AlreadyExists => {
                let there = api.get(name).await.map_err(Error::doing(format!("look up volume {name:?}")))?;
                if !points_at(&there, claim) {
                    return Err(Error::Blocked(format!(
                        "volume {name:?} exists and belongs to another claim than {key}"
                    )));
                }
                there
            }
            Err(error) => return Err(Error::doing(format!("create volume {name:?} for claim {key}"))(error)),
        };
        self.writes.wrote(key, &self.volumes, &made);
        self.bind(key, &made, claim).await
    }

    async fn put_claim(&self, key: &Key, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, Error> {
        let api = self.claims_of(claim);
        let put = api.replace(name_of(&claim.metadata), &PostParams::default(), claim).await;
        let put = put.map_err(Error::doing(format!("update claim {key}")))?;
        self.writes.wrote(key, &self.claims, &put);
        Ok(put)
    }

    async fn put_claim_status(&self, key: &Key, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, Error> {
        let api = self.claims_of(claim);
        let put = api.replace_status(name_of(&claim.metadata), &PostParams::default(), claim).await;
        let put = put.map_err(Error::doing(format!("write the status of claim {key}")))?;
        self.writes.wrote(key, &self.claims, &put);
        Ok(put)
    }

    fn claims_of(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.cx.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn put_volume(&self, key: &Key, volume: &PersistentVolume) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
        let name = name_of(&volume.metadata);
        let put = api.replace(name, &PostParams::default(), volume).await;
        let put = put.map_err(Error::doing(format!("update volume {name:?}")))?;
        self.writes.wrote(key, &self.volumes, &put);
        Ok(put)
    }

    async fn put_volume_status(&self, key: &Key, volume: &PersistentVolume) -> Result<PersistentVolume, Error> {
        let api: Api<PersistentVolume> = Api::all(self.cx.client.clone());
        let name = name_of(&volume.metadata);
        let put = api.replace_status(name, &PostParams::default(), volume).await;
        let put = put.map_err(Error::doing(format!("write the status of volume {name:?}")))?;
        self.writes.wrote(key, &self.volumes, &put);
        Ok(put)
    }
}

fn act_name(act: &claim::Act) -> &'static str {
    match act {
        claim::Act::Update(_) => "update the claim",
        claim::Act::Status(_) => "write the claim's status",
        claim::Act::Bind(_) => "bind",
        claim::Act::Provision { .. } => "provision",
        claim::Act::UpdateVolume(_) => "update the volume",
        claim::Act::AskPods => "ask which pods use the claim",
    }
}
