//! Is this object well formed: upstream's rules with upstream's texts, one file per family of kinds.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/*/validation` and `k8s.io/apimachinery/pkg/api/validation`.

mod meta;

pub(crate) use meta::Raw;

use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::FieldErrors;

/// Judges a new object.
pub(crate) fn create(kind: &Kind, object: &Value, errors: &mut FieldErrors, _warnings: &mut Vec<String>) {
    meta::create(kind, object, errors);
}

/// Judges a change.
pub(crate) fn update(
    _kind: &Kind,
    new: &Value,
    old: &Value,
    _sub: Option<Subresource>,
    errors: &mut FieldErrors,
    _warnings: &mut Vec<String>,
) {
    meta::update(new, old, errors);
}
