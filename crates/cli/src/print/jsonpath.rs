//! Kubectl's dialect of JSONPath: text with `{expressions}`, ranges, filters, slices, unions.
//!
//! Source of the rules and texts: `k8s.io/client-go/util/jsonpath`.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use crate::failure::{Result, plain};
use crate::print::{compact, go_text, json, sorted};

/// How deep ranges and filters may nest.
const DEPTH_MAX: usize = 32;

/// A template that has been understood.
#[derive(Debug)]
pub(crate) struct JsonPath {
    source: String,
    pieces: Vec<Piece>,
    /// Whether a field that is not there is no error.
    missing_allowed: bool,
}

#[derive(Debug)]
enum Piece {
    Text(String),
    /// `{...}`
    Find(Vec<Node>),
    /// `{range ...} body {end}`
    Range(Vec<Node>, Vec<Piece>),
}

#[derive(Debug)]
enum Node {
    Field(String),
    Wildcard,
    Recursive,
    /// A word that means nothing; told when it is met.
    Unknown(String),
    Text(String),
    Number(Value),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        step: Option<i64>,
        index: bool,
    },
    Union(Vec<Vec<Node>>),
    Filter {
        left: Vec<Node>,
        operator: String,
        right: Vec<Node>,
    },
}

type Found<'v> = Vec<Cow<'v, Value>>;

impl JsonPath {
    /// Understands a template.
    pub(crate) fn parse(source: &str, missing_allowed: bool) -> Result<Self> {
        let fail = |why: String| plain(format!("error parsing jsonpath {source}, {why}"));
        let mut parser = Parser { rest: source, depth: 0 };
        match parser.pieces(false) {
            Ok(pieces) => Ok(Self { source: source.to_owned(), pieces, missing_allowed }),
            Err(why) => fail(why),
        }
    }

    /// The template as it was given.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// One path, with or without braces and the first point: `.metadata.name`, `{metadata.name}`.
    pub(crate) fn relaxed(path: &str, missing_allowed: bool) -> Result<Self> {
        let inner = match (path.strip_prefix('{'), path.strip_suffix('}')) {
            (Some(inner), Some(_)) => inner.strip_suffix('}').unwrap_or(inner),
            (None, None) => path,
            _ => "",
        };
        let inner = inner.strip_prefix('.').unwrap_or(inner);
        if inner.is_empty() || inner.contains(['{', '}']) {
            return plain(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'",
            );
        }
        Self::parse(&format!("{{.{inner}}}"), missing_allowed)
    }

    /// The text that the template makes of a value.
    pub(crate) fn print(&self, value: &Value) -> Result<String> {
        let mut results = Vec::new();
        self.run(&self.pieces, value, &mut results).or_else(|why| self.failed(&why, value))?;
        let shown = |found: &Found<'_>| found.iter().map(|v| text(v)).collect::<Vec<_>>().join(" ");
        Ok(results.iter().map(shown).collect())
    }

    /// All results as a JSON list.
    pub(crate) fn print_json(&self, value: &Value) -> Result<String> {
        let all: Vec<Value> = self.find(value)?.into_iter().map(Cow::into_owned).collect();
        Ok(json(&Value::Array(all)) + "\n")
    }

    /// All results.
    pub(crate) fn find<'v>(&'v self, value: &'v Value) -> Result<Found<'v>> {
        let mut results = Vec::new();
        self.run(&self.pieces, value, &mut results).or_else(|why| self.failed(&why, value))?;
        Ok(results.into_iter().flatten().collect())
    }

    fn failed(&self, why: &str, value: &Value) -> Result {
        plain(format!(
            "error executing jsonpath {:?}: Error executing template: {why}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{}\n\tobject given to jsonpath engine was:\n\t\t{}\n\n",
            self.source,
            self.source,
            go_syntax(value)
        ))
    }

