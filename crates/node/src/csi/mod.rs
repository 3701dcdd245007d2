//! Storage drivers on this node: known by their sockets, and called for the volumes of this node's pods. What comes next for a
//! volume is `stead_podlife::csi`'s to say.
//!
//! Directories are the kubelet's, below the node's own: `plugins_registry` for the sockets of registrars,
//! `plugins/kubernetes.io/csi/<driver>/<hash>/globalmount` for staged volumes,
//! `pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount` for published ones, each with a `vol_data.json` above it that says what
//! it is. Ours is `csi`: drivers whose sockets lie there need neither a registrar nor side-cars.

mod mount;
mod record;
mod register;
mod take_down;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use parking_lot::Mutex;
use stead_csi::{Endpoint, NodeAbilities, Rpc, Socket, Status};
use stead_informer::Cache;
use tokio::sync::watch;

use crate::Node;

pub(crate) use mount::mount;

/// How long a driver may take for one call, as in upstream's kubelet.
const CALL_MAX: Duration = Duration::from_secs(120);

/// A driver of this node.
#[derive(Clone, Debug)]
struct Driver {
    /// The socket that made it known.
    socket: Socket,
    endpoint: Endpoint,
    /// What it calls this node.
    node_id: String,
    abilities: NodeAbilities,
    topology: BTreeMap<String, String>,
    /// Volumes that it can have on this node; 0: it does not say.
    volumes_max: i64,
    /// Its controller is called from this node.
    controller: bool,
}

impl Driver {
    async fn call<R: Rpc>(&self, request: &R) -> Result<R::Response, Status> {
        self.endpoint.call(request, CALL_MAX).await
    }
}

/// The drivers of this node, and the volumes that are being worked on.
#[derive(Debug)]
pub(crate) struct Drivers {
    /// By the driver's name.
    known: watch::Sender<BTreeMap<String, Driver>>,
    /// Held while something is done with a volume; by its name.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    attachments: Cache<VolumeAttachment>,
    objects: Cache<CSIDriver>,
}

impl Drivers {
    pub(crate) fn new(storage: &stead_informer::Caches) -> Self {
        Self {
            known: watch::Sender::default(),
            turns: Mutex::default(),
            attachments: storage.of(),
            objects: storage.of(),
        }
    }

    fn get(&self, name: &str) -> Option<Driver> {
        self.known.borrow().get(name).cloned()
    }

    /// The turn of one volume: two tasks never do something with it at the same time.
    fn turn(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(volume.to_owned()).or_default().clone()
    }
}

/// Tells when a driver of this node has come or gone.
#[derive(Debug)]
pub(crate) struct DriverChanges(watch::Receiver<BTreeMap<String, Driver>>);

impl DriverChanges {
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Node {
    /// Changes of the drivers from now on.
    pub(crate) fn driver_changes(&self) -> DriverChanges {
        DriverChanges(self.drivers.known.subscribe())
    }

    fn staging_root(&self) -> PathBuf {
        self.config.data_dir.join("plugins/kubernetes.io/csi")
    }
}
