//! Does what a plan says, and tells it in events. Never decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use stead_client::{Class, classify, is, message};
use stead_informer::{Key, Severity};
use stead_machinery::hand_over;
use stead_workloads::history::template;
use stead_workloads::owner::controller_of;
use stead_workloads::statefulset::{Action, Policy, Revision, Why, claims, identity, wishes};

use super::observe::Seen;
use super::{Inner, StatefulSets};
use crate::Error;
use crate::batch::slow_start;

/// How it went.
pub(super) struct Outcome {
    pub(super) done: Vec<Action>,
    /// Claims, by name, that were not allowed to follow their templates, and why.
    pub(super) refused: BTreeMap<String, String>,
    /// The first failure.
    pub(super) result: Result<(), Error>,
}

impl StatefulSets {
    /// With `OrderedReady` one thing after the other; with `Parallel` each kind of step for many pods at once.
    pub(super) async fn execute(&self, seen: &Seen, actions: &[Action]) -> Outcome {
        if actions.is_empty() {
            return Outcome { done: Vec::new(), refused: BTreeMap::new(), result: Ok(()) };
        }
        match Work::new(self, seen) {
            Ok(work) => {
                let work = Arc::new(work);
                let (done, result) = self.work(&work, seen, actions).await;
                let refused = std::mem::take(&mut *work.refused.lock());
                Outcome { done, refused, result }
            }
            Err(error) => Outcome { done: Vec::new(), refused: BTreeMap::new(), result: Err(error) },
        }
    }

    async fn work(&self, work: &Arc<Work>, seen: &Seen, actions: &[Action]) -> (Vec<Action>, Result<(), Error>) {
        let mut done = Vec::with_capacity(actions.len());
        for phase in actions.chunk_by(|a, b| phase(*a) == phase(*b)) {
            let in_order = seen.snapshot.policy == Policy::OrderedReady && !goes_at_once(phase);
            let result = match in_order {
                true => work.one_by_one(phase, &mut done).await,
                false => {
                    let step = |action| {
                        let work = work.clone();
                        async move { work.act(action).await }
                    };
                    let (some, result) = slow_start(phase, step).await;
                    done.extend(some);
                    result
                }
            };
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
    }
}

/// Pods that are recreated go all at once, whatever the order in which they are made.
fn goes_at_once(phase: &[Action]) -> bool {
    phase.iter().all(|action| matches!(action, Action::DeletePod { why: Why::Recreate, .. }))
}

/// Steps of one phase do not depend on each other; those of the next wait for them.
fn phase(action: Action) -> u8 {
    match action {
        Action::HoldDeletion | Action::ReleaseDeletion | Action::RollBack => 4,
        Action::GrowClaims { .. } | Action::LabelClaims { .. } => 5,
        Action::CreatePod { .. }
        | Action::CreateClaims { .. }
        | Action::RefuseClaims { .. }
        | Action::RepairPod { .. }
        | Action::DeletePod { why: Why::Finished | Why::Broken, .. } => 0,
        Action::RepairClaims { .. } | Action::AskHandOver { .. } | Action::WithdrawHandOver { .. } => 1,
        Action::DeletePod { why: Why::ScaleDown | Why::Stopped | Why::SetDeleted, .. } => 2,
        Action::DeletePod { why: Why::Outdated | Why::Recreate, .. } | Action::EvictPod { .. } => 3,
    }
}

/// Everything the steps of one plan need.
struct Work {
    inner: Arc<Inner>,
    key: Key,
    set: Arc<StatefulSet>,
    by_ordinal: BTreeMap<u32, Arc<Pod>>,
    current: String,
    update: String,
    /// The template of pods that are still made from the current revision; `None` when no roll-out is under way.
    old_template: Option<PodTemplateSpec>,
    pods: Api<Pod>,
    claims: Api<PersistentVolumeClaim>,
    refused: Mutex<BTreeMap<String, String>>,
}

impl Work {
    fn new(controller: &StatefulSets, seen: &Seen) -> Result<Self, Error> {
        let inner = controller.inner.clone();
        let client = &inner.cx.client;
        let old_template = if seen.current == seen.update {
            None
        } else {
            let named = |name: &str| seen.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(name));
            let template = named(&seen.current).and_then(|revision| template(revision));
            let unreadable =
                || Error::Blocked(format!("ControllerRevision {:?} has no readable template", seen.current));
            Some(template.ok_or_else(unreadable)?)
        };
        Ok(Self {
            key: seen.key.clone(),
            set: seen.set.clone(),
            by_ordinal: identity::by_ordinal(&seen.set, seen.pods.iter().cloned()),
            current: seen.current.clone(),
            update: seen.update.clone(),
            old_template,
            pods: Api::namespaced(client.clone(), &seen.key.namespace),
            claims: Api::namespaced(client.clone(), &seen.key.namespace),
            refused: Mutex::default(),
            inner,
        })
    }

