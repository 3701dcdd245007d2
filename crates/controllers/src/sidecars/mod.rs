//! What the side-cars of a storage driver do, for drivers whose sockets lie in the directory of a node: volumes are provisioned,
//! attached, grown and deleted through the socket. The decisions are [`stead_workloads::csi`].
//!
//! A driver that is deployed with side-cars of its own has no socket there, and nothing is done for it.

mod attach;
mod calls;
mod provision;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass, VolumeAttachment};
use stead_client::Client;
use stead_csi::messages::{ControllerGetCapabilitiesRequest, GetPluginCapabilitiesRequest, GetPluginInfoRequest};
use stead_csi::{ControllerAbilities, Endpoint, Services, Socket, Sockets};
use stead_informer::{Cache, Caches, Clock, Key, Next, Queue, Recorder, run_workers};
use stead_workloads::csi::{Offer, actor};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;
use crate::claims::is_open;

/// Annotation of a CSINode: the drivers whose controllers are called from that node.
const CONTROLLERS: &str = "stead.dev/csi-controllers";
/// How long a driver may take for one call: a storage system may have to make room first.
const CALL_MAX: Duration = Duration::from_secs(120);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Objects of one driver that are worked on at the same time.
const WORKERS: usize = 10;

/// Where drivers are looked for, and in whose name.
#[derive(Clone)]
pub struct SidecarConfig {
    /// Directory of sockets.
    pub dir: PathBuf,
    /// The node that this is.
    pub node: String,
    pub clock: Clock,
}

impl fmt::Debug for SidecarConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SidecarConfig").field("dir", &self.dir).field("node", &self.node).finish_non_exhaustive()
    }
}

/// Serves every driver of the directory until `shutdown`. `caches` have to be in the name of the provisioner.
pub async fn run(config: SidecarConfig, caches: Caches, shutdown: CancellationToken) {
    let sockets = match Sockets::watch(&config.dir) {
        Ok(sockets) => sockets,
        Err(error) => return tracing::error!(dir = %config.dir.display(), %error, "cannot watch for storage drivers"),
    };
    let mut known: BTreeMap<Socket, DropGuard> = BTreeMap::new();
    loop {
        let there = sockets.list().unwrap_or_default();
        known.retain(|socket, _| there.contains(socket));
        for socket in there {
            known.entry(socket.clone()).or_insert_with(|| {
                let stop = shutdown.child_token();
                tokio::spawn(serve(config.clone(), caches.clone(), socket, stop.clone()));
                stop.drop_guard()
            });
        }
        if shutdown.run_until_cancelled(sockets.changed()).await.is_none() {
            return;
        }
    }
}

