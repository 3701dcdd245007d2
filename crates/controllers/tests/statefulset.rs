//! StatefulSets against the real API server, with simulated nodes.

mod common;

use common::{Cluster, web};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use serde_json::json;

fn revision(pod: &Pod) -> String {
    pod.metadata.labels.as_ref().expect("labels")["controller-revision-hash"].clone()
}

fn image(tag: &str) -> serde_json::Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": tag}]}}}})
}

#[tokio::test]
async fn comes_up_in_order_with_identity_and_claims() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    for n in 0..3 {
        let pod = cluster.pod_until(&format!("web-{n}"), |_| true).await;
        assert_eq!(cluster.take_log(), format!("+web-{n}"), "only after its predecessor is ready");
        let labels = pod.metadata.labels.as_ref().expect("labels");
        assert_eq!(labels["apps.kubernetes.io/pod-index"], n.to_string());
        assert_eq!(labels["statefulset.kubernetes.io/pod-name"], format!("web-{n}"));
        let spec = pod.spec.as_ref().expect("spec");
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (pod.metadata.name.as_deref(), Some("web")));
        cluster.ready(&format!("web-{n}")).await;
    }
    let set = cluster.settled("web").await;
    let status = set.status.as_ref().expect("status");
    assert_eq!((status.current_replicas, status.available_replicas), (Some(3), Some(3)));
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!(cluster.names::<PersistentVolumeClaim>().await, ["data-web-0", "data-web-1", "data-web-2"]);
    assert_eq!(
        cluster.events("web", 6).await,
        [
            "Normal SuccessfulCreate create Claim data-web-0 Pod web-0 in StatefulSet web success",
            "Normal SuccessfulCreate create Pod web-0 in StatefulSet web successful",
            "Normal SuccessfulCreate create Claim data-web-1 Pod web-1 in StatefulSet web success",
            "Normal SuccessfulCreate create Pod web-1 in StatefulSet web successful",
            "Normal SuccessfulCreate create Claim data-web-2 Pod web-2 in StatefulSet web success",
            "Normal SuccessfulCreate create Pod web-2 in StatefulSet web successful",
        ]
    );
}

#[tokio::test]
async fn scales_up_and_down_in_order_and_keeps_the_claims() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 5}})).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "+web-3 +web-4");
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 3}})).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-4 -web-4 ~web-3 -web-3");
    assert_eq!(cluster.names::<PersistentVolumeClaim>().await.len(), 5);
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 0}})).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 ~web-1 -web-1 ~web-0 -web-0");
}

#[tokio::test]
async fn an_unready_pod_halts_scaling_until_it_is_back() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(2, json!({}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.unready("web-0").await;
    cluster.set_until("web", |set| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(1))).await;
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    cluster
        .set_until("web", |set| set.status.as_ref().is_some_and(|s| s.observed_generation == set.metadata.generation))
        .await;
    assert_eq!(cluster.take_log(), "");
    cluster.ready("web-0").await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1");
}

#[tokio::test]
async fn a_deleted_pod_comes_back_in_its_stead() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    let before = cluster.pod_until("web-1", |_| true).await;
    cluster.delete::<Pod>("web-1").await;
    let after = cluster.pod_until("web-1", |pod| pod.metadata.uid != before.metadata.uid).await;
    let claim = |pod: &Pod| {
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
        volumes.into_iter().find_map(|volume| volume.persistent_volume_claim).map(|claim| claim.claim_name)
    };
    assert_eq!(claim(&after), claim(&before));
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1");
}

#[tokio::test]
async fn rolls_out_from_the_top_and_back_without_a_new_revision() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    let first = cluster.settled("web").await.status.as_ref().and_then(|s| s.current_revision.clone());
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let rolled = |set: &StatefulSet| {
        set.status.as_ref().is_some_and(|s| {
            s.observed_generation == set.metadata.generation
                && s.current_revision == s.update_revision
                && s.updated_replicas == Some(3)
        })
    };
    let second = cluster.set_until("web", rolled).await.status.as_ref().and_then(|s| s.current_revision.clone());
    assert_ne!(first, second);
    assert_eq!(cluster.take_log(), "~web-2 -web-2 +web-2 ~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
    assert_eq!(cluster.names::<ControllerRevision>().await.len(), 2);
    cluster.patch::<StatefulSet>("web", image("nginx:1.21")).await;
    let third = cluster.set_until("web", rolled).await.status.as_ref().and_then(|s| s.current_revision.clone());
    assert_eq!(third, first, "the old revision is used again");
    let revisions = cluster.caches.of::<ControllerRevision>();
    let number = |name: &Option<String>| {
        let found = revisions.get(common::NS, name.as_deref().expect("a name")).expect("exists");
        found.revision
    };
    assert_eq!((number(&second), number(&third)), (Some(2), Some(3)));
}

