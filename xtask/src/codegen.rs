//! Generates the checked-in schema of the Kubernetes types from the published JSON schemas.
//!
//! Input: `_definitions.json` of one Kubernetes version, as the PyPI package `kubernetes-validate` (Apache-2.0) carries it.
//! Output: `crates/api/data/schema.txt`, one line per type and field (the grammar is told in `stead_api::schema`), and
//! `crates/api/data/descriptions.zz`, the descriptions of the same lines in the same order, compressed with zlib.
//!
//! What the published schemas do not say, what becomes of zero values, `cargo xtask codegen-zeros` adds afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::ZlibEncoder};
use serde_json::Value;

type Definitions = BTreeMap<String, Value>;

/// Definitions that the published schemas lack: the types of `metrics.k8s.io`, which upstream's metrics-server serves.
const MORE: &str = include_str!("metrics.json");

/// Types that requests and answers carry beside the kinds themselves.
const EXTRA_ROOTS: &[&str] = &[
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetricsList",
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetricsList",
];

/// Defaults of fields that are keys of an associative list: server-side apply needs them; the published schemas lack them.
const DEFAULTS: &[(&str, &str, &str)] =
    &[("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"), ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP")];

/// Go's names of fields whose type is not plain in the published schemas; error texts show them. (type, field, Go type)
const GO_TYPES: &[(&str, &str, &str)] = &[
    ("PodSpec", "restartPolicy", "v1.RestartPolicy"),
    ("PodSpec", "dnsPolicy", "v1.DNSPolicy"),
    ("PodSpec", "preemptionPolicy", "v1.PreemptionPolicy"),
    ("Container", "imagePullPolicy", "v1.PullPolicy"),
    ("Container", "terminationMessagePolicy", "v1.TerminationMessagePolicy"),
    ("Container", "restartPolicy", "v1.ContainerRestartPolicy"),
    ("EphemeralContainer", "imagePullPolicy", "v1.PullPolicy"),
    ("EphemeralContainer", "terminationMessagePolicy", "v1.TerminationMessagePolicy"),
    ("ContainerPort", "protocol", "v1.Protocol"),
    ("ServicePort", "protocol", "v1.Protocol"),
    ("ServiceSpec", "type", "v1.ServiceType"),
    ("ServiceSpec", "sessionAffinity", "v1.ServiceAffinity"),
    ("ServiceSpec", "externalTrafficPolicy", "v1.ServiceExternalTrafficPolicy"),
    ("ServiceSpec", "internalTrafficPolicy", "v1.ServiceInternalTrafficPolicy"),
    ("ServiceSpec", "ipFamilyPolicy", "v1.IPFamilyPolicy"),
    ("ServiceSpec", "ipFamilies", "[]v1.IPFamily"),
    ("HTTPGetAction", "scheme", "v1.URIScheme"),
    ("HTTPGetAction", "port", "int32"),
    ("TCPSocketAction", "port", "int32"),
    ("Secret", "type", "v1.SecretType"),
    ("PersistentVolumeClaimSpec", "accessModes", "[]v1.PersistentVolumeAccessMode"),
    ("PersistentVolumeClaimSpec", "volumeMode", "v1.PersistentVolumeMode"),
    ("PersistentVolumeSpec", "accessModes", "[]v1.PersistentVolumeAccessMode"),
    ("PersistentVolumeSpec", "volumeMode", "v1.PersistentVolumeMode"),
    ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy", "v1.PersistentVolumeReclaimPolicy"),
    ("PersistentVolumeSpec", "capacity", "v1.ResourceList"),
    ("ResourceRequirements", "limits", "v1.ResourceList"),
    ("ResourceRequirements", "requests", "v1.ResourceList"),
    ("VolumeResourceRequirements", "limits", "v1.ResourceList"),
    ("VolumeResourceRequirements", "requests", "v1.ResourceList"),
    ("ResourceQuotaSpec", "hard", "v1.ResourceList"),
    ("StatefulSetSpec", "podManagementPolicy", "v1.PodManagementPolicyType"),
    ("StatefulSetUpdateStrategy", "type", "v1.StatefulSetUpdateStrategyType"),
    ("DaemonSetUpdateStrategy", "type", "v1.DaemonSetUpdateStrategyType"),
    ("DeploymentStrategy", "type", "v1.DeploymentStrategyType"),
    ("CronJobSpec", "concurrencyPolicy", "v1.ConcurrencyPolicy"),
    ("Toleration", "operator", "v1.TolerationOperator"),
    ("Toleration", "effect", "v1.TaintEffect"),
    ("Taint", "effect", "v1.TaintEffect"),
    ("StorageClass", "reclaimPolicy", "v1.PersistentVolumeReclaimPolicy"),
    ("StorageClass", "volumeBindingMode", "v1.VolumeBindingMode"),
    ("LabelSelectorRequirement", "operator", "v1.LabelSelectorOperator"),
    ("ObjectMeta", "uid", "types.UID"),
    ("OwnerReference", "uid", "types.UID"),
    ("ManagedFieldsEntry", "operation", "v1.ManagedFieldsOperationType"),
];

/// Reads the schema at `definitions` and rewrites the generated files below `root`, the workspace's directory.
///
/// # Errors
/// When the input is not such a schema, says a thing that the compact form cannot, or a file cannot be written.
pub(crate) fn run(definitions: &Path, root: &Path) -> Result<()> {
    let text = std::fs::read(definitions).with_context(|| format!("cannot read {}", definitions.display()))?;
    let document: Value = serde_json::from_slice(&text)?;
    let Some(map) = document["$defs"].as_object() else { bail!("{} has no $defs", definitions.display()) };
    let mut map: Definitions = map.iter().map(|(name, schema)| (name.clone(), schema.clone())).collect();
    map.extend(serde_json::from_str::<Definitions>(MORE)?);
    let names = reachable(&map);
    let (mut lines, mut descriptions) = (String::new(), String::new());
    for name in &names {
        write_type(name, &map[name], &mut lines, &mut descriptions).with_context(|| format!("in {name}"))?;
    }
    let dir = root.join("crates/api/data");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("schema.txt"), &lines)?;
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(descriptions.as_bytes())?;
    let packed = encoder.finish()?;
    std::fs::write(dir.join("descriptions.zz"), &packed)?;
    println!("{} types: {} bytes of schema, {} bytes of descriptions", names.len(), lines.len(), packed.len());
    Ok(())
}