/// Serves one driver until its socket is gone.
async fn serve(config: SidecarConfig, caches: Caches, socket: Socket, stop: CancellationToken) {
    let endpoint = Endpoint::new(&socket.path);
    let mut pause = PAUSE_FIRST;
    loop {
        match stop.run_until_cancelled(Driver::meet(&endpoint)).await {
            None | Some(Ok(None)) => return,
            Some(Ok(Some(driver))) => return Sidecars::new(config, &caches, driver).run(stop).await,
            Some(Err(status)) => {
                tracing::info!(socket = %socket.path.display(), %status, "storage driver does not answer yet");
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// A driver with a controller.
#[derive(Clone, Debug)]
struct Driver {
    name: String,
    endpoint: Endpoint,
    services: Services,
    abilities: ControllerAbilities,
}

impl Driver {
    /// Asks a driver what it is; `None` when it has no controller.
    async fn meet(endpoint: &Endpoint) -> Result<Option<Self>, stead_csi::Status> {
        let name = endpoint.call(&GetPluginInfoRequest {}, CALL_MAX).await?.name;
        let services = Services::from(&endpoint.call(&GetPluginCapabilitiesRequest {}, CALL_MAX).await?);
        if !services.controller {
            return Ok(None);
        }
        let able = endpoint.call(&ControllerGetCapabilitiesRequest {}, CALL_MAX).await?;
        let abilities = ControllerAbilities::from(&able);
        Ok(Some(Self { name, endpoint: endpoint.clone(), services, abilities }))
    }
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Item {
    Claim(Key),
    Volume(Key),
    Attachment(Key),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Claim(key) => write!(f, "claim {key}"),
            Item::Volume(key) => write!(f, "volume {key}"),
            Item::Attachment(key) => write!(f, "attachment {key}"),
        }
    }
}

/// The side-cars of one driver.
struct Sidecars {
    driver: Driver,
    node: String,
    client: Client,
    clock: Clock,
    recorder: Recorder,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    attachments: Cache<VolumeAttachment>,
    csi_nodes: Cache<CSINode>,
    nodes: Cache<Node>,
}

impl Sidecars {
    fn new(config: SidecarConfig, caches: &Caches, driver: Driver) -> Arc<Self> {
        let recorder = Recorder::new(caches.client().clone(), &driver.name, &config.node, config.clock.clone());
        Arc::new(Self {
            driver,
            node: config.node,
            client: caches.client().clone(),
            clock: config.clock,
            recorder,
            claims: caches.of(),
            volumes: caches.of(),
            classes: caches.of(),
            attachments: caches.of(),
            csi_nodes: caches.of(),
            nodes: caches.of(),
        })
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let synced = async {
            tokio::join!(
                self.claims.synced(),
                self.volumes.synced(),
                self.classes.synced(),
                self.attachments.synced(),
                self.csi_nodes.synced(),
                self.nodes.synced(),
            )
        };
        if stop.run_until_cancelled(synced).await.is_none() {
            return;
        }
        tracing::info!(driver = self.driver.name, "serving the claims of a storage driver");
        let queue = Queue::new();
        let feeding = tokio::spawn(stop.clone().run_until_cancelled_owned(self.clone().feed(queue.clone())));
        let sidecars = self.clone();
        run_workers(queue, WORKERS, stop, move |item| {
            let sidecars = sidecars.clone();
            async move { sidecars.work(&item).await }
        })
        .await;
        let _ = feeding.await;
    }

    /// Which change wakes which item.
    async fn feed(self: Arc<Self>, queue: Queue<Item>) {
        let (mut claims, mut volumes) = (self.claims.subscribe(), self.volumes.subscribe());
        let (mut attachments, mut classes) = (self.attachments.subscribe(), self.classes.subscribe());
        let (mut csi_nodes, mut nodes) = (self.csi_nodes.subscribe(), self.nodes.subscribe());
        loop {
            tokio::select! {
                Some(change) = claims.next() => queue.add(Item::Claim(change.key)),
                Some(change) = volumes.next() => queue.add(Item::Volume(change.key)),
                Some(change) = attachments.next() => {
                    // A volume that nobody has attached any more may go.
                    if let Some(attachment) = change.newest() {
                        let name = stead_workloads::csi::attached_volume(attachment);
                        queue.add(Item::Volume(Key::new("", name)));
                    }
                    queue.add(Item::Attachment(change.key));
                }
                Some(_) = classes.next() => self.add_all(&queue),
                Some(_) = csi_nodes.next() => self.add_all(&queue),
                // Only a node that becomes ready, or is not any more, changes who acts.
                Some(change) = nodes.next() => {
                    let ready = |node: Option<&Arc<Node>>| node.is_some_and(|node| is_open(node));
                    if ready(change.old.as_ref()) != ready(change.new.as_ref()) {
                        self.add_all(&queue);
                    }
                }
                else => return,
            }
        }
    }

    fn add_all(&self, queue: &Queue<Item>) {
        self.claims.list().iter().for_each(|claim| queue.add(Item::Claim(Key::of(&claim.metadata))));
        self.volumes.list().iter().for_each(|volume| queue.add(Item::Volume(Key::of(&volume.metadata))));
        self.attachments.list().iter().for_each(|one| queue.add(Item::Attachment(Key::of(&one.metadata))));
    }

    async fn work(&self, item: &Item) -> Next {
        let done = match item {
            Item::Claim(key) => self.claim(key).await,
            Item::Volume(key) => self.volume(key).await,
            Item::Attachment(key) => self.attachment(key).await,
        };
        match done {
            Ok(()) => Next::Done,
            Err(error) => {
                tracing::info!(driver = self.driver.name, %item, %error, "will try again");
                Next::Retry
            }
        }
    }

    /// Whether this node is the one that acts for an object with which the node `concerned` has to do.
    fn acts(&self, concerned: Option<&str>) -> bool {
        let offers: Vec<Offer> = self.csi_nodes.list().iter().filter_map(|node| self.offer(node)).collect();
        actor(&offers, concerned) == Some(self.node.as_str())
    }

    fn offer(&self, node: &CSINode) -> Option<Offer> {
        let listed = node.metadata.annotations.as_ref()?.get(CONTROLLERS)?;
        listed.split(',').any(|name| name == self.driver.name).then_some(())?;
        let name = node.metadata.name.clone()?;
        let ready = self.nodes.get("", &name).is_some_and(|node| is_open(&node));
        Some(Offer { node: name, ready })
    }
}

/// What went wrong, with what was being done.
fn refused(what: String, status: &stead_csi::Status) -> Error {
    Error::Blocked(format!("cannot {what}: {status}"))
}
