//! Generates `crates/machinery/data/protobuf.txt`, the field numbers of the protobuf form, from the struct tags of the Go types.
//!
//! Input: checkouts of `k8s.io/api` and `k8s.io/apimachinery` of one Kubernetes version. Only types that the checked-in schema
//! (`crates/api/data/schema.txt`) knows are written, so `cargo xtask codegen` comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const HEAD: &str = "\
# Numbers of the fields in the protobuf form: =TYPE, then FIELD:NUMBER (z: the zero value means absence) or *TYPE:NUMBER for
# a message whose fields JSON shows inline. Names are abbreviated as in the schema. From the struct tags of k8s.io/api and k8s.io/apimachinery.
";

/// What the abbreviated name of the package of `k8s.io/apimachinery` begins with.
const META: &str = "+meta.v1";

pub(crate) fn run(api: &Path, apimachinery: &Path, root: &Path) -> Result<()> {
    let schema = fs::read_to_string(root.join("crates/api/data/schema.txt")).context("crates/api/data/schema.txt")?;
    let known: BTreeSet<&str> =
        schema.lines().filter_map(|line| line.strip_prefix('=')?.split_whitespace().next()).collect();
    let packages: BTreeSet<&str> = known.iter().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
    let mut messages = BTreeMap::new();
    for package in packages {
        let Some(directory) = directory(package, api, apimachinery) else { continue };
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".go") && !name.ends_with("_test.go") {
                read(&fs::read_to_string(&path)?, package, &mut messages);
            }
        }
    }
    ensure!(
        !messages.is_empty(),
        "no struct with protobuf tags below {} and {}",
        api.display(),
        apimachinery.display()
    );
    let text = text(&messages, &known);
    fs::write(root.join("crates/machinery/data/protobuf.txt"), text).context("crates/machinery/data/protobuf.txt")
}

/// Where the Go package of an abbreviated name lies: `/apps.v1`, `+meta.v1`.
fn directory(package: &str, api: &Path, apimachinery: &Path) -> Option<PathBuf> {
    if package == META {
        return Some(apimachinery.join("pkg/apis/meta/v1"));
    }
    let (group, version) = package.strip_prefix('/')?.split_once('.')?;
    Some(api.join(group).join(version))
}

/// Adds the structs of one Go file: the name of each with its fields in the table's form.
fn read(source: &str, package: &str, messages: &mut BTreeMap<String, Vec<String>>) {
    let mut open: Option<String> = None;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) {
            open = Some(format!("{package}.{name}"));
        } else if line == "}" {
            open = None;
        } else if let Some(name) = &open
            && let Some(field) = field(line, package)
        {
            messages.entry(name.clone()).or_default().push(field);
        }
    }
}

/// `Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`` is `replicas:1`.
fn field(line: &str, package: &str) -> Option<String> {
    let (declaration, tags) = line.split_once('`').filter(|(before, _)| !before.contains("//"))?;
    let tag = |name: &str| tags.split_once(&format!("{name}:\""))?.1.split_once('"').map(|(value, _)| value);
    let number = tag("protobuf")?.split(',').nth(1)?;
    let mut json = tag("json")?.split(',');
    let name = json.next()?;
    let options: Vec<&str> = json.collect();
    let mut words = declaration.split_whitespace();
    let first = words.next()?;
    let Some(kind) = words.next() else {
        // Embedded: shown inline, or under a name (`metav1.ObjectMeta` as metadata).
        return Some(match name {
            "" => format!("*{}:{number}", embedded(first, package)),
            name => format!("{name}:{number}{}", zero(first, &options)),
        });
    };
    Some(format!("{name}:{number}{}", zero(kind, &options)))
}

/// `z` where Go leaves the zero value out of JSON although the wire carries it.
fn zero(kind: &str, options: &[&str]) -> &'static str {
    let nullable = kind.starts_with(['*', '[']) || kind.starts_with("map[");
    if options.contains(&"omitempty") && !nullable { "z" } else { "" }
}

fn embedded(kind: &str, package: &str) -> String {
    let kind = kind.trim_start_matches('*');
    match kind.split_once('.') {
        Some(("metav1", name)) => format!("{META}.{name}"),
        Some((alias, name)) => format!("/{}.{name}", alias.replace("v1", ".v1")),
        None => format!("{package}.{kind}"),
    }
}

fn text(messages: &BTreeMap<String, Vec<String>>, known: &BTreeSet<&str>) -> String {
    // The schema has no types of their own for what JSON shows inline.
    let inline: BTreeSet<&str> =
        messages.values().flatten().filter_map(|field| Some(field.strip_prefix('*')?.rsplit_once(':')?.0)).collect();
    let mut text = HEAD.to_owned();
    for (name, fields) in messages {
        if known.contains(name.as_str()) || inline.contains(name.as_str()) {
            let _ = writeln!(text, "={name} {}", fields.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_tags() {
        let stories = [
            (
                r#"	Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`"#,
                Some("replicas:1"),
            ),
            (
                r#"	ServiceName string `json:"serviceName" protobuf:"bytes,5,opt,name=serviceName"`"#,
                Some("serviceName:5"),
            ),
            (r#"	Paused bool `json:"paused,omitempty" protobuf:"varint,7,opt,name=paused"`"#, Some("paused:7z")),
            (r#"	metav1.TypeMeta `json:",inline"`"#, None),
            (
                r#"	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`"#,
                Some("metadata:1z"),
            ),
            (
                r#"	LocalObjectReference `json:",inline" protobuf:"bytes,1,opt,name=localObjectReference"`"#,
                Some("*/core.v1.LocalObjectReference:1"),
            ),
            ("	// a comment", None),
            (r#"	// Fields *Fields `json:"fields,omitempty" protobuf:"bytes,5,opt,name=fields"`"#, None),
        ];
        for (line, expected) in stories {
            assert_eq!(field(line, "/core.v1").as_deref(), expected, "{line}");
        }
    }
}
