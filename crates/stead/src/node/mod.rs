//! This machine as a node, in the server's process or in an agent's: engine, network, pods, Services, DNS, overlay.

pub(crate) mod endpoint;
mod peers;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use stead_apiserver::GIT_VERSION;
use stead_client::Client;
use stead_dns::{DnsConfig, UpstreamSource};
use stead_informer::{Caches, system_clock};
use stead_node::{Node, NodeConfig};
use stead_proxy::ProxyConfig;
use stead_runtime::Engine;
use stead_wire::Network;
use stead_wire::kernel::KernelConfig;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use settings::{ClusterSettings, NodeSettings};

use crate::machine;

/// In whose names a node reads and writes.
pub(crate) struct Access {
    /// The node's own.
    pub(crate) node: Caches,
    /// The local provisioner's: volumes.
    pub(crate) storage: Caches,
    /// What Services, DNS and the overlay are read with.
    pub(crate) proxy: Caches,
    pub(crate) dns: Caches,
    /// Who makes the Service of the DNS, where this process does.
    pub(crate) dns_publisher: Option<Client>,
}

/// The engine of this machine, open; containers of an earlier process are taken up.
pub(crate) struct Machine {
    pub(crate) engine: Arc<dyn Engine>,
    settings: NodeSettings,
}

impl Machine {
    pub(crate) async fn open(settings: NodeSettings) -> Result<Self> {
        let options = engine_options(&settings.data_dir, settings.registries.clone());
        let engine = stead_runtime::embedded::open(options).await?;
        Ok(Self { engine, settings })
    }

    /// Imports every archive that lies in the directory. A bad one is reported and left out: it must not keep the node down.
    async fn import_archives(&self) -> Result<()> {
        let directory = self.settings.data_dir.join("agent/images");
        let Ok(entries) = std::fs::read_dir(&directory) else { return Ok(()) };
        for entry in entries {
            let path = entry.with_context(|| directory.display().to_string())?.path();
            match self.engine.import(path.clone()).await {
                Ok(images) => tracing::info!(archive = %path.display(), images = images.len(), "imported"),
                Err(error) => tracing::error!(archive = %path.display(), %error, "cannot import this archive"),
            }
        }
        Ok(())
    }

    /// This node's part of the pods' range. Known from an earlier start it is not asked for: pods go on without a server.
    async fn pod_range(&self, client: &Client) -> Result<String> {
        let settings = &self.settings;
        let file = pod_range_file(&settings.data_dir);
        if let Ok(known) = std::fs::read_to_string(&file) {
            return Ok(known.trim().to_owned());
        }
        let asked = stead_node::pod_range(client, &settings.name, &settings.labels, &settings.taints).await;
        let range = asked.with_context(|| format!("cannot register node {:?}", settings.name))?;
        let named = || file.display().to_string();
        std::fs::create_dir_all(settings.data_dir.join("agent")).with_context(named)?;
        let new = file.with_extension("new");
        std::fs::write(&new, &range).with_context(named)?;
        std::fs::rename(&new, &file).with_context(named)?;
        Ok(range)
    }

    /// Starts every part of the node. The first that ends by itself ends the process.
    pub(crate) async fn start(
        &self,
        cluster: &ClusterSettings,
        access: Access,
        tasks: &mut JoinSet<Result<()>>,
        stop: &CancellationToken,
    ) -> Result<Arc<Node>> {
        let imported = self.import_archives();
        let (imported, range) = tokio::join!(imported, self.pod_range(access.node.client()));
        let (range, ()) = (range?, imported?);
        let network = self.network(cluster, &range)?;
        network.prepare().await.context("network")?;
        let node = self.node(cluster, &access, &range, network.clone(), stop)?;
        let running = node.clone();
        tasks.spawn(async move { running.run().await.context("node") });
        let config = ProxyConfig {
            node_name: self.settings.name.clone(),
            served_here: if cluster.dns { vec![cluster.cluster_dns] } else { Vec::new() },
        };
        let (caches, token, rules) = (access.proxy.clone(), stop.clone(), network.clone());
        tasks.spawn(async move {
            stead_proxy::run(config, rules, caches, token).await;
            Ok(())
        });
        let config = stead_controllers::sidecars::SidecarConfig {
            dir: self.settings.data_dir.join("agent/csi"),
            node: self.settings.name.clone(),
            clock: system_clock(),
        };
        let (caches, token) = (access.storage.clone(), stop.clone());
        tasks.spawn(async move {
            stead_controllers::sidecars::run(config, caches, token).await;
            Ok(())
        });
        let (caches, token, name) = (access.proxy, stop.clone(), self.settings.name.clone());
        tasks.spawn(async move {
            peers::follow(&name, network, &caches, &token).await;
            Ok(())
        });
        if cluster.dns {
            let config = dns_config(cluster, access.dns_publisher)?;
            let (caches, token) = (access.dns, stop.clone());
            tasks.spawn(async move { stead_dns::run(config, caches, token).await.context("DNS") });
        }
        Ok(node)
    }