    async fn one_by_one(&self, actions: &[Action], done: &mut Vec<Action>) -> Result<(), Error> {
        for action in actions {
            self.act(*action).await?;
            done.push(*action);
        }
        Ok(())
    }

    async fn act(&self, action: Action) -> Result<(), Error> {
        tracing::debug!(set = %self.key, ?action, "acting");
        match action {
            Action::CreatePod { ordinal, revision } => self.create_pod(ordinal, revision).await,
            Action::CreateClaims { ordinal } => self.create_claims(ordinal).await,
            Action::RefuseClaims { ordinal } => self.refuse(ordinal),
            Action::RepairPod { ordinal } => self.repair_pod(ordinal).await,
            Action::RepairClaims { ordinal } => {
                let wanted = identity::ordinals(&self.set).contains(&ordinal);
                self.repair_claims(ordinal, !wanted).await.map(|_| ())
            }
            Action::DeletePod { ordinal, why } => self.delete_pod(ordinal, why).await,
            Action::EvictPod { ordinal } => self.evict_pod(ordinal).await,
            Action::AskHandOver { ordinal } => self.ask_hand_over(ordinal, true).await,
            Action::WithdrawHandOver { ordinal } => self.ask_hand_over(ordinal, false).await,
            Action::GrowClaims { ordinal } => self.grow_claims(ordinal).await,
            Action::LabelClaims { ordinal } => self.label_claims(ordinal).await,
            // Done before anything else, see `reconcile`.
            Action::RollBack => Ok(()),
            Action::HoldDeletion => self.hold(true).await,
            Action::ReleaseDeletion => self.hold(false).await,
        }
    }

    async fn create_pod(&self, ordinal: u32, revision: Revision) -> Result<(), Error> {
        let (template, name) = match (&self.old_template, revision) {
            (Some(old), Revision::CURRENT) => (old, &self.current),
            _ => (&self.set.spec.template, &self.update),
        };
        let template = identity::overridden(&self.set, template, ordinal).map_err(|why| {
            self.failure("create", &identity::pod_name(&self.set, ordinal), &why);
            Error::Blocked(why)
        })?;
        self.create_claims(ordinal).await?;
        let pod = identity::new_pod(&self.set, &template, name, ordinal);
        let made = self.pods.create(&PostParams::default(), &pod).await;
        match made {
            Err(error) if classify(&error) == Class::AlreadyExists => {
                self.tell_of_stranger(&pod_name(&pod), &error);
                Err(doing("create Pod", &pod_name(&pod))(error))
            }
            made => {
                let made = self.told("create", &pod_name(&pod), made)?;
                self.inner.writes.wrote(&self.key, &self.inner.pods, &made);
                Ok(())
            }
        }
    }

