//! Keeps the kernel's service rules equal to the API's services and slices.
//!
//! Watch -> [`stead_servicenet::table`] -> [`stead_wire::Network::set_services`]. Changes are gathered by service while
//! a write to the kernel is on its way; each service is computed again only when it or one of its slices changed.
//!
//! Invariant: nothing is written before everything was listed once, so a start never takes rules away that still hold.

#![forbid(unsafe_code)]

mod mirror;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use stead_informer::Caches;
use stead_wire::Network;
use tokio_util::sync::CancellationToken;

use mirror::Mirror;

/// After a failed write to the kernel: first and longest pause.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the proxy of a node has to know.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The node's name, for traffic policies and zones.
    pub node_name: String,
    /// Service addresses that this process itself serves on the node (the DNS server's): no rules are made for them.
    pub served_here: Vec<IpAddr>,
}

/// Runs until `shutdown`. The rules stay: pods go on reaching services while the server is away.
pub async fn run(config: ProxyConfig, network: Arc<dyn Network>, caches: Caches, shutdown: CancellationToken) {
    let mirror = Mirror::start(config, &caches);
    if shutdown.run_until_cancelled(mirror.synced()).await.is_none() {
        return;
    }
    let mut pause = RETRY_FIRST;
    while shutdown.run_until_cancelled(mirror.changed()).await.is_some() {
        let table = mirror.table();
        match network.set_services(&table).await {
            Ok(()) => pause = RETRY_FIRST,
            Err(error) => {
                tracing::error!(%error, "cannot write the service rules; will try again in {pause:?}");
                mirror.wake();
                if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}
