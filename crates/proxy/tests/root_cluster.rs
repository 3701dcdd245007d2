//! From a pod's status in the API to packets and names: controllers, proxy and DNS on a real kernel.
#![allow(clippy::unwrap_used)]

#[path = "../../wire/tests/common/mod.rs"]
mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Config, Identity, NoNodes};
use stead_controllers::endpoints::{EndpointsObjects, MirroredSlices, Slices};
use stead_controllers::registry::entry;
use stead_dns::{DnsConfig, UpstreamSource};
use stead_informer::Caches;
use stead_proxy::ProxyConfig;
use stead_wire::Network;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a change may take to reach packets before a test fails; tests look until then.
const LONG: Duration = Duration::from_secs(10);

struct World {
    client: Client,
    network: Arc<dyn Network>,
    _stop: DropGuard,
}

impl World {
    async fn start(dir: &Path) -> Self {
        let client = api(dir).await;
        let network = network("a", 42, dir).await;
        let (stop, caches) = (CancellationToken::new(), Caches::new(client.clone()));
        let controllers = vec![entry::<EndpointsObjects>(), entry::<Slices>(), entry::<MirroredSlices>()];
        let config = stead_controllers::Config::default();
        tokio::spawn(stead_controllers::run_only(controllers, config, client.clone(), caches.clone(), stop.clone()));
        let dns = ip("10.43.0.10");
        let proxy = ProxyConfig { node_name: "n1".into(), served_here: vec![dns] };
        tokio::spawn(stead_proxy::run(proxy, network.clone(), caches.clone(), stop.clone()));
        let dns = DnsConfig {
            listen: vec![(dns, 53).into()],
            domain: "cluster.local".into(),
            address: dns,
            ranges: vec![(ip("10.42.0.0"), 16), (ip("10.43.0.0"), 16)],
            upstreams: UpstreamSource::Servers(Vec::new()),
            publisher: Some(client.clone()),
        };
        tokio::spawn(stead_dns::run(dns, caches, stop.clone()));
        Self { client, network, _stop: stop.drop_guard() }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "ns")
    }

    async fn service(&self, name: &str, spec: Value) -> Service {
        let service = object(json!({"metadata": {"name": name}, "spec": spec}));
        self.api().create(&PostParams::default(), &service).await.unwrap()
    }

    async fn pod(&self, name: &str) {
        let pod: Pod = object(json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
            "nodeName": "n1", "hostname": name, "subdomain": "web", "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]}}));
        self.api().create(&PostParams::default(), &pod).await.unwrap();
    }

    async fn status(&self, name: &str, address: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready}]}});
        let api: Api<Pod> = self.api();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

async fn api(dir: &Path) -> Client {
    let config = Config {
        bind: (Ipv4Addr::LOCALHOST, 6443).into(),
        advertise: IpAddr::from([192, 0, 2, 1]),
        pki_dir: dir.join("pki"),
        tls_sans: Vec::new(),
        service_cidr: "10.43.0.0/16".into(),
        cluster_domain: "cluster.local".into(),
        cluster_dns: ip("10.43.0.10"),
    };
    let server = ApiServer::open(config, stead_store::memory(), Arc::new(NoNodes)).await.unwrap();
    let client = stead_client::in_process(server.in_process(Identity::admin()), "default");
    let namespace: Namespace = object(json!({"metadata": {"name": "ns"}}));
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let account: ServiceAccount = object(json!({"metadata": {"name": "default"}}));
    Api::namespaced(client.clone(), "ns").create(&PostParams::default(), &account).await.unwrap();
    client
}

/// Asks the cluster's DNS server from the calling thread's namespace: the answers, or the code when there are none.
fn look_up(kind: RecordType, name: &str) -> String {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&message.to_vec().unwrap(), "10.43.0.10:53").unwrap();
    let mut buffer = [0; 4096];
    let Ok(length) = socket.recv(&mut buffer) else { return "silence".into() };
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    let mut list: Vec<String> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    list.sort();
    match (answer.metadata.response_code, list.is_empty()) {
        (ResponseCode::NoError, false) => list.join(" "),
        (code, _) => format!("{code:?}"),
    }
}

fn a(netns: &Path, name: &str) -> String {
    inside(netns, || look_up(RecordType::A, name))
}

/// Looks again and again until it is so; the time until then.
fn until<T: PartialEq + std::fmt::Debug>(wanted: &T, look: impl Fn() -> T) -> Duration {
    let start = Instant::now();
    loop {
        let now = look();
        if now == *wanted {
            return start.elapsed();
        }
        assert!(start.elapsed() < LONG, "wanted {wanted:?}, still {now:?}");
    }
}

