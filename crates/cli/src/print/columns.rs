//! `-o custom-columns=HEADING:PATH,...`. Pure.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/get` (customcolumn).

use serde_json::Value;

use crate::failure::{Result, plain};
use crate::print::{JsonPath, Tab, each, jsonpath};

/// The columns that a user asked for.
#[derive(Debug)]
pub(crate) struct CustomColumns {
    columns: Vec<(String, JsonPath)>,
    headers: bool,
    tab: Tab,
}

impl CustomColumns {
    /// Of `NAME:.metadata.name,NODE:.spec.nodeName`.
    pub(crate) fn parse(spec: &str, headers: bool) -> Result<Self> {
        if spec.is_empty() {
            return plain("custom-columns format specified but no custom columns given");
        }
        let mut columns = Vec::new();
        for part in spec.split(',') {
            let Some((heading, path)) = part.split_once(':') else {
                return plain(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"));
            };
            columns.push((heading.to_owned(), JsonPath::relaxed(path, true)?));
        }
        Ok(Self { columns, headers, tab: Tab::default() })
    }

    /// Of a file with a line of headings and a line of paths.
    pub(crate) fn parse_file(text: &str, headers: bool) -> Result<Self> {
        let mut lines = text.lines();
        let words = |line: Option<&str>| -> Vec<String> {
            line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let (headings, paths) = (words(lines.next()), words(lines.next()));
        if headings.len() != paths.len() || headings.is_empty() {
            return plain(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headings.len(),
                paths.len()
            ));
        }
        let columns: Result<Vec<(String, JsonPath)>> = headings
            .into_iter()
            .zip(paths)
            .map(|(heading, path)| Ok((heading, JsonPath::relaxed(&path, true)?)))
            .collect();
        Ok(Self { columns: columns?, headers, tab: Tab::default() })
    }

    /// The lines of an object or of a list's items; the headings come with the first ones.
    pub(crate) fn print(&mut self, object: &Value) -> Result<String> {
        let mut lines = Vec::new();
        if std::mem::take(&mut self.headers) {
            lines.push(self.columns.iter().map(|(heading, _)| heading.clone()).collect());
        }
        for item in each(object) {
            let cells: Result<Vec<String>> = self.columns.iter().map(|(_, path)| cell(path, item)).collect();
            lines.push(cells?);
        }
        Ok(self.tab.lay_out(&lines))
    }
}

fn cell(path: &JsonPath, item: &Value) -> Result<String> {
    let found = path.find(item)?;
    let shown: Vec<String> = found
        .iter()
        .map(|value| match &**value {
            Value::Array(_) | Value::Object(_) => super::go_text(value),
            other => jsonpath::text(other),
        })
        .collect();
    Ok(if shown.is_empty() { "<none>".to_owned() } else { shown.join(",") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_show_paths_of_each_item() {
        let list = json!({"kind": "List", "items": [
            {"metadata": {"name": "a"}, "spec": {"c": [{"i": "x"}, {"i": "y"}]}}, {"metadata": {"name": "bb"}}]});
        let mut columns = CustomColumns::parse("NAME:.metadata.name,IMAGES:.spec.c[*].i", true).expect("parses");
        assert_eq!(columns.print(&list).expect("prints"), "NAME   IMAGES\na      x,y\nbb     <none>\n");
        assert_eq!(
            CustomColumns::parse("NAME", true).expect_err("refused").message(),
            "unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>"
        );
    }
}
