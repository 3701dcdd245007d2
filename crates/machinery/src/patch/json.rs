//! JSON patches (RFC 6902), with upstream's errors.

use serde_json::Value;

use super::unprocessable;
use crate::ApiError;
use crate::status::Reason;

/// The longest patch that is applied, as upstream limits it.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a list of operations.
///
/// # Errors
/// `Invalid` without a cause when an operation is unknown or does not fit, as upstream; too many operations.
pub fn apply(mut target: Value, patch: &Value) -> Result<Value, ApiError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        let text = format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, text));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|_| unprocessable())?;
    json_patch::patch(&mut target, &patch).map_err(|_| unprocessable())?;
    Ok(target)
}
