//! Makes decisions on controller revisions come true: for every controller that keeps a history.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use stead_client::{Class, Client, classify, delete_if_present};
use stead_informer::{Cache, Key};
use stead_workloads::history::{Update, name_of, same_data};

use crate::{Error, OwnWrites};

/// How many names may collide before the key is put back.
const COLLISIONS_PER_RUN_MAX: i32 = 10;

/// The revisions of one owner.
#[derive(Clone, Copy)]
pub(crate) struct Revisions<'a> {
    pub(crate) client: &'a Client,
    pub(crate) cache: &'a Cache<ControllerRevision>,
    pub(crate) writes: &'a OwnWrites,
    pub(crate) key: &'a Key,
    pub(crate) reference: &'a OwnerReference,
}

impl Revisions<'_> {
    /// Brings the revision about that `decide` asks for, given the number of collisions so far; how many there were.
    pub(crate) async fn settle<D>(
        &self,
        before: i32,
        decide: impl Fn(i32) -> (Update, D),
    ) -> Result<(Update, D, i32), Error> {
        for collisions in before..before.saturating_add(COLLISIONS_PER_RUN_MAX) {
            let (update, decision) = decide(collisions);
            let settled = match &update {
                Update::Newest(_) => true,
                Update::Bump { name, number } => self.bump(name, *number).await.map(|()| true)?,
                Update::Create(revision) => self.create(revision).await?,
            };
            if settled {
                return Ok((update, decision, collisions));
            }
        }
        Err(Error::Blocked(format!("too many names of revisions of {} collide; will go on", self.key)))
    }

    /// Deletes revisions that are no longer needed.
    pub(crate) async fn delete(&self, names: &[String]) -> Result<(), Error> {
        for name in names {
            let deleted = delete_if_present(&self.api(), name, &DeleteParams::default()).await;
            deleted.map_err(Error::doing(format!("delete ControllerRevision {name:?}")))?;
        }
        Ok(())
    }

    fn api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }

    async fn bump(&self, name: &str, number: i64) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"revision": number}));
        let bumped = self.api().patch(name, &PatchParams::default(), &patch).await;
        let bumped = bumped.map_err(Error::doing(format!("renumber ControllerRevision {name:?}")))?;
        self.writes.wrote(self.key, self.cache, &bumped);
        Ok(())
    }

    /// Whether the revision is there now; `false` when other data has its name.
    async fn create(&self, revision: &ControllerRevision) -> Result<bool, Error> {
        let name = name_of(revision);
        let doing = || Error::doing(format!("create ControllerRevision {name:?}"));
        match self.api().create(&PostParams::default(), revision).await {
            Ok(made) => {
                self.writes.wrote(self.key, self.cache, &made);
                Ok(true)
            }
            Err(error) if classify(&error) == Class::AlreadyExists => {
                let there = self.api().get(name).await.map_err(doing())?;
                let ours = there.metadata.owner_references.iter().flatten().any(|r| r.uid == self.reference.uid);
                Ok(ours && same_data(&there.data.0, &revision.data.0))
            }
            Err(error) => Err(doing()(error)),
        }
    }
}
