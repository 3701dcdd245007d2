//! The pass over one body: a visitor for each shape of the schema.

use std::fmt;

use base64::Engine as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use stead_api::schema::{Field, Schema, Shape, TypeId, Zero};

use super::Fault;
use crate::quantity::{Quantity, QuantityError};
use crate::time;

/// Unknown and duplicate fields beyond this number are not told any more, as upstream.
const MAX_STRICT_ERRORS: usize = 100;

enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

/// Where the pass is, and what it has found.
pub(super) struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Step>,
    /// The types that enclose the place, innermost last.
    structs: Vec<TypeId>,
    pub(super) fault: Option<Fault>,
    pub(super) strict: Vec<String>,
    keep_strict: bool,
}

impl<'s> Walk<'s> {
    pub(super) fn new(schema: &'s Schema, keep_strict: bool) -> Self {
        Self {
            schema,
            path: Vec::with_capacity(16),
            structs: Vec::with_capacity(8),
            fault: None,
            strict: Vec::new(),
            keep_strict,
        }
    }

    fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.fault.is_none() {
            let text = text();
            self.fault = Some(Fault { json: text.clone(), convert: text });
        }
    }

    /// Go's words for a value of the wrong type. `found` may carry the literal: `number 1.5`.
    fn wrong_type(&mut self, found: &str, shape: Shape, field: Option<&Field>) {
        if self.fault.is_some() {
            return;
        }
        let wanted = match field.and_then(|f| f.go) {
            Some(name) => name.to_owned(),
            None => self.schema.go_name(shape),
        };
        let place = match self.structs.last() {
            Some(id) if !self.path.is_empty() => {
                let names: Vec<&str> = self.path.iter().filter_map(Step::field).collect();
                format!("Go struct field {}.{}", self.schema.get(*id).last(), names.join("."))
            }
            _ => "Go value".to_owned(),
        };
        let convert = self.cannot_convert(found, shape);
        self.fault =
            Some(Fault { json: format!("json: cannot unmarshal {found} into {place} of type {wanted}"), convert });
    }

    fn cannot_convert(&self, found: &str, shape: Shape) -> String {
        let found = match found.split(' ').next() {
            Some("object") => "map",
            Some("array") => "slice",
            Some("number") if found.contains('.') => "float64",
            Some("number") => "int64",
            other => other.unwrap_or_default(),
        };
        match shape {
            Shape::Struct(_) => format!("cannot restore struct from: {found}"),
            Shape::Map(_) => format!("cannot restore map from {found}"),
            Shape::List(_) | Shape::Bytes => format!("cannot restore slice from {found}"),
            scalar => format!("unrecognized type: {}", self.schema.go_name(scalar)),
        }
    }

    fn strict(&mut self, what: &str, key: &str) {
        if self.keep_strict && self.strict.len() < MAX_STRICT_ERRORS {
            let mut path = String::new();
            for step in &self.path {
                step.append(&mut path);
            }
            Step::Key(key.to_owned()).append(&mut path);
            let text = format!("{what} field {}", crate::field::go_quote(&path));
            if !self.strict.contains(&text) {
                self.strict.push(text);
            }
        }
    }
}

impl Step {
    fn field(&self) -> Option<&str> {
        match self {
            Self::Field(name) => Some(name),
            Self::Key(_) | Self::Index(_) => None,
        }
    }

    fn append(&self, path: &mut String) {
        match self {
            Self::Index(index) => path.push_str(&format!("[{index}]")),
            Self::Field(name) => append_name(path, name),
            Self::Key(name) => append_name(path, name),
        }
    }
}

fn append_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Decodes one value of a shape. `None`: the value is null or wrong, there is nothing to keep.
pub(super) struct Seed<'w, 's> {
    walk: &'w mut Walk<'s>,
    shape: Shape,
    field: Option<&'s Field>,
}

impl<'w, 's> Seed<'w, 's> {
    pub(super) fn new(walk: &'w mut Walk<'s>, shape: Shape, field: Option<&'s Field>) -> Self {
        Self { walk, shape, field }
    }

    /// Anything goes, unchecked but for duplicates.
    fn free(&self) -> bool {
        matches!(self.shape, Shape::Any | Shape::Raw | Shape::Fields)
    }

    fn wrong(self, found: &str) -> Option<Value> {
        if self.shape == Shape::Quantity {
            self.walk.fail(|| QuantityError::Form.to_string());
            return None;
        }
        self.walk.wrong_type(found, self.shape, self.field);
        None
    }

    fn number(self, number: Number) -> Option<Value> {
        let ok = match self.shape {
            Shape::Int32 | Shape::IntOrString => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Shape::Int64 => number.is_i64(),
            Shape::Double | Shape::Any | Shape::Raw | Shape::Fields => true,
            Shape::Quantity => return self.text(&number.to_string()),
            Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Bool => return self.wrong("number"),
            Shape::Struct(_) | Shape::Map(_) | Shape::List(_) => return self.wrong("number"),
        };
        if ok { Some(Value::Number(number)) } else { self.wrong(&format!("number {number}")) }
    }

    fn text(self, text: &str) -> Option<Value> {
        let canonical = match self.shape {
            Shape::String | Shape::IntOrString | Shape::Any | Shape::Raw | Shape::Fields => Ok(text.to_owned()),
            Shape::Bytes => base64_canonical(text),
            Shape::Time => time::canonical(text, false),
            Shape::MicroTime => time::canonical(text, true),
            Shape::Quantity => text.parse().map(|q: Quantity| q.to_string()).map_err(|e| e.to_string()),
            _ => return self.wrong("string"),
        };
        match canonical {
            Ok(text) => Some(Value::String(text)),
            Err(error) => {
                self.walk.fail(|| error);
                None
            }
        }
    }
}

