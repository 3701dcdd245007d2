//! Reading and filling JSON objects by dotted paths, without panics and without copies.

use serde_json::{Map, Value};
use stead_machinery::quantity::Quantity;

static NULL: Value = Value::Null;

/// Reading: a missing field and a field of another type are both "not there".
pub(crate) trait View {
    /// The value at a dotted path; `Null` when there is none.
    fn at(&self, path: &str) -> &Value;
    /// The text at a path; empty when there is none.
    fn text(&self, path: &str) -> &str;
    fn int(&self, path: &str) -> Option<i64>;
    fn flag(&self, path: &str) -> Option<bool>;
    /// The items of the list at a path.
    fn items(&self, path: &str) -> &[Value];
    /// The entries of the object at a path.
    fn entries(&self, path: &str) -> &Map<String, Value>;
    /// Something other than null is there.
    fn has(&self, path: &str) -> bool;
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

impl View for Value {
    fn at(&self, path: &str) -> &Value {
        let mut here = self;
        for name in path.split('.') {
            match here.get(name) {
                Some(next) => here = next,
                None => return &NULL,
            }
        }
        here
    }

    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or("")
    }

    fn int(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }

    fn flag(&self, path: &str) -> Option<bool> {
        self.at(path).as_bool()
    }

    fn items(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    fn entries(&self, path: &str) -> &Map<String, Value> {
        self.at(path).as_object().unwrap_or(&EMPTY)
    }

    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }
}

/// Writing.
pub(crate) trait Fill {
    /// The object at a path, made when it is missing. `None` when something else is in the way.
    fn object(&mut self, path: &str) -> Option<&mut Map<String, Value>>;
    /// The object at a path, when it is there.
    fn at_mut(&mut self, path: &str) -> Option<&mut Value>;
    /// The items of a list, to be changed in place.
    fn items_mut(&mut self, path: &str) -> &mut [Value];
    /// Sets `key` unless it has a value. An empty text counts as no value, as in Go.
    fn fill(&mut self, key: &str, value: impl Into<Value>);
    /// Sets `key` unless it has a value; an empty text is a value (Go: a pointer).
    fn fill_null(&mut self, key: &str, value: impl Into<Value>);
    /// Sets `key` unless it has a value; zero counts as no value.
    fn fill_zero(&mut self, key: &str, value: impl Into<Value>);
    /// Sets a key, whatever was there.
    fn put(&mut self, key: &str, value: impl Into<Value>);
    /// Removes a key.
    fn drop_key(&mut self, key: &str);
}

impl Fill for Value {
    fn object(&mut self, path: &str) -> Option<&mut Map<String, Value>> {
        let mut here = self;
        for name in path.split('.') {
            let map = here.as_object_mut()?;
            let next = map.entry(name).or_insert(Value::Null);
            if next.is_null() {
                *next = Value::Object(Map::new());
            }
            here = next;
        }
        here.as_object_mut()
    }

    fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        let mut here = self;
        for name in path.split('.') {
            here = here.get_mut(name)?;
        }
        (!here.is_null()).then_some(here)
    }

    fn items_mut(&mut self, path: &str) -> &mut [Value] {
        self.at_mut(path).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
    }

    fn fill(&mut self, key: &str, value: impl Into<Value>) {
        fill_if(self, key, value, |v| v.is_null() || v.as_str() == Some(""));
    }

    fn fill_null(&mut self, key: &str, value: impl Into<Value>) {
        fill_if(self, key, value, Value::is_null);
    }

    fn fill_zero(&mut self, key: &str, value: impl Into<Value>) {
        fill_if(self, key, value, |v| v.is_null() || v.as_i64() == Some(0));
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(map) = self.as_object_mut() {
            map.insert(key.to_owned(), value.into());
        }
    }

    fn drop_key(&mut self, key: &str) {
        if let Some(map) = self.as_object_mut() {
            map.remove(key);
        }
    }
}

fn fill_if(object: &mut Value, key: &str, value: impl Into<Value>, unset: impl Fn(&Value) -> bool) {
    if let Some(map) = object.as_object_mut() {
        let here = map.entry(key).or_insert(Value::Null);
        if unset(here) {
            *here = value.into();
        }
    }
}

/// Reads an amount: a text or a number.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// Removes every null: on the wire it means the same as absence.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            // Mostly there is none, and looking is cheaper than removing none.
            if map.values().any(Value::is_null) {
                map.retain(|_, v| !v.is_null());
            }
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Equal when nulls, empty lists, empty maps and absence are the same (Go: `apiequality.Semantic.DeepEqual`).
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || hollow(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w)),
        (x, y) => x == y || (hollow(x) && hollow(y)),
    }
}

/// Nothing in Go's eyes: absent, or an empty list, map or text.
pub(crate) fn hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(hollow),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reading_and_filling() {
        let mut value = json!({"spec": {"type": "", "replicas": 0, "x": [1], "n": null}});
        assert_eq!(value.text("spec.type"), "");
        assert_eq!(value.int("spec.replicas"), Some(0));
        assert_eq!(value.items("spec.x").len(), 1);
        assert!(value.at("spec.type.deep").is_null());
        let spec = value.at_mut("spec").unwrap();
        spec.fill("type", "A");
        spec.fill_null("replicas", 1);
        spec.fill_zero("zero", 3);
        drop_nulls(&mut value);
        assert_eq!(value, json!({"spec": {"type": "A", "replicas": 0, "zero": 3, "x": [1]}}));
    }

    #[test]
    fn sameness_ignores_hollow_fields() {
        assert!(same(&json!({"a": {"b": []}}), &json!({"c": null})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [1, 2]})));
        assert!(!same(&json!({"a": 0}), &json!({})));
    }
}
