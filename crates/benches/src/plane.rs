//! A control plane in this process, over a durable store, with simulated nodes: what the figures of many pods are measured on.
//!
//! Controllers and scheduler are wired as the product wires them. A simulated node says at once that a pod runs, and at once that
//! it has ended.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use stead_apiserver::{ApiServer, Config, Identity, NoNodes};
use stead_client::{Client, Place};
use stead_informer::{Cache, Caches, Change};
use stead_store::Store;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Simulated nodes, and pods that each may have.
const NODES: usize = 10;
const PODS_PER_NODE: usize = 20_000;
/// Requests of all simulated nodes that are under way at once.
const REQUESTS_MAX: usize = 64;
/// Heartbeats are left out: no node counts as silent while anything is measured.
const SILENCE_MAX: SignedDuration = SignedDuration::from_hours(24);

pub(crate) struct Plane {
    pub(crate) server: ApiServer,
    /// Within the process, for those who prepare and look.
    pub(crate) client: Client,
    /// The caches of the bench itself.
    pub(crate) caches: Caches,
    stop: CancellationToken,
    dir: tempfile::TempDir,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Plane {
    /// A server with all controllers, the scheduler and simulated nodes.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let database = dir.path().join("db");
        std::fs::create_dir_all(&database)?;
        let store = stead_store::open_disk(&database, stead_store::Options::default()).await?;
        let plane = Self::over(store, dir).await?;
        plane.run_control_plane();
        plane.run_nodes().await?;
        let accounts = plane.caches.of::<ServiceAccount>();
        accounts.until(|accounts| accounts.get("default", "default").is_some()).await;
        Ok(plane)
    }

    /// A server over any store, with nothing beside it.
    pub(crate) async fn over(store: Arc<dyn Store>, dir: tempfile::TempDir) -> Result<Self> {
        let config = Config {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pki_dir: dir.path().join("pki"),
            tls_sans: Vec::new(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
        };
        let server = ApiServer::open(config, store, Arc::new(NoNodes)).await?;
        let client = client(&server, Identity::admin());
        let caches = Caches::new(client.clone());
        Ok(Self { server, client, caches, stop: CancellationToken::new(), dir })
    }

    /// Serves over TLS as well; a client that comes that way.
    pub(crate) async fn outside(&self) -> Result<Client> {
        let listener = self.server.listen().await?;
        let (server, stop) = (self.server.clone(), self.stop.clone());
        tokio::spawn(async move { server.serve_on(listener, stop).await });
        let kubeconfig = self.dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, self.server.admin_kubeconfig())?;
        from_outside(&kubeconfig).await
    }

    fn run_control_plane(&self) {
        let manager = client(&self.server, Identity::new("system:kube-controller-manager", &[]));
        let caches = Caches::new(manager.clone());
        let accounts = {
            let server = self.server.clone();
            move |name: &str| client(&server, account(name))
        };
        let config = stead_controllers::Config {
            accounts: Some(Arc::new(accounts)),
            node_silence_max: SILENCE_MAX,
            ..stead_controllers::Config::default()
        };
        tokio::spawn(stead_controllers::run(config, manager, caches.clone(), self.stop.clone()));
        let scheduler = client(&self.server, Identity::new("system:kube-scheduler", &[]));
        tokio::spawn(stead_scheduler::run(scheduler, caches, self.stop.clone()));
    }

    async fn run_nodes(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for number in 0..NODES {
            let name = format!("node-{number}");
            let node: Node = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
            }))?;
            nodes.create(&PostParams::default(), &node).await?;
            let room = json!({"cpu": "100000", "memory": "100000Gi", "pods": PODS_PER_NODE.to_string()});
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "simulated",
                "lastHeartbeatTime": now, "lastTransitionTime": now});
            let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
            nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await?;
        }
        let caches = Caches::new(self.client.clone());
        let pods: Cache<Pod> = caches.of();
        let (client, room) = (self.client.clone(), Arc::new(Semaphore::new(REQUESTS_MAX)));
        let mut changes = pods.subscribe();
        tokio::spawn(async move {
            let _caches = caches;
            while let Some(change) = changes.next().await {
                let Ok(place) = room.clone().acquire_owned().await else { return };
                let client = client.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // What was not done is done at the next change; what is gone needs nothing.
                    let _ = live(&client, &change).await;
                });
            }
        });
        Ok(())
    }
}

/// What a node does about one pod.
async fn live(client: &Client, change: &Change<Pod>) -> Result<()> {
    let Some(pod) = &change.new else { return Ok(()) };
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if spec.node_name.is_none() {
        return Ok(());
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    if pod.metadata.deletion_timestamp.is_some() {
        let only_this = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        api.delete(name, &DeleteParams::default().grace_period(0).preconditions(only_this)).await?;
        return Ok(());
    }
    if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running") {
        return Ok(());
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |what: &str| json!({"type": what, "status": "True", "lastTransitionTime": now});
    let status = json!({"metadata": {"uid": pod.metadata.uid}, "status": {
        "phase": "Running", "startTime": now, "podIP": "10.42.0.2", "podIPs": [{"ip": "10.42.0.2"}],
        "conditions": [condition("Initialized"), condition("ContainersReady"), condition("Ready")],
        "containerStatuses": [{
            "name": "main", "image": "i", "imageID": "i@sha256:0", "ready": true, "started": true, "restartCount": 0,
            "containerID": "stead://0123456789abcdef", "state": {"running": {"startedAt": now}},
        }],
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// A service account of `kube-system`.
fn account(name: &str) -> Identity {
    let user = format!("system:serviceaccount:kube-system:{name}");
    Identity::new(&user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
}

fn client(server: &ApiServer, who: Identity) -> Client {
    stead_client::in_process(server.in_process(who), "default")
}

/// A client of its own connection.
pub(crate) async fn from_outside(kubeconfig: &Path) -> Result<Client> {
    Ok(stead_client::from_kubeconfig(&Place { path: Some(kubeconfig.to_owned()), ..Place::default() }).await?)
}
