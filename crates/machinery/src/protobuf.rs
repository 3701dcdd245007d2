//! The protobuf form of request bodies into objects: typed Go clients, `kubectl create` among them, send it.
//!
//! A message is read by the schema of its type and a table of field numbers. Only reading: whoever sends protobuf also
//! takes JSON. Source of the form: `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` (an envelope after `k8s\0`).

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use stead_api::schema::{Schema, Shape, TypeId, schema};

use crate::ApiError;

const TABLE: &str = include_str!("../data/protobuf.txt");
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages, at most.
const DEPTH_MAX: usize = 64;

/// What a field number means in a message.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// A field of the JSON object.
    Field(&'static str),
    /// A message whose fields stand in the JSON object itself.
    Inline(&'static str),
}

type Numbers = HashMap<u32, Slot>;

static TYPES: LazyLock<HashMap<&'static str, Numbers>> =
    LazyLock::new(|| TABLE.lines().filter_map(|line| line.strip_prefix('=')).map(parse_line).collect());

fn parse_line(line: &'static str) -> (&'static str, Numbers) {
    let mut parts = line.split_whitespace();
    let name = parts.next().unwrap_or("");
    let slots = parts.filter_map(|part| {
        let (name, number) = part.rsplit_once(':')?;
        let number = number.parse().ok()?;
        Some((
            number,
            match name.strip_prefix('*') {
                Some(inline) => Slot::Inline(inline),
                None => Slot::Field(name),
            },
        ))
    });
    (name, slots.collect())
}

/// Whether a body is in the protobuf form.
#[must_use]
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}

