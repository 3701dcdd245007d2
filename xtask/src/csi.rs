//! Generates `crates/csi/src/messages.rs` from `csi.proto`: the messages of the calls that are made, and the path of each call.
//!
//! Reads what that file uses of the language: messages and enums within messages, `oneof`, `map`, `repeated`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const HEAD: &str = "//! The messages of the Container Storage Interface, and its calls. Written by `cargo xtask codegen-csi`; not to be edited.\n\n";

/// The calls that are made.
const CALLS: &[&str] = &[
    "GetPluginInfo",
    "GetPluginCapabilities",
    "Probe",
    "CreateVolume",
    "DeleteVolume",
    "ControllerPublishVolume",
    "ControllerUnpublishVolume",
    "ControllerGetCapabilities",
    "ControllerExpandVolume",
    "NodeStageVolume",
    "NodeUnstageVolume",
    "NodePublishVolume",
    "NodeUnpublishVolume",
    "NodeGetVolumeStats",
    "NodeExpandVolume",
    "NodeGetCapabilities",
    "NodeGetInfo",
];

#[derive(Debug, Default)]
struct Message {
    name: String,
    fields: Vec<Field>,
    /// Name of the union, and its members.
    unions: Vec<(String, Vec<Field>)>,
    messages: Vec<Message>,
    enums: Vec<(String, Vec<(String, i32)>)>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    kind: Kind,
    repeated: bool,
    number: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    /// `map<string, string>`.
    Map,
    Named(String),
}

#[derive(Debug)]
struct Call {
    service: String,
    name: String,
    request: String,
    response: String,
}

pub(crate) fn run(proto: &Path, root: &Path) -> Result<()> {
    let source = fs::read_to_string(proto).with_context(|| proto.display().to_string())?;
    let mut words = words(&source).into_iter().peekable();
    let (mut messages, mut calls) = (BTreeMap::new(), Vec::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "message" => {
                let message = message(&mut words)?;
                messages.insert(message.name.clone(), message);
            }
            "service" => service(&mut words, &mut calls)?,
            "{" => skip_block(&mut words),
            _ => {}
        }
    }
    let file = root.join("crates/csi/src/messages.rs");
    fs::write(&file, text(&messages, &calls)?).with_context(|| file.display().to_string())
}

type Words = std::iter::Peekable<std::vec::IntoIter<String>>;

/// Names, numbers and signs; comments and options in brackets are left out.
fn words(source: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut in_option = false;
    for line in source.lines() {
        let line = line.split("//").next().unwrap_or_default();
        let mut word = String::new();
        for sign in line.chars().chain([' ']) {
            if sign.is_alphanumeric() || sign == '_' || sign == '.' {
                word.push(sign);
                continue;
            }
            let whole = std::mem::take(&mut word);
            if !whole.is_empty() && !in_option {
                words.push(whole);
            }
            in_option &= sign != ']';
            in_option |= sign == '[';
            if !in_option && "{}()<>,;=".contains(sign) {
                words.push(sign.to_string());
            }
        }
    }
    words
}

fn next(words: &mut Words) -> Result<String> {
    words.next().context("the file ends too early")
}

fn expect(words: &mut Words, wanted: &str) -> Result<()> {
    let found = next(words)?;
    if found == wanted { Ok(()) } else { bail!("{wanted:?} expected, {found:?} found") }
}

fn skip_block(words: &mut Words) {
    let mut depth = 1;
    while depth > 0 {
        match words.next().as_deref() {
            Some("{") => depth += 1,
            Some("}") => depth -= 1,
            Some(_) => {}
            None => return,
        }
    }
}

fn service(words: &mut Words, calls: &mut Vec<Call>) -> Result<()> {
    let service = next(words)?;
    expect(words, "{")?;
    loop {
        match next(words)?.as_str() {
            "}" => return Ok(()),
            "rpc" => {
                let name = next(words)?;
                expect(words, "(")?;
                let request = next(words)?;
                expect(words, ")")?;
                expect(words, "returns")?;
                expect(words, "(")?;
                let response = next(words)?;
                calls.push(Call { service: service.clone(), name, request, response });
            }
            "{" => skip_block(words),
            _ => {}
        }
    }
}

