//! `explain TYPE`: the documentation of fields, from the server's OpenAPI v3. `explain TYPE/NAME` is [`super::diagnose`].
//!
//! Source of the layout: `k8s.io/kubectl/pkg/explain/v2` (its plain-text template).

use clap::Args;
use serde_json::{Map, Value};

use crate::failure::{Failure, Result, plain};
use crate::print::{at, list, sorted};
use crate::session::Session;

/// How wide text may get.
const WIDTH: usize = 80;
/// How deep `--recursive` goes.
const DEPTH_MAX: usize = 24;

/// What to explain.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE or TYPE.FIELD.FIELD for documentation; TYPE/NAME for why that object is not as wanted
    words: Vec<String>,
    /// All fields below, without their descriptions.
    #[arg(long)]
    recursive: bool,
    /// GROUP/VERSION
    #[arg(long)]
    api_version: Option<String>,
    /// Of TYPE/NAME: json, yaml
    #[arg(short = 'o', long)]
    output: Option<String>,
}

/// Prints it.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    // Kubectl knows no such words here.
    if flags.words.iter().any(|word| word.contains('/')) {
        return super::diagnose::run(session, &flags.words, flags.output.as_deref()).await;
    }
    let [word] = &flags.words[..] else {
        return match flags.words.len() {
            0 => plain(
                "You must specify the type of resource to explain. Use \"kubectl api-resources\" for a complete list of supported resources.",
            ),
            _ => plain("We accept only this format: explain RESOURCE"),
        };
    };
    let word = word.strip_suffix('.').unwrap_or(word);
    let (name, path) =
        word.split_once('.').map_or((word, Vec::new()), |(name, rest)| (name, rest.split('.').collect()));
    let resources = session.resources().await?;
    let resource = match &flags.api_version {
        Some(version) => resources
            .all
            .iter()
            .find(|r| {
                r.api_version() == *version
                    && (r.plural == name || r.singular == name || r.short_names.iter().any(|s| s == name))
            })
            .cloned(),
        None => resources.find(name),
    };
    let Some(resource) = resource else { return bare(format!("the server doesn't have a resource type {name:?}")) };
    let root = if resource.group.is_empty() { "api/v1".to_owned() } else { format!("apis/{}", resource.api_version()) };
    let document = session.server().await?.get(&format!("/openapi/v3/{root}")).await?;
    let of_kind = |schema: &&Value| {
        list(schema, "/x-kubernetes-group-version-kind").iter().any(|gvk| {
            at(gvk, "/group") == resource.group
                && at(gvk, "/version") == resource.version
                && at(gvk, "/kind") == resource.kind
        })
    };
    let empty = Map::new();
    let schemas = document["components"]["schemas"].as_object().unwrap_or(&empty);
    let Some(schema) = schemas.values().find(of_kind) else {
        return plain(format!(
            "couldn't find resource for \"{}/{}, Kind={}\"",
            resource.group, resource.version, resource.kind
        ));
    };
    let mut text = String::new();
    if !resource.group.is_empty() {
        text.push_str(&format!("GROUP:      {}\n", resource.group));
    }
    text.push_str(&format!("KIND:       {}\nVERSION:    {}\n\n", resource.kind, resource.version));
    match explained(&document, schema, &path, flags.recursive) {
        Some(body) => session.out(&(text + &body)),
        None => {
            session.out(&text)?;
            plain(format!("field {:?} does not exist", path.last().copied().unwrap_or_default()))
        }
    }
}

fn bare(text: String) -> Result {
    Err(Failure::Bare(text))
}

