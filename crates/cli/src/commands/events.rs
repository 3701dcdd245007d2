//! `events`: the events of a namespace or of one object, oldest first.
//!
//! Source of the layout: `k8s.io/kubectl/pkg/cmd/events`.

use clap::Args;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::Value;

use crate::failure::{Result, plain};
use crate::print::{Format, Output, PLAIN_FORMATS, Tab, at, list, list_of, without_managed_fields};
use crate::session::Session;

/// Which events.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those of TYPE/NAME.
    #[arg(long = "for")]
    about: Option<String>,
    /// Only those of these types: Normal, Warning.
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Go on with new ones.
    #[arg(short = 'w', long)]
    watch: bool,
    #[arg(long)]
    no_headers: bool,
    #[arg(long, hide = true)]
    chunk_size: Option<i64>,
    #[command(flatten)]
    output: Output,
}

/// Prints them.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    if let Some(other) = flags.types.iter().find(|kind| !["normal", "warning"].contains(&&*kind.to_lowercase())) {
        return plain(format!("valid --types are: \"Normal\" or \"Warning\", got {other}"));
    }
    let mut format = flags.output.format(PLAIN_FORMATS, true)?;
    let server = session.server().await?;
    let namespace = if flags.all_namespaces { None } else { Some(session.namespace().await?.to_owned()) };
    let path = session.kind("", "Event").await?.path(namespace.as_deref());
    let mut query = Vec::new();
    if let Some(about) = &flags.about {
        query.push(("fieldSelector", fields(session, about).await?));
    }
    let answer = server.list(&path, &query, "application/json").await?;
    let now = Timestamp::now();
    let mut events: Vec<Value> =
        list(&answer, "/items").iter().filter(|event| wanted(event, &flags.types)).cloned().collect();
    events.sort_by_key(last_seen);
    let mut tab = Tab::default();
    if events.is_empty() && !flags.watch {
        session.err(&match &namespace {
            Some(namespace) => format!("No events found in {namespace} namespace.\n"),
            None => "No events found.\n".to_owned(),
        });
        return Ok(());
    }
    show(session, &flags, &mut format, &mut tab, &events, !flags.no_headers, now)?;
    if !flags.watch {
        return Ok(());
    }
    query.push(("resourceVersion", at(&answer, "/metadata/resourceVersion").to_owned()));
    let mut changes = server.watch(&path, query, "application/json").await?;
    while let Some(change) = changes.next().await {
        let change = change?;
        if matches!(at(&change, "/type"), "ADDED" | "MODIFIED") && wanted(&change["object"], &flags.types) {
            show(session, &flags, &mut format, &mut tab, &[change["object"].clone()], false, Timestamp::now())?;
        }
    }
    Ok(())
}

fn show(
    session: &Session,
    flags: &Flags,
    format: &mut Format,
    tab: &mut Tab,
    events: &[Value],
    headings: bool,
    now: Timestamp,
) -> Result {
    if format.is_human() {
        return session.out(&tab.lay_out(&lines(events, flags.all_namespaces, headings, now)));
    }
    let complete = |event: &Value| {
        let mut event = event.clone();
        event["apiVersion"] = "v1".into();
        event["kind"] = "Event".into();
        event
    };
    let all = list_of(events.iter().map(complete).collect());
    session.out(&format.print(&without_managed_fields(all))?)
}

fn lines(events: &[Value], namespaces: bool, headings: bool, now: Timestamp) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut line = |namespace: &str, cells: [String; 5]| {
        let first = namespaces.then(|| namespace.to_owned());
        lines.push(first.into_iter().chain(cells).collect());
    };
    if headings {
        line("NAMESPACE", ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned));
    }
    for event in events {
        let object = format!("{}/{}", at(event, "/involvedObject/kind"), at(event, "/involvedObject/name"));
        line(
            at(event, "/metadata/namespace"),
            [
                crate::describe::interval(event, now),
                at(event, "/type").to_owned(),
                at(event, "/reason").to_owned(),
                object,
                at(event, "/message").trim().to_owned(),
            ],
        );
    }
    lines
}

fn wanted(event: &Value, types: &[String]) -> bool {
    types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(at(event, "/type")))
}

/// When an event was seen last.
fn last_seen(event: &Value) -> Option<Timestamp> {
    let time = |value: &Value| stead_machinery::time::parse(value);
    time(&event["series"]["lastObservedTime"])
        .or_else(|| time(&event["lastTimestamp"]))
        .or_else(|| time(&event["eventTime"]))
}

async fn fields(session: &Session, about: &str) -> Result<String> {
    let Some((kind, name)) = about.split_once('/').filter(|(kind, name)| !kind.is_empty() && !name.is_empty()) else {
        return plain("--for must be in resource/name form");
    };
    let resource = session.resource(kind).await?;
    Ok(format!("involvedObject.kind={},involvedObject.name={name}", resource.kind))
}
