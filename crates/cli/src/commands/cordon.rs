//! `cordon` and `uncordon`: whether pods are placed on a node.

use clap::Args;
use serde_json::json;

use super::common::{DryRun, STRATEGIC};
use crate::builder::{self, Found, Question};
use crate::failure::{Result, all, usage};
use crate::server::Call;
use crate::session::Session;

/// Which nodes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// Names of nodes.
    nodes: Vec<String>,
    /// Label selector of nodes.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "unchanged")]
    dry_run: String,
}

/// Marks the nodes.
pub(crate) async fn run(session: &Session, flags: Flags, unschedulable: bool) -> Result {
    let dry_run = DryRun::parse(session, &flags.dry_run)?;
    let command = if unschedulable { "cordon" } else { "uncordon" };
    if flags.nodes.is_empty() && flags.selector.is_none() {
        return usage(command, &format!("USAGE: {command} NODE [flags]"));
    }
    let (nodes, mut failures) = nodes(session, &flags.nodes, flags.selector.as_deref()).await?;
    for node in nodes {
        if let Err(failure) = mark(session, &node, unschedulable, dry_run).await {
            failures.push(failure);
        }
    }
    all(failures)
}

/// The nodes that names or a selector mean.
pub(crate) async fn nodes(
    session: &Session,
    names: &[String],
    selector: Option<&str>,
) -> Result<(Vec<Found>, Vec<crate::failure::Failure>)> {
    let bare =
        |name: &String| name.strip_prefix("node/").or_else(|| name.strip_prefix("nodes/")).unwrap_or(name).to_owned();
    let words: Vec<String> = std::iter::once("nodes".to_owned()).chain(names.iter().map(bare)).collect();
    builder::find(session, &Question { words: &words, selector, ..Question::default() }).await
}

/// Marks one node, and tells.
pub(crate) async fn mark(session: &Session, node: &Found, unschedulable: bool, dry_run: DryRun) -> Result {
    let is = node.object["spec"]["unschedulable"] == true;
    let done = if unschedulable { "cordoned" } else { "uncordoned" };
    if is == unschedulable {
        return session.out(&format!("node/{} already {done}\n", node.name));
    }
    if dry_run != DryRun::Client {
        let value = if unschedulable { json!(true) } else { json!(null) };
        let mut call = Call::new(http::Method::PATCH, "");
        let path = node.path();
        call.path = &path;
        if dry_run == DryRun::Server {
            call.query = vec![("dryRun", "All".to_owned())];
        }
        let patch = json!({"spec": {"unschedulable": value}});
        session.server().await?.send(call.body(STRATEGIC, patch.to_string().into_bytes())).await?;
    }
    session.out(&format!("node/{} {done}{}\n", node.name, dry_run.suffix()))
}
