//! Scaling without a roll-out: proportionally over all ReplicaSets when several have pods.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::Deployment;

use super::{View, Work, annotations, bounds, make, status};

impl Work<'_> {
    /// Whether the Deployment was scaled since its ReplicaSets were.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = i64::from(self.wanted());
        let desired =
            |view: &View| annotations::number(view.set.metadata.annotations.as_ref(), annotations::DESIRED_ANNOTATION);
        self.all().filter(|view| view.replicas() > 0).filter_map(desired).any(|desired| desired != wanted)
    }

    pub(super) fn scale(&mut self) {
        let (deployment, wanted) = (self.deployment(), self.wanted());
        if let Some(only) = self.active_or_latest() {
            if only.replicas() != wanted {
                Self::resize(deployment, only, wanted);
            }
            return;
        }
        if self.new.as_ref().is_some_and(|new| status::is_saturated(deployment, new)) {
            for old in self.old.iter_mut().filter(|old| old.replicas() > 0) {
                Self::resize(deployment, old, 0);
            }
            return;
        }
        if !bounds::is_recreate(deployment) {
            self.scale_proportionally();
        }
    }

    /// The only ReplicaSet with pods; without any, the new one or else the latest old one; `None` when several have.
    fn active_or_latest(&mut self) -> Option<&mut View> {
        let active = self.all().filter(|view| view.replicas() > 0).count();
        match active {
            0 if self.new.is_some() => self.new.as_mut(),
            0 => self.old.last_mut(),
            1 => self.old.iter_mut().chain(&mut self.new).find(|view| view.replicas() > 0),
            _ => None,
        }
    }

    /// The larger one gets the larger share of what is added or taken away; the rest goes to the largest.
    fn scale_proportionally(&mut self) {
        let deployment = self.deployment();
        let wanted = self.wanted();
        let allowed = if wanted > 0 { wanted + bounds::max_surge(deployment) } else { 0 };
        let change = allowed - self.total();
        let mut active: Vec<&mut View> =
            self.old.iter_mut().chain(&mut self.new).filter(|view| view.replicas() > 0).collect();
        active.sort_by(|a, b| {
            let by_age = make::age_order(&a.set, &b.set);
            let by_age = if change > 0 { by_age.reverse() } else { by_age };
            Reverse(a.replicas()).cmp(&Reverse(b.replicas())).then(by_age)
        });
        let mut given = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for view in &active {
            let part = if change == given { 0 } else { share(deployment, view, change - given) };
            given += part;
            sizes.push(view.replicas() + part);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + change - given).max(0);
        }
        for (view, size) in active.into_iter().zip(sizes) {
            Self::resize(deployment, view, size);
        }
    }
}

/// What a ReplicaSet gets of a change of which `left` is not given out yet.
fn share(deployment: &Deployment, view: &View, left: i32) -> i32 {
    let fraction = fraction(deployment, view);
    if left > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(deployment: &Deployment, view: &View) -> i32 {
    let wanted = bounds::replicas(deployment);
    if wanted == 0 {
        return -view.replicas();
    }
    let max = f64::from(wanted + bounds::max_surge(deployment));
    let noted = annotations::number(view.set.metadata.annotations.as_ref(), annotations::MAX_ANNOTATION);
    let existing = || deployment.status.as_ref().and_then(|status| status.replicas).map(i64::from);
    let before = noted.filter(|noted| *noted > 0).or_else(existing).filter(|before| *before > 0);
    let Some(before) = before.and_then(|before| i32::try_from(before).ok()) else { return 0 };
    let size = f64::from(view.replicas()) * max / f64::from(before);
    #[allow(clippy::cast_possible_truncation)] // Sizes are far below 2^31; the cast saturates.
    let size = size.round() as i32;
    size - view.replicas()
}
