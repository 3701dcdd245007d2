//! The scheduler on the real API server in memory: what users see of it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stead_apiserver::{ApiServer, Config, Identity, NoNodes};
use stead_client::Client;
use stead_informer::{Cache, Caches, Object};
use tokio_util::sync::CancellationToken;
use tower::Service;

/// An API server with a scheduler; nothing else runs.
struct Cluster {
    client: Client,
    caches: Caches,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_with(|client| client).await
    }

    /// The scheduler, and who looks on, go the given way to the server.
    async fn start_with(way: impl FnOnce(Client) -> Client) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = Config {
            bind: (address, 0).into(),
            advertise: address,
            pki_dir: dir.path().join("tls"),
            tls_sans: Vec::new(),
            service_cidr: "10.43.0.0/16".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: "10.43.0.10".parse().unwrap(),
        };
        let api = ApiServer::open(config, stead_store::memory(), Arc::new(NoNodes)).await.unwrap();
        let client = stead_client::in_process(api.in_process(Identity::new("admin", &["system:masters"])), "default");
        let slow = way(client.clone());
        let (caches, stop) = (Caches::new(slow.clone()), CancellationToken::new());
        let cluster = Self { client: client.clone(), caches: caches.clone(), stop: stop.clone(), _dir: dir };
        cluster.ensure::<Namespace>(json!({"metadata": {"name": "default"}})).await;
        cluster.ensure::<ServiceAccount>(json!({"metadata": {"name": "default", "namespace": "default"}})).await;
        tokio::spawn(stead_scheduler::run(slow, caches, stop));
        cluster
    }

    async fn ensure<K: Kind>(&self, object: Value) {
        let object: K = serde_json::from_value(object).unwrap();
        let _ = self.api::<K>().create(&PostParams::default(), &object).await;
    }

    async fn create<K: Kind>(&self, object: Value) -> K {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    fn api<K: Kind>(&self) -> Api<K> {
        K::api(self.client.clone())
    }

    async fn node(&self, name: &str, cpu: &str) {
        self.create::<Node>(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})).await;
        // What a node's agent does once it is ready.
        let untaint = json!({"spec": {"taints": null}});
        self.api::<Node>().patch(name, &PatchParams::default(), &Patch::Merge(untaint)).await.unwrap();
        self.size(name, cpu).await;
    }

    async fn size(&self, name: &str, cpu: &str) {
        let amounts = json!({"cpu": cpu, "memory": "8Gi", "pods": "500"});
        let patch = json!({"status": {"capacity": amounts, "allocatable": amounts}});
        self.api::<Node>().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn pod(&self, name: &str, cpu: &str, more: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{
                "name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}
            }]}
        });
        more.as_object().unwrap().iter().for_each(|(key, value)| pod["spec"][key] = value.clone());
        self.create(pod).await
    }

    async fn until<K: Kind>(&self, what: &str, holds: impl Fn(&Cache<K>) -> bool) {
        let cache: Cache<K> = self.caches.of();
        let state = || cache.list();
        let wait = cache.until(|cache| cache.is_synced() && holds(cache));
        assert!(tokio::time::timeout(Duration::from_secs(20), wait).await.is_ok(), "{what}: {:#?}", state());
    }

    async fn bound(&self, pod: &str, node: &str) {
        let what = format!("{pod} is bound to {node}");
        self.until::<Pod>(&what, |pods| pods.get("default", pod).is_some_and(|pod| node_of(&pod) == node)).await;
    }

    async fn event(&self, pod: &str, reason: &str, text: &str) {
        let what = format!("event {reason} of {pod}: {text}");
        self.until::<Event>(&what, |events| {
            events.list().iter().any(|event| {
                event.involved_object.name.as_deref() == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event.message.as_deref() == Some(text)
                    && event.reporting_component.as_deref() == Some("default-scheduler")
            })
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Kinds that these tests use.
trait Kind: Object + Resource<DynamicType = ()> + Serialize + DeserializeOwned {
    fn api(client: Client) -> Api<Self>;
}

macro_rules! kinds {
    ($($kind:ty => $api:ident($($namespace:expr)?)),* $(,)?) => {$(
        impl Kind for $kind {
            fn api(client: Client) -> Api<Self> {
                Api::$api(client $(, $namespace)?)
            }
        }
    )*};
}
kinds! {
    Pod => namespaced("default"), Event => namespaced("default"), ServiceAccount => namespaced("default"),
    PersistentVolumeClaim => namespaced("default"), Node => all(), Namespace => all(), PersistentVolume => all(),
    StorageClass => all(),
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

fn scheduled(pod: &Pod) -> Option<(String, String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == "PodScheduled")?;
    Some((found.status.clone(), found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
}

#[tokio::test]
async fn a_pod_is_bound_and_one_that_fits_nowhere_waits_until_it_does() {
    let cluster = Cluster::start().await;
    cluster.pod("early", "1", json!({})).await;
    cluster.event("early", "FailedScheduling", "no nodes available to schedule pods").await;
    cluster.node("n1", "2").await;
    cluster.bound("early", "n1").await;
    cluster.event("early", "Scheduled", "Successfully assigned default/early to n1").await;

    cluster.pod("large", "3", json!({})).await;
    let text = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are \
                available: 1 Preemption is not helpful for scheduling.";
    cluster.event("large", "FailedScheduling", text).await;
    let want = ("False".to_owned(), "Unschedulable".to_owned(), text.to_owned());
    cluster
        .until::<Pod>("large is told why", |pods| {
            pods.get("default", "large").as_deref().and_then(scheduled).as_ref() == Some(&want)
        })
        .await;
    cluster.size("n1", "8").await;
    cluster.bound("large", "n1").await;
    cluster
        .until::<Pod>("large is scheduled", |pods| {
            pods.get("default", "large").as_deref().and_then(scheduled).is_some_and(|(status, ..)| status == "True")
        })
        .await;
}

#[tokio::test]
async fn many_pods_at_once_fill_the_nodes_and_never_overfill_them() {
    let cluster = Cluster::start().await;
    for node in ["n1", "n2", "n3"] {
        cluster.node(node, "20").await;
    }
    let pods: Vec<_> = (0..70).map(|n| format!("p{n}")).collect();
    futures::future::join_all(pods.iter().map(|name| cluster.pod(name, "1", json!({})))).await;
    let placed = |pods: &Cache<Pod>| {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        pods.list().iter().for_each(|pod| *count.entry(node_of(pod)).or_default() += 1);
        count
    };
    let full = [("", 10), ("n1", 20), ("n2", 20), ("n3", 20)].map(|(node, count)| (node.to_owned(), count)).into();
    cluster.until::<Pod>("sixty pods are bound", |pods| placed(pods) == full).await;

    let gone: Vec<String> = cluster
        .caches
        .of::<Pod>()
        .list()
        .iter()
        .filter(|pod| !node_of(pod).is_empty())
        .take(10)
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for name in gone {
        cluster.api::<Pod>().delete(&name, &now).await.unwrap();
    }
    cluster
        .until::<Pod>("the others take their places", |pods| pods.len() == 60 && !placed(pods).contains_key(""))
        .await;
}

#[tokio::test]
async fn gated_pods_and_those_of_other_schedulers_are_left_alone() {
    let cluster = Cluster::start().await;
    cluster.node("n1", "4").await;
    cluster.pod("gated", "1", json!({"schedulingGates": [{"name": "wait"}]})).await;
    cluster.pod("other", "1", json!({"schedulerName": "mine"})).await;
    cluster.pod("last", "1", json!({})).await;
    cluster.bound("last", "n1").await;
    for name in ["gated", "other"] {
        assert_eq!(node_of(&cluster.api::<Pod>().get(name).await.unwrap()), "", "{name}");
    }
    let open = json!({"spec": {"schedulingGates": null}});
    cluster.api::<Pod>().patch("gated", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    cluster.bound("gated", "n1").await;
}

/// A way to the server on which nothing is heard of claims, unless they are asked for, before somebody lets it through.
#[derive(Clone)]
struct Deaf {
    client: Client,
    through: CancellationToken,
    asked: CancellationToken,
}

impl Service<http::Request<Body>> for Deaf {
    type Response = http::Response<Body>;
    type Error = tower::BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let this = self.clone();
        Box::pin(async move {
            if path.ends_with("/persistentvolumeclaims") && query.contains("watch") {
                this.through.cancelled().await;
            }
            let answer = this.client.send(request).await.map_err(Into::into);
            if path.ends_with("/persistentvolumeclaims/data") {
                this.asked.cancel();
            }
            answer
        })
    }
}

#[tokio::test]
async fn a_claim_that_is_only_on_its_way_is_not_told_to_be_missing() {
    let (through, asked) = (CancellationToken::new(), CancellationToken::new());
    let deaf = |client| Deaf { client, through: through.clone(), asked: asked.clone() };
    let cluster = Cluster::start_with(|client| stead_client::in_process(deaf(client), "default")).await;
    cluster.node("n1", "4").await;
    cluster.until::<PersistentVolumeClaim>("the claims are listed", |_| true).await;
    cluster
        .create::<PersistentVolumeClaim>(json!({
            "metadata": {"name": "data", "namespace": "default", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"storageClassName": "", "accessModes": ["ReadWriteOnce"], "volumeName": "v",
                "resources": {"requests": {"storage": "1Gi"}}}
        }))
        .await;
    cluster
        .create::<PersistentVolume>(json!({
            "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"},
                "claimRef": {"namespace": "default", "name": "data"}}
        }))
        .await;
    cluster
        .pod("web-0", "1", json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}))
        .await;
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, asked.cancelled()).await.expect("the scheduler asks whether the claim is there");
    through.cancel();
    cluster.bound("web-0", "n1").await;
    let events = cluster.api::<Event>().list(&kube::api::ListParams::default()).await.unwrap();
    let failed =
        events.items.iter().filter_map(|event| event.message.as_deref()).find(|text| text.contains("not found"));
    assert_eq!(failed, None);
}

