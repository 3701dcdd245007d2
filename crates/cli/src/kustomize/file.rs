//! The kustomization file: what it may say, and what of it is not offered.
//!
//! Source of the fields and texts: `sigs.k8s.io/kustomize/api/types`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Failure, Result, plain};

/// The names that the file may have.
pub(super) const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Fields that upstream knows and this program does not.
const UNSUPPORTED: &[&str] = &[
    "configurations",
    "crds",
    "generators",
    "helmChartInflationGenerator",
    "helmCharts",
    "helmGlobals",
    "openapi",
    "transformers",
    "validators",
    "vars",
];
/// Fields that are old names for others, and what to use.
const DEPRECATED: &[(&str, &str)] = &[
    ("bases", "resources"),
    ("commonLabels", "labels"),
    ("imageTags", "images"),
    ("patchesJson6902", "patches"),
    ("patchesStrategicMerge", "patches"),
];

/// All that it says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Kustomization {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) resources: Vec<String>,
    bases: Vec<String>,
    pub(super) components: Vec<String>,
    pub(super) name_prefix: String,
    pub(super) name_suffix: String,
    pub(super) namespace: String,
    pub(super) common_labels: BTreeMap<String, String>,
    pub(super) labels: Vec<Label>,
    pub(super) common_annotations: BTreeMap<String, String>,
    pub(super) images: Vec<Image>,
    image_tags: Vec<Image>,
    pub(super) replicas: Vec<Replicas>,
    pub(super) patches: Vec<Patch>,
    pub(super) patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub(super) patches_json: Vec<Patch>,
    pub(super) config_map_generator: Vec<Generator>,
    pub(super) secret_generator: Vec<Generator>,
    pub(super) generator_options: Options,
    pub(super) sort_options: Option<SortOptions>,
    pub(super) replacements: Vec<Replacement>,
    build_metadata: Vec<String>,
    metadata: Value,
}

/// Labels to add, and where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Label {
    pub(super) pairs: BTreeMap<String, String>,
    pub(super) include_selectors: bool,
    pub(super) include_templates: bool,
    pub(super) fields: Vec<Where>,
}

/// A field of some kinds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Where {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) create: bool,
}

/// Another image instead of one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) new_name: String,
    #[serde(deserialize_with = "text")]
    pub(super) new_tag: String,
    #[serde(deserialize_with = "text")]
    pub(super) tag_suffix: String,
    pub(super) digest: String,
}

/// A number of replicas.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Replicas {
    pub(super) name: String,
    pub(super) count: i64,
}

/// A patch of either kind.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Patch {
    pub(super) path: String,
    pub(super) patch: String,
    pub(super) target: Option<Target>,
    pub(super) options: PatchOptions,
}

/// What a patch may do beside.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PatchOptions {
    pub(super) allow_name_change: bool,
    pub(super) allow_kind_change: bool,
}

/// The objects that a patch is for; names and kinds are regular expressions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) label_selector: String,
    pub(super) annotation_selector: String,
}

/// A value, and the fields that it is put into; or the file that says so.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Replacement {
    pub(super) path: String,
    pub(super) source: Option<Source>,
    pub(super) source_value: Option<String>,
    pub(super) targets: Option<Vec<Aim>>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Source {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) field_path: String,
    pub(super) options: FieldOptions,
}

/// Where a value goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Aim {
    pub(super) select: Option<Target>,
    pub(super) reject: Vec<Target>,
    pub(super) field_paths: Vec<String>,
    pub(super) options: FieldOptions,
}

/// Which part of a field is meant, and whether the field is made where it is not there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FieldOptions {
    pub(super) delimiter: String,
    pub(super) index: i64,
    /// Upstream reads it and does nothing with it.
    pub(super) encoding: String,
    pub(super) create: bool,
}

/// A ConfigMap or Secret to make.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Generator {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) behavior: String,
    pub(super) literals: Vec<String>,
    pub(super) files: Vec<String>,
    pub(super) envs: Vec<String>,
    pub(super) env: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) options: Options,
}

/// What generated objects are given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Options {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) disable_name_suffix_hash: bool,
    pub(super) immutable: bool,
}

/// The order of the output.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SortOptions {
    pub(super) order: String,
    pub(super) legacy_sort_options: Option<Order>,
}