fn message(words: &mut Words) -> Result<Message> {
    let mut message = Message { name: next(words)?, ..Message::default() };
    expect(words, "{")?;
    loop {
        match next(words)?.as_str() {
            "}" => return Ok(message),
            ";" => {}
            "option" | "reserved" => while next(words)? != ";" {},
            "message" => message.messages.push(self::message(words)?),
            "enum" => message.enums.push(enumeration(words)?),
            "oneof" => {
                let name = next(words)?;
                expect(words, "{")?;
                let mut members = Vec::new();
                loop {
                    match next(words)?.as_str() {
                        "}" => break,
                        ";" => {}
                        first => members.push(field(first, words)?),
                    }
                }
                message.unions.push((name, members));
            }
            first => message.fields.push(field(first, words)?),
        }
    }
}

fn enumeration(words: &mut Words) -> Result<(String, Vec<(String, i32)>)> {
    let name = next(words)?;
    expect(words, "{")?;
    let mut values = Vec::new();
    loop {
        match next(words)?.as_str() {
            "}" => return Ok((name, values)),
            ";" => {}
            value => {
                expect(words, "=")?;
                values.push((value.to_owned(), next(words)?.parse()?));
            }
        }
    }
}

fn field(first: &str, words: &mut Words) -> Result<Field> {
    let repeated = first == "repeated";
    let kind = if repeated { next(words)? } else { first.to_owned() };
    let kind = if kind == "map" {
        for wanted in ["<", "string", ",", "string", ">"] {
            expect(words, wanted)?;
        }
        Kind::Map
    } else {
        Kind::Named(kind.trim_start_matches('.').to_owned())
    };
    let name = next(words)?;
    expect(words, "=")?;
    Ok(Field { name, kind, repeated, number: next(words)?.parse()? })
}

fn text(messages: &BTreeMap<String, Message>, calls: &[Call]) -> Result<String> {
    let calls: Vec<&Call> = calls.iter().filter(|call| CALLS.contains(&call.name.as_str())).collect();
    let mut wanted = BTreeSet::new();
    for call in &calls {
        collect(messages, &call.request, &mut wanted);
        collect(messages, &call.response, &mut wanted);
    }
    let mut out = HEAD.to_owned();
    out.push_str("use std::collections::BTreeMap;\n\nuse crate::Rpc;\n\n");
    for name in &wanted {
        write_message(&mut out, &messages[name], &[], 0)?;
    }
    for call in calls {
        writeln!(
            out,
            "impl Rpc for {} {{\n    const PATH: &'static str = \"/csi.v1.{}/{}\";\n    type Response = {};\n}}\n",
            call.request, call.service, call.name, call.response
        )?;
    }
    Ok(out)
}

/// The message and those that it is made of.
fn collect(messages: &BTreeMap<String, Message>, name: &str, wanted: &mut BTreeSet<String>) {
    fn used(message: &Message) -> Vec<&Field> {
        let own = message.fields.iter().chain(message.unions.iter().flat_map(|(_, members)| members));
        own.chain(message.messages.iter().flat_map(used)).collect()
    }
    let Some(message) = messages.get(name).filter(|_| wanted.insert(name.to_owned())) else { return };
    for field in used(message) {
        if let Kind::Named(kind) = &field.kind {
            collect(messages, kind, wanted);
        }
    }
}

/// `outer` are the messages around this one.
fn write_message(out: &mut String, message: &Message, outer: &[&Message], depth: usize) -> Result<()> {
    let pad = "    ".repeat(depth);
    let copy = if is_plain(message) { "Copy, " } else { "" };
    writeln!(out, "{pad}#[derive(Clone, {copy}PartialEq, prost::Message)]\n{pad}pub struct {} {{", message.name)?;
    let scope: Vec<&Message> = outer.iter().copied().chain([message]).collect();
    for field in &message.fields {
        let (attribute, kind) = typed(field, &scope, depth);
        writeln!(out, "{pad}    #[prost({attribute}, tag = \"{}\")]", field.number)?;
        writeln!(out, "{pad}    pub {}: {kind},", raw(&field.name))?;
    }
    for (name, members) in &message.unions {
        let tags: Vec<String> = members.iter().map(|member| member.number.to_string()).collect();
        let path = format!("{}::{}", snake(&message.name), camel(name));
        writeln!(out, "{pad}    #[prost(oneof = \"{path}\", tags = \"{}\")]", tags.join(", "))?;
        writeln!(out, "{pad}    pub {}: Option<{path}>,", raw(name))?;
    }
    writeln!(out, "{pad}}}\n")?;
    if message.messages.is_empty() && message.enums.is_empty() && message.unions.is_empty() {
        return Ok(());
    }
    writeln!(out, "{pad}pub mod {} {{", snake(&message.name))?;
    for inner in &message.messages {
        write_message(out, inner, &scope, depth + 1)?;
    }
    for (name, values) in &message.enums {
        write_enum(out, name, values, depth + 1)?;
    }
    for (name, members) in &message.unions {
        let copy = if is_plain(message) { "Copy, " } else { "" };
        writeln!(
            out,
            "{pad}    #[derive(Clone, {copy}PartialEq, prost::Oneof)]\n{pad}    pub enum {} {{",
            camel(name)
        )?;
        for member in members {
            let (attribute, kind) = typed(member, &scope, depth + 1);
            let kind = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(&kind);
            let attribute = attribute.trim_end_matches(", optional");
            writeln!(out, "{pad}        #[prost({attribute}, tag = \"{}\")]", member.number)?;
            writeln!(out, "{pad}        {}({kind}),", camel(&member.name))?;
        }
        writeln!(out, "{pad}    }}")?;
    }
    writeln!(out, "{pad}}}\n")?;
    Ok(())
}

