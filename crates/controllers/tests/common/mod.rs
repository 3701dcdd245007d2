//! A cluster in one process: the real API server on a store in memory, controllers, and nodes that are simulated.
#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Config, Identity, NoNodes, NodeDialer};
use stead_client::{Client, create_if_absent, in_process};
use stead_controllers::{Config as ControllerConfig, registry, run_only};
use stead_informer::{Cache, Caches, Object};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far longer than anything takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
pub const NS: &str = "default";

pub struct Cluster {
    pub server: ApiServer,
    pub client: Client,
    pub caches: Caches,
    pub pods: Cache<Pod>,
    /// `+web-0` created, `~web-0` told to end, `-web-0` gone.
    log: Arc<Mutex<Vec<String>>>,
    /// Whether the nodes run pods at once, or wait for [`Cluster::ready`] and [`Cluster::gone`].
    nodes_run: Arc<Mutex<bool>>,
    pub metrics: stead_controllers::Metrics,
    _stop: DropGuard,
    _pki: tempfile::TempDir,
}

impl Cluster {
    /// A cluster whose nodes start and stop pods at once.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more controllers than those of workloads.
    pub async fn start_with(more: &[&str]) -> Self {
        Self::start_among(more, Arc::new(NoNodes), ControllerConfig::default()).await
    }

    /// The same with nodes that can be asked, and settings of the controllers.
    pub async fn start_among(more: &[&str], nodes: Arc<dyn NodeDialer>, settings: ControllerConfig) -> Self {
        let pki = tempfile::tempdir().expect("a directory");
        let config = Config {
            bind: "127.0.0.1:0".parse().expect("an address"),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pki_dir: pki.path().to_owned(),
            tls_sans: vec![],
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
        };
        let server = ApiServer::open(config, stead_store::memory(), nodes).await.expect("opens");
        let client = in_process(server.in_process(Identity::admin()), NS);
        let account = ServiceAccount { metadata: name("default"), ..Default::default() };
        create_if_absent(&Api::namespaced(client.clone(), NS), &account).await.expect("a service account");
        let caches = Caches::new(client.clone());
        let stop = CancellationToken::new();
        let entries =
            registry::all().into_iter().filter(|e| NAMES.contains(&e.name) || more.contains(&e.name)).collect();
        // Each controller in the name of its own account: a right that it lacks makes its test fail.
        let accounts = server.clone();
        let config = ControllerConfig {
            accounts: Some(Arc::new(move |name| {
                let user = format!("system:serviceaccount:kube-system:{name}");
                in_process(accounts.in_process(Identity::new(&user, &["system:serviceaccounts"])), NS)
            })),
            ..settings
        };
        let metrics = config.metrics.clone();
        tokio::spawn(run_only(entries, config, client.clone(), caches.clone(), stop.clone()));
        let cluster = Self {
            pods: caches.of::<Pod>(),
            log: Arc::default(),
            nodes_run: Arc::new(Mutex::new(true)),
            server,
            metrics,
            client,
            caches,
            _stop: stop.drop_guard(),
            _pki: pki,
        };
        cluster.watch_pods();
        cluster.pods.synced().await;
        cluster
    }

    /// A client in the name of a service account of `kube-system`.
    pub fn account(&self, name: &str) -> Client {
        let user = format!("system:serviceaccount:kube-system:{name}");
        in_process(self.server.in_process(Identity::new(&user, &["system:serviceaccounts"])), NS)
    }

    fn watch_pods(&self) {
        let (log, run, client) = (self.log.clone(), self.nodes_run.clone(), self.client.clone());
        self.pods.on_change(move |change| {
            let terminating =
                |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
            let name = change.key.name.to_string();
            let mut log = log.lock();
            if change.old.is_none() {
                log.push(format!("+{name}"));
            }
            if terminating(&change.new) && !terminating(&change.old) {
                log.push(format!("~{name}"));
            }
            if change.new.is_none() {
                log.push(format!("-{name}"));
            }
            if *run.lock()
                && let Some(pod) = &change.new
            {
                if pod.metadata.deletion_timestamp.is_some() {
                    tokio::spawn(end(client.clone(), name));
                } else if change.old.is_none() {
                    tokio::spawn(set_ready(client.clone(), name, true));
                }
            }
        });
    }

    /// From now on nodes act only when told.
    pub fn hold_nodes(&self) {
        *self.nodes_run.lock() = false;
    }

    pub fn release_nodes(&self) {
        *self.nodes_run.lock() = true;
    }

