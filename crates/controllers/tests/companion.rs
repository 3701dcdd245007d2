//! The companion beside a StatefulSet controller that knows upstream's API only: ours, which stands back from sets that
//! are managed. It acts in the name of the account of `examples/controller.yaml`, with the rights given there.

mod common;

use common::{Cluster, NS, web};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::{Value, json};
use stead_controllers::statefulset::Companion;
use stead_controllers::{Config, registry, run_only};
use stead_informer::Caches;
use stead_workloads::statefulset::{companion, wishes};
use tokio_util::sync::{CancellationToken, DropGuard};

const MANIFEST: &str = include_str!("../../../examples/controller.yaml");

/// The object of a kind in the manifest.
fn manifest<K: Resource<DynamicType = ()> + DeserializeOwned>() -> K {
    let documents =
        serde_norway::Deserializer::from_str(MANIFEST).map(|document| Value::deserialize(document).expect("YAML"));
    let mut found = documents.filter(|object| object["kind"] == K::kind(&()).as_ref());
    serde_json::from_value(found.next().expect("it is in the manifest")).expect("an object")
}

/// A cluster, and a companion for as long as the guard lives.
async fn accompanied() -> (Cluster, DropGuard) {
    let cluster = Cluster::start().await;
    let params = PostParams::default();
    Api::all(cluster.client.clone()).create(&params, &manifest::<ClusterRole>()).await.expect("a role");
    Api::all(cluster.client.clone()).create(&params, &manifest::<ClusterRoleBinding>()).await.expect("bound");
    let client = cluster.account("stead-controller");
    let stop = CancellationToken::new();
    let caches = Caches::within(client.clone(), NS);
    let entry = vec![registry::entry::<Companion>()];
    tokio::spawn(run_only(entry, Config::default(), client, caches, stop.clone()));
    (cluster, stop.drop_guard())
}

/// A set that is managed, with these annotations besides.
fn managed(replicas: u32, strategy: &str, annotations: Value) -> Value {
    let mut set = web(replicas, json!({"updateStrategy": {"type": strategy}}));
    set["metadata"]["annotations"] = annotations;
    set["metadata"]["annotations"][companion::MANAGED] = "true".into();
    set
}

fn image(tag: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": tag}]}}}})
}

fn annotate(key: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

fn image_of(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

fn annotation<'a>(set: &'a StatefulSet, key: &str) -> Option<&'a str> {
    set.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A roll-out of the newest template is complete, and the companion knows.
fn is_good(set: &StatefulSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    let seen = status.observed_generation == set.metadata.generation;
    seen && status.update_revision.is_some()
        && annotation(set, companion::GOOD_REVISION) == status.update_revision.as_deref()
}

/// A roll-out gets to `web-1`, whose new pod runs and never works.
async fn stick(cluster: &Cluster) {
    cluster.hold_nodes();
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", image("broken")).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "broken").await;
    cluster.unready("web-1").await;
    let runs = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    cluster.pod_until("web-1", runs).await;
}

#[tokio::test]
async fn roll_outs_are_the_companions_and_new_pods_the_other_ones() {
    let (cluster, _companion) = accompanied().await;
    cluster.create::<StatefulSet>(managed(3, "OnDelete", json!({companion::PARTITION: "1"}))).await;
    let before = cluster.set_until("web", is_good).await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let updated = |set: &StatefulSet| set.status.as_ref().and_then(|status| status.updated_replicas) == Some(2);
    let held = cluster
        .set_until("web", |set| updated(set) && set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(3)))
        .await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 +web-2 ~web-1 -web-1 +web-1");
    let good = |set: &StatefulSet| annotation(set, companion::GOOD_REVISION).map(str::to_owned);
    assert_eq!(good(&held), good(&before), "not complete below the partition");
    cluster.patch::<StatefulSet>("web", annotate(companion::PARTITION, "0")).await;
    cluster.pod_until("web-0", |pod| image_of(pod) == "nginx:1.22").await;
    let complete = |set: &StatefulSet| {
        annotation(set, companion::PROGRESS).is_some_and(|text| text.contains("NewRevisionAvailable"))
    };
    let after = cluster.set_until("web", |set| is_good(set) && good(set) != good(&before) && complete(set)).await;
    let status = after.status.clone().expect("a status");
    assert_eq!(status.conditions, None, "the status is the other controller's");
    let events = cluster.events("web", 10).await;
    let rolled = format!(
        "Normal RolloutComplete StatefulSet web is rolled out: 3 pods of revision {}",
        good(&after).expect("one")
    );
    assert!(events.contains(&rolled), "{events:#?}");
}

#[tokio::test]
async fn a_pause_holds_and_a_set_that_is_not_managed_is_left_alone() {
    let (cluster, _companion) = accompanied().await;
    cluster.create::<StatefulSet>(managed(2, "OnDelete", json!({wishes::PAUSED: "true"}))).await;
    cluster.set_until("web", is_good).await;
    let mut other = web(1, json!({"updateStrategy": {"type": "OnDelete"}}));
    other["metadata"]["name"] = "other".into();
    cluster.create::<StatefulSet>(other).await;
    cluster.settled("other").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("other", image("nginx:1.22")).await;
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let paused =
        |set: &StatefulSet| annotation(set, companion::PROGRESS).is_some_and(|text| text.contains("StatefulSetPaused"));
    cluster.set_until("web", paused).await;
    assert_eq!(cluster.take_log(), "");
    cluster.patch::<StatefulSet>("web", annotate(wishes::PAUSED, "false")).await;
    cluster.set_until("web", |set| is_good(set) && !paused(set)).await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
}

