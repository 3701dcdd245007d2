//! `stead check NAMESPACE NAME`: a StatefulSet with its pods and claims, what is wrong with it, and how to mend it.

mod diagnose;
mod report;
mod snapshot;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use stead_client::Place;

pub use diagnose::{Finding, diagnose};
pub use snapshot::Snapshot;

/// What to check, and in which cluster.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Namespace of the StatefulSet.
    pub namespace: String,
    /// Name of the StatefulSet.
    pub name: String,
    /// The cluster's kubeconfig (default: $KUBECONFIG, ~/.kube/config, /etc/stead/stead.yaml).
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context.
    #[arg(long)]
    pub context: Option<String>,
}

/// Where `stead server` writes its kubeconfig unless it is told otherwise.
const SERVER_KUBECONFIG: &str = "/etc/stead/stead.yaml";

/// Prints the report. Exit code 0 only when nothing is wrong.
///
/// # Errors
/// When the cluster cannot be reached or the set does not exist.
pub fn run(flags: &Flags) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let snapshot = runtime.block_on(read(flags))?;
    let findings = diagnose(&snapshot);
    print!("{}", report::text(&snapshot, &findings));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn read(flags: &Flags) -> Result<Snapshot> {
    let place = Place { path: kubeconfig(flags), context: flags.context.clone(), ..Place::default() };
    let client = stead_client::from_kubeconfig(&place).await?;
    Snapshot::read(&client, &flags.namespace, &flags.name)
        .await
        .with_context(|| format!("cannot check StatefulSet {}/{}", flags.namespace, flags.name))
}

/// The named file; without one kubectl's defaults, and after them the server's own.
fn kubeconfig(flags: &Flags) -> Option<PathBuf> {
    let by_default = || {
        let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let found = std::env::var_os("KUBECONFIG").is_some() || home.is_some_and(|file| file.exists());
        let server = PathBuf::from(SERVER_KUBECONFIG);
        (!found && server.exists()).then_some(server)
    };
    flags.kubeconfig.clone().or_else(by_default)
}
