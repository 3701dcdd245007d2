//! Objects as text: every form that `-o` names. Pure.

pub(crate) mod columns;
pub(crate) mod jsonpath;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod yaml;

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Map, Value};

use crate::failure::{Failure, Result, plain, system};
use crate::resources::items;
pub(crate) use columns::CustomColumns;
pub(crate) use jsonpath::JsonPath;
pub(crate) use table::Tab;
pub(crate) use yaml::yaml;

/// How a command prints what it worked on.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Output {
    /// Output format: json, yaml, name, jsonpath=..., custom-columns=..., go-template=..., wide, ...
    #[arg(short = 'o', long)]
    pub(crate) output: Option<String>,
    /// Template for -o go-template and jsonpath.
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// Keep managedFields in JSON and YAML.
    #[arg(long)]
    pub(crate) show_managed_fields: bool,
    /// Whether a template may name what is not there.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub(crate) allow_missing_template_keys: bool,
}

/// A form of output.
#[derive(Debug)]
pub(crate) enum Format {
    /// For people: a table, or a line such as `pod/x created`.
    Human,
    Wide,
    Name,
    Json,
    Yaml,
    JsonPath(JsonPath),
    /// The results as a JSON list.
    JsonPathAsJson(JsonPath),
    Columns(CustomColumns),
    Template(template::Template),
}

/// The forms that commands other than `get` offer.
pub(crate) const PLAIN_FORMATS: &str =
    "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,yaml";
/// The forms of `get`.
pub(crate) const GET_FORMATS: &str = "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile,wide,yaml";

impl Output {
    /// Whether only names are wanted.
    pub(crate) fn is_name(&self) -> bool {
        self.output.as_deref() == Some("name")
    }

    /// Understands the flags. `formats` are the names that the command offers.
    pub(crate) fn format(&self, formats: &str, headers: bool) -> Result<Format> {
        let Some(output) = self.output.as_deref().filter(|o| !o.is_empty()) else {
            return match &self.template {
                Some(template) => Ok(Format::Template(template::Template::parse(template)?)),
                None => Ok(Format::Human),
            };
        };
        let (name, argument) = match output.split_once('=') {
            Some((name, argument)) => (name, Some(argument.to_owned())),
            None => (output, None),
        };
        let takes = matches!(
            name,
            "jsonpath"
                | "jsonpath-as-json"
                | "jsonpath-file"
                | "custom-columns"
                | "custom-columns-file"
                | "go-template"
                | "go-template-file"
                | "template"
                | "templatefile"
        );
        let known = formats.split(',').any(|format| format == name) && (takes || argument.is_none());
        if !known {
            return plain(format!(
                "unable to match a printer suitable for the output format {output:?}, allowed formats are: {formats}"
            ));
        }
        let argument = argument.or_else(|| self.template.clone()).unwrap_or_default();
        let missing = self.allow_missing_template_keys;
        match name {
            "wide" => Ok(Format::Wide),
            "name" => Ok(Format::Name),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            "jsonpath" | "jsonpath-file" | "jsonpath-as-json" if argument.is_empty() => {
                plain("template format specified but no template given")
            }
            "jsonpath" => Ok(Format::JsonPath(JsonPath::parse(&argument, missing)?)),
            "jsonpath-as-json" => Ok(Format::JsonPathAsJson(JsonPath::parse(&argument, missing)?)),
            "jsonpath-file" => Ok(Format::JsonPath(JsonPath::parse(&read(&argument)?, missing)?)),
            "custom-columns" => Ok(Format::Columns(CustomColumns::parse(&argument, headers)?)),
            "custom-columns-file" => Ok(Format::Columns(CustomColumns::parse_file(&read(&argument)?, headers)?)),
            _ if argument.is_empty() => plain("template format specified but no template given"),
            "go-template" | "template" => Ok(Format::Template(template::Template::parse(&argument)?)),
            _ => Ok(Format::Template(template::Template::parse(&read(&argument)?)?)),
        }
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Plain(format!("error reading --template {path}, open {path}: {}", system(&error))))
}

impl Format {
    /// Whether it leaves out managedFields, unless told otherwise.
    pub(crate) fn is_document(&self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }

    pub(crate) fn is_human(&self) -> bool {
        matches!(self, Self::Human | Self::Wide)
    }

    /// One object or a `List`, as text. Columns are printed with those of earlier calls in mind.
    pub(crate) fn print(&mut self, object: &Value) -> Result<String> {
        match self {
            Self::Human | Self::Wide => Ok(String::new()),
            Self::Json => Ok(json(object) + "\n"),
            Self::Yaml => Ok(yaml(object)),
            Self::Name => Ok(each(object).map(|item| name(item) + "\n").collect()),
            Self::JsonPath(path) => path.print(object),
            Self::JsonPathAsJson(path) => path.print_json(object),
            Self::Columns(columns) => columns.print(object),
            Self::Template(template) => template.print(object),
        }
    }
}

