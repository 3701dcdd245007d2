//! Rolling update, Recreate, and what is cleaned up after them.

use k8s_openapi::api::apps::v1::DeploymentStatus;

use super::{View, Work, annotations, bounds, make, progress, status};

impl Work<'_> {
    /// Makes room, brings the new one up, takes the old ones down; one kind of step per plan, as upstream does.
    pub(super) fn roll(&mut self, status: &mut DeploymentStatus) {
        self.ensure_new(status);
        if self.grow_new() {
            return;
        }
        if self.shrink_old() {
            return;
        }
        if status::is_complete(self) {
            self.clean_up();
        }
    }

    /// Takes everything old down, waits until it is gone, then brings the new one up.
    pub(super) fn recreate(&mut self, status: &mut DeploymentStatus) {
        if self.new.is_some() {
            self.ensure_new(status);
        }
        let deployment = self.deployment();
        let mut shrunk = false;
        for old in self.old.iter_mut().filter(|old| old.replicas() > 0) {
            shrunk |= Self::resize(deployment, old, 0);
        }
        let may_run = self.old.iter().any(|old| old.actual() > 0) || self.observed.old_pods_run;
        if shrunk || may_run {
            return;
        }
        self.ensure_new(status);
        let wanted = self.wanted();
        if let Some(new) = &mut self.new {
            Self::resize(deployment, new, wanted);
        }
        if status::is_complete(self) {
            self.clean_up();
        }
    }

    /// The ReplicaSet of the present template, with its revision; created when there is none.
    fn ensure_new(&mut self, status: &mut DeploymentStatus) {
        let deployment = self.deployment();
        let newest = self.old.iter().map(|old| annotations::revision(&old.set)).max().unwrap_or(0) + 1;
        let existed = self.new.is_some();
        if let Some(new) = &mut self.new {
            if new.before.is_some() {
                annotations::note_revision(deployment, &mut new.set, newest);
                new.set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
            }
        } else {
            self.new = Some(View { before: None, set: make::new_set(deployment, newest) });
            let size = self.room_for_new();
            if let Some(new) = &mut self.new {
                new.set.spec.replicas = Some(size);
            }
        }
        let Some(new) = &self.new else { return };
        let revision = annotations::revision(&new.set);
        let noted = annotations::number(deployment.metadata.annotations.as_ref(), annotations::REVISION_ANNOTATION);
        self.annotate = (noted != Some(revision)).then(|| revision.to_string());
        progress::note_new(deployment, status, new.name(), existed, self.observed.now);
    }

    /// Brings the new one to the size that surge allows; whether that changed anything.
    fn grow_new(&mut self) -> bool {
        let deployment = self.deployment();
        let (wanted, size) = (self.wanted(), self.room_for_new());
        match &mut self.new {
            Some(new) if new.before.is_none() || new.replicas() == wanted => false,
            Some(new) => Self::resize(deployment, new, size.min(wanted)),
            None => false,
        }
    }

    /// The size that the new one may have.
    fn room_for_new(&self) -> i32 {
        let have = self.new.as_ref().map_or(0, View::replicas);
        if bounds::is_recreate(self.deployment()) {
            return self.wanted();
        }
        let room = self.wanted() + bounds::max_surge(self.deployment()) - self.total();
        if room <= 0 { have } else { have + room.min(self.wanted() - have) }
    }

    /// First the pods of old ones that are not available anyway, then as many others as may be missing.
    fn shrink_old(&mut self) -> bool {
        let deployment = self.deployment();
        if self.old.iter().all(|old| old.replicas() == 0) {
            return false;
        }
        let least = self.wanted() - bounds::max_unavailable(deployment);
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.replicas() - new.available());
        let mut spare = self.total() - least - new_unavailable;
        if spare <= 0 {
            return false;
        }
        let mut changed = false;
        for old in self.old.iter_mut().filter(|old| old.replicas() > old.available()) {
            let less = spare.min(old.replicas() - old.available()).max(0);
            if less > 0 {
                spare -= less;
                let to = old.replicas() - less;
                changed |= Self::resize(deployment, old, to);
            }
        }
        let mut surplus = self.all().map(View::available).sum::<i32>() - least;
        for old in self.old.iter_mut().filter(|old| old.replicas() > 0) {
            let less = surplus.min(old.replicas());
            if less > 0 {
                surplus -= less;
                let to = old.replicas() - less;
                changed |= Self::resize(deployment, old, to);
            }
        }
        changed
    }

    /// Removes empty old ReplicaSets beyond `revisionHistoryLimit`, oldest revision first.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.deployment().spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok())
        else {
            return;
        };
        let mut old: Vec<&View> = self.old.iter().filter(|old| old.set.metadata.deletion_timestamp.is_none()).collect();
        old.sort_by_key(|old| annotations::revision(&old.set));
        let excess = old.len().saturating_sub(limit);
        let is_idle = |old: &&&View| {
            let observed = old.set.status.as_ref().and_then(|status| status.observed_generation);
            old.replicas() == 0 && old.actual() == 0 && old.set.metadata.generation <= observed
        };
        self.deleted = old[..excess].iter().filter(is_idle).map(|old| old.name().to_owned()).collect();
    }
}