fn write_enum(out: &mut String, name: &str, values: &[(String, i32)], depth: usize) -> Result<()> {
    let pad = "    ".repeat(depth);
    writeln!(out, "{pad}#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]")?;
    writeln!(out, "{pad}#[repr(i32)]\n{pad}pub enum {name} {{")?;
    for (value, number) in values {
        writeln!(out, "{pad}    {} = {number},", camel(&value.to_lowercase()))?;
    }
    writeln!(out, "{pad}}}\n")?;
    Ok(())
}

/// What prost has to know of a field, and its Rust type, as seen `depth` modules down.
fn typed(field: &Field, scope: &[&Message], depth: usize) -> (String, String) {
    let Kind::Named(kind) = &field.kind else {
        return ("btree_map = \"string, string\"".to_owned(), map_path(depth));
    };
    let scalar = match kind.as_str() {
        "string" => Some(("string", "String")),
        "bool" => Some(("bool", "bool")),
        "int64" => Some(("int64", "i64")),
        "int32" => Some(("int32", "i32")),
        "google.protobuf.BoolValue" => return ("message, optional".to_owned(), "Option<bool>".to_owned()),
        _ => None,
    };
    if let Some((attribute, rust)) = scalar {
        return match field.repeated {
            true => (format!("{attribute}, repeated"), format!("Vec<{rust}>")),
            false => (attribute.to_owned(), rust.to_owned()),
        };
    }
    let (path, is_enum) = resolve(kind, scope, depth);
    match (is_enum, field.repeated) {
        (true, _) => (format!("enumeration = \"{path}\""), "i32".to_owned()),
        (false, true) => ("message, repeated".to_owned(), format!("Vec<{path}>")),
        (false, false) => ("message, optional".to_owned(), format!("Option<{path}>")),
    }
}

fn map_path(depth: usize) -> String {
    format!("{}BTreeMap<String, String>", "super::".repeat(depth))
}

/// The path to a type from a message that lies `depth` modules down in the messages of `scope`.
fn resolve(kind: &str, scope: &[&Message], depth: usize) -> (String, bool) {
    for (level, message) in scope.iter().enumerate().rev() {
        let is_enum = message.enums.iter().any(|(name, _)| name == kind);
        if is_enum || message.messages.iter().any(|inner| inner.name == kind) {
            // The members of the message on this level lie in a module `level + 1` down.
            let path = match (level + 1).checked_sub(depth) {
                Some(0) => kind.to_owned(),
                Some(_) => format!("{}::{kind}", snake(&message.name)),
                None => format!("{}{kind}", "super::".repeat(depth - level - 1)),
            };
            return (path, is_enum);
        }
    }
    (format!("{}{kind}", "super::".repeat(depth)), false)
}

fn raw(name: &str) -> String {
    if name == "type" { format!("r#{name}") } else { name.to_owned() }
}

fn camel(name: &str) -> String {
    name.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, sign) in name.char_indices() {
        let after_lower = at > 0 && name[..at].ends_with(|before: char| before.is_lowercase());
        if sign.is_uppercase() && after_lower {
            out.push('_');
        }
        out.extend(sign.to_lowercase());
    }
    out
}

/// Whether nothing in the message lies outside of it.
fn is_plain(message: &Message) -> bool {
    let small = |field: &Field| match &field.kind {
        Kind::Map => false,
        Kind::Named(kind) => {
            let own = message.enums.iter().any(|(name, _)| name == kind);
            !field.repeated && (own || matches!(kind.as_str(), "bool" | "int32" | "int64"))
        }
    };
    let inner = |field: &Field| matches!(&field.kind, Kind::Named(kind) if message.messages.iter().any(|one| one.name == *kind && is_plain(one)));
    message.fields.iter().all(small) && message.unions.iter().flat_map(|(_, members)| members).all(inner)
}