    /// A pod that is not ours has the name. Upstream tells nobody; a pod of ours that the cache does not know yet is
    /// none of anybody's business.
    fn tell_of_stranger(&self, name: &str, error: &kube::Error) {
        let Some(stranger) = self.inner.pods.get(&self.key.namespace, name) else { return };
        if controller_of(&stranger.metadata).is_none_or(|owner| Some(&owner.uid) != self.set.metadata.uid.as_ref()) {
            self.failure("create", name, &message(error));
        }
    }

    /// Creates the claims that do not exist yet.
    async fn create_claims(&self, ordinal: u32) -> Result<(), Error> {
        let pod = identity::pod_name(&self.set, ordinal);
        for claim in claims::wanted(&self.set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            if self.inner.claims.get(&self.key.namespace, name).is_some() {
                continue;
            }
            match self.claims.create(&PostParams::default(), &claim).await {
                Ok(made) => {
                    self.inner.writes.wrote(&self.key, &self.inner.claims, &made);
                    let text = format!("create Claim {name} Pod {pod} in StatefulSet {} success", self.key.name);
                    self.event(Severity::Normal, "SuccessfulCreate", text);
                }
                Err(error) if classify(&error) == Class::AlreadyExists => {
                    return Err(doing("create Claim", name)(error));
                }
                Err(error) => {
                    let (set, why) = (&self.key.name, message(&error));
                    let text = format!("create Claim {name} for Pod {pod} in StatefulSet {set} failed error: {why}");
                    self.event(Severity::Warning, "FailedCreate", text);
                    let text = format!(
                        "create Pod {pod} in StatefulSet {set} failed error: failed to create PVC {name}: {why}"
                    );
                    self.event(Severity::Warning, "FailedCreate", text);
                    return Err(doing("create Claim", name)(error));
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, ordinal: u32) -> Result<(), Error> {
        let pod = identity::pod_name(&self.set, ordinal);
        let names = identity::claim_templates(&self.set).iter().map(|t| identity::claim_name(&self.set, t, ordinal));
        let going = |name: &String| {
            let claim = self.inner.claims.get(&self.key.namespace, name);
            claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())
        };
        let reasons: Vec<_> = names.filter(going).map(|name| format!("pvc {name} is being deleted")).collect();
        let why = if reasons.len() == 1 { reasons[0].clone() } else { format!("[{}]", reasons.join(", ")) };
        let text = format!("create Pod {pod} in StatefulSet {} failed error: {why}", self.key.name);
        self.event(Severity::Warning, "FailedCreate", text.clone());
        Err(Error::Blocked(text))
    }

    async fn repair_pod(&self, ordinal: u32) -> Result<(), Error> {
        let Some(pod) = self.by_ordinal.get(&ordinal) else { return Ok(()) };
        // A pod cannot be renamed: that of `web-012` fails, as it does upstream.
        let name = identity::pod_name(&self.set, ordinal);
        let mended = self.repair_claims(ordinal, false).await?;
        if !identity::matches(&self.set, pod, ordinal) {
            let pod = identity::repaired(&self.set, pod, ordinal);
            let written = self.pods.replace(&name, &PostParams::default(), &pod).await;
            let written = self.told("update", &name, written)?;
            self.inner.writes.wrote(&self.key, &self.inner.pods, &written);
        } else if mended {
            self.success("update", &name);
        }
        Ok(())
    }

    /// Puts the owners of the claims right; whether there was anything to do.
    async fn repair_claims(&self, ordinal: u32, scaled_down: bool) -> Result<bool, Error> {
        let pod_uid = self.by_ordinal.get(&ordinal).and_then(|pod| pod.metadata.uid.clone()).unwrap_or_default();
        let pod_name = identity::pod_name(&self.set, ordinal);
        let owners = claims::Owners { set: &self.set, pod_name: pod_name.clone(), pod_uid: &pod_uid, scaled_down };
        let mut mended = false;
        for template in identity::claim_templates(&self.set) {
            let name = identity::claim_name(&self.set, template, ordinal);
            let Some(claim) = self.inner.claims.get(&self.key.namespace, &name) else { continue };
            if owners.has_foreign_controller(&claim) {
                self.event(Severity::Warning, "ConflictingController", format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a managing controller, \
                     the retention policy is ignored for this claim"
                ));
            }
            if owners.are_right(&claim) {
                continue;
            }
            let patch = json!({"metadata": {
                "ownerReferences": owners.mended(&claim),
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            }});
            match self.claims.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(written) => self.inner.writes.wrote(&self.key, &self.inner.claims, &written),
                Err(error) => {
                    if !matches!(classify(&error), Class::Conflict | Class::NotFound) {
                        let why = message(&error);
                        let text = format!("could not update claim {name} for delete policy ownerRefs: {why}");
                        self.failure("update", &pod_name, &text);
                    }
                    return Err(doing("set the owners of Claim", &name)(error));
                }
            }
            mended = true;
        }
        Ok(mended)
    }

