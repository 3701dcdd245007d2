//! Rolls Deployments out over ReplicaSets. The decision is [`stead_workloads::deployment`].

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use stead_client::{Class, classify, delete_if_present, message};
use stead_informer::{Cache, Key, Next, Queue, Severity, index};
use stead_workloads::deployment::{Action, Observed, REVISION_ANNOTATION, is_same_template, plan, set_ref};
use stead_workloads::owner::selects;
use stead_workloads::pod::is_finished;

use crate::family::{self, Head, gather, still_alive};
use crate::{Context, Controller, Error, OwnWrites, sources};

/// The Deployment controller.
#[derive(Debug)]
pub struct Deployments {
    cx: Context,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
    writes: OwnWrites,
}

/// The condition of a roll-out that cannot make its ReplicaSet.
const FAILED_CREATE: &str = "FailedCreateReplicaSet";

impl Controller for Deployments {
    const NAME: &'static str = "deployment-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (deployments, sets) = (cx.caches.of::<Deployment>(), cx.caches.of::<ReplicaSet>());
        let pods = cx.caches.of::<Pod>();
        family::prepare(&sets);
        family::prepare(&pods);
        sources::wake_self(&deployments, queue);
        sources::wake_controller(&sets, "Deployment", queue);
        // Recreate waits for the last old pod to be gone.
        let of_pod = sets.clone();
        sources::wake(&pods, queue, move |change| {
            let gone = change.new.is_none().then_some(change.old.as_ref()).flatten();
            let set = gone.and_then(|pod| index::controller_of(&**pod)).filter(|owner| owner.kind == "ReplicaSet");
            let set = set.and_then(|owner| of_pod.get(&change.key.namespace, &owner.name));
            let owner = set.as_ref().and_then(|set| index::controller_of(&**set));
            owner.map(|owner| Key::new(&change.key.namespace, &owner.name)).into_iter().collect()
        });
        Self { cx, deployments, sets, pods, writes: OwnWrites::default() }
    }

    async fn synced(&self) {
        tokio::join!(self.deployments.synced(), self.sets.synced(), self.pods.synced());
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.by_key(key) else { return Ok(Next::Done) };
        if selects_everything(&deployment) {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            self.cx.recorder.event(&*deployment, Severity::Warning, "SelectingAll", text);
            return Ok(Next::Done);
        }
        let reference = set_ref(&deployment);
        let head = Head { key, meta: &deployment.metadata, reference: &reference };
        let alive = || still_alive::<Deployment>(&self.cx.client, key, &deployment.metadata);
        let none = std::collections::BTreeMap::new();
        let fits = |set: &ReplicaSet| selects(&deployment.spec.selector, set.metadata.labels.as_ref().unwrap_or(&none));
        let family = gather((&self.cx.client, &self.sets, &self.writes), head, fits, alive).await?;
        if family.changed {
            return Ok(Next::Done);
        }
        let now = self.cx.now();
        let observed = Observed {
            deployment: &deployment,
            sets: &family.members,
            old_pods_run: self.old_pods_run(&deployment, &family.members),
            now,
        };
        let plan = plan(&observed);
        for action in &plan.actions {
            self.act(key, &deployment, action).await?;
        }
        if deployment.status.as_ref() != Some(&plan.status) {
            self.publish(key, &deployment, plan.status).await?;
        }
        let wake = plan.wake_at.map(|at| at.duration_since(now)).and_then(|wait| wait.try_into().ok());
        Ok(wake.map_or(Next::Done, Next::After))
    }
}

impl Deployments {
    /// Whether a pod of an older template may still run.
    fn old_pods_run(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let old = sets.iter().filter(|set| !is_same_template(deployment, set));
        let uids = old.filter_map(|set| set.metadata.uid.as_deref());
        uids.flat_map(|uid| self.pods.by_index(index::CONTROLLER_UID, uid)).any(|pod| !is_finished(&pod))
    }

    async fn act(&self, key: &Key, deployment: &Deployment, action: &Action) -> Result<(), Error> {
        tracing::debug!(deployment = %key, ?action, "acting");
        let api: Api<ReplicaSet> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        match action {
            Action::Create { set } => self.create(key, deployment, &api, set).await,
            Action::Update { set, scaled } => {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let written = api.replace(name, &PostParams::default(), set).await;
                let written = written.map_err(Error::doing(format!("update ReplicaSet {name:?}")))?;
                self.writes.wrote(key, &self.sets, &written);
                if let Some((from, to)) = scaled {
                    self.tell_scaled(deployment, name, *from, *to);
                }
                Ok(())
            }
            Action::Delete { name } => {
                let deleted = delete_if_present(&api, name, &DeleteParams::default()).await;
                deleted.map(|_| ()).map_err(Error::doing(format!("delete ReplicaSet {name:?}")))
            }
            Action::Annotate { revision } => {
                let patch = json!({"metadata": {"annotations": {REVISION_ANNOTATION: revision}}});
                let api: Api<Deployment> = Api::namespaced(self.cx.client.clone(), &key.namespace);
                let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
                let written = written.map_err(Error::doing(format!("note the revision of Deployment {key}")))?;
                self.writes.wrote(key, &self.deployments, &written);
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let error = match api.create(&PostParams::default(), set).await {
            Ok(made) => {
                self.writes.wrote(key, &self.sets, &made);
                match set.spec.replicas.unwrap_or(0) {
                    0 => {}
                    to => self.tell_scaled(deployment, name, 0, to),
                }
                return Ok(());
            }
            Err(error) => error,
        };
        match classify(&error) {
            Class::AlreadyExists => self.collided(key, deployment, api, set).await?,
            Class::NamespaceTerminating => {}
            Class::Conflict | Class::NotFound | Class::Expired | Class::Retryable | Class::Final => {
                let text = format!("Failed to create new replica set {name:?}: {}", message(&error));
                self.cx.recorder.event(deployment, Severity::Warning, FAILED_CREATE, text);
            }
        }
        Err(Error::doing(format!("create ReplicaSet {name:?}"))(error))
    }

    /// Another ReplicaSet has the name: the next try uses another one, unless it is ours and the cache is just late.
    async fn collided(
        &self,
        key: &Key,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let there = api.get(name).await.map_err(Error::doing(format!("look up ReplicaSet {name:?}")))?;
        let ours =
            index::controller_of(&there).is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
        if ours && is_same_template(deployment, &there) {
            return Ok(());
        }
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.publish(key, deployment, status).await
    }

    async fn publish(
        &self,
        key: &Key,
        deployment: &Deployment,
        status: k8s_openapi::api::apps::v1::DeploymentStatus,
    ) -> Result<(), Error> {
        let api: Api<Deployment> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        // Without a resource version: the revision annotation may just have been written.
        let mut object = Deployment { status: Some(status), ..deployment.clone() };
        object.metadata.resource_version = None;
        let written = api.replace_status(&key.name, &PostParams::default(), &object).await;
        let written = written.map_err(Error::doing(format!("write the status of Deployment {key}")))?;
        self.writes.wrote(key, &self.deployments, &written);
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if to > from { "up" } else { "down" };
        let text = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.cx.recorder.event(deployment, Severity::Normal, "ScalingReplicaSet", text);
    }
}

fn selects_everything(deployment: &Deployment) -> bool {
    let selector = &deployment.spec.selector;
    selector.match_labels.iter().flatten().next().is_none()
        && selector.match_expressions.iter().flatten().next().is_none()
}
