//! Objects from files, directories and standard input.
//!
//! Source of the rules and texts: `k8s.io/cli-runtime/pkg/resource` (visitor).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::failure::{Result, plain, system};

/// How much one file or standard input may hold.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// How deep `-R` goes.
const DEPTH_MAX: usize = 32;

/// Which files a command reads.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// Files or directories with manifests; `-` is standard input.
    #[arg(short = 'f', long, value_delimiter = ',')]
    pub(crate) filename: Vec<PathBuf>,
    /// Process directories with all their sub-directories.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// An object of a manifest, and the file that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) object: Value,
    pub(crate) source: String,
}

/// Reads everything that the flags name, in order; lists are taken apart.
pub(crate) fn load(files: &Files) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for path in &files.filename {
        let named = path.display().to_string();
        if named == "-" {
            let mut text = Vec::new();
            let _ = std::io::stdin().lock().take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
            loaded.extend(parse(&text, "STDIN", "STDIN")?);
        } else if named.starts_with("http://") || named.starts_with("https://") {
            return plain(format!("{named}: manifests are read from files and standard input only; fetch it first"));
        } else {
            for file in expand(path, files.recursive)? {
                let text = std::fs::read(&file).map_err(|error| {
                    crate::failure::Failure::Plain(format!("open {}: {}", file.display(), system(&error)))
                })?;
                let source = file.display().to_string();
                loaded.extend(parse(&text, &source, &source)?);
            }
        }
    }
    Ok(loaded)
}

/// The manifests of a path: itself, or those of a directory in order of their names.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return plain(format!("the path {:?} does not exist", path.display().to_string()));
    };
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, if recursive { DEPTH_MAX } else { 1 }, &mut found)?;
    if found.is_empty() {
        return plain(format!("error reading [{}]: recognized file extensions are [.json .yaml .yml]", path.display()));
    }
    Ok(found)
}

fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result {
    if depth == 0 {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            walk(&entry, depth - 1, found)?;
        } else if entry.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml") {
            found.push(entry);
        }
    }
    Ok(())
}

/// The objects of a text: YAML documents, or JSON values one after the other.
pub(crate) fn parse(text: &[u8], source: &str, shown: &str) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    let text = String::from_utf8_lossy(text);
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        for value in serde_json::Deserializer::from_str(trimmed).into_iter::<Value>() {
            match value {
                Ok(value) => take(value, source, &mut loaded)?,
                Err(error) if error.is_eof() => return plain(format!("error parsing {shown}: unexpected EOF")),
                // A flow mapping of YAML begins like JSON does.
                Err(_) => return yaml(&text, source, shown),
            }
        }
        return Ok(loaded);
    }
    yaml(&text, source, shown)
}

fn yaml(text: &str, source: &str, shown: &str) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => take(value, source, &mut loaded)?,
            Err(error) => return plain(format!("error parsing {shown}: error converting YAML to JSON: yaml: {error}")),
        }
    }
    Ok(loaded)
}

fn take(value: Value, source: &str, loaded: &mut Vec<Loaded>) -> Result {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if kind.is_empty() {
        return plain(format!("unable to decode {source:?}: Object 'Kind' is missing in '{value}'"));
    }
    if value["apiVersion"].as_str().unwrap_or_default().is_empty() {
        return plain(format!("unable to decode {source:?}: Object 'apiVersion' is missing in '{value}'"));
    }
    match &value["items"] {
        Value::Array(items) if kind.ends_with("List") => {
            for item in items {
                let mut item = item.clone();
                if item["kind"].is_null() && kind != "List" {
                    item["kind"] = kind.trim_end_matches("List").into();
                    item["apiVersion"] = value["apiVersion"].clone();
                }
                take(item, source, loaded)?;
            }
        }
        _ => loaded.push(Loaded { object: value, source: source.to_owned() }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let loaded = parse(text.as_bytes(), "x.yaml", "x.yaml").expect("parses");
        loaded.iter().map(|l| l.object["metadata"]["name"].as_str().unwrap_or("?").to_owned()).collect()
    }

    #[test]
    fn every_form_of_several_objects_is_taken_apart() {
        let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
        assert_eq!(names(&format!("---\n{}---\n{}---\n", pod("a"), pod("b"))), ["a", "b"]);
        assert_eq!(
            names(
                "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}} {\"apiVersion\":\"v1\",\"kind\":\"Pod\"}"
            ),
            ["a", "?"]
        );
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        assert_eq!(names(list), ["a", "b"]);
        let typed = "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}}\n";
        assert_eq!(names(typed), ["a"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, wanted) in [
            ("a: b: c\n", "error parsing x.yaml: error converting YAML to JSON: yaml: "),
            ("metadata: {}\n", "Object 'Kind' is missing"),
            ("{\"a\":", "error parsing x.yaml: unexpected EOF"),
        ] {
            let error = parse(text.as_bytes(), "x.yaml", "x.yaml").expect_err("refused").message();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
