//! A bare API server over a data directory (or in memory): for stock kubectl, and for the other components' development.
//!
//! `cargo run -p stead-apiserver --example bare_apiserver -- --data-dir D --port 16443 --kubeconfig D/kubeconfig`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use stead_apiserver::{ApiServer, Config, NoNodes};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 16443)]
    port: u16,
    /// Where to write the administrator's kubeconfig.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Keep objects in memory only.
    #[arg(long)]
    memory: bool,
    #[arg(long, default_value = "10.43.0.0/16")]
    service_cidr: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let store = if arguments.memory {
        stead_store::memory()
    } else {
        stead_store::open_disk(&arguments.data_dir.join("db"), stead_store::Options::default()).await?
    };
    let config = Config {
        bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), arguments.port),
        advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
        pki_dir: arguments.data_dir.join("pki"),
        tls_sans: Vec::new(),
        service_cidr: arguments.service_cidr,
        cluster_domain: "cluster.local".to_owned(),
        cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
    };
    let server = ApiServer::open(config, store.clone(), Arc::new(NoNodes)).await?;
    let listener = server.listen().await?;
    let kubeconfig = arguments.kubeconfig.unwrap_or_else(|| arguments.data_dir.join("kubeconfig"));
    std::fs::write(&kubeconfig, server.admin_kubeconfig())?;
    println!("serving on {}; kubeconfig {}", listener.local_addr()?, kubeconfig.display());
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // An error means that there are no signals here: then the server runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    server.serve_on(listener, shutdown).await?;
    store.close().await?;
    Ok(())
}
