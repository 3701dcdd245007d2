//! The parts of a server, opened from the bottom up and closed from the top down.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use stead_apiserver::{ApiServer, Identity, JoinConfig};
use stead_client::Client;
use stead_informer::Caches;
use stead_store::Store;
use stead_workloads::nodeipam::{NODE_BITS, Parts};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Settings, token_file};
use crate::node::endpoint::LocalNode;
use crate::node::{Access, Machine};

/// A running server.
pub(crate) struct Server {
    api: ApiServer,
    store: Arc<dyn Store>,
    /// This machine and its node's name; `None` where it runs no pods.
    machine: Option<(Machine, String)>,
    /// What this process reads, it reads once, in the name of the controller manager; every part writes in its own.
    caches: Caches,
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
        api.let_join(join_config(settings)?)?;
        let machine = match settings.node.clone() {
            Some(node) => Some((Machine::open(node.clone()).await?, node.name)),
            None => None,
        };
        let control_plane = client(&api, &Identity::new("system:kube-controller-manager", &[]));
        let mut server =
            Self { api, store, machine, caches: Caches::new(control_plane), tasks: JoinSet::new(), stop: stop.clone() };
        server.start_api().await?;
        server.start_controllers(settings)?;
        server.start_scheduler();
        server.start_node(settings, &local_node).await?;
        Ok(server)
    }

    /// A client with all rights.
    pub(crate) fn admin(&self) -> Client {
        client(&self.api, &Identity::admin())
    }

    /// Reads an image archive into this node's store.
    pub(crate) async fn import(&self, archive: &Path) -> Result<()> {
        let (machine, _) = self.machine.as_ref().context("this server runs no pods")?;
        machine.engine.import(archive.to_owned()).await.with_context(|| archive.display().to_string())?;
        Ok(())
    }

    /// Returns when pods can be created and will run.
    pub(crate) async fn ready(&self) {
        if let Some((_, name)) = &self.machine {
            let nodes = self.caches.of::<Node>();
            nodes.until(|nodes| nodes.get("", name).is_some_and(|node| is_ready(&node))).await;
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

    fn start_controllers(&mut self, settings: &Settings) -> Result<()> {
        let mut config = stead_controllers::Config {
            root_ca: Some(self.api.pki().ca_pem().to_owned()),
            storage_dir: settings.data_dir.join("storage").to_string_lossy().into_owned(),
            accounts: Some(accounts(&self.api)),
            pod_ranges: Some(Parts::of(&settings.cluster.cluster_cidr, NODE_BITS)?),
            node_silence_max: settings.node_silence_max,
            autoscaler_sync: settings.autoscaler_sync,
            ..stead_controllers::Config::default()
        };
        if !settings.has("local-storage") {
            config.disabled.push("local-storage".to_owned());
        }
        let metrics = config.metrics.clone();
        self.api.add_metrics(move || metrics.render());
        let (caches, stop) = (self.caches.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            stead_controllers::run(config, caches.client().clone(), caches, stop).await;
            Ok(())
        });
        Ok(())
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
        let Some((machine, name)) = &self.machine else { return Ok(()) };
        let caches_of = |who: &Identity| Caches::new(client(&self.api, who));
        let access = Access {
            node: caches_of(&Identity::new(&format!("system:node:{name}"), &["system:nodes"])),
            storage: caches_of(&account("local-provisioner")),
            proxy: self.caches.clone(),
            dns: self.caches.clone(),
            dns_publisher: Some(client(&self.api, &account("cluster-dns"))),
        };
        let node = machine.start(&settings.cluster, access, &mut self.tasks, &self.stop).await?;
        local.set(name, node);
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

pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn join_config(settings: &Settings) -> Result<JoinConfig> {
    Ok(JoinConfig {
        token_file: token_file(&settings.data_dir),
        token: settings.token.clone(),
        own_name: settings.node.as_ref().map(|node| node.name.clone()),
        cluster: serde_json::to_value(&settings.cluster)?,
    })
}

fn api_config(settings: &Settings) -> stead_apiserver::Config {
    stead_apiserver::Config {
        bind: settings.listen,
        advertise: settings.advertise,
        pki_dir: settings.data_dir.join("server/tls"),
        tls_sans: settings.tls_sans.clone(),
        service_cidr: settings.cluster.service_cidr.clone(),
        cluster_domain: settings.cluster.cluster_domain.clone(),
        cluster_dns: settings.cluster.cluster_dns,
    }
}
