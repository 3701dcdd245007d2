//! The parts of a server, opened from the bottom up and closed from the top down.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use stead_apiserver::{ApiServer, Identity};
use stead_client::Client;
use stead_dns::{DnsConfig, UpstreamSource};
use stead_informer::Caches;
use stead_proxy::ProxyConfig;
use stead_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::agent::{Agent, LocalNode};

/// A running server.
pub(crate) struct Server {
    api: ApiServer,
    store: Arc<dyn Store>,
    /// `None` on a machine that runs no pods.
    agent: Option<Agent>,
    /// What this process reads, it reads once, in the name of the controller manager; every part writes in its own.
    caches: Caches,
    node_name: String,
    /// Every part that runs; the first that ends by itself ends the server.
    tasks: JoinSet<Result<()>>,
    stop: CancellationToken,
}

impl Server {
    /// Opens every part. It serves when [`Server::ready`] returns.
    pub(crate) async fn start(settings: &Settings, stop: &CancellationToken) -> Result<Self> {
        let database = settings.data_dir.join("server/db");
        fs::create_dir_all(&database).with_context(|| database.display().to_string())?;
        let store = stead_store::open_disk(&database, stead_store::Options::default()).await?;
        let local_node = Arc::new(LocalNode::default());
        let api = ApiServer::open(api_config(settings), store.clone(), local_node.clone()).await?;
        let agent = if settings.agent { Some(Agent::open(settings).await?) } else { None };
        let control_plane = client(&api, &Identity::new("system:kube-controller-manager", &[]));
        let mut server = Self {
            api,
            store,
            agent,
            caches: Caches::new(control_plane),
            node_name: settings.node_name.clone(),
            tasks: JoinSet::new(),
            stop: stop.clone(),
        };
        server.start_api().await?;
        server.start_controllers(settings);
        server.start_scheduler();
        server.start_node(settings, &local_node).await?;
        server.start_network(settings)?;
        Ok(server)
    }

    /// A client with all rights.
    pub(crate) fn admin(&self) -> Client {
        client(&self.api, &Identity::admin())
    }

    /// Reads an image archive into this node's store.
    pub(crate) async fn import(&self, archive: &Path) -> Result<()> {
        let agent = self.agent.as_ref().context("this server runs no pods")?;
        agent.engine.import(archive.to_owned()).await.with_context(|| archive.display().to_string())?;
        Ok(())
    }

    /// Returns when pods can be created and will run.
    pub(crate) async fn ready(&self) {
        if self.agent.is_some() {
            let nodes = self.caches.of::<Node>();
            nodes.until(|nodes| nodes.get("", &self.node_name).is_some_and(|node| is_ready(&node))).await;
            let accounts = self.caches.of::<ServiceAccount>();
            accounts.until(|accounts| accounts.get("default", "default").is_some()).await;
        }
    }