#[tokio::test]
async fn a_partition_holds_lower_ordinals_at_the_old_revision() {
    let cluster = Cluster::start().await;
    let strategy = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
    cluster.create::<StatefulSet>(web(3, strategy)).await;
    cluster.settled("web").await;
    cluster.take_log();
    let old = revision(&*cluster.pod_until("web-0", |_| true).await);
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let new = revision(&*cluster.pod_until("web-2", |pod| revision(pod) != old).await);
    cluster
        .set_until("web", |set| {
            set.status.as_ref().is_some_and(|s| s.updated_replicas == Some(1) && s.ready_replicas == Some(3))
        })
        .await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 +web-2");
    let before = cluster.pod_until("web-0", |_| true).await;
    cluster.delete::<Pod>("web-0").await;
    let after = cluster.pod_until("web-0", |pod| pod.metadata.uid != before.metadata.uid).await;
    assert_eq!(revision(&after), old);
    cluster.patch::<StatefulSet>("web", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})).await;
    cluster.set_until("web", |set| set.status.as_ref().is_some_and(|s| s.current_revision == Some(new.clone()))).await;
    let log = cluster.take_log();
    assert!(log.ends_with("~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0"), "{log}");
}

#[tokio::test]
async fn on_delete_updates_what_is_deleted_by_hand() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(2, json!({"updateStrategy": {"type": "OnDelete"}}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    let old = revision(&*cluster.pod_until("web-1", |_| true).await);
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    cluster.set_until("web", |set| set.status.as_ref().is_some_and(|s| s.current_revision != s.update_revision)).await;
    assert_eq!(cluster.take_log(), "");
    cluster.delete::<Pod>("web-1").await;
    cluster.pod_until("web-1", |pod| revision(pod) != old).await;
    assert_eq!(revision(&*cluster.pod_until("web-0", |_| true).await), old);
}

#[tokio::test]
async fn parallel_starts_all_at_once() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<StatefulSet>(web(20, json!({"podManagementPolicy": "Parallel"}))).await;
    cluster.until(&cluster.pods, |pods| (pods.len() == 20).then_some(())).await;
    for n in 0..20 {
        cluster.ready(&format!("web-{n}")).await;
    }
    cluster.settled("web").await;
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 0}})).await;
    let terminating = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    cluster.until(&cluster.pods, |pods| pods.list().iter().all(|pod| terminating(pod)).then_some(())).await;
}

#[tokio::test]
async fn orphans_are_adopted_and_strangers_released() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(2, json!({}))).await;
    cluster.settled("web").await;
    let uids =
        |cluster: &Cluster| -> Vec<_> { cluster.pods.list().iter().map(|pod| pod.metadata.uid.clone()).collect() };
    let before = uids(&cluster);
    // A pod that no longer matches is released, and its place is taken only once it is gone.
    cluster.patch::<Pod>("web-1", json!({"metadata": {"labels": {"app": "other"}}})).await;
    let released =
        cluster.pod_until("web-1", |pod| pod.metadata.owner_references.iter().flatten().next().is_none()).await;
    assert_eq!(Some(&released.metadata.uid), before.get(1));
    // Matching again, it is adopted again.
    cluster.patch::<Pod>("web-1", json!({"metadata": {"labels": {"app": "web"}}})).await;
    cluster.pod_until("web-1", |pod| pod.metadata.owner_references.iter().flatten().next().is_some()).await;
    cluster.settled("web").await;
    assert_eq!(uids(&cluster), before);
}

