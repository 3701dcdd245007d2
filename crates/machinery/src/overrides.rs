//! Patches for the pods of single ordinals, as people write them: YAML or JSON, a map from ordinals to strategic merge patches
//! of a pod template.
//!
//! ```yaml
//! "0": {spec: {nodeSelector: {disk: fast}}}
//! "3-5": {metadata: {labels: {zone: b}}, spec: {containers: [{name: db, env: [{name: ROLE, value: arbiter}]}]}}
//! ```
//!
//! A patch changes what a pod runs, never who it is: neither its host name nor a label by which its set knows it.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use stead_api::schema::{Shape, schema};

use crate::decode::{self, Target};
use crate::ordinals::range;
use crate::patch::strategic;

/// Digits of the text by which patches are told apart.
const HASH_DIGITS: usize = 10;
/// Fields of a pod's spec that are its identity, or that a set decides.
const FIXED: &[&str] = &["hostname", "subdomain", "restartPolicy", "activeDeadlineSeconds"];

/// The patches of a set; no ordinal has two.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    patches: Vec<(RangeInclusive<u32>, Value)>,
}

impl Overrides {
    /// Reads a map. `is_fixed`: labels that no patch may name.
    ///
    /// # Errors
    /// What cannot be understood, or is not for a patch to change.
    pub fn parse(text: &str, is_fixed: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let map: Map<String, Value> = match text.trim() {
            "" => Map::new(),
            text => serde_norway::from_str(text)
                .map_err(|error| format!("it is no map from ordinals to patches of a pod template: {error}"))?,
        };
        let mut patches: Vec<(RangeInclusive<u32>, Value)> = Vec::with_capacity(map.len());
        for (key, patch) in map {
            let ordinals =
                range(&key).ok_or_else(|| format!("{key:?} is neither an ordinal nor a range such as 3-5"))?;
            judge(&key, &patch, is_fixed)?;
            if let Some((other, _)) = patches.iter().find(|(other, _)| overlap(other, &ordinals)) {
                return Err(format!("{key:?} and {:?} name the same ordinals", shown(other)));
            }
            patches.push((ordinals, patch));
        }
        Ok(Self { patches })
    }

    /// The patch of an ordinal.
    #[must_use]
    pub fn of(&self, ordinal: u32) -> Option<&Value> {
        self.patches.iter().find(|(ordinals, _)| ordinals.contains(&ordinal)).map(|(_, patch)| patch)
    }

    /// All patches, with the ordinals that they are for.
    pub fn all(&self) -> impl Iterator<Item = (String, &Value)> {
        self.patches.iter().map(|(ordinals, patch)| (shown(ordinals), patch))
    }
}

