//! What users see of a pod that fits nowhere: its condition and events; and the eviction of whom its preemption names.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use stead_client::{Class, Client, classify, message};
use stead_informer::{Cache, Key, Recorder, Severity};
use stead_placement::{PodInfo, Preemption, Refused};

use crate::mirror::{Assumed, awaits};

/// A status is tried to be written this often while others change the pod.
const TRIES_MAX: usize = 4;

/// Writes and tells. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) pods: Cache<Pod>,
    pub(crate) scheduler: String,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

impl Reporter {
    pub(crate) fn bound(&self, assumed: &Assumed) {
        let (namespace, name, node) = (assumed.pod.namespace(), assumed.pod.name(), &assumed.node);
        let text = format!("Successfully assigned {namespace}/{name} to {node}");
        self.recorder.event(&*assumed.pod.pod, Severity::Normal, "Scheduled", text);
    }

    /// The pod fits nowhere: event, condition, and its preemption. Nothing of that where one of the `unknown` claims is only on
    /// its way to the cache: that it comes brings the pod back.
    pub(crate) async fn refused(&self, pod: Arc<PodInfo>, refused: Refused, unknown: Vec<String>, now: Timestamp) {
        for name in unknown {
            if self.is_there(pod.namespace(), &name).await {
                return;
            }
        }
        self.recorder.event(&*pod.pod, Severity::Warning, "FailedScheduling", refused.message.clone());
        let nominated = match &refused.preemption {
            Some(plan) => Some(plan.node.clone()),
            None if awaits(&refused) => nominated(&pod.pod),
            None => None,
        };
        self.set_condition(&pod, "Unschedulable", &refused.message, nominated, now).await;
        if let Some(plan) = &refused.preemption {
            self.evict(&pod, plan, now).await;
        }
    }

    /// Whether the server has that claim. Asked only about claims that the cache does not know.
    async fn is_there(&self, namespace: &str, claim: &str) -> bool {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        api.get_opt(claim).await.is_ok_and(|claim| claim.is_some())
    }

    /// The binding failed for a reason that is not the pod's.
    pub(crate) async fn failed(&self, pod: Arc<PodInfo>, text: String, now: Timestamp) {
        self.recorder.event(&*pod.pod, Severity::Warning, "FailedScheduling", text.clone());
        let nominated = nominated(&pod.pod);
        self.set_condition(&pod, "SchedulerError", &text, nominated, now).await;
    }

    async fn set_condition(&self, pod: &PodInfo, reason: &str, text: &str, node: Option<String>, now: Timestamp) {
        let (namespace, name) = (pod.namespace(), pod.name());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut live = self.pods.get(namespace, name);
        for _ in 0..TRIES_MAX {
            let same = |live: &Arc<Pod>| live.metadata.uid == pod.pod.metadata.uid && is_without_node(live);
            let Some(patch) =
                live.filter(same).and_then(|live| condition_patch(&live, reason, text, node.clone(), now))
            else {
                return;
            };
            if !self.patch_status(namespace, name, patch).await {
                return;
            }
            live = api.get_opt(name).await.ok().flatten().map(Arc::new);
        }
    }

    /// Whether the pod has changed meanwhile.
    async fn patch_status(&self, namespace: &str, name: &str, patch: Value) -> bool {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => false,
            Err(error) if classify(&error) == Class::Conflict => true,
            Err(error) if matches!(classify(&error), Class::NotFound | Class::NamespaceTerminating) => false,
            Err(error) => {
                let pod = Key::new(namespace, name);
                tracing::warn!(%pod, error = message(&error), "cannot write the status of a pod");
                false
            }
        }
    }

    /// Deletes the victims, each with its grace period.
    async fn evict(&self, pod: &PodInfo, plan: &Preemption, now: Timestamp) {
        for (full_name, uid) in &plan.victims {
            let (namespace, name) = full_name.split_once('/').unwrap_or(("", full_name));
            let live = self.pods.get(namespace, name);
            let Some(live) = live.filter(|live| live.metadata.uid.as_deref() == Some(uid)) else { continue };
            if live.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let text = format!("{}: preempting to accommodate a higher priority pod", self.scheduler);
            let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", &text, &live, now);
            let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
            self.patch_status(namespace, name, patch).await;
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let same = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let how = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            match api.delete(name, &how).await {
                Ok(_) => {
                    let text = format!("Preempted by pod {} on node {}", pod.uid(), plan.node);
                    self.recorder.event_ref(reference(&live), Severity::Normal, "Preempted", text);
                }
                Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => {}
                Err(error) => {
                    tracing::warn!(victim = full_name, error = message(&error), "cannot evict a pod");
                }
            }
        }
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    kube::Resource::object_ref(pod, &())
}

fn is_without_node(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default().is_empty()
}

fn nominated(pod: &Pod) -> Option<String> {
    pod.status.as_ref()?.nominated_node_name.clone().filter(|name| !name.is_empty())
}

/// The patch that makes a pod's condition and nomination so, or nothing when they are.
fn condition_patch(pod: &Pod, reason: &str, text: &str, node: Option<String>, now: Timestamp) -> Option<Value> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let told = conditions.iter().any(|c| {
        c.type_ == "PodScheduled"
            && c.status == "False"
            && c.reason.as_deref() == Some(reason)
            && c.message.as_deref() == Some(text)
    });
    let kept = nominated(pod) == node;
    if told && kept {
        return None;
    }
    let mut status = json!({});
    if !told {
        status["conditions"] = json!([condition("PodScheduled", "False", reason, text, pod, now)]);
    }
    if !kept {
        status["nominatedNodeName"] = json!(node);
    }
    // Only if nobody has changed the pod: it may have got its node after all.
    let meta = json!({"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version});
    Some(json!({"metadata": meta, "status": status}))
}

/// A condition as it is written: the time of its last change stays unless the status changes.
fn condition(type_: &str, status: &str, reason: &str, text: &str, pod: &Pod, now: Timestamp) -> Value {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let before = conditions.into_iter().find(|c| c.type_ == type_ && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(whole_seconds(now)));
    json!({
        "type": type_, "status": status, "reason": reason, "message": text, "lastProbeTime": null,
        "lastTransitionTime": since, "observedGeneration": pod.metadata.generation,
    })
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