    fn run<'v>(
        &self,
        pieces: &[Piece],
        value: &'v Value,
        results: &mut Vec<Found<'v>>,
    ) -> std::result::Result<(), String> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => results.push(vec![Cow::Owned(Value::String(text.clone()))]),
                Piece::Find(nodes) => results.push(self.walk(nodes, vec![Cow::Borrowed(value)])?),
                Piece::Range(nodes, body) => {
                    for found in self.walk(nodes, vec![Cow::Borrowed(value)])? {
                        match found {
                            Cow::Borrowed(found) => self.run(body, found, results)?,
                            Cow::Owned(found) => {
                                let mut inner = Vec::new();
                                self.run(body, &found, &mut inner)?;
                                let own =
                                    |all: Found<'_>| all.into_iter().map(|v| Cow::Owned(v.into_owned())).collect();
                                results.extend(inner.into_iter().map(own));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn walk<'v>(&self, nodes: &[Node], mut found: Found<'v>) -> std::result::Result<Found<'v>, String> {
        for node in nodes {
            found = self.step(node, found)?;
        }
        Ok(found)
    }

    fn step<'v>(&self, node: &Node, found: Found<'v>) -> std::result::Result<Found<'v>, String> {
        let mut next = Vec::new();
        match node {
            Node::Text(text) => next.push(Cow::Owned(Value::String(text.clone()))),
            Node::Number(number) => next.push(Cow::Owned(number.clone())),
            Node::Unknown(word) => return Err(format!("unrecognized identifier {word}")),
            Node::Field(name) => {
                for value in found {
                    next.extend(child(value, |v| v.get(name)));
                }
                if next.is_empty() && !self.missing_allowed {
                    return Err(format!("{name} is not found"));
                }
            }
            Node::Wildcard => next.extend(found.into_iter().flat_map(children)),
            Node::Recursive => found.into_iter().for_each(|value| descend(value, &mut next)),
            Node::Union(branches) => {
                for branch in branches {
                    next.extend(self.walk(branch, found.clone())?);
                }
            }
            Node::Slice { from, to, step, index } => {
                for value in found {
                    slice(value, (*from, *to, *step), *index, &mut next)?;
                }
            }
            Node::Filter { left, operator, right } => {
                for value in found.into_iter().flat_map(children) {
                    if self.passes(&value, left, operator, right)? {
                        next.push(value);
                    }
                }
            }
        }
        Ok(next)
    }

    fn passes(
        &self,
        value: &Value,
        left: &[Node],
        operator: &str,
        right: &[Node],
    ) -> std::result::Result<bool, String> {
        let quiet = Self { source: String::new(), pieces: Vec::new(), missing_allowed: true };
        let left = quiet.walk(left, vec![Cow::Borrowed(value)])?;
        if operator == "exists" {
            return Ok(!left.is_empty());
        }
        let right = quiet.walk(right, vec![Cow::Borrowed(value)])?;
        match (&left[..], &right[..]) {
            ([], _) | (_, []) => Ok(false),
            ([left], [right]) => compare(left, operator, right),
            _ => Err("can only compare one element at a time".into()),
        }
    }
}

/// A part of a value, borrowed when the value is.
fn child<'v>(value: Cow<'v, Value>, part: impl Fn(&Value) -> Option<&Value>) -> Option<Cow<'v, Value>> {
    match value {
        Cow::Borrowed(value) => part(value).map(Cow::Borrowed),
        Cow::Owned(value) => part(&value).cloned().map(Cow::Owned),
    }
}

fn children(value: Cow<'_, Value>) -> Vec<Cow<'_, Value>> {
    match value {
        Cow::Borrowed(Value::Array(list)) => list.iter().map(Cow::Borrowed).collect(),
        Cow::Borrowed(Value::Object(map)) => sorted(map).into_iter().map(|(_, v)| Cow::Borrowed(v)).collect(),
        Cow::Owned(Value::Array(list)) => list.into_iter().map(Cow::Owned).collect(),
        Cow::Owned(Value::Object(map)) => sorted(&map).into_iter().map(|(_, v)| Cow::Owned(v.clone())).collect(),
        _ => Vec::new(),
    }
}

/// A value and everything in it that has parts.
fn descend<'v>(value: Cow<'v, Value>, found: &mut Found<'v>) {
    if value.is_object() || value.is_array() {
        found.push(value.clone());
        for inner in children(value) {
            descend(inner, found);
        }
    }
}