/// The object in a body, as JSON; the body itself says of what kind it is, and what it does not say is taken to be `target`.
///
/// # Errors
/// `BadRequest` when the body is cut short, nested too deep, or of a kind that has no protobuf form here.
pub fn decode(target: &crate::decode::Target<'_>, body: &[u8]) -> Result<Value, ApiError> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(|| broken("the body does not begin with the magic bytes"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Reader(envelope) {
        match field.map_err(broken)? {
            (1, Wire::Bytes(meta)) => {
                for field in Reader(meta) {
                    match field.map_err(broken)? {
                        (1, Wire::Bytes(text)) => api_version = text_of(text),
                        (2, Wire::Bytes(text)) => kind = text_of(text),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    // A body of another kind is refused by the decoder with its own words.
    let id = schema().of_object(group, version, &kind).unwrap_or(target.schema);
    let mut object = message(schema(), id, raw, 0).map_err(broken)?;
    for (key, text) in [("apiVersion", api_version), ("kind", kind)] {
        if !text.is_empty() {
            object.insert(key.to_owned(), text.into());
        }
    }
    Ok(Value::Object(object))
}

fn broken(why: &str) -> ApiError {
    ApiError::bad_request(format!("cannot decode the protobuf body: {why}"))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A message of a type of the schema.
fn message(schema: &Schema, id: TypeId, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, &'static str> {
    let mut object = Map::new();
    let name = schema.get(id).short_name();
    fill(schema, id, name, bytes, depth, &mut object)?;
    Ok(object)
}

/// Reads a message whose numbers are those of `numbers` into an object of type `id`.
fn fill(
    schema: &Schema,
    id: TypeId,
    numbers: &str,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), &'static str> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deep");
    }
    let numbers = TYPES.get(numbers).ok_or("this kind has no protobuf form here")?;
    for field in Reader(bytes) {
        let (number, wire) = field?;
        match (numbers.get(&number), wire) {
            (Some(Slot::Inline(inner)), Wire::Bytes(bytes)) => fill(schema, id, inner, bytes, depth + 1, object)?,
            (Some(Slot::Field(name)), wire) => {
                let Some(field) = schema.get(id).field(name) else { continue };
                put(schema, field.shape, wire, depth + 1, object.entry(*name).or_insert(Value::Null))?;
            }
            // Fields of newer versions are skipped, as everywhere in protobuf.
            (None | Some(Slot::Inline(_)), _) => {}
        }
    }
    Ok(())
}

/// Adds one occurrence of a field to what was read of it before.
fn put(schema: &Schema, shape: Shape, wire: Wire<'_>, depth: usize, value: &mut Value) -> Result<(), &'static str> {
    match (shape, wire) {
        (Shape::List(inner), wire) => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let Value::Array(items) = value else { return Ok(()) };
            push(schema, schema.shape(inner), wire, depth, items)
        }
        (Shape::Map(inner), Wire::Bytes(entry)) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Value::Object(map) = value else { return Ok(()) };
            let (mut key, mut item) = (String::new(), zero(schema.shape(inner)));
            for field in Reader(entry) {
                match field? {
                    (1, Wire::Bytes(bytes)) => key = text_of(bytes),
                    (2, wire) => item = one(schema, schema.shape(inner), wire, depth)?,
                    _ => {}
                }
            }
            map.insert(key, item);
            Ok(())
        }
        (shape, wire) => {
            *value = one(schema, shape, wire, depth)?;
            Ok(())
        }
    }
}

/// Adds an item to a list; numbers may come packed, many in one field.
fn push(
    schema: &Schema,
    shape: Shape,
    wire: Wire<'_>,
    depth: usize,
    items: &mut Vec<Value>,
) -> Result<(), &'static str> {
    if let (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(mut packed)) = (shape, wire) {
        while !packed.is_empty() {
            let number = varint(&mut packed)?;
            items.push(one(schema, shape, Wire::Varint(number), depth)?);
        }
        return Ok(());
    }
    items.push(one(schema, shape, wire, depth)?);
    Ok(())
}

/// What a map entry without a value means.
fn zero(shape: Shape) -> Value {
    match shape {
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::Double => 0.into(),
        Shape::String | Shape::Bytes => "".into(),
        Shape::Quantity => "0".into(),
        Shape::List(_) => Value::Array(Vec::new()),
        _ => Value::Object(Map::new()),
    }
}

fn one(schema: &Schema, shape: Shape, wire: Wire<'_>, depth: usize) -> Result<Value, &'static str> {
    Ok(match (shape, wire) {
        (Shape::Bool, Wire::Varint(n)) => (n != 0).into(),
        (Shape::Int32 | Shape::Int64, Wire::Varint(n)) => n.cast_signed().into(),
        (Shape::Double, Wire::Fixed64(n)) => f64::from_bits(n).into(),
        (Shape::String, Wire::Bytes(bytes)) => std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8")?.into(),
        (Shape::Bytes, Wire::Bytes(bytes)) => base64(bytes).into(),
        (Shape::Time, Wire::Bytes(bytes)) => time(bytes, false)?,
        (Shape::MicroTime, Wire::Bytes(bytes)) => time(bytes, true)?,
        (Shape::Quantity, Wire::Bytes(bytes)) => text_of(first(bytes, 1)?).into(),
        (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Shape::Any | Shape::Raw | Shape::Fields, Wire::Bytes(bytes)) => {
            let raw = first(bytes, 1)?;
            if raw.is_empty() { Value::Null } else { serde_json::from_slice(raw).map_err(|_| "raw JSON is broken")? }
        }
        (Shape::Struct(id), Wire::Bytes(bytes)) => Value::Object(message(schema, id, bytes, depth)?),
        // A list as the value of a map or the item of a list is wrapped in a message of its own.
        (Shape::List(inner), Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            for field in Reader(bytes) {
                if let (1, wire) = field? {
                    push(schema, schema.shape(inner), wire, depth, &mut items)?;
                }
            }
            items.into()
        }
        _ => return Err("a field has the wrong wire type"),
    })
}

/// The bytes of one field of a message; empty when it is not there.
fn first(bytes: &[u8], wanted: u32) -> Result<&[u8], &'static str> {
    for field in Reader(bytes) {
        match field? {
            (number, Wire::Bytes(found)) if number == wanted => return Ok(found),
            _ => {}
        }
    }
    Ok(&[])
}

/// Seconds and nanoseconds since the epoch. An empty message is Go's zero time: absent.
fn time(bytes: &[u8], micro: bool) -> Result<Value, &'static str> {
    let (mut seconds, mut nanos) = (0, 0);
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Varint(n)) => seconds = n.cast_signed(),
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => {}
        }
    }
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| "a time is out of range")?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(at.strftime(form).to_string().into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, &'static str> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Varint(n)) => is_text = n == 1,
            (2, Wire::Varint(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = text_of(bytes),
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, byte)| word | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let index = (word >> (18 - 6 * i)) & 63;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

/// The value of a field on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// The fields of a message, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            // Nothing after a broken field can be trusted.
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), &'static str> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| "a field number is too large")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| "it is cut short")?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            _ => return Err("a field has an unknown wire type"),
        };
        Ok((number, wire))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(head)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or("it is cut short")?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{Content, FieldValidation, Target, decode_as};

    /// `number:"text"`, `number:NUMBER` and `number:{...}` as bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_config_map_and_a_pod() {
        let pods = stead_api::kinds::by_resource("", "v1", "pods").unwrap();
        let target = Target::of(pods);
        let metadata = [field(1, b"a"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let bytes = body("v1", "ConfigMap", &[field(1, &metadata), field(2, &entry)].concat());
        let got = decode(&target, &bytes).unwrap();
        let config_maps = Target::of(stead_api::kinds::by_resource("", "v1", "configmaps").unwrap());
        let got = decode_as(&config_maps, Content::Value(got), FieldValidation::Strict);
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
        assert_eq!(got, Ok((want, vec![])), "the wire carries zero values, JSON does not");

        let source = field(2, &[]); // VolumeSource.emptyDir
        let volume = [field(1, b"v"), field(2, &source)].concat();
        let mut spec = [field(1, &volume), field(3, b"Never")].concat();
        spec.extend([4 << 3, 30]); // terminationGracePeriodSeconds
        let bytes = body("v1", "Pod", &[field(1, &field(1, b"p")), field(2, &spec)].concat());
        let got = decode(&target, &bytes).unwrap();
        let spec = &got["spec"];
        assert_eq!(spec["volumes"], json!([{"name": "v", "emptyDir": {}}]));
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    }

    #[test]
    fn nothing_panics_on_broken_bytes() {
        let target = Target::of(stead_api::kinds::by_resource("", "v1", "pods").unwrap());
        let whole = body("v1", "ConfigMap", &field(1, &field(1, b"abc")));
        for end in 0..whole.len() {
            let _ = decode(&target, &whole[..end]);
        }
        assert!(decode(&target, b"k8s\0\x0a\xff").is_err());
        assert!(decode(&target, b"{}").is_err());
    }

    #[test]
    fn base64_has_upstreams_padding() {
        for (text, want) in [("", ""), ("a", "YQ=="), ("ab", "YWI="), ("abc", "YWJj"), ("abcd", "YWJjZA==")] {
            assert_eq!(base64(text.as_bytes()), want);
        }
    }

    #[test]
    fn every_kind_has_numbers() {
        // Definitions of kinds and of aggregated APIs travel as JSON or YAML.
        // What is measured is never sent to the server.
        let apart = ["apiextensions.k8s.io", "apiregistration.k8s.io", "metrics.k8s.io"];
        for kind in stead_api::kinds::KINDS.iter().filter(|kind| !apart.contains(&kind.group)) {
            let name = schema().get(schema().of(kind)).short_name();
            assert!(TYPES.contains_key(name), "{name}");
        }
    }
}
