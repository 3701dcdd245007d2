//! Generates `crates/machinery/data/protobuf.txt`, the field numbers of the protobuf form, from the struct tags of the Go types.
//!
//! Input: checkouts of `k8s.io/api` and `k8s.io/apimachinery` of one Kubernetes version. Only types that the checked-in schema
//! (`crates/api/data/schema.txt`) knows are written, so `cargo xtask codegen` comes first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::go::{self, Field, Name};

const HEAD: &str = "\
# Numbers of the fields in the protobuf form: =TYPE, then FIELD:NUMBER or *TYPE:NUMBER for a message whose fields JSON shows
# inline. Names are abbreviated as in the schema. From the struct tags of k8s.io/api and k8s.io/apimachinery.
";

pub(crate) fn run(api: &Path, apimachinery: &Path, root: &Path) -> Result<()> {
    let schema = fs::read_to_string(root.join("crates/api/data/schema.txt")).context("crates/api/data/schema.txt")?;
    let known: BTreeSet<&str> =
        schema.lines().filter_map(|line| line.strip_prefix('=')?.split_whitespace().next()).collect();
    let mut messages = BTreeMap::new();
    for (name, fields) in go::structs(&schema, &[api, apimachinery])? {
        let fields: Vec<String> = fields.iter().filter_map(numbered).collect();
        if !fields.is_empty() {
            messages.insert(name, fields);
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

/// A field in the table's form: `replicas:1`, `*/core.v1.LocalObjectReference:1`.
fn numbered(field: &Field) -> Option<String> {
    let number = field.number.as_deref()?;
    Some(match &field.name {
        Name::Json(name) => format!("{name}:{number}"),
        Name::Inline(kind) => format!("*{kind}:{number}"),
    })
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
