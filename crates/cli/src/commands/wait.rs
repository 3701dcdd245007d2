//! `wait`: until a condition holds, an object is gone, a field has a value.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/wait`.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use serde_json::Value;
use tokio::time::Instant;

use super::common::duration;
use crate::builder::{self, Found, Question, Target};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::print::{JsonPath, at, int, jsonpath, list};
use crate::session::Session;

/// What a negative `--timeout` stands for.
const A_WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What to wait for.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME, TYPE/NAME ..., or TYPE with a selector or --all.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long)]
    field_selector: Option<String>,
    #[arg(long)]
    all: bool,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// create, delete, condition=NAME[=VALUE], jsonpath='{PATH}'[=VALUE]
    #[arg(long = "for", default_value = "")]
    condition: String,
    /// How long to wait; 0 looks once, less than that waits for a week.
    #[arg(long, default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
}

/// A condition that has been understood.
#[derive(Debug)]
enum Condition {
    Create,
    Delete,
    Status { name: String, value: String },
    Path { path: JsonPath, value: Option<String> },
}

/// Waits for each.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let condition = Condition::parse(&flags.condition)?;
    let limit = match flags.timeout.strip_prefix('-') {
        Some(_) => A_WEEK,
        None => duration(&flags.timeout)?,
    };
    let deadline = Instant::now() + limit;
    let question = Question {
        words: &flags.words,
        files: flags.files.clone(),
        selector: flags.selector.as_deref(),
        fields: flags.field_selector.as_deref(),
        all: flags.all,
        all_namespaces: flags.all_namespaces,
        bare_type: false,
    };
    let targets = builder::targets(session, &question).await?;
    let (found, mut failures) = find(session, &targets, &condition).await;
    let missing_is_fine = matches!(condition, Condition::Delete);
    if found.is_empty() && failures.is_empty() {
        return if missing_is_fine { Ok(()) } else { plain("no matching resources found") };
    }
    for found in found {
        match one(session, &found, &condition, deadline).await {
            Ok(()) => session.out(&format!("{} condition met\n", found.named()))?,
            Err(failure) => failures.push(failure),
        }
    }
    all(failures)
}

async fn find(session: &Session, targets: &[Target], condition: &Condition) -> (Vec<Found>, Vec<Failure>) {
    if matches!(condition, Condition::Create) {
        let named = |target: &Target| {
            Some(Found {
                resource: target.resource.clone(),
                namespace: target.namespace.clone(),
                name: target.name.clone()?,
                object: Value::Null,
                source: String::new(),
            })
        };
        return (targets.iter().filter_map(named).collect(), Vec::new());
    }
    let (found, mut failures) = builder::fetch(session, targets).await;
    if matches!(condition, Condition::Delete) {
        failures.retain(|failure| !failure.is_not_found());
    }
    (found, failures)
}

async fn one(session: &Session, found: &Found, condition: &Condition, deadline: Instant) -> Result {
    let timed_out =
        || plain(format!("timed out waiting for the condition on {}/{}", found.resource.plural, found.name));
    if let Condition::Delete = condition {
        let uid = found.object["metadata"]["uid"].as_str();
        let waiting = super::delete::until_gone(session, found, uid, None);
        return tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| timed_out());
    }
    if condition.holds(&found.object)? {
        return Ok(());
    }
    tokio::time::timeout_at(deadline, until(session, found, |object| condition.holds(object)))
        .await
        .unwrap_or_else(|_| timed_out())
}

/// Watches an object until `wanted` says so of it.
pub(crate) async fn until(session: &Session, found: &Found, wanted: impl Fn(&Value) -> Result<bool>) -> Result {
    let server = session.server().await?;
    let path = found.resource.path(found.namespace.as_deref());
    loop {
        let query = vec![("fieldSelector", format!("metadata.name={}", found.name))];
        let now = server.list(&path, &query, "application/json").await?;
        for object in list(&now, "/items") {
            if wanted(object)? {
                return Ok(());
            }
        }
        let mut query = query;
        query.push(("resourceVersion", at(&now, "/metadata/resourceVersion").to_owned()));
        let mut events = server.watch(&path, query, "application/json").await?;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if event["type"] == "DELETED" => {}
                Ok(event) if wanted(&event["object"])? => return Ok(()),
                Ok(_) => {}
                Err(Failure::Api(_)) => break,
                Err(failure) => return Err(failure),
            }
        }
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Self> {
        let unknown = || plain(format!("unrecognized condition: {text:?}"));
        match text.to_lowercase().as_str() {
            "delete" => return Ok(Self::Delete),
            "create" => return Ok(Self::Create),
            _ => {}
        }
        let Some((kind, rest)) = text.split_once('=') else { return unknown() };
        match kind.to_lowercase().as_str() {
            "condition" => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Self::Status { name: name.to_owned(), value: value.to_owned() })
            }
            "jsonpath" => {
                let rest = &*rest.replace("'{", "{").replace("}'", "}");
                let (path, value) = match rest.rfind('}').map(|end| rest.split_at(end + 1)) {
                    Some((path, "")) => (path, None),
                    Some((path, value)) => (path, value.strip_prefix('=')),
                    None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
                };
                let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
                if value.as_deref() == Some("") {
                    return plain("jsonpath wait has to have a value after equal sign");
                }
                Ok(Self::Path { path: JsonPath::relaxed(path, true)?, value })
            }
            _ => unknown(),
        }
    }

    fn holds(&self, object: &Value) -> Result<bool> {
        match self {
            Self::Create => Ok(object.is_object()),
            Self::Delete => Ok(false),
            Self::Status { name, value } => Ok(has_condition(object, name, value)),
            Self::Path { path, value } => {
                let found = path.find(object)?;
                match (&found[..], value) {
                    ([], _) => Ok(false),
                    (_, None) => Ok(true),
                    ([one], Some(_)) if one.is_object() || one.is_array() => {
                        plain("jsonpath leads to a nested object or list which is not supported")
                    }
                    ([one], Some(value)) => Ok(jsonpath::text(one) == *value),
                    _ => plain("given jsonpath expression matches more than one value"),
                }
            }
        }
    }
}

fn has_condition(object: &Value, name: &str, value: &str) -> bool {
    let generation = int(object, "/metadata/generation");
    list(object, "/status/conditions").iter().any(|condition| {
        let observed = condition.get("observedGeneration").or_else(|| object["status"].get("observedGeneration"));
        let current = observed.and_then(Value::as_i64).is_none_or(|observed| observed >= generation);
        at(condition, "/type").eq_ignore_ascii_case(name)
            && at(condition, "/status").eq_ignore_ascii_case(value)
            && current
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_hold_when_the_object_says_so() {
        let pod = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (text, wanted) in [
            ("condition=Ready", true),
            ("condition=ready=true", true),
            ("condition=Ready=False", false),
            ("condition=Old", false),
            ("condition=Nothere", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Failed", false),
            ("jsonpath={.status.phase}", true),
            ("jsonpath=.status.nothere", false),
            ("delete", false),
        ] {
            assert_eq!(Condition::parse(text).expect(text).holds(&pod).expect(text), wanted, "{text}");
        }
        assert_eq!(Condition::parse("nothere").expect_err("refused").message(), "unrecognized condition: \"nothere\"");
        assert_eq!(Condition::parse("").expect_err("refused").message(), "unrecognized condition: \"\"");
    }
}
