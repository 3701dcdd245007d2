//! `delete`: objects by file, name or selector; waits until they are gone.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/delete`.

use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use http::Method;
use serde_json::{Value, json};

use super::common::{DryRun, duration};
use crate::builder::{self, Found, Question};
use crate::failure::{Failure, Result, all, plain};
use crate::manifest::Files;
use crate::server::Call;
use crate::session::Session;

/// What to delete and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// TYPE NAME ..., TYPE/NAME ..., or TYPE with a selector or --all.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Field selector.
    #[arg(long)]
    field_selector: Option<String>,
    /// All of the resource in the namespace.
    #[arg(long)]
    all: bool,
    /// In all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// What becomes of dependents: background, orphan, foreground.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "background", default_missing_value = "background")]
    cascade: String,
    /// Seconds that the object gets to end; negative: what it asks for.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    grace_period: i64,
    /// Remove from the API at once.
    #[arg(long)]
    force: bool,
    /// The same as --grace-period=1.
    #[arg(long)]
    now: bool,
    /// No error for what does not exist.
    #[arg(long)]
    ignore_not_found: bool,
    /// Wait until it is gone.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    wait: bool,
    /// How long to wait, such as 30s; 0 for as long as it takes.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// none, client, server
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "unchanged")]
    dry_run: String,
    /// name
    #[arg(short = 'o', long)]
    output: Option<String>,
    /// A URL path to delete.
    #[arg(long)]
    raw: Option<String>,
}

/// How one object is deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    /// Background, Orphan, Foreground; empty for Background.
    pub(crate) propagation: &'static str,
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) dry_run: bool,
}

/// Deletes, telling each; then waits.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if let Some(raw) = &flags.raw {
        if !flags.words.is_empty() {
            return plain("arguments may not be passed when --raw is specified");
        }
        return session.out(&session.server().await?.text(Call::new(Method::DELETE, raw)).await?);
    }
    let dry_run = DryRun::parse(session, &flags.dry_run)?;
    let output = flags.output.as_deref().unwrap_or_default();
    if !matches!(output, "" | "name") {
        return plain(format!("unexpected -o output mode: {output}. We only support '-o name'"));
    }
    let how = How {
        propagation: propagation(session, &flags.cascade)?,
        grace_seconds: grace(&flags)?,
        dry_run: dry_run == DryRun::Server,
    };
    let question = Question {
        words: &flags.words,
        files: flags.files.clone(),
        selector: flags.selector.as_deref(),
        fields: flags.field_selector.as_deref(),
        all: flags.all,
        all_namespaces: flags.all_namespaces,
        bare_type: false,
    };
    let named = flags.words.len() > 1 || flags.words.first().is_some_and(|word| word.contains('/'));
    let targets = builder::targets(session, &question).await?;
    let from_files = !flags.files.is_empty();
    let (found, mut failures) =
        if from_files || named { (taken(&targets), Vec::new()) } else { builder::fetch(session, &targets).await };
    if flags.force && dry_run != DryRun::Client {
        session.err("Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely.\n");
    }
    let ignore = flags.ignore_not_found || flags.all;
    let mut waiting = Vec::new();
    let nothing = found.is_empty();
    for found in found {
        match one(session, &found, &how, dry_run).await {
            Ok(answer) => {
                session.out(&told(&found, output == "name", flags.force, dry_run))?;
                waiting.push((found, uid_of(&answer)));
            }
            Err(failure) if ignore && failure.is_not_found() => {}
            Err(failure) if from_files => failures.push(failure.when("deleting", &found.source)),
            Err(failure) => failures.push(failure),
        }
    }
    if nothing && failures.is_empty() {
        session.out("No resources found\n")?;
    }
    if flags.wait && dry_run == DryRun::None {
        let limit = duration(&flags.timeout)?;
        let limit = (!limit.is_zero()).then_some(limit);
        for (found, uid) in waiting {
            if let Err(failure) = until_gone(session, &found, uid.as_deref(), limit).await {
                failures.push(failure);
            }
        }
    }
    all(failures)
}

/// Objects that are named need not be read before they are deleted.
fn taken(targets: &[builder::Target]) -> Vec<Found> {
    let one = |target: &builder::Target| Found {
        resource: target.resource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone().unwrap_or_default(),
        object: target.object.clone().unwrap_or_default(),
        source: target.source.clone(),
    };
    targets.iter().map(one).collect()
}