#[tokio::test]
async fn a_waiting_claim_is_provisioned_where_the_pod_goes_before_the_pod_is_bound() {
    let cluster = Cluster::start().await;
    cluster.node("n1", "4").await;
    let volumes = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    cluster.pod("web-0", "1", volumes.clone()).await;
    let text = "0/1 nodes are available: persistentvolumeclaim \"data\" not found. no new claims to deallocate, \
                preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    cluster.event("web-0", "FailedScheduling", text).await;

    delayed_claim(&cluster).await;
    cluster
        .until::<PersistentVolumeClaim>("the provisioner is told the node", |claims| {
            claims.get("default", "data").and_then(|claim| selected_node(&claim)).as_deref() == Some("n1")
        })
        .await;
    // A second pod with the same claim does not ask for anything else, and waits as well.
    cluster.pod("web-1", "1", volumes).await;
    cluster.pod("other", "1", json!({})).await;
    cluster.bound("other", "n1").await;
    assert_eq!(node_of(&cluster.api::<Pod>().get("web-0").await.unwrap()), "", "not before its claim is bound");

    make_volume(&cluster, "n1").await;
    cluster.bound("web-0", "n1").await;
    cluster.bound("web-1", "n1").await;
}

#[tokio::test]
async fn a_provisioner_that_gives_up_a_node_gets_another_choice() {
    let cluster = Cluster::start().await;
    cluster.node("n1", "4").await;
    delayed_claim(&cluster).await;
    let volumes = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    cluster.pod("web-0", "1", volumes).await;
    let selected = |claims: &Cache<PersistentVolumeClaim>| {
        let claim = claims.get("default", "data")?;
        claim.metadata.annotations.as_ref()?.get("volume.kubernetes.io/selected-node").cloned()
    };
    let on_n1 = |claims: &Cache<PersistentVolumeClaim>| selected(claims).as_deref() == Some("n1");
    cluster.until::<PersistentVolumeClaim>("n1 is chosen", on_n1).await;
    let cordon = json!({"spec": {"unschedulable": true}});
    cluster.api::<Node>().patch("n1", &PatchParams::default(), &Patch::Merge(cordon)).await.unwrap();
    cluster.node("n2", "4").await;
    let away = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": null}}});
    cluster.api::<PersistentVolumeClaim>().patch("data", &PatchParams::default(), &Patch::Merge(away)).await.unwrap();
    let on_n2 = |claims: &Cache<PersistentVolumeClaim>| selected(claims).as_deref() == Some("n2");
    cluster.until::<PersistentVolumeClaim>("n2 is chosen", on_n2).await;
    cluster.event("web-0", "FailedScheduling", "provisioning failed for PVC \"data\"").await;
}