fn slice<'v>(
    value: Cow<'v, Value>,
    (from, to, step): (Option<i64>, Option<i64>, Option<i64>),
    index: bool,
    found: &mut Found<'v>,
) -> std::result::Result<(), String> {
    let Some(length) = value.as_array().map(Vec::len) else {
        return if value.is_null() { Ok(()) } else { Err(format!("{} is not array or slice", go_text(&value))) };
    };
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let wrap = |at: i64| if at < 0 { at + length } else { at };
    let from = wrap(from.unwrap_or(0));
    if index {
        if !(0..length).contains(&from) {
            return Err(format!("array index out of bounds: index {from}, length {length}"));
        }
        found.extend(child(value, |v| v.get(usize::try_from(from).ok()?)));
        return Ok(());
    }
    let to = wrap(to.unwrap_or(length)).min(length);
    let step = step.unwrap_or(1);
    if step <= 0 {
        return Err("step must be > 0".into());
    }
    let mut at = from.max(0);
    while at < to {
        found.extend(child(value.clone(), |v| v.get(usize::try_from(at).ok()?)));
        at += step;
    }
    Ok(())
}

fn compare(left: &Value, operator: &str, right: &Value) -> std::result::Result<bool, String> {
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Null, _) | (_, Value::Null) => return Ok(operator == "!="),
        _ => return Err("incompatible types for comparison".into()),
    };
    Ok(match operator {
        "==" => order == Some(Ordering::Equal),
        "!=" => order != Some(Ordering::Equal),
        "<" => order == Some(Ordering::Less),
        "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        ">" => order == Some(Ordering::Greater),
        ">=" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        other => return Err(format!("unrecognized filter operator {other}")),
    })
}

/// How a result is printed: strings bare, what has parts as JSON.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => compact(value),
        other => go_text(other),
    }
}

/// A value as Go's `%#v` has it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => stead_machinery::field::go_quote(text),
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<String> =
                sorted(map).into_iter().map(|(k, v)| format!("{k:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        other => go_text(other),
    }
}

struct Parser<'s> {
    rest: &'s str,
    depth: usize,
}

type Parsed<T> = std::result::Result<T, String>;

