//! `describe`: reads objects with what belongs to them, and prints their pages.

use clap::Args;
use serde_json::Value;

use crate::builder::{self, Found, Question, Target};
use crate::describe::routing::services_of;
use crate::describe::{Backend, Related, has_events, page, selector_text};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::print::{at, list};
use crate::session::Session;

/// What to describe.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE, TYPE NAME (or its beginning) ..., or TYPE/NAME ...
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    show_events: bool,
    #[arg(long, hide = true)]
    chunk_size: Option<i64>,
}

/// Prints the pages, a blank line between them.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if flags.words.is_empty() && flags.files.is_empty() {
        return plain(
            "You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.",
        );
    }
    let question = Question {
        words: &flags.words,
        files: flags.files.clone(),
        selector: flags.selector.as_deref(),
        all_namespaces: flags.all_namespaces,
        bare_type: true,
        ..Question::default()
    };
    let targets = builder::targets(session, &question).await?;
    let (mut first, mut any, mut failures) = (true, false, Vec::new());
    for target in &targets {
        let (found, errors, close) = matching(session, target).await;
        failures.extend(errors);
        for found in found {
            any = true;
            match one(session, &found, flags.show_events).await {
                Ok(text) => {
                    session.out(&match (close, first) {
                        (true, _) => format!("{text}\n"),
                        (false, true) => text,
                        (false, false) => format!("\n\n{text}"),
                    })?;
                    first = false;
                }
                Err(failure) => failures.push(failure),
            }
        }
    }
    if !any && failures.is_empty() {
        session.err(&match flags.all_namespaces {
            true => "No resources found\n".to_owned(),
            false => format!("No resources found in {} namespace.\n", session.namespace().await?),
        });
    }
    all(failures)
}

/// The object of that name; without one, all whose names begin so, and that it is those.
async fn matching(session: &Session, target: &Target) -> (Vec<Found>, Vec<Failure>, bool) {
    let (found, failures) = builder::fetch(session, std::slice::from_ref(target)).await;
    let missing = failures.first().is_some_and(Failure::is_not_found);
    let Some(prefix) = target.name.clone().filter(|_| missing) else { return (found, failures, false) };
    let every = Target { name: None, ..target.clone() };
    let (all, errors) = builder::fetch(session, &[every]).await;
    let close: Vec<Found> = all.into_iter().filter(|found| found.name.starts_with(&prefix)).collect();
    if close.is_empty() || !errors.is_empty() { (Vec::new(), failures, false) } else { (close, Vec::new(), true) }
}

async fn one(session: &Session, found: &Found, events: bool) -> Result<String> {
    let mut related = Related { now: jiff::Timestamp::now(), ..Related::default() };
    belongs(session, found, &mut related).await?;
    if events && has_events(&found.resource.group, &found.resource.kind) {
        related.events = Some(events_of(session, found).await.unwrap_or_default());
    }
    Ok(page(&found.resource.group, &found.resource.kind, &found.object, &related))
}

/// Reads what the page of a kind shows beside the object.
async fn belongs(session: &Session, found: &Found, related: &mut Related) -> Result {
    let (object, namespace) = (&found.object, found.namespace.as_deref());
    let name = &found.name;
    match (&*found.resource.group, &*found.resource.kind) {
        ("apps", "StatefulSet" | "ReplicaSet" | "DaemonSet") => {
            related.pods = owned(session, "", "Pod", namespace, object).await?;
        }
        ("apps", "Deployment") => {
            related.replica_sets = owned(session, "apps", "ReplicaSet", namespace, object).await?;
            related
                .replica_sets
                .sort_by(|a, b| at(a, "/metadata/creationTimestamp").cmp(at(b, "/metadata/creationTimestamp")));
        }
        ("", "ReplicationController") => related.pods = selected_pods(session, namespace, object).await?,
        ("networking.k8s.io", "Ingress") => {
            for service in services_of(object) {
                related.backends.push(backend(session, namespace, service).await);
            }
        }
        ("", "PersistentVolumeClaim") => {
            let pods = read(session, "", "Pod", namespace, vec![]).await?;
            related.pods = pods.into_iter().filter(|pod| uses(pod, name)).collect();
        }
        ("", "Service") => {
            let query = vec![("labelSelector", format!("kubernetes.io/service-name={name}"))];
            related.endpoint_slices = read(session, "discovery.k8s.io", "EndpointSlice", namespace, query).await?;
        }
        ("", "Node") => {
            let query =
                vec![("fieldSelector", format!("spec.nodeName={name},status.phase!=Failed,status.phase!=Succeeded"))];
            related.pods = read(session, "", "Pod", None, query).await?;
            related.lease =
                session.read("coordination.k8s.io", "Lease", "kube-node-lease", name).await.unwrap_or_default();
        }
        ("", "Namespace") => {
            related.quotas = read(session, "", "ResourceQuota", Some(name), vec![]).await?;
            related.limits = read(session, "", "LimitRange", Some(name), vec![]).await?;
        }
        ("", "ServiceAccount") => {
            let query = vec![("fieldSelector", "type=kubernetes.io/service-account-token".to_owned())];
            let secrets = read(session, "", "Secret", namespace, query).await?;
            let own = |secret: &Value| {
                secret["metadata"]["annotations"]["kubernetes.io/service-account.name"] == name.as_str()
            };
            related.secrets = secrets.into_iter().filter(own).collect();
        }
        _ => {}
    }
    Ok(())
}