/// Go's check of base64 text; line ends are allowed and dropped.
fn base64_canonical(text: &str) -> Result<String, String> {
    use base64::DecodeError;
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match base64::engine::general_purpose::STANDARD.decode(&plain) {
        Ok(_) => Ok(plain),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => {
            Err(format!("illegal base64 data at input byte {}", plain.len() / 4 * 4))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        let ok = self.free() || self.shape == Shape::Bool;
        Ok(if ok { Some(Value::Bool(value)) } else { self.wrong("bool") })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).and_then(|number| self.number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let inner = match self.shape {
            Shape::List(inner) => self.walk.schema.shape(inner),
            _ if self.free() => Shape::Any,
            _ => {
                let wrong = self.wrong("array");
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(wrong);
            }
        };
        let mut list = Vec::new();
        loop {
            self.walk.path.push(Step::Index(list.len()));
            let item = items.next_element_seed(Seed::new(self.walk, inner, None))?;
            self.walk.path.pop();
            let Some(item) = item else { break };
            list.push(item.unwrap_or_else(|| zero(self.walk.schema, inner)));
        }
        Ok(Some(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            Shape::Struct(id) => {
                self.walk.structs.push(id);
                let object = self.fields(id, &mut entries);
                object.map(|object| Some(Value::Object(object)))
            }
            Shape::Map(inner) => {
                let inner = self.walk.schema.shape(inner);
                self.entries(inner, &mut entries).map(|object| Some(Value::Object(object)))
            }
            _ if self.free() => self.entries(Shape::Any, &mut entries).map(|object| Some(Value::Object(object))),
            _ => {
                let wrong = self.wrong("object");
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(wrong)
            }
        }
    }
}

impl Seed<'_, '_> {
    fn entries<'de, A: MapAccess<'de>>(self, inner: Shape, entries: &mut A) -> Result<Map<String, Value>, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                self.walk.strict("duplicate", &key);
            }
            self.walk.path.push(Step::Key(key));
            let value = entries.next_value_seed(Seed::new(self.walk, inner, None))?;
            let Some(Step::Key(key)) = self.walk.path.pop() else { break };
            object.insert(key, value.unwrap_or_else(|| zero(self.walk.schema, inner)));
        }
        Ok(object)
    }

    fn fields<'de, A: MapAccess<'de>>(self, id: TypeId, entries: &mut A) -> Result<Map<String, Value>, A::Error> {
        let walk = self.walk;
        let of = walk.schema.get(id);
        let mut object = Map::new();
        let mut seen = 0_u128;
        while let Some(key) = entries.next_key_seed(Key(&of.fields))? {
            let index = match key {
                Named::Known(index) => index,
                Named::Unknown(name) => {
                    walk.strict("unknown", &name);
                    entries.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let field = &of.fields[index];
            let bit = 1_u128.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0);
            if seen & bit != 0 {
                walk.strict("duplicate", field.name);
            }
            seen |= bit;
            walk.path.push(Step::Field(field.name));
            let value = entries.next_value_seed(Seed::new(walk, field.shape, Some(field)))?;
            walk.path.pop();
            match value {
                Some(value) if stays(&value, field) => _ = object.insert(field.name.to_owned(), value),
                _ => _ = object.remove(field.name),
            }
        }
        walk.structs.pop();
        add_written(walk.schema, id, &mut object);
        Ok(object)
    }
}

/// Whether Go keeps the value of a field that was given.
fn stays(value: &Value, field: &Field) -> bool {
    let is_empty = || match (field.shape, value) {
        (Shape::Map(_), Value::Object(map)) => map.is_empty(),
        (Shape::List(_), Value::Array(list)) => list.is_empty(),
        _ => false,
    };
    match field.zero {
        Zero::Written => true,
        Zero::LeftOut => !is_empty() && !is_zero(value),
        // Of types without a mark, lists and maps of optional fields.
        Zero::Kept => field.required || !is_empty(),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Adds the fields that are in every object of a type.
fn add_written(schema: &Schema, id: TypeId, object: &mut Map<String, Value>) {
    for field in schema.get(id).fields.iter().filter(|field| field.zero == Zero::Written) {
        if !object.contains_key(field.name)
            && let Some(zero) = written(schema, field.shape)
        {
            object.insert(field.name.to_owned(), zero);
        }
    }
}

/// What a null inside a list or map becomes: Go's zero value.
fn zero(schema: &Schema, shape: Shape) -> Value {
    written(schema, shape).unwrap_or_default()
}

/// What Go writes of a field by value that has none. Where that is null there is nothing here, as everywhere.
fn written(schema: &Schema, shape: Shape) -> Option<Value> {
    Some(match shape {
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
        Shape::Double => 0.0.into(),
        Shape::String => "".into(),
        Shape::Quantity => "0".into(),
        Shape::Struct(id) => {
            let mut object = Map::new();
            add_written(schema, id, &mut object);
            object.into()
        }
        Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Map(_) | Shape::List(_) => return None,
        Shape::Any | Shape::Raw | Shape::Fields => return None,
    })
}

enum Named {
    Known(usize),
    Unknown(String),
}

/// Finds the field of a key without keeping the key.
struct Key<'f>(&'f [Field]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Named, D::Error> {
        source.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Named, E> {
        let found = self.0.binary_search_by(|field| field.name.cmp(name));
        Ok(found.map_or_else(|_| Named::Unknown(name.to_owned()), Named::Known))
    }
}
