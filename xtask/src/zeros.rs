//! Marks in the checked-in schema what becomes of zero values, from the struct tags of the Go types: a field by value is left out
//! when it is zero (`-`) or is always written (`%`), and one behind a pointer is what was given (no mark).
//!
//! Input: checkouts of `k8s.io/api`, `k8s.io/apimachinery` and whatever else has types of the schema, of one Kubernetes version.
//! Types and fields that are in none of them are left as they are, and named. It follows `cargo xtask codegen`, which makes a schema without marks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::go::{self, Field, Name, Structs};

const WRITTEN: &str = "%";
const LEFT_OUT: &str = "-";

/// Rewrites `crates/api/data/schema.txt` below `root`, the workspace's directory.
///
/// # Errors
/// When a file cannot be read or written, or a Go type shows another one inline that is nowhere.
pub(crate) fn run(roots: &[PathBuf], root: &Path) -> Result<()> {
    let path = root.join("crates/api/data/schema.txt");
    let schema = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
    let structs = go::structs(&schema, &roots)?;
    ensure!(!structs.is_empty(), "there are no Go types below these directories");
    fs::write(&path, marked(&schema, &structs)?).with_context(|| path.display().to_string())
}

fn marked(schema: &str, structs: &Structs) -> Result<String> {
    let mut text = String::with_capacity(schema.len());
    let (mut fields, mut unknown) = (None, Vec::new());
    for line in schema.lines() {
        let first = line.split(' ').next().unwrap_or(line);
        if let Some(name) = first.strip_prefix('=') {
            fields = flat(name, structs)?;
            if fields.is_none() {
                unknown.push(name);
            }
            text.push_str(line);
        } else if let Some(fields) = &fields {
            match fields.iter().find(|(name, _)| *name == first) {
                Some((_, field)) => text.push_str(&with_mark(line, field)),
                None => {
                    unknown.push(first);
                    text.push_str(line);
                }
            }
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    if !unknown.is_empty() {
        println!("left as they are, for these Go types have none: {}", unknown.join(", "));
    }
    Ok(text)
}

/// The fields of a type under their names in JSON, those shown inline among them; none when there is no such type.
fn flat<'a>(name: &str, structs: &'a Structs) -> Result<Option<Vec<(&'a str, &'a Field)>>> {
    let Some(fields) = structs.get(name) else { return Ok(None) };
    let mut out = Vec::new();
    for field in fields {
        match &field.name {
            Name::Json(name) => out.push((name.as_str(), field)),
            Name::Inline(inner) => match flat(inner, structs)? {
                Some(inner) => out.extend(inner),
                None => bail!("{name} shows {inner} inline, of which there is no Go type"),
            },
        }
    }
    Ok(Some(out))
}

/// `replicas i ! @a` with its mark, which stands behind `!`.
fn with_mark(line: &str, field: &Field) -> String {
    let mut words: Vec<&str> = line.split(' ').filter(|word| ![WRITTEN, LEFT_OUT].contains(word)).collect();
    let shape = words.get(1).copied().unwrap_or_default();
    if let Some(mark) = mark(shape, field) {
        let at = if words.get(2) == Some(&"!") { 3 } else { 2 };
        words.insert(at, mark);
    }
    words.join(" ")
}

/// What Go's encoder does to a zero value. Structs are never empty for `omitempty`. A pointer without `omitempty` is written as
/// null, which objects here leave out.
fn mark(shape: &str, field: &Field) -> Option<&'static str> {
    if field.is_pointer() {
        return None;
    }
    let is_struct = shape.starts_with('#') || matches!(shape, "q" | "o" | "t" | "u" | "R" | "*" | "F");
    let left_out = field.omitzero || field.omitempty && !is_struct;
    Some(if left_out { LEFT_OUT } else { WRITTEN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_marked_by_its_go_type() {
        for (line, go, marked) in [
            ("replicas i", r#"Replicas *int32 `json:"replicas,omitempty"`"#, "replicas i"),
            (
                "selector #+meta.v1.LabelSelector !",
                r#"S *LabelSelector `json:"selector"`"#,
                "selector #+meta.v1.LabelSelector !",
            ),
            ("paused B", r#"Paused bool `json:"paused,omitempty"`"#, "paused B -"),
            ("name s ! %", r#"Name string `json:"name,omitempty"`"#, "name s ! -"),
            ("value s !", r#"Value string `json:"value"`"#, "value s ! %"),
            (
                "env [#/core.v1.EnvVar @mname ~m/name",
                r#"Env []EnvVar `json:"env,omitempty"`"#,
                "env [#/core.v1.EnvVar - @mname ~m/name",
            ),
            ("limits {q", r#"Limits ResourceList `json:"limits,omitempty"`"#, "limits {q -"),
            ("resources #/core.v1.R", r#"Resources R `json:"resources,omitempty"`"#, "resources #/core.v1.R %"),
            ("emptyDir #/core.v1.E -", r#"EmptyDir *E `json:"emptyDir,omitempty"`"#, "emptyDir #/core.v1.E"),
            ("divisor q", r#"Divisor resource.Quantity `json:"divisor,omitempty"`"#, "divisor q %"),
            ("creationTimestamp t", r#"T Time `json:"creationTimestamp,omitempty,omitzero"`"#, "creationTimestamp t -"),
        ] {
            let field = go::field(go, "/core.v1").expect("a field");
            assert_eq!(with_mark(line, &field), marked);
        }
    }
}
