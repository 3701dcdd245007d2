//! Objects from files, directories, URLs, kustomizations and standard input.
//!
//! Source of the rules and texts: `k8s.io/cli-runtime/pkg/resource` (visitor).

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize as _;
use serde_json::Value;

use crate::failure::{Failure, Result, plain, system};
use crate::kustomize;

/// How much one file or standard input may hold.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// How deep `-R` goes.
const DEPTH_MAX: usize = 32;

/// How often a URL is asked for whose server fails, and how long is waited between.
const URL_TRIES: usize = 3;
const URL_PAUSE: Duration = Duration::from_secs(1);

/// Which files a command reads.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Files {
    /// Files, directories or URLs with manifests; `-` is standard input.
    #[arg(short = 'f', long, value_delimiter = ',')]
    pub(crate) filename: Vec<PathBuf>,
    /// A directory with a kustomization.
    #[arg(short = 'k', long)]
    pub(crate) kustomize: Option<String>,
    /// Process directories with all their sub-directories.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

impl Files {
    /// Whether nothing is to be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.filename.is_empty() && self.kustomize.is_none()
    }

    /// Refuses flags that do not go together.
    pub(crate) fn check(&self) -> Result {
        if self.kustomize.is_some() && !self.filename.is_empty() {
            return plain("only one of -f or -k can be specified");
        }
        if self.kustomize.is_some() && self.recursive {
            return plain("the -k flag can't be used with -f or -R");
        }
        Ok(())
    }

    /// The same for a command that has nothing else to work on.
    pub(crate) fn required(&self) -> Result {
        if self.is_empty() {
            return plain("must specify one of -f and -k");
        }
        self.check()
    }
}

/// An object of a manifest, and the file that holds it.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) object: Value,
    pub(crate) source: String,
}

/// Reads everything that the flags name, in order; lists are taken apart.
pub(crate) async fn load(files: &Files) -> Result<Vec<Loaded>> {
    read(files, false).await
}

/// The same for commands whose objects are validated, as the flag `--validate` says: what is no object is told in other words.
pub(crate) async fn load_to_validate(files: &Files, validate: &str) -> Result<Vec<Loaded>> {
    read(files, validate != "Ignore").await
}

async fn read(files: &Files, validates: bool) -> Result<Vec<Loaded>> {
    let parse = |text: &[u8], source: &str| parse_as(text, Reading { source, shown: source, validates });
    files.check()?;
    let mut loaded = Vec::new();
    if let Some(directory) = &files.kustomize {
        let built = kustomize::build(&kustomize::Disk, directory, true)?;
        built.warnings.iter().for_each(|warning| eprintln!("{warning}"));
        let of_directory = |object| Loaded { object, source: directory.clone() };
        loaded.extend(built.objects.into_iter().map(of_directory));
    }
    for path in &files.filename {
        let named = path.display().to_string();
        if named == "-" {
            let mut text = Vec::new();
            let _ = std::io::stdin().lock().take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
            loaded.extend(parse(&text, "STDIN")?);
        } else if is_url(&named) {
            loaded.extend(parse(&fetch(&named).await?, &named)?);
        } else {
            for file in expand(path, files.recursive)? {
                let text = std::fs::read(&file)
                    .map_err(|error| Failure::Plain(format!("open {}: {}", file.display(), system(&error))))?;
                let source = file.display().to_string();
                loaded.extend(parse(&text, &source)?);
            }
        }
    }
    Ok(loaded)
}

/// The one file that is sent as it is.
pub(crate) fn raw(files: &Files) -> Result<Vec<u8>> {
    let [path] = &files.filename[..] else { return plain("--raw can only use a single local file or stdin") };
    if path.to_str().is_some_and(is_url) {
        return plain("--raw cannot read from a url");
    }
    if files.recursive {
        return plain("--raw and --recursive are mutually exclusive");
    }
    if path.as_os_str() == "-" {
        let mut text = Vec::new();
        let _ = std::io::stdin().lock().take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
        return Ok(text);
    }
    std::fs::read(path).map_err(|error| Failure::Plain(format!("open {}: {}", path.display(), system(&error))))
}

