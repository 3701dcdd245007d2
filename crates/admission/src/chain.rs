//! The entry points: strategy -> defaults -> mutation -> validation -> addresses and quota.

use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::{ApiError, FieldErrors};

use crate::context::Context;
use crate::view::{View, drop_nulls};
use crate::{defaults, mutate, strategy, validate};

/// May this object be created, and in what form.
///
/// The caller has set `metadata.name` (from `generateName` too), `namespace`, `uid` and `creationTimestamp` before.
/// Returns the texts of `Warning` headers. Addresses of a Service are allocated when all else is well; when the object
/// cannot be stored after that, give them back with [`crate::addresses::release`].
///
/// # Errors
/// Invalid (422), Forbidden (403) or NotFound (404) in upstream's words.
pub fn create(kind: &Kind, object: &mut Value, ctx: &mut Context<'_>) -> Result<Vec<String>, ApiError> {
    drop_nulls(object);
    mutate::lifecycle::create(kind, object, ctx)?;
    strategy::prepare_create(kind, object);
    defaults::apply(kind, object);
    mutate::create(kind, object, ctx)?;
    let mut errors = FieldErrors::default();
    let mut warnings = Vec::new();
    validate::create(kind, object, &mut errors, &mut warnings);
    judge(kind, object, &errors)?;
    mutate::after_create(kind, object, ctx)?;
    warnings.extend(mutate::pod_security::warn(kind, object, ctx));
    Ok(warnings)
}

/// May `old` become `new`, and in what form. `sub` is the sub-resource through which the request came; an update
/// through `scale` is one of the object itself (`None`).
///
/// Addresses that `old` held and `new` does not are the caller's to release after the write.
///
/// # Errors
/// Invalid (422) or Forbidden (403) in upstream's words.
pub fn update(
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    sub: Option<Subresource>,
    ctx: &mut Context<'_>,
) -> Result<Vec<String>, ApiError> {
    drop_nulls(new);
    strategy::prepare_update(kind, new, old, sub);
    defaults::apply(kind, new);
    mutate::update(kind, new, old, sub, ctx)?;
    let mut errors = FieldErrors::default();
    let mut warnings = Vec::new();
    validate::update(kind, new, old, sub, &mut errors, &mut warnings);
    judge(kind, new, &errors)?;
    mutate::after_update(kind, new, old, sub, ctx)?;
    if sub.is_none() && kind.kind != "Pod" {
        warnings.extend(mutate::pod_security::warn(kind, new, ctx));
    }
    Ok(warnings)
}

/// May this object be deleted.
///
/// # Errors
/// Forbidden (403) for the namespaces that the system lives in, and for pods of another node than the caller.
pub fn delete(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    mutate::delete(kind, object, ctx)
}

fn judge(kind: &Kind, object: &Value, errors: &FieldErrors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, object.text("metadata.name"), errors)) }
}