/// The items of a list; an object that is none by itself.
pub(crate) fn each(object: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match &object["items"] {
        Value::Array(list) if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
            Box::new(list.iter())
        }
        _ => Box::new(std::iter::once(object)),
    }
}

/// `statefulset.apps/web` of an object.
pub(crate) fn name(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("<unknown>").to_lowercase();
    let group = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
}

/// Removes what people hardly ever want to see.
pub(crate) fn without_managed_fields(mut object: Value) -> Value {
    if let Some(list) = object.get_mut("items").and_then(Value::as_array_mut) {
        for item in list {
            remove_managed_fields(item);
        }
    }
    remove_managed_fields(&mut object);
    object
}

fn remove_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// JSON with four blanks per level, as Go writes it.
pub(crate) fn json(value: &Value) -> String {
    let mut text = String::new();
    write_json(value, Some(0), &mut text);
    text
}

/// JSON on one line, as Go writes it.
pub(crate) fn compact(value: &Value) -> String {
    let mut text = String::new();
    write_json(value, None, &mut text);
    text
}

/// Writes `value` at a depth; on one line when there is none.
fn write_json(value: &Value, depth: Option<usize>, text: &mut String) {
    let inner = depth.map(|depth| depth + 1);
    let line = |depth: Option<usize>, text: &mut String| {
        if let Some(depth) = depth {
            text.push('\n');
            text.extend(std::iter::repeat_n("    ", depth));
        }
    };
    match value {
        Value::Array(list) if !list.is_empty() => {
            text.push('[');
            for (at, item) in list.iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                line(inner, text);
                write_json(item, inner, text);
            }
            line(depth, text);
            text.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            text.push('{');
            for (at, (key, item)) in sorted(map).into_iter().enumerate() {
                text.push_str(if at > 0 { "," } else { "" });
                line(inner, text);
                write_string(key, text);
                text.push_str(if depth.is_some() { ": " } else { ":" });
                write_json(item, inner, text);
            }
            line(depth, text);
            text.push('}');
        }
        Value::String(string) => write_string(string, text),
        Value::Number(n) => text.push_str(&number(n)),
        other => text.push_str(&other.to_string()),
    }
}

/// A map's entries by key.
pub(crate) fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
    entries
}

/// Go escapes what HTML could take for its own, too.
fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// A number as Go prints it: whole ones without a point.
pub(crate) fn number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e21 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

/// Objects as one `List`, as `get` prints several of them.
pub(crate) fn list_of(objects: Vec<Value>) -> Value {
    serde_json::json!({"apiVersion": "v1", "items": objects, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// A value's text as Go's `%v` has it; used where templates print what they found.
pub(crate) fn go_text(value: &Value) -> String {
    stead_machinery::patch::go_value(value)
}

/// Labels or annotations as `k=v,k=v`.
pub(crate) fn pairs(map: &Value) -> Vec<String> {
    let Some(map) = map.as_object() else { return Vec::new() };
    sorted(map).into_iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
}

/// The string at `pointer`, empty when there is none.
pub(crate) fn at<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `pointer`, zero when there is none.
pub(crate) fn int(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at `pointer`.
pub(crate) fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value.pointer(pointer).map_or(&[], items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_indented_and_escaped_as_go_does_it() {
        let value = json!({"b": ["<a>", 1.0, 0.5], "a": {}, "c": []});
        let wanted = "{\n    \"a\": {},\n    \"b\": [\n        \"\\u003ca\\u003e\",\n        1,\n        0.5\n    ],\n    \"c\": []\n}";
        assert_eq!(json(&value), wanted);
        assert_eq!(compact(&value), r#"{"a":{},"b":["\u003ca\u003e",1,0.5],"c":[]}"#);
    }

    #[test]
    fn a_format_is_known_or_refused_with_the_list_of_those_that_are() {
        let of = |output: &str| {
            let flags = Output { output: Some(output.into()), allow_missing_template_keys: true, ..Output::default() };
            flags.format(GET_FORMATS, true).map(|format| format!("{format:?}").chars().take(4).collect::<String>())
        };
        assert_eq!(of("yaml").expect("known"), "Yaml");
        assert!(
            of("yaml=x")
                .expect_err("refused")
                .message()
                .starts_with("unable to match a printer suitable for the output format \"yaml=x\"")
        );
        assert_eq!(of("jsonpath").expect_err("refused").message(), "template format specified but no template given");
    }
}