#[tokio::test]
async fn a_pod_with_leading_zeros_counts_as_the_ordinal_that_it_names() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(1, json!({}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    let by_hand = |name: &str| json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    // Nobody wants a twelfth pod: it is adopted and taken away.
    cluster.create::<Pod>(by_hand("web-012")).await;
    cluster.until(&cluster.pods, |pods| pods.get(common::NS, "web-012").is_none().then_some(())).await;
    let deleted = "Normal SuccessfulDelete delete Pod web-012 in StatefulSet web successful".to_owned();
    let events = cluster.events("web", 3).await;
    assert!(events.contains(&deleted), "{events:?}");
}

#[tokio::test]
async fn a_pod_with_leading_zeros_is_in_the_way_of_the_one_that_is_wanted() {
    let cluster = Cluster::start().await;
    let by_hand = json!({
        "metadata": {"name": "web-01", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}
    });
    cluster.create::<Pod>(by_hand).await;
    cluster.create::<StatefulSet>(web(2, json!({}))).await;
    cluster.pod_until("web-01", |pod| pod.metadata.owner_references.is_some()).await;
    // It cannot be renamed.
    let failed = "Warning FailedUpdate update Pod web-1 in StatefulSet web failed error: pods \"web-1\" not found";
    let events = cluster.caches.of::<Event>();
    cluster.until(&events, |events| events.list().iter().any(|event| words(event) == failed).then_some(())).await;
    assert!(cluster.pods.get(common::NS, "web-1").is_none());
}

#[tokio::test]
async fn finished_pods_are_made_anew() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(1, json!({}))).await;
    cluster.settled("web").await;
    let before = cluster.pod_until("web-0", |_| true).await;
    let api = cluster.api::<Pod>();
    let patch = kube::api::Patch::Strategic(json!({"status": {"phase": "Failed", "reason": "Evicted"}}));
    api.patch_status("web-0", &kube::api::PatchParams::default(), &patch).await.expect("patched");
    cluster.pod_until("web-0", |pod| pod.metadata.uid != before.metadata.uid).await;
    let events = cluster.events("web", 3).await;
    assert!(
        events.contains(&"Normal SuccessfulDelete delete Pod web-0 in StatefulSet web successful".to_owned()),
        "{events:?}"
    );
}

#[tokio::test]
async fn claims_are_owned_as_the_retention_policy_says() {
    let cluster = Cluster::start().await;
    let policy = json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}});
    cluster.create::<StatefulSet>(web(2, policy)).await;
    let set = cluster.settled("web").await;
    let claims = cluster.caches.of::<PersistentVolumeClaim>();
    let owner = |claim: &PersistentVolumeClaim| {
        claim.metadata.owner_references.iter().flatten().map(|r| format!("{} {}", r.kind, r.uid)).collect::<Vec<_>>()
    };
    let by_set = vec![format!("StatefulSet {}", set.metadata.uid.clone().expect("a uid"))];
    cluster
        .until(&claims, |claims| {
            let all = claims.list();
            (all.len() == 2 && all.iter().all(|claim| owner(claim) == by_set)).then_some(())
        })
        .await;
    let pod = cluster.pod_until("web-1", |_| true).await;
    let by_pod = vec![format!("Pod {}", pod.metadata.uid.clone().expect("a uid"))];
    cluster.hold_nodes();
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let claim = claims.get(common::NS, "data-web-1").expect("still there");
    assert_eq!(owner(&claim), by_pod, "before the pod goes its claim belongs to it");
    cluster
        .patch::<StatefulSet>(
            "web",
            json!({"spec": {
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            }}),
        )
        .await;
    cluster.until(&claims, |claims| claims.list().iter().all(|claim| owner(claim).is_empty()).then_some(())).await;
}

#[tokio::test]
async fn an_ordered_deletion_goes_from_the_top_and_then_the_set_is_gone() {
    let cluster = Cluster::start().await;
    let mut set = web(3, json!({"podManagementPolicy": "Parallel"}));
    set["metadata"]["annotations"] = json!({"stead.dev/ordered-delete": "true"});
    cluster.create::<StatefulSet>(set).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.delete::<StatefulSet>("web").await;
    let sets = cluster.caches.of::<StatefulSet>();
    cluster.until(&sets, |sets| sets.is_empty().then_some(())).await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 ~web-1 -web-1 ~web-0 -web-0");
}

#[tokio::test]
async fn a_pod_that_is_refused_is_told_in_an_event() {
    let cluster = Cluster::start().await;
    let set = json!({"template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "serviceAccountName": "missing"},
    }});
    cluster.create::<StatefulSet>(web(1, set)).await;
    let events = cluster.events("web", 2).await;
    assert_eq!(
        events[1],
        "Warning FailedCreate create Pod web-0 in StatefulSet web failed error: pods \"web-0\" is forbidden: \
         error looking up service account default/missing: serviceaccount \"missing\" not found"
    );
}

/// The claims that a pod mounts.
fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default();
    volumes.into_iter().filter_map(|volume| volume.persistent_volume_claim).map(|claim| claim.claim_name).collect()
}

