//! A world for the tests: the real API server in memory, a network and an engine that only remember, and the node.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod engine;
pub mod real;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Event, Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Config, Identity, NoNodes, NodeDialer};
use stead_informer::{Cache, Caches, system_clock};
use stead_node::{Node, NodeConfig};
use stead_runtime::Engine;
use stead_wire::Network;
use stead_wire::memory::MemoryNetwork;
use tokio_util::sync::CancellationToken;

pub use engine::FakeEngine;

/// No single step of a test takes as long as this.
pub const LONG: Duration = Duration::from_secs(20);
pub const NAMESPACE: &str = "ns";

pub struct World {
    pub dir: tempfile::TempDir,
    pub client: Client,
    pub caches: Caches,
    pub engine: Arc<FakeEngine>,
    pub network: Arc<MemoryNetwork>,
    pub node: Arc<Node>,
    stop: CancellationToken,
}

/// What the node says goes to the output of the test.
pub fn trace() {
    let level = tracing_subscriber::EnvFilter::new("warn,stead_node=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(level).with_test_writer().try_init();
}

/// An API server in memory, with the namespace `ns` and what a pod needs of it.
pub async fn api(dir: &std::path::Path, nodes: Arc<dyn NodeDialer>) -> Client {
    let config = Config {
        bind: (Ipv4Addr::LOCALHOST, 6443).into(),
        advertise: IpAddr::from([192, 0, 2, 2]),
        pki_dir: dir.join("pki"),
        tls_sans: Vec::new(),
        service_cidr: "10.43.0.0/16".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        cluster_dns: IpAddr::from([10, 43, 0, 10]),
    };
    let server = ApiServer::open(config, stead_store::memory(), nodes).await.expect("an API server");
    let client = stead_client::in_process(server.in_process(Identity::admin()), "default");
    let namespace: Namespace = from(json!({"metadata": {"name": NAMESPACE}}));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
    let account: ServiceAccount = from(json!({"metadata": {"name": "default"}}));
    create(&client, &account).await;
    let root: ConfigMap = from(json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "CA"}}));
    create(&client, &root).await;
    client
}

pub fn from<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

pub async fn create<K>(client: &Client, object: &K) -> K
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), object).await.expect("created")
}

impl World {
    pub async fn new() -> World {
        trace();
        let dir = tempfile::Builder::new().prefix("stead-node-").tempdir().expect("a directory");
        let client = api(dir.path(), Arc::new(NoNodes)).await;
        let caches = Caches::new(client.clone());
        let (engine, network) = (FakeEngine::new(), Arc::new(MemoryNetwork::new()));
        let stop = CancellationToken::new();
        let node = start(&dir, &caches, engine.clone(), network.clone(), &stop);
        World { dir, client, caches, engine, network, node, stop }
    }

    /// The node's process is killed and comes back: engine, network and disk stay.
    pub fn restart(&mut self) {
        self.stop.cancel();
        self.stop = CancellationToken::new();
        self.node = start(&self.dir, &self.caches, self.engine.clone(), self.network.clone(), &self.stop);
    }

    /// Only the end of the old process.
    pub fn kill(&self) {
        self.stop.cancel();
    }

    pub fn pods(&self) -> Cache<Pod> {
        self.caches.of::<Pod>()
    }

    /// Makes a pod on this node: the name and a spec without what every pod has.
    pub async fn pod(&self, name: &str, spec: Value) -> Pod {
        let pod = pod(name, spec);
        create(&self.client, &pod).await
    }

    pub async fn until(&self, name: &str, what: impl FnMut(&Pod) -> bool) -> Arc<Pod> {
        until(&self.pods(), name, what).await
    }

    pub async fn gone(&self, name: &str) {
        let cache = self.pods();
        let waiting = cache.until(|cache| cache.get(NAMESPACE, name).is_none());
        tokio::time::timeout(LONG, waiting).await.expect("the pod goes");
    }

    pub async fn delete(&self, name: &str, grace: Option<u32>) {
        delete(&self.client, name, grace).await;
    }

    /// Waits until an event with this message exists.
    pub async fn event(&self, reason: &str, message: &str) -> Event {
        let cache = self.caches.of::<Event>();
        let holds = |event: &Event| {
            event.reason.as_deref() == Some(reason)
                && event.message.as_deref().is_some_and(|text| text.starts_with(message))
        };
        let found = async {
            cache.until(|cache| cache.list().iter().any(|event| holds(event))).await;
            cache.list().iter().find(|event| holds(event)).map(|event| (**event).clone())
        };
        match tokio::time::timeout(LONG, found).await {
            Ok(Some(event)) => event,
            _ => panic!("no event {reason} {message:?}; there are: {:#?}", self.events().await),
        }
    }

    pub async fn events(&self) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        let events = api.list(&ListParams::default()).await.expect("events");
        let line = |event: Event| {
            format!(
                "{} {} {}",
                event.type_.unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            )
        };
        events.items.into_iter().map(line).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        unmount_below(self.dir.path());
    }
}

/// A test that ends leaves pods, and these have mounts.
pub fn unmount_below(dir: &std::path::Path) {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&*dir.to_string_lossy()));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

pub fn pod(name: &str, spec: Value) -> Pod {
    let mut pod: Pod = from(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}));
    let spec = pod.spec.as_mut().expect("a spec");
    spec.node_name = Some("n1".to_owned());
    pod
}

pub async fn delete(client: &Client, name: &str, grace: Option<u32>) {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let how = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
    api.delete(name, &how).await.expect("deleted");
}

pub async fn until(cache: &Cache<Pod>, name: &str, mut what: impl FnMut(&Pod) -> bool) -> Arc<Pod> {
    let waiting = async {
        cache.until(|cache| cache.get(NAMESPACE, name).is_some_and(|pod| what(&pod))).await;
        cache.get(NAMESPACE, name)
    };
    match tokio::time::timeout(LONG, waiting).await {
        Ok(Some(pod)) => pod,
        _ => {
            let status = cache.get(NAMESPACE, name).map(|pod| serde_json::to_string(&pod.status).expect("JSON"));
            panic!("the pod {name} is: {}", status.unwrap_or_default())
        }
    }
}

fn start(
    dir: &tempfile::TempDir,
    caches: &Caches,
    engine: Arc<dyn Engine>,
    network: Arc<dyn Network>,
    stop: &CancellationToken,
) -> Arc<Node> {
    let mut config = NodeConfig::new("n1", dir.path().join("node"), IpAddr::from([192, 0, 2, 2]), "10.42.0.0/24");
    config.cluster_dns = vec![IpAddr::from([10, 43, 0, 10])];
    let node = Node::new(config, (caches, caches), engine, network, system_clock(), stop.clone()).expect("a node");
    let running = node.clone();
    tokio::spawn(async move { running.run().await.expect("the node runs") });
    node
}

pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready") == "True"
}

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> &'a str {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|one| one.type_ == kind).map_or("", |one| one.status.as_str())
}

pub fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|one| one.name == container)
}

pub fn waiting<'a>(pod: &'a Pod, container: &str) -> (&'a str, &'a str) {
    let waiting = status(pod, container).and_then(|one| one.state.as_ref()?.waiting.as_ref());
    waiting
        .map_or(("", ""), |one| (one.reason.as_deref().unwrap_or_default(), one.message.as_deref().unwrap_or_default()))
}
