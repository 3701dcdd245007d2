//! The annotations by which a Deployment and its ReplicaSets remember revisions and sizes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::bounds;

pub const REVISION_ANNOTATION: &str = "deployment.kubernetes.io/revision";
/// Earlier revision numbers of a ReplicaSet that was rolled back to, separated by commas.
pub const HISTORY_ANNOTATION: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";
/// On the pods and ReplicaSets of a Deployment: which template they are of.
pub const HASH_LABEL: &str = "pod-template-hash";

/// Longest [`HISTORY_ANNOTATION`], in bytes; the oldest numbers are dropped.
const HISTORY_MAX: usize = 2000;
/// What is not copied from a Deployment to its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION_ANNOTATION,
    HISTORY_ANNOTATION,
    DESIRED_ANNOTATION,
    MAX_ANNOTATION,
    "deprecated.deployment.rollback.to",
];

/// The revision number of a ReplicaSet; 0 without one.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set.metadata.annotations.as_ref(), REVISION_ANNOTATION).unwrap_or(0)
}

pub(super) fn number(annotations: Option<&BTreeMap<String, String>>, key: &str) -> Option<i64> {
    annotations?.get(key)?.parse().ok()
}

/// Notes for which size of the Deployment a ReplicaSet was scaled; whether that is news.
pub(super) fn note_size(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let desired = bounds::replicas(deployment);
    let max = desired + bounds::max_surge(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [(DESIRED_ANNOTATION, desired), (MAX_ANNOTATION, max)] {
        changed |= annotations.insert(key.to_owned(), value.to_string()) != Some(value.to_string());
    }
    changed
}

/// Copies the Deployment's annotations to the ReplicaSet of its present template and gives it its revision number,
/// unless it has a higher one.
pub(super) fn note_revision(deployment: &Deployment, set: &mut ReplicaSet, newest: i64) {
    let before = revision(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let own = deployment.metadata.annotations.iter().flatten();
    for (key, value) in own.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())) {
        annotations.insert(key.clone(), value.clone());
    }
    if before >= newest {
        return;
    }
    let old = annotations.insert(REVISION_ANNOTATION.to_owned(), newest.to_string());
    if let Some(old) = old.filter(|old| !old.is_empty()) {
        let history = annotations.entry(HISTORY_ANNOTATION.to_owned()).or_default();
        if !history.is_empty() {
            history.push(',');
        }
        history.push_str(&old);
        while history.len() > HISTORY_MAX {
            match history.split_once(',') {
                Some((_, rest)) => *history = rest.to_owned(),
                None => break,
            }
        }
    }
}