/// Whether a file is one of another machine.
pub(crate) fn is_url(file: &str) -> bool {
    file.starts_with("http://") || file.starts_with("https://")
}

/// Reads a URL; a server that fails is asked again.
async fn fetch(url: &str) -> Result<Vec<u8>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let (failure, final_one) = match stead_client::fetch(url, MANIFEST_BYTES_MAX).await {
            Ok(answer) if answer.code == 200 => return Ok(answer.body),
            Ok(answer) => {
                let text = format!(
                    "unable to read URL {url:?}, server reported {} {}, status code={}",
                    answer.code, answer.reason, answer.code
                );
                (text, answer.code < 500)
            }
            Err(stead_client::FetchError::Refused(host)) => {
                return Err(Failure::Bare(format!(
                    "The connection to the server {host} was refused - did you specify the right host or port?"
                )));
            }
            Err(error) => return Err(Failure::Bare(format!("Unable to connect to the server: {error}"))),
        };
        if final_one || tries == URL_TRIES {
            return plain(failure);
        }
        tokio::time::sleep(URL_PAUSE).await;
    }
}

/// The manifests of a path: itself, or those of a directory in order of their names.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return plain(format!("the path {:?} does not exist", path.display().to_string()));
    };
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    walk(path, if recursive { DEPTH_MAX } else { 1 }, &mut found)?;
    if found.is_empty() {
        return plain(format!("error reading [{}]: recognized file extensions are [.json .yaml .yml]", path.display()));
    }
    Ok(found)
}

fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result {
    if depth == 0 {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            walk(&entry, depth - 1, found)?;
        } else if entry.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml") {
            found.push(entry);
        }
    }
    Ok(())
}

/// What is read: where it comes from, and how that is shown.
#[derive(Clone, Copy)]
struct Reading<'a> {
    source: &'a str,
    shown: &'a str,
    validates: bool,
}

/// The objects of a text: YAML documents, or JSON values one after the other.
pub(crate) fn parse(text: &[u8], source: &str, shown: &str) -> Result<Vec<Loaded>> {
    parse_as(text, Reading { source, shown, validates: false })
}

fn parse_as(text: &[u8], reading: Reading<'_>) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    let text = String::from_utf8_lossy(text);
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        for value in serde_json::Deserializer::from_str(trimmed).into_iter::<Value>() {
            match value {
                Ok(value) => take(value, reading, &mut loaded)?,
                Err(error) if error.is_eof() => {
                    return plain(format!("error parsing {}: unexpected EOF", reading.shown));
                }
                // A flow mapping of YAML begins like JSON does.
                Err(_) => return yaml(&text, reading),
            }
        }
        return Ok(loaded);
    }
    yaml(&text, reading)
}

fn yaml(text: &str, reading: Reading<'_>) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => take(value, reading, &mut loaded)?,
            Err(error) => {
                let why = yaml_error(&error.to_string());
                return plain(format!("error parsing {}: error converting YAML to JSON: yaml: {why}", reading.shown));
            }
        }
    }
    Ok(loaded)
}

/// An error of the YAML parser as `gopkg.in/yaml` words it: `line 5: WHY`. It counts the lines of the scanner from 1 and those of
/// the parser from 0, and leaves out the first.
fn yaml_error(error: &str) -> String {
    let (why, place) = error.split_once(" at line ").unwrap_or((error, ""));
    let number = |place: &str| place.split(' ').next().and_then(|line| line.parse::<usize>().ok());
    let (context, parses) = (place.split_once(" at line ").map(|(_, place)| place), place.contains(", while parsing"));
    let line = |place: &str| number(place).map(|line| if parses { line - line.min(1) } else { line });
    let first = context.and_then(line).filter(|line| *line > 0).or_else(|| line(place)).filter(|line| *line > 0);
    first.map_or_else(|| why.to_owned(), |line| format!("line {line}: {why}"))
}

