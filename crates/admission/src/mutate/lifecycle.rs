//! Namespaces that do not exist, end, or may not be deleted (`NamespaceLifecycle`).

use serde_json::{Value, json};
use stead_api::{Kind, Scope};
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::context::Context;
use crate::view::View;

/// Namespaces that may not be deleted.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];

/// Reviews are answered, not stored: their namespace need not exist.
fn is_review(kind: &Kind) -> bool {
    !kind.stored()
}

pub(crate) fn create(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    if kind.scope == Scope::Cluster || is_review(kind) {
        return Ok(());
    }
    let name = object.text("metadata.namespace");
    let Some(namespace) = ctx.lookup.get("", "namespaces", "", name) else {
        return Err(missing(name));
    };
    if namespace.has("metadata.deletionTimestamp") || namespace.text("status.phase") == "Terminating" {
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let mut error = ApiError::forbidden(kind, object.text("metadata.name"), &why);
        error.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {name} is being terminated"),
            "field": "metadata.namespace",
        }]);
        return Err(error);
    }
    Ok(())
}

pub(crate) fn delete(kind: &Kind, object: &Value, _ctx: &Context<'_>) -> Result<(), ApiError> {
    let name = object.text("metadata.name");
    if (kind.group, kind.kind) == ("", "Namespace") && PROTECTED.contains(&name) {
        return Err(ApiError::forbidden(kind, name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn missing(name: &str) -> ApiError {
    let mut error = ApiError::new(Reason::NotFound, format!("namespaces {name:?} not found"));
    error.details = json!({"name": name, "kind": "namespaces"});
    error
}