impl<'s> Parser<'s> {
    /// Text and expressions up to the end, or in a range up to its `{end}`.
    fn pieces(&mut self, within: bool) -> Parsed<Vec<Piece>> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("too deeply nested".into());
        }
        let mut pieces = Vec::new();
        loop {
            let at = self.rest.find('{').unwrap_or(self.rest.len());
            if at > 0 {
                pieces.push(Piece::Text(self.rest[..at].to_owned()));
            }
            self.rest = &self.rest[at..];
            if self.rest.is_empty() {
                // Like upstream, a range without its end goes to the end of the template.
                break;
            }
            self.rest = &self.rest[1..];
            if let Some(rest) = self.keyword("end") {
                self.rest = rest;
                let _ = self.nodes()?;
                if within {
                    break;
                }
                return Err("not in range, nothing to end".into());
            }
            if let Some(rest) = self.keyword("range") {
                self.rest = rest;
                let over = self.nodes()?;
                pieces.push(Piece::Range(over, self.pieces(true)?));
            } else {
                pieces.push(Piece::Find(self.nodes()?));
            }
        }
        self.depth -= 1;
        Ok(pieces)
    }

    fn keyword(&self, word: &str) -> Option<&'s str> {
        let rest = self.rest.trim_start_matches(' ').strip_prefix(word)?;
        rest.starts_with([' ', '}']).then_some(rest)
    }

    /// The inside of `{...}`, and its end.
    fn nodes(&mut self) -> Parsed<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            let Some(first) = self.rest.chars().next() else { return Err("unclosed action".into()) };
            match first {
                '}' => {
                    self.rest = &self.rest[1..];
                    return Ok(nodes);
                }
                '\n' | '\r' => return Err("unclosed action".into()),
                ' ' | '@' | '$' => self.rest = &self.rest[1..],
                '[' if self.rest.starts_with("[?(") => nodes.push(self.filter()?),
                '[' => nodes.extend(self.bracket()?),
                '"' | '\'' => nodes.push(Node::Text(self.quoted(first)?)),
                '.' if self.rest.starts_with("..") => {
                    self.rest = &self.rest[1..];
                    nodes.push(Node::Recursive);
                    if self.rest.starts_with(".[") || self.rest.starts_with(".}") {
                        self.rest = &self.rest[1..];
                    }
                }
                '.' => {
                    self.rest = &self.rest[1..];
                    nodes.extend(self.field());
                }
                '+' | '-' | '0'..='9' => nodes.push(self.number()?),
                c if c.is_alphanumeric() || c == '_' => nodes.push(self.identifier()?),
                c => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", u32::from(c))),
            }
        }
    }

    fn field(&mut self) -> Option<Node> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                ' ' | '\n' | '\r' | '.' | '[' | ']' | '}' | '{' | '@' | '$' | '(' | ')' | '|' | ':' | ',' | '='
                | '!' | '<' | '>' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        match &*name {
            "" => None,
            "*" => Some(Node::Wildcard),
            _ => Some(Node::Field(name)),
        }
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        let mut text = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                c if c == quote => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".into())
    }

    fn number(&mut self) -> Parsed<Node> {
        let end = self.rest.find(|c: char| !(c.is_ascii_digit() || "+-.eE".contains(c))).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number: Value =
            serde_json::from_str(text.trim_start_matches('+')).map_err(|_| format!("cannot parse number {text}"))?;
        Ok(Node::Number(number))
    }

    fn identifier(&mut self) -> Parsed<Node> {
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        match text {
            "true" | "false" => Ok(Node::Number(Value::Bool(text == "true"))),
            other => Ok(Node::Unknown(other.to_owned())),
        }
    }

    /// `[0]`, `[1:3]`, `[*]`, `['key']`, `[a,b]`.
    fn bracket(&mut self) -> Parsed<Vec<Node>> {
        let Some(inside) = inside(&self.rest[1..], ']') else { return Err("unterminated array".into()) };
        let inside = inside.to_owned();
        self.rest = &self.rest[inside.len() + 2..];
        let parts = split(&inside);
        if parts.len() > 1 {
            let branches: Parsed<Vec<Vec<Node>>> = parts.iter().map(|part| Ok(vec![subscript(part.trim())?])).collect();
            return Ok(vec![Node::Union(branches?)]);
        }
        Ok(vec![subscript(&inside)?])
    }

    /// `[?(@.a == "b")]`.
    fn filter(&mut self) -> Parsed<Node> {
        let Some(inside) = inside(&self.rest[3..], ')') else { return Err("unterminated filter".into()) };
        let inside = inside.to_owned();
        self.rest = &self.rest[inside.len() + 4..];
        self.rest = match self.rest.trim_start().strip_prefix(']') {
            Some(rest) => &self.rest[self.rest.len() - rest.len()..],
            None => return Err("unterminated filter".into()),
        };
        let parse = |text: &str| {
            let braced = format!("{}}}", text.trim());
            Parser { rest: &braced, depth: self.depth }.nodes()
        };
        let outside = operator_at(&inside);
        let Some((from, to)) = outside else {
            return Ok(Node::Filter { left: parse(&inside)?, operator: "exists".into(), right: Vec::new() });
        };
        let operator = inside[from..to].to_owned();
        Ok(Node::Filter { left: parse(&inside[..from])?, operator, right: parse(&inside[to..])? })
    }
}

/// The text up to `end`, which quotes and brackets hide.
fn inside(text: &str, end: char) -> Option<&str> {
    let (mut quote, mut depth) = (None, 0_usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c == end && depth == 0 => return Some(&text[..at]),
            (None, '(' | '[') => depth += 1,
            (None, ')' | ']') => depth = depth.saturating_sub(1),
            (None, '\n') => return None,
            _ => {}
        }
    }
    None
}

/// Splits at commas that are not in quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ',') => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Where the operator of a filter stands, outside of quotes.
fn operator_at(text: &str) -> Option<(usize, usize)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '=' | '!' | '<' | '>') => {
                let length = text[at..].find(|c: char| !"=!<>".contains(c)).unwrap_or(text.len() - at);
                return Some((at, at + length));
            }
            _ => {}
        }
    }
    None
}