/// The stable kinds, their lists, what requests carry, and everything that these refer to.
fn reachable(map: &Definitions) -> BTreeSet<String> {
    let stable = |schema: &Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.len() == 1 && is_stable(kinds[0]["version"].as_str().unwrap_or_default()))
    };
    let mut queue: Vec<&str> = EXTRA_ROOTS.to_vec();
    queue.extend(map.iter().filter(|(_, schema)| stable(schema)).map(|(name, _)| name.as_str()));
    let mut seen = BTreeSet::new();
    while let Some(name) = queue.pop() {
        if opaque(name).is_none() && seen.insert(name.to_owned()) {
            references(&map[name], &mut queue);
        }
    }
    seen
}

fn is_stable(version: &str) -> bool {
    version.starts_with('v') && version[1..].bytes().all(|b| b.is_ascii_digit())
}

fn references<'a>(schema: &'a Value, out: &mut Vec<&'a str>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                out.push(name.trim_start_matches("#/$defs/"));
            }
            map.values().for_each(|value| references(value, out));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, out)),
        _ => {}
    }
}

/// The letter of a type that is a leaf of the schema, whatever it looks like.
fn opaque(name: &str) -> Option<&'static str> {
    let last = name.rsplit('.').next().unwrap_or(name);
    Some(match last {
        "Time" => "t",
        "MicroTime" => "u",
        "Quantity" => "q",
        "IntOrString" => "o",
        "FieldsV1" => "F",
        "RawExtension" => "R",
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => "*",
        _ => return None,
    })
}

