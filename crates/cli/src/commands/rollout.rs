//! `rollout`: status, history, undo, restart, pause and resume of Deployments, StatefulSets and DaemonSets.
//!
//! Pausing works for StatefulSets too, which upstream refuses: the annotation `stead.dev/paused` on the set.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/rollout`, `k8s.io/kubectl/pkg/polymorphichelpers`.

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::common::{Change, DryRun, JSON_PATCH, STRATEGIC, Selection, Teller, duration};
use crate::builder::{Found, Question};
use crate::describe::template::pod_template;
use crate::failure::{Failure, Result, all, plain};
use crate::print::table::tabulate;
use crate::print::{at, int, list};
use crate::session::Session;

/// Holds the roll-out of a StatefulSet while it is "true".
const PAUSED: &str = "stead.dev/paused";
/// A companion rolls such a set out, from the partition that it names on.
const MANAGED: &str = "stead.dev/managed";
const PARTITION: &str = "stead.dev/partition";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";

/// Sub-commands of `rollout`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Show how far it is, until it is done.
    Status {
        #[command(flatten)]
        common: Common,
        #[arg(short = 'w', long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
        watch: bool,
        /// How long to watch; 0 for as long as it takes.
        #[arg(long, default_value = "0s")]
        timeout: String,
        /// Only this revision.
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// The revisions there are, or one of them.
    History {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Back to an earlier revision.
    Undo {
        #[command(flatten)]
        common: Common,
        /// 0 is the one before.
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Start all pods anew.
    Restart(Common),
    /// Hold it.
    Pause(Common),
    /// Let it go on.
    Resume(Common),
}

#[derive(Args, Clone, Debug)]
struct Common {
    /// TYPE NAME or TYPE/NAME
    words: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    change: Change,
}

/// Does it.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    match &flags.what {
        What::Status { common, watch, timeout, revision } => status(session, common, *watch, timeout, *revision).await,
        What::History { common, revision } => history(session, common, *revision).await,
        What::Undo { common, to_revision } => undo(session, common, *to_revision).await,
        What::Restart(common) => each(session, common, restart).await,
        What::Pause(common) => each(session, common, |found| pause(found, true)).await,
        What::Resume(common) => each(session, common, |found| pause(found, false)).await,
    }
}

async fn find(session: &Session, common: &Common) -> Result<(Vec<Found>, Vec<Failure>)> {
    if common.words.is_empty() && common.selection.files.is_empty() {
        return plain("required resource not specified");
    }
    let question = Question { bare_type: true, ..common.selection.question(&common.words) };
    crate::builder::find(session, &question).await
}

/// The three kinds that roll out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

fn kind(found: &Found) -> Option<Kind> {
    match (&*found.resource.group, &*found.resource.kind) {
        ("apps", "Deployment") => Some(Kind::Deployment),
        ("apps", "StatefulSet") => Some(Kind::StatefulSet),
        ("apps", "DaemonSet") => Some(Kind::DaemonSet),
        _ => None,
    }
}