fn subscript(text: &str) -> Parsed<Node> {
    let bad = || format!("invalid array index {text}");
    let unquoted = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    if let Some(name) = unquoted('\'').or_else(|| unquoted('"')) {
        return Ok(Node::Field(name.to_owned()));
    }
    if text == "*" {
        return Ok(Node::Slice { from: None, to: None, step: None, index: false });
    }
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 || text.is_empty() {
        return Err(bad());
    }
    let number = |part: Option<&&str>| match part {
        None | Some(&"") => Ok(None),
        Some(part) => part.parse().map(Some).map_err(|_| bad()),
    };
    Ok(Node::Slice {
        from: number(parts.first())?,
        to: number(parts.get(1))?,
        step: number(parts.get(2))?,
        index: parts.len() == 1,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Value {
        json!({"kind": "List", "items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}}, "spec": {"n": 1}, "ok": true,
             "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
            {"metadata": {"name": "b"}, "spec": {"n": 2}},
            {"metadata": {"name": "c"}, "spec": {"n": 3.5}},
        ]})
    }

    #[test]
    fn templates_find_what_kubectl_finds() {
        for (template, wanted) in [
            ("{.kind}", "List"),
            ("{$.kind}", "List"),
            ("{.items[*].metadata.name}", "a b c"),
            ("{.items[0].metadata.name}", "a"),
            ("{.items[-1].metadata.name}", "c"),
            ("{.items[0:2].metadata.name}", "a b"),
            ("{.items[:2].metadata.name}", "a b"),
            ("{.items[::2].metadata.name}", "a c"),
            ("{.items[0,2].metadata.name}", "a c"),
            ("{.items[*]['metadata.name','spec.n']}", ""),
            ("{.items[0].metadata['name','labels']}", r#"a {"app.kubernetes.io/name":"x"}"#),
            (r"{.items[0].metadata.labels.app\.kubernetes\.io/name}", "x"),
            ("{.items[0].metadata.labels['app.kubernetes.io/name']}", "x"),
            ("{.items[?(@.spec.n>1)].metadata.name}", "b c"),
            (r#"{.items[?(@.metadata.name=="b")].spec.n}"#, "2"),
            (r#"{.items[?(@.metadata.name != 'b')].spec.n}"#, "1 3.5"),
            ("{.items[?(@.ok)].metadata.name}", "a"),
            ("{.items[?(@.ok==true)].metadata.name}", "a"),
            (r#"{.items[0].conditions[?(@.type=="Ready")].status}"#, "True"),
            ("{..name}", "a b c"),
            ("{.items..name}", "a b c"),
            ("{.items[*].nothere}", ""),
            ("x{.kind}y", "xListy"),
            (r#"{range .items[*]}{.metadata.name}{"\t"}{.spec.n}{"\n"}{end}"#, "a\t1\nb\t2\nc\t3.5\n"),
            (
                r#"{range .items[*]}[{.metadata.name}{range .conditions[*]} {.type}{end}]{end}."#,
                "[a Ready Other][b][c].",
            ),
            ("{.items[0].spec}", r#"{"n":1}"#),
            ("{.items[0]['metadata'].name}", "a"),
            ("{@.kind}", "List"),
            (r#"{.items[*].metadata['name']}"#, "a b c"),
        ] {
            let path = JsonPath::parse(template, true).expect(template);
            assert_eq!(path.print(&pods()).expect(template), wanted, "{template}");
        }
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        for (template, wanted) in [
            ("{.items[0", "error parsing jsonpath {.items[0, unterminated array"),
            ("{.items[?(@.x}", "error parsing jsonpath {.items[?(@.x}, unterminated filter"),
            ("{.items", "error parsing jsonpath {.items, unclosed action"),
            ("{.items[x]}", "error parsing jsonpath {.items[x]}, invalid array index x"),
            ("{end}", "error parsing jsonpath {end}, not in range, nothing to end"),
        ] {
            assert_eq!(JsonPath::parse(template, true).expect_err(template).message(), wanted);
        }
        let path = JsonPath::parse("{.items[9].x}", true).expect("parses");
        let error = path.print(&json!({"items": []})).expect_err("out of bounds").message();
        assert!(error.contains("array index out of bounds: index 9, length 0"), "{error}");
        assert!(error.contains(r#"map[string]interface {}{"items":[]interface {}{}}"#), "{error}");
        let strict = JsonPath::parse("{.x}", false).expect("parses");
        assert!(strict.print(&json!({})).expect_err("missing").message().contains("x is not found"));
    }
}
