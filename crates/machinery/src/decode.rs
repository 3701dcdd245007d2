//! Request bodies into objects: types checked against the schema, unknown and duplicate fields found and pruned.
//!
//! One streaming pass builds the object. As Go's decoder does, it goes on after a wrong type and reports the first one.
//! What a Go round trip would lose is lost here: nulls, empty maps and lists of optional fields; quantities and times get
//! their canonical form. Source of the texts: `encoding/json`, `sigs.k8s.io/json`, `k8s.io/apiserver/pkg/endpoints/handlers`.

mod walk;

use std::fmt::Write as _;

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use stead_api::schema::{Shape, TypeId, schema};
use stead_api::{Kind, kinds};

use self::walk::{Seed, Walk};
use crate::ApiError;
use crate::gojson::syntax_error;
use crate::status::Reason;

/// The largest body that is decoded, as upstream limits requests.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// What is to be done about unknown and duplicate fields: the query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped with a warning each.
    #[default]
    Warn,
    /// They are an error.
    Strict,
}

impl FieldValidation {
    /// From the query parameter; empty is the default. `None`: not one of upstream's three.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// A body as it came or as another step made it.
#[derive(Debug)]
pub enum Content<'a> {
    Json(&'a [u8]),
    /// Parsed already, for example from YAML.
    Value(Value),
}

/// What a body has to be.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub schema: TypeId,
}

impl<'a> Target<'a> {
    #[must_use]
    pub fn of(kind: &'a Kind) -> Self {
        Self { group: kind.group, version: kind.version, kind: kind.kind, schema: schema().of(kind) }
    }

    /// The body of a sub-resource or of a request itself: `("autoscaling", "v1", "Scale")`, `("", "v1", "DeleteOptions")`.
    #[must_use]
    pub fn named(group: &'a str, version: &'a str, kind: &'a str) -> Option<Self> {
        let schema = schema();
        let id = schema
            .of_object(group, version, kind)
            .or_else(|| schema.find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))?;
        Some(Self { group, version, kind, schema: id })
    }

    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Decodes the body of a request for `kind`; see [`decode_as`].
///
/// # Errors
/// `BadRequest` with upstream's text, `RequestEntityTooLarge` above [`MAX_BODY_BYTES`].
pub fn decode(
    kind: &Kind,
    content: Content<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    decode_as(&Target::of(kind), content, validation)
}

/// Decodes a body into an object of the target's type. The result says `apiVersion` and `kind`; the list holds warnings.
///
/// # Errors
/// `BadRequest` with upstream's text, `RequestEntityTooLarge` above [`MAX_BODY_BYTES`].
pub fn decode_as(
    target: &Target<'_>,
    content: Content<'_>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let mut walk = Walk::new(schema(), validation != FieldValidation::Ignore);
    let mut object = match content {
        Content::Json(bytes) => parse(target, bytes, &mut walk)?,
        Content::Value(value) => from_value(target, &value, &mut walk),
    };
    identify(target, &mut object)?;
    if let Some(fault) = walk.fault {
        return Err(cannot_be_handled(target, &fault.json));
    }
    if validation == FieldValidation::Strict && !walk.strict.is_empty() {
        return Err(cannot_be_handled(target, &strict_error(&walk.strict)));
    }
    Ok((Value::Object(object), walk.strict))
}

/// A value that is not of its type, in the words of Go's JSON decoder and of upstream's converter of unstructured objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) json: String,
    pub(crate) convert: String,
}

/// Checks an object made of another one by a patch: the object, and its unknown fields.
pub(crate) fn recheck(target: &Target<'_>, value: &Value) -> Result<(Map<String, Value>, Vec<String>), Fault> {
    let mut walk = Walk::new(schema(), true);
    let mut object = from_value(target, value, &mut walk);
    if let Some(fault) = walk.fault {
        return Err(fault);
    }
    match identify(target, &mut object) {
        Ok(()) => Ok((object, walk.strict)),
        Err(error) => {
            let text = error.message.split_once(": ").map_or(error.message.as_str(), |(_, why)| why);
            Err(Fault { json: text.to_owned(), convert: text.to_owned() })
        }
    }
}