fn overlap(one: &RangeInclusive<u32>, other: &RangeInclusive<u32>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

fn shown(ordinals: &RangeInclusive<u32>) -> String {
    let (first, last) = (ordinals.start(), ordinals.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Whether a patch changes only what it may.
fn judge(key: &str, patch: &Value, is_fixed: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let only = |value: &Value, at: &str, allowed: &[&str]| {
        let fields = value.as_object().ok_or_else(|| format!("{key:?}: {at} is no map"))?;
        match fields.keys().find(|field| !allowed.contains(&field.as_str())) {
            Some(other) => Err(format!("{key:?}: {at} may have {} only, not {other:?}", allowed.join(" and "))),
            None => Ok(()),
        }
    };
    only(patch, "the patch", &["metadata", "spec"])?;
    if let Some(metadata) = patch.get("metadata") {
        only(metadata, "metadata", &["labels", "annotations"])?;
        for part in ["labels", "annotations"] {
            let Some(values) = metadata.get(part) else { continue };
            let values = values.as_object().ok_or_else(|| format!("{key:?}: metadata.{part} is no map"))?;
            let odd =
                values.iter().find(|(name, value)| name.starts_with('$') || !(value.is_string() || value.is_null()));
            if let Some((name, _)) = odd {
                return Err(format!("{key:?}: metadata.{part}[{name}] is neither a text nor null"));
            }
        }
        let labels = metadata.get("labels").and_then(Value::as_object);
        if let Some(label) = labels.into_iter().flat_map(Map::keys).find(|label| is_fixed(label)) {
            return Err(format!(
                "{key:?}: the label {label} is not for a patch to change: the set knows its pods by it"
            ));
        }
    }
    if let Some(spec) = patch.get("spec") {
        let spec = spec.as_object().ok_or_else(|| format!("{key:?}: spec is no map"))?;
        if let Some(field) = spec.keys().find(|field| FIXED.contains(&field.as_str()) || field.starts_with('$')) {
            return Err(format!("{key:?}: spec.{field} is not for a patch to change"));
        }
    }
    Ok(())
}

/// A pod template with a patch applied.
///
/// # Errors
/// The patch does not fit: a list item without its key, a field that no pod template has.
pub fn patched(template: &Value, patch: &Value) -> Result<Value, String> {
    let schema = schema();
    let id = schema.find("io.k8s.api.core.v1.PodTemplateSpec").ok_or("there is no schema of pod templates")?;
    let merged = strategic::apply(schema, Shape::Struct(id), template.clone(), patch.clone())
        .map_err(|error| error.to_string())?;
    let target = Target::named("", "v1", "PodTemplate").ok_or("there is no schema of pod templates")?;
    let whole = json!({"apiVersion": "v1", "kind": "PodTemplate", "template": merged});
    let (mut whole, unknown) = decode::recheck(&target, &whole).map_err(|fault| fault.convert)?;
    match unknown.first() {
        Some(unknown) => Err(unknown.replace("\"template.", "\"")),
        None => Ok(whole.remove("template").unwrap_or_default()),
    }
}

/// A text by which patches are told apart. It does not depend on the order of fields.
#[must_use]
pub fn hash(patch: &Value) -> String {
    let mut text = String::with_capacity(HASH_DIGITS + 1);
    for byte in Sha256::digest(canonical(patch)).iter().take(HASH_DIGITS.div_ceil(2)) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let fields: Vec<_> =
                fields.into_iter().map(|(name, value)| format!("{name:?}:{}", canonical(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Overrides, String> {
        Overrides::parse(text, &|label| label == "app")
    }

    #[test]
    fn a_map_has_a_patch_for_each_ordinal() {
        let overrides =
            parse("0: {spec: {nodeSelector: {disk: fast}}}\n\"3-5\":\n  metadata: {labels: {zone: b}}").expect("good");
        assert_eq!(overrides.of(0), Some(&json!({"spec": {"nodeSelector": {"disk": "fast"}}})));
        assert_eq!(overrides.of(4), Some(&json!({"metadata": {"labels": {"zone": "b"}}})));
        assert_eq!(overrides.of(1), None);
        assert_eq!(parse(r#"{"2": {"spec": {}}}"#).expect("JSON is YAML").of(2), Some(&json!({"spec": {}})));
        assert_eq!(parse(" ").expect("nothing"), Overrides::default());
    }

    #[test]
    fn what_cannot_be_understood_or_would_change_who_a_pod_is_is_named() {
        for (text, expected) in [
            ("[1]", "it is no map from ordinals"),
            ("a: {}", "\"a\" is neither an ordinal nor a range such as 3-5"),
            ("{\"0-2\": {}, \"2\": {}}", "name the same ordinals"),
            ("0: {status: {}}", "\"0\": the patch may have metadata and spec only, not \"status\""),
            ("0: {metadata: {name: x}}", "\"0\": metadata may have labels and annotations only, not \"name\""),
            ("0: {metadata: {labels: {app: x}}}", "\"0\": the label app is not for a patch to change"),
            ("0: {metadata: {labels: {$patch: replace}}}", "\"0\": metadata.labels[$patch] is neither"),
            ("0: {metadata: {labels: {n: 1}}}", "\"0\": metadata.labels[n] is neither a text nor null"),
            ("0: {spec: {hostname: x}}", "\"0\": spec.hostname is not for a patch to change"),
            ("0: {spec: {$patch: replace}}", "\"0\": spec.$patch is not for a patch to change"),
            ("0: 5", "\"0\": the patch is no map"),
            ("0: {spec: 5}", "\"0\": spec is no map"),
        ] {
            let got = parse(text).expect_err(text);
            assert!(got.contains(expected), "{text}: {got}");
        }
    }

    #[test]
    fn a_patch_merges_as_upstreams_do() {
        let template = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]},
        });
        let patch = json!({
            "metadata": {"labels": {"zone": "b"}},
            "spec": {"containers": [{"name": "b", "image": "b:2"}], "nodeSelector": {"disk": "fast"}},
        });
        let expected = json!({
            "metadata": {"labels": {"app": "web", "zone": "b"}},
            "spec": {
                "containers": [{"name": "a", "image": "a:1", "resources": {}}, {"name": "b", "image": "b:2", "resources": {}}],
                "nodeSelector": {"disk": "fast"},
            },
        });
        assert_eq!(patched(&template, &patch), Ok(expected));
        for (patch, expected) in [
            (json!({"spec": {"containers": [{"image": "x"}]}}), "does not contain declared merge key: name"),
            (json!({"spec": {"containers": [{"name": "a", "imagee": "x"}]}}), "spec.containers[0].imagee"),
            (json!({"spec": {"containers": [{"name": "a", "image": 5}]}}), ""),
        ] {
            let got = patched(&template, &patch).expect_err("a bad patch");
            assert!(got.contains(expected), "{patch}: {got}");
        }
    }

    #[test]
    fn the_same_patch_has_the_same_hash_and_another_one_another() {
        let one: Value = serde_json::from_str(r#"{"spec": {"a": [1, "x"], "b": null}}"#).expect("json");
        let same: Value = serde_json::from_str(r#"{"spec": {"b": null, "a": [1, "x"]}}"#).expect("json");
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&json!({"spec": {"a": [1, "y"], "b": null}})));
        assert_eq!(hash(&json!({})), "44136fa355", "it is kept on pods, so it must never change");
    }
}
