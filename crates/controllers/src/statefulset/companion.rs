//! `stead controller`: does a companion's share of StatefulSets in a cluster whose own controller goes on.
//!
//! The decision is [`stead_workloads::statefulset::companion`]. What is done, and how it is told, is the same code as in a
//! stead's own controller; but the status stays the built-in controller's, so that progress is told in annotations.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use stead_informer::{Key, Next, Queue, Severity, index};
use stead_workloads::history::{Update, name_of};
use stead_workloads::statefulset::companion::{self, Asked, GOOD_REVISION, Ignored, PROGRESS, Share};
use stead_workloads::statefulset::revisions::Decision;
use stead_workloads::statefulset::{Action, Observed, Why, identity, is_rolled_out};

use super::execute::Outcome;
use super::observe::Seen;
use super::{Inner, StatefulSets, sets_that_use, until};
use crate::{Context, Controller, Error, OwnWrites, sources};

/// The companion of another cluster's StatefulSet controller.
#[derive(Clone, Debug)]
pub struct Companion {
    works: StatefulSets,
    /// What has been told of each set that cannot be done for it.
    told: Arc<Mutex<HashMap<Key, Vec<Ignored>>>>,
}

impl Controller for Companion {
    const NAME: &'static str = "stead-controller";

    fn start(cx: Context, queue: &Queue<Key>) -> Self {
        let works = StatefulSets::open(cx, None);
        let Inner { sets, pods, claims, .. } = &*works.inner;
        sources::wake_self(sets, queue);
        sources::wake_controller(pods, "StatefulSet", queue);
        let of_claim = sets.clone();
        sources::wake(claims, queue, move |change| sets_that_use(&of_claim, change));
        Self { works, told: Arc::default() }
    }

    async fn synced(&self) {
        self.works.synced().await;
    }

    fn writes(&self) -> Option<&OwnWrites> {
        self.works.writes()
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let inner = &*self.works.inner;
        let object = inner.sets.by_key(key);
        let shared = object.and_then(|object| Some((Share::of(&object, !inner.cx.config.beside_stead)?, object)));
        let Some((share, object)) = shared else {
            self.told.lock().remove(key);
            return Ok(Next::Done);
        };
        let Asked { set, ignored } = companion::asked(&object, share);
        self.tell_ignored(key, &object, ignored);
        let Some(mut seen) = self.look((key, object), Arc::new(set), share) else { return Ok(Next::Done) };
        let plan = companion::plan(&seen.snapshot, share);
        let notes = notes(&seen, share);
        if plan.actions.contains(&Action::RollBack) {
            self.count(&[Action::RollBack]);
            return self.works.undo(&seen, &seen.object.metadata, notes.into()).await.map(|()| Next::Done);
        }
        // No pod is made here, so that nobody needs the template of the current revision.
        seen.current.clone_from(&seen.update);
        let Outcome { done, result, .. } = self.works.execute(&seen, &plan.actions).await;
        self.count(&done);
        if done.iter().any(|action| matches!(action, Action::HoldDeletion | Action::ReleaseDeletion)) {
            return result.map(|()| Next::Done);
        }
        self.note(&seen, notes).await?;
        result?;
        Ok(plan.wake_at.map_or(Next::Done, |at| Next::After(until(at, seen.now))))
    }
}

impl Companion {
    /// `None` until the built-in controller has looked at the newest spec: only then is it known what is new.
    fn look(&self, (key, object): (&Key, Arc<StatefulSet>), set: Arc<StatefulSet>, share: Share) -> Option<Seen> {
        let inner = &*self.works.inner;
        let status = object.status.as_ref()?;
        let looked_at = status.observed_generation >= object.metadata.generation;
        if !looked_at && object.metadata.deletion_timestamp.is_none() {
            return None;
        }
        let update = status.update_revision.clone()?;
        let uid = object.metadata.uid.as_deref().unwrap_or_default();
        let mut pods = inner.pods.by_index(index::CONTROLLER_UID, uid);
        pods.retain(|pod| identity::ordinal_of(&set, pod).is_some());
        let revisions = inner.revisions.by_index(index::CONTROLLER_UID, uid);
        let exists = |name: &str| revisions.iter().any(|revision| name_of(revision) == name);
        let current = companion::current(&object, share, &pods, &exists);
        let now = inner.cx.now();
        let (snapshot, progress) = Observed {
            set: &set,
            pods: &pods,
            claim: &|name| inner.claims.get(&key.namespace, name),
            current: &current,
            update: &update,
            waits_for_others: false,
            budgets: &[],
            now,
        }
        .look();
        let decision = Decision { update: Update::Newest(update.clone()), current: current.clone() };
        let (key, collisions) = (key.clone(), status.collision_count.unwrap_or(0));
        Some(Seen { key, object, set, pods, revisions, decision, current, update, collisions, now, snapshot, progress })
    }

