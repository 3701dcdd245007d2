//! Objects as they are stored: JSON with `kind`, `apiVersion` and `metadata` first and no resource version in it.
//!
//! The fixed beginning lets a reader put the resource version in, or leave `kind` and `apiVersion` out (items of a
//! list), by copying slices: nothing is parsed to be served.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};
use stead_api::Kind;
use stead_store::Revision;

const METADATA: &[u8] = b"\"metadata\":{";
const REGISTRY: &str = "/registry/";

/// The key prefix of all objects of a kind: `/registry/statefulsets.apps/`. Kinds that share a storage share it.
#[must_use]
pub(crate) fn prefix_of_kind(kind: &Kind) -> String {
    let dot = if kind.storage.group.is_empty() { "" } else { "." };
    format!("{REGISTRY}{}{dot}{}/", kind.plural, kind.storage.group)
}

/// The key prefix of the objects that a list in `namespace` (empty: all) sees.
#[must_use]
pub(crate) fn prefix_of(kind: &Kind, namespace: &str) -> String {
    let mut prefix = prefix_of_kind(kind);
    if kind.namespaced() && !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}

/// The key of one object.
#[must_use]
pub(crate) fn key_of(kind: &Kind, namespace: &str, name: &str) -> String {
    let mut key = prefix_of(kind, namespace);
    key.push_str(name);
    key
}

/// Namespace (empty for cluster-scoped objects) and name of the object under a key.
#[must_use]
pub(crate) fn names_of_key(key: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(key).unwrap_or("");
    let mut parts = text.strip_prefix(REGISTRY).unwrap_or(text).splitn(3, '/').skip(1);
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) => (namespace, name),
        (Some(name), None) => ("", name),
        (None, _) => ("", text),
    }
}

/// The stored form of an object.
#[must_use]
pub(crate) fn encode(object: &Value) -> Bytes {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    let fields = object.as_object().unwrap_or(&EMPTY);
    let mut out = BytesMut::with_capacity(1024).writer();
    let mut put = |text: &[u8]| out.get_mut().put_slice(text);
    put(b"{\"kind\":");
    put_json(&mut put, fields.get("kind").unwrap_or(&Value::Null));
    put(b",\"apiVersion\":");
    put_json(&mut put, fields.get("apiVersion").unwrap_or(&Value::Null));
    put(b",");
    put(METADATA);
    let metadata = fields.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY);
    put_fields(&mut put, metadata.iter().filter(|(k, _)| *k != "resourceVersion"), false);
    put(b"}");
    put_fields(
        &mut put,
        fields.iter().filter(|(k, _)| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata")),
        true,
    );
    put(b"}");
    out.into_inner().freeze()
}

fn put_fields<'a>(put: &mut impl FnMut(&[u8]), fields: impl Iterator<Item = (&'a String, &'a Value)>, mut comma: bool) {
    for (key, value) in fields {
        if comma {
            put(b",");
        }
        comma = true;
        put_json(put, &Value::String(key.clone()));
        put(b":");
        put_json(put, value);
    }
}

fn put_json(put: &mut impl FnMut(&[u8]), value: &Value) {
    struct Sink<'a, F>(&'a mut F);
    impl<F: FnMut(&[u8])> std::io::Write for Sink<'_, F> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            (self.0)(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Sink(put), value).expect("a JSON value can be written to memory");
}

/// Where the fields of `metadata` begin in a stored object; `None` when the bytes have another form.
fn open(stored: &[u8]) -> Option<usize> {
    // `kind` and `apiVersion` are short: the field begins within the first few dozen bytes.
    let head = &stored[..stored.len().min(512)];
    head.windows(METADATA.len()).position(|w| w == METADATA).map(|at| at + METADATA.len())
}

