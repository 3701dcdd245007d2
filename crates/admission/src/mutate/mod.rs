//! What the built-in admission plugins change or refuse, in upstream's order.

pub(crate) mod lifecycle;

use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::ApiError;

use crate::context::Context;

/// Before validation of a create.
pub(crate) fn create(_kind: &Kind, _object: &mut Value, _ctx: &mut Context<'_>) -> Result<(), ApiError> {
    Ok(())
}

/// Before validation of an update.
pub(crate) fn update(
    _kind: &Kind,
    _new: &mut Value,
    _old: &Value,
    _sub: Option<Subresource>,
    _ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    Ok(())
}

/// After validation of a create: what is only done for an object that is otherwise fine.
pub(crate) fn after_create(_kind: &Kind, _object: &mut Value, _ctx: &mut Context<'_>) -> Result<(), ApiError> {
    Ok(())
}

/// After validation of an update.
pub(crate) fn after_update(
    _kind: &Kind,
    _new: &mut Value,
    _old: &Value,
    _sub: Option<Subresource>,
    _ctx: &mut Context<'_>,
) -> Result<(), ApiError> {
    Ok(())
}
