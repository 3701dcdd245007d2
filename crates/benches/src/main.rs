//! The figures of the budgets, measured on a real server: `cargo run --release -p stead-benches` after `cargo build --release`.
//!
//! `-- real` measures only what needs containers, `-- simulated` only what does not (and needs no `stead` binary).
//!
//! Each figure is printed with the budget that it must meet. Nothing here fails: tests judge behaviour, this shows speed.

#![forbid(unsafe_code)]

mod api;
mod decoding;
mod memory;
mod names;
mod plane;
mod pods;
mod sets;
mod syncs;
mod watching;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use stead_client::{Client, Place};
use stead_testkit::cluster::{Cluster, Options};
use stead_testkit::{images, registry::Registry};

use crate::plane::Plane;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let only = std::env::args().nth(1).unwrap_or_default();
    ensure!(matches!(only.as_str(), "" | "real" | "simulated"), "there is {only:?}, but only `real` and `simulated`");
    runtime.block_on(async {
        if only != "simulated" {
            measure().await?;
        }
        if only != "real" {
            simulated().await?;
        }
        Ok(())
    })
}

/// A control plane in this process, with nodes that only say that their pods run.
async fn simulated() -> Result<()> {
    stead_client::install_crypto();
    let plane = Plane::start().await?;
    let client = plane.outside().await?;
    sets::lives(&plane).await?;
    decoding::events(&client).await?;
    watching::pods(&client).await?;
    watching::fan_out(&client).await?;
    syncs::idle(&plane).await?;
    sets::many(&plane).await
}

async fn measure() -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the workspace")?.to_owned();
    let layout = images::build_all(&root.join("target/test-images"))?;
    let registry = Registry::serve(&layout, 0).await?;
    let options = Options {
        binary: std::env::current_exe()?.with_file_name("stead"),
        registries: Some(registry.registries_yaml()),
        archives: Vec::new(),
        flags: Vec::new(),
    };
    let started = std::time::Instant::now();
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(options))?;
    figure(
        "start on an empty data dir -> ready (first start makes keys)",
        started.elapsed().as_secs_f64() * 1e3,
        "ms",
        "300",
    );
    let pid = cluster.server_pid().context("the server runs")?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    figure("resident memory, idle", memory::resident_mib(pid)?, "MiB", "40");
    let client = client(&cluster).await?;

    pods::ordered(&client).await?;
    pods::replaced(&client).await?;
    names::answers(&client, &cluster).await?;
    api::creates(&client).await?;
    api::gets(&client).await?;
    figure("resident memory after this load", memory::resident_mib(pid)?, "MiB", "120");
    pods::fifty(&client).await?;
    figure("resident memory, 50 pods", memory::resident_mib(pid)?, "MiB", "-");
    figure("resident memory, a pod's shim", memory::shims_mib()?, "MiB", "-");

    tokio::task::block_in_place(|| cluster.kill_server())?;
    let started = std::time::Instant::now();
    tokio::task::block_in_place(|| cluster.start_server())?;
    figure("start on a used data dir with 50 pods running -> ready", started.elapsed().as_secs_f64() * 1e3, "ms", "-");
    Ok(())
}

async fn client(cluster: &Cluster) -> Result<Client> {
    Ok(stead_client::from_kubeconfig(&Place { path: Some(cluster.kubeconfig()), ..Place::default() }).await?)
}

/// Prints one figure beside its budget.
pub(crate) fn figure(what: &str, value: f64, unit: &str, budget: &str) {
    println!("{what:<66} {value:>10.1} {unit:<6} (budget {budget})");
}

/// The value below which `part` of the sorted samples lie.
pub(crate) fn percentile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    samples.get(((last as f64) * part).round() as usize).copied().unwrap_or_default()
}
