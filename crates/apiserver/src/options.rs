//! The options of writes, read from the query (or the body of a delete) and judged in upstream's words.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use serde_json::{Value, json};
use stead_machinery::decode::FieldValidation;
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, FieldErrors, Path};

use crate::path::Query;

/// Longest name of a field manager, in bytes.
const FIELD_MANAGER_BYTES_MAX: usize = 128;

/// Options of create, update and patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Server-side apply: take fields from other managers.
    pub force: bool,
}

impl WriteOptions {
    /// Reads and judges the query. `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    ///
    /// # Errors
    /// Invalid (422).
    pub(crate) fn read(kind: &str, query: &Query, apply: bool) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::default();
        let force = query.find("force").is_some();
        if kind == "PatchOptions" {
            if !apply && force {
                errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            }
            if apply && query.get("fieldManager").is_empty() {
                errors.required(&Path::new("fieldManager"), "is required for apply patch");
            }
        }
        let field_manager = query.get("fieldManager").to_owned();
        if field_manager.len() > FIELD_MANAGER_BYTES_MAX {
            errors.too_long(&Path::new("fieldManager"), FIELD_MANAGER_BYTES_MAX);
        }
        if field_manager.chars().any(char::is_control) {
            errors.invalid(&Path::new("fieldManager"), &field_manager, "should only contain printable characters");
        }
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let wanted = query.get("fieldValidation");
        let field_validation = FieldValidation::parse(wanted).unwrap_or_else(|| {
            errors.not_supported(&Path::new("fieldValidation"), &wanted, &["", "Ignore", "Strict", "Warn"]);
            FieldValidation::default()
        });
        judged(kind, &errors)?;
        Ok(Self { dry_run, field_manager, field_validation, force: query.flag("force") })
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut FieldErrors) -> bool {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|v| *v != "All") {
        let shown = values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
        errors.push(
            stead_machinery::field::FieldErrorKind::NotSupported,
            &Path::new("dryRun"),
            format!("Unsupported value: []string{{{shown}}}: supported values: \"All\""),
        );
    }
    !values.is_empty()
}

/// 422 for options, which have a kind but no name.
///
/// # Errors
/// When there is anything in `errors`.
pub(crate) fn judged(kind: &str, errors: &FieldErrors) -> Result<(), ApiError> {
    judged_as("meta.k8s.io", kind, "", errors)
}

/// 422 for an object that has no row in the table of kinds (options, Scale, TokenRequest).
///
/// # Errors
/// When there is anything in `errors`.
pub(crate) fn judged_as(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
    let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
    let causes: Vec<Value> =
        errors.0.iter().map(|e| json!({"reason": e.kind.reason(), "message": e.message, "field": e.field})).collect();
    let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
    let mut error = ApiError::new(Reason::Invalid, format!("{qualified} {name:?} is invalid: {list}"));
    error.details = json!({"kind": kind, "causes": causes});
    if !group.is_empty() {
        error.details["group"] = group.into();
    }
    if !name.is_empty() {
        error.details["name"] = name.into();
    }
    Err(error)
}

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// Options of a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads them from the body when there is one, else from the query.
    ///
    /// # Errors
    /// Bad request (400) for a body that is no DeleteOptions, invalid (422) for values that do not go together.
    pub(crate) fn read(query: &Query, body: Option<&Value>) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::default();
        let empty = Value::Null;
        let body = body.unwrap_or(&empty);
        let text = |key: &str| -> Option<String> {
            body[key].as_str().or_else(|| query.find(key)).filter(|v| !v.is_empty()).map(str::to_owned)
        };
        let body_dry: Vec<&str> = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let dry_run = dry_run(body_dry.into_iter().chain(query.all("dryRun")), &mut errors);
        let grace_period = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => query.find("gracePeriodSeconds").filter(|v| !v.is_empty()).map(parse_int).transpose()?,
        };
        let orphan = body["orphanDependents"].as_bool().or_else(|| {
            query.find("orphanDependents").filter(|v| !v.is_empty()).map(|_| query.flag("orphanDependents"))
        });
        let policy = text("propagationPolicy");
        let path = Path::new("propagationPolicy");
        if let (Some(_), Some(policy)) = (orphan, &policy) {
            errors.invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set");
        }
        let propagation = match policy.as_deref() {
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                errors.not_supported(&path, &other, &["Foreground", "Background", "Orphan", "nil"]);
                None
            }
            None => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        };
        judged("DeleteOptions", &errors)?;
        let preconditions = &body["preconditions"];
        let condition = |key: &str| preconditions[key].as_str().map(str::to_owned);
        Ok(Self {
            dry_run,
            grace_period,
            propagation,
            uid: condition("uid"),
            resource_version: condition("resourceVersion"),
        })
    }
}

/// A number of the query, with Go's error.
///
/// # Errors
/// Bad request (400).
pub(crate) fn parse_int(text: &str) -> Result<i64, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_upstream_words() {
        let long = "m".repeat(129);
        for (kind, query, apply, want) in [
            (
                "CreateOptions",
                "dryRun=Frob",
                false,
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"Frob"}: supported values: "All""#,
            ),
            (
                "CreateOptions",
                "fieldValidation=Frob",
                false,
                r#"CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Frob": supported values: "", "Ignore", "Strict", "Warn""#,
            ),
            (
                "PatchOptions",
                "",
                true,
                r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
            ),
            (
                "PatchOptions",
                "force=true",
                false,
                r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
            ),
            (
                "PatchOptions",
                &format!("fieldManager={long}"),
                true,
                r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#,
            ),
            ("UpdateOptions", "dryRun=All&fieldValidation=Strict", false, "ok"),
        ] {
            let got = WriteOptions::read(kind, &Query::parse(Some(query)), apply);
            assert_eq!(got.map_or_else(|e| e.message, |_| "ok".to_owned()), want);
        }
    }

    #[test]
    fn delete_options() {
        for (query, body, want) in [
            (
                "",
                json!({"propagationPolicy": "Frob"}),
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Frob": supported values: "Foreground", "Background", "Orphan", "nil""#,
            ),
            (
                "",
                json!({"orphanDependents": true, "propagationPolicy": "Orphan"}),
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#,
            ),
            (
                "",
                json!({"dryRun": ["Frob"]}),
                r#"DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: []string{"Frob"}: supported values: "All""#,
            ),
            ("gracePeriodSeconds=0&propagationPolicy=Foreground", Value::Null, "Some(0) Some(Foreground)"),
            ("gracePeriodSeconds=x", Value::Null, r#"strconv.ParseInt: parsing "x": invalid syntax"#),
            ("orphanDependents=false", Value::Null, "None Some(Background)"),
        ] {
            let got = DeleteOptions::read(&Query::parse(Some(query)), Some(&body));
            let got = got.map_or_else(|e| e.message, |o| format!("{:?} {:?}", o.grace_period, o.propagation));
            assert_eq!(got, want);
        }
    }
}
