//! The ReplicaSet of the present pod template.

use std::cmp::Ordering;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::annotations::{self, HASH_LABEL};
use crate::history::{canonical, safe_encode};
use crate::owner::controller_ref;

/// The reference that ReplicaSets have to their Deployment.
#[must_use]
pub fn set_ref(deployment: &Deployment) -> OwnerReference {
    controller_ref("apps/v1", "Deployment", &deployment.metadata)
}

/// Whether a ReplicaSet is of the present template of the Deployment; the hash label does not count.
#[must_use]
pub fn is_same_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(HASH_LABEL);
        }
        template
    };
    set.spec.template.as_ref().is_some_and(|template| bare(template) == bare(&deployment.spec.template))
}

/// The hash that names ReplicaSets: FNV-1a over the template's canonical JSON and the collision count.
///
/// Upstream hashes a dump of Go structures, which nothing but Go can make; only that it is stable matters.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut bytes = canonical(&serde_json::to_value(template).unwrap_or_default()).into_bytes();
    if collisions > 0 {
        bytes.extend(collisions.to_le_bytes());
    }
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(&hash.to_string())
}

/// The ReplicaSet for the present template, without pods yet.
pub(super) fn new_set(deployment: &Deployment, revision: i64) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let mut template = deployment.spec.template.clone();
    let hash = template_hash(&template, collisions);
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    let mut selector = deployment.spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.to_owned(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![set_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            selector,
            template: Some(template),
        },
        status: None,
    };
    annotations::note_revision(deployment, &mut set, revision);
    annotations::note_size(deployment, &mut set);
    set
}

/// Oldest first.
pub(super) fn age_order(a: &ReplicaSet, b: &ReplicaSet) -> Ordering {
    let age = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    age(a).cmp(&age(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}
