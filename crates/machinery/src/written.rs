//! Whether an object would be written as some JSON says, without writing it.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};
use serde_json::{Map, Value};

/// Whether `object` would be written as `json`. What is null and what is not there are the same: older API servers wrote nulls
/// (`creationTimestamp: null`) where newer ones write nothing.
#[must_use]
pub fn is_written_as<T: Serialize + ?Sized>(object: &T, json: &Value) -> bool {
    object.serialize(Against::Value(json)).is_ok()
}

/// What is compared with.
#[derive(Clone, Copy)]
enum Against<'v> {
    Value(&'v Value),
    /// The name of a field.
    Name(&'v str),
}

/// They are not the same. Carries nothing: nobody asks where.
#[derive(Debug)]
struct Differs;

type Verdict = Result<(), Differs>;

fn same(yes: bool) -> Verdict {
    if yes { Ok(()) } else { Err(Differs) }
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it differs")
    }
}

impl std::error::Error for Differs {}

impl ser::Error for Differs {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'v> Against<'v> {
    fn value(self) -> Option<&'v Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Name(_) => None,
        }
    }

    fn number(self, is: impl FnOnce(&Value) -> bool) -> Verdict {
        same(self.value().is_some_and(is))
    }

    fn items(self) -> Result<Items<'v>, Differs> {
        match self {
            Self::Value(Value::Array(items)) => Ok(Items { rest: items }),
            _ => Err(Differs),
        }
    }

    fn fields(self) -> Result<Fields<'v>, Differs> {
        match self {
            Self::Value(Value::Object(all)) => Ok(Fields { all, met: 0, next: &Value::Null }),
            _ => Err(Differs),
        }
    }

    /// The content of `{"variant": ...}`.
    fn variant(self, name: &str) -> Result<Self, Differs> {
        let content =
            self.value().and_then(Value::as_object).filter(|all| all.len() == 1).and_then(|all| all.get(name));
        content.map(Self::Value).ok_or(Differs)
    }
}

/// The items that were not compared yet.
struct Items<'v> {
    rest: &'v [Value],
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Verdict {
        let (first, rest) = self.rest.split_first().ok_or(Differs)?;
        self.rest = rest;
        item.serialize(Against::Value(first))
    }

    fn ended(self) -> Verdict {
        same(self.rest.is_empty())
    }
}

struct Fields<'v> {
    all: &'v Map<String, Value>,
    /// How many that are not null were compared.
    met: usize,
    /// What belongs to the name that was compared last.
    next: &'v Value,
}

impl<'v> Fields<'v> {
    fn find(&mut self, found: Option<&'v Value>) {
        self.next = found.unwrap_or(&Value::Null);
        self.met += usize::from(!self.next.is_null());
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Verdict {
        self.find(self.all.get(name));
        value.serialize(Against::Value(self.next))
    }

    fn ended(self) -> Verdict {
        same(self.met == self.all.values().filter(|value| !value.is_null()).count())
    }
}

impl<'v> Serializer for Against<'v> {
    type Ok = ();
    type Error = Differs;
    type SerializeSeq = Items<'v>;
    type SerializeTuple = Items<'v>;
    type SerializeTupleStruct = Items<'v>;
    type SerializeTupleVariant = Items<'v>;
    type SerializeMap = Fields<'v>;
    type SerializeStruct = Fields<'v>;
    type SerializeStructVariant = Fields<'v>;

    fn serialize_bool(self, yes: bool) -> Verdict {
        self.number(|value| value.as_bool() == Some(yes))
    }

    fn serialize_i8(self, number: i8) -> Verdict {
        self.serialize_i64(number.into())
    }

    fn serialize_i16(self, number: i16) -> Verdict {
        self.serialize_i64(number.into())
    }

    fn serialize_i32(self, number: i32) -> Verdict {
        self.serialize_i64(number.into())
    }

    fn serialize_i64(self, number: i64) -> Verdict {
        self.number(|value| value.as_i64() == Some(number))
    }

    fn serialize_u8(self, number: u8) -> Verdict {
        self.serialize_u64(number.into())
    }

    fn serialize_u16(self, number: u16) -> Verdict {
        self.serialize_u64(number.into())
    }

    fn serialize_u32(self, number: u32) -> Verdict {
        self.serialize_u64(number.into())
    }

    fn serialize_u64(self, number: u64) -> Verdict {
        self.number(|value| value.as_u64() == Some(number))
    }

    fn serialize_f32(self, number: f32) -> Verdict {
        self.number(|value| *value == number)
    }

