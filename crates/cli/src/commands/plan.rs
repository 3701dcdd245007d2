//! `plan`: what an apply, a scale or a new image would do, before it is done.
//!
//! The server says what it would make of each object (a dry run), so that defaults are filled in and what it would refuse is said
//! in its own words. For a StatefulSet, the plan that its controller follows is then run forward on a copy.
//!
//! Exit code 0: nothing would change; 2: something would; 1: something would be refused, or could not be found out.

use clap::{Args, Subcommand};
use http::Method;
use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::{Value, json};
use stead_api::typed;
use stead_diagnosis::Snapshot;
use stead_diagnosis::outlook::{self, Outlook, outlook};
use stead_workloads::statefulset::identity;

use super::common::{MERGE, STRATEGIC, is_empty, merged};
use super::scale;
use super::set::{image_patch, pod_spec};
use crate::apply::{LAST_APPLIED, patch, with_annotation};
use crate::builder::{self, Found, Question, Target};
use crate::failure::{Failure, Result, plain};
use crate::look::look;
use crate::manifest::{self, Files};
use crate::print::{json as as_json, yaml};
use crate::server::Call;
use crate::session::Session;

/// Exit code when something would change.
const WOULD_CHANGE: u8 = 2;
/// How many changed fields of an object are shown.
const FIELDS_MAX: usize = 20;
/// How long a value may be to be shown.
const VALUE_MAX: usize = 60;

/// What is planned.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: Files,
    /// json, yaml
    #[arg(short = 'o', long, global = true)]
    output: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Another number of replicas.
    Scale {
        /// TYPE NAME or TYPE/NAME
        words: Vec<String>,
        #[arg(long, required_unless_present = "remove_ordinal")]
        replicas: Option<i32>,
        /// This pod of a StatefulSet taken away and no other.
        #[arg(long, value_name = "ORDINAL", conflicts_with = "replicas")]
        remove_ordinal: Option<u32>,
    },
    /// Another image.
    Set {
        #[command(subcommand)]
        what: SetWhat,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum SetWhat {
    /// TYPE/NAME CONTAINER=IMAGE ...
    Image { words: Vec<String> },
}

/// What would become of one object.
struct Outcome {
    named: String,
    /// `created`, `configured`, `unchanged`, `refused`.
    done: &'static str,
    /// The server's refusal.
    refusal: Option<String>,
    /// Why the server was not asked, or could not say.
    unasked: Option<String>,
    /// `path: old -> new`.
    fields: Vec<String>,
    outlook: Option<Outlook>,
    /// What the server says to pods that would be made.
    refused_pods: Vec<String>,
}

/// Tells what would be done.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let output = flags.output.as_deref().filter(|o| !o.is_empty());
    if let Some(other) = output.filter(|o| !matches!(*o, "json" | "yaml")) {
        return plain(format!(
            "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,yaml"
        ));
    }
    let outcomes = match &flags.what {
        Some(What::Scale { words, replicas, remove_ordinal }) => {
            let change = |object: &Value| {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let patch = match remove_ordinal {
                    Some(ordinal) => scale::removal(object, name, *ordinal)?,
                    None => json!({"spec": {"replicas": replicas}}),
                };
                Ok(Some((patch, MERGE)))
            };
            by_patch(session, words, change).await?
        }
        Some(What::Set { what: SetWhat::Image { words } }) => {
            let at = words.iter().position(|word| word.contains('=')).unwrap_or(words.len());
            let images = &words[at..];
            if images.is_empty() {
                return plain("at least one image update is required");
            }
            by_patch(session, &words[..at], |object| image_change(object, images)).await?
        }
        None if flags.files.is_empty() => return plain("must specify -f FILE, -k DIRECTORY, scale or set image"),
        None => by_files(session, &flags.files).await?,
    };
    let documents: Vec<Value> = outcomes.iter().map(document).collect();
    match output {
        Some("yaml") => session.out(&yaml(&json!({"objects": documents})))?,
        Some(_) => session.out(&(as_json(&json!({"objects": documents})) + "\n"))?,
        None => outcomes.iter().try_for_each(|outcome| session.out(&text(outcome)))?,
    }
    if outcomes.iter().any(|outcome| outcome.refusal.is_some() || !outcome.refused_pods.is_empty()) {
        return Err(Failure::Code(1));
    }
    let idle = outcomes
        .iter()
        .all(|outcome| outcome.done == "unchanged" && outcome.outlook.as_ref().is_none_or(|o| o.steps.is_empty()));
    if idle { Ok(()) } else { Err(Failure::Code(WOULD_CHANGE)) }
}