async fn read(
    session: &Session,
    group: &str,
    kind: &str,
    namespace: Option<&str>,
    query: Vec<(&'static str, String)>,
) -> Result<Vec<Value>> {
    let resource = session.kind(group, kind).await?;
    let mut answer = session.server().await?.list(&resource.path(namespace), &query, "application/json").await?;
    Ok(answer.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default())
}

/// The objects that a selector finds and the owner controls.
async fn owned(
    session: &Session,
    group: &str,
    kind: &str,
    namespace: Option<&str>,
    owner: &Value,
) -> Result<Vec<Value>> {
    let query = vec![("labelSelector", selector_text(&owner["spec"]["selector"]))];
    let uid = &owner["metadata"]["uid"];
    let controlled = |item: &Value| {
        list(item, "/metadata/ownerReferences").iter().any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    Ok(read(session, group, kind, namespace, query).await?.into_iter().filter(controlled).collect())
}

/// The pods of a ReplicationController.
async fn selected_pods(session: &Session, namespace: Option<&str>, owner: &Value) -> Result<Vec<Value>> {
    let query = vec![("labelSelector", crate::print::pairs(&owner["spec"]["selector"]).join(","))];
    let uid = &owner["metadata"]["uid"];
    let controlled = |item: &Value| {
        list(item, "/metadata/ownerReferences").iter().any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    Ok(read(session, "", "Pod", namespace, query).await?.into_iter().filter(controlled).collect())
}

/// A Service that an Ingress leads to, with its addresses.
async fn backend(session: &Session, namespace: Option<&str>, name: String) -> Backend {
    let query = vec![("labelSelector", format!("kubernetes.io/service-name={name}"))];
    let slices = read(session, "discovery.k8s.io", "EndpointSlice", namespace, query).await;
    let service = session.read("", "Service", namespace.unwrap_or_default(), &name).await;
    let service = service.map_err(|failure| failure.message());
    Backend { name, service, slices: slices.unwrap_or_default() }
}

/// Whether a pod mounts a claim, by its name or as a volume of its own.
fn uses(pod: &Value, claim: &str) -> bool {
    let own = |volume: &Value| {
        volume["ephemeral"].is_object() && format!("{}-{}", at(pod, "/metadata/name"), at(volume, "/name")) == claim
    };
    list(pod, "/spec/volumes")
        .iter()
        .any(|volume| at(volume, "/persistentVolumeClaim/claimName") == claim || own(volume))
}

async fn events_of(session: &Session, found: &Found) -> Result<Vec<Value>> {
    let resource = session.kind("", "Event").await?;
    let uid = at(&found.object, "/metadata/uid");
    // A node's events name it by its uid or by its name.
    let uids = if found.resource.is("", "Node") { vec![uid, &found.name] } else { vec![uid] };
    let mut events = Vec::new();
    for uid in uids {
        let mut fields = format!(
            "involvedObject.name={},involvedObject.kind={},involvedObject.uid={uid}",
            found.name, found.resource.kind
        );
        if let Some(namespace) = &found.namespace {
            fields.push_str(&format!(",involvedObject.namespace={namespace}"));
        }
        let path = resource.path(found.namespace.as_deref());
        let query = [("fieldSelector", fields)];
        let mut answer = session.server().await?.list(&path, &query, "application/json").await?;
        events.extend(answer.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default());
    }
    Ok(events)
}
