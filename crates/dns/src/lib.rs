//! The cluster's DNS server: answers names of services and pods from the shared caches, forwards all others.
//!
//! Sockets around [`stead_servicenet::zone`]. The zone follows the caches change by change, within the watch: the next
//! question after a change sees it.
//!
//! Invariant: while the caches are not complete, a name that is not known is "try again" (SERVFAIL), never "no such name".

#![forbid(unsafe_code)]

mod answer;
mod mirror;
mod server;
mod service;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use stead_client::Client;
use stead_informer::Caches;
use stead_servicenet::zone::ZoneConfig;
use tokio_util::sync::CancellationToken;

pub use mirror::SharedZone;
pub use server::{Bound, bind, serve};
pub use service::ensure_service;
pub use upstream::{UpstreamSource, Upstreams, nameservers};

/// What the DNS server has to know.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "a client has none")]
pub struct DnsConfig {
    /// Where to listen, UDP and TCP; the addresses must exist on this machine.
    pub listen: Vec<SocketAddr>,
    /// For instance `cluster.local`.
    pub domain: String,
    /// The cluster address of the service `kube-dns`.
    pub address: IpAddr,
    /// The ranges of pods and services, network and prefix length: reverse names in them are never forwarded.
    pub ranges: Vec<(IpAddr, u8)>,
    /// Who answers names of other zones.
    pub upstreams: UpstreamSource,
    /// In whose name the service `kube-dns` is made; `None` where another node's server makes it.
    pub publisher: Option<Client>,
}

/// A DNS server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error(
        "dns: cannot listen on {address}: {source}; is another DNS server running there, or does the address not exist yet"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// Runs until `shutdown`.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn run(config: DnsConfig, caches: Caches, shutdown: CancellationToken) -> Result<(), DnsError> {
    let bound = bind(&config.listen).await?;
    let zone = SharedZone::new(ZoneConfig {
        domain: config.domain.clone(),
        server: Some(config.address),
        ranges: config.ranges.clone(),
    });
    zone.follow(&caches);
    let own: Vec<IpAddr> = config.listen.iter().map(SocketAddr::ip).chain([config.address]).collect();
    let upstreams = Arc::new(Upstreams::new(config.upstreams.clone(), own));
    let service = async {
        if let Some(client) = &config.publisher {
            service::keep(&caches, client, config.address).await;
        }
    };
    let (_, ()) = tokio::join!(shutdown.run_until_cancelled(service), serve(bound, zone, upstreams, shutdown.clone()));
    Ok(())
}