#[test]
fn a_ready_pod_is_reached_by_name_and_by_service() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::start(dir.path()).await;
        let pods = ["10.42.0.5", "10.42.0.6"].map(ip);
        let netns: Vec<_> = {
            let mut list = Vec::new();
            for (i, address) in pods.iter().enumerate() {
                list.push(attach(&world.network, &format!("pod-{i}"), &address.to_string()).await.netns);
            }
            list
        };
        serve(&netns[0], "0.0.0.0:8080", "web-0");
        serve(&netns[1], "0.0.0.0:8080", "web-1");
        let port = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        let selector = json!({"app": "web"});
        world.service("web", json!({"clusterIP": "None", "selector": selector, "ports": port})).await;
        let vip = world.service("vip", json!({"selector": selector, "ports": port})).await;
        let vip = format!("{}:80", vip.spec.unwrap().cluster_ip.unwrap());
        world.pod("web-0").await;
        world.pod("web-1").await;
        let named = "web-0.web.ns.svc.cluster.local.";
        let refused = Err(ErrorKind::ConnectionRefused);
        tokio::task::block_in_place(|| {
            until(&"NXDomain".to_owned(), || a(&netns[1], named));
            until(&refused, || inside(&netns[1], || call(&vip)));
        });
        world.status("web-0", "10.42.0.5", true).await;
        let (name, packet) = tokio::task::block_in_place(|| {
            let name = until(&"10.42.0.5".to_owned(), || a(&netns[1], named));
            (name, until(&Ok("web-0 10.42.0.6".to_owned()), || inside(&netns[1], || call(&vip))))
        });
        println!("status written -> name {name:.2?}, then service {packet:.2?}");
        world.status("web-1", "10.42.0.6", true).await;
        tokio::task::block_in_place(|| {
            until(&"10.42.0.5 10.42.0.6".to_owned(), || a(&netns[0], "web.ns.svc.cluster.local."));
            let reverse = inside(&netns[0], || look_up(RecordType::PTR, "6.0.42.10.in-addr.arpa."));
            assert_eq!(reverse, "web-1.web.ns.svc.cluster.local.");
            assert_eq!(a(&netns[0], "kube-dns.kube-system.svc.cluster.local."), "10.43.0.10");
        });
        stead_dns::ensure_service(&world.client, ip("10.43.0.10")).await.expect("making it again is harmless");
        world.status("web-0", "10.42.0.5", false).await;
        tokio::task::block_in_place(|| {
            until(&"NXDomain".to_owned(), || a(&netns[1], named));
            until(&10, || (0..10).filter(|_| inside(&netns[0], || call(&vip)).unwrap().starts_with("web-1")).count());
        });
        let api: Api<Service> = world.api();
        api.delete("web", &DeleteParams::default()).await.unwrap();
        api.delete("vip", &DeleteParams::default()).await.unwrap();
        tokio::task::block_in_place(|| {
            until(&"NXDomain".to_owned(), || a(&netns[0], "web-1.web.ns.svc.cluster.local."));
            until(&refused, || inside(&netns[1], || call(&vip)));
        });
        let objects: Api<Endpoints> = world.api();
        let caches = Caches::new(world.client.clone());
        caches.of::<Endpoints>().until(|cache| cache.is_synced() && cache.list_ns("ns").is_empty()).await;
        assert!(objects.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty());
        world.network.remove_all().await.unwrap();
    });
}

#[test]
fn endpoints_made_by_hand_lead_to_packets_too() {
    isolated(|| async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::start(dir.path()).await;
        let pod = attach(&world.network, "pod-0", "10.42.0.5").await;
        serve(&pod.netns, "0.0.0.0:9999", "by-hand");
        let service = world.service("hand", json!({"ports": [{"port": 80}]})).await;
        let endpoints: Endpoints = object(json!({"metadata": {"name": "hand"},
            "subsets": [{"addresses": [{"ip": "10.42.0.5"}], "ports": [{"port": 9999}]}]}));
        world.api().create(&PostParams::default(), &endpoints).await.unwrap();
        let address = format!("{}:80", service.spec.unwrap().cluster_ip.unwrap());
        tokio::task::block_in_place(|| until(&Ok("by-hand 10.42.0.1".to_owned()), || call(&address)));
        let slices: Api<EndpointSlice> = world.api();
        let slices = slices.list(&kube::api::ListParams::default()).await.unwrap().items;
        let labels = slices[0].metadata.labels.as_ref().unwrap();
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io");
        world.network.remove_all().await.unwrap();
    });
}