/// A claim whose volume is made once its pod has a node.
async fn delayed_claim(cluster: &Cluster) {
    cluster
        .create::<StorageClass>(json!({
            "metadata": {"name": "local"}, "provisioner": "example.com/test", "volumeBindingMode": "WaitForFirstConsumer"
        }))
        .await;
    cluster
        .create::<PersistentVolumeClaim>(json!({
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        }))
        .await;
}

/// What a provisioner and the volume controller do: the claim `data` gets a volume on that node.
async fn make_volume(cluster: &Cluster, node: &str) {
    let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
    cluster
        .create::<PersistentVolume>(json!({
            "metadata": {"name": "pv1"},
            "spec": {
                "storageClassName": "local", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/x"}, "claimRef": {"namespace": "default", "name": "data"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}}
            }
        }))
        .await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let patch = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "pv1"}
    });
    claims.patch("data", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let bound = json!({"status": {"phase": "Bound"}});
    claims.patch_status("data", &PatchParams::default(), &Patch::Merge(bound)).await.unwrap();
}

fn selected_node(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.metadata.annotations.as_ref()?.get("volume.kubernetes.io/selected-node").cloned()
}

#[tokio::test]
async fn a_claim_whose_volume_is_being_made_for_a_node_keeps_it_however_late_the_scheduler_hears() {
    let (may_list, patched) = (CancellationToken::new(), CancellationToken::new());
    let deaf = |client: Client| {
        let (may_list, patched) = (may_list.clone(), patched.clone());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (client, may_list, patched) = (client.clone(), may_list.clone(), patched.clone());
            let claims = request.uri().path().ends_with("/persistentvolumeclaims");
            let watch = request.uri().query().is_some_and(|query| query.contains("watch"));
            let patch = request.method() == http::Method::PATCH && request.uri().path().ends_with("/data");
            async move {
                match (claims, watch) {
                    (true, true) => futures::future::pending::<()>().await,
                    (true, false) => may_list.cancelled().await,
                    (false, _) => {}
                }
                let answer = client.send(request).await;
                if patch {
                    patched.cancel();
                }
                answer
            }
        });
        stead_client::in_process(service, "default")
    };
    let cluster = Cluster::start_with(deaf).await;
    delayed_claim(&cluster).await;
    cluster.node("n1", "4").await;
    may_list.cancel();
    let there = |claims: &Cache<PersistentVolumeClaim>| claims.get("default", "data").is_some();
    cluster.until::<PersistentVolumeClaim>("the claim is known", there).await;

    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "n2"}}});
    let claims = cluster.api::<PersistentVolumeClaim>();
    claims.patch("data", &PatchParams::default(), &Patch::Merge(chosen)).await.unwrap();
    let volumes = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    cluster.pod("web-0", "1", volumes).await;
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, patched.cancelled()).await.expect("the scheduler tries to tell its node");
    assert_eq!(selected_node(&claims.get("data").await.unwrap()).as_deref(), Some("n2"));
}