/// The server's word for what becomes of dependents.
pub(super) fn propagation(session: &Session, flag: &str) -> Result<&'static str> {
    match flag {
        "background" => Ok("Background"),
        "foreground" => Ok("Foreground"),
        "orphan" => Ok("Orphan"),
        "true" => {
            session.err("warning: --cascade=true is deprecated (boolean value) and can be replaced with --cascade=background.\n");
            Ok("Background")
        }
        "false" => {
            session.err(
                "warning: --cascade=false is deprecated (boolean value) and can be replaced with --cascade=orphan.\n",
            );
            Ok("Orphan")
        }
        other => {
            plain(format!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""))
        }
    }
}

/// The seconds that the object gets; none for what it asks for itself.
fn grace(flags: &Flags) -> Result<Option<i64>> {
    let period = match (flags.now, flags.grace_period) {
        (true, period) if period >= 0 => return plain("--now and --grace-period cannot be specified together"),
        (true, _) => 1,
        (false, period) => period,
    };
    Ok(match (flags.force, period) {
        (true, period) if period < 0 => Some(0),
        // Zero removes the object while its containers still run: that needs --force.
        (false, 0) => Some(1),
        (true, period) if period > 0 => {
            return plain("--force and --grace-period greater than 0 cannot be specified together");
        }
        (_, period) => (period >= 0).then_some(period),
    })
}

async fn one(session: &Session, found: &Found, how: &How, dry_run: DryRun) -> Result<Value> {
    if dry_run == DryRun::Client {
        // The object has to be there all the same.
        return session.server().await?.get(&found.path()).await;
    }
    delete(session, found, how).await
}

/// Asks the server to delete an object.
pub(crate) async fn delete(session: &Session, found: &Found, how: &How) -> Result<Value> {
    let propagation = if how.propagation.is_empty() { "Background" } else { how.propagation };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation});
    if let Some(seconds) = how.grace_seconds {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if how.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    let path = found.path();
    let call = Call::new(Method::DELETE, &path).body("application/json", options.to_string().into_bytes());
    session.server().await?.send(call).await
}

/// Deletes an object and waits until it is gone; being gone already is success.
pub(crate) async fn gone(session: &Session, found: &Found, how: &How, limit: Option<Duration>) -> Result {
    match delete(session, found, how).await {
        Ok(answer) => until_gone(session, found, uid_of(&answer).as_deref(), limit).await,
        Err(failure) if failure.is_not_found() => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// The deleted object's uid, from the object or the Status that the server answered.
pub(super) fn uid_of(answer: &Value) -> Option<String> {
    let uid = if answer["kind"] == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
    uid.as_str().map(str::to_owned)
}

/// What is said of an object that was deleted.
pub(super) fn told(found: &Found, name_only: bool, force: bool, dry_run: DryRun) -> String {
    if name_only {
        return format!("{}\n", found.named());
    }
    let done = if force { "force deleted" } else { "deleted" };
    format!("{} {:?} {done}{}\n", found.resource.group_kind(), found.name, dry_run.suffix())
}

/// Waits for the end of the object with that uid.
pub(crate) async fn until_gone(session: &Session, found: &Found, uid: Option<&str>, limit: Option<Duration>) -> Result {
    let waiting = gone_by_watch(session, found, uid);
    match limit {
        None => waiting.await,
        Some(limit) => match tokio::time::timeout(limit, waiting).await {
            Ok(done) => done,
            Err(_) => plain(format!("timed out waiting for the condition on {}/{}", found.resource.plural, found.name)),
        },
    }
}

async fn gone_by_watch(session: &Session, found: &Found, uid: Option<&str>) -> Result {
    let server = session.server().await?;
    let list = found.resource.path(found.namespace.as_deref());
    loop {
        let live = match server.get(&found.path()).await {
            Ok(live) => live,
            Err(failure) if failure.is_not_found() => return Ok(()),
            Err(failure) => return Err(failure),
        };
        if uid.is_some_and(|uid| live["metadata"]["uid"] != uid) {
            return Ok(());
        }
        let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let query = vec![("fieldSelector", format!("metadata.name={}", found.name)), ("resourceVersion", version)];
        let mut events = match server.watch(&list, query, "application/json").await {
            Ok(events) => events,
            // What cannot be watched is taken as gone when the server said so.
            Err(Failure::Api(_)) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(event) if event["type"] == "DELETED" => return Ok(()),
                Ok(event) if uid.is_some_and(|uid| event["object"]["metadata"]["uid"] != uid) => return Ok(()),
                Ok(_) => {}
                // The watch is too old: look again.
                Err(Failure::Api(_)) => break,
                Err(failure) => return Err(failure),
            }
        }
    }
}
