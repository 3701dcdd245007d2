//! The house rules as a check: layers, purity, dependency fences, file heads, words, sizes; and the shape, as a thermometer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The layer of each crate. An arrow may only point to a lower layer.
const LAYERS: &[(&str, u8)] = &[
    ("stead-api", 0),
    ("stead-machinery", 1),
    ("stead-admission", 2),
    ("stead-workloads", 2),
    ("stead-placement", 2),
    ("stead-podlife", 2),
    ("stead-servicenet", 2),
    ("stead-diagnosis", 3),
    ("stead-store", 3),
    ("stead-client", 3),
    ("stead-runtime", 3),
    ("stead-wire", 3),
    ("stead-streaming", 3),
    ("stead-csi", 3),
    ("stead-informer", 4),
    ("stead-apiserver", 5),
    ("stead-controllers", 5),
    ("stead-scheduler", 5),
    ("stead-node", 5),
    ("stead-dns", 5),
    ("stead-proxy", 5),
    ("stead-cli", 5),
    ("stead", 6),
    ("stead-testkit", 9),
    ("stead-benches", 10),
    ("stead-simulator", 10),
    ("xtask", 10),
];
/// The highest layer that has no IO, clock or randomness.
const PURE_LAYER_MAX: u8 = 2;
/// Pure as well, though it stands on other decision crates: it asks them what they would do.
const PURE_TOO: &[&str] = &["stead-diagnosis"];
/// What would bring IO, a clock or randomness into a pure crate.
const IMPURE: &[&str] = &["tokio", "hyper", "kube", "nix", "rustls", "uuid", "tempfile", "tracing"];
/// Only these crates may depend on these libraries.
const FENCES: &[(&str, &[&str])] = &[
    ("fjall", &["stead-store"]),
    ("libcontainer", &["stead-runtime"]),
    ("netlink-sys", &["stead-wire"]),
    ("rcgen", &["stead-apiserver"]),
    ("hickory-proto", &["stead-dns"]),
    ("tokio-tungstenite", &["stead-streaming"]),
    ("clap", &["stead", "stead-cli", "stead-simulator", "xtask"]),
    ("anyhow", &["stead", "stead-cli", "xtask", "stead-testkit", "stead-benches", "stead-simulator"]),
];
/// Crates in which `unsafe` may stand, each block with its SAFETY comment.
const UNSAFE_CRATES: &[&str] = &["runtime", "wire", "node"];
/// Words that do not reach main.
const BANNED: &[&str] = &["FIXME", "XXX", "todo!(", "unimplemented!(", "dbg!("];
const FILE_LINES_MAX: usize = 1200;

pub(crate) fn run(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    check_dependencies(root, &mut faults)?;
    let files = rust_files(root)?;
    for file in &files {
        check_file(root, file, &mut faults)?;
    }
    check_named_paths(root, &mut faults)?;
    print_shape(root, &files)?;
    if faults.is_empty() {
        return Ok(());
    }
    bail!("house rules are broken:\n  {}", faults.join("\n  "));
}

fn check_dependencies(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let output =
        Command::new("cargo").args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(root).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(layer) = layer_of(name) else {
            faults.push(format!("{name}: has no layer in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if !dependency["kind"].is_null() {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            if layer_of(on).is_some_and(|lower| lower >= layer) {
                faults.push(format!("{name} -> {on}: arrows point down only"));
            }
            if (layer <= PURE_LAYER_MAX || PURE_TOO.contains(&name)) && IMPURE.contains(&on) {
                faults.push(format!("{name} -> {on}: decision crates have no IO, clock or randomness"));
            }
            let fence = FENCES.iter().find(|(fenced, _)| *fenced == on);
            if fence.is_some_and(|(_, allowed)| !allowed.contains(&name)) {
                faults.push(format!("{name} -> {on}: only {:?} may use it", fence.map(|f| f.1).unwrap_or_default()));
            }
        }
    }
    Ok(())
}

fn layer_of(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(root).output()?;
    Ok(String::from_utf8(output.stdout)?.lines().map(PathBuf::from).filter(|path| root.join(path).exists()).collect())
}

fn check_file(root: &Path, file: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join(file))?;
    let shown = file.display();
    if !text.starts_with("//!") {
        faults.push(format!("{shown}: does not begin with `//!`"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{shown}: {lines} lines; more than {FILE_LINES_MAX} is two files"));
    }
    let own = file.ends_with("xtask/src/tidy.rs");
    for banned in BANNED.iter().filter(|word| !own && text.contains(**word)) {
        faults.push(format!("{shown}: contains {banned}"));
    }
    let in_crate = file.components().nth(1).and_then(|part| part.as_os_str().to_str()).unwrap_or_default();
    if file.ends_with("src/lib.rs") && !UNSAFE_CRATES.contains(&in_crate) && !text.contains("#![forbid(unsafe_code)]") {
        faults.push(format!("{shown}: lacks #![forbid(unsafe_code)]"));
    }
    Ok(())
}

/// Paths in back quotes in ARCHITECTURE.md must exist.
fn check_named_paths(root: &Path, faults: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    for path in text.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && word.starts_with("crates/")) {
        if !root.join(path).exists() {
            faults.push(format!("ARCHITECTURE.md: `{path}` does not exist"));
        }
    }
    Ok(())
}

/// Lengths of functions and files, tests left out: look when they move.
fn print_shape(root: &Path, files: &[PathBuf]) -> Result<()> {
    let mut lengths = Vec::new();
    let mut largest = Vec::new();
    for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests")) {
        let text = fs::read_to_string(root.join(file))?;
        let lines: Vec<&str> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
        largest.push((lines.len(), file.display().to_string()));
        lengths.extend(function_lengths(&lines));
    }
    lengths.sort_unstable();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let at = |part: f64| lengths.get((lengths.len() as f64 * part) as usize).copied().unwrap_or_default();
    let long = lengths.iter().filter(|length| **length > 70).count();
    println!(
        "{} files, {} functions: median {} lines, p90 {}, {:.1} % over 70; largest files: {}",
        files.len(),
        lengths.len(),
        at(0.5),
        at(0.9),
        100.0 * long as f64 / lengths.len().max(1) as f64,
        largest.iter().take(3).map(|(lines, name)| format!("{name} ({lines})")).collect::<Vec<_>>().join(", "),
    );
    Ok(())
}

fn function_lengths(lines: &[&str]) -> Vec<usize> {
    let is_start = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        let before = words.iter().position(|word| *word == "fn");
        before.is_some_and(|at| {
            words[..at].iter().all(|word| word.starts_with("pub") || ["const", "async", "unsafe"].contains(word))
        })
    };
    let mut lengths = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| is_start(line)) {
        if line.trim_end().ends_with(['}', ';']) {
            lengths.push(1);
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|candidate| *candidate == end);
        lengths.extend(length.map(|length| length + 1));
    }
    lengths
}
