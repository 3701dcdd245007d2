//! The role `server`: control plane and node in one process.

mod parts;
mod settings;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use stead_wire::Network;
use stead_wire::kernel::KernelConfig;
use tokio_util::sync::CancellationToken;

pub(crate) use parts::{Server, is_ready};
pub(crate) use settings::Settings;

use crate::arguments::ServerFlags;
use crate::node::run_dir;
use crate::{machine, shutdown, telemetry};

/// The line that says on standard output that everything serves. Tests and scripts wait for it.
pub(crate) const READY: &str = "stead is ready";

pub(crate) fn run(flags: ServerFlags) -> Result<ExitCode> {
    telemetry::start(if flags.debug { "debug,hyper=info,kube=info,h2=info" } else { "info,kube=warn" });
    let settings = Settings::from_flags(flags)?;
    block_on(async {
        let stop = CancellationToken::new();
        shutdown::on_signal(stop.clone())?;
        let server = Server::start(&settings, &stop).await?;
        server.write_kubeconfig(&settings.kubeconfig)?;
        server.ready().await;
        println!("{READY}: kubectl --kubeconfig {} get pods", settings.kubeconfig.display());
        server.finish().await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Where a server keeps the token with which others join.
pub(crate) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("server/token")
}

/// The network of a data directory, only to remove it: the ranges do not matter for that.
pub(crate) fn open_network_to_remove(data_dir: &Path) -> Result<Arc<dyn Network>> {
    let config = KernelConfig {
        instance: machine::instance(data_dir),
        pod_cidr: "10.42.0.0/24".to_owned(),
        cluster_cidr: "10.42.0.0/16".to_owned(),
        service_cidr: "10.43.0.0/16".to_owned(),
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10).into(),
        node_ip: Ipv4Addr::LOCALHOST.into(),
        run_dir: run_dir(data_dir),
    };
    Ok(stead_wire::kernel::open(config)?)
}

/// Runs the whole product on one runtime.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?.block_on(work)
}