fn image_change(object: &Value, images: &[String]) -> Result<Option<(Value, &'static str)>> {
    let pointer = pod_spec(object);
    let Some(spec) = object.pointer(pointer) else {
        return plain("the object is not a pod or does not have a pod template");
    };
    let Some(mut patch) = image_patch(spec, images)? else { return Ok(None) };
    for name in pointer.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
        patch = json!({name: patch});
    }
    Ok(Some((patch, STRATEGIC)))
}

/// Objects of the server and a patch of each.
async fn by_patch(
    session: &Session,
    words: &[String],
    change: impl Fn(&Value) -> Result<Option<(Value, &'static str)>>,
) -> Result<Vec<Outcome>> {
    let (found, failures) = builder::find(session, &Question { words, ..Question::default() }).await?;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure);
    }
    let mut outcomes = Vec::new();
    for found in found {
        let tried = match change(&found.object)? {
            Some((patch, media)) => try_patch(session, &found, &patch, media).await?,
            None => Tried::Made(found.object.clone()),
        };
        outcomes.push(judged(session, &found, Some(&found.object), tried).await?);
    }
    Ok(outcomes)
}

/// The objects of manifests.
async fn by_files(session: &Session, files: &Files) -> Result<Vec<Outcome>> {
    let loaded = manifest::load(files).await?;
    let is_namespace = |object: &Value| object["kind"] == "Namespace";
    let named: Vec<String> = loaded
        .iter()
        .filter(|l| is_namespace(&l.object))
        .filter_map(|l| l.object["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    let mut outcomes = Vec::new();
    for loaded in loaded {
        let target = builder::of_manifest(session, loaded).await?;
        outcomes.push(of_target(session, &target, &named).await?);
    }
    Ok(outcomes)
}

/// What a dry run came to.
enum Tried {
    /// The object as it would be.
    Made(Value),
    /// The same as far as this program can tell, and why the server was not asked.
    Guessed(Value, String),
    Refused(String),
}

async fn of_target(session: &Session, target: &Target, new_namespaces: &[String]) -> Result<Outcome> {
    let server = session.server().await?;
    let manifest = target.object.clone().unwrap_or_default();
    let found = |object: Value| Found {
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone().unwrap_or_default(),
        object,
        source: target.source.clone(),
    };
    let live = match (&target.name, server.get(&target.path()).await) {
        (None, _) => None,
        (_, Ok(live)) => Some(live),
        (_, Err(failure)) if failure.is_not_found() => None,
        (_, Err(failure)) => return Err(failure),
    };
    let Some(live) = live else {
        let body = with_annotation(&manifest);
        let path = target.resource.path(target.namespace.as_deref());
        let call =
            Call::new(Method::POST, &path).query(dry_run()).body("application/json", body.to_string().into_bytes());
        let tried = match server.send(call).await {
            Ok(object) => Tried::Made(object),
            Err(failure) => {
                let comes = target.namespace.as_ref().is_some_and(|namespace| new_namespaces.contains(namespace));
                guess(failure, body, comes)?
            }
        };
        return judged(session, &found(manifest), None, tried).await;
    };
    let (patch, media) = patch(&target.resource, &live, &manifest)?;
    let found = found(live.clone());
    let tried = match is_empty(&patch) {
        true => Tried::Made(live.clone()),
        false => try_patch(session, &found, &patch, media).await?,
    };
    judged(session, &found, Some(&live), tried).await
}

fn dry_run() -> Vec<(&'static str, String)> {
    vec![
        ("dryRun", "All".to_owned()),
        ("fieldManager", "kubectl-client-side-apply".to_owned()),
        ("fieldValidation", "Strict".to_owned()),
    ]
}

async fn try_patch(session: &Session, found: &Found, patch: &Value, media: &'static str) -> Result<Tried> {
    let path = found.path();
    let call = Call::new(Method::PATCH, &path).query(dry_run()).body(media, patch.to_string().into_bytes());
    match session.server().await?.send(call).await {
        Ok(object) => Ok(Tried::Made(object)),
        Err(failure) => {
            let object = merged(&found.resource, &found.object, media, patch)?;
            guess(failure, object, false)
        }
    }
}

/// Who may not even try can still be told what is likely; anything else is the server's refusal.
fn guess(failure: Failure, object: Value, namespace_comes: bool) -> Result<Tried> {
    match &failure {
        Failure::Api(_) if failure.is_not_found() && namespace_comes => {
            Ok(Tried::Guessed(object, "its namespace comes with the same files".to_owned()))
        }
        Failure::Api(_) if failure.reason() == "Forbidden" && failure.message().contains("cannot ") => {
            Ok(Tried::Guessed(object, failure.message()))
        }
        Failure::Api(_) => Ok(Tried::Refused(failure.text().trim_end().to_owned())),
        _ => Err(failure),
    }
}

async fn judged(session: &Session, found: &Found, live: Option<&Value>, tried: Tried) -> Result<Outcome> {
    let mut outcome = Outcome {
        named: found.named(),
        done: "refused",
        refusal: None,
        unasked: None,
        fields: Vec::new(),
        outlook: None,
        refused_pods: Vec::new(),
    };
    let object = match tried {
        Tried::Refused(why) => {
            outcome.refusal = Some(why);
            return Ok(outcome);
        }
        Tried::Made(object) => object,
        Tried::Guessed(object, why) => {
            outcome.unasked = Some(why);
            object
        }
    };
    outcome.done = match live {
        None => "created",
        Some(live) => {
            outcome.fields = changes(live, &object);
            if outcome.fields.is_empty() { "unchanged" } else { "configured" }
        }
    };
    if found.resource.is("apps", "StatefulSet") {
        let set: StatefulSet = typed::from_value(&object)
            .map_err(|error| Failure::Plain(format!("{} cannot be understood: {error}", outcome.named)))?;
        let server = session.server().await?;
        let namespace = found.namespace.clone().unwrap_or_default();
        let snapshot = look(&server.client, &namespace).await.map_err(|error| server.failure(error))?;
        let steps = outlook(&snapshot, &set);
        if outcome.unasked.is_none() {
            outcome.refused_pods = refused_pods(session, &snapshot, &set, &steps).await?;
        }
        outcome.outlook = Some(steps);
    }
    Ok(outcome)
}

/// What the server would say to the first pod that is made, under a name of its own when its own is taken.
async fn refused_pods(
    session: &Session,
    snapshot: &Snapshot,
    set: &StatefulSet,
    steps: &Outlook,
) -> Result<Vec<String>> {
    let Some(ordinal) = steps.steps.iter().find_map(|step| step.makes) else { return Ok(Vec::new()) };
    let template = match identity::overridden(set, &set.spec.template, ordinal) {
        Ok(template) => template,
        Err(why) => return Ok(vec![format!("pod {} would not be made: {why}", identity::pod_name(set, ordinal))]),
    };
    let mut pod = identity::new_pod(set, &template, "planned", ordinal);
    let name = pod.metadata.name.clone().unwrap_or_default();
    if snapshot.pods.get(&name).found().is_some() {
        pod.metadata.name = Some(format!("{name}-planned"));
    }
    // A set that is not there yet has no uid that the server knows; who owns the pod does not matter here.
    pod.metadata.owner_references = None;
    let resource = session.kind("", "Pod").await?;
    let path = resource.path(Some(&snapshot.namespace));
    let body = serde_json::to_vec(&pod).map_err(|error| Failure::Plain(error.to_string()))?;
    let call = Call::new(Method::POST, &path).query(dry_run()).body("application/json", body);
    match session.server().await?.send(call).await {
        Ok(_) => Ok(Vec::new()),
        Err(failure) if matches!(failure.reason(), "Invalid") || failure.message().contains("exceeded quota") => {
            Ok(vec![format!("pod {name} would be refused: {}", failure.message())])
        }
        // That this user may not create pods says nothing about the controller.
        Err(Failure::Api(_)) => Ok(Vec::new()),
        Err(failure) => Err(failure),
    }
}

/// What differs, as `path: old -> new`. What the server keeps for itself is left out.
fn changes(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    differ("", old, new, &mut found);
    if found.len() > FIELDS_MAX {
        let more = found.len() - FIELDS_MAX;
        found.truncate(FIELDS_MAX);
        found.push(format!("... and {more} more"));
    }
    found
}

fn differ(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    const OWN: [&str; 4] = ["status", "metadata.managedFields", "metadata.resourceVersion", "metadata.generation"];
    if old == new || OWN.contains(&path) || path.ends_with(LAST_APPLIED) {
        return;
    }
    let none = json!({});
    let old = if path == "metadata.annotations" && old.is_null() { &none } else { old };
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differ(&below, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                let named = b["name"].as_str().map_or_else(|| at.to_string(), str::to_owned);
                differ(&format!("{path}[{named}]"), a, b, found);
            }
        }
        _ => found.push(format!("{path}: {} -> {}", shown(old), shown(new))),
    }
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_MAX {
        return text;
    }
    let head: String = text.chars().take(VALUE_MAX).collect();
    format!("{head}...")
}

