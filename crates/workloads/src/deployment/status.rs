//! The numbers of a Deployment's status, and what they mean.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::{View, Work, bounds, progress};

/// Counts pods over all ReplicaSets, and says whether enough of them are available.
pub(super) fn count(work: &Work<'_>, status: &mut DeploymentStatus) {
    let deployment = work.deployment();
    let sum = |number: fn(&View) -> i32| work.all().map(number).sum::<i32>();
    let number = |number: i32| Some(number).filter(|number| *number != 0);
    let available = sum(View::available);
    status.observed_generation = deployment.metadata.generation;
    status.replicas = number(sum(View::actual));
    status.updated_replicas = number(work.new.as_ref().map_or(0, View::actual));
    status.ready_replicas = number(sum(View::ready));
    status.available_replicas = number(available);
    status.unavailable_replicas = number((work.total() - available).max(0));
    status.terminating_replicas = Some(sum(View::terminating));
    let enough = available >= work.wanted() - bounds::max_unavailable(deployment);
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    progress::set(status, "Available", state, reason, message.to_owned(), work.observed.now);
}

/// Whether the roll-out is finished, by the status of the ReplicaSets as they are.
pub(super) fn is_complete(work: &Work<'_>) -> bool {
    let mut status = DeploymentStatus::default();
    count(work, &mut status);
    is_complete_status(work.deployment(), &status)
}

pub(super) fn is_complete_status(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = bounds::replicas(deployment);
    let all = [status.updated_replicas, status.replicas, status.available_replicas];
    all.into_iter().all(|number| number.unwrap_or(0) == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// The new ReplicaSet has been scaled for the Deployment as it is, and all its pods are available.
pub(super) fn is_saturated(deployment: &Deployment, new: &View) -> bool {
    let wanted = bounds::replicas(deployment);
    let desired = |set: &ReplicaSet| {
        super::annotations::number(set.metadata.annotations.as_ref(), super::annotations::DESIRED_ANNOTATION)
    };
    new.replicas() == wanted && desired(&new.set) == Some(i64::from(wanted)) && new.available() == wanted
}
