//! The look-ups that several components share, by the name they are registered under.
//!
//! A component adds an index with [`crate::Cache::add_index`]; adding the same one twice does nothing.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;

/// Objects by the uid of their controlling owner; objects without one are under `""` plus their namespace,
/// see [`orphans_of`].
pub const CONTROLLER_UID: &str = "controller-uid";
/// Pods by `spec.nodeName`; pods that are not assigned yet are under `""`.
pub const NODE_NAME: &str = "node-name";
/// Pods by `namespace/claim` for every claim that they mount.
pub const CLAIM_NAME: &str = "claim-name";

/// The owner reference that has `controller: true`.
pub fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The value under which [`CONTROLLER_UID`] keeps the objects of a namespace that have no controller.
#[must_use]
pub fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// For [`CONTROLLER_UID`].
pub fn by_controller<K: Resource>(object: &K) -> Vec<String> {
    vec![match controller_of(object) {
        Some(owner) => owner.uid.clone(),
        None => orphans_of(object.meta().namespace.as_deref().unwrap_or_default()),
    }]
}

/// For [`NODE_NAME`].
#[must_use]
pub fn by_node(pod: &Pod) -> Vec<String> {
    vec![pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()]
}

/// For [`CLAIM_NAME`]. Claims of generic ephemeral volumes are named `<pod>-<volume>`.
#[must_use]
pub fn by_claim(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(format!("{namespace}/{}", claim.claim_name)),
            (None, Some(_)) => Some(format!("{namespace}/{name}-{}", volume.name)),
            (None, None) => None,
        })
        .collect()
}
