//! `patch`: fields of an object, by any of the three kinds of patch.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/patch`.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::common::{Change, DryRun, JSON_PATCH, MERGE, STRATEGIC, Selection, Teller, merged};
use crate::failure::{Failure, Result, all, plain, system};
use crate::server::Call;
use crate::session::Session;

/// What to patch and with what.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    /// The patch, as JSON or YAML.
    #[arg(short = 'p', long, allow_hyphen_values = true)]
    patch: Option<String>,
    /// A file with the patch.
    #[arg(long)]
    patch_file: Option<String>,
    /// strategic, merge, json
    #[arg(long = "type", default_value = "strategic")]
    kind: String,
    /// The sub-resource to patch: status, scale.
    #[arg(long)]
    subresource: Option<String>,
    /// Only print what the patch makes of a file's object.
    #[arg(long)]
    local: bool,
}

/// Patches each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let media = match &*flags.kind.to_lowercase() {
        "strategic" => STRATEGIC,
        "merge" => MERGE,
        "json" => JSON_PATCH,
        _ => return plain(format!("--type must be one of [json merge strategic], not {:?}", flags.kind)),
    };
    let text = text(&flags)?;
    let mut teller = Teller::new(session, &flags.change, "kubectl-patch")?;
    if flags.local {
        return local(session, &flags, &mut teller, media, &text).await;
    }
    let (found, mut failures) = flags.selection.find(session, &flags.words).await?;
    for found in found {
        let path = match &flags.subresource {
            Some(sub) => format!("{}/{sub}", found.path()),
            None => found.path(),
        };
        let done = async {
            let new = if teller.dry_run == DryRun::Client {
                let patch = serde_json::from_slice(&text).map_err(|error| Failure::Plain(error.to_string()))?;
                merged(&found.resource, &found.object, media, &patch)?
            } else {
                let call = Call::new(Method::PATCH, &path).query(teller.query()).body(media, text.clone());
                session.server().await?.send(call).await?
            };
            let done = if same(&found.object, &new) { "patched (no change)" } else { "patched" };
            teller.tell(session, &found.resource, &new, done)
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

/// The patch as JSON text. What is no JSON is read as YAML; what is neither goes to the server, whose error is the better one.
fn text(flags: &Flags) -> Result<Vec<u8>> {
    let text = match (&flags.patch, &flags.patch_file) {
        (Some(_), Some(_)) => return plain("cannot specify --patch and --patch-file together"),
        (Some(patch), None) if !patch.is_empty() => patch.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| Failure::Plain(format!("unable to read patch file: open {file}: {}", system(&error))))?,
        _ => return plain("must specify --patch or --patch-file containing the contents of the patch"),
    };
    if serde_json::from_str::<Value>(&text).is_ok() || text.trim_start().starts_with(['{', '[']) {
        return Ok(text.into_bytes());
    }
    match serde_norway::from_str::<Value>(&text) {
        Ok(value) => Ok(value.to_string().into_bytes()),
        Err(error) => plain(format!("unable to parse {text:?}: yaml: {error}")),
    }
}

/// Whether two states of an object are the same one.
fn same(before: &Value, after: &Value) -> bool {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    version(before) == version(after) && !version(before).is_null()
}

async fn local(session: &Session, flags: &Flags, teller: &mut Teller, media: &str, text: &[u8]) -> Result {
    let patch: Value = serde_json::from_slice(text).map_err(|error| Failure::Plain(error.to_string()))?;
    for loaded in crate::manifest::load(&flags.selection.files).await? {
        let target = crate::builder::of_manifest(session, loaded).await?;
        let object = target.object.unwrap_or_default();
        let new = merged(&target.resource, &object, media, &patch)?;
        teller.tell(session, &target.resource, &new, "patched")?;
    }
    Ok(())
}
