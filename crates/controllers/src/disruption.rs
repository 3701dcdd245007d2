//! Grants evictions to disruption budgets, and takes back marks of disruptions that did not come. The decisions are
//! [`stead_workloads::disruption`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use stead_api::kinds;
use stead_client::{Class, classify};
use stead_informer::{Cache, Key, Next, Object, Queue, Severity};
use stead_workloads::disruption::{Mark, Observed, Plan, Scale, covers, covers_labels, mark, plan};
use stead_workloads::owner::controller_of;
use stead_workloads::statefulset::wishes;

use crate::{Context, Controller, Error, OwnWrites, sources};

/// The controller of budgets; its keys are budgets.
#[derive(Debug)]
pub struct Budgets {
    cx: Context,
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    sets: Cache<StatefulSet>,
    replica_sets: Cache<ReplicaSet>,
    deployments: Cache<Deployment>,
    controllers: Cache<ReplicationController>,
    writes: OwnWrites,
}

impl Controller for Budgets {
    const NAME: &'static str = "disruption-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let (budgets, pods) = (cx.caches.of::<PodDisruptionBudget>(), cx.caches.of::<Pod>());
        sources::wake_self(&budgets, queue);
        let of_pod = budgets.clone();
        sources::wake(&pods, queue, move |change| {
            let pods = [&change.old, &change.new].into_iter().flatten();
            let budgets = of_pod.list_ns(&change.key.namespace);
            let covering = budgets.iter().filter(|budget| pods.clone().any(|pod| covers(budget, pod)));
            covering.map(|budget| Key::of(&budget.metadata)).collect()
        });
        let controllers = Self {
            sets: cx.caches.of(),
            replica_sets: cx.caches.of(),
            deployments: cx.caches.of(),
            controllers: cx.caches.of(),
            writes: OwnWrites::default(),
            cx,
            budgets,
            pods,
        };
        controllers.wake_with_scales(queue);
        controllers
    }

    async fn synced(&self) {
        let scales = async {
            let Self { sets, replica_sets, deployments, controllers, .. } = self;
            tokio::join!(sets.synced(), replica_sets.synced(), deployments.synced(), controllers.synced())
        };
        tokio::join!(self.budgets.synced(), self.pods.synced(), scales);
    }

    fn writes(&self) -> Option<&OwnWrites> {
        Some(&self.writes)
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.by_key(key) else { return Ok(Next::Done) };
        let now = self.cx.now();
        let mut pods = self.pods.list_ns(&key.namespace);
        pods.retain(|pod| covers(&budget, pod));
        let scale = |owner: &OwnerReference| self.scale(&key.namespace, owner);
        let sets = self.sets_of(&budget, &key.namespace);
        let plan = plan(&Observed { budget: &budget, pods: &pods, scale: &scale, sets: &sets, now });
        self.tell(&budget, &pods, &plan);
        if budget.status.as_ref() != Some(&plan.status) {
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.cx.client.clone(), &key.namespace);
            let counted = PodDisruptionBudget { status: Some(plan.status), ..(*budget).clone() };
            // The resource version keeps an eviction that was granted meanwhile from being forgotten.
            let written = api.replace_status(&key.name, &PostParams::default(), &counted).await;
            let written = written.map_err(Error::doing(format!("write the status of PodDisruptionBudget {key}")))?;
            self.writes.wrote(key, &self.budgets, &written);
        }
        Ok(next(plan.wake_at, now))
    }
}

impl Budgets {
    /// Budgets count from what the owners of pods want, which may change while no pod does.
    fn wake_with_scales(&self, queue: &Queue<Key>) {
        let budgets = &self.budgets;
        wake_with_scale(&self.sets, budgets, queue, |set| {
            Some((wishes::running(set), labels(Some(&set.spec.template))))
        });
        wake_with_scale(&self.replica_sets, budgets, queue, |set| {
            Some((set.spec.replicas?, labels(set.spec.template.as_ref())))
        });
        wake_with_scale(&self.deployments, budgets, queue, |deployment| {
            Some((deployment.spec.replicas?, labels(Some(&deployment.spec.template))))
        });
        wake_with_scale(&self.controllers, budgets, queue, |controller| {
            let spec = controller.spec.as_ref()?;
            Some((spec.replicas?, labels(spec.template.as_ref())))
        });
    }

