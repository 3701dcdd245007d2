//! Patch: four ways to say what should change, then the way of every update.

use http::{StatusCode, header};
use serde_json::Value;
use stead_api::Subresource;
use stead_machinery::ApiError;
use stead_machinery::apply;
use stead_machinery::decode::Target as Schema;
use stead_machinery::patch::{PatchType, apply_as};
use stead_machinery::status::Reason;

use super::update::Change;
use super::{Target, create, render, write};
use crate::chain::Call;
use crate::decode;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::response::{self, Answer};
use crate::server::ApiServer;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// From the media type of the request.
    ///
    /// # Errors
    /// Unsupported media type (415).
    pub(crate) fn read(call: &Call) -> Result<Self, ApiError> {
        let content_type = call.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        match content_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => {
                let mut error = ApiError::new(Reason::UnsupportedMediaType, "415: Unsupported Media Type");
                error.details = serde_json::json!({});
                Err(error)
            }
        }
    }
}

pub(crate) async fn patch(
    server: &ApiServer,
    target: &Target,
    sub: Option<Subresource>,
    call: &Call,
) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let how = PatchKind::read(call)?;
    let options = WriteOptions::read("PatchOptions", &call.query, how == PatchKind::Apply)?;
    let wanted = if how == PatchKind::Apply { applied(target, call)? } else { Value::Null };
    let schema = Schema::of(target.kind);
    let mut warnings = Vec::new();
    let change = Change { target, sub, user: &call.user, dry_run: options.dry_run };
    let done = change
        .run(server, &mut |old: &Value| {
            if how == PatchKind::Apply {
                let write = decode::written(&options.field_manager, sub.map_or("", Subresource::name));
                return Ok(apply::apply(&schema, Some(old), &wanted, write, options.force)?.object);
            }
            let (mut new, dropped) = patched(how, &schema, old, &call.body, &options)?;
            warnings = dropped;
            same_name(target, &new)?;
            decode::manage_updated(target.kind, sub, old, &mut new, &options, call);
            Ok(new)
        })
        .await;
    let (code, entry, more) = match done {
        Ok(done) => (StatusCode::OK, done.entry, done.warnings),
        Err(error) if how == PatchKind::Apply && sub.is_none() && error.reason == Reason::NotFound => {
            let write = decode::written(&options.field_manager, "");
            let object = apply::apply(&schema, None, &wanted, write, options.force)?.object;
            let created = create::make(server, target.clone(), object, &options, call).await?;
            (StatusCode::CREATED, created.entry, created.warnings)
        }
        Err(error) => return Err(error),
    };
    warnings.extend(more);
    let mut answer = render::object(code, form, target.kind, &entry, call)?;
    response::warn(answer.headers_mut(), &warnings);
    Ok(answer)
}

/// The configuration of an apply, which need not repeat what the URL says.
fn applied(target: &Target, call: &Call) -> Result<Value, ApiError> {
    let mut config = decode::yaml(&call.body)?;
    same_name(target, &config)?;
    // Looked at, but not filled in: what the configuration does not say, the applier does not own.
    write::check_namespace(target, &mut config["metadata"].clone())?;
    if config.is_object() && config["metadata"].is_null() | config["metadata"].is_object() {
        config["metadata"]["name"] = target.name.clone().into();
    }
    Ok(config)
}

/// The object after the patch, and warnings about fields that were dropped from it.
pub(crate) fn patched(
    how: PatchKind,
    schema: &Schema<'_>,
    old: &Value,
    patch: &[u8],
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let kind = match how {
        PatchKind::Json => PatchType::Json,
        PatchKind::Merge => PatchType::Merge,
        PatchKind::Strategic => PatchType::Strategic,
        PatchKind::Apply => return Err(ApiError::internal("an apply is no patch")),
    };
    apply_as(schema, kind, old, patch, options.field_validation)
}

fn same_name(target: &Target, object: &Value) -> Result<(), ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    if name.is_empty() || name == target.name {
        return Ok(());
    }
    let text = format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
    Err(ApiError::bad_request(text))
}
