//! A whole control plane in this process: store in memory, API server, chosen controllers; no node.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stead_apiserver::{ApiServer, Config as ServerConfig, Identity, NoNodes};
use stead_controllers::{Config, registry, run_only};
use stead_informer::Caches;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Plane {
    pub client: Client,
    pub server: ApiServer,
    stop: CancellationToken,
    _pki: tempfile::TempDir,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Plane {
    /// Starts with the controllers of these names.
    pub async fn start(controllers: &[&str]) -> Self {
        let pki = tempfile::tempdir().expect("a directory");
        let config = ServerConfig {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pki_dir: pki.path().to_owned(),
            tls_sans: Vec::new(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: IpAddr::V4(Ipv4Addr::new(10, 43, 0, 10)),
        };
        let store = stead_store::memory();
        let server = ApiServer::open(config, store, Arc::new(NoNodes)).await.expect("a server");
        let user = Identity::new("system:kube-controller-manager", &["system:masters"]);
        let client = stead_client::in_process(server.in_process(user), "default");
        let (caches, stop) = (Caches::new(client.clone()), CancellationToken::new());
        let config =
            Config { root_ca: Some("PEM".to_owned()), storage_dir: "/data/storage".to_owned(), ..Config::default() };
        let entries = registry::all().into_iter().filter(|entry| controllers.contains(&entry.name)).collect();
        tokio::spawn(run_only(entries, config, client.clone(), caches, stop.clone()));
        Self { client, server, stop, _pki: pki }
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub fn of<K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>>(&self, ns: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), ns)
    }
}

pub async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object of the kind");
    api.create(&PostParams::default(), &object).await.expect("to be created")
}

/// Waits, by watch, until the object of that name is as wanted; gone is `None`.
pub async fn until<K>(api: &Api<K>, name: &str, wanted: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api.clone(), config).boxed();
    let mut last: Option<K> = None;
    let waiting = async {
        let mut complete = false;
        while let Some(event) = events.next().await {
            match event.expect("a watch") {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => last = Some(object),
                watcher::Event::Delete(_) | watcher::Event::Init => last = None,
                watcher::Event::InitDone => complete = true,
            }
            if complete && wanted(last.as_ref()) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(in_time, "{name} never came to be as wanted; last: {}", show(last.as_ref()));
    last
}

fn show<K: Debug>(object: Option<&K>) -> String {
    format!("{object:#?}")
}

/// The same for a whole collection.
pub async fn until_all<K>(api: &Api<K>, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = watcher(api.clone(), watcher::Config::default()).boxed();
    let mut all: Vec<K> = Vec::new();
    let waiting = async {
        let mut complete = false;
        while let Some(event) = events.next().await {
            let uid = |o: &K| o.meta().uid.clone();
            match event.expect("a watch") {
                watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                    all.retain(|other| uid(other) != uid(&object));
                    all.push(object);
                }
                watcher::Event::Delete(object) => all.retain(|other| uid(other) != uid(&object)),
                watcher::Event::Init => all.clear(),
                watcher::Event::InitDone => complete = true,
            }
            if complete && wanted(&all) {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(in_time, "the collection never came to be as wanted; last: {all:#?}");
    all
}