fn take(value: Value, reading: Reading<'_>, loaded: &mut Vec<Loaded>) -> Result {
    if value.is_null() {
        return Ok(());
    }
    let missing = |field: &str| value[field].as_str().unwrap_or_default().is_empty();
    let source = reading.source;
    let fields: Vec<&str> = ["apiVersion", "kind"].into_iter().filter(|field| missing(field)).collect();
    if !fields.is_empty() && reading.validates {
        let why: Vec<String> = fields.iter().map(|field| format!("{field} not set")).collect();
        let why = if why.len() == 1 { why.concat() } else { format!("[{}]", why.join(", ")) };
        return plain(format!(
            "error validating {source:?}: error validating data: {why}; if you choose to ignore these errors, turn validation off with --validate=false"
        ));
    }
    if let Some(field) = fields.last() {
        let field = if *field == "kind" { "Kind" } else { field };
        return plain(format!("unable to decode {source:?}: Object '{field}' is missing in '{value}'"));
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    match &value["items"] {
        Value::Array(items) if kind.ends_with("List") => {
            for item in items {
                let mut item = item.clone();
                if item["kind"].is_null() && kind != "List" {
                    item["kind"] = kind.trim_end_matches("List").into();
                    item["apiVersion"] = value["apiVersion"].clone();
                }
                take(item, reading, loaded)?;
            }
        }
        _ => loaded.push(Loaded { object: value, source: source.to_owned() }),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let loaded = parse(text.as_bytes(), "x.yaml", "x.yaml").expect("parses");
        loaded.iter().map(|l| l.object["metadata"]["name"].as_str().unwrap_or("?").to_owned()).collect()
    }

    #[test]
    fn every_form_of_several_objects_is_taken_apart() {
        let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
        assert_eq!(names(&format!("---\n{}---\n{}---\n", pod("a"), pod("b"))), ["a", "b"]);
        assert_eq!(
            names(
                "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}} {\"apiVersion\":\"v1\",\"kind\":\"Pod\"}"
            ),
            ["a", "?"]
        );
        let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        assert_eq!(names(list), ["a", "b"]);
        let typed = "apiVersion: v1\nkind: PodList\nitems:\n- {metadata: {name: a}}\n";
        assert_eq!(names(typed), ["a"]);
    }

    #[test]
    fn errors_of_yaml_are_those_of_upstreams_parser() {
        for (text, wanted) in [
            ("a:\n  b: c\n  d: e: f\n", "line 3: mapping values are not allowed in this context"),
            ("a:\n\tc: d\n", "line 2: found character that cannot start any token"),
        ] {
            let error = parse(text.as_bytes(), "x.yaml", "x.yaml").expect_err("refused").message();
            let why = error.rsplit("yaml: ").next().unwrap_or_default();
            assert_eq!(why, wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, wanted) in [
            ("a: b: c\n", "error parsing x.yaml: error converting YAML to JSON: yaml: "),
            ("metadata: {}\n", "Object 'Kind' is missing"),
            ("{\"a\":", "error parsing x.yaml: unexpected EOF"),
        ] {
            let error = parse(text.as_bytes(), "x.yaml", "x.yaml").expect_err("refused").message();
            assert!(error.contains(wanted), "{error}");
        }
        let validated = |text: &str| {
            let reading = Reading { source: "x.yaml", shown: "x.yaml", validates: true };
            parse_as(text.as_bytes(), reading).expect_err("refused").message()
        };
        for (text, wanted) in [
            ("apiVersion: v1\n", "data: kind not set; if"),
            ("kind: Pod\n", "data: apiVersion not set; if"),
            ("a: b\n", "data: [apiVersion not set, kind not set]; if"),
        ] {
            assert!(validated(text).contains(wanted), "{}", validated(text));
        }
    }
}
