//! `stead check NAMESPACE NAME`: a StatefulSet with its pods and claims, what is wrong with it, and how to mend it.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use stead_client::Place;
use stead_diagnosis::{Snapshot, Target, explain};

use crate::look::look;

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
    let (set, snapshot) = runtime.block_on(read(flags))?;
    let report = explain(&snapshot, &Target::Set(flags.name.clone())).with_context(|| {
        format!("cannot check StatefulSet {}/{}: it has gone meanwhile", flags.namespace, flags.name)
    })?;
    print!("{}", report::text(&set, &snapshot, &report));
    Ok(if report.worst().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn read(flags: &Flags) -> Result<(StatefulSet, Snapshot)> {
    let place = Place { path: kubeconfig(flags), context: flags.context.clone(), ..Place::default() };
    let client = stead_client::from_kubeconfig(&place).await?;
    let cannot = || format!("cannot check StatefulSet {}/{}", flags.namespace, flags.name);
    let set: StatefulSet =
        Api::namespaced(client.clone(), &flags.namespace).get(&flags.name).await.with_context(cannot)?;
    let mut snapshot = look(&client, &flags.namespace).await.with_context(cannot)?;
    snapshot.sets.0.get_or_insert_default().entry(flags.name.clone()).or_insert_with(|| set.clone());
    Ok((set, snapshot))
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
