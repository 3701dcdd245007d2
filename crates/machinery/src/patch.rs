//! The three kinds of patch that a PATCH request can carry, and the diffs that make them.
//!
//! [`apply`] is the whole way of such a request: parse, merge, check against the schema, with upstream's errors.
//! Source of the texts: `k8s.io/apiserver/pkg/endpoints/handlers` (patch), `k8s.io/apimachinery/pkg/util/mergepatch`.

pub mod diff;
pub mod json;
pub mod merge;
mod order;
pub mod strategic;

use serde_json::{Map, Value};
use stead_api::Kind;
use stead_api::schema::{Shape, schema};

pub use self::strategic::StrategicError;
use crate::decode::{self, Fault, FieldValidation, Target};
use crate::field::{FieldErrorKind, FieldErrors, Path, Shown, go_quote};
use crate::status::Reason;
use crate::{ApiError, gojson};

/// The kinds of patch, by media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// Applies a patch to the live object of a kind. The result has been checked against the schema; the list holds warnings.
///
/// # Errors
/// With upstream's reasons and texts; `Unknown` (HTTP 500) where upstream gives its raw error.
pub fn apply(
    kind: &Kind,
    patch_type: PatchType,
    live: &Value,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    apply_as(&Target::of(kind), patch_type, live, patch, validation)
}

/// As [`apply`], for a sub-resource with a type of its own, such as a Scale.
///
/// # Errors
/// As [`apply`].
pub fn apply_as(
    target: &Target<'_>,
    patch_type: PatchType,
    live: &Value,
    patch: &[u8],
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let (parsed, duplicates) = parse(patch_type, patch, validation)?;
    let shown = |patched: &Value| match patch_type {
        PatchType::Strategic => go_value(&parsed),
        PatchType::Json | PatchType::Merge => patched.to_string(),
    };
    let patched = match patch_type {
        PatchType::Json => json::apply(live.clone(), &parsed)?,
        PatchType::Merge => {
            let mut patched = live.clone();
            merge::apply(&mut patched, parsed.clone());
            patched
        }
        PatchType::Strategic => {
            let shape = Shape::Struct(target.schema);
            strategic::apply(schema(), shape, live.clone(), parsed.clone()).map_err(strategic_error)?
        }
    };
    let (object, unknown) = decode::recheck(target, &patched).map_err(|fault| {
        let Fault { json, convert } = fault;
        let why = if patch_type == PatchType::Strategic { convert } else { json };
        invalid_patch(&shown(&patched), &why)
    })?;
    let mut warnings = duplicates;
    warnings.extend(unknown);
    match validation {
        FieldValidation::Strict if !warnings.is_empty() => {
            Err(invalid_patch(&shown(&patched), &decode::strict_error(&warnings)))
        }
        FieldValidation::Ignore => Ok((object.into(), Vec::new())),
        FieldValidation::Strict | FieldValidation::Warn => Ok((object.into(), warnings)),
    }
}

/// Parses the text of a patch, and checks that it is a list or an object as its kind demands.
fn parse(patch_type: PatchType, patch: &[u8], validation: FieldValidation) -> Result<(Value, Vec<String>), ApiError> {
    let strict = validation != FieldValidation::Ignore;
    let refuse = |why: &str| {
        let text = match patch_type {
            _ if strict => format!("error decoding patch: {why}"),
            PatchType::Merge => "Invalid JSON Patch".to_owned(),
            PatchType::Json | PatchType::Strategic => why.to_owned(),
        };
        ApiError::bad_request(text)
    };
    let (value, duplicates) = decode::parse_free(patch).map_err(|why| refuse(&why))?;
    let (fits, wanted) = match patch_type {
        PatchType::Json => (value.is_array(), if strict { "[]interface {}" } else { "jsonpatch.Patch" }),
        PatchType::Merge | PatchType::Strategic => (value.is_object(), "map[string]interface {}"),
    };
    if !fits {
        return Err(refuse(&format!("json: cannot unmarshal {} into Go value of type {wanted}", kind_of(&value))));
    }
    Ok((value, duplicates))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn strategic_error(error: StrategicError) -> ApiError {
    let text = error.to_string();
    match error {
        StrategicError::RetainKeys | StrategicError::SetOrder | StrategicError::PrimitiveList => {
            ApiError::bad_request(text)
        }
        StrategicError::ListOfLists => unprocessable(),
        _ => ApiError::new(Reason::Unknown, text),
    }
}

/// HTTP 422 without a cause: upstream hides why a JSON patch does not fit.
fn unprocessable() -> ApiError {
    let mut error = ApiError::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    error.details = Value::Object(Map::new());
    error
}

/// ` "" is invalid: patch: Invalid value: "SHOWN": WHY`: upstream's error names no object here.
fn invalid_patch(shown: &str, why: &str) -> ApiError {
    let mut errors = FieldErrors::default();
    let message = format!("Invalid value: {}: {why}", go_quote(shown));
    errors.push(FieldErrorKind::Invalid, &Path::new("patch"), message);
    let text = format!(" \"\" is invalid: {}", errors.0[0]);
    let causes: Vec<Value> = errors
        .0
        .iter()
        .map(|e| serde_json::json!({"reason": e.kind.reason(), "message": e.message, "field": e.field}))
        .collect();
    ApiError { details: serde_json::json!({"causes": causes}), ..ApiError::new(Reason::Invalid, text) }
}

/// A JSON value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
#[must_use]
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let entries: Vec<String> = entries.into_iter().map(|(key, v)| format!("{key}:{}", go_value(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.shown(),
    }
}

/// Go's words for a text that is not JSON; for callers that parse patches themselves (YAML of server-side apply).
#[must_use]
pub fn json_error(text: &[u8]) -> String {
    gojson::syntax_error(text)
}

#[cfg(test)]
mod tests;
