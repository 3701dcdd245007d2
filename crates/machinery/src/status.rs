//! Errors as the Kubernetes API speaks them: one type, one place that maps reason to HTTP code.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/api/errors`.

use serde_json::{Value, json};
use stead_api::Kind;

use crate::field::FieldErrors;

/// Why a request failed. The names are the `reason`s of a Status on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    AlreadyExists,
    Conflict,
    Gone,
    Expired,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    Invalid,
    TooManyRequests,
    InternalError,
    ServiceUnavailable,
    Timeout,
    /// No reason on the wire (HTTP 500 with an empty reason, as upstream gives for raw errors).
    Unknown,
}

impl Reason {
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::Unknown => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
            Self::Unknown => "",
        }
    }
}

/// A failed request. `details` is the Status' `details` object, `Null` when there is none.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub reason: Reason,
    pub message: String,
    pub details: Value,
    /// With an expired list: the token that goes on with what is there now. Empty otherwise.
    pub continue_token: String,
}

impl ApiError {
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: Value::Null, continue_token: String::new() }
    }

    /// `statefulsets.apps "web" not found`.
    #[must_use]
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::of_resource(Reason::NotFound, kind, name, format!("{} {name:?} not found", kind.group_resource()))
    }

    /// `pods "web-0" already exists`.
    #[must_use]
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        Self::of_resource(
            Reason::AlreadyExists,
            kind,
            name,
            format!("{} {name:?} already exists", kind.group_resource()),
        )
    }

    /// `Operation cannot be fulfilled on pods "web-0": why`.
    #[must_use]
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Self::of_resource(
            Reason::Conflict,
            kind,
            name,
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.group_resource()),
        )
    }

    /// `pods "web-0" is forbidden: why`.
    #[must_use]
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let object = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        Self::of_resource(
            Reason::Forbidden,
            kind,
            name,
            format!("{}{object} is forbidden: {why}", kind.group_resource()),
        )
    }

    /// `StatefulSet.apps "web" is invalid: FIELD: TEXT`, or a bracketed list when there are several errors.
    #[must_use]
    pub fn invalid(kind: &Kind, name: &str, errors: &FieldErrors) -> Self {
        let qualified =
            if kind.group.is_empty() { kind.kind.to_owned() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut seen = Vec::new();
        for error in &errors.0 {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        let list = if seen.len() == 1 { seen.remove(0) } else { format!("[{}]", seen.join(", ")) };
        let causes: Vec<Value> = errors
            .0
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.message, "field": e.field}))
            .collect();
        let mut details = json!({"kind": kind.kind, "causes": causes});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !kind.group.is_empty() {
            details["group"] = kind.group.into();
        }
        Self { details, ..Self::new(Reason::Invalid, format!("{qualified} {name:?} is invalid: {list}")) }
    }

    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// `Internal error occurred: why`.
    #[must_use]
    pub fn internal(why: &str) -> Self {
        let mut error = Self::new(Reason::InternalError, format!("Internal error occurred: {why}"));
        error.details = json!({"causes": [{"message": why}]});
        error
    }

    /// HTTP 410: a watch or a continued list asked for a revision that is compacted.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    fn of_resource(reason: Reason, kind: &Kind, name: &str, message: String) -> Self {
        let mut details = json!({"kind": kind.plural});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !kind.group.is_empty() {
            details["group"] = kind.group.into();
        }
        Self { details, ..Self::new(reason, message) }
    }

    /// The `Status` object that goes over the wire.
    #[must_use]
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.reason.code(),
        });
        if !self.reason.as_str().is_empty() {
            status["reason"] = self.reason.as_str().into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        if !self.continue_token.is_empty() {
            status["metadata"]["continue"] = self.continue_token.clone().into();
        }
        status
    }
}
