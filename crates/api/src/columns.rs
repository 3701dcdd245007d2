//! The server-side tables: columns and cells per kind, as upstream prints them.
//!
//! Source: `pkg/printers/internalversion`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Column;

const fn column(name: &'static str, kind: &'static str, format: &'static str, description: &'static str) -> Column {
    Column { name, kind, format, priority: 0, description }
}

const NAME: Column = column(
    "Name",
    "string",
    "name",
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);

const CREATED_AT: Column = column(
    "Created At",
    "date",
    "",
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

/// The columns of a kind that upstream does not print specially.
pub const DEFAULT: &[Column] = &[NAME, CREATED_AT];

/// The cells of a kind that upstream does not print specially.
#[must_use]
pub fn default_cells(object: &Value, _now: Timestamp) -> Vec<Value> {
    let metadata = &object["metadata"];
    let created = metadata["creationTimestamp"].as_str().unwrap_or("<unknown>");
    vec![json!(metadata["name"].as_str().unwrap_or_default()), json!(created)]
}
