//! Kinds without a page of their own: their fields, with names for people.

use serde_json::{Map, Value};

use super::Page;
use crate::print::{at, go_text, sorted};

/// What the head of the page says already.
const SKIPPED: [&str; 5] =
    [".metadata.annotations", ".metadata.labels", ".metadata.managedFields", ".metadata.name", ".metadata.namespace"];

/// Writes the page.
pub(super) fn describe(page: &mut Page, object: &Value) {
    page.field(0, "Name", at(object, "/metadata/name"));
    page.field(0, "Namespace", at(object, "/metadata/namespace"));
    page.labels("Labels", &object["metadata"]["labels"]);
    page.annotations("Annotations", &object["metadata"]["annotations"]);
    if let Some(map) = object.as_object() {
        fields(page, 0, map, "");
    }
}

fn fields(page: &mut Page, level: usize, map: &Map<String, Value>, path: &str) {
    for (name, value) in sorted(map) {
        let path = format!("{path}.{name}");
        if SKIPPED.contains(&&*path) {
            continue;
        }
        let label = label(name);
        match value {
            Value::Object(inner) => {
                page.line(level, &format!("{label}:"));
                fields(page, level + 1, inner, &path);
            }
            Value::Array(list) => {
                page.line(level, &format!("{label}:"));
                for item in list {
                    match item {
                        Value::Object(inner) => fields(page, level + 1, inner, &path),
                        other => page.line(level + 1, &go_text(other)),
                    }
                }
            }
            other => page.field(level, &label, &go_text(other)),
        }
    }
}

/// `apiVersion` as `API Version`. Names with other characters than letters stay as they are.
fn label(name: &str) -> String {
    if name.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return name.to_owned();
    }
    let words: Vec<String> = split(name)
        .into_iter()
        .map(|word| {
            let upper = word.to_uppercase();
            if matches!(&*upper, "API" | "URL" | "UID" | "OSB" | "GUID") {
                return upper;
            }
            let mut chars = word.chars();
            chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
        })
        .collect();
    words.join(" ")
}

/// Splits camel case: at the beginning of a word, and before the last capital of several.
fn split(name: &str) -> Vec<String> {
    let class = |c: char| {
        if c.is_lowercase() {
            1
        } else if c.is_uppercase() {
            2
        } else {
            3
        }
    };
    let mut runs: Vec<Vec<char>> = Vec::new();
    for c in name.chars() {
        match runs.last_mut() {
            Some(run) if class(run[0]) == class(c) => run.push(c),
            _ => runs.push(vec![c]),
        }
    }
    for at in 0..runs.len().saturating_sub(1) {
        if class(runs[at][0]) == 2 && class(runs[at + 1][0]) == 1 {
            let last = runs[at].pop();
            if let Some(c) = last {
                runs[at + 1].insert(0, c);
            }
        }
    }
    runs.into_iter().filter(|run| !run.is_empty()).map(|run| run.into_iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_become_words() {
        for (name, wanted) in [
            ("apiVersion", "API Version"),
            ("dnsPolicy", "Dns Policy"),
            ("clusterIPs", "Cluster I Ps"),
            ("clusterIP", "Cluster IP"),
            ("uid", "UID"),
            ("$patch", "$patch"),
            ("v1", "v1"),
            ("fsGroup", "Fs Group"),
        ] {
            assert_eq!(label(name), wanted, "{name}");
        }
    }
}
