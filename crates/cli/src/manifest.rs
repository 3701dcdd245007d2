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
            loaded.extend(parse(&text, "STDIN", "STDIN")?);
        } else if is_url(&named) {
            loaded.extend(parse(&fetch(&named).await?, &named, &named)?);
        } else {
            for file in expand(path, files.recursive)? {
                let text = std::fs::read(&file)
                    .map_err(|error| Failure::Plain(format!("open {}: {}", file.display(), system(&error))))?;
                let source = file.display().to_string();
                loaded.extend(parse(&text, &source, &source)?);
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

/// The objects of a text: YAML documents, or JSON values one after the other.
pub(crate) fn parse(text: &[u8], source: &str, shown: &str) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    let text = String::from_utf8_lossy(text);
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        for value in serde_json::Deserializer::from_str(trimmed).into_iter::<Value>() {
            match value {
                Ok(value) => take(value, source, &mut loaded)?,
                Err(error) if error.is_eof() => return plain(format!("error parsing {shown}: unexpected EOF")),
                // A flow mapping of YAML begins like JSON does.
                Err(_) => return yaml(&text, source, shown),
            }
        }
        return Ok(loaded);
    }
    yaml(&text, source, shown)
}

fn yaml(text: &str, source: &str, shown: &str) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for document in serde_norway::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => take(value, source, &mut loaded)?,
            Err(error) => return plain(format!("error parsing {shown}: error converting YAML to JSON: yaml: {error}")),
        }
    }
    Ok(loaded)
}

fn take(value: Value, source: &str, loaded: &mut Vec<Loaded>) -> Result {
    if value.is_null() {
        return Ok(());
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if kind.is_empty() {
        return plain(format!("unable to decode {source:?}: Object 'Kind' is missing in '{value}'"));
    }
    if value["apiVersion"].as_str().unwrap_or_default().is_empty() {
        return plain(format!("unable to decode {source:?}: Object 'apiVersion' is missing in '{value}'"));
    }
    match &value["items"] {
        Value::Array(items) if kind.ends_with("List") => {
            for item in items {
                let mut item = item.clone();
                if item["kind"].is_null() && kind != "List" {
                    item["kind"] = kind.trim_end_matches("List").into();
                    item["apiVersion"] = value["apiVersion"].clone();
                }
                take(item, source, loaded)?;
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
    fn what_is_no_object_is_refused() {
        for (text, wanted) in [
            ("a: b: c\n", "error parsing x.yaml: error converting YAML to JSON: yaml: "),
            ("metadata: {}\n", "Object 'Kind' is missing"),
            ("{\"a\":", "error parsing x.yaml: unexpected EOF"),
        ] {
            let error = parse(text.as_bytes(), "x.yaml", "x.yaml").expect_err("refused").message();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
