//! The garbage collector, the end of namespaces, and pods without a node, against the real API server.

mod support;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use support::{Plane, create, until, until_all};

fn owned_by<K: Resource<DynamicType = ()>>(name: &str, owner: &K, blocks: bool) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [{
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "name": owner.name_any(), "uid": owner.meta().uid,
        "blockOwnerDeletion": blocks,
    }]}})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

fn how(policy: PropagationPolicy) -> DeleteParams {
    DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn background_takes_the_whole_family() {
    let plane = Plane::start(&["garbage-collector-controller"]).await;
    let maps = plane.of::<ConfigMap>("default");
    let owner = create(&maps, map("owner")).await;
    let child = create(&maps, owned_by("child", &owner, true)).await;
    create(&maps, owned_by("grandchild", &child, true)).await;
    create(&maps, map("stranger")).await;
    maps.delete("owner", &DeleteParams::background()).await.expect("a deletion");
    until_all(&maps, |all| all.iter().map(ResourceExt::name_any).eq(["stranger".to_owned()])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_takes_the_children_first() {
    let plane = Plane::start(&["garbage-collector-controller"]).await;
    let maps = plane.of::<ConfigMap>("default");
    let owner = create(&maps, map("owner")).await;
    let mut held = owned_by("held", &owner, true);
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    create(&maps, held).await;
    create(&maps, owned_by("free", &owner, true)).await;
    maps.delete("owner", &how(PropagationPolicy::Foreground)).await.expect("a deletion");
    until(&maps, "held", |m| m.is_some_and(|m| m.metadata.deletion_timestamp.is_some())).await;
    until(&maps, "free", |m| m.is_none()).await;
    let waiting = maps.get("owner").await.expect("the owner waits");
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &bare).await.expect("a patch");
    until(&maps, "owner", |m| m.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphan_lets_them_live() {
    let plane = Plane::start(&["garbage-collector-controller"]).await;
    let maps = plane.of::<ConfigMap>("default");
    let owner = create(&maps, map("owner")).await;
    create(&maps, owned_by("child", &owner, true)).await;
    maps.delete("owner", &how(PropagationPolicy::Orphan)).await.expect("a deletion");
    until(&maps, "owner", |m| m.is_none()).await;
    let child = until(&maps, "child", |m| m.is_some_and(|m| m.owner_references().is_empty())).await;
    assert!(child.expect("lives").metadata.deletion_timestamp.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_never_was_and_one_of_two() {
    let plane = Plane::start(&["garbage-collector-controller"]).await;
    let maps = plane.of::<ConfigMap>("default");
    let owner = create(&maps, map("owner")).await;
    let mut ghost = owner.clone();
    ghost.metadata.uid = Some("gone".to_owned());
    create(&maps, owned_by("lost", &ghost, false)).await;
    until(&maps, "lost", |m| m.is_none()).await;
    let mut two = owned_by("two", &owner, false);
    let second = owned_by("x", &ghost, false)["metadata"]["ownerReferences"][0].clone();
    two["metadata"]["ownerReferences"].as_array_mut().expect("a list").push(second);
    create(&maps, two).await;
    let two = until(&maps, "two", |m| m.is_some_and(|m| m.owner_references().len() == 1)).await.expect("lives");
    assert_eq!(two.owner_references()[0].uid, owner.uid().expect("a uid"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_goes_with_its_pods_and_leaves_its_claims() {
    let names = ["garbage-collector-controller", "statefulset-controller", "service-account-controller"];
    let plane = Plane::start(&names).await;
    until(&plane.of::<ServiceAccount>("default"), "default", |a| a.is_some()).await;
    let sets = plane.of::<StatefulSet>("default");
    let labels = json!({"app": "web"});
    create(
        &sets,
        json!({"metadata": {"name": "web"}, "spec": {
            "serviceName": "web", "replicas": 3, "podManagementPolicy": "Parallel", "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "www"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        }}),
    )
    .await;
    let pods = plane.of::<Pod>("default");
    until_all(&pods, |all| all.len() == 3).await;
    sets.delete("web", &DeleteParams::background()).await.expect("a deletion");
    until_all(&pods, |all| all.is_empty()).await;
    let claims = plane.of::<PersistentVolumeClaim>("default").list(&ListParams::default()).await.expect("a list");
    assert_eq!(claims.items.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_emptied_and_goes() {
    let names = [
        "namespace-controller",
        "garbage-collector-controller",
        "service-account-controller",
        "root-ca-cert-publisher",
    ];
    let plane = Plane::start(&names).await;
    let namespaces = plane.all::<Namespace>();
    create(&namespaces, map("dying")).await;
    until(&plane.of::<ConfigMap>("dying"), "kube-root-ca.crt", |m| m.is_some()).await;
    until(&plane.of::<ServiceAccount>("dying"), "default", |a| a.is_some()).await;
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let maps = plane.of::<ConfigMap>("dying");
    create(&maps, held).await;
    namespaces.delete("dying", &DeleteParams::default()).await.expect("a deletion");
    let said = |n: &Namespace| {
        let conditions = n.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        conditions.iter().any(|c| {
            c.message.as_deref()
                == Some(
                    "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
                )
        })
    };
    until(&namespaces, "dying", |n| n.is_some_and(said)).await;
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &bare).await.expect("a patch");
    until(&namespaces, "dying", |n| n.is_none()).await;
    assert!(maps.list(&ListParams::default()).await.expect("a list").items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_never_had_a_node_goes_at_once() {
    let plane = Plane::start(&["pod-garbage-collector", "service-account-controller"]).await;
    until(&plane.of::<ServiceAccount>("default"), "default", |a| a.is_some()).await;
    let pods = plane.of::<Pod>("default");
    let mut pod = json!({"metadata": {"name": "p", "finalizers": ["example.com/hold"]}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    pod["spec"]["schedulerName"] = "nobody".into();
    create(&pods, pod).await;
    pods.delete("p", &DeleteParams::default()).await.expect("a deletion");
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("p", &PatchParams::default(), &bare).await.expect("a patch");
    until(&pods, "p", |p| p.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_says_what_is_used() {
    use k8s_openapi::api::core::v1::ResourceQuota;
    let plane = Plane::start(&["resourcequota-controller", "service-account-controller"]).await;
    until(&plane.of::<ServiceAccount>("default"), "default", |a| a.is_some()).await;
    let quotas = plane.of::<ResourceQuota>("default");
    let hard = json!({"pods": "5", "requests.cpu": "2", "count/configmaps": "9", "services": "3"});
    create(&quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let used = |quota: Option<&ResourceQuota>| json!(quota.and_then(|q| q.status.as_ref()?.used.clone()));
    let nothing = json!({"pods": "0", "requests.cpu": "0", "count/configmaps": "0", "services": "1"});
    until(&quotas, "q", |q| used(q) == nothing).await;
    create(&plane.of::<ConfigMap>("default"), map("m")).await;
    let container = json!({"name": "c", "image": "i:1", "resources": {"requests": {"cpu": "500m"}}});
    create(&plane.of::<Pod>("default"), json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})).await;
    let some = json!({"pods": "1", "requests.cpu": "500m", "count/configmaps": "1", "services": "1"});
    until(&quotas, "q", |q| used(q)["pods"] == "1" && used(q)["count/configmaps"] == "1").await;
    let last = until(&quotas, "q", |q| used(q)["requests.cpu"] == "500m").await;
    assert_eq!(used(last.as_ref())["services"], some["services"]);
}

/// Found by the simulator, seed 1089: a set is deleted in the foreground while a pod that is scaled away still owns its claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_waits_for_its_claim_does_not_hold_the_claim() {
    let plane = Plane::start(&["garbage-collector-controller", "persistentvolume-controller"]).await;
    create(&plane.of::<ServiceAccount>("default"), map("default")).await;
    let (pods, claims) = (plane.of::<Pod>("default"), plane.of::<PersistentVolumeClaim>("default"));
    let pod = json!({"metadata": {"name": "web-1"}, "spec": {
        "nodeName": "node-1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}}],
    }});
    let pod = create(&pods, pod).await;
    let mut claim = owned_by("data-web-1", &pod, true);
    claim["spec"] = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    create(&claims, claim).await;
    pods.delete("web-1", &how(PropagationPolicy::Foreground)).await.expect("a deletion");
    until(&claims, "data-web-1", |claim| claim.is_some_and(|claim| claim.metadata.deletion_timestamp.is_some())).await;
    // The node has ended it.
    pods.delete("web-1", &DeleteParams::default().grace_period(0)).await.expect("a deletion");
    until(&claims, "data-web-1", |claim| claim.is_none()).await;
    until(&pods, "web-1", |pod| pod.is_none()).await;
}