    fn tell(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>], plan: &Plan) {
        for happening in &plan.happenings {
            let severity = if happening.warning { Severity::Warning } else { Severity::Normal };
            self.cx.recorder.event(budget, severity, happening.reason, happening.message.clone());
        }
        let late = |pod: &&Arc<Pod>| pod.metadata.name.as_ref().is_some_and(|name| plan.not_deleted.contains(name));
        for pod in pods.iter().filter(late) {
            // Upstream names the namespace twice.
            let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
            let text = format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
            self.cx.recorder.event(&**pod, Severity::Warning, "NotDeleted", text);
        }
    }

    /// The StatefulSets whose pods the budget selects, and how many they want.
    fn sets_of(&self, budget: &PodDisruptionBudget, namespace: &str) -> Vec<(String, i32)> {
        let mut sets = self.sets.list_ns(namespace);
        sets.retain(|set| {
            set.metadata.deletion_timestamp.is_none() && covers_labels(budget, &labels(Some(&set.spec.template)))
        });
        sets.iter().map(|set| sized(&set.metadata, Some(wishes::running(set)))).collect()
    }

    /// How many pods an owner of pods wants, or the owner of that owner.
    fn scale(&self, namespace: &str, owner: &OwnerReference) -> Scale {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        Ok(match (group, owner.kind.as_str()) {
            ("apps", "StatefulSet") => {
                // Pods that are stopped are nobody's loss.
                found(&self.sets, namespace, owner).map(|set| sized(&set.metadata, Some(wishes::running(&set))))
            }
            ("", "ReplicationController") => found(&self.controllers, namespace, owner)
                .map(|rc| sized(&rc.metadata, rc.spec.as_ref().and_then(|spec| spec.replicas))),
            ("apps", "ReplicaSet") => {
                found(&self.replica_sets, namespace, owner).and_then(|set| {
                    match controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
                        None => Some(sized(&set.metadata, set.spec.replicas)),
                        Some(owner) => found(&self.deployments, namespace, owner)
                            .map(|deployment| sized(&deployment.metadata, deployment.spec.replicas)),
                    }
                })
            }
            _ => {
                let kind = kinds::by_api_version(&owner.api_version, &owner.kind);
                return Err(match kind {
                    Some(kind) => format!("{} does not implement the scale subresource", kind.group_resource()),
                    None => format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version),
                });
            }
        })
    }
}

/// How many pods an owner wants, and their labels.
type Wanted = (i32, BTreeMap<String, String>);

fn wake_with_scale<K: Object>(
    owners: &Cache<K>,
    budgets: &Cache<PodDisruptionBudget>,
    queue: &Queue<Key>,
    wanted: impl Fn(&K) -> Option<Wanted> + Send + 'static,
) {
    let budgets = budgets.clone();
    sources::wake(owners, queue, move |change| {
        let wanted = |owner: &Option<Arc<K>>| owner.as_ref().and_then(|owner| wanted(owner));
        let (before, now) = (wanted(&change.old), wanted(&change.new));
        if before.as_ref().map(|(replicas, _)| replicas) == now.as_ref().map(|(replicas, _)| replicas) {
            return Vec::new();
        }
        let Some((_, labels)) = now.or(before) else { return Vec::new() };
        let budgets = budgets.list_ns(&change.key.namespace);
        let covering = budgets.iter().filter(|budget| covers_labels(budget, &labels));
        covering.map(|budget| Key::of(&budget.metadata)).collect()
    });
}

fn labels(template: Option<&PodTemplateSpec>) -> BTreeMap<String, String> {
    template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default()
}

fn found<K: Object>(cache: &Cache<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
    cache.get(namespace, &owner.name).filter(|object| object.meta().uid.as_ref() == Some(&owner.uid))
}

fn sized(meta: &ObjectMeta, replicas: Option<i32>) -> (String, i32) {
    (meta.uid.clone().unwrap_or_default(), replicas.unwrap_or(1))
}

fn next(wake_at: Option<Timestamp>, now: Timestamp) -> Next {
    wake_at.map_or(Next::Done, |at| Next::After((at - now).try_into().unwrap_or_default()))
}

/// Takes back marks on pods that nobody deleted; its keys are pods.
#[derive(Debug)]
pub struct Marks {
    cx: Context,
    pods: Cache<Pod>,
}

impl Controller for Marks {
    const NAME: &'static str = "disruption-mark-controller";
    const ACCOUNT: &'static str = "disruption-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let pods = cx.caches.of::<Pod>();
        sources::wake(&pods, queue, |change| {
            let marked = change.new.as_ref().is_some_and(|pod| mark(pod, Timestamp::MAX) != Mark::Fine);
            marked.then(|| change.key.clone()).into_iter().collect()
        });
        Self { cx, pods }
    }

    async fn synced(&self) {
        self.pods.synced().await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.by_key(key) else { return Ok(Next::Done) };
        let now = self.cx.now();
        let condition = match mark(&pod, now) {
            Mark::Fine => return Ok(Next::Done),
            Mark::Wait(end) => return Ok(next(Some(end), now)),
            Mark::Stale(condition) => condition,
        };
        let api: Api<Pod> = Api::namespaced(self.cx.client.clone(), &key.namespace);
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": condition.type_, "status": condition.status, "reason": null, "message": null,
                "lastTransitionTime": condition.last_transition_time,
            }]},
        });
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(error) if classify(&error) == Class::NotFound => Ok(Next::Done),
            done => {
                done.map(|_| Next::Done).map_err(Error::doing(format!("take the mark of disruption off pod {key}")))
            }
        }
    }
}
