//! The types as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use stead_api::schema::{self, Descriptions, Field, ListType, Schema, Shape, Type, TypeId};

use super::paths::Dialect;

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const ANY: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// The schemas of some types, made one at a time.
pub(super) struct Definitions {
    dialect: Dialect,
    /// In the order of their names.
    types: Vec<(String, TypeId)>,
    texts: Descriptions,
}

/// Some types and all that they refer to.
pub(super) fn closure(schema: &Schema, roots: Vec<TypeId>) -> BTreeSet<TypeId> {
    let mut seen = BTreeSet::new();
    let mut queue = roots;
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            queue.extend(schema.get(id).fields.iter().filter_map(|field| inner_type(schema, field.shape)));
        }
    }
    seen
}

fn inner_type(schema: &Schema, shape: Shape) -> Option<TypeId> {
    match shape {
        Shape::Struct(id) => Some(id),
        Shape::Map(inner) | Shape::List(inner) => inner_type(schema, schema.shape(inner)),
        _ => None,
    }
}

impl Definitions {
    pub(super) fn of(dialect: Dialect, ids: BTreeSet<TypeId>) -> Self {
        let schema = schema::schema();
        let mut types: Vec<(String, TypeId)> = ids.into_iter().map(|id| (schema.get(id).name(), id)).collect();
        types.sort_unstable();
        Self { dialect, types, texts: schema::descriptions() }
    }

    /// Name and schema of each, those of the leaf types among them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (String, Value)> {
        let schema = schema::schema();
        let leaves = leaves(self.dialect).into_iter().map(|(name, value)| (name.to_owned(), value));
        let types = self.types.iter().map(|(name, id)| (name.clone(), self.definition(schema.get(*id))));
        types.chain(leaves)
    }

    fn definition(&self, of: &Type) -> Value {
        let mut value = Map::new();
        put_text(&mut value, self.texts.of_type(of));
        value.insert("type".to_owned(), "object".into());
        let mut properties = Map::new();
        for field in &of.fields {
            properties.insert(field.name.to_owned(), self.property(field));
        }
        if !properties.is_empty() {
            value.insert("properties".to_owned(), properties.into());
        }
        let required: Vec<&str> = of.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            value.insert("required".to_owned(), required.into());
        }
        if of.atomic {
            value.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        if let Some((group, version, kind)) = of.kind {
            let kinds = json!([{"group": group, "version": version, "kind": kind}]);
            value.insert("x-kubernetes-group-version-kind".to_owned(), kinds);
        }
        value.into()
    }

    fn property(&self, field: &Field) -> Value {
        let mut value = self.shape(field.shape, false);
        if self.dialect == Dialect::V3 && value.get("$ref").is_some() {
            // a reference may have no siblings there: upstream wraps it too
            value = json!({"allOf": [value]});
        }
        let Some(map) = value.as_object_mut() else { return value };
        put_text(map, self.texts.of_field(field));
        if let Some(default) = field.default {
            map.insert("default".to_owned(), default.into());
        }
        if field.atomic {
            map.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        put_merge(map, field);
        value
    }

    /// `inner`: an item of a list or map, where version 3 wraps references.
    fn shape(&self, shape: Shape, inner: bool) -> Value {
        let schema = schema::schema();
        let reference = |name: &str| {
            let reference = self.dialect.reference(name);
            if inner && self.dialect == Dialect::V3 { json!({"allOf": [reference], "default": {}}) } else { reference }
        };
        match shape {
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::String => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Time => reference(TIME),
            Shape::MicroTime => reference(MICRO_TIME),
            Shape::Quantity => reference(QUANTITY),
            Shape::IntOrString => reference(INT_OR_STRING),
            Shape::Any => reference(ANY),
            Shape::Raw => reference(RAW),
            Shape::Fields => reference(FIELDS),
            Shape::Struct(id) => reference(&schema.get(id).name()),
            Shape::Map(id) => json!({"type": "object", "additionalProperties": self.shape(schema.shape(id), true)}),
            Shape::List(id) => json!({"type": "array", "items": self.shape(schema.shape(id), true)}),
        }
    }
}

fn put_text(map: &mut Map<String, Value>, text: String) {
    if !text.is_empty() {
        map.insert("description".to_owned(), text.into());
    }
}

fn put_merge(map: &mut Map<String, Value>, field: &Field) {
    let mut put = |key: &str, value: Value| _ = map.insert(format!("x-kubernetes-{key}"), value);
    if matches!(field.shape, Shape::List(_)) {
        match field.list {
            ListType::Atomic => put("list-type", "atomic".into()),
            ListType::Set => put("list-type", "set".into()),
            ListType::Map(keys) => {
                put("list-type", "map".into());
                put("list-map-keys", keys.into());
            }
        }
    }
    let patch = field.patch;
    let words = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")];
    let words: Vec<&str> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
    if !words.is_empty() {
        put("patch-strategy", words.join(",").into());
    }
    if let Some(key) = patch.key {
        put("patch-merge-key", key.into());
    }
}

/// The types that are no objects with fields.
fn leaves(dialect: Dialect) -> [(&'static str, Value); 7] {
    let v3 = dialect == Dialect::V3;
    let time = json!({"type": "string", "format": "date-time", "description": "A moment in the form of RFC 3339, with seconds."});
    let micro = json!({"type": "string", "format": "date-time", "description": "A moment in the form of RFC 3339, with microseconds."});
    let quantity = "A fixed-point number with an optional suffix: 100m, 1.5Gi, 2e3.";
    let quantity = if v3 {
        json!({"description": quantity, "oneOf": [{"type": "string"}, {"type": "number"}]})
    } else {
        json!({"description": quantity, "type": "string"})
    };
    let either = "A number or a string, such as a port by number or name, or an amount that may be a percentage.";
    let either = if v3 {
        json!({"description": either, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
    } else {
        json!({"description": either, "format": "int-or-string", "type": "string"})
    };
    [
        (TIME, time),
        (MICRO_TIME, micro),
        (QUANTITY, quantity),
        (INT_OR_STRING, either),
        (
            FIELDS,
            json!({"type": "object", "description": "A set of fields in the form of a trie, as managers of fields own them."}),
        ),
        (RAW, json!({"type": "object", "description": "An object of any type."})),
        (ANY, json!({"description": "Any valid JSON value."})),
    ]
}