#[tokio::test]
async fn a_pod_goes_where_its_volume_was_made_and_not_where_it_was_asked_for() {
    let cluster = Cluster::start().await;
    cluster.node("n1", "4").await;
    delayed_claim(&cluster).await;
    let volumes = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    cluster.pod("web-0", "1", volumes).await;
    let on_n1 = |claims: &Cache<PersistentVolumeClaim>| {
        claims.get("default", "data").and_then(|claim| selected_node(&claim)).as_deref() == Some("n1")
    };
    cluster.until::<PersistentVolumeClaim>("n1 is chosen", on_n1).await;
    cluster.node("n2", "4").await;
    make_volume(&cluster, "n2").await;
    cluster.bound("web-0", "n2").await;
    let text = "binding volumes: pv \"pv1\" node affinity doesn't match node \"n1\": no matching NodeSelectorTerms";
    cluster.event("web-0", "FailedScheduling", text).await;
}

#[tokio::test]
async fn a_more_important_pod_evicts_a_less_important_one_and_takes_its_place() {
    let cluster = Cluster::start().await;
    cluster.node("n1", "2").await;
    for (name, value) in [("low", 1), ("high", 1000)] {
        cluster
            .ensure_dynamic(json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value
            }))
            .await;
    }
    cluster.pod("victim", "2", json!({"priorityClassName": "low"})).await;
    cluster.bound("victim", "n1").await;
    let vip = cluster.pod("vip", "1", json!({"priorityClassName": "high"})).await;
    cluster
        .until::<Pod>("the victim is leaving and told why", |pods| {
            pods.get("default", "victim").is_some_and(|pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                pod.metadata.deletion_timestamp.is_some()
                    && conditions
                        .into_iter()
                        .any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler"))
            })
        })
        .await;
    let text = format!("Preempted by pod {} on node n1", vip.metadata.uid.clone().unwrap());
    cluster.event("victim", "Preempted", &text).await;
    cluster
        .until::<Pod>("the node is reserved", |pods| {
            let pod = pods.get("default", "vip");
            pod.and_then(|pod| pod.status.as_ref()?.nominated_node_name.clone()).as_deref() == Some("n1")
        })
        .await;
    // The node's agent ends it.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    cluster.api::<Pod>().delete("victim", &now).await.unwrap();
    cluster.bound("vip", "n1").await;
}

impl Cluster {
    async fn ensure_dynamic(&self, object: Value) {
        let object: k8s_openapi::api::scheduling::v1::PriorityClass = serde_json::from_value(object).unwrap();
        let api: Api<k8s_openapi::api::scheduling::v1::PriorityClass> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
}
