//! What changed, as a unified diff of indented JSON (upstream shows one for specs that may not change).

use serde_json::Value;

/// Lines around a change that are shown too.
const CONTEXT: usize = 3;
/// Longer objects are not compared line by line: the table below is quadratic.
const MAX_LINES: usize = 2_000;

/// The difference from `from` to `to`; empty when there is none or the objects are huge.
pub(super) fn diff(from: &Value, to: &Value) -> String {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (from, to) = (text(from), text(to));
    let (a, b): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    if a == b || a.len() > MAX_LINES || b.len() > MAX_LINES {
        return String::new();
    }
    hunks(&edits(&a, &b))
}

#[derive(Clone, Copy, PartialEq)]
enum Edit<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The shortest script, by the longest common subsequence.
fn edits<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<Edit<'a>> {
    let width = b.len() + 1;
    let mut common = vec![0u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(Edit::Same(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            out.push(Edit::Gone(a[i]));
            i += 1;
        } else {
            out.push(Edit::New(b[j]));
            j += 1;
        }
    }
    out
}

fn hunks(edits: &[Edit<'_>]) -> String {
    let changed: Vec<usize> =
        edits.iter().enumerate().filter(|(_, e)| !matches!(e, Edit::Same(_))).map(|(i, _)| i).collect();
    let mut out = String::new();
    let mut next = 0;
    while next < changed.len() {
        let start = changed[next].saturating_sub(CONTEXT);
        let mut last = changed[next];
        while next < changed.len() && changed[next] <= last + 2 * CONTEXT {
            last = changed[next];
            next += 1;
        }
        let end = (last + CONTEXT + 1).min(edits.len());
        hunk(edits, start, end, &mut out);
    }
    out
}

fn hunk(edits: &[Edit<'_>], start: usize, end: usize, out: &mut String) {
    let count = |range: &[Edit<'_>], new: bool| {
        range.iter().filter(|e| if new { !matches!(e, Edit::Gone(_)) } else { !matches!(e, Edit::New(_)) }).count()
    };
    let (before, here) = (&edits[..start], &edits[start..end]);
    out.push_str(&format!(
        "@@ -{},{} +{},{} @@\n",
        count(before, false) + 1,
        count(here, false),
        count(before, true) + 1,
        count(here, true)
    ));
    for edit in here {
        let (sign, line) = match edit {
            Edit::Same(line) => (' ', line),
            Edit::Gone(line) => ('-', line),
            Edit::New(line) => ('+', line),
        };
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_line_changed() {
        let text = diff(&json!({"a": 1, "b": ["x"], "c": 3}), &json!({"a": 1, "b": ["y"], "c": 3}));
        assert_eq!(
            text,
            "@@ -1,7 +1,7 @@\n {\n   \"a\": 1,\n   \"b\": [\n-    \"x\"\n+    \"y\"\n   ],\n   \"c\": 3\n }\n"
        );
        assert_eq!(diff(&json!({"a": 1}), &json!({"a": 1})), "");
    }
}
