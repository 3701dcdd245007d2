//! `timeline TYPE/NAME`: what happened to an object and what belongs to it, in order, as far as the server remembers.

use clap::Args;
use serde_json::json;
use stead_api::typed;
use stead_diagnosis::{text, timeline};

use crate::builder::{self, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::look::look;
use crate::print::{json as as_json, yaml};
use crate::session::Session;

/// Whose history.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE/NAME or TYPE NAME: a StatefulSet, a pod, or any other object.
    words: Vec<String>,
    /// json, yaml
    #[arg(short = 'o', long)]
    output: Option<String>,
}

/// Prints it, oldest first.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let output = flags.output.as_deref().filter(|o| !o.is_empty());
    if let Some(other) = output.filter(|o| !matches!(*o, "json" | "yaml")) {
        return plain(format!(
            "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,yaml"
        ));
    }
    let targets = builder::targets(session, &Question { words: &flags.words, ..Question::default() }).await?;
    let server = session.server().await?;
    let (found, mut failures) = builder::fetch(session, &targets).await;
    for target in &targets {
        let Some(name) = target.name.as_deref() else { continue };
        let namespace = match &target.namespace {
            Some(namespace) => namespace.clone(),
            None => session.namespace().await?.to_owned(),
        };
        let snapshot = look(&server.client, &namespace).await.map_err(|error| server.failure(error))?;
        let entries = match target.resource.kind.as_str() {
            "StatefulSet" => timeline::of_set(&snapshot, name),
            "Pod" => timeline::of_pod(&snapshot, name),
            kind => {
                let object = found.iter().find(|found| found.name == name && found.resource.kind == kind);
                let meta = object.and_then(|found| typed::from_value(&found.object["metadata"]).ok());
                let meta = meta.unwrap_or_else(|| k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                    name: Some(name.to_owned()),
                    ..Default::default()
                });
                timeline::of_any(&snapshot, kind, &meta)
            }
        };
        // What is gone still has events; only what nobody remembers is an error.
        if !entries.is_empty() {
            failures.retain(|failure| !failure.is_not_found());
        }
        match output {
            None => {
                session.out(&timeline::text(&entries))?;
                session.out(&text::unread(
                    &snapshot.unread.iter().filter(|one| matters(&one.resource)).cloned().collect::<Vec<_>>(),
                ))?;
            }
            Some("yaml") => session.out(&yaml(&json!({"entries": entries})))?,
            Some(_) => session.out(&(as_json(&json!({"entries": entries})) + "\n"))?,
        }
    }
    match failures.len() {
        0 => Ok(()),
        _ => all(failures).map_err(|failure| match failure {
            Failure::Many(mut many) if many.len() == 1 => many.remove(0),
            other => other,
        }),
    }
}

/// Whether a kind has a part in what is printed.
fn matters(resource: &str) -> bool {
    ["events", "pods", "persistentvolumeclaims", "statefulsets.apps", "controllerrevisions.apps"].contains(&resource)
}