fn write_type(name: &str, schema: &Value, lines: &mut String, descriptions: &mut String) -> Result<()> {
    write!(lines, "={}", short(name))?;
    if schema["x-kubernetes-map-type"] == "atomic" {
        lines.push_str(" ^");
    }
    if let Some([kind]) = schema["x-kubernetes-group-version-kind"].as_array().map(Vec::as_slice) {
        let part = |key: &str| kind[key].as_str().unwrap_or_default();
        write!(lines, " {}/{}/{}", part("group"), part("version"), part("kind"))?;
    }
    lines.push('\n');
    describe(schema, descriptions);
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, value) in schema["properties"].as_object().into_iter().flatten() {
        let shape = shape(value).with_context(|| format!("in field {field}"))?;
        write!(lines, "{field} {shape}")?;
        if required.contains(field.as_str()) {
            lines.push_str(" !");
        }
        write_merge(value, lines)?;
        let last = name.rsplit('.').next().unwrap_or(name);
        if let Some((.., default)) = DEFAULTS.iter().find(|(t, f, _)| *t == name && f == field) {
            write!(lines, " ={default}")?;
        }
        if let Some((.., go)) = GO_TYPES.iter().find(|(t, f, _)| *t == last && f == field) {
            write!(lines, " :{go}")?;
        }
        lines.push('\n');
        describe(value, descriptions);
    }
    Ok(())
}

fn write_merge(field: &Value, lines: &mut String) -> Result<()> {
    if field["x-kubernetes-map-type"] == "atomic" {
        lines.push_str(" ^");
    }
    match field["x-kubernetes-list-type"].as_str() {
        None => {}
        Some("atomic") => lines.push_str(" @a"),
        Some("set") => lines.push_str(" @s"),
        Some("map") => {
            let keys = field["x-kubernetes-list-map-keys"].as_array().context("a list map without keys")?;
            let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
            write!(lines, " @m{}", keys.join(","))?;
        }
        Some(other) => bail!("unknown list type {other}"),
    }
    if let Some(strategy) = field["x-kubernetes-patch-strategy"].as_str() {
        let letters = match strategy {
            "merge" => "m",
            "replace" => "r",
            "retainKeys" => "k",
            "merge,retainKeys" => "mk",
            other => bail!("unknown patch strategy {other}"),
        };
        write!(lines, " ~{letters}")?;
        if let Some(key) = field["x-kubernetes-patch-merge-key"].as_str() {
            write!(lines, "/{key}")?;
        }
    }
    Ok(())
}

/// The shape of a value, see `stead_api::schema`.
fn shape(schema: &Value) -> Result<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/$defs/");
        return Ok(opaque(name).map_or_else(|| format!("#{}", short(name)), str::to_owned));
    }
    if schema["items"].is_object() {
        return Ok(format!("[{}", shape(&schema["items"])?));
    }
    if schema["additionalProperties"].is_object() {
        return Ok(format!("{{{}", shape(&schema["additionalProperties"])?));
    }
    let kind = match &schema["type"] {
        Value::String(kind) => kind.as_str(),
        Value::Array(kinds) => kinds.first().and_then(Value::as_str).unwrap_or_default(),
        _ => "",
    };
    let letter = match (kind, schema["format"].as_str()) {
        ("string", Some("byte")) => "b",
        ("string", _) => "s",
        ("boolean", _) => "B",
        ("integer", Some("int32")) => "i",
        ("integer", _) => "l",
        ("number", _) => "d",
        ("object", _) => "R",
        _ => bail!("a value of unknown type: {schema}"),
    };
    Ok(letter.to_owned())
}

/// Names without the longest common prefixes.
fn short(name: &str) -> String {
    name.strip_prefix("io.k8s.api.")
        .map(|rest| format!("/{rest}"))
        .or_else(|| name.strip_prefix("io.k8s.apimachinery.pkg.apis.").map(|rest| format!("+{rest}")))
        .unwrap_or_else(|| name.to_owned())
}

fn describe(schema: &Value, out: &mut String) {
    let text = schema["description"].as_str().unwrap_or_default();
    out.push_str(&text.replace('\\', "\\\\").replace('\n', "\\n"));
    out.push('\n');
}