    fn network(&self, cluster: &ClusterSettings, range: &str) -> Result<Arc<dyn Network>> {
        let settings = &self.settings;
        Ok(stead_wire::kernel::open(KernelConfig {
            instance: settings.instance.clone(),
            pod_cidr: range.to_owned(),
            cluster_cidr: cluster.cluster_cidr.clone(),
            service_cidr: cluster.service_cidr.clone(),
            cluster_dns: cluster.cluster_dns,
            node_ip: settings.node_ip,
            run_dir: run_dir(&settings.data_dir),
        })?)
    }

    fn node(
        &self,
        cluster: &ClusterSettings,
        access: &Access,
        range: &str,
        network: Arc<dyn Network>,
        stop: &CancellationToken,
    ) -> Result<Arc<Node>> {
        let settings = &self.settings;
        let mut config = NodeConfig::new(&settings.name, settings.data_dir.join("agent"), settings.node_ip, range);
        config.cluster_dns = vec![cluster.cluster_dns];
        config.cluster_domain.clone_from(&cluster.cluster_domain);
        config.labels.clone_from(&settings.labels);
        config.taints.clone_from(&settings.taints);
        config.lease_seconds = settings.lease_seconds;
        config.version = GIT_VERSION.to_owned();
        let caches = (&access.node, &access.storage);
        Ok(Node::new(config, caches, self.engine.clone(), network, system_clock(), stop.clone())?)
    }
}

/// Where a node remembers its part of the pods' range.
pub(crate) fn pod_range_file(data_dir: &Path) -> PathBuf {
    data_dir.join("agent/pod-range")
}

/// Where the embedded engine of a data directory keeps its things. The cgroup carries the directory's mark.
pub(crate) fn engine_options(data_dir: &Path, registries: Option<PathBuf>) -> stead_runtime::embedded::Options {
    stead_runtime::embedded::Options {
        root: data_dir.join("agent/containers"),
        run: run_dir(data_dir).join("containers"),
        cgroup_root: format!("stead-{}", machine::instance(data_dir)),
        shim: stead_runtime::embedded::ShimCommand::default(),
        registries,
    }
}

/// What need not survive a reboot: sockets and pinned namespaces, under short paths because sockets need them.
pub(crate) fn run_dir(data_dir: &Path) -> PathBuf {
    Path::new("/run/stead").join(machine::instance(data_dir))
}

fn dns_config(cluster: &ClusterSettings, publisher: Option<Client>) -> Result<DnsConfig> {
    /// The well-known port of DNS.
    const DNS_PORT: u16 = 53;
    let range = |text: &str| -> Result<(IpAddr, u8)> {
        let (network, bits) = text.split_once('/').with_context(|| format!("range {text:?}"))?;
        Ok((network.parse()?, bits.parse()?))
    };
    Ok(DnsConfig {
        listen: vec![SocketAddr::new(cluster.cluster_dns, DNS_PORT)],
        domain: cluster.cluster_domain.clone(),
        address: cluster.cluster_dns,
        ranges: vec![range(&cluster.cluster_cidr)?, range(&cluster.service_cidr)?],
        upstreams: UpstreamSource::File(PathBuf::from("/etc/resolv.conf")),
        publisher,
    })
}