    fn serialize_f64(self, number: f64) -> Verdict {
        self.number(|value| *value == number)
    }

    fn serialize_char(self, letter: char) -> Verdict {
        self.serialize_str(letter.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Verdict {
        same(match self {
            Self::Value(value) => value.as_str() == Some(text),
            Self::Name(name) => name == text,
        })
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Verdict {
        bytes.serialize(self)
    }

    fn serialize_none(self) -> Verdict {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Verdict {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Verdict {
        self.number(Value::is_null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Verdict {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Verdict {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Verdict {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Verdict {
        value.serialize(self.variant(variant)?)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'v>, Differs> {
        self.items()
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'v>, Differs> {
        self.items()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'v>, Differs> {
        self.items()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'v>, Differs> {
        self.variant(variant)?.items()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields<'v>, Differs> {
        self.fields()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'v>, Differs> {
        self.fields()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields<'v>, Differs> {
        self.variant(variant)?.fields()
    }
}

impl ser::SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Verdict {
        self.item(item)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Verdict {
        self.item(item)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeTupleStruct for Items<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, item: &T) -> Verdict {
        self.item(item)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeTupleVariant for Items<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, item: &T) -> Verdict {
        self.item(item)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeMap for Fields<'_> {
    type Ok = ();
    type Error = Differs;

    /// A key is known only by being written: it is compared with each name. Maps of labels are short.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Verdict {
        let is_it = |name: &str| key.serialize(Against::Name(name)).is_ok();
        self.find(self.all.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value));
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Verdict {
        value.serialize(Against::Value(self.next))
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeStruct for Fields<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Verdict {
        self.field(name, value)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

impl ser::SerializeStructVariant for Fields<'_> {
    type Ok = ();
    type Error = Differs;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Verdict {
        self.field(name, value)
    }

    fn end(self) -> Verdict {
        self.ended()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(serde::Serialize)]
    enum Kind {
        Plain,
        Of(i32),
        With { a: bool },
        Pair(u8, char),
    }

    #[derive(serde::Serialize)]
    struct Object {
        name: &'static str,
        size: Option<u64>,
        ratio: f64,
        kinds: Vec<Kind>,
        labels: BTreeMap<&'static str, i32>,
        #[serde(flatten)]
        more: BTreeMap<&'static str, (bool, ())>,
    }

    fn object() -> Object {
        Object {
            name: "a",
            size: None,
            ratio: 0.5,
            kinds: vec![Kind::Plain, Kind::Of(-1), Kind::With { a: true }, Kind::Pair(2, 'x')],
            labels: [("l", 1), ("m", 2)].into(),
            more: [("n", (false, ()))].into(),
        }
    }

    #[test]
    fn an_object_is_written_as_it_is_written() {
        let written = serde_json::to_value(object()).expect("json");
        assert!(is_written_as(&object(), &written), "{written}");
        let mut nulls = written.clone();
        nulls["other"] = Value::Null;
        nulls["labels"]["gone"] = Value::Null;
        nulls.as_object_mut().expect("an object").remove("size");
        assert!(is_written_as(&object(), &nulls), "{nulls}");
    }

    #[test]
    fn every_difference_is_seen() {
        let written = serde_json::to_value(object()).expect("json");
        for (place, other) in [
            ("/name", json!("b")),
            ("/name", json!(null)),
            ("/name", json!(["a"])),
            ("/size", json!(1)),
            ("/ratio", json!(1)),
            ("/kinds", json!(["Plain"])),
            ("/kinds/0", json!("Of")),
            ("/kinds/1", json!({"Of": 1})),
            ("/kinds/1", json!({"Of": -1, "Plain": 1})),
            ("/kinds/2/With/a", json!(false)),
            ("/kinds/2/With", json!({"a": true, "b": 1})),
            ("/kinds/3/Pair", json!([2])),
            ("/kinds/3/Pair/1", json!("y")),
            ("/labels", json!({"l": 1, "m": 2, "n": 3})),
            ("/labels", json!({"l": 1})),
            ("/labels/m", json!("2")),
            ("/n/0", json!(true)),
            ("/n", json!([false, null, null])),
        ] {
            let mut differs = written.clone();
            *differs.pointer_mut(place).expect("is there") = other;
            assert!(!is_written_as(&object(), &differs), "{differs}");
        }
        let mut more = written;
        more["other"] = json!(0);
        assert!(!is_written_as(&object(), &more));
    }
}
