//! Tables and partial objects: the forms of an answer that clients ask for by `as=Table` and `as=PartialObjectMetadata`.
//!
//! Source of the forms: `k8s.io/apimachinery/pkg/apis/meta/v1`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use stead_api::kinds::Cells;
use stead_api::{Column, Kind, columns};

use crate::ApiError;

/// How much of the object each row carries: the query parameter `includeObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// From the query parameter; empty is the default.
    ///
    /// # Errors
    /// Upstream's text for any other word.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The table of a list. `metadata` is the list's own; `headings`: a watch gives them with its first table only.
#[must_use]
pub fn table<'o>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'o Value>,
    metadata: Value,
    include: IncludeObject,
    headings: bool,
    now: Timestamp,
) -> Value {
    let rows = objects.into_iter().map(|object| row(kind, object, include, now)).collect();
    assemble(kind.columns, rows, metadata, headings)
}

/// The table of a single object.
#[must_use]
pub fn table_of(kind: &Kind, object: &Value, include: IncludeObject, headings: bool, now: Timestamp) -> Value {
    let mut metadata = Map::new();
    if let Some(version) = object["metadata"]["resourceVersion"].as_str() {
        metadata.insert("resourceVersion".into(), version.into());
    }
    table(kind, [object], metadata.into(), include, headings, now)
}

/// The one row of an object.
#[must_use]
pub fn row(kind: &Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = plain_row(kind.cells, object, include, now);
    let conditions = columns::row_conditions(kind, object);
    if !conditions.is_empty() {
        row["conditions"] = conditions.into();
    }
    row
}

fn plain_row(cells: Cells, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let carried = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial(object),
        IncludeObject::Object => object.clone(),
    };
    json!({"cells": cells(object, now), "object": carried})
}

fn assemble(columns: &[Column], rows: Vec<Value>, metadata: Value, headings: bool) -> Value {
    let definitions = if headings { columns.iter().map(definition).collect() } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format, "description": column.description,
        "priority": column.priority,
    })
}

/// An object without all but its metadata.
#[must_use]
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A list of objects without all but their metadata. `metadata` is the list's own.
#[must_use]
pub fn partial_list<'o>(objects: impl IntoIterator<Item = &'o Value>, metadata: Value) -> Value {
    let items: Vec<Value> = objects.into_iter().map(partial).collect();
    json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
}

#[cfg(test)]
mod tests {
    use stead_api::kinds::by_name;

    use super::*;

    #[test]
    fn a_table_has_headings_rows_and_as_much_of_the_objects_as_wanted() {
        let kind = by_name("pods").expect("a kind");
        let now = "2026-11-20T15:00:00Z".parse().expect("a time");
        let pod =
            json!({"kind": "Pod", "metadata": {"name": "a", "resourceVersion": "7"}, "status": {"phase": "Succeeded"}});
        let got = table_of(kind, &pod, IncludeObject::Metadata, true, now);
        assert_eq!(got["metadata"], json!({"resourceVersion": "7"}));
        assert_eq!(got["columnDefinitions"][0]["format"], "name");
        assert_eq!(got["columnDefinitions"].as_array().map(Vec::len), Some(9));
        let partial =
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": pod["metadata"]});
        assert_eq!(got["rows"][0]["object"], partial);
        assert_eq!(got["rows"][0]["conditions"][0]["type"], "Completed");
        let got = table(kind, [&pod, &pod], json!({"resourceVersion": "9"}), IncludeObject::None, false, now);
        assert_eq!((&got["columnDefinitions"], &got["rows"][1]["object"]), (&Value::Null, &Value::Null));
        assert_eq!(row(kind, &pod, IncludeObject::Object, now)["object"], pod);
        assert!(IncludeObject::parse("Frob").is_err_and(|e| e.message.contains("Invalid value: \"Frob\"")));
        assert_eq!(partial_list([&pod], json!({}))["items"], json!([partial]));
    }
}