    /// Lets small claims ask for what their templates do. What a class refuses is told and not tried again before
    /// something changes.
    async fn grow_claims(&self, ordinal: u32) -> Result<(), Error> {
        for template in identity::claim_templates(&self.set) {
            let name = identity::claim_name(&self.set, template, ordinal);
            let Some(claim) = self.inner.claims.get(&self.key.namespace, &name) else { continue };
            if !claims::is_small(template, &claim) {
                continue;
            }
            let wanted =
                template.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
            let patch = json!({
                "metadata": {"uid": claim.metadata.uid},
                "spec": {"resources": {"requests": {"storage": wanted}}},
            });
            let size = wanted.map(|wanted| wanted.0.as_str()).unwrap_or_default();
            let what = format!("grow Claim {name} in StatefulSet {} to {size}", self.key.name);
            self.change_claim(&name, patch, &what).await?;
        }
        Ok(())
    }

    /// Gives claims the labels and annotations of their templates.
    async fn label_claims(&self, ordinal: u32) -> Result<(), Error> {
        for template in identity::claim_templates(&self.set) {
            let name = identity::claim_name(&self.set, template, ordinal);
            let Some(claim) = self.inner.claims.get(&self.key.namespace, &name) else { continue };
            let Some((labels, annotations)) = claims::lacks(&self.set, template, &claim) else { continue };
            let patch = json!({
                "metadata": {"uid": claim.metadata.uid, "labels": labels, "annotations": annotations},
            });
            let what = format!("label Claim {name} in StatefulSet {}", self.key.name);
            self.change_claim(&name, patch, &what).await?;
        }
        Ok(())
    }

