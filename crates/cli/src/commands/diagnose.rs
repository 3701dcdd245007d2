//! `explain TYPE/NAME`: why an object is not (yet) as it is wanted, down to the cause, with evidence and mend.
//!
//! Exit code 0: it is as wanted; 2: it is not; 1: that could not be found out. The diagnosis itself is `stead-diagnosis`.

use serde_json::{Value, json};
use stead_api::typed;
use stead_diagnosis::{Listed, Report, Snapshot, Target, explain, text};

use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::look::look;
use crate::print::{json as as_json, yaml};
use crate::session::Session;

/// Exit code when something is not as wanted.
pub(crate) const NOT_AS_WANTED: u8 = 2;

/// Explains each of `TYPE/NAME ...`.
pub(crate) async fn run(session: &Session, words: &[String], output: Option<&str>) -> Result {
    if let Some(other) = output.filter(|o| !matches!(*o, "" | "json" | "yaml")) {
        return plain(format!(
            "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,yaml"
        ));
    }
    let (found, failures) = builder::find(session, &Question { words, ..Question::default() }).await?;
    let mut looked: Option<(String, Snapshot)> = None;
    let (mut wrong, mut documents) = (false, Vec::new());
    for found in found {
        let namespace = match &found.namespace {
            Some(namespace) => namespace.clone(),
            None => session.namespace().await?.to_owned(),
        };
        if looked.as_ref().is_none_or(|(known, _)| *known != namespace) {
            let server = session.server().await?;
            let snapshot = look(&server.client, &namespace).await.map_err(|error| server.failure(error))?;
            looked = Some((namespace, snapshot));
        }
        let Some((_, snapshot)) = &mut looked else { continue };
        let report = one(snapshot, &found)?;
        wrong |= report.worst().is_some();
        if output.is_none() {
            session.out(&text::report(&report))?;
        } else {
            documents.push(document(&report));
        }
    }
    if let Some((_, snapshot)) = &looked {
        match output {
            Some(format) => {
                let whole = json!({"reports": documents, "notRead": snapshot.unread});
                session.out(&if format == "yaml" { yaml(&whole) } else { as_json(&whole) + "\n" })?;
            }
            None => session.out(&text::unread(&snapshot.unread))?,
        }
    }
    all(failures)?;
    if wrong { Err(Failure::Code(NOT_AS_WANTED)) } else { Ok(()) }
}

fn document(report: &Report) -> Value {
    let mut value = json!(report);
    value["asWanted"] = report.worst().is_none().into();
    value
}

/// The report of one object, which is put into the snapshot where its kind could not be listed.
fn one(snapshot: &mut Snapshot, found: &Found) -> Result<Report> {
    let (kind, name) = (found.resource.kind.as_str(), found.name.clone());
    let target = match (found.resource.group.as_str(), kind) {
        ("apps", "StatefulSet") => {
            add(&mut snapshot.sets, found)?;
            Target::Set(name)
        }
        ("", "Pod") => {
            add(&mut snapshot.pods, found)?;
            Target::Pod(name)
        }
        ("", "PersistentVolumeClaim") => {
            add(&mut snapshot.claims, found)?;
            Target::Claim(name)
        }
        ("", "Service") => {
            add(&mut snapshot.services, found)?;
            Target::Service(name)
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            add(&mut snapshot.autoscalers, found)?;
            Target::Autoscaler(name)
        }
        ("apps", "Deployment" | "ReplicaSet" | "DaemonSet") | ("batch", "Job") => {
            let wanted = ["/spec/replicas", "/status/desiredNumberScheduled", "/spec/parallelism"]
                .iter()
                .find_map(|path| found.object.pointer(path)?.as_i64());
            let uid = found.object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            Target::Workload {
                kind: kind.to_lowercase(),
                name,
                uid,
                wanted: wanted.and_then(|n| i32::try_from(n).ok()),
            }
        }
        _ => {
            return plain(format!(
                "{}: only statefulsets, pods, persistentvolumeclaims, services, deployments, replicasets, daemonsets, jobs and horizontalpodautoscalers can be explained",
                found.named()
            ));
        }
    };
    explain(snapshot, &target).ok_or_else(|| Failure::Plain(format!("{} has gone meanwhile", found.named())))
}

fn add<K: serde::de::DeserializeOwned>(listed: &mut Listed<K>, found: &Found) -> Result {
    let object = typed::from_value(&found.object)
        .map_err(|error| Failure::Plain(format!("{} cannot be understood: {error}", found.named())))?;
    listed.0.get_or_insert_default().entry(found.name.clone()).or_insert(object);
    Ok(())
}
