//! This machine as a node: engine, network, and the way by which the API server reaches the node's endpoints.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use stead_apiserver::{AsyncReadWrite, GIT_VERSION, NodeDialer};
use stead_informer::{Caches, system_clock};
use stead_node::{Node, NodeConfig};
use stead_runtime::Engine;
use stead_wire::Network;
use stead_wire::kernel::KernelConfig;
use tokio_util::sync::CancellationToken;

use super::{Settings, engine_options, run_dir};

/// Bytes that may wait in a connection from the API server to the node in this process.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;

/// What a node works with.
pub(super) struct Agent {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) network: Arc<dyn Network>,
}

impl Agent {
    /// Opens engine and network; takes up what an earlier process left running.
    pub(super) async fn open(settings: &Settings) -> Result<Self> {
        let engine =
            stead_runtime::embedded::open(engine_options(&settings.data_dir, settings.registries.clone())).await?;
        let network = stead_wire::kernel::open(KernelConfig {
            instance: settings.instance.clone(),
            pod_cidr: settings.pod_cidr.clone(),
            cluster_cidr: settings.cluster_cidr.clone(),
            service_cidr: settings.service_cidr.clone(),
            cluster_dns: settings.cluster_dns,
            node_ip: settings.node_ip,
            run_dir: run_dir(&settings.data_dir),
        })?;
        Ok(Self { engine, network })
    }

    /// Imports every archive that lies in the directory. A bad one is reported and left out: it must not keep the node down.
    pub(super) async fn import_directory(&self, directory: &Path) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
        for entry in entries {
            let path = entry.with_context(|| directory.display().to_string())?.path();
            match self.engine.import(path.clone()).await {
                Ok(images) => tracing::info!(archive = %path.display(), images = images.len(), "imported"),
                Err(error) => tracing::error!(archive = %path.display(), %error, "cannot import this archive"),
            }
        }
        Ok(())
    }

    /// The node; `caches` are read and written in its own name, those of volumes in the local provisioner's.
    pub(super) fn node(
        &self,
        settings: &Settings,
        caches: (&Caches, &Caches),
        stop: CancellationToken,
    ) -> Result<Arc<Node>> {
        let data_dir = settings.data_dir.join("agent");
        let mut config = NodeConfig::new(&settings.node_name, data_dir, settings.node_ip, &settings.pod_cidr);
        config.cluster_dns = vec![settings.cluster_dns];
        config.cluster_domain.clone_from(&settings.cluster_domain);
        config.version = GIT_VERSION.to_owned();
        Ok(Node::new(config, caches, self.engine.clone(), self.network.clone(), system_clock(), stop)?)
    }
}

/// Connects the API server to the node in this process, without a socket.
#[derive(Default)]
pub(super) struct LocalNode {
    node: OnceLock<(String, Arc<Node>)>,
}

impl LocalNode {
    /// Names the node. It is made after the API server, whose client it uses.
    pub(super) fn set(&self, name: &str, node: Arc<Node>) {
        let _ = self.node.set((name.to_owned(), node));
    }
}

#[async_trait::async_trait]
impl NodeDialer for LocalNode {
    async fn connect(&self, name: &str) -> io::Result<Box<dyn AsyncReadWrite>> {
        let node = self.node.get().filter(|(own, _)| own == name).map(|(_, node)| node.clone());
        let Some(node) = node else {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                format!("node {name:?} is not connected to this server"),
            ));
        };
        let (ours, theirs) = tokio::io::duplex(CONNECTION_BUFFER_BYTES);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let node = node.clone();
                async move { Ok::<_, std::convert::Infallible>(node.handle(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to the node");
            }
        });
        Ok(Box::new(ours))
    }
}