/// The text of a schema, or of the field that a path leads to.
fn explained(document: &Value, schema: &Value, path: &[&str], recursive: bool) -> Option<String> {
    let (mut schema, mut field, mut text) = (schema, Value::Null, String::new());
    for (step, name) in path.iter().enumerate() {
        let inner = core(document, schema);
        field = inner["properties"].get(*name)?.clone();
        schema = &inner["properties"][*name];
        if step + 1 == path.len() {
            text = format!("FIELD: {name} <{}>\n\n\n", kind(document, schema));
        }
    }
    let inner = core(document, schema);
    text.push_str("DESCRIPTION:\n");
    let own = at(&field, "/description");
    let type_text = if std::ptr::eq(inner, schema) && !path.is_empty() { "" } else { at(inner, "/description") };
    for paragraph in [own, type_text].iter().filter(|t| !t.is_empty()) {
        text.push_str(&wrapped(paragraph, 4));
    }
    if own.is_empty() && type_text.is_empty() {
        text.push_str("    <empty>\n");
    }
    text.push_str(&enumeration(&field, 4));
    text.push_str("    \n");
    let empty = Map::new();
    let properties = inner["properties"].as_object().unwrap_or(&empty);
    if !properties.is_empty() {
        text.push_str("FIELDS:\n");
        text.push_str(&fields(document, inner, recursive, 1, DEPTH_MAX));
    }
    text.push('\n');
    Some(text)
}

/// The fields of a schema, each with its type and its text, or with those below it.
fn fields(document: &Value, schema: &Value, recursive: bool, level: usize, depth: usize) -> String {
    let empty = Map::new();
    let mut text = String::new();
    for (name, property) in sorted(schema["properties"].as_object().unwrap_or(&empty)) {
        let mark = if list(schema, "/required").iter().any(|r| r == name.as_str()) { " -required-" } else { "" };
        let indent = "  ".repeat(level);
        text.push_str(&format!("{indent}{name}\t<{}>{mark}\n", kind(document, property)));
        let inner = core(document, property);
        if recursive {
            text.push_str(&enumeration(property, 2 * level));
            if depth > 0 && inner["properties"].is_object() {
                text.push_str(&fields(document, inner, true, level + 1, depth - 1));
            }
            continue;
        }
        text.push_str(&enumeration(property, 2 * level));
        let description = match at(property, "/description") {
            "" => at(inner, "/description"),
            own => own,
        };
        text.push_str(&if description.is_empty() {
            "    <no description>\n".to_owned()
        } else {
            wrapped(description, 4)
        });
        text.push('\n');
    }
    text
}

fn enumeration(property: &Value, indent: usize) -> String {
    let Some(values) = property["enum"].as_array() else { return String::new() };
    let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
    format!("{}enum: {}\n", " ".repeat(indent), values.join(", "))
}

/// The schema behind references, lists and maps: the one with the properties.
fn core<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let mut schema = schema;
    for _ in 0..DEPTH_MAX {
        schema = if let Some(name) = reference(schema) {
            &document["components"]["schemas"][name]
        } else if schema["type"] == "array" {
            &schema["items"]
        } else if schema["additionalProperties"].is_object() && !schema["properties"].is_object() {
            &schema["additionalProperties"]
        } else {
            break;
        };
    }
    schema
}

fn reference(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
    direct.map(|path| path.rsplit('/').next().unwrap_or(path))
}

/// A type for people: `[]Container`, `map[string]string`, `integer`.
fn kind(document: &Value, schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        let target = &document["components"]["schemas"][name];
        let short = name.rsplit('.').next().unwrap_or(name);
        return match (target["properties"].is_object(), target["type"].as_str(), short) {
            (true, ..) => short.to_owned(),
            (false, Some(scalar), _) if scalar != "object" => scalar.to_owned(),
            (false, _, short) => short.to_owned(),
        };
    }
    match schema["type"].as_str() {
        Some("array") => format!("[]{}", kind(document, &schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map[string]{}", kind(document, &schema["additionalProperties"]))
        }
        Some("object") => "Object".to_owned(),
        Some(other) => other.to_owned(),
        None => "Object".to_owned(),
    }
}

/// Text in lines of at most [`WIDTH`] columns, each moved in.
fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let pad = " ".repeat(indent);
    for paragraph in text.trim_end().split('\n') {
        let blanks = paragraph.len() - paragraph.trim_start().len();
        let mut line = paragraph[..blanks].to_owned();
        let mut begun = false;
        for word in paragraph.split_whitespace() {
            if begun && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
                out.push_str(&format!("{pad}{line}\n"));
                line.clear();
                begun = false;
            }
            if begun {
                line.push(' ');
            }
            line.push_str(word);
            begun = true;
        }
        out.push_str(&format!("{pad}{line}\n"));
    }
    out
}
