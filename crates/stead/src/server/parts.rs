//! The parts of a server, opened from the bottom up and closed from the top down.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use stead_apiserver::{ApiServer, Identity};
use stead_client::Client;
use stead_informer::Caches;
use stead_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Settings;

/// A running server.
pub(crate) struct Server {
    api: ApiServer,
    store: Arc<dyn Store>,
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
        let api = ApiServer::open(api_config(settings), store.clone(), Arc::new(stead_apiserver::NoNodes)).await?;
        let mut server = Self { api, store, tasks: JoinSet::new(), stop: stop.clone() };
        server.start_api().await?;
        server.start_controllers();
        Ok(server)
    }

    /// Returns when pods can be created and will run.
    pub(crate) async fn ready(&self) {}

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

    fn start_controllers(&mut self) {
        let client = self.client(&Identity::new("system:kube-controller-manager", &["system:masters"]));
        let caches = Caches::new(client.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stead_controllers::run(stead_controllers::Config::default(), client, caches, stop).await;
            Ok(())
        });
    }

    fn client(&self, who: &Identity) -> Client {
        stead_client::in_process(self.api.in_process(who.clone()), "default")
    }
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