    /// Tells once what a set asks for in vain.
    fn tell_ignored(&self, key: &Key, set: &StatefulSet, ignored: Vec<Ignored>) {
        let before = self.told.lock().insert(key.clone(), ignored.clone()).unwrap_or_default();
        for Ignored { annotation, why } in ignored.iter().filter(|ignored| !before.contains(ignored)) {
            let text = format!("annotation {annotation} does nothing here: {why}");
            self.works.inner.cx.recorder.event(set, Severity::Warning, "IgnoredAnnotation", text);
        }
    }

    /// Writes down what has to be remembered, if it is not there yet.
    async fn note(&self, seen: &Seen, notes: Map<String, Value>) -> Result<(), Error> {
        if notes.is_empty() {
            return Ok(());
        }
        let inner = &*self.works.inner;
        let complete = notes.contains_key(GOOD_REVISION) && annotation(&seen.object, GOOD_REVISION).is_some();
        let patch = json!({"metadata": {"uid": seen.object.metadata.uid, "annotations": notes}});
        let api: Api<StatefulSet> = Api::namespaced(inner.cx.client.clone(), &seen.key.namespace);
        let written = api.patch(&seen.key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let written = written.map_err(Error::doing(format!("annotate StatefulSet {}", seen.key)))?;
        inner.writes.wrote(&seen.key, &inner.sets, &written);
        if complete {
            let text = format!(
                "StatefulSet {} is rolled out: {} pods of revision {}",
                seen.key.name,
                seen.pods.len(),
                seen.update
            );
            inner.cx.recorder.event(&*seen.object, Severity::Normal, "RolloutComplete", text);
        }
        Ok(())
    }

    fn count(&self, done: &[Action]) {
        self.works.inner.cx.config.companion_counts.count(done);
    }
}

/// The annotations that are not yet as they should be.
fn notes(seen: &Seen, share: Share) -> Map<String, Value> {
    let mut notes = Map::new();
    let mut note = |key: &str, value: String| {
        if annotation(&seen.object, key) != Some(&value) {
            notes.insert(key.to_owned(), value.into());
        }
    };
    if share == Share::RollOuts && !seen.pods.is_empty() && is_rolled_out(&seen.snapshot) {
        note(GOOD_REVISION, seen.update.clone());
    }
    let condition = seen.progress.as_ref().and_then(|progress| serde_json::to_string(&progress.condition).ok());
    if let Some(condition) = condition.filter(|_| share != Share::Rest) {
        note(PROGRESS, condition);
    }
    notes
}

fn annotation<'a>(set: &'a StatefulSet, key: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(key)
}

/// What the companion did since it began.
#[derive(Debug, Default)]
pub struct Counts {
    outdated: AtomicU64,
    broken: AtomicU64,
    set_deleted: AtomicU64,
    undone: AtomicU64,
    grown: AtomicU64,
}

impl Counts {
    fn count(&self, done: &[Action]) {
        for action in done {
            let counter = match action {
                Action::DeletePod { why: Why::Outdated | Why::Recreate, .. } | Action::EvictPod { .. } => {
                    &self.outdated
                }
                Action::DeletePod { why: Why::Broken | Why::ScaleDown | Why::Stopped | Why::Finished, .. } => {
                    &self.broken
                }
                Action::DeletePod { why: Why::SetDeleted, .. } => &self.set_deleted,
                Action::RollBack => &self.undone,
                Action::GrowClaims { .. } => &self.grown,
                Action::AskHandOver { .. }
                | Action::WithdrawHandOver { .. }
                | Action::CreatePod { .. }
                | Action::CreateClaims { .. }
                | Action::RefuseClaims { .. }
                | Action::RepairPod { .. }
                | Action::RepairClaims { .. }
                | Action::LabelClaims { .. }
                | Action::HoldDeletion
                | Action::ReleaseDeletion => continue,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let _ = text.write_str(
            "# HELP stead_companion_actions_total What was done beside the cluster's own StatefulSet controller.\n\
             # TYPE stead_companion_actions_total counter\n",
        );
        for (action, counter) in [
            ("delete_outdated", &self.outdated),
            ("delete_broken", &self.broken),
            ("delete_in_order", &self.set_deleted),
            ("roll_back", &self.undone),
            ("grow_claims", &self.grown),
        ] {
            let count = counter.load(Ordering::Relaxed);
            let _ = writeln!(text, "stead_companion_actions_total{{action=\"{action}\"}} {count}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_counted_by_its_reason() {
        let counts = Counts::default();
        let delete = |why| Action::DeletePod { ordinal: 0, why };
        counts.count(&[delete(Why::Outdated), delete(Why::Broken), delete(Why::Outdated), Action::HoldDeletion]);
        let text = counts.render();
        for line in ["{action=\"delete_outdated\"} 2", "{action=\"delete_broken\"} 1", "{action=\"roll_back\"} 0"] {
            assert!(text.contains(&format!("stead_companion_actions_total{line}\n")), "{text}");
        }
    }
}
