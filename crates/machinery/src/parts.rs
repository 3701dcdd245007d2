//! Where the parts of a JSON text stand, so that one can be passed on or left out without decoding the whole.
//!
//! Nothing is checked here: of a text that is no JSON the parts mean nothing, and whoever decodes them says what is wrong.

use std::ops::Range;

/// The fields of the object that `text` is: each name as it is written, and where its value stands. A text that is no object
/// has none; one that breaks off has those before the break.
#[must_use]
pub fn fields(text: &str) -> Fields<'_> {
    Fields { text, at: opened(text, b'{') }
}

/// Where the value of a field stands.
#[must_use]
pub fn field(text: &str, name: &str) -> Option<Range<usize>> {
    fields(text).find(|(found, _)| *found == name).map(|(_, place)| place)
}

/// The items of the list that `text` is.
#[must_use]
pub fn items(text: &str) -> Items<'_> {
    Items { text, at: opened(text, b'[') }
}

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    text: &'a str,
    at: usize,
}

/// See [`items`].
#[derive(Clone, Debug)]
pub struct Items<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let from = next_part(bytes, self.at);
        let end = string_end(bytes, from).filter(|_| bytes.get(from) == Some(&b'"'))?;
        let colon = space_end(bytes, end);
        let value = space_end(bytes, colon + 1);
        self.at = value_end(bytes, value).filter(|_| bytes.get(colon) == Some(&b':'))?;
        Some((self.text.get(from + 1..end - 1)?, value..self.at))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let from = next_part(bytes, self.at);
        self.at = value_end(bytes, from)?;
        self.text.get(from..self.at)
    }
}

/// Behind the bracket that `text` begins with; its end when it begins otherwise.
fn opened(text: &str, bracket: u8) -> usize {
    let start = space_end(text.as_bytes(), 0);
    if text.as_bytes().get(start) == Some(&bracket) { start + 1 } else { text.len() }
}

fn space_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len())
}

/// Where the next field or item begins, behind the comma.
fn next_part(bytes: &[u8], at: usize) -> usize {
    let at = space_end(bytes, at);
    if bytes.get(at) == Some(&b',') { space_end(bytes, at + 1) } else { at }
}

/// Behind the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Behind the value that begins at `at`; none when there is no value or no end.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => brackets_end(bytes, at),
        b',' | b':' | b'}' | b']' => None,
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
            Some(at + bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at))
        }
    }
}

fn brackets_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        at = match bytes.get(at)? {
            b'"' => string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => {
                depth -= 1;
                at + 1
            }
            _ => at + 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn shown(text: &str) -> Vec<(&str, &str)> {
        fields(text).map(|(name, place)| (name, &text[place])).collect()
    }

    #[test]
    fn fields_and_items_are_found_where_they_stand() {
        let text = r#" { "a" : 1 , "b\"" : "}\\", "c":{"d":["]",{}]},"e":[ ],"f":null}"#;
        let found = [("a", "1"), ("b\\\"", r#""}\\""#), ("c", r#"{"d":["]",{}]}"#), ("e", "[ ]"), ("f", "null")];
        assert_eq!(shown(text), found);
        assert_eq!(items(r#"[1, "x,]" ,{"a":[2]},[] ]"#).collect::<Vec<_>>(), ["1", r#""x,]""#, r#"{"a":[2]}"#, "[]"]);
        assert_eq!(field(text, "f").map(|place| &text[place]), Some("null"));
        assert_eq!(field(text, "d"), None, "only at the top");
    }

    #[test]
    fn a_text_that_breaks_off_has_the_parts_before_the_break() {
        let whole = r#"{"a":{"b":"c\"d"},"e":[1]}"#;
        for end in 0..whole.len() {
            let found = shown(&whole[..end]);
            assert!([("a", r#"{"b":"c\"d"}"#), ("e", "[1]")].starts_with(&found), "{end}: {found:?}");
        }
        for odd in ["", "[]", "\"a\"", "{", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\":,}", "\u{e4}", "{\"\\", "{]"] {
            assert!(shown(odd).is_empty(), "{odd}");
            assert_eq!(items(odd).count(), 0, "{odd}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\u{e4}\n\"\\\\]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let name = "[a-z{}\\[\\],:\"\\\\]{0,4}";
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..5).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_parts_together_are_the_whole(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.expect("JSON can be written");
            match &value {
                Value::Object(_) => {
                    let parts: Vec<String> =
                        fields(&text).map(|(name, place)| format!("\"{name}\":{}", &text[place])).collect();
                    let again: Value = serde_json::from_str(&format!("{{{}}}", parts.join(","))).expect("JSON");
                    prop_assert_eq!(again, value);
                }
                Value::Array(list) => {
                    let parts: Vec<Value> =
                        items(&text).map(|item| serde_json::from_str(item).expect("JSON")).collect();
                    prop_assert_eq!(&parts, list);
                }
                _ => prop_assert!(shown(&text).is_empty()),
            }
        }

        #[test]
        fn nothing_panics_on_any_text(text in "[ -~\u{e4}]{0,30}") {
            let _ = (shown(&text), items(&text).count());
        }
    }
}
