//! Columns for people: the layout of Go's tabwriter as kubectl sets it up, and the server's tables in it. Pure.
//!
//! Source of the rules: `k8s.io/cli-runtime/pkg/printers` (tableprinter, tabwriter).

use serde_json::Value;

use crate::print::{number, pairs};
use crate::resources::items;

/// Blanks between a column's longest cell and the next column.
const PADDING: usize = 3;
/// The least width of a column, padding included.
const WIDTH_MIN: usize = 6;

/// Lays out lines of cells. Widths are remembered from one call to the next and only grow, as in a watch.
#[derive(Debug, Default)]
pub(crate) struct Tab {
    widths: Vec<usize>,
}

impl Tab {
    /// The lines as text; every cell but the last of its line is padded to its column.
    pub(crate) fn lay_out(&mut self, lines: &[Vec<String>]) -> String {
        if lines.iter().flatten().any(|cell| cell.contains('\n')) {
            // A line break within a cell ends the line for the writer, too.
            let text: String = lines.iter().map(|line| line.join("\t") + "\n").collect();
            let room = Room { width_min: WIDTH_MIN, padding: PADDING, remembered: Some(&mut self.widths) };
            return laid_out(&text, room);
        }
        for line in lines {
            for (at, cell) in line.iter().enumerate().take(line.len().saturating_sub(1)) {
                let width = (cell.chars().count() + PADDING).max(WIDTH_MIN);
                match self.widths.get_mut(at) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for line in lines {
            for (at, cell) in line.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < line.len() {
                    let blanks = self.widths[at].saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Lays out text whose cells end in tabs, as Go's tabwriter does: a column reaches over neighbouring lines that have it.
pub(crate) fn tabulate(text: &str, padding: usize) -> String {
    laid_out(text, Room { width_min: 0, padding, remembered: None })
}

/// How wide columns get.
struct Room<'w> {
    width_min: usize,
    padding: usize,
    /// Widths that later blocks keep.
    remembered: Option<&'w mut Vec<usize>>,
}

fn laid_out(text: &str, mut room: Room<'_>) -> String {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let lines: Vec<Vec<&str>> = body.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = String::new();
    block(&lines, &mut Vec::new(), &mut room, &mut out);
    if body.len() == text.len() {
        let _ = out.pop();
    }
    out
}

fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, room: &mut Room<'_>, out: &mut String) {
    let column = widths.len();
    let has = |line: &Vec<&str>| column + 1 < line.len();
    let mut at = 0;
    while at < lines.len() {
        if !has(&lines[at]) {
            write_line(&lines[at], widths, out);
            at += 1;
            continue;
        }
        let end = lines[at..].iter().position(|line| !has(line)).map_or(lines.len(), |length| at + length);
        let cells = lines[at..end].iter().map(|line| line[column].chars().count() + room.padding);
        let mut width = cells.max().unwrap_or_default().max(room.width_min);
        if let Some(remembered) = &mut room.remembered {
            match remembered.get_mut(column) {
                Some(known) => {
                    *known = width.max(*known);
                    width = *known;
                }
                None => remembered.push(width),
            }
        }
        widths.push(width);
        block(&lines[at..end], widths, room, out);
        widths.pop();
        at = end;
    }
}

fn write_line(line: &[&str], widths: &[usize], out: &mut String) {
    for (at, cell) in line.iter().enumerate() {
        out.push_str(cell);
        if let Some(width) = widths.get(at) {
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out.push('\n');
}

/// What is shown of a table beside its own columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    pub(crate) wide: bool,
    pub(crate) no_headers: bool,
    /// The first column is the namespace.
    pub(crate) namespaces: bool,
    /// What stands before every name: `pod/`.
    pub(crate) kind: Option<String>,
    /// `-L`.
    pub(crate) label_columns: Vec<String>,
    pub(crate) show_labels: bool,
    /// The first column is the kind of the watch's event.
    pub(crate) events: bool,
}

/// The column headings of a table.
pub(crate) fn headings(table: &Value, look: &Look) -> Vec<String> {
    let mut headings = Vec::new();
    if look.events {
        headings.push("EVENT".to_owned());
    }
    if look.namespaces {
        headings.push("NAMESPACE".to_owned());
    }
    let shown = items(&table["columnDefinitions"]).iter().filter(|column| is_shown(column, look));
    headings.extend(shown.map(|column| column["name"].as_str().unwrap_or_default().to_uppercase()));
    for label in &look.label_columns {
        headings.push(label.rsplit('/').next().unwrap_or(label).to_uppercase());
    }
    if look.show_labels {
        headings.push("LABELS".to_owned());
    }
    headings
}

/// The rows of a table. `columns` are those of the first table of a stream: later ones come without.
pub(crate) fn rows(table: &Value, columns: &Value, look: &Look, event: &str) -> Vec<Vec<String>> {
    items(&table["rows"]).iter().map(|row| cells(row, columns, look, event)).collect()
}

fn cells(row: &Value, columns: &Value, look: &Look, event: &str) -> Vec<String> {
    let metadata = &row["object"]["metadata"];
    let mut cells = Vec::new();
    if look.events {
        // As wide as the longest kind of change, so that later ones do not move the table.
        cells.push(format!("{event:<8}"));
    }
    if look.namespaces {
        cells.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
    }
    let mut first = true;
    for (cell, _) in items(&row["cells"]).iter().zip(items(columns)).filter(|(_, column)| is_shown(column, look)) {
        match (&look.kind, first) {
            (Some(kind), true) => cells.push(format!("{kind}/{}", shown(cell))),
            _ => cells.push(shown(cell)),
        }
        first = false;
    }
    for label in &look.label_columns {
        cells.push(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
    }
    if look.show_labels {
        let labels = pairs(&metadata["labels"]);
        cells.push(if labels.is_empty() { "<none>".to_owned() } else { labels.join(",") });
    }
    cells
}

fn is_shown(column: &Value, look: &Look) -> bool {
    look.wide || column["priority"].as_i64().unwrap_or_default() == 0
}

/// A cell as text; only its first line.
fn shown(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => match text.split_once(['\n', '\r', '\u{c}']) {
            Some((first, _)) => format!("{}...", escape(first)),
            None => escape(text),
        },
        Value::Number(n) => number(n),
        other => super::go_text(other),
    }
}

/// Terminals obey some characters: those are shown instead.
fn escape(text: &str) -> String {
    text.replace('\u{1b}', "^[").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({"columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
        "rows": [
            {"cells": ["a", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "x", "labels": {"app": "web"}}}},
            {"cells": ["longer-name", 0, null], "object": {"metadata": {"namespace": "default"}}},
        ]})
    }

    fn drawn(look: &Look) -> String {
        let table = table();
        let mut lines = vec![headings(&table, look)];
        lines.extend(rows(&table, &table["columnDefinitions"], look, "ADDED"));
        Tab::default().lay_out(&lines)
    }

    #[test]
    fn columns_are_three_blanks_apart() {
        assert_eq!(drawn(&Look::default()), "NAME          READY\na             1/1\nlonger-name   0\n");
        let wide = Look { wide: true, namespaces: true, kind: Some("pod".into()), ..Look::default() };
        assert_eq!(
            drawn(&wide),
            "NAMESPACE   NAME              READY   IP\nx           pod/a             1/1     10.0.0.1\ndefault     pod/longer-name   0       \n"
        );
        let labels = Look { show_labels: true, label_columns: vec!["a/app".into(), "app".into()], ..Look::default() };
        assert!(
            drawn(&labels)
                .starts_with("NAME          READY   APP   APP   LABELS\na             1/1           web   app=web\n")
        );
    }

    #[test]
    fn a_column_reaches_over_the_lines_that_have_it() {
        let text = "Name:\tweb\nLong name:\tx\nplain\nA:\tb\tc\nAA:\tbbbb\tc\nB:\t\n";
        assert_eq!(tabulate(text, 2), "Name:       web\nLong name:  x\nplain\nA:   b     c\nAA:  bbbb  c\nB:   \n");
    }

    #[test]
    fn a_watch_remembers_its_widths_and_widens_them() {
        let mut tab = Tab::default();
        let line = |a: &str, b: &str| vec![vec![a.to_owned(), b.to_owned()]];
        assert_eq!(tab.lay_out(&line("STATUS", "AGE")), "STATUS   AGE\n");
        assert_eq!(tab.lay_out(&line("ContainerCreating", "1s")), "ContainerCreating   1s\n");
        assert_eq!(tab.lay_out(&line("Running", "2s")), "Running             2s\n");
    }
}
