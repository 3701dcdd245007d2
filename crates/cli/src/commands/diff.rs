//! `diff`: what an apply would change, told by `diff`.
//!
//! Exit code 0: nothing differs; 1: something does; more: it could not be found out.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/diff`.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::common::is_empty;
use super::prune::{self, Seen};
use crate::apply::{last_applied, patch_to, without_annotation};
use crate::builder::{self, Target};
use crate::failure::{Failure, Result, plain, usage};
use crate::manifest::{self, Files};
use crate::print::{at, without_managed_fields, yaml};
use crate::server::Call;
use crate::session::Session;
use crate::unified::unified;

/// Exit code of a failure.
pub(crate) const FAILED: u8 = 2;
/// Exit code when something differs.
const DIFFERS: u8 = 1;
/// What stands for a Secret's data.
const MASK: &str = "***";

/// What to compare, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[arg(hide = true)]
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector: which objects of the files.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// As a server-side apply would do it.
    #[arg(long)]
    server_side: bool,
    /// Take fields over that others own.
    #[arg(long)]
    force_conflicts: bool,
    #[arg(long)]
    field_manager: Option<String>,
    /// Compare managedFields too.
    #[arg(long)]
    show_managed_fields: bool,
    /// Show the data of Secrets.
    #[arg(long)]
    show_secrets: bool,
    /// Show what `apply --prune` would delete, too.
    #[arg(long)]
    prune: bool,
    /// GROUP/VERSION/KIND that is pruned (default: the usual ones).
    #[arg(long)]
    prune_allowlist: Vec<String>,
    /// Objects at a time; they are compared one after the other.
    #[arg(long, hide = true)]
    concurrency: Option<usize>,
}

/// Compares all; any failure has an exit code of its own.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match compare(session, &flags).await {
        Err(failure @ (Failure::Code(_) | Failure::Closed)) => Err(failure),
        Err(failure) => {
            session.err(&failure.text());
            Err(Failure::Code(FAILED))
        }
        Ok(()) => Ok(()),
    }
}

async fn compare(session: &Session, flags: &Flags) -> Result {
    if !flags.words.is_empty() {
        return usage("diff", &format!("Unexpected args: [{}]", flags.words.join(" ")));
    }
    flags.files.required()?;
    if flags.force_conflicts && !flags.server_side {
        return plain("--force-conflicts only works with --server-side");
    }
    let selector = flags.selector.clone().unwrap_or_default();
    let wanted = stead_machinery::selector::Selector::parse(&selector).map_err(Failure::Plain)?;
    let allowed = if flags.prune { prune::allowed(session, &flags.prune_allowlist).await? } else { Vec::new() };
    let (live, merged) = (Directory::new("LIVE")?, Directory::new("MERGED")?);
    let mut seen = Seen::default();
    let loaded = manifest::load(&flags.files).await?;
    for loaded in loaded.into_iter().filter(|loaded| wanted.matches_labels(&loaded.object["metadata"]["labels"])) {
        let target = builder::of_manifest(session, loaded).await?;
        let now = present(session, &target).await?;
        seen.note(&target, &now);
        let then = future(session, flags, &target, &now).await?;
        if !now["metadata"]["deletionTimestamp"].is_null() {
            let name = target.name.as_deref().unwrap_or_default();
            session.err(&format!("Warning: Detected changes to resource {name} which is currently being deleted.\n"));
        }
        let name = file_name(&target.resource.group, &then);
        let (now, then) = shown(flags, now, then);
        if !now.is_empty() {
            live.write(&name, &now)?;
        }
        merged.write(&name, &then)?;
    }
    if flags.prune {
        for found in prune::find(session, allowed, &seen, &selector).await? {
            let name = file_name(&found.resource.group, &found.object);
            live.write(&name, &yaml(&found.object))?;
        }
    }
    told(session, &live.0, &merged.0)
}

/// The object as the server has it; null when it has none.
async fn present(session: &Session, target: &Target) -> Result<Value> {
    if target.name.is_none() {
        return Ok(Value::Null);
    }
    match session.server().await?.get(&target.path()).await {
        Err(failure) if failure.is_not_found() => Ok(Value::Null),
        answer => answer,
    }
}

/// The object as the server would have it.
async fn future(session: &Session, flags: &Flags, target: &Target, now: &Value) -> Result<Value> {
    let manifest = target.object.clone().unwrap_or_default();
    let manager = flags.field_manager.as_deref();
    let manager = manager.unwrap_or(if flags.server_side { "kubectl" } else { "kubectl-client-side-apply" });
    let mut query = vec![("dryRun", "All".to_owned()), ("fieldManager", manager.to_owned())];
    let server = session.server().await?;
    let path = target.path();
    if flags.server_side {
        query.push(("force", flags.force_conflicts.to_string()));
        let media = "application/apply-patch+yaml";
        let call = Call::new(Method::PATCH, &path).query(query).body(media, manifest.to_string().into_bytes());
        return server.send(call).await;
    }
    if now.is_null() {
        let path = target.resource.path(target.namespace.as_deref());
        let body = manifest.to_string().into_bytes();
        return server.send(Call::new(Method::POST, &path).query(query).body("application/json", body)).await;
    }
    let original = last_applied(now).unwrap_or_default();
    let (patch, media) = patch_to(&target.resource, now, &original, &without_annotation(&manifest))?;
    if is_empty(&patch) {
        return Ok(now.clone());
    }
    server.send(Call::new(Method::PATCH, &path).query(query).body(media, patch.to_string().into_bytes())).await
}

