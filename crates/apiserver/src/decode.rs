//! Bodies of requests into objects, and the bookkeeping of who manages which field.

use http::header;
use serde_json::Value;
use stead_api::{Kind, Subresource};
use stead_machinery::ApiError;
use stead_machinery::apply::{self, Write};
use stead_machinery::decode::{self, Content, Target};
use stead_machinery::protobuf;

use crate::chain::Call;
use crate::negotiate::{self, Media};
use crate::options::WriteOptions;

/// The object in the body of a create or update, with warnings about fields that were dropped.
pub(crate) fn object(kind: &Kind, call: &Call, options: &WriteOptions) -> Result<(Value, Vec<String>), ApiError> {
    object_as(&Target::of(kind), call, options)
}

/// As [`object`], for bodies that are no served kind: Scale, Binding, TokenRequest, ...
pub(crate) fn object_as(
    target: &Target<'_>,
    call: &Call,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let content = match negotiate::body_media(call.headers())? {
        Media::Json => Content::Json(&call.body),
        Media::Yaml => Content::Value(yaml(&call.body)?),
        Media::Protobuf => Content::Value(protobuf::decode(target, &call.body)?),
    };
    let (mut object, warnings) = decode::decode_as(target, content, options.field_validation)?;
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    Ok((object, warnings))
}

/// The options in the body of a delete, when there is a body.
pub(crate) fn delete_options(call: &Call) -> Result<Option<Value>, ApiError> {
    if call.body.is_empty() {
        return Ok(None);
    }
    let body = match negotiate::body_media(call.headers())? {
        Media::Json => serde_json::from_slice(&call.body).map_err(|e| ApiError::bad_request(e.to_string()))?,
        Media::Yaml => yaml(&call.body)?,
        Media::Protobuf => {
            let target =
                Target::named("", "v1", "DeleteOptions").ok_or_else(|| ApiError::internal("no DeleteOptions"))?;
            protobuf::decode(&target, &call.body)?
        }
    };
    Ok(Some(body))
}

pub(crate) fn yaml(text: &[u8]) -> Result<Value, ApiError> {
    serde_norway::from_slice(text)
        .map_err(|e| ApiError::bad_request(format!("error decoding YAML: error converting YAML to JSON: yaml: {e}")))
}

/// The write that a request is, as far as the record of field managers is concerned.
pub(crate) fn written<'a>(manager: &'a str, subresource: &'a str) -> Write<'a> {
    Write { manager, subresource, now: crate::source::now() }
}

/// The name of a request's field manager.
pub(crate) fn manager(options: &WriteOptions, call: &Call) -> String {
    let agent = call.headers().get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let agent = if agent.is_empty() { component(&call.user.name) } else { agent };
    apply::manager_name(&options.field_manager, agent)
}

/// What upstream's component of that identity calls itself: clients of our own components do not tell.
fn component(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-controller-manager" => "kube-controller-manager",
        user if user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        user if user.starts_with("system:node:") => "kubelet",
        _ => "",
    }
}

/// Notes in a new object who made which field. Defaults count as made by the request, as upstream, but for those that
/// are filled in where the object is stored.
pub(crate) fn manage_created(kind: &Kind, object: &mut Value, options: &WriteOptions, call: &Call) {
    let lacks = |field: &&&str| object["spec"].get(**field).is_none();
    let late: Vec<&str> = stead_admission::filled_late(kind).iter().filter(lacks).copied().collect();
    stead_admission::default(kind, object);
    let mut take = |field| Some((field, object["spec"].as_object_mut()?.remove(field)?));
    let taken: Vec<(&str, Value)> = late.into_iter().filter_map(&mut take).collect();
    apply::track(&Target::of(kind), None, object, written(&manager(options, call), ""));
    for (field, value) in taken {
        object["spec"][field] = value;
    }
}

/// Notes in a changed object who changed which field.
pub(crate) fn manage_updated(
    kind: &Kind,
    sub: Option<Subresource>,
    old: &Value,
    new: &mut Value,
    options: &WriteOptions,
    call: &Call,
) {
    stead_admission::default(kind, new);
    let subresource = sub.map_or("", Subresource::name);
    apply::track(&Target::of(kind), Some(old), new, written(&manager(options, call), subresource));
}
