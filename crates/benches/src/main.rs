//! The figures of the budgets, measured on a real server: `cargo run --release -p stead-benches` after `cargo build --release`.
//!
//! `-- real` measures only what needs containers, `-- simulated` only what does not (and needs no `stead` binary); `-- lives`, `-- decoding`,
//! `-- watching`, `-- syncs` and `-- many` are the parts of the latter.
//!
//! Each figure is printed with the budget that it must meet. Nothing here fails: tests judge behaviour, this shows speed.

#![forbid(unsafe_code)]

mod api;
mod decoding;
mod names;
mod plane;
mod pods;
mod process;
mod sets;
mod syncs;
mod watching;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use stead_client::{Client, Place};
use stead_testkit::cluster::{Cluster, Options};
use stead_testkit::{images, registry::Registry};

use crate::plane::Plane;

/// What is measured with simulated nodes, in this order.
const PARTS: [&str; 5] = ["lives", "decoding", "watching", "syncs", "many"];
/// Until what a start leaves to be done is done: first leases, first looks at usage.
const SETTLING: Duration = Duration::from_secs(15);
/// How long an idle server is looked at: three renewals of a node's lease.
const IDLE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let only = std::env::args().nth(1).unwrap_or_default();
    let known = matches!(only.as_str(), "" | "real" | "simulated") || PARTS.contains(&only.as_str());
    ensure!(known, "{only:?} is not one of `real`, `simulated`, {PARTS:?}");
    runtime.block_on(async {
        if matches!(only.as_str(), "" | "real") {
            measure().await?;
        }
        match only.as_str() {
            "real" => Ok(()),
            "" | "simulated" => simulated(&PARTS).await,
            part => simulated(&[part]).await,
        }
    })
}

/// A control plane in this process, with nodes that only say that their pods run.
async fn simulated(parts: &[&str]) -> Result<()> {
    stead_client::install_crypto();
    let plane = Plane::start().await?;
    for part in parts {
        match *part {
            "lives" => sets::lives(&plane).await?,
            "decoding" => decoding::events(&plane.client).await?,
            "watching" => watching::all(&plane.outside().await?).await?,
            "syncs" => syncs::idle(&plane).await?,
            _ => sets::many(&plane).await?,
        }
    }
    Ok(())
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
    tokio::time::sleep(SETTLING).await;
    figure("resident memory, idle", process::resident_mib(pid)?, "MiB", "40");
    let (processor, written) = process::used(pid, IDLE).await?;
    figure("a processor, idle", processor, "%", "0.5");
    figure("disk writes, idle", written, "KiB/s", "near none");
    let client = client(&cluster).await?;

    pods::ordered(&client).await?;
    pods::replaced(&client).await?;
    pods::grown(&client).await?;
    names::answers(&client, &cluster).await?;
    api::alone(&client).await?;
    api::creates(&client).await?;
    api::gets(&client).await?;
    figure("resident memory after this load", process::resident_mib(pid)?, "MiB", "120");
    pods::fifty(&client).await?;
    figure("resident memory, 50 pods", process::resident_mib(pid)?, "MiB", "-");
    figure("resident memory, a pod's shim", process::shims_mib()?, "MiB", "-");

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
