//! Client-side apply: what is kept of a manifest on the object, and the patch that brings the live object there. Pure.
//!
//! Source of the rules: `k8s.io/kubectl/pkg/cmd/apply` (patcher), `k8s.io/kubectl/pkg/util` (apply).

use serde_json::{Map, Value};

use crate::commands::common::{MERGE, STRATEGIC, shape_of};
use crate::failure::{Failure, Result};
use crate::print::compact;
use crate::resources::Resource;

/// Where a manifest is kept on its object.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest with itself in its annotation, as it is to be created or merged.
pub(crate) fn with_annotation(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    let kept = {
        annotations(&mut object).remove(LAST_APPLIED);
        compact(&object) + "\n"
    };
    annotations(&mut object).insert(LAST_APPLIED.to_owned(), kept.into());
    object
}

/// The manifest without itself, with annotations, be there none.
pub(crate) fn without_annotation(manifest: &Value) -> Value {
    let mut object = manifest.clone();
    annotations(&mut object).remove(LAST_APPLIED);
    object
}

/// The annotations of an object, made when there are none.
fn annotations(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(Map::new());
    }
    let entry = &mut object["metadata"]["annotations"];
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    match entry {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

/// What was applied last, when that is known.
pub(crate) fn last_applied(live: &Value) -> Option<Value> {
    serde_json::from_str(live["metadata"]["annotations"][LAST_APPLIED].as_str()?).ok()
}

/// The patch of the live object, and its media type: three-way and strategic where the schema is known. Empty when nothing changes.
pub(crate) fn patch(resource: &Resource, live: &Value, manifest: &Value) -> Result<(Value, &'static str)> {
    patch_to(resource, live, &last_applied(live).unwrap_or_default(), &with_annotation(manifest))
}

/// The same to any form, from what was applied last.
pub(crate) fn patch_to(
    resource: &Resource,
    live: &Value,
    original: &Value,
    modified: &Value,
) -> Result<(Value, &'static str)> {
    match shape_of(resource) {
        Some(shape) => {
            let schema = stead_api::schema::schema();
            let patch = stead_machinery::patch::diff::three_way(schema, shape, original, modified, live);
            Ok((patch.map_err(|error| Failure::Plain(error.to_string()))?, STRATEGIC))
        }
        None => {
            let empty = Value::Object(Map::new());
            let original = if original.is_object() { original } else { &empty };
            Ok((stead_machinery::patch::merge::three_way(original, modified, live), MERGE))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::tests::usual;

    #[test]
    fn the_annotation_holds_the_manifest_without_itself() {
        let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "<"}});
        let once = with_annotation(&manifest);
        let kept =
            r#"{"apiVersion":"v1","data":{"x":"\u003c"},"kind":"ConfigMap","metadata":{"annotations":{},"name":"a"}}"#;
        assert_eq!(once["metadata"]["annotations"][LAST_APPLIED], format!("{kept}\n"));
        assert_eq!(with_annotation(&once), once);
    }

    #[test]
    fn what_the_manifest_no_longer_says_goes_and_what_others_set_stays() {
        let config = usual().find("cm").expect("there");
        let manifest =
            |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        let mut live = with_annotation(&manifest(json!({"x": "1", "y": "2"})));
        live["data"]["theirs"] = "3".into();
        live["metadata"]["uid"] = "u".into();
        let (nothing, _) = patch(&config, &live, &manifest(json!({"x": "1", "y": "2"}))).expect("diffs");
        assert_eq!(nothing, json!({}));
        let (changes, media) = patch(&config, &live, &manifest(json!({"x": "9"}))).expect("diffs");
        assert_eq!((&changes["data"], media), (&json!({"x": "9", "y": null}), STRATEGIC));
    }
}