    /// What is refused is told, and keeps nothing else from being done.
    async fn change_claim(&self, name: &str, patch: Value, what: &str) -> Result<(), Error> {
        match self.claims.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(written) => {
                self.inner.writes.wrote(&self.key, &self.inner.claims, &written);
                self.event(Severity::Normal, "SuccessfulUpdate", format!("{what} successful"));
                Ok(())
            }
            Err(error) if classify(&error) == Class::Final => {
                let why = message(&error);
                self.event(Severity::Warning, "FailedUpdate", format!("{what} failed error: {why}"));
                self.refused.lock().insert(name.to_owned(), why);
                Ok(())
            }
            Err(error) => Err(doing("change Claim", name)(error)),
        }
    }

    async fn delete_pod(&self, ordinal: u32, why: Why) -> Result<(), Error> {
        let Some(pod) = self.by_ordinal.get(&ordinal) else { return Ok(()) };
        let name = pod_name(pod);
        // It may have become Ready this moment, or an orphan: then it is another plan's business.
        let as_seen = pod.metadata.resource_version.clone();
        match self.inner.writes.delete(&self.key, &self.inner.pods, &self.pods, &**pod, as_seen).await {
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => {
                Err(doing("delete Pod", &name)(error))
            }
            result => {
                self.told("delete", &name, result)?;
                if matches!(why, Why::Outdated | Why::ScaleDown | Why::Stopped) {
                    self.tell_hand_over(pod);
                }
                self.tell_why(pod, ordinal, why);
                Ok(())
            }
        }
    }

    /// Tells in an event why a pod was deleted where that is not plain.
    fn tell_why(&self, pod: &Pod, ordinal: u32, why: Why) {
        let (name, set) = (pod_name(pod), &self.key.name);
        let fits = identity::storage_matches(&self.set, pod, ordinal);
        match why {
            Why::Broken => {
                let revision = identity::revision_of(pod).unwrap_or_default();
                let at =
                    if fits { format!("at revision {revision}") } else { "with the volumes that it has".to_owned() };
                let text = format!(
                    "Pod {name} does not work {at} and is replaced; annotation {}: \"false\" leaves it",
                    wishes::HEAL
                );
                self.event(Severity::Normal, "ReplacingBrokenPod", text);
            }
            Why::Outdated | Why::Recreate if !fits => {
                let text = format!(
                    "Pod {name} has other volumes than the volumeClaimTemplates of StatefulSet {set} ask for and is replaced"
                );
                self.event(Severity::Normal, "ReplacingVolumes", text);
            }
            Why::Outdated | Why::Recreate | Why::Finished | Why::ScaleDown | Why::Stopped | Why::SetDeleted => {}
        }
    }

    /// Takes a pod away if its disruption budget allows it; the server decides, at that moment.
    async fn evict_pod(&self, ordinal: u32) -> Result<(), Error> {
        let Some(pod) = self.by_ordinal.get(&ordinal) else { return Ok(()) };
        let name = pod_name(pod);
        let (body, how) = (eviction(pod), PostParams::default());
        let evicted: Result<Status, _> = self.pods.create_subresource("eviction", &name, &how, &body).await;
        match evicted {
            Err(kube::Error::Api(status)) if status.code == 429 => {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                let why = causes.map(|cause| cause.message.as_str()).find(|text| !text.is_empty());
                let why = why.unwrap_or(&status.message);
                self.inner.tell_of_budget(&self.key, &self.set, pod, Some(why));
                Err(Error::Held(format!("Pod {name} is not evicted: {why}")))
            }
            Err(error) if matches!(classify(&error), Class::NotFound | Class::Conflict) => {
                Err(doing("evict Pod", &name)(error))
            }
            result => {
                if is(&result, Class::Retryable) {
                    self.inner.writes.doubted(&self.key, &self.inner.pods, &self.pods, &**pod);
                }
                self.told("evict", &name, result)?;
                self.tell_hand_over(pod);
                self.inner.writes.deleted(&self.key, &self.inner.pods, &**pod);
                Ok(())
            }
        }
    }

    /// Asks a pod to hand over, or takes that back.
    async fn ask_hand_over(&self, ordinal: u32, ask: bool) -> Result<(), Error> {
        let Some(pod) = self.by_ordinal.get(&ordinal) else { return Ok(()) };
        let name = pod_name(pod);
        let annotations = wishes::hand_over_request(&self.set, ask.then(|| self.inner.cx.now()));
        let patch = json!({"metadata": {
            "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version, "annotations": annotations,
        }});
        let written = self.pods.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.map_err(doing("ask to hand over Pod", &name))?;
        self.inner.writes.wrote(&self.key, &self.inner.pods, &written);
        if ask {
            let seconds = wishes::hand_over_seconds(&self.set);
            let text = format!("Pod {name} in StatefulSet {} is to hand over within {seconds} s", self.key.name);
            self.event(Severity::Normal, "HandOverRequested", text);
        }
        Ok(())
    }

    /// Tells how a pod that is taken down has handed over, if it was asked.
    fn tell_hand_over(&self, pod: &Pod) {
        let annotation = |key: &str| pod.metadata.annotations.as_ref()?.get(key).map(String::as_str);
        if annotation(hand_over::REQUESTED).is_none() || !wishes::hands_over(&self.set) {
            return;
        }
        let (name, set, seconds) = (pod_name(pod), &self.key.name, wishes::hand_over_seconds(&self.set));
        let (severity, reason, how) = match annotation(hand_over::DONE) {
            Some("0") => (Severity::Normal, "HandedOver", "has handed over".to_owned()),
            Some(code) => (
                Severity::Warning,
                "HandOverFailed",
                format!("did not hand over: the answer is {code}; it is taken down all the same"),
            ),
            None => (
                Severity::Warning,
                "HandOverTimedOut",
                format!("has not handed over within {seconds} s and is taken down all the same"),
            ),
        };
        self.event(severity, reason, format!("Pod {name} in StatefulSet {set} {how}"));
    }

    /// Puts the finalizer on the set, or takes it away.
    async fn hold(&self, held: bool) -> Result<(), Error> {
        let api: Api<StatefulSet> = Api::namespaced(self.inner.cx.client.clone(), &self.key.namespace);
        let meta = &self.set.metadata;
        let patch = json!({"metadata": {
            "finalizers": wishes::finalizers(&self.set, held), "uid": meta.uid, "resourceVersion": meta.resource_version,
        }});
        let written = api.patch(&self.key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.map_err(doing("set the finalizers of StatefulSet", &self.key.name))?;
        self.inner.writes.wrote(&self.key, &self.inner.sets, &written);
        Ok(())
    }

    /// Tells in an event how `verb` went for a pod.
    fn told<T>(&self, verb: &str, pod: &str, result: Result<T, kube::Error>) -> Result<T, Error> {
        match result {
            Ok(value) => {
                self.success(verb, pod);
                Ok(value)
            }
            Err(error) => {
                self.failure(verb, pod, &message(&error));
                Err(doing(&format!("{verb} Pod"), pod)(error))
            }
        }
    }

    fn success(&self, verb: &str, pod: &str) {
        let text = format!("{verb} Pod {pod} in StatefulSet {} successful", self.key.name);
        self.event(Severity::Normal, &format!("Successful{}", capital(verb)), text);
    }

    fn failure(&self, verb: &str, pod: &str, why: &str) {
        let text = format!("{verb} Pod {pod} in StatefulSet {} failed error: {why}", self.key.name);
        self.event(Severity::Warning, &format!("Failed{}", capital(verb)), text);
    }

    fn event(&self, severity: Severity, reason: &str, text: String) {
        self.inner.cx.recorder.event(&*self.set, severity, reason, text);
    }
}

