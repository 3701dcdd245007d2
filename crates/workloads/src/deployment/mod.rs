//! What a Deployment should do next with its ReplicaSets.
//!
//! Behaviour is that of upstream's `pkg/controller/deployment` at Kubernetes 1.37: rolling update with surge and
//! unavailability, Recreate, pause, proportional scaling, revisions, progress deadline, clean-up.
//!
//! Invariants:
//! - a rolling update never has more than `replicas + maxSurge` pods wanted, and removes pods that are available only
//!   while more than `replicas - maxUnavailable` are;
//! - Recreate makes no new pod while an old one may still run.

mod annotations;
mod bounds;
mod make;
mod progress;
mod roll;
mod scale;
mod status;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

pub use annotations::{DESIRED_ANNOTATION, HASH_LABEL, HISTORY_ANNOTATION, MAX_ANNOTATION, REVISION_ANNOTATION};
pub use make::{is_same_template, set_ref, template_hash};

/// What the decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// The ReplicaSets that it controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Pods of ReplicaSets other than the one of the present template that may still run. Looked at by Recreate only.
    pub old_pods_run: bool,
    pub now: Timestamp,
}

/// One step. Steps are done in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create {
        set: Box<ReplicaSet>,
    },
    /// Replace a ReplicaSet; `scaled` are the numbers before and after, when they differ.
    Update {
        set: Box<ReplicaSet>,
        scaled: Option<(i32, i32)>,
    },
    /// Delete a ReplicaSet beyond `revisionHistoryLimit`.
    Delete {
        name: String,
    },
    /// Note the revision on the Deployment itself.
    Annotate {
        revision: String,
    },
}

/// What to do, what to publish, and when to look again.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub status: DeploymentStatus,
    pub wake_at: Option<Timestamp>,
}

/// Decides.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut work = Work::new(observed);
    let deployment = observed.deployment;
    let mut status = deployment.status.clone().unwrap_or_default();
    if deployment.metadata.deletion_timestamp.is_some() {
        return work.finish(status, false);
    }
    progress::note_pause(deployment, &mut status, observed.now);
    let paused = deployment.spec.paused == Some(true);
    if paused || work.is_scaling() {
        work.scale();
        if paused {
            work.clean_up();
        }
        return work.finish(status, false);
    }
    if bounds::is_recreate(deployment) {
        work.recreate(&mut status);
    } else {
        work.roll(&mut status);
    }
    work.finish(status, true)
}

/// The ReplicaSets as they become while the plan is made.
#[derive(Clone, Debug)]
struct Work<'a> {
    observed: &'a Observed<'a>,
    /// The one with the present template.
    new: Option<View>,
    old: Vec<View>,
    deleted: Vec<String>,
    annotate: Option<String>,
}

/// One ReplicaSet, as it is and as it is to be.
#[derive(Clone, Debug)]
struct View {
    /// `None` for one that is to be created.
    before: Option<Arc<ReplicaSet>>,
    set: ReplicaSet,
}

impl View {
    /// Pods wanted.
    fn replicas(&self) -> i32 {
        self.set.spec.replicas.unwrap_or(1)
    }

    /// Pods that exist.
    fn actual(&self) -> i32 {
        self.set.status.as_ref().map_or(0, |status| status.replicas)
    }

    fn ready(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
    }

    fn terminating(&self) -> i32 {
        self.set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
    }

    fn name(&self) -> &str {
        self.set.metadata.name.as_deref().unwrap_or_default()
    }

    /// The step that makes it so, if it differs.
    fn action(&self) -> Option<Action> {
        let set = || Box::new(self.set.clone());
        match &self.before {
            None => Some(Action::Create { set: set() }),
            Some(before) if **before == self.set => None,
            Some(before) => {
                let (from, to) = (before.spec.replicas.unwrap_or(1), self.replicas());
                Some(Action::Update { set: set(), scaled: (from != to).then_some((from, to)) })
            }
        }
    }
}

impl<'a> Work<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let deployment = observed.deployment;
        let mut sets: Vec<&Arc<ReplicaSet>> = observed.sets.iter().collect();
        sets.sort_by(|a, b| make::age_order(a, b));
        let new = sets.iter().position(|set| is_same_template(deployment, set));
        let view = |set: &Arc<ReplicaSet>| View { before: Some(set.clone()), set: (**set).clone() };
        let (mut new_view, mut old) = (None, Vec::new());
        for (n, set) in sets.into_iter().enumerate() {
            if Some(n) == new {
                new_view = Some(view(set));
            } else {
                old.push(view(set));
            }
        }
        Self { observed, new: new_view, old, deleted: Vec::new(), annotate: None }
    }

    fn deployment(&self) -> &'a Deployment {
        self.observed.deployment
    }

    fn all(&self) -> impl Iterator<Item = &View> {
        self.old.iter().chain(&self.new)
    }

    fn wanted(&self) -> i32 {
        bounds::replicas(self.deployment())
    }

    /// Sum over all ReplicaSets of the pods they want.
    fn total(&self) -> i32 {
        self.all().map(View::replicas).sum()
    }

    /// Sets the size of one ReplicaSet, and with it the annotations by which scaling is recognised.
    fn resize(deployment: &Deployment, view: &mut View, to: i32) -> bool {
        let noted = annotations::note_size(deployment, &mut view.set);
        let resized = view.replicas() != to;
        if resized {
            view.set.spec.replicas = Some(to);
        }
        resized || noted
    }

    fn finish(self, mut status: DeploymentStatus, rolling: bool) -> Plan {
        status::count(&self, &mut status);
        let wake_at = if rolling { progress::note(&self, &mut status) } else { None };
        let mut actions: Vec<Action> = self.new.iter().chain(&self.old).filter_map(View::action).collect();
        actions.retain(|action| !matches!(action, Action::Update { set, .. } if self.is_deleted(set)));
        actions.extend(self.deleted.iter().map(|name| Action::Delete { name: name.clone() }));
        actions.extend(self.annotate.map(|revision| Action::Annotate { revision }));
        Plan { actions, status, wake_at }
    }

    fn is_deleted(&self, set: &ReplicaSet) -> bool {
        self.deleted.iter().any(|name| Some(name) == set.metadata.name.as_ref())
    }
}

#[cfg(test)]
mod stories;
