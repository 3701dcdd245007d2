//! ConfigMaps and Secrets from literals and files, and the hash of their content that their names end with.
//!
//! Source of the rules and texts: `sigs.k8s.io/kustomize/api/internal/generators`, `api/kv`, `api/hasher`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::file::{Generator, Options};
use super::resource::{Behavior, Resource};
use crate::failure::{Failure, Result, plain};
use crate::print::compact;

/// How many characters of a hash a name ends with.
const HASH_LENGTH: usize = 10;
/// Characters per line of a long Secret's data.
const BASE64_LINE: usize = 70;

/// How a file is read that a source names.
type Read<'r> = &'r dyn Fn(&str) -> Result<Vec<u8>>;

/// A ConfigMap.
pub(super) fn config_map(generator: &Generator, shared: &Options, read: Read<'_>) -> Result<Resource> {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let (mut text, mut binary) = (Map::new(), Map::new());
    for (key, value) in data(generator, read)? {
        match String::from_utf8(value) {
            Ok(value) => text.insert(key, value.into()),
            Err(error) => binary.insert(key, broken_base64(error.as_bytes()).into()),
        };
    }
    for (field, entries) in [("data", text), ("binaryData", binary)] {
        if !entries.is_empty() {
            map[field] = entries.into();
        }
    }
    finish(map, generator, shared)
}

/// A Secret.
pub(super) fn secret(generator: &Generator, shared: &Options, read: Read<'_>) -> Result<Resource> {
    let kind = if generator.kind.is_empty() { "Opaque" } else { &generator.kind };
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": kind});
    let entries: Map<String, Value> =
        data(generator, read)?.into_iter().map(|(key, value)| (key, broken_base64(&value).into())).collect();
    if !entries.is_empty() {
        secret["data"] = entries.into();
    }
    finish(secret, generator, shared)
}

/// Base64, in lines when it is long.
fn broken_base64(bytes: &[u8]) -> String {
    let encoded = STANDARD.encode(bytes);
    if encoded.len() < BASE64_LINE {
        return encoded;
    }
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / BASE64_LINE + 1);
    for (at, c) in encoded.chars().enumerate() {
        if at > 0 && at % BASE64_LINE == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines + "\n"
}

/// Adds name, labels and what else the options say.
fn finish(mut object: Value, generator: &Generator, shared: &Options) -> Result<Resource> {
    if generator.name.is_empty() {
        return plain("a configmap must have a name");
    }
    object["metadata"] = json!({"name": generator.name});
    if !generator.namespace.is_empty() {
        object["metadata"]["namespace"] = generator.namespace.as_str().into();
    }
    let own = &generator.options;
    for (field, shared, own) in
        [("labels", &shared.labels, &own.labels), ("annotations", &shared.annotations, &own.annotations)]
    {
        let mut all = shared.clone();
        all.extend(own.clone());
        if !all.is_empty() {
            object["metadata"][field] = json!(all);
        }
    }
    if own.immutable || shared.immutable {
        object["immutable"] = true.into();
    }
    Ok(Resource {
        behavior: Behavior::parse(&generator.behavior),
        hashed: !(own.disable_name_suffix_hash || shared.disable_name_suffix_hash),
        ..Resource::new(object)
    })
}

/// Keys and values of all sources: environment files, literals, files.
fn data(generator: &Generator, read: Read<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for path in &generator.envs {
        let lines = read(path).and_then(|content| environment(&content));
        all.extend(lines.map_err(|failure| during("env source files", &generator.envs, &failure))?);
    }
    for literal in &generator.literals {
        let pair =
            self::literal(literal).map_err(|failure| during("literal sources", &generator.literals, &failure))?;
        all.push(pair);
    }
    for source in &generator.files {
        let entry = source_of(source).and_then(|(key, path)| Ok((key, read(path)?)));
        all.push(entry.map_err(|failure| during("file sources", &generator.files, &failure))?);
    }
    for (at, (key, _)) in all.iter().enumerate() {
        check_key(key)?;
        if all[..at].iter().any(|(before, _)| before == key) {
            return plain(format!("configmap {} illegally repeats the key `{key}`", generator.name));
        }
    }
    Ok(all)
}

fn during(what: &str, sources: &[String], failure: &Failure) -> Failure {
    // Upstream has no colon behind the literals alone.
    let colon = if what.starts_with("literal") { "" } else { ":" };
    Failure::Plain(format!("loading KV pairs: {what}{colon} [{}]: {}", sources.join(" "), failure.message()))
}

fn check_key(key: &str) -> Result {
    if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(());
    }
    plain(format!(
        "{key:?} is not a valid key name: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    ))
}

/// `KEY=VALUE`, the value perhaps in quotes.
fn literal(source: &str) -> Result<(String, Vec<u8>)> {
    let Some((key, value)) = source.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return plain(format!("invalid literal source {source}, expected key=value"));
    };
    let unquoted = |quote: char| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    let value = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(value);
    Ok((key.to_owned(), value.as_bytes().to_vec()))
}

/// `FILE` or `KEY=FILE`.
fn source_of(source: &str) -> Result<(String, &str)> {
    let Some((key, path)) = source.split_once('=') else {
        let name = source.rsplit('/').next().unwrap_or(source);
        return Ok((name.to_owned(), source));
    };
    match (key, path) {
        (_, path) if path.contains('=') => plain(format!("source {source:?} key name or file path contains '='")),
        ("", path) => plain(format!("missing key name for file path {path:?} in source {source:?}")),
        (key, "") => plain(format!("missing file path for key name {key:?} in source {source:?}")),
        (key, path) => Ok((key.to_owned(), path)),
    }
}

/// The lines of an environment file.
fn environment(content: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let Ok(text) = std::str::from_utf8(content) else { return plain("the file is not valid UTF-8") };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        (key.to_owned(), value.as_bytes().to_vec())
    };
    Ok(lines.map(pair).collect())
}

/// The end of the name of an object with this content.
pub(super) fn hash(object: &Value) -> String {
    let or_empty =
        |field: &str| object.get(field).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| "".into());
    // Upstream means to hash the name too, and looks for it in the wrong place: names can be changed without changing the hash.
    let mut hashed = json!({"kind": object["kind"], "name": "", "data": or_empty("data")});
    if object["kind"] == "Secret" {
        hashed["type"] = or_empty("type");
    }
    for field in ["binaryData", "stringData"] {
        if object[field].is_object() {
            hashed[field] = object[field].clone();
        }
    }
    let digest = Sha256::digest(compact(&hashed));
    let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hexadecimal.chars().take(HASH_LENGTH).map(readable).collect()
}

/// No digits and letters that make words or are taken for each other.
fn readable(c: char) -> char {
    match c {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    }
}