    /// Writes the administrator's kubeconfig, readable by its owner only.
    pub(crate) fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let named = || format!("--write-kubeconfig {}", path.display());
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(named)?;
        }
        let temporary = path.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let mut file =
            fs::File::options().create_new(true).write(true).mode(0o600).open(&temporary).with_context(named)?;
        std::io::Write::write_all(&mut file, self.api.admin_kubeconfig().as_bytes()).with_context(named)?;
        fs::rename(&temporary, path).with_context(named)
    }

    /// Waits for the end: a signal, or a part that failed. Containers go on.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let first = self.tasks.join_next().await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.store.close().await?;
        match first {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(error).context("a part of the server broke"),
            None => Ok(()),
        }
    }

    async fn start_api(&mut self) -> Result<()> {
        let listener = self.api.listen().await?;
        let (api, stop) = (self.api.clone(), self.stop.clone());
        self.tasks.spawn(async move { api.serve_on(listener, stop).await.context("API server") });
        Ok(())
    }

    fn start_controllers(&mut self, settings: &Settings) {
        let mut config = stead_controllers::Config {
            root_ca: Some(self.api.pki().ca_pem().to_owned()),
            storage_dir: settings.data_dir.join("storage").to_string_lossy().into_owned(),
            accounts: Some(accounts(&self.api)),
            ..stead_controllers::Config::default()
        };
        if !settings.has("local-storage") {
            config.disabled.push("local-storage".to_owned());
        }
        let (caches, stop) = (self.caches.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stead_controllers::run(config, caches.client().clone(), caches, stop).await;
            Ok(())
        });
    }

    fn start_scheduler(&mut self) {
        let client = client(&self.api, &Identity::new("system:kube-scheduler", &[]));
        let (caches, stop) = (self.caches.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stead_scheduler::run(client, caches, stop).await;
            Ok(())
        });
    }

    async fn start_node(&mut self, settings: &Settings, local: &LocalNode) -> Result<()> {
        let Some(agent) = &self.agent else { return Ok(()) };
        agent.network.prepare().await.context("network")?;
        agent.import_directory(&settings.data_dir.join("agent/images")).await?;
        let who = Identity::new(&format!("system:node:{}", settings.node_name), &["system:nodes"]);
        let own = Caches::new(client(&self.api, &who));
        let storage = Caches::new(client(&self.api, &account("local-provisioner")));
        let node = agent.node(settings, (&own, &storage), self.stop.clone())?;
        local.set(&settings.node_name, node.clone());
        self.tasks.spawn(async move { node.run().await.context("node") });
        Ok(())
    }

    fn start_network(&mut self, settings: &Settings) -> Result<()> {
        let Some(agent) = &self.agent else { return Ok(()) };
        let (caches, stop, network) = (self.caches.clone(), self.stop.clone(), agent.network.clone());
        let dns = settings.has("dns");
        let config = ProxyConfig {
            node_name: settings.node_name.clone(),
            served_here: if dns { vec![settings.cluster_dns] } else { Vec::new() },
        };
        self.tasks.spawn(async move {
            stead_proxy::run(config, network, caches, stop).await;
            Ok(())
        });
        if dns {
            let publisher = client(&self.api, &account("cluster-dns"));
            let config = dns_config(settings, Some(publisher))?;
            let (caches, stop) = (self.caches.clone(), self.stop.clone());
            self.tasks.spawn(async move { stead_dns::run(config, caches, stop).await.context("DNS") });
        }
        Ok(())
    }
}

/// A service account of `kube-system`.
fn account(name: &str) -> Identity {
    let user = format!("system:serviceaccount:kube-system:{name}");
    Identity::new(&user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}

/// Clients within this process for the accounts of controllers.
fn accounts(api: &ApiServer) -> stead_controllers::Accounts {
    let api = api.clone();
    Arc::new(move |name| client(&api, &account(name)))
}

/// A client within this process, in the name of `who`.
fn client(api: &ApiServer, who: &Identity) -> Client {
    stead_client::in_process(api.in_process(who.clone()), "default")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn dns_config(settings: &Settings, publisher: Option<Client>) -> Result<DnsConfig> {
    /// The well-known port of DNS.
    const DNS_PORT: u16 = 53;
    let range = |text: &str| -> Result<(IpAddr, u8)> {
        let (network, bits) = text.split_once('/').with_context(|| format!("range {text:?}"))?;
        Ok((network.parse()?, bits.parse()?))
    };
    Ok(DnsConfig {
        listen: vec![SocketAddr::new(settings.cluster_dns, DNS_PORT)],
        domain: settings.cluster_domain.clone(),
        address: settings.cluster_dns,
        ranges: vec![range(&settings.cluster_cidr)?, range(&settings.service_cidr)?],
        upstreams: UpstreamSource::File(PathBuf::from("/etc/resolv.conf")),
        publisher,
    })
}

fn api_config(settings: &Settings) -> stead_apiserver::Config {
    stead_apiserver::Config {
        bind: settings.listen,
        advertise: settings.advertise,
        pki_dir: settings.data_dir.join("server/tls"),
        tls_sans: settings.tls_sans.clone(),
        service_cidr: settings.service_cidr.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        cluster_dns: settings.cluster_dns,
    }
}
