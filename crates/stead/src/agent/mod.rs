//! The role `agent`: one more node of a cluster. The server never calls it: it opens every connection itself. Only the
//! overlay (UDP) is reached from other nodes.

mod join;
mod member;
mod tunnel;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node;
use stead_apiserver::pki::JoinToken;
use stead_client::tls;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arguments::AgentFlags;
use crate::node::{Machine, NodeSettings};
use crate::server::{READY, block_on, is_ready};
use crate::{machine, shutdown, telemetry};
use member::Member;

/// Whom to join, and with what.
struct Wish {
    server: tls::Server,
    token: Option<JoinToken>,
    node: NodeSettings,
}

impl Wish {
    fn from_flags(flags: AgentFlags) -> Result<Self> {
        anyhow::ensure!(machine::is_root(), "running pods needs root: use sudo");
        let text = match (&flags.token, &flags.token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(file)) => {
                let named = || format!("--token-file {}", file.display());
                Some(std::fs::read_to_string(file).with_context(named)?)
            }
            (None, None) => None,
        };
        let token =
            text.map(|text| JoinToken::parse(&text)).transpose().map_err(|why| anyhow::anyhow!("--token: {why}"))?;
        let named = || format!("--data-dir {}", flags.data_dir.display());
        std::fs::create_dir_all(flags.data_dir.join("agent")).with_context(named)?;
        let data_dir = flags.data_dir.canonicalize().with_context(named)?;
        let server = tls::Server::parse(&flags.server).context("--server")?;
        Ok(Self { server, token, node: NodeSettings::from_flags(flags.node, &data_dir, None)? })
    }
}

pub(crate) fn run(flags: AgentFlags) -> Result<ExitCode> {
    telemetry::start(if flags.debug { "debug,hyper=info,kube=info,h2=info" } else { "info,kube=warn" });
    let wish = Wish::from_flags(flags)?;
    block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone())?;
        match stop.run_until_cancelled(start(wish, &stop)).await {
            Some(tasks) => finish(tasks?, &stop).await,
            None => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Joins, and starts every part of the node.
async fn start(wish: Wish, stop: &CancellationToken) -> Result<JoinSet<Result<()>>> {
    let member = Arc::new(Member::open(wish).await?);
    let mut tasks = JoinSet::new();
    let machine = Machine::open(member.wish.node.clone()).await?;
    let access = member.access()?;
    let nodes = access.proxy.of::<Node>();
    let node = machine.start(&member.cluster, access, &mut tasks, stop).await?;
    let (renewing, token) = (member.clone(), stop.clone());
    tasks.spawn(async move {
        token.run_until_cancelled(renewing.keep_renewed()).await;
        Ok(())
    });
    let (name, token, config) = (member.wish.node.name.clone(), stop.clone(), Arc::new(member.tls()?));
    tasks.spawn(async move {
        token.run_until_cancelled(tunnel::keep(&member.wish.server, &config, &node)).await;
        Ok(())
    });
    let token = stop.clone();
    tokio::spawn(async move {
        let there = nodes.until(|nodes| nodes.get("", &name).is_some_and(|node| is_ready(&node)));
        if token.run_until_cancelled(there).await.is_some() {
            println!("{READY}: node {name}");
        }
    });
    Ok(tasks)
}

/// Waits for the end: a signal, or a part that failed. Containers go on.
async fn finish(mut tasks: JoinSet<Result<()>>, stop: &CancellationToken) -> Result<()> {
    let first = tasks.join_next().await;
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    match first {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error).context("a part of the agent broke"),
        None => Ok(()),
    }
}