    /// What happened to pods since the last call.
    pub fn take_log(&self) -> String {
        std::mem::take(&mut *self.log.lock()).join(" ")
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NS)
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object + Serialize,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        let made = self.api().create(&PostParams::default(), &object).await.expect("created");
        self.seen(&made).await;
        made
    }

    /// Waits until the caches know of a write.
    async fn seen<K>(&self, written: &K)
    where
        K: Resource<DynamicType = ()> + Object,
    {
        let revision = written.meta().resource_version.as_ref().and_then(|rv| rv.parse().ok());
        self.caches.of::<K>().reached(revision.expect("a revision")).await;
    }

    pub async fn patch<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object,
    {
        let patched = self.api().patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await.expect("patched");
        self.seen(&patched).await;
        patched
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::default()).await.expect("deleted");
    }

    pub async fn ready(&self, pod: &str) {
        set_ready(self.client.clone(), pod.to_owned(), true).await;
    }

    pub async fn unready(&self, pod: &str) {
        set_ready(self.client.clone(), pod.to_owned(), false).await;
    }

    /// The node has ended a pod that was told to end.
    pub async fn gone(&self, pod: &str) {
        end(self.client.clone(), pod.to_owned()).await;
    }

    /// Waits until the set says that it is as wanted: all ready, of the update revision, and observed.
    pub async fn settled(&self, set: &str) -> Arc<StatefulSet> {
        self.set_until(set, |set| {
            let status = set.status.clone().unwrap_or_default();
            let wanted = set.spec.replicas.unwrap_or(1);
            let numbers = [status.replicas, status.ready_replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0)];
            status.observed_generation == set.metadata.generation && numbers.into_iter().all(|n| n == wanted)
        })
        .await
    }

    pub async fn set_until(&self, name: &str, holds: impl Fn(&StatefulSet) -> bool) -> Arc<StatefulSet> {
        let sets = self.caches.of::<StatefulSet>();
        self.until(&sets, |sets| sets.get(NS, name).filter(|set| holds(set))).await
    }

    pub async fn pod_until(&self, name: &str, holds: impl Fn(&Pod) -> bool) -> Arc<Pod> {
        self.until(&self.pods, |pods| pods.get(NS, name).filter(|pod| holds(pod))).await
    }

    /// Waits until `find` finds something in the cache.
    pub async fn until<K: Object, T>(&self, cache: &Cache<K>, mut find: impl FnMut(&Cache<K>) -> Option<T>) -> T {
        let mut found = None;
        let looking = cache.until(|cache| {
            found = find(cache);
            found.is_some()
        });
        let outcome = tokio::time::timeout(PATIENCE, looking).await;
        assert!(outcome.is_ok(), "waited in vain on {}: {:#?}\n{:?}", cache.what(), cache.list(), self.log.lock());
        found.expect("just found")
    }

    /// Event messages about an object, oldest first.
    pub async fn events(&self, object: &str, enough: usize) -> Vec<String> {
        let events = self.caches.of::<Event>();
        self.until(&events, |events| {
            let mut about: Vec<_> = events
                .list_ns(NS)
                .into_iter()
                .filter(|event| event.involved_object.name.as_deref() == Some(object))
                .collect();
            about.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            let words = |event: &Event| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{} {} {}", text(&event.type_), text(&event.reason), text(&event.message))
            };
            (about.len() >= enough).then(|| about.iter().map(|event| words(event)).collect())
        })
        .await
    }

    pub async fn names<K>(&self) -> Vec<String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let list = self.api::<K>().list(&ListParams::default()).await.expect("listed");
        list.items.into_iter().filter_map(|object| object.meta().name.clone()).collect()
    }
}

const NAMES: [&str; 5] = [
    "statefulset-controller",
    "replicaset-controller",
    "deployment-controller",
    "daemonset-controller",
    "job-controller",
];

fn name(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

async fn set_ready(client: Client, pod: String, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let since = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).expect("now is in range");
    let patch = json!({"status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since.to_string()}],
    }});
    let api: Api<Pod> = Api::namespaced(client, NS);
    // Being bound already, or gone meanwhile, is fine: schedulers and nodes are late at times.
    let node = api.get(&pod).await.ok().and_then(|pod| wanted_node(&pod)).unwrap_or_else(|| "node-1".to_owned());
    let binding = json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
    let _ = api.create_subresource::<Value, Value>("binding", &pod, &PostParams::default(), &binding).await;
    let _ = api.patch_status(&pod, &PatchParams::default(), &Patch::Strategic(patch)).await;
}

/// The node that a pod's affinity names, as the pods of a DaemonSet do.
fn wanted_node(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    required.node_selector_terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}

async fn end(client: Client, pod: String) {
    let api: Api<Pod> = Api::namespaced(client, NS);
    let _ = api.delete(&pod, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await;
}

/// A StatefulSet `web` with a claim template `data`.
pub fn web(replicas: u32, more: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "nginx:1.21"}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    });
    for (key, value) in more.as_object().cloned().unwrap_or_default() {
        set["spec"][key] = value;
    }
    set
}