/// `apps.v1.StatefulSet.default.web`
fn file_name(group: &str, object: &Value) -> String {
    let version = at(object, "/apiVersion").rsplit('/').next().unwrap_or_default();
    let group = if group.is_empty() { String::new() } else { format!("{group}.") };
    let (kind, namespace, name) =
        (at(object, "/kind"), at(object, "/metadata/namespace"), at(object, "/metadata/name"));
    format!("{group}{version}.{kind}.{namespace}.{name}")
}

/// Both as text; an object that is not there is no text.
fn shown(flags: &Flags, mut now: Value, mut then: Value) -> (String, String) {
    let secret = then["kind"] == "Secret" && then["apiVersion"] == "v1" && !flags.show_secrets;
    if !flags.show_managed_fields {
        (now, then) = (without_managed_fields(now), without_managed_fields(then));
    }
    if secret {
        mask(&mut now, &mut then);
    }
    // Upstream prints the absence of a masked Secret.
    let absent = if secret { "null\n" } else { "" };
    (if now.is_null() { absent.to_owned() } else { yaml(&now) }, yaml(&then))
}

/// Hides the data of a Secret but for what changes.
fn mask(now: &mut Value, then: &mut Value) {
    let data = |object: &Value| object["data"].as_object().cloned().unwrap_or_default();
    let (before, after) = (data(now), data(then));
    let masked = |key: &String, here: &Value, other: Option<&Value>, side: &str| match other {
        Some(other) if other != here => (key.clone(), Value::from(format!("{MASK} ({side})"))),
        _ => (key.clone(), Value::from(MASK)),
    };
    if !before.is_empty() {
        now["data"] = before.iter().map(|(key, value)| masked(key, value, after.get(key), "before")).collect();
    }
    if !after.is_empty() {
        then["data"] = after.iter().map(|(key, value)| masked(key, value, before.get(key), "after")).collect();
    }
}

/// Has the program that is wanted compare both directories.
fn told(session: &Session, live: &Path, merged: &Path) -> Result {
    let wanted = std::env::var("KUBECTL_EXTERNAL_DIFF").ok().filter(|program| !program.is_empty());
    let plain_word =
        |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-=".contains(c));
    let (program, words): (String, Vec<String>) = match &wanted {
        Some(wanted) => {
            let mut words = wanted.split(' ');
            let program = words.next().unwrap_or_default().to_owned();
            (program, words.filter(plain_word).map(str::to_owned).collect())
        }
        None => ("diff".to_owned(), vec!["-u".to_owned(), "-N".to_owned()]),
    };
    let mut command = Command::new(&program);
    // Words of one's own come last, as upstream has it.
    match wanted.is_some() {
        true => command.arg(live).arg(merged).args(words),
        false => command.args(words).arg(live).arg(merged),
    };
    match command.status().map(|status| status.code()) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(1)) => Err(Failure::Code(DIFFERS)),
        Ok(code) => plain(format!("failed to run {program:?}: exit status {}", code.unwrap_or(-1))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && wanted.is_none() => own(session, live, merged),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            plain(format!("failed to run {program:?}: executable file not found in $PATH"))
        }
        Err(error) => plain(format!("failed to run {program:?}: {error}")),
    }
}

/// The same without a program.
fn own(session: &Session, live: &Path, merged: &Path) -> Result {
    let mut names: Vec<_> = Vec::new();
    for directory in [live, merged] {
        for entry in std::fs::read_dir(directory)? {
            names.push(entry?.file_name());
        }
    }
    names.sort();
    names.dedup();
    let mut differs = false;
    for name in names {
        let (old, new) = (live.join(&name), merged.join(&name));
        let read = |path: &Path| if path.exists() { std::fs::read_to_string(path) } else { Ok(String::new()) };
        let shown = |path: &Path| path.display().to_string();
        if let Some(text) = unified(&shown(&old), &shown(&new), &read(&old)?, &read(&new)?) {
            differs = true;
            session.out(&format!("diff -u -N {} {}\n{text}", shown(&old), shown(&new)))?;
        }
    }
    if differs { Err(Failure::Code(DIFFERS)) } else { Ok(()) }
}

/// A directory of this process' own that goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        for number in 0..u16::MAX {
            let path = std::env::temp_dir().join(format!("{name}-{}{number:05}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        plain("no name is left for a temporary directory")
    }

    fn write(&self, name: &str, text: &str) -> Result {
        Ok(std::fs::write(self.0.join(name), text)?)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that is gone already is what is wanted.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secrets_data_shows_only_that_it_changes() {
        let mut now = json!({"data": {"same": "a", "other": "b", "gone": "c"}});
        let mut then = json!({"data": {"same": "a", "other": "x", "new": "d"}});
        mask(&mut now, &mut then);
        assert_eq!(now["data"], json!({"same": "***", "other": "*** (before)", "gone": "***"}));
        assert_eq!(then["data"], json!({"same": "***", "other": "*** (after)", "new": "***"}));
        let (mut none, mut new) = (Value::Null, json!({"data": {"a": "b"}}));
        mask(&mut none, &mut new);
        assert_eq!((none, &new["data"]), (Value::Null, &json!({"a": "***"})));
    }

    #[test]
    fn files_are_named_after_their_objects() {
        let set =
            json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "namespace": "n"}});
        assert_eq!(file_name("apps", &set), "apps.v1.StatefulSet.n.web");
        assert_eq!(
            file_name("", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}})),
            "v1.Node..x"
        );
    }
}
