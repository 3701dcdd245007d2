//! `edit`: objects in an editor; what was changed goes to the server as a patch.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/util/editor`.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::common::{Change, Selection, Teller, difference};
use crate::builder::Found;
use crate::failure::{Failure, Result, all, plain};
use crate::print::{json, without_managed_fields, yaml};
use crate::server::Call;
use crate::session::Session;

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
";

/// What to edit.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    /// The sub-resource to edit.
    #[arg(long)]
    subresource: Option<String>,
}

/// Edits each, one after the other.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let as_json = flags.change.output.output.as_deref() == Some("json");
    let change = Change { output: Default::default(), ..flags.change.clone() };
    let mut teller = Teller::new(session, &change, "kubectl-edit")?;
    let (found, mut failures) = flags.selection.find(session, &flags.words).await?;
    for found in found {
        if let Err(failure) = one(session, &mut teller, &found, flags.subresource.as_deref(), as_json).await {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn one(session: &Session, teller: &mut Teller, found: &Found, sub: Option<&str>, as_json: bool) -> Result {
    let original = without_managed_fields(found.object.clone());
    let shown = if as_json { json(&original) + "\n" } else { yaml(&original) };
    let mut last: Option<(File, String)> = None;
    let mut reasons = String::new();
    loop {
        let file = File::new(if as_json { "json" } else { "yaml" })?;
        let body = last.as_ref().map_or_else(|| shown.clone(), |(_, edited)| without_comments(edited));
        std::fs::write(&file.0, format!("{HEADER}{reasons}{body}"))?;
        if let Err(failure) = edit(&file.0) {
            if let Some((file, _)) = last {
                preserve(session, file);
            }
            return Err(failure);
        }
        let edited = std::fs::read_to_string(&file.0)?;
        if last.is_some_and(|(_, last)| says_the_same(&last, &edited)) {
            preserve(session, file);
            return plain("Edit cancelled, no valid changes were saved.");
        }
        let why = match object_of(&edited) {
            Err(why) => Wrong::Invalid(format!("# \"\" is invalid: The edited file failed validation: {why}\n#\n")),
            Ok(_) if says_the_same(&shown, &edited) => {
                session.err("Edit cancelled, no changes made.\n");
                return Ok(());
            }
            Ok(object) => match save(session, teller, found, &original, &object, sub).await {
                Ok(()) => return Ok(()),
                Err(failure) => Wrong::of(failure, found),
            },
        };
        let what = format!("error: {} {:?}", found.resource.group_resource(), found.name);
        match why {
            Wrong::Invalid(told) => {
                session.err(&format!("{what} is invalid\n"));
                reasons = told;
                last = Some((file, edited));
            }
            Wrong::Gone => {
                session.err(&format!("{what} could not be found on the server\n"));
                let kept = file.keep().display().to_string();
                session.err(&format!("The edits you made on deleted resources have been saved to {kept:?}\n"));
                return Err(Failure::Code(1));
            }
            Wrong::Refused(why) => {
                let kept = file.keep();
                session.err(&format!("{what} could not be patched: {why}\n"));
                session
                    .err(&format!("You can run `kubectl replace -f {}` to try this update again.\n", kept.display()));
                return Err(Failure::Code(1));
            }
            Wrong::Other(failure) => {
                preserve(session, file);
                return Err(failure);
            }
        }
    }
}

/// Why what was edited is not saved, and with it whether the editor is opened again.
enum Wrong {
    /// Opened again, with these lines above the object.
    Invalid(String),
    Gone,
    Refused(String),
    Other(Failure),
}

impl Wrong {
    fn of(failure: Failure, found: &Found) -> Self {
        let Failure::Api(refusal) = &failure else { return Self::Other(failure) };
        match failure.reason() {
            "Invalid" => {
                let causes = refusal.status["details"]["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let text = |value: &Value| value.as_str().unwrap_or_default().replace('\n', "\n# ");
                let mut told = format!("# {} {:?} was not valid", found.resource.group_resource(), found.name);
                told.push_str(if causes.is_empty() { "\n" } else { ":\n" });
                for cause in causes {
                    told.push_str(&format!("# * {}: {}\n", text(&cause["field"]), text(&cause["message"])));
                }
                Self::Invalid(told + "#\n")
            }
            "NotFound" => Self::Gone,
            _ => Self::Refused(failure.message()),
        }
    }
}

/// Leaves the file where it is, and says where.
fn preserve(session: &Session, file: File) {
    let kept = file.keep().display().to_string();
    session.err(&format!("A copy of your changes has been stored to {kept:?}\n"));
}

/// Whether two files hold the same object, however it is written; files that hold none, whether they hold the same lines.
/// So an editor that does the same again and again comes to an end.
fn says_the_same(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_norway::from_str::<Value>(text).ok();
    match (value(one), value(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => without_comments(one) == without_comments(other),
        _ => false,
    }
}

async fn save(
    session: &Session,
    teller: &mut Teller,
    found: &Found,
    original: &Value,
    edited: &Value,
    sub: Option<&str>,
) -> Result {
    if edited["metadata"]["name"] != original["metadata"]["name"] {
        return plain("At least one of apiVersion, kind and name was changed");
    }
    let (patch, media) = difference(&found.resource, original, edited)?;
    let path = match sub {
        Some(sub) => format!("{}/{sub}", found.path()),
        None => found.path(),
    };
    let mut query = teller.query();
    query.push(("fieldValidation", "Strict".to_owned()));
    let call = Call::new(Method::PATCH, &path).query(query).body(media, patch.to_string().into_bytes());
    let new = session.server().await?.send(call).await?;
    teller.tell(session, &found.resource, &new, "edited")
}

/// The object that a text is, or why it is none.
fn object_of(body: &str) -> std::result::Result<Value, String> {
    let edited: Value = serde_norway::from_str(body).map_err(|error| error.to_string())?;
    match ["apiVersion", "kind"].iter().find(|field| !edited[**field].is_string()) {
        Some(field) => Err(format!("{field} not set")),
        None => Ok(edited),
    }
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Runs the editor: $KUBE_EDITOR, $EDITOR, vi.
fn edit(path: &Path) -> Result {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = named("KUBE_EDITOR").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // A shell is asked only where there is something for it to understand, as kubectl does it.
    let status = if editor.contains(['"', '\'', '\\']) {
        Command::new("sh").arg("-c").arg(format!("{editor} {:?}", path.display().to_string())).status()
    } else {
        let mut words = editor.split(' ').filter(|word| !word.is_empty());
        Command::new(words.next().unwrap_or("vi")).args(words).arg(path).status()
    };
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => plain(format!("there was a problem with the editor {editor:?}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            plain(format!("unable to launch the editor {editor:?}"))
        }
        Err(error) => plain(format!("unable to launch the editor {editor:?}: {error}")),
    }
}

/// A file of this process' own that goes with it.
struct File(PathBuf);

impl File {
    fn new(extension: &str) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let directory = std::env::temp_dir();
        for number in 0..u16::MAX {
            let path = directory.join(format!("kubectl-edit-{}-{number}.{extension}", std::process::id()));
            match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        plain("no name is left for a temporary file")
    }

    /// Leaves the file where it is.
    fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // A file that is gone already is what is wanted.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_not_sent() {
        for (text, wanted) in
            [("", "apiVersion not set"), ("x", "apiVersion not set"), ("apiVersion: v1\n", "kind not set")]
        {
            assert_eq!(object_of(text), Err(wanted.to_owned()), "{text}");
        }
        assert!(object_of("a: [").is_err());
        assert!(object_of("apiVersion: v1\nkind: Pod\n").is_ok());
    }

    #[test]
    fn the_same_object_may_be_written_in_several_ways() {
        for (one, other, same) in [
            ("a: 1\nb: 2\n", "# why\nb: 2\na: 1\n", true),
            ("a: 1\n", "a: 1\na: 1\n", true),
            ("a: 1\n", "{\"a\": 1}", true),
            ("a: 1\n", "a: 2\n", false),
            ("a: [", "# why\na: [\n", true),
            ("a: [", "a: [[", false),
            ("a: [", "a: 1", false),
        ] {
            assert_eq!(says_the_same(one, other), same, "{one:?} {other:?}");
        }
    }
}