#[tokio::test]
async fn pods_with_other_volumes_than_the_set_asks_for_are_rolled_in_order() {
    let cluster = Cluster::start_with(&["garbage-collector-controller"]).await;
    cluster.create::<StatefulSet>(web(2, json!({}))).await;
    cluster.settled("web").await;
    let orphan = kube::api::DeleteParams {
        propagation_policy: Some(kube::api::PropagationPolicy::Orphan),
        ..kube::api::DeleteParams::default()
    };
    cluster.api::<StatefulSet>().delete("web", &orphan).await.expect("deleted");
    let sets = cluster.caches.of::<StatefulSet>();
    cluster.until(&sets, |sets| sets.is_empty().then_some(())).await;
    cluster.take_log();
    let claim = |name: &str| {
        json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        })
    };
    cluster.hold_nodes();
    cluster.create::<StatefulSet>(web(2, json!({"volumeClaimTemplates": [claim("data"), claim("log")]}))).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    let counted = |set: &StatefulSet| set.status.as_ref().is_some_and(|s| s.observed_generation.is_some());
    let status = cluster.set_until("web", counted).await.status.clone().expect("a status");
    assert_eq!((status.updated_replicas, status.replicas), (None, 2), "neither pod is as it should be");
    assert_eq!(status.current_revision, status.update_revision, "the template is the same");
    cluster.release_nodes();
    cluster.gone("web-1").await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
    for n in 0..2 {
        let pod = cluster.pod_until(&format!("web-{n}"), |_| true).await;
        assert_eq!(claims_of(&pod), [format!("data-web-{n}"), format!("log-web-{n}")]);
    }
    let told = "Normal ReplacingVolumes Pod web-1 has other volumes than the volumeClaimTemplates of StatefulSet web ask \
                for and is replaced";
    let events = cluster.caches.of::<Event>();
    cluster.until(&events, |events| events.list().iter().any(|event| words(event) == told).then_some(())).await;
}

#[tokio::test]
async fn recreate_takes_all_pods_down_before_it_makes_new_ones() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({"updateStrategy": {"type": "Recreate"}}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.hold_nodes();
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let all_end = |pods: &stead_informer::Cache<Pod>| {
        pods.list().iter().all(|pod| pod.metadata.deletion_timestamp.is_some()).then_some(())
    };
    cluster.until(&cluster.pods, all_end).await;
    let reason = |set: &StatefulSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_.as_deref() == Some("Progressing"))?.reason.clone()
    };
    cluster.set_until("web", |set| reason(set).as_deref() == Some("RecreateInProgress")).await;
    cluster.gone("web-1").await;
    cluster.gone("web-0").await;
    cluster.release_nodes();
    cluster.gone("web-2").await;
    let set = cluster.settled("web").await;
    assert_eq!(set.status.as_ref().map(|s| s.current_revision == s.update_revision), Some(true));
    let set = cluster.set_until("web", |set| reason(set).as_deref() == Some("RecreateComplete")).await;
    assert_eq!(set.status.as_ref().and_then(|s| s.available_replicas), Some(3));
    let log = cluster.take_log();
    assert!(log.ends_with("-web-1 -web-0 -web-2 +web-0 +web-1 +web-2"), "{log}");
    let events = cluster.caches.of::<Event>();
    let told = "Normal RecreateStarted Deleting all pods for Recreate update";
    let events = cluster.until(&events, |events| {
        let about: Vec<String> = events.list().iter().map(|event| words(event)).collect();
        about.iter().any(|event| event == told).then_some(about)
    });
    assert_eq!(events.await.iter().filter(|event| *event == told).count(), 1);
}

#[tokio::test]
async fn figures_are_told_under_the_names_of_upstream() {
    let cluster = Cluster::start().await;
    let rolling = json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}}});
    cluster.create::<StatefulSet>(web(4, rolling)).await;
    cluster.settled("web").await;
    cluster.hold_nodes();
    cluster.unready("web-1").await;
    cluster.set_until("web", |set| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(3))).await;
    let labels = "{pod_management_policy=\"OrderedReady\",statefulset_name=\"web\",statefulset_namespace=\"default\"}";
    let text = cluster.metrics.render();
    for line in [
        format!("statefulset_controller_statefulset_max_unavailable{labels} 2\n"),
        format!("statefulset_controller_statefulset_unavailable_replicas{labels} 1\n"),
    ] {
        assert!(text.contains(&line), "{text}");
    }
}

fn words(event: &Event) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {} {}", text(&event.type_), text(&event.reason), text(&event.message))
}
