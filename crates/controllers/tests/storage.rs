//! Claims, volumes and the local provisioner against the real API server.

mod support;

use std::time::Instant;

use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use support::{Plane, create, until, until_all};

const CONTROLLERS: &[&str] = &["persistentvolume-controller", "local-storage", "service-account-controller"];

fn claim(name: &str, class: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}})
}

fn phase(claim: Option<&PersistentVolumeClaim>) -> &str {
    claim.and_then(|c| c.status.as_ref()?.phase.as_deref()).unwrap_or("")
}

async fn node(plane: &Plane, name: &str) {
    let labels = json!({"kubernetes.io/hostname": name});
    let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    create(&plane.all::<Node>(), json!({"metadata": {"name": name, "labels": labels}, "status": status})).await;
}

async fn events_of(plane: &Plane, name: &str, reason: &str) -> Vec<String> {
    let said =
        |event: &Event| event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason);
    let events = until_all(&plane.of::<Event>("default"), |all| all.iter().any(said)).await;
    events.iter().filter(|event| said(event)).filter_map(|event| event.message.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_the_default_class_waits_for_its_node_and_is_bound_at_once_then() {
    let plane = Plane::start(CONTROLLERS).await;
    let class = until(&plane.all::<StorageClass>(), "standard", |c| c.is_some()).await.expect("a class");
    assert_eq!(class.provisioner, "stead.dev/local");
    node(&plane, "peer").await;
    let (claims, volumes) = (plane.of::<PersistentVolumeClaim>("default"), plane.all::<PersistentVolume>());
    let made = create(&claims, claim("data", json!(null))).await;
    assert_eq!(made.spec.as_ref().expect("a spec").storage_class_name.as_deref(), Some("standard"));
    let told = events_of(&plane, "data", "WaitForFirstConsumer").await;
    assert_eq!(told, ["waiting for first consumer to be created before binding"]);

    let began = Instant::now();
    let chosen = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "peer"}}});
    claims.patch("data", &PatchParams::default(), &Patch::Merge(chosen)).await.expect("a patch");
    let bound = until(&claims, "data", |c| phase(c) == "Bound").await.expect("a claim");
    println!("bound {:?} after its node was chosen", began.elapsed());
    let name = format!("pvc-{}", bound.metadata.uid.as_deref().expect("a uid"));
    assert_eq!(bound.spec.as_ref().expect("a spec").volume_name.as_deref(), Some(name.as_str()));
    let volume = volumes.get(&name).await.expect("a volume");
    let spec = volume.spec.as_ref().expect("a spec");
    let path = &spec.host_path.as_ref().expect("a host path").path;
    assert_eq!(path, &format!("/data/storage/{name}_default_data"));
    assert_eq!(volume.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Bound"));
    let told = events_of(&plane, "data", "ProvisioningSucceeded").await;
    assert_eq!(told, [format!("Successfully provisioned volume {name} using stead.dev/local")]);

    // Grown by its owner.
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    claims.patch("data", &PatchParams::default(), &Patch::Merge(more)).await.expect("a patch");
    let size = |c: &PersistentVolumeClaim| Some(c.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.clone());
    until(&claims, "data", |c| c.and_then(size).as_deref() == Some("2Gi")).await;

    // Deleted: the claim goes, its volume is Released, for the node to clean up.
    claims.delete("data", &DeleteParams::default()).await.expect("a deletion");
    until(&claims, "data", |c| c.is_none()).await;
    let phase = |v: Option<&PersistentVolume>| v.and_then(|v| v.status.as_ref()?.phase.clone());
    until(&volumes, &name, |v| phase(v).as_deref() == Some("Released")).await;
    volumes.delete(&name, &DeleteParams::default()).await.expect("a deletion");
    until(&volumes, &name, |v| v.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_class_finds_a_volume_made_by_hand() {
    let plane = Plane::start(&["persistentvolume-controller"]).await;
    let (claims, volumes) = (plane.of::<PersistentVolumeClaim>("default"), plane.all::<PersistentVolume>());
    create(&claims, claim("data", json!(""))).await;
    let told = events_of(&plane, "data", "FailedBinding").await;
    assert_eq!(told, ["no persistent volumes available for this claim and no storage class is set"]);
    create(&claims, claim("other", json!("nowhere"))).await;
    let told = events_of(&plane, "other", "ProvisioningFailed").await;
    assert_eq!(told, ["storageclass.storage.k8s.io \"nowhere\" not found"]);
    let volume = json!({"metadata": {"name": "hand"}, "spec": {"capacity": {"storage": "5Gi"}, "hostPath": {"path": "/x"},
        "accessModes": ["ReadWriteOnce"]}});
    create(&volumes, volume).await;
    until(&claims, "data", |c| phase(c) == "Bound").await;
    // Lost when the volume is taken away by force.
    let bare = json!({"metadata": {"finalizers": null}});
    volumes.delete("hand", &DeleteParams::default()).await.expect("a deletion");
    volumes.patch("hand", &PatchParams::default(), &Patch::Merge(bare)).await.expect("a patch");
    until(&claims, "data", |c| phase(c) == "Lost").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_use_is_kept_until_its_pod_is_gone() {
    let plane = Plane::start(CONTROLLERS).await;
    node(&plane, "peer").await;
    until(&plane.of::<ServiceAccount>("default"), "default", |a| a.is_some()).await;
    let (claims, pods) = (plane.of::<PersistentVolumeClaim>("default"), plane.of::<Pod>("default"));
    let now = json!({"metadata": {"name": "now"}, "provisioner": "stead.dev/local"});
    create(&plane.all::<StorageClass>(), now).await;
    create(&claims, claim("data", json!("now"))).await;
    until(&claims, "data", |c| phase(c) == "Bound").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "peer", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i:1"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
    create(&pods, pod).await;
    claims.delete("data", &DeleteParams::default()).await.expect("a deletion");
    let kept = until(&claims, "data", |c| c.is_some_and(|c| c.metadata.deletion_timestamp.is_some())).await;
    assert_eq!(kept.expect("a claim").metadata.finalizers.expect("finalizers"), ["kubernetes.io/pvc-protection"]);
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.expect("a deletion");
    until(&claims, "data", |c| c.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_claims_at_once() {
    const MANY: usize = 100;
    let plane = Plane::start(CONTROLLERS).await;
    node(&plane, "peer").await;
    let now = json!({"metadata": {"name": "now"}, "provisioner": "stead.dev/local"});
    create(&plane.all::<StorageClass>(), now).await;
    let claims = plane.of::<PersistentVolumeClaim>("default");
    create(&claims, claim("warm", json!("now"))).await;
    until(&claims, "warm", |c| phase(c) == "Bound").await;
    let began = Instant::now();
    for n in 0..MANY {
        create(&claims, claim(&format!("c{n}"), json!("now"))).await;
    }
    until_all(&claims, |all| all.len() == MANY + 1 && all.iter().all(|c| phase(Some(c)) == "Bound")).await;
    println!("{MANY} claims bound {:?} after the first was created", began.elapsed());
    let volumes = plane.all::<PersistentVolume>().list(&Default::default()).await.expect("a list").items;
    assert_eq!(volumes.len(), MANY + 1);
}