/// Duplicate keys of a JSON text that no schema describes, and the value; the error is Go's.
pub(crate) fn parse_free(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut walk = Walk::new(schema(), true);
    let mut stream = serde_json::Deserializer::from_slice(bytes);
    let result = Seed::new(&mut walk, Shape::Any, None).deserialize(&mut stream);
    match result.and_then(|value| stream.end().map(|()| value)) {
        Ok(value) => Ok((value.unwrap_or_default(), walk.strict)),
        Err(error) => Err(match syntax_error(bytes) {
            go if go.is_empty() => error.to_string(),
            go => go,
        }),
    }
}

pub(crate) fn strict_error(strict: &[String]) -> String {
    format!("strict decoding error: {}", strict.join(", "))
}

fn from_value(target: &Target<'_>, value: &Value, walk: &mut Walk<'_>) -> Map<String, Value> {
    let seed = Seed::new(walk, Shape::Struct(target.schema), None);
    as_object(seed.deserialize(value).unwrap_or(None))
}

fn as_object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn parse(target: &Target<'_>, bytes: &[u8], walk: &mut Walk<'_>) -> Result<Map<String, Value>, ApiError> {
    if bytes.len() > MAX_BODY_BYTES {
        let text = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
        return Err(ApiError::new(Reason::RequestEntityTooLarge, text));
    }
    let mut stream = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed::new(walk, Shape::Struct(target.schema), None);
    let result = seed.deserialize(&mut stream).and_then(|value| stream.end().map(|()| value));
    result.map(as_object).map_err(|error| {
        let words = match syntax_error(bytes) {
            go if go.is_empty() => error.to_string(),
            go => go,
        };
        unrecognized(target, &format!("couldn't get version/kind; json parse error: {words}"), bytes)
    })
}

/// Checks what the object says it is, and writes what it is.
fn identify(target: &Target<'_>, object: &mut Map<String, Value>) -> Result<(), ApiError> {
    let said = |key: &str| object.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
    let wanted = target.api_version();
    let (version, kind) = (said("apiVersion").unwrap_or(&wanted), said("kind").unwrap_or(target.kind));
    if (version, kind) != (&wanted, target.kind) {
        return Err(mismatch(target, version, kind));
    }
    object.insert("apiVersion".into(), wanted.into());
    object.insert("kind".into(), target.kind.into());
    Ok(())
}

fn mismatch(target: &Target<'_>, api_version: &str, kind: &str) -> ApiError {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let wanted = target.api_version();
    let head = format!("{kind} in version {version:?} cannot be handled as a {}", target.kind);
    if kinds::by_kind(group, version, kind).is_none() {
        let scheme = "pkg/api/legacyscheme/scheme.go:30";
        return ApiError::bad_request(format!(
            "{head}: no kind {kind:?} is registered for version {api_version:?} in scheme {scheme:?}"
        ));
    }
    if kind == target.kind && group == target.group {
        let text =
            format!("the API version in the data ({api_version}) does not match the expected API version ({wanted})");
        return ApiError::bad_request(text);
    }
    let internal = match target.group.split('.').next() {
        Some("") | None => "core",
        Some(first) => first,
    };
    let conversion = format!("converting ({version}.{kind}) to ({internal}.{}): unknown conversion", target.kind);
    ApiError::bad_request(format!("{head}: {conversion}"))
}

fn cannot_be_handled(target: &Target<'_>, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}",
        kind = target.kind,
        version = target.version
    ))
}

fn unrecognized(target: &Target<'_>, why: &str, bytes: &[u8]) -> ApiError {
    let data = summary(bytes);
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({data})",
        target.kind
    ))
}

/// The beginning of a body, as upstream's errors show it.
fn summary(bytes: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = &bytes[..bytes.len().min(SHOWN)];
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let mut hex = String::new();
            for byte in head {
                let _ = write!(hex, "{byte:02x}");
            }
            hex + more
        }
    }
}

#[cfg(test)]
mod tests;
