//! The Node object and its Lease: written when something has changed, otherwise rarely.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use serde_json::json;
use std::sync::Arc;
use stead_client::{Class, Client, classify};
use stead_podlife::conditions::whole_seconds;
use tokio::time::{Instant, sleep, timeout};

use crate::{Node, downward, system};

/// How often the status is written when nothing has changed (upstream's `nodeStatusReportFrequency`).
const REPORT_EVERY: Duration = Duration::from_secs(300);
/// How often the machine's state is looked at (upstream's `nodeStatusUpdateFrequency`).
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Pause after a failed write; doubles up to the renewal interval.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Images that the status lists at most, the largest first (upstream's `nodeStatusMaxImages`).
const IMAGES_MAX: usize = 50;
/// Free memory and disk below which the node is under pressure: upstream's hard threshold for memory, k3s' for the disk (10 % of a
/// large disk is no pressure).
const MEMORY_FREE_MIN_BYTES: u64 = 100 << 20;
const DISK_FREE_MIN_PERCENT: u64 = 5;

/// A node as it registers itself. `range` is the one that it was given before: not its own to choose.
fn new_node(name: &str, labels: &BTreeMap<String, String>, taints: &[Taint], range: Option<&str>) -> NodeObject {
    let mut labels = labels.clone();
    let standard = [
        ("beta.kubernetes.io/arch", system::architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", system::architecture()),
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
    ];
    labels.extend(standard.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    let taints = Some(taints.to_vec()).filter(|taints| !taints.is_empty());
    NodeObject {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            taints,
            pod_cidr: range.map(str::to_owned),
            pod_cidrs: range.map(|range| vec![range.to_owned()]),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The range of pod addresses that the cluster gave to the node `name`. The first time it registers the node and waits
/// until a controller has given it one.
///
/// # Errors
/// When the API refuses the node; what may pass is waited for.
pub async fn pod_range(
    client: &Client,
    name: &str,
    labels: &BTreeMap<String, String>,
    taints: &[Taint],
) -> Result<String, kube::Error> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watch_objects(api.clone(), config).default_backoff());
    let range =
        |node: &NodeObject| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone()).filter(|range| !range.is_empty());
    let mut there = false;
    loop {
        match events.next().await {
            Some(Ok(Event::Init)) => there = false,
            Some(Ok(Event::InitApply(node) | Event::Apply(node))) => {
                there = true;
                if let Some(range) = range(&node) {
                    return Ok(range);
                }
            }
            Some(Ok(Event::InitDone)) if !there => register_new(&api, name, labels, taints).await?,
            Some(Ok(Event::Delete(_))) => register_new(&api, name, labels, taints).await?,
            Some(Ok(Event::InitDone)) => {}
            Some(Err(error)) => tracing::info!(%error, "cannot ask for the node's range of addresses yet"),
            None => std::future::pending().await,
        }
    }
}

async fn register_new(
    api: &Api<NodeObject>,
    name: &str,
    labels: &BTreeMap<String, String>,
    taints: &[Taint],
) -> Result<(), kube::Error> {
    match api.create(&PostParams::default(), &new_node(name, labels, taints, None)).await {
        Err(error) if classify(&error) != Class::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Node {
    /// Registers the node, and keeps its status true for ever.
    pub(crate) async fn keep_registered(self: Arc<Self>) {
        let mut pause = PAUSE_FIRST;
        let mut written: Option<(NodeStatus, Instant)> = None;
        loop {
            let known = match self.registered().await {
                Ok(known) => known,
                Err(error) => {
                    tracing::debug!(%error, "cannot register the node yet");
                    sleep(pause).await;
                    pause = (pause * 2).min(LOOK_EVERY);
                    continue;
                }
            };
            pause = PAUSE_FIRST;
            let status = self.node_status(known.status.as_ref()).await;
            let is_same = |old: &NodeStatus| without_heartbeats(old) == without_heartbeats(&status);
            let rests = written.as_ref().is_some_and(|(old, at)| is_same(old) && at.elapsed() < REPORT_EVERY)
                && says_the_same(known.status.as_ref(), &status);
            if !rests && self.write_status(&status).await {
                written = Some((status, Instant::now()));
            }
            let _ = timeout(LOOK_EVERY, self.look.notified()).await;
        }
    }

    /// The Node object, made or completed if need be.
    async fn registered(&self) -> Result<NodeObject, kube::Error> {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let wanted = self.node_object();
        let Some(known) = api.get_opt(&self.config.name).await? else {
            return match api.create(&PostParams::default(), &wanted).await {
                Err(error) if classify(&error) == Class::AlreadyExists => api.get(&self.config.name).await,
                other => other,
            };
        };
        let range = known.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
        if let Some(other) = range.filter(|range| *range != self.config.pod_cidr) {
            let own = &self.config.pod_cidr;
            tracing::error!(
                other,
                own,
                "this node has another range of addresses now: stop it, run killall, start it again"
            );
        }
        let labels = wanted.metadata.labels.clone().unwrap_or_default();
        let has = |key: &String, value: &String| {
            known.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value)
        };
        if labels.iter().all(|(key, value)| has(key, value)) {
            return Ok(known);
        }
        let patch = json!({"metadata": {"labels": labels}});
        api.patch(&self.config.name, &PatchParams::default(), &Patch::Merge(&patch)).await
    }

    fn node_object(&self) -> NodeObject {
        let config = &self.config;
        new_node(&config.name, &config.labels, &config.taints, Some(&config.pod_cidr))
    }

    async fn write_status(&self, status: &NodeStatus) -> bool {
        let api: Api<NodeObject> = Api::all(self.client.clone());
        let patch = json!({ "status": status });
        match api.patch_status(&self.config.name, &PatchParams::default(), &Patch::Strategic(&patch)).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%error, "cannot write the node's status");
                false
            }
        }
    }

    async fn node_status(&self, known: Option<&NodeStatus>) -> NodeStatus {
        let (capacity, allocatable) = self.amounts();
        let addresses = [("InternalIP", self.config.node_ip.to_string()), ("Hostname", self.config.name.clone())];
        let info = system::info();
        // An empty list takes away what was there; a node that never had one says nothing.
        let had = known.is_some_and(|known| known.volumes_in_use.is_some());
        let in_use = Some(self.volumes_in_use()).filter(|volumes| had || !volumes.is_empty());
        NodeStatus {
            addresses: Some(
                addresses
                    .into_iter()
                    .map(|(type_, address)| NodeAddress { type_: type_.to_owned(), address })
                    .collect(),
            ),
            capacity: Some(capacity),
            allocatable: Some(allocatable),
            conditions: Some(self.conditions(known)),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.config.server_port) }),
            }),
            images: Some(self.images().await),
            volumes_in_use: in_use,
            node_info: Some(NodeSystemInfo {
                architecture: info.architecture,
                boot_id: info.boot_id,
                container_runtime_version: self.engine.version(),
                kernel_version: info.kernel_version,
                kube_proxy_version: String::new(),
                kubelet_version: self.config.version.clone(),
                machine_id: info.machine_id,
                operating_system: "linux".to_owned(),
                os_image: info.os_image,
                system_uuid: info.system_uuid,
                ..NodeSystemInfo::default()
            }),
            ..NodeStatus::default()
        }
    }

    /// Capacity and allocatable.
    fn amounts(&self) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
        let capacity = self.capacity;
        let list = |cpu: u64, memory: u64, disk: String| {
            let pairs = [
                ("cpu", downward::cores(i128::from(cpu)).0),
                ("ephemeral-storage", disk),
                ("hugepages-1Gi", "0".to_owned()),
                ("hugepages-2Mi", "0".to_owned()),
                ("memory", format!("{}Ki", memory / 1024)),
                ("pods", capacity.pods.to_string()),
            ];
            pairs.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect()
        };
        let (cpu, memory) = self.config.reserved;
        let whole = list(capacity.cpu_milli, capacity.memory_bytes, format!("{}Ki", capacity.disk_bytes / 1024));
        let usable = list(
            capacity.cpu_milli.saturating_sub(cpu),
            capacity.memory_bytes.saturating_sub(memory),
            (capacity.disk_bytes / 10 * 9).to_string(),
        );
        (whole, usable)
    }

    async fn images(&self) -> Vec<ContainerImage> {
        let mut images = self.engine.images().await.unwrap_or_default();
        images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
        images.truncate(IMAGES_MAX);
        let one = |image: stead_runtime::Image| ContainerImage {
            names: Some(image.digests.into_iter().chain(image.references).collect()),
            size_bytes: i64::try_from(image.size_bytes).ok(),
        };
        images.into_iter().map(one).collect()
    }

    fn conditions(&self, known: Option<&NodeStatus>) -> Vec<NodeCondition> {
        let memory_short = system::meminfo("MemAvailable").is_some_and(|free| free < MEMORY_FREE_MIN_BYTES);
        let disk_short =
            system::disk(&self.config.data_dir).is_some_and(|(size, free)| free * 100 < size * DISK_FREE_MIN_PERCENT);
        let rows = [
            (
                "MemoryPressure",
                memory_short,
                if memory_short {
                    ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
                } else {
                    ("KubeletHasSufficientMemory", "kubelet has sufficient memory available")
                },
            ),
            (
                "DiskPressure",
                disk_short,
                if disk_short {
                    ("KubeletHasDiskPressure", "kubelet has disk pressure")
                } else {
                    ("KubeletHasNoDiskPressure", "kubelet has no disk pressure")
                },
            ),
            ("PIDPressure", false, ("KubeletHasSufficientPID", "kubelet has sufficient PID available")),
            ("Ready", true, ("KubeletReady", "kubelet is posting ready status")),
        ];
        let now = Time(whole_seconds((self.clock)()));
        let before = known.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        rows.into_iter()
            .map(|(type_, holds, (reason, message))| {
                let status = if holds { "True" } else { "False" };
                let same = before.iter().find(|one| one.type_ == type_ && one.status == status);
                NodeCondition {
                    type_: type_.to_owned(),
                    status: status.to_owned(),
                    reason: Some(reason.to_owned()),
                    message: Some(message.to_owned()),
                    last_heartbeat_time: Some(now.clone()),
                    last_transition_time: same
                        .and_then(|one| one.last_transition_time.clone())
                        .or_else(|| Some(now.clone())),
                }
            })
            .collect()
    }

    /// Says again and again that this node lives.
    pub(crate) async fn renew_lease(self: Arc<Self>) {
        let every = Duration::from_millis(u64::from(self.config.lease_seconds) * 250);
        let mut pause = PAUSE_FIRST;
        loop {
            match self.renew_once().await {
                Ok(()) => {
                    if pause != PAUSE_FIRST {
                        // After a silence others may have spoken for this node: it looks at once.
                        self.look.notify_one();
                    }
                    pause = PAUSE_FIRST;
                    sleep(every).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot renew the node's lease");
                    sleep(pause).await;
                    pause = (pause * 2).min(every);
                }
            }
        }
    }

    async fn renew_once(&self) -> Result<(), kube::Error> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        let now = MicroTime((self.clock)());
        let patch = json!({"spec": {"holderIdentity": self.config.name, "leaseDurationSeconds": self.config.lease_seconds, "renewTime": now}});
        match api.patch(&self.config.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(error) if classify(&error) == Class::NotFound => {}
            other => return other.map(|_| ()),
        }
        // The lease belongs to the node object, which has to be there first.
        let owned = self.owned_by_node().await?;
        let lease = Lease {
            metadata: ObjectMeta { namespace: Some(LEASE_NAMESPACE.to_owned()), ..owned },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.name.clone()),
                lease_duration_seconds: i32::try_from(self.config.lease_seconds).ok(),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        match api.create(&PostParams::default(), &lease).await {
            Err(error) if classify(&error) != Class::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// The name and the owner of an object that is the node's own and goes with it.
    ///
    /// # Errors
    /// The API's, also when the node object is not there yet.
    pub(crate) async fn owned_by_node(&self) -> Result<ObjectMeta, kube::Error> {
        let nodes: Api<NodeObject> = Api::all(self.client.clone());
        let node = nodes.get(&self.config.name).await?;
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.config.name.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        };
        Ok(ObjectMeta {
            name: Some(self.config.name.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        })
    }
}

/// Whether the conditions that the API has are those that hold: while the node was silent, others spoke for it.
fn says_the_same(known: Option<&NodeStatus>, own: &NodeStatus) -> bool {
    let of = |status: &NodeStatus| -> BTreeMap<String, String> {
        status.conditions.iter().flatten().map(|one| (one.type_.clone(), one.status.clone())).collect()
    };
    let known = known.map(of).unwrap_or_default();
    of(own).iter().all(|(kind, status)| known.get(kind) == Some(status))
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}
