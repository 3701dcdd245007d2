//! `label` and `annotate`: pairs on objects, set and removed.
//!
//! Source of the texts: `k8s.io/kubectl/pkg/cmd/label`, `k8s.io/kubectl/pkg/cmd/annotate`.

use clap::Args;
use serde_json::{Map, Value};

use super::common::{Change, MERGE, Selection, Teller};
use crate::failure::{Result, all, plain};
use crate::print::pairs;
use crate::session::Session;

/// What to label, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME ... KEY=VALUE ... KEY- ...
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
    /// Whether a value that is there may be replaced.
    #[arg(long)]
    overwrite: bool,
    /// Show the pairs.
    #[arg(long)]
    list: bool,
    /// Only when the object is at this revision.
    #[arg(long)]
    resource_version: Option<String>,
}

/// Which of the two commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Label,
    Annotation,
}

impl What {
    fn field(self) -> &'static str {
        match self {
            Self::Label => "labels",
            Self::Annotation => "annotations",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
        }
    }
}

/// What a command line asks for: pairs to set, keys to remove.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    set: Vec<(String, String)>,
    remove: Vec<String>,
}

/// Sets and removes.
pub(crate) async fn run(session: &Session, flags: Flags, what: What) -> Result {
    let (words, wish) = split(&flags.words, what)?;
    if wish == Wish::default() && !flags.list {
        return plain(format!("at least one {} update is required", what.name()));
    }
    let mut teller =
        Teller::new(session, &flags.change, if what == What::Label { "kubectl-label" } else { "kubectl-annotate" })?;
    let (found, mut failures) = flags.selection.find(session, &words).await?;
    let several = found.len() > 1;
    for found in found {
        if flags.list {
            if several {
                let shown = if what == What::Label { "labels" } else { "annotations" };
                session.out(&format!(
                    "Listing {shown} for {}.{}/{}:\n",
                    found.resource.kind, found.resource.group, found.name
                ))?;
            }
            let lines: String =
                pairs(&found.object["metadata"][what.field()]).iter().map(|pair| format!("{pair}\n")).collect();
            session.out(&lines)?;
            continue;
        }
        let done = async {
            let plan = plan(&found.object, &wish, flags.overwrite, what)?;
            for key in &plan.absent {
                session.out(&format!("{} {key:?} not found.\n", what.name()))?;
            }
            let object = match plan.patch {
                Some(mut patch) => {
                    if let Some(version) = &flags.resource_version {
                        patch["metadata"]["resourceVersion"] = version.as_str().into();
                    }
                    teller.patch(session, &found, MERGE, &patch).await?
                }
                None => found.object.clone(),
            };
            teller.tell(session, &found.resource, &object, plan.done)
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

/// Takes the words apart: those that name objects, and those that say what is to be changed.
fn split(words: &[String], what: What) -> Result<(Vec<String>, Wish)> {
    let is_change = |word: &&String| {
        word.contains('=') || (word.ends_with('-') && !word.contains('/')) || (word.ends_with('-') && word.len() > 1)
    };
    let at = words.iter().position(|word| is_change(&word)).unwrap_or(words.len());
    let mut wish = Wish::default();
    for word in &words[at..] {
        if let Some((key, value)) = word.split_once('=') {
            if key.is_empty() || (what == What::Label && value.contains('=')) {
                return plain(format!("invalid {} spec: {word}", what.name()));
            }
            wish.set.push((key.to_owned(), value.to_owned()));
        } else if let Some(key) = word.strip_suffix('-') {
            wish.remove.push(key.to_owned());
        } else {
            return plain(format!("unknown command: {word}"));
        }
    }
    if let Some((key, _)) = wish.set.iter().find(|(key, _)| wish.remove.contains(key)) {
        return plain(format!(
            "can not both modify and remove {} in the same command: {key}",
            if what == What::Label { "a label" } else { "an annotation" }
        ));
    }
    Ok((words[..at].to_vec(), wish))
}

/// What is to be done with one object.
struct Plan {
    patch: Option<Value>,
    absent: Vec<String>,
    done: &'static str,
}

fn plan(object: &Value, wish: &Wish, overwrite: bool, what: What) -> Result<Plan> {
    let present = &object["metadata"][what.field()];
    let (mut new, mut absent) = (Map::new(), Vec::new());
    let there = |(key, _): &&(String, String)| present[key].is_string();
    if what == What::Annotation && !overwrite && wish.set.iter().any(|pair| there(&pair)) {
        let told = |(key, _): &(String, String)| {
            format!("'{key}' already has a value ({})", present[key].as_str().unwrap_or_default())
        };
        let all: Vec<String> = wish.set.iter().filter(there).map(told).collect();
        return plain(format!(
            "--overwrite is false but found the following declared annotation(s): {}",
            all.join("; ")
        ));
    }
    for (key, value) in &wish.set {
        match present[key].as_str() {
            Some(there) if !overwrite && there != value => {
                return plain(format!("'{key}' already has a value ({there}), and --overwrite is false"));
            }
            Some(there) if there == value => {}
            _ => {
                new.insert(key.clone(), value.as_str().into());
            }
        }
    }
    let mut removed = false;
    for key in &wish.remove {
        if present[key].is_null() {
            absent.push(key.clone());
        } else {
            removed = true;
            new.insert(key.clone(), Value::Null);
        }
    }
    let done = match (what, new.is_empty(), removed && wish.set.is_empty()) {
        (What::Annotation, ..) => "annotated",
        (What::Label, true, _) => "not labeled",
        (What::Label, false, true) => "unlabeled",
        (What::Label, false, false) => "labeled",
    };
    let patch = (!new.is_empty()).then(|| serde_json::json!({"metadata": {what.field(): new}}));
    Ok(Plan { patch, absent: if what == What::Label { absent } else { Vec::new() }, done })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_are_objects_first_and_changes_then() {
        let (names, wish) = split(&words("pod web-0 a=b c- x.y/z=1"), What::Label).expect("understood");
        assert_eq!((names, wish.remove), (words("pod web-0"), words("c")));
        assert_eq!(wish.set, [("a".into(), "b".into()), ("x.y/z".into(), "1".into())]);
        assert_eq!(
            split(&words("pod a b=c=d"), What::Label).expect_err("refused").message(),
            "invalid label spec: b=c=d"
        );
        assert!(split(&words("pod a b=c=d"), What::Annotation).is_ok());
    }

    #[test]
    fn what_is_there_stays_unless_it_may_be_replaced() {
        let pod = json!({"metadata": {"labels": {"app": "web", "old": "1"}}});
        let run = |line: &str, overwrite: bool| {
            let (_, wish) = split(&words(line), What::Label)?;
            plan(&pod, &wish, overwrite, What::Label).map(|plan| (plan.patch.unwrap_or_default(), plan.done))
        };
        assert_eq!(
            run("app=db", false).expect_err("refused").message(),
            "'app' already has a value (web), and --overwrite is false"
        );
        assert_eq!(run("app=db", true).expect("planned"), (json!({"metadata": {"labels": {"app": "db"}}}), "labeled"));
        assert_eq!(run("app=web", false).expect("planned"), (Value::Null, "not labeled"));
        assert_eq!(run("old-", false).expect("planned"), (json!({"metadata": {"labels": {"old": null}}}), "unlabeled"));
    }
}
