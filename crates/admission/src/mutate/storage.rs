//! Finalizers, default class and growth of claims; transition times of volumes.

use serde_json::Value;
use stead_api::Kind;
use stead_machinery::ApiError;
use stead_machinery::time::rfc3339;

use super::pod::push;
use crate::context::{Context, Lookup};
use crate::view::{Fill, View, quantity};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// `StorageObjectInUseProtection`.
pub(super) fn protect(object: &mut Value, finalizer: &str) {
    if !object.items("metadata.finalizers").iter().any(|f| f.as_str() == Some(finalizer))
        && let Some(metadata) = object.at_mut("metadata")
    {
        push(metadata, "finalizers", finalizer.into());
    }
}

/// `DefaultStorageClass`: the newest class that is marked as default, then the first by name.
pub(super) fn default_class(claim: &mut Value, ctx: &Context<'_>) {
    if claim.has("spec.storageClassName") || claim.at("metadata.annotations").get(BETA_CLASS).is_some() {
        return;
    }
    if let (Some(name), Some(spec)) = (default_class_name(ctx.lookup), claim.object("spec")) {
        spec.insert("storageClassName".to_owned(), name.into());
    }
}

/// The name of the default class.
pub(crate) fn default_class_name(lookup: &dyn Lookup) -> Option<String> {
    let mut defaults = lookup.list("storage.k8s.io", "storageclasses", None);
    defaults.retain(|class| {
        let annotations = class.entries("metadata.annotations");
        DEFAULT_CLASS.iter().any(|key| annotations.get(*key).and_then(Value::as_str) == Some("true"))
    });
    // Times in RFC 3339 of one zone sort as texts.
    defaults.sort_by(|a, b| {
        let key = |c: &Value| (c.text("metadata.creationTimestamp").to_owned(), c.text("metadata.name").to_owned());
        key(b).0.cmp(&key(a).0).then_with(|| key(a).1.cmp(&key(b).1))
    });
    defaults.first().map(|class| class.text("metadata.name").to_owned())
}

/// `PersistentVolumeClaimResize`: only a bound claim of a class that allows it may grow.
pub(super) fn resize(kind: &Kind, new: &Value, old: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let size = |claim: &Value| quantity(claim.at("spec.resources.requests.storage"));
    if size(new) <= size(old) {
        return Ok(());
    }
    let name = new.text("metadata.name");
    if old.text("status.phase") != "Bound" {
        return Err(ApiError::forbidden(kind, name, "Only bound persistent volume claims can be expanded"));
    }
    let class_name = new.text("spec.storageClassName");
    let class = ctx.lookup.get("storage.k8s.io", "storageclasses", "", class_name);
    let same_class = class_name == old.text("spec.storageClassName") && !class_name.is_empty();
    if same_class && class.is_some_and(|class| class.flag("allowVolumeExpansion") == Some(true)) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(ApiError::forbidden(kind, name, why))
}

/// When a volume's phase changed last.
pub(super) fn phase_time(volume: &mut Value, old: Option<&Value>, ctx: &Context<'_>) {
    let time = "lastPhaseTransitionTime";
    let moved = old.is_none_or(|old| old.text("status.phase") != volume.text("status.phase"));
    let untouched = old.is_none_or(|old| old.at("status").get(time) == volume.at("status").get(time));
    if moved
        && untouched
        && let Some(status) = volume.at_mut("status")
    {
        status.put(time, rfc3339(ctx.now));
    }
}