fn text(outcome: &Outcome) -> String {
    let mut out = match &outcome.refusal {
        Some(why) => format!("{} would be refused: {why}\n", outcome.named),
        None if outcome.done == "unchanged" => format!("{} unchanged\n", outcome.named),
        None => format!("{} would be {}\n", outcome.named, outcome.done),
    };
    for field in &outcome.fields {
        out.push_str(&format!("      {field}\n"));
    }
    if let Some(why) = &outcome.unasked {
        out.push_str(&format!("      not tried on the server: {why}\n"));
    }
    if let Some(steps) = &outcome.outlook {
        out.push_str(&outlook::text(steps));
    }
    for refused in &outcome.refused_pods {
        out.push_str(&format!("      {refused}\n"));
    }
    out
}

fn document(outcome: &Outcome) -> Value {
    json!({
        "object": outcome.named, "outcome": outcome.done, "refusal": outcome.refusal, "notTried": outcome.unasked,
        "fields": outcome.fields, "pods": outcome.outlook, "refusedPods": outcome.refused_pods,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_by_its_path() {
        let old = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}]}}}, "status": {"a": 1}});
        let mut new = old.clone();
        new["metadata"]["resourceVersion"] = "2".into();
        new["metadata"]["annotations"] = json!({LAST_APPLIED: "x"});
        new["status"] = Value::Null;
        assert_eq!(changes(&old, &new), Vec::<String>::new());
        new["spec"]["replicas"] = 5.into();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "x:2".into();
        new["metadata"]["annotations"]["why"] = "so".into();
        assert_eq!(
            changes(&old, &new),
            [
                "metadata.annotations.why: (none) -> so",
                "spec.replicas: 3 -> 5",
                "spec.template.spec.containers[a].image: x:1 -> x:2",
            ]
        );
    }
}