/// A change of one object: the patch and its word, or none when it is so already and the word for that.
struct Step {
    patch: Option<(&'static str, Value)>,
    done: String,
}

async fn each(session: &Session, common: &Common, plan: impl Fn(&Found) -> Result<Step>) -> Result {
    let mut teller = Teller::new(session, &common.change, "kubectl-rollout")?;
    let (found, mut failures) = find(session, common).await?;
    for found in found {
        let done = async {
            let step = plan(&found)?;
            match step.patch {
                Some((media, patch)) => {
                    let object = teller.patch(session, &found, media, &patch).await?;
                    teller.tell(session, &found.resource, &object, &step.done)
                }
                None => plain(format!("{} {:?} {}", found.resource.group_resource(), found.name, step.done)),
            }
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

fn restart(found: &Found) -> Result<Step> {
    let what = format!("{} {:?}", found.resource.group_resource(), found.name);
    if kind(found).is_none() {
        return plain(format!("{what} restarting is not supported"));
    }
    if found.object["spec"]["paused"] == true {
        return plain(format!("{what} can't restart paused deployment (run rollout resume first)"));
    }
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z");
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
    Ok(Step { patch: Some((STRATEGIC, patch)), done: "restarted".into() })
}

fn pause(found: &Found, paused: bool) -> Result<Step> {
    let (already, done) = if paused { ("is already paused", "paused") } else { ("is not paused", "resumed") };
    let (is, patch) = match kind(found) {
        Some(Kind::Deployment) => (found.object["spec"]["paused"] == true, json!({"spec": {"paused": paused}})),
        Some(Kind::StatefulSet) => {
            let value = if paused { json!("true") } else { Value::Null };
            let is = found.object["metadata"]["annotations"][PAUSED] == "true";
            (is, json!({"metadata": {"annotations": {PAUSED: value}}}))
        }
        _ => {
            let word = if paused { "pausing" } else { "resuming" };
            return plain(format!("{} {:?} {word} is not supported", found.resource.group_resource(), found.name));
        }
    };
    Ok(Step {
        patch: (is != paused).then_some((STRATEGIC, patch)),
        done: if is == paused { already.into() } else { done.into() },
    })
}

/// How far a roll-out is.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    text: String,
    done: bool,
}

fn progress(found: &Found, object: &Value) -> Result<Progress> {
    let Some(kind) = kind(found) else {
        return plain(format!("no status viewer has been implemented for {}", found.resource.kind));
    };
    let going = |text: String| Ok(Progress { text: text + "\n", done: false });
    let done = |text: String| Ok(Progress { text: text + "\n", done: true });
    let (spec, status, name) = (&object["spec"], &object["status"], &found.name);
    let observed = int(status, "/observedGeneration");
    let behind = int(object, "/metadata/generation") > observed;
    let (wanted, updated) = (spec["replicas"].as_i64().unwrap_or(1), int(status, "/updatedReplicas"));
    match kind {
        Kind::Deployment if behind => going("Waiting for deployment spec update to be observed...".into()),
        Kind::Deployment => {
            let late = |c: &&Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
            if list(status, "/conditions").iter().any(|c| late(&c)) {
                return plain(format!("deployment {name:?} exceeded its progress deadline"));
            }
            let (all, available) = (int(status, "/replicas"), int(status, "/availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
            match () {
                () if updated < wanted => {
                    going(format!("{waiting} {updated} out of {wanted} new replicas have been updated..."))
                }
                () if all > updated => {
                    going(format!("{waiting} {} old replicas are pending termination...", all - updated))
                }
                () if available < updated => {
                    going(format!("{waiting} {available} of {updated} updated replicas are available..."))
                }
                () => done(format!("deployment {name:?} successfully rolled out")),
            }
        }
        Kind::StatefulSet if is_managed(object) => {
            let partition =
                object["metadata"]["annotations"][PARTITION].as_str().and_then(|text| text.trim().parse().ok());
            Ok(stateful_set_progress((spec, Some(partition.unwrap_or(0))), status, behind || observed == 0))
        }
        Kind::DaemonSet | Kind::StatefulSet if at(spec, "/updateStrategy/type") != "RollingUpdate" => {
            plain("rollout status is only available for RollingUpdate strategy type")
        }
        Kind::DaemonSet if behind => going("Waiting for daemon set spec update to be observed...".into()),
        Kind::DaemonSet => {
            let (wanted, updated) = (int(status, "/desiredNumberScheduled"), int(status, "/updatedNumberScheduled"));
            let available = int(status, "/numberAvailable");
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
            match () {
                () if updated < wanted => {
                    going(format!("{waiting} {updated} out of {wanted} new pods have been updated..."))
                }
                () if available < wanted => {
                    going(format!("{waiting} {available} of {wanted} updated pods are available..."))
                }
                () => done(format!("daemon set {name:?} successfully rolled out")),
            }
        }
        Kind::StatefulSet => {
            let partition = spec.pointer("/updateStrategy/rollingUpdate/partition").and_then(Value::as_i64);
            Ok(stateful_set_progress((spec, partition), status, behind || observed == 0))
        }
    }
}

/// Whether a companion rolls the set out.
fn is_managed(object: &Value) -> bool {
    at(object, "/spec/updateStrategy/type") == "OnDelete" && object["metadata"]["annotations"][MANAGED] == "true"
}

fn stateful_set_progress((spec, partition): (&Value, Option<i64>), status: &Value, behind: bool) -> Progress {
    let (wanted, updated) = (spec["replicas"].as_i64().unwrap_or(1), int(status, "/updatedReplicas"));
    let ready = int(status, "/readyReplicas");
    let (text, done) = match partition {
        _ if behind => ("Waiting for statefulset spec update to be observed...".to_owned(), false),
        _ if ready < wanted => (format!("Waiting for {} pods to be ready...", wanted - ready), false),
        Some(partition) if updated < wanted - partition => {
            let new = wanted - partition;
            (
                format!(
                    "Waiting for partitioned roll out to finish: {updated} out of {new} new pods have been updated..."
                ),
                false,
            )
        }
        Some(_) => (format!("partitioned roll out complete: {updated} new pods have been updated..."), true),
        None if status["updateRevision"] != status["currentRevision"] => {
            let revision = at(status, "/updateRevision");
            (
                format!("waiting for statefulset rolling update to complete {updated} pods at revision {revision}..."),
                false,
            )
        }
        None => {
            let (current, revision) = (int(status, "/currentReplicas"), at(status, "/currentRevision"));
            (format!("statefulset rolling update complete {current} pods at revision {revision}..."), true)
        }
    };
    Progress { text: text + "\n", done }
}

async fn status(session: &Session, common: &Common, watch: bool, timeout: &str, revision: i64) -> Result {
    let limit = duration(timeout)?;
    let (found, mut failures) = find(session, common).await?;
    for found in found {
        let following = follow(session, &found, watch, revision);
        let outcome = if limit.is_zero() {
            following.await
        } else {
            tokio::time::timeout(limit, following)
                .await
                .unwrap_or_else(|_| plain("timed out waiting for the condition"))
        };
        if let Err(failure) = outcome {
            failures.push(failure);
        }
    }
    all(failures)
}

async fn follow(session: &Session, found: &Found, watch: bool, revision: i64) -> Result {
    let server = session.server().await?;
    let mut object = found.object.clone();
    loop {
        if revision > 0
            && at(&object, "/metadata/annotations/deployment.kubernetes.io~1revision") != revision.to_string()
        {
            return plain(format!(
                "desired revision ({revision}) is different from the running revision ({})",
                at(&object, "/metadata/annotations/deployment.kubernetes.io~1revision")
            ));
        }
        let now = progress(found, &object)?;
        session.out(&now.text)?;
        if now.done || !watch {
            return Ok(());
        }
        let version = at(&object, "/metadata/resourceVersion").to_owned();
        let query = vec![("fieldSelector", format!("metadata.name={}", found.name)), ("resourceVersion", version)];
        let path = found.resource.path(found.namespace.as_deref());
        let mut events = server.watch(&path, query, "application/json").await?;
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(Failure::Api(_)) => break,
                Err(failure) => return Err(failure),
            };
            if event["type"] == "DELETED" {
                return plain("object has been deleted");
            }
            if event["type"] == "BOOKMARK" {
                continue;
            }
            object = event["object"].clone();
            let now = progress(found, &object)?;
            session.out(&now.text)?;
            if now.done {
                return Ok(());
            }
        }
        object = server.get(&found.path()).await?;
    }
}

/// One revision of an object: its number, why it came to be, what holds it.
#[derive(Debug)]
struct Revision {
    number: i64,
    cause: String,
    /// A ControllerRevision or a ReplicaSet.
    object: Value,
}

async fn revisions(session: &Session, found: &Found) -> Result<Vec<Revision>> {
    let Some(kind) = kind(found) else {
        return plain(format!("no history viewer has been implemented for {:?}", found.resource.group_kind()));
    };
    let holder = if kind == Kind::Deployment { "ReplicaSet" } else { "ControllerRevision" };
    let resource = session.kind("apps", holder).await?;
    let selector = crate::describe::selector_text(&found.object["spec"]["selector"]);
    let query = [("labelSelector", selector)];
    let all =
        session.server().await?.list(&resource.path(found.namespace.as_deref()), &query, "application/json").await?;
    Ok(owned_revisions(&all, &found.object, kind))
}

fn owned_revisions(all: &Value, owner: &Value, kind: Kind) -> Vec<Revision> {
    let uid = &owner["metadata"]["uid"];
    let owned = |item: &&Value| {
        list(item, "/metadata/ownerReferences").iter().any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let mut found: Vec<Revision> = list(all, "/items")
        .iter()
        .filter(owned)
        .map(|item| Revision {
            number: match kind {
                Kind::Deployment => item["metadata"]["annotations"][DEPLOYMENT_REVISION]
                    .as_str()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0),
                Kind::StatefulSet | Kind::DaemonSet => int(item, "/revision"),
            },
            cause: item["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or_default().to_owned(),
            object: item.clone(),
        })
        .filter(|revision| revision.number > 0)
        .collect();
    found.sort_by_key(|revision| revision.number);
    found
}

async fn history(session: &Session, common: &Common, revision: i64) -> Result {
    let (found, mut failures) = find(session, common).await?;
    for found in found {
        match revisions(session, &found).await.and_then(|all| shown_history(&found, &all, revision)) {
            Ok(text) => session.out(&text)?,
            Err(failure) => failures.push(failure),
        }
    }
    all(failures)
}

fn shown_history(found: &Found, revisions: &[Revision], number: i64) -> Result<String> {
    if number > 0 {
        let Some(revision) = revisions.iter().find(|revision| revision.number == number) else {
            return plain("unable to find the specified revision");
        };
        let template = template_of(found, revision)?;
        return Ok(format!("{} with revision #{number}\n{}\n", found.named(), pod_template(&template, 0)));
    }
    if revisions.is_empty() {
        return Ok(format!("{} No rollout history found.\n", found.named()));
    }
    let cause =
        |revision: &Revision| if revision.cause.is_empty() { "<none>".to_owned() } else { revision.cause.clone() };
    let lines: String =
        revisions.iter().map(|revision| format!("{}\t{}\n", revision.number, cause(revision))).collect();
    Ok(format!("{} \n{}\n", found.named(), tabulate(&format!("REVISION\tCHANGE-CAUSE\n{lines}"), 2)))
}

/// The pod template of a revision.
fn template_of(found: &Found, revision: &Revision) -> Result<Value> {
    if kind(found) == Some(Kind::Deployment) {
        return Ok(revision.object["spec"]["template"].clone());
    }
    Ok(super::common::merged(&found.resource, &found.object, STRATEGIC, &revision.object["data"])?["spec"]["template"]
        .clone())
}

async fn undo(session: &Session, common: &Common, to: i64) -> Result {
    if to < 0 {
        return plain(format!("revision must be a positive integer: {to}"));
    }
    let mut teller = Teller::new(session, &common.change, "kubectl-rollout")?;
    let (found, mut failures) = find(session, common).await?;
    for found in found {
        let done = async {
            if kind(&found).is_none() {
                return plain(format!("no rollbacker has been implemented for {:?}", found.resource.group_kind()));
            }
            let revisions = revisions(session, &found).await?;
            let step = rollback(&found, &revisions, to)?;
            if let Some((media, patch)) = step.patch
                && teller.dry_run != DryRun::Client
            {
                teller.patch(session, &found, media, &patch).await?;
            }
            teller.tell(session, &found.resource, &found.object, &step.done)
        };
        if let Err(failure) = done.await {
            failures.push(failure);
        }
    }
    all(failures)
}

fn rollback(found: &Found, revisions: &[Revision], to: i64) -> Result<Step> {
    if found.object["spec"]["paused"] == true {
        return plain(format!(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again: deployments.apps {:?}",
            found.name
        ));
    }
    let revision = if to > 0 {
        revisions.iter().find(|revision| revision.number == to)
    } else {
        revisions.len().checked_sub(2).and_then(|before| revisions.get(before))
    };
    let Some(revision) = revision else {
        return match (to, kind(found)) {
            (0, Some(Kind::Deployment)) => plain(format!("no rollout history found for deployment {:?}", found.name)),
            (0, _) => plain("no last revision to roll back to"),
            (to, Some(Kind::Deployment)) => plain(format!("unable to find specified revision {to} in history")),
            (to, _) => plain(format!("unable to find specified revision {to} in history")),
        };
    };
    let same = || format!("skipped rollback (current template already matches revision {})", revision.number);
    if kind(found) == Some(Kind::Deployment) {
        let mut template = revision.object["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        if template == found.object["spec"]["template"] {
            return Ok(Step { patch: None, done: same() });
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        return Ok(Step { patch: Some((JSON_PATCH, patch)), done: "rolled back".into() });
    }
    let target = super::common::merged(&found.resource, &found.object, STRATEGIC, &revision.object["data"])?;
    if target["spec"]["template"] == found.object["spec"]["template"] {
        return Ok(Step { patch: None, done: same() });
    }
    Ok(Step { patch: Some((STRATEGIC, revision.object["data"].clone())), done: "rolled back".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::usual;

    fn found(word: &str, object: Value) -> Found {
        let resource = usual().find(word).expect("there");
        Found { resource, namespace: Some("default".into()), name: "web".into(), object, source: String::new() }
    }

    #[test]
    fn a_stateful_set_says_how_far_it_is() {
        let of = |generation: i64, ready: i64, updated: i64, partition: Option<i64>| {
            let mut set = json!({"metadata": {"generation": generation},
                "spec": {"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}},
                "status": {"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated, "currentReplicas": 3,
                    "currentRevision": "web-a", "updateRevision": "web-a"}});
            if let Some(partition) = partition {
                set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"partition": partition});
            }
            let progress = progress(&found("sts", set.clone()), &set).expect("rolls");
            format!("{}{}", if progress.done { "done: " } else { "" }, progress.text.trim_end())
        };
        for (progress, wanted) in [
            (of(3, 3, 3, None), "Waiting for statefulset spec update to be observed..."),
            (of(2, 1, 3, Some(0)), "Waiting for 2 pods to be ready..."),
            (
                of(2, 3, 1, Some(1)),
                "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...",
            ),
            (of(2, 3, 3, Some(0)), "done: partitioned roll out complete: 3 new pods have been updated..."),
            (of(2, 3, 3, None), "done: statefulset rolling update complete 3 pods at revision web-a..."),
        ] {
            assert_eq!(progress, wanted);
        }
    }

    #[test]
    fn pausing_is_told_once_and_marks_a_stateful_set() {
        let running = found("sts", json!({"metadata": {}}));
        let step = pause(&running, true).expect("supported");
        assert_eq!(step.patch.expect("changes").1, json!({"metadata": {"annotations": {PAUSED: "true"}}}));
        let paused = found("sts", json!({"metadata": {"annotations": {PAUSED: "true"}}}));
        assert_eq!(pause(&paused, true).expect("supported").done, "is already paused");
        assert_eq!(pause(&paused, false).expect("supported").done, "resumed");
        assert!(pause(&found("ds", json!({})), true).is_err());
    }

    #[test]
    fn history_lists_revisions_and_undo_takes_the_one_before() {
        let set = found(
            "sts",
            json!({"metadata": {"uid": "u"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}),
        );
        let revision = |number: i64, image: &str| {
            json!({"metadata": {"ownerReferences": [{"uid": "u", "controller": true}]}, "revision": number,
            "data": {"spec": {"template": {"$patch": "replace", "spec": {"containers": [{"name": "a", "image": image}]}}}}})
        };
        let all = owned_revisions(
            &json!({"items": [revision(2, "2"), revision(1, "1"), {"revision": 9}]}),
            &set.object,
            Kind::StatefulSet,
        );
        assert_eq!(
            shown_history(&set, &all, 0).expect("shown"),
            "statefulset.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
        );
        assert_eq!(rollback(&set, &all, 0).expect("planned").done, "rolled back");
        assert_eq!(
            rollback(&set, &all, 2).expect("planned").done,
            "skipped rollback (current template already matches revision 2)"
        );
        assert_eq!(
            rollback(&set, &all, 7).err().map(|f| f.message()).as_deref(),
            Some("unable to find specified revision 7 in history")
        );
        assert_eq!(
            shown_history(&set, &all, 7).err().map(|f| f.message()).as_deref(),
            Some("unable to find the specified revision")
        );
    }
}