/// An eviction of this very pod. Of any version: its budget judges the state, and a disruption that was given must not be
/// lost because the pod changed meanwhile. kube's own calls the delete options by another name than the API does, so that
/// they are dropped, and another pod of that name goes.
fn eviction(pod: &Pod) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.metadata.uid}},
    })
}

fn capital(verb: &str) -> &'static str {
    match verb {
        "create" => "Create",
        "update" => "Update",
        _ => "Delete",
    }
}

fn doing(what: &str, name: &str) -> impl FnOnce(kube::Error) -> Error {
    Error::doing(format!("{what} {name:?}"))
}

fn pod_name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::policy::v1::Eviction;

    use super::*;

    #[test]
    fn an_eviction_is_of_the_pod_that_was_seen_and_no_other() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "web-1", "namespace": "ns", "uid": "u", "resourceVersion": "7"}}),
        )
        .expect("a pod");
        let eviction: Eviction = serde_json::from_value(eviction(&pod)).expect("an eviction");
        let only_this = eviction.delete_options.and_then(|options| options.preconditions).expect("preconditions");
        assert_eq!((only_this.uid.as_deref(), only_this.resource_version), (Some("u"), None));
        assert_eq!((eviction.metadata.name, eviction.metadata.namespace), (pod.metadata.name, pod.metadata.namespace));
    }
}