#[tokio::test]
async fn a_roll_out_that_takes_too_long_is_undone_and_its_broken_pod_replaced() {
    let (cluster, _companion) = accompanied().await;
    cluster.create::<StatefulSet>(managed(2, "OnDelete", json!({}))).await;
    let before = cluster.set_until("web", is_good).await;
    stick(&cluster).await;
    cluster.patch::<StatefulSet>("web", annotate(wishes::PROGRESS_DEADLINE, "1")).await;
    let undone = cluster.set_until("web", |set| annotation(set, wishes::ROLLED_BACK_FROM).is_some()).await;
    assert_eq!(undone.spec.template, before.spec.template);
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "nginx:1.21").await;
    cluster.ready("web-1").await;
    cluster
        .set_until("web", |set| is_good(set) && set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(2)))
        .await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-1 -web-1 +web-1", "the one that works is left alone");
    let events = cluster.events("web", 8).await;
    for expected in
        ["Warning ProgressDeadlineExceeded ", "Normal StatefulSetRollback ", "Normal ReplacingBrokenPod Pod web-1 "]
    {
        assert!(events.iter().any(|event| event.starts_with(expected)), "{expected}: {events:#?}");
    }
}

#[tokio::test]
async fn where_the_other_controller_rolls_out_a_broken_pod_is_replaced() {
    let (cluster, _companion) = accompanied().await;
    cluster.create::<StatefulSet>(managed(2, "RollingUpdate", json!({companion::PARTITION: "1"}))).await;
    cluster.settled("web").await;
    stick(&cluster).await;
    cluster.patch::<StatefulSet>("web", image("mended")).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "mended").await;
    let events = cluster.events("web", 8).await;
    let told = "Warning IgnoredAnnotation annotation stead.dev/partition does nothing here: the cluster's own controller \
                rolls out; with updateStrategy OnDelete the companion does";
    assert_eq!(events.iter().filter(|event| *event == told).count(), 1, "{events:#?}");
}

#[tokio::test]
async fn a_deletion_is_in_order_and_a_set_that_is_managed_no_longer_is_let_go() {
    let (cluster, _companion) = accompanied().await;
    cluster.create::<StatefulSet>(managed(3, "OnDelete", json!({wishes::ORDERED_DELETE: "true"}))).await;
    cluster.set_until("web", |set| is_good(set) && wishes::is_held(set)).await;
    cluster.take_log();
    cluster.delete::<StatefulSet>("web").await;
    let sets = cluster.caches.of::<StatefulSet>();
    cluster.until(&sets, |sets| sets.is_empty().then_some(())).await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 ~web-1 -web-1 ~web-0 -web-0");

    cluster.create::<StatefulSet>(managed(1, "OnDelete", json!({wishes::ORDERED_DELETE: "true"}))).await;
    cluster.set_until("web", wishes::is_held).await;
    let none = json!({"metadata": {"annotations": {companion::MANAGED: null, wishes::ORDERED_DELETE: null}}});
    cluster.patch::<StatefulSet>("web", none).await;
    cluster.set_until("web", |set| !wishes::is_held(set)).await;
}

#[tokio::test]
async fn claims_grow_to_the_size_that_is_asked_for_and_so_do_those_of_new_ordinals() {
    let (cluster, _companion) = accompanied().await;
    let class = json!({"metadata": {"name": "local"}, "provisioner": "p", "allowVolumeExpansion": true});
    let class: StorageClass = serde_json::from_value(class).expect("a class");
    Api::all(cluster.client.clone()).create(&PostParams::default(), &class).await.expect("created");
    let mut set = managed(1, "OnDelete", json!({companion::CLAIM_SIZES: r#"{"data": "2Gi"}"#}));
    set["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] = "local".into();
    cluster.create::<StatefulSet>(set).await;
    cluster.settled("web").await;
    bind(&cluster, "data-web-0").await;
    let cache = cluster.caches.of::<PersistentVolumeClaim>();
    let request = |claim: &PersistentVolumeClaim| {
        let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        resources.and_then(|r| r.requests.as_ref()?.get("storage").cloned()).unwrap_or_default().0
    };
    let grown = |name: &'static str| {
        move |all: &stead_informer::Cache<PersistentVolumeClaim>| {
            all.get(NS, name).filter(|claim| request(claim) == "2Gi").map(drop)
        }
    };
    cluster.until(&cache, grown("data-web-0")).await;
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 2}})).await;
    cluster.settled("web").await;
    bind(&cluster, "data-web-1").await;
    cluster.until(&cache, grown("data-web-1")).await;
}

async fn bind(cluster: &Cluster, claim: &str) {
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    let claims = cluster.api::<PersistentVolumeClaim>();
    claims.patch_status(claim, &PatchParams::default(), &Patch::Merge(bound)).await.expect("bound");
}