/// Which kinds come first and last.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Order {
    pub(super) order_first: Vec<String>,
    pub(super) order_last: Vec<String>,
}

/// A tag such as `1.21` may have been written without quotes.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Null => Ok(String::new()),
        other => {
            Err(serde::de::Error::custom(format!("a tag has to be a string, and {other} is none: put it into quotes")))
        }
    }
}

impl Kustomization {
    /// Reads one. Beside it the warnings that upstream gives.
    pub(super) fn parse(content: &[u8], directory: &str) -> Result<(Self, Vec<String>)> {
        let invalid = |why: String| Failure::Plain(format!("invalid Kustomization: {why}"));
        let text = String::from_utf8_lossy(content);
        let mut value: Value = serde_norway::from_str(&text).map_err(|error| invalid(format!("yaml: {error}")))?;
        if value.is_null() {
            return plain("kustomization.yaml is empty");
        }
        let Some(map) = value.as_object_mut() else {
            return Err(invalid("it has to be a map of fields".to_owned()));
        };
        if let Some(name) = UNSUPPORTED.iter().find(|name| map.get(**name).is_some_and(said)) {
            return plain(format!("{directory}: the field {name:?} of a kustomization is not supported here"));
        }
        map.retain(|name, value| !UNSUPPORTED.contains(&&**name) && !value.is_null());
        let warnings = DEPRECATED.iter().filter(|(old, _)| map.contains_key(*old)).map(|(old, new)| {
            format!(
                "# Warning: '{old}' is deprecated. Please use '{new}' instead. Run 'kustomize edit fix' to update your Kustomization automatically."
            )
        });
        let warnings = warnings.collect();
        if let Some(unknown) = map.keys().find(|name| !KNOWN.contains(&&***name)) {
            return Err(invalid(format!("json: unknown field {unknown:?}")));
        }
        let empty = map.iter().all(|(name, value)| matches!(&**name, "apiVersion" | "kind") || !said(value));
        let mut file: Self = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
        if empty {
            return plain("kustomization.yaml is empty");
        }
        file.check(directory)?;
        file.resources.append(&mut file.bases);
        file.images.append(&mut file.image_tags);
        for generator in file.config_map_generator.iter_mut().chain(&mut file.secret_generator) {
            let env = std::mem::take(&mut generator.env);
            generator.envs.extend(Some(env).filter(|env| !env.is_empty()));
        }
        Ok((file, warnings))
    }

    /// The replacements of a file of their own: one, or a list.
    pub(super) fn replacements(content: &[u8]) -> Result<Vec<Replacement>> {
        let text = String::from_utf8_lossy(content);
        let read = |value: Value| match value {
            Value::Array(_) => serde_json::from_value(value),
            one => serde_json::from_value(one).map(|one| vec![one]),
        };
        let value: Value = serde_norway::from_str(&text).map_err(|error| Failure::Plain(format!("yaml: {error}")))?;
        read(value).map_err(|error| {
            Failure::Plain(format!("unsupported replacement type encountered within replacement path: {error}"))
        })
    }

    fn check(&self, directory: &str) -> Result {
        if !matches!(&*self.kind, "" | "Kustomization" | "Component") {
            return plain(format!(
                "Failed to read kustomization file under {directory}:\nkind should be Kustomization or Component"
            ));
        }
        let (kind, wanted) = match self.is_component() {
            true => ("Component", "kustomize.config.k8s.io/v1alpha1"),
            false => ("Kustomization", "kustomize.config.k8s.io/v1beta1"),
        };
        if !self.api_version.is_empty() && self.api_version != wanted {
            return plain(format!(
                "Failed to read kustomization file under {directory}:\napiVersion for {kind} should be {wanted}"
            ));
        }
        if let Some(option) = self.build_metadata.first() {
            return plain(format!("{directory}: buildMetadata {option:?} of a kustomization is not supported here"));
        }
        Ok(())
    }

    pub(super) fn is_component(&self) -> bool {
        self.kind == "Component"
    }
}

/// Fields that are read.
const KNOWN: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "bases",
    "components",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "commonAnnotations",
    "images",
    "imageTags",
    "replicas",
    "patches",
    "patchesStrategicMerge",
    "patchesJson6902",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
    "sortOptions",
    "buildMetadata",
    "replacements",
];

/// Whether a field says something.
fn said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    }
}
