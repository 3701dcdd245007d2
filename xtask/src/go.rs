//! The structs of upstream's Go types: which fields JSON shows, under what names, and when it leaves them out.
//!
//! Types are named as in the checked-in schema: `/apps.v1.StatefulSet`, `+meta.v1.ObjectMeta`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What the abbreviated name of the package of `k8s.io/apimachinery` begins with.
const META: &str = "+meta.v1";

/// A field of a struct.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// As Go has it: `*int32`, `metav1.ObjectMeta`.
    pub(crate) kind: String,
    pub(crate) omitempty: bool,
    pub(crate) omitzero: bool,
    /// The number in the protobuf form, where it has one.
    pub(crate) number: Option<String>,
}

/// What JSON calls a field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Json(String),
    /// The fields of this type are shown as if they were the struct's own.
    Inline(String),
}

impl Field {
    pub(crate) fn is_pointer(&self) -> bool {
        self.kind.starts_with('*')
    }
}

/// Structs by name, with their fields in Go's order.
pub(crate) type Structs = BTreeMap<String, Vec<Field>>;

/// The structs of all packages that the schema has types of, as far as they lie in the checkouts `roots`.
///
/// # Errors
/// When a directory or file cannot be read.
pub(crate) fn structs(schema: &str, roots: &[&Path]) -> Result<Structs> {
    let names = schema.lines().filter_map(|line| line.strip_prefix('=')?.split(' ').next());
    let packages: BTreeSet<&str> = names.filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
    let mut structs = Structs::new();
    for package in packages {
        let Some(directory) = roots.iter().find_map(|root| directory(package, root)) else { continue };
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".go") && !name.ends_with("_test.go") {
                read(&fs::read_to_string(&path)?, package, &mut structs);
            }
        }
    }
    Ok(structs)
}

/// Where the Go package of an abbreviated name lies in a checkout, if it does.
fn directory(package: &str, root: &Path) -> Option<PathBuf> {
    let below = if package == META {
        "pkg/apis/meta/v1".to_owned()
    } else if let Some(api) = package.strip_prefix('/') {
        api.replace('.', "/")
    } else {
        // `io.k8s.kube-aggregator.pkg.apis.apiregistration.v1`
        package.strip_prefix("io.k8s.")?.split_once('.')?.1.replace('.', "/")
    };
    Some(root.join(below)).filter(|directory| directory.is_dir())
}

/// Adds the structs of one Go file.
fn read(source: &str, package: &str, structs: &mut Structs) {
    let mut open: Option<String> = None;
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) {
            open = Some(format!("{package}.{name}"));
        } else if line == "}" {
            open = None;
        } else if let Some(name) = &open
            && let Some(field) = field(line, package)
        {
            structs.entry(name.clone()).or_default().push(field);
        }
    }
}

/// Reads `Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"``.
pub(crate) fn field(line: &str, package: &str) -> Option<Field> {
    let (declaration, tags) = line.split_once('`').filter(|(before, _)| !before.contains("//"))?;
    let tag = |name: &str| tags.split_once(&format!("{name}:\""))?.1.split_once('"').map(|(value, _)| value);
    let mut json = tag("json")?.split(',');
    let name = json.next()?;
    let options: Vec<&str> = json.collect();
    let mut words = declaration.split_whitespace();
    let first = words.next()?;
    // An embedded struct has a type only, and may be shown under a name (`metav1.ObjectMeta` as metadata).
    let kind = words.next().unwrap_or(first);
    let name = if name.is_empty() { Name::Inline(embedded(kind, package)) } else { Name::Json(name.to_owned()) };
    Some(Field {
        name,
        kind: kind.to_owned(),
        omitempty: options.contains(&"omitempty"),
        omitzero: options.contains(&"omitzero"),
        number: tag("protobuf").and_then(|tag| tag.split(',').nth(1)).map(str::to_owned),
    })
}

fn embedded(kind: &str, package: &str) -> String {
    let kind = kind.trim_start_matches('*');
    match kind.split_once('.') {
        Some((_, "TypeMeta")) => format!("{META}.TypeMeta"),
        Some(("metav1", name)) => format!("{META}.{name}"),
        Some((alias, name)) => format!("/{}.{name}", alias.replace("v1", ".v1")),
        None => format!("{package}.{kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_from_their_tags() {
        let json = |name: &str| Some(Name::Json(name.to_owned()));
        let stories = [
            (
                r#"	Replicas *int32 `json:"replicas,omitempty" protobuf:"varint,1,opt,name=replicas"`"#,
                json("replicas"),
                "*int32 omitempty 1",
            ),
            (
                r#"	ServiceName string `json:"serviceName" protobuf:"bytes,5,opt,name=serviceName"`"#,
                json("serviceName"),
                "string 5",
            ),
            (
                r#"	CreationTimestamp Time `json:"creationTimestamp,omitempty,omitzero" protobuf:"bytes,8,opt,name=x"`"#,
                json("creationTimestamp"),
                "Time omitempty omitzero 8",
            ),
            (
                r#"	metav1.ObjectMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`"#,
                json("metadata"),
                "metav1.ObjectMeta omitempty 1",
            ),
            (r#"	metav1.TypeMeta `json:""`"#, Some(Name::Inline("+meta.v1.TypeMeta".to_owned())), "metav1.TypeMeta"),
            (
                r#"	LocalObjectReference `json:",inline" protobuf:"bytes,1,opt,name=localObjectReference"`"#,
                Some(Name::Inline("/core.v1.LocalObjectReference".to_owned())),
                "LocalObjectReference 1",
            ),
            ("	// a comment", None, ""),
            (r#"	// Fields *Fields `json:"fields,omitempty" protobuf:"bytes,5,opt,name=fields"`"#, None, ""),
        ];
        for (line, name, rest) in stories {
            let found = field(line, "/core.v1");
            let shown = found.as_ref().map(|field| {
                let options = [(field.omitempty, "omitempty"), (field.omitzero, "omitzero")];
                let mut words = vec![field.kind.as_str()];
                words.extend(options.iter().filter(|(set, _)| *set).map(|(_, word)| *word));
                words.extend(field.number.as_deref());
                words.join(" ")
            });
            assert_eq!(shown.unwrap_or_default(), rest, "{line}");
            assert_eq!(found.map(|field| field.name), name, "{line}");
        }
    }
}
