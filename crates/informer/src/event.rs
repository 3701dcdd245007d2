//! What a watch says, line by line, and what a list says, item by item. The text of an object is decoded once, when it is known
//! what it is, and without the record of who manages its fields: that is a third of many objects, and nobody here reads it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use stead_api::typed;
use stead_machinery::parts;

/// One line of a watch, with the text of its object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The object is new or has changed.
    Applied(&'a str),
    Deleted(&'a str),
    /// Nothing happened up to the revision that the object carries.
    Bookmark(&'a str),
    /// The watch ends; the object says why.
    Failed(&'a str),
}

impl<'a> Event<'a> {
    /// `None`: the line is no event.
    pub(crate) fn read(line: &'a str) -> Option<Self> {
        let (mut kind, mut object) = (None, None);
        for (name, place) in parts::fields(line) {
            match name {
                "type" => kind = line.get(place),
                "object" => object = line.get(place),
                _ => {}
            }
        }
        let object = object?;
        Some(match kind?.trim_matches('"') {
            "ADDED" | "MODIFIED" => Self::Applied(object),
            "DELETED" => Self::Deleted(object),
            "BOOKMARK" => Self::Bookmark(object),
            "ERROR" => Self::Failed(object),
            _ => return None,
        })
    }
}

/// What tells an object from others, and its states from each other.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Names {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) resource_version: String,
}

/// The names in the metadata of an object; empty where it has none.
pub(crate) fn names(object: &str) -> Result<Names, serde_json::Error> {
    parts::field(object, "metadata").map_or_else(|| Ok(Names::default()), |place| serde_json::from_str(&object[place]))
}

/// Decodes an object without its `managedFields`.
pub(crate) fn object<K: DeserializeOwned>(text: &str) -> Result<K, serde_json::Error> {
    typed::from_text(&unmanaged(text))
}

fn unmanaged(object: &str) -> Cow<'_, str> {
    let managed = || {
        let metadata = parts::field(object, "metadata")?;
        let managed = parts::field(&object[metadata.clone()], "managedFields")?;
        Some(metadata.start + managed.start..metadata.start + managed.end)
    };
    match managed() {
        Some(place) => [&object[..place.start], "null", &object[place.end..]].concat().into(),
        None => object.into(),
    }
}

/// The revision, the token of the next page, and the items of a list.
pub(crate) struct Page<'a> {
    pub(crate) revision: String,
    /// Empty: this page is the last one.
    pub(crate) next: String,
    pub(crate) items: parts::Items<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// Reads one page of a list. Items are not decoded yet.
pub(crate) fn page(text: &str) -> Result<Page<'_>, serde_json::Error> {
    let (mut metadata, mut items) = (ListMeta::default(), None);
    for (name, place) in parts::fields(text) {
        match name {
            "metadata" => metadata = serde_json::from_str(&text[place])?,
            "items" => items = Some(parts::items(&text[place])),
            _ => {}
        }
    }
    match items {
        Some(items) => Ok(Page { revision: metadata.resource_version, next: metadata.next, items }),
        None => Err(serde::de::Error::missing_field("items")),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[test]
    fn a_line_is_told_by_its_type_wherever_that_stands() {
        for (line, event) in [
            (r#"{"type":"ADDED","object":{"a":1}}"#, Some(Event::Applied(r#"{"a":1}"#))),
            (r#"{"object": {"type":"ADDED"}, "type": "DELETED"}"#, Some(Event::Deleted(r#"{"type":"ADDED"}"#))),
            ("{\"type\":\"MODIFIED\",\"object\":{}}\n", Some(Event::Applied("{}"))),
            (r#"{"type":"BOOKMARK","object":{}}"#, Some(Event::Bookmark("{}"))),
            (r#"{"type":"ERROR","object":{}}"#, Some(Event::Failed("{}"))),
            (r#"{"type":"SOLD","object":{}}"#, None),
            (r#"{"type":"ADDED","object":{"a":"#, None),
            (r#"{"kind":"Status"}"#, None),
            ("", None),
        ] {
            assert_eq!(Event::read(line), event, "{line}");
        }
    }

    #[test]
    fn an_object_is_decoded_without_its_managers() {
        let text = r#"{"kind":"ConfigMap","metadata":{"annotations":{"managedFields":"x"},"managedFields":[{"manager":"}\"]"}],"name":"a","resourceVersion":"7"},"data":{"managedFields":"y"}}"#;
        let map: ConfigMap = object(text).expect("a config map");
        assert_eq!((map.metadata.name.as_deref(), map.metadata.managed_fields), (Some("a"), None));
        assert_eq!(map.metadata.annotations.map(|all| all.len()), Some(1));
        assert_eq!(map.data.map(|all| all.len()), Some(1));
        let names = names(text).expect("names");
        assert_eq!(names, Names { namespace: String::new(), name: "a".to_owned(), resource_version: "7".to_owned() });
    }

    #[test]
    fn a_page_has_its_items_and_says_whether_there_are_more() {
        let text = r#"{"kind":"List","metadata":{"resourceVersion":"9","continue":"t","remainingItemCount":3},"items":[{"a":1},{}]}"#;
        let page = page(text).expect("a page");
        assert_eq!((page.revision.as_str(), page.next.as_str()), ("9", "t"));
        assert_eq!(page.items.collect::<Vec<_>>(), [r#"{"a":1}"#, "{}"]);
        for (text, items) in [(r#"{"metadata":{},"items":null}"#, Some(0)), ("{}", None), ("<html>", None)] {
            assert_eq!(super::page(text).ok().map(|page| page.items.count()), items, "{text}");
        }
    }
}
