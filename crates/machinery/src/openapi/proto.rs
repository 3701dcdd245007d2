//! OpenAPI version 2 in the protobuf form of gnostic (`openapi.v2.Document`).
//!
//! Written from the JSON form of each path and type. Field numbers: `openapiv2/OpenAPIv2.proto` of google/gnostic.

use serde_json::{Map, Value};

type Object = Map<String, Value>;

pub(super) fn document(
    release: &str,
    paths: impl Iterator<Item = (String, Value)>,
    definitions: impl Iterator<Item = (String, Value)>,
) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, "2.0");
    out.message(2, |info| {
        info.text(1, "Kubernetes");
        info.text(2, release);
    });
    out.message(8, |all| {
        for (path, item) in paths {
            all.message(2, |named| {
                named.text(1, &path);
                named.message(2, |out| path_item(out, &item));
            });
        }
    });
    out.message(9, |all| {
        for (name, definition) in definitions {
            named_schema(all, 1, &name, &definition);
        }
    });
    out.0
}

/// A message being written; fields with their zero value are left out, as proto3 does.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        const LENGTH_DELIMITED: u64 = 2;
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: bool) {
        if value {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn texts(&mut self, field: u64, list: &Value) {
        for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    /// `x-...` members: their values as YAML, of which JSON is a part.
    fn extensions(&mut self, field: u64, object: &Object) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            self.message(field, |named| {
                named.text(1, name);
                named.message(2, |any| any.text(2, &value.to_string()));
            });
        }
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn named_schema(out: &mut Message, field: u64, name: &str, value: &Value) {
    out.message(field, |named| {
        named.text(1, name);
        named.message(2, |out| schema(out, value));
    });
}

fn schema(out: &mut Message, value: &Value) {
    let Some(object) = value.as_object() else { return };
    out.text(1, text(value, "$ref"));
    out.text(2, text(value, "format"));
    out.text(4, text(value, "description"));
    if let Some(default) = object.get("default") {
        out.message(5, |any| any.text(2, &default.to_string()));
    }
    out.texts(19, &value["required"]);
    if let Some(inner) = object.get("additionalProperties") {
        out.message(21, |item| item.message(1, |out| schema(out, inner)));
    }
    if let Some(kind) = object.get("type").and_then(Value::as_str) {
        out.message(22, |item| item.text(1, kind));
    }
    if let Some(items) = object.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, items)));
    }
    if let Some(properties) = object.get("properties").and_then(Value::as_object) {
        out.message(25, |all| properties.iter().for_each(|(name, value)| named_schema(all, 1, name, value)));
    }
    out.extensions(31, object);
}

fn path_item(out: &mut Message, item: &Value) {
    const METHODS: [(&str, u64); 5] = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];
    for (method, field) in METHODS {
        if let Some(value) = item.get(method) {
            out.message(field, |out| operation(out, value));
        }
    }
    parameters(out, 9, &item["parameters"]);
}

fn operation(out: &mut Message, value: &Value) {
    out.texts(1, &value["tags"]);
    out.text(3, text(value, "description"));
    out.text(5, text(value, "operationId"));
    out.texts(6, &value["produces"]);
    out.texts(7, &value["consumes"]);
    parameters(out, 8, &value["parameters"]);
    out.message(9, |all| {
        for (code, response) in value["responses"].as_object().into_iter().flatten() {
            all.message(1, |named| {
                named.text(1, code);
                named.message(2, |value| {
                    value.message(1, |out| {
                        out.text(1, text(response, "description"));
                        if let Some(inner) = response.get("schema") {
                            out.message(2, |item| item.message(1, |out| schema(out, inner)));
                        }
                    });
                });
            });
        }
    });
    out.texts(10, &value["schemes"]);
    if let Some(object) = value.as_object() {
        out.extensions(13, object);
    }
}

fn parameters(out: &mut Message, field: u64, list: &Value) {
    for value in list.as_array().into_iter().flatten() {
        out.message(field, |item| item.message(1, |out| parameter(out, value)));
    }
}

fn parameter(out: &mut Message, value: &Value) {
    let required = value["required"].as_bool().unwrap_or(false);
    if text(value, "in") == "body" {
        out.message(1, |body| {
            body.text(1, text(value, "description"));
            body.text(2, text(value, "name"));
            body.text(3, "body");
            body.flag(4, required);
            body.message(5, |out| schema(out, &value["schema"]));
        });
        return;
    }
    // the parameters in the query have one field more before their type than those in the path
    let (place, kind) = if text(value, "in") == "query" { (3, 6) } else { (4, 5) };
    out.message(2, |other| {
        other.message(place, |sub| {
            sub.flag(1, required);
            sub.text(2, text(value, "in"));
            sub.text(3, text(value, "description"));
            sub.text(4, text(value, "name"));
            sub.text(kind, text(value, "type"));
        });
    });
}
