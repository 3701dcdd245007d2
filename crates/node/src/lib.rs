//! The node: brings pods up and down on this machine, and says how they are. What upstream's kubelet does.
//!
//! Invariants:
//! - decisions are `stead-podlife`'s; here they are carried out, one task per action;
//! - two pods of one name never overlap on a node;
//! - the process may be killed at any line: containers go on, and the next process takes them up as they are.

#![allow(unsafe_code)]

mod addresses;
mod admission;
mod config;
mod container;
mod context;
mod csi;
mod downward;
mod env;
mod execute;
mod expand;
mod files;
mod hooks;
mod image;
mod inbox;
mod ledger;
mod logs;
mod objects;
mod observe;
mod pods;
mod probing;
mod reclaim;
mod register;
mod report;
mod server;
mod start;
mod system;
mod tls;
mod usage;
mod volumes;
mod worker;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::Mutex;
use stead_client::Client;
use stead_informer::{Cache, Caches, Clock, Recorder};
use stead_podlife::{Addresses as PodAddresses, spec};
use stead_runtime::Engine;
use stead_wire::Network;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use addresses::AddressError;
pub use config::{LEASE_SECONDS, NodeConfig, PODS_MAX, SERVER_PORT};
pub use register::pod_range;
pub use server::{Body, ServeError, serve};
pub use volumes::{PROVISIONED_BY, PROVISIONER_LOCAL};

use addresses::Addresses;
use downward::Surroundings;
use ledger::Ledger;
use objects::Objects;
use pods::Pods;
use system::Capacity;

/// Why a node cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Addresses(#[from] AddressError),
    #[error("cannot prepare the network: {0}")]
    Network(#[from] stead_wire::WireError),
    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
}

/// One node. Shared by its tasks and its HTTP endpoints.
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) clock: Clock,
    pub(crate) ledger: Ledger,
    pub(crate) objects: Objects,
    pub(crate) recorder: Recorder,
    pub(crate) addresses: Addresses,
    pub(crate) services: Cache<Service>,
    pub(crate) storage: Caches,
    /// Held while an image volume is mounted, or found unused and unmounted.
    pub(crate) images: tokio::sync::Mutex<()>,
    /// Pod uid by the name of a volume that only one pod may have.
    pub(crate) sole_users: Mutex<HashMap<String, String>>,
    pub(crate) drivers: csi::Drivers,
    pub(crate) capacity: Capacity,
    /// What was in use a moment ago.
    pub(crate) samples: usage::Samples,
    pub(crate) pods: Pods,
    /// Containers whose output somebody has had by attaching.
    pub(crate) attached: Mutex<HashSet<String>>,
    /// Pod uid by sandbox id.
    pub(crate) owners: Mutex<HashMap<String, String>>,
    /// Images have come or gone, or the node was silent: its status is looked at again.
    pub(crate) look: Notify,
    pub(crate) stop: CancellationToken,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that does nothing yet. Must be called within a tokio runtime. `caches` are read, and everything but local
    /// volumes is written, in the node's name; `storage` is in the name of the local provisioner, who follows and deletes
    /// volumes, which nodes may not. Both may be shared with others of this process; `stop` ends every task of the node,
    /// and no container.
    ///
    /// # Errors
    /// When the pod range is not one, or directories cannot be made.
    pub fn new(
        config: NodeConfig,
        (caches, storage): (&Caches, &Caches),
        engine: Arc<dyn Engine>,
        network: Arc<dyn Network>,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, NodeError> {
        for dir in [config.data_dir.join("pods"), config.log_dir.clone()] {
            let made = std::fs::create_dir_all(&dir);
            made.map_err(|source| NodeError::Io { context: format!("cannot make {}", dir.display()), source })?;
        }
        let client = caches.client().clone();
        Ok(Arc::new(Node {
            ledger: Ledger::new(engine.clone()),
            objects: Objects::new(client.clone()),
            recorder: Recorder::new(client.clone(), "kubelet", &config.name, clock.clone()),
            addresses: Addresses::new(&config.pod_cidr)?,
            services: caches.of::<Service>(),
            storage: storage.clone(),
            images: tokio::sync::Mutex::default(),
            sole_users: Mutex::default(),
            drivers: csi::Drivers::new(storage),
            capacity: system::capacity(&config),
            samples: usage::Samples::default(),
            pods: Pods::default(),
            attached: Mutex::default(),
            owners: Mutex::default(),
            look: Notify::new(),
            stop,
            config,
            client,
            engine,
            network,
            clock,
        }))
    }

    /// Runs the node until `stop`: network, registration, pods, volumes.
    ///
    /// # Errors
    /// When the network cannot be prepared.
    pub async fn run(self: &Arc<Self>) -> Result<(), NodeError> {
        self.network.prepare().await?;
        for link in self.network.attached().await? {
            for address in link.addresses {
                self.addresses.adopt(&link.id, address);
            }
        }
        let tasks = async {
            // The environment of a container names the services: they have to be known before one is made.
            self.services.synced().await;
            futures::join!(self.clone().follow_pods(), self.clone().follow_engine())
        };
        let all = async {
            futures::join!(
                tasks,
                self.clone().keep_registered(),
                self.clone().renew_lease(),
                self.clone().reclaim_volumes(),
                self.clone().follow_drivers(),
                self.clone().sample_usage()
            )
        };
        self.stop.run_until_cancelled(all).await;
        Ok(())
    }

    /// The pod's first address: its own, or the node's for a pod in the host's network.
    pub(crate) fn pod_ip(&self, pod: &Pod) -> Option<IpAddr> {
        if spec::pod_spec(pod).host_network.unwrap_or(false) {
            return Some(self.config.node_ip);
        }
        self.addresses.of(spec::identity(pod).2)
    }

    pub(crate) fn addresses_of(&self, pod: &Pod) -> PodAddresses {
        let engine = self.engine.version();
        PodAddresses {
            host: vec![self.config.node_ip],
            pod: self.pod_ip(pod).into_iter().collect(),
            engine: engine.split("://").next().unwrap_or("stead").to_owned(),
        }
    }
}

/// What a pod may be told about where it is.
pub(crate) fn surroundings(node: &Node, pod: &Pod) -> Surroundings {
    Surroundings {
        host_ips: vec![node.config.node_ip],
        pod_ips: node.pod_ip(pod).into_iter().collect(),
        cpu_milli: i128::from(node.capacity.cpu_milli),
        memory_bytes: i128::from(node.capacity.memory_bytes),
        disk_bytes: i128::from(node.capacity.disk_bytes),
    }
}