fn put_version(out: &mut BytesMut, stored: &[u8], at: usize, revision: Revision) {
    if revision == 0 {
        // A dry run made an object that is nowhere.
        return out.put_slice(&stored[at..]);
    }
    out.put_slice(b"\"resourceVersion\":\"");
    let mut digits = [0u8; 20];
    let mut left = revision;
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
    out.put_slice(if stored.get(at) == Some(&b'}') { b"\"" } else { b"\"," });
    out.put_slice(&stored[at..]);
}

/// Appends the whole object as it is served.
pub(crate) fn put_object(out: &mut BytesMut, stored: &[u8], revision: Revision) {
    let Some(at) = open(stored) else { return out.put_slice(stored) };
    out.reserve(stored.len() + 48);
    out.put_slice(&stored[..at]);
    put_version(out, stored, at, revision);
}

/// Appends the object as an item of a list: without `kind` and `apiVersion`, as upstream's typed lists.
pub(crate) fn put_item(out: &mut BytesMut, stored: &[u8], revision: Revision) {
    let Some(at) = open(stored) else { return out.put_slice(stored) };
    out.reserve(stored.len() + 48);
    out.put_slice(b"{");
    out.put_slice(METADATA);
    put_version(out, stored, at, revision);
}

/// The `metadata` object of a stored object, without the resource version.
#[must_use]
pub(crate) fn metadata_slice(stored: &[u8]) -> Option<&[u8]> {
    stored.get(metadata_range(stored)?)
}

/// Everything behind the `metadata` of a stored object: equal for objects that differ in nothing else.
#[must_use]
pub(crate) fn body_slice(stored: &[u8]) -> Option<&[u8]> {
    stored.get(metadata_range(stored)?.end..)
}

fn metadata_range(stored: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = open(stored)? - 1;
    let (mut depth, mut text, mut escaped) = (0usize, false, false);
    for (i, byte) in stored[start..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'{' | b'[' if !text => depth += 1,
            b'}' | b']' if !text => {
                depth -= 1;
                if depth == 0 {
                    return Some(start..start + i + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Parses a stored object and puts its resource version in.
///
/// # Errors
/// When the stored bytes are not JSON.
pub(crate) fn decode(stored: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(stored)?;
    // What is nowhere (a dry run, a measurement) has none.
    if revision > 0 {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_version_is_put_in_and_left_out() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "\"}"},
            "metadata": {"resourceVersion": "9", "name": "a", "labels": {"x": "}\\\""}}});
        let stored = encode(&object);
        assert!(stored.starts_with(b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{"));
        assert!(!stored.windows(15).any(|w| w == b"resourceVersion"));
        let mut want = object.clone();
        want["metadata"]["resourceVersion"] = "1234567".into();
        assert_eq!(
            serde_json::from_slice::<Value>(&{
                let mut out = BytesMut::new();
                put_object(&mut out, &stored, 1_234_567);
                out
            })
            .unwrap(),
            want
        );
        assert_eq!(decode(&stored, 1_234_567).unwrap(), want);
        let mut item = BytesMut::new();
        put_item(&mut item, &stored, 1_234_567);
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert_eq!((item.get("kind"), &item["metadata"]), (None, &want["metadata"]));
        let metadata: Value = serde_json::from_slice(metadata_slice(&stored).unwrap()).unwrap();
        assert_eq!(metadata, json!({"name": "a", "labels": {"x": "}\\\""}}));
        assert_eq!(body_slice(&stored), Some(&br#","data":{"metadata":"\"}"}}"#[..]));
    }

    #[test]
    fn names_come_from_keys() {
        assert_eq!(names_of_key(b"/registry/pods/http/web-0"), ("http", "web-0"));
        assert_eq!(names_of_key(b"/registry/nodes/peer"), ("", "peer"));
    }

    #[test]
    fn an_object_without_metadata_is_served_all_the_same() {
        let stored = encode(&json!({"kind": "X", "apiVersion": "v1"}));
        let mut out = BytesMut::new();
        put_object(&mut out, &stored, 0);
        assert!(!out.is_empty());
        let back: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(back["metadata"], json!({}));
    }
}
