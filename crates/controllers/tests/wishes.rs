//! What a set can ask for beyond upstream's API, against the real API server with simulated nodes.

#![allow(clippy::too_many_lines, reason = "stories from the beginning to the end")]

mod common;

use common::{Cluster, NS, web};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PropagationPolicy};
use serde_json::{Value, json};
use stead_machinery::hand_over;
use stead_workloads::statefulset::wishes;

fn image(tag: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": tag}]}}}})
}

fn with(mut set: Value, annotation: &str, value: &str) -> Value {
    set["metadata"]["annotations"][annotation] = value.into();
    set
}

fn image_of(pod: &Pod) -> &str {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

/// Two pods up, then a roll-out whose first pod comes and never works.
async fn stuck(set: Value) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(set).await;
    cluster.settled("web").await;
    cluster.hold_nodes();
    cluster.patch::<StatefulSet>("web", image("broken")).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "broken").await;
    // It runs, and that is all.
    cluster.unready("web-1").await;
    let runs = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    cluster.pod_until("web-1", runs).await;
    cluster.take_log();
    cluster
}

#[tokio::test]
async fn a_mended_template_reaches_the_pod_that_is_broken() {
    let cluster = stuck(web(2, json!({}))).await;
    cluster.patch::<StatefulSet>("web", image("mended")).await;
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(cluster.take_log(), "~web-1", "the one that works is left alone");
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "mended").await;
    assert_eq!(image_of(&*cluster.pod_until("web-0", |_| true).await), "nginx:1.21");
    cluster.release_nodes();
    cluster.ready("web-1").await;
    cluster.pod_until("web-0", |pod| image_of(pod) == "mended").await;
    cluster.settled("web").await;
    let events = cluster.events("web", 7).await;
    let told = events.iter().any(|event| event.starts_with("Normal ReplacingBrokenPod Pod web-1 does not work"));
    assert!(told, "{events:#?}");
}

#[tokio::test]
async fn healing_can_be_turned_off() {
    let cluster = stuck(with(web(2, json!({})), wishes::HEAL, "false")).await;
    let set = cluster.patch::<StatefulSet>("web", image("mended")).await;
    let observed = |now: &StatefulSet| {
        now.status.as_ref().is_some_and(|status| status.observed_generation == set.metadata.generation)
    };
    cluster.set_until("web", observed).await;
    assert_eq!(cluster.take_log(), "");
}

#[tokio::test]
async fn a_roll_out_that_takes_too_long_is_undone() {
    let cluster = stuck(web(2, json!({}))).await;
    // Only now, so that its time is not over before the pod is there.
    let deadline = json!({"metadata": {"annotations": {wishes::PROGRESS_DEADLINE: "1"}}});
    cluster.patch::<StatefulSet>("web", deadline).await;
    let set = cluster.set_until("web", |set| template_image(set) == "nginx:1.21").await;
    let annotations = set.metadata.annotations.as_ref().expect("annotations");
    assert!(annotations[wishes::ROLLED_BACK_FROM].starts_with("web-"), "{annotations:?}");
    cluster.pod_until("web-1", |pod| pod.metadata.deletion_timestamp.is_some()).await;
    cluster.gone("web-1").await;
    cluster.pod_until("web-1", |pod| image_of(pod) == "nginx:1.21").await;
    cluster.ready("web-1").await;
    let set = cluster.settled("web").await;
    let status = set.status.as_ref().expect("a status");
    assert_eq!(status.current_revision, status.update_revision);
    let complete = |set: &StatefulSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|condition| condition.reason.as_deref() == Some("NewRevisionAvailable"))
    };
    cluster.set_until("web", complete).await;
    let events = cluster.events("web", 8).await;
    for expected in ["Warning ProgressDeadlineExceeded Revision ", "Normal StatefulSetRollback Rolled back "] {
        assert!(events.iter().any(|event| event.starts_with(expected)), "{expected}: {events:#?}");
    }
}

fn template_image(set: &StatefulSet) -> &str {
    let container = set.spec.template.spec.as_ref().and_then(|spec| spec.containers.first());
    container.and_then(|container| container.image.as_deref()).unwrap_or_default()
}

#[tokio::test]
async fn the_first_pod_waits_for_the_sets_that_it_depends_on() {
    let cluster = Cluster::start().await;
    cluster.hold_nodes();
    cluster.create::<StatefulSet>(with(web(1, json!({})), wishes::DEPENDS_ON, "db")).await;
    cluster.events("web", 1).await;
    let mut db = web(1, json!({}));
    db["metadata"]["name"] = "db".into();
    cluster.create::<StatefulSet>(db).await;
    cluster.pod_until("db-0", |_| true).await;
    assert_eq!(cluster.take_log(), "+db-0");
    cluster.ready("db-0").await;
    cluster.pod_until("web-0", |_| true).await;
    assert_eq!(
        cluster.events("web", 1).await[0],
        "Normal WaitingForDependency the first Pod of StatefulSet web waits for StatefulSet db"
    );
}

#[tokio::test]
async fn reserved_ordinals_get_no_pod_and_no_claim() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(with(web(3, json!({})), wishes::RESERVED, "1,3")).await;
    cluster.settled("web").await;
    assert_eq!(cluster.names::<Pod>().await, ["web-0", "web-2", "web-4"]);
    assert_eq!(cluster.names::<PersistentVolumeClaim>().await, ["data-web-0", "data-web-2", "data-web-4"]);
}

/// The names of the pods, once they are just these.
async fn pods_are(cluster: &Cluster, expected: &[&str]) {
    let names = |cache: &stead_informer::Cache<Pod>| {
        let mut names: Vec<String> = cache.list_ns(NS).iter().filter_map(|pod| pod.metadata.name.clone()).collect();
        names.sort();
        names
    };
    cluster.until(&cluster.pods, |cache| (names(cache) == expected).then_some(())).await;
}

fn annotation(key: &str, value: impl Into<Value>) -> Value {
    json!({"metadata": {"annotations": {key: value.into()}}})
}

#[tokio::test]
async fn a_stopped_pod_goes_keeps_its_claim_and_place_and_comes_back() {
    let cluster = Cluster::start_with(&["garbage-collector-controller"]).await;
    let policy = json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Delete"}});
    cluster.create::<StatefulSet>(web(3, policy)).await;
    cluster.settled("web").await;
    let uid = |claims: &stead_informer::Cache<PersistentVolumeClaim>| {
        claims.get(NS, "data-web-1").and_then(|claim| claim.metadata.uid.clone())
    };
    let claims = cluster.caches.of::<PersistentVolumeClaim>();
    claims.synced().await;
    let before = uid(&claims).expect("a claim");
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", annotation(wishes::STOPPED, "1")).await;
    pods_are(&cluster, &["web-0", "web-2"]).await;
    // A roll-out goes past it and is complete without it.
    let set = cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let complete = |now: &StatefulSet| {
        let status = now.status.clone().unwrap_or_default();
        status.observed_generation == set.metadata.generation
            && (status.replicas, status.updated_replicas) == (2, Some(2))
            && status.current_revision == status.update_revision
    };
    cluster.set_until("web", complete).await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 ~web-2 -web-2 +web-2 ~web-0 -web-0 +web-0");
    assert_eq!(uid(&claims), Some(before), "the claim stays");
    cluster.patch::<StatefulSet>("web", annotation(wishes::STOPPED, Value::Null)).await;
    pods_are(&cluster, &["web-0", "web-1", "web-2"]).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "+web-1");
}

#[tokio::test]
async fn one_write_removes_a_chosen_pod() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    let set = cluster.settled("web").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", wishes::removal(&set, 1).expect("it is there")).await;
    pods_are(&cluster, &["web-0", "web-2"]).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1");
}

fn budget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec})
}

/// A set of that name whose pods are of the tier `data`.
fn of_tier(name: &str, replicas: u32) -> Value {
    let mut set = with(web(replicas, json!({"podManagementPolicy": "Parallel"})), wishes::EVICT, "true");
    set["metadata"]["name"] = name.into();
    set["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
    set["spec"]["template"]["metadata"]["labels"]["tier"] = "data".into();
    set["spec"]["selector"]["matchLabels"] = json!({"app": "web", "set": name});
    set["spec"]["template"]["metadata"]["labels"]["set"] = name.into();
    set
}

#[tokio::test]
async fn two_sets_that_roll_out_at_once_keep_to_one_budget() {
    let cluster = Cluster::start_with(&["disruption-controller"]).await;
    let over_both = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"tier": "data"}}});
    cluster.create::<PodDisruptionBudget>(budget("both", over_both)).await;
    for name in ["web", "db"] {
        cluster.create::<StatefulSet>(of_tier(name, 3)).await;
    }
    for name in ["web", "db"] {
        cluster.settled(name).await;
    }
    cluster.take_log();
    for name in ["web", "db"] {
        cluster.patch::<StatefulSet>(name, image("nginx:1.22")).await;
    }
    for name in ["web", "db"] {
        let ordinals = ["0", "1", "2"];
        for ordinal in ordinals {
            cluster.pod_until(&format!("{name}-{ordinal}"), |pod| image_of(pod) == "nginx:1.22").await;
        }
        cluster.settled(name).await;
    }
    // Each pod goes and comes back before the next one, whichever set it is of.
    let log = cluster.take_log();
    let words: Vec<&str> = log.split(' ').collect();
    assert_eq!(words.len(), 18, "{log}");
    for one in words.chunks(3) {
        let name = &one[0][1..];
        assert_eq!(one, [format!("~{name}"), format!("-{name}"), format!("+{name}")], "{log}");
    }
}

#[tokio::test]
async fn a_budget_that_allows_nothing_is_told_once_and_waited_for() {
    let cluster = Cluster::start_with(&["disruption-controller"]).await;
    cluster
        .create::<PodDisruptionBudget>(budget(
            "all",
            json!({"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}),
        ))
        .await;
    cluster.create::<StatefulSet>(with(web(2, json!({})), wishes::EVICT, "true")).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let waits = |events: &[String]| {
        events.iter().filter(|event| event.contains("WaitingForDisruptionBudget")).cloned().collect::<Vec<_>>()
    };
    let events = cluster.events("web", 5).await;
    let told =
        "Normal WaitingForDisruptionBudget update of Pod web-1 in StatefulSet web waits: PodDisruptionBudget all";
    assert!(waits(&events).len() == 1 && waits(&events)[0].starts_with(told), "{events:#?}");
    assert_eq!(cluster.take_log(), "");
    // Somebody gives way.
    cluster.patch::<PodDisruptionBudget>("all", json!({"spec": {"minAvailable": 1}})).await;
    cluster.pod_until("web-0", |pod| image_of(pod) == "nginx:1.22").await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
    let evicted = cluster.events("web", 6).await;
    assert!(
        evicted.iter().any(|event| event == "Normal SuccessfulDelete evict Pod web-1 in StatefulSet web successful"),
        "{evicted:#?}"
    );
}

fn variable(pod: &Pod) -> Option<String> {
    let container = pod.spec.as_ref()?.containers.first()?;
    container.env.as_ref()?.iter().find(|env| env.name == "ROLE")?.value.clone()
}

fn role(ordinals: &str, role: &str) -> String {
    format!("\"{ordinals}\": {{spec: {{containers: [{{name: c, env: [{{name: ROLE, value: {role}}}]}}]}}}}")
}

#[tokio::test]
async fn an_override_changes_one_pod_in_a_roll_out_of_its_own() {
    let cluster = Cluster::start().await;
    cluster.create::<StatefulSet>(web(3, json!({}))).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", annotation(wishes::OVERRIDES, role("1", "arbiter"))).await;
    cluster.pod_until("web-1", |pod| variable(pod).as_deref() == Some("arbiter")).await;
    let set = cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1");
    // It outlives a roll-out and a roll-back of the template.
    for tag in ["nginx:1.22", "nginx:1.21"] {
        cluster.patch::<StatefulSet>("web", image(tag)).await;
        cluster.pod_until("web-0", |pod| image_of(pod) == tag).await;
        cluster.settled("web").await;
        let pod = cluster.pods.get(NS, "web-1").expect("there");
        assert_eq!((variable(&pod).as_deref(), image_of(&pod)), (Some("arbiter"), tag));
    }
    assert_eq!(
        set.status.as_ref().and_then(|s| s.update_revision.clone()),
        cluster.settled("web").await.status.as_ref().and_then(|s| s.update_revision.clone())
    );
    cluster.take_log();
    // What cannot be used touches nothing, and stands in the way of new pods.
    cluster.patch::<StatefulSet>("web", annotation(wishes::OVERRIDES, "1: {spec: {hostname: x}}")).await;
    cluster.delete::<Pod>("web-2").await;
    let refused = "Warning FailedCreate create Pod web-2 in StatefulSet web failed error: annotation stead.dev/overrides: \"1\": spec.hostname is not for a patch to change";
    let sees = |cache: &stead_informer::Cache<k8s_openapi::api::core::v1::Event>| {
        cache
            .list_ns(NS)
            .iter()
            .any(|event| event.message.as_deref().is_some_and(|text| refused.ends_with(text)))
            .then_some(())
    };
    cluster.until(&cluster.caches.of(), sees).await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2");
    cluster.patch::<StatefulSet>("web", annotation(wishes::OVERRIDES, Value::Null)).await;
    cluster.pod_until("web-1", |pod| variable(pod).is_none()).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "+web-2 ~web-1 -web-1 +web-1");
}

fn asked(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(hand_over::REQUESTED).map(String::as_str)
}

async fn answer(cluster: &Cluster, pod: &str, code: &str) {
    cluster.patch::<Pod>(pod, annotation(hand_over::DONE, code)).await;
}

#[tokio::test]
async fn pods_hand_over_before_they_are_taken_down() {
    let cluster = Cluster::start().await;
    let set = with(web(2, json!({})), hand_over::HAND_OVER, r#"["sh", "-c", "leave"]"#);
    cluster.create::<StatefulSet>(with(set, hand_over::SECONDS, "600")).await;
    cluster.settled("web").await;
    cluster.take_log();
    cluster.patch::<StatefulSet>("web", image("nginx:1.22")).await;
    let pod = cluster.pod_until("web-1", |pod| asked(pod).is_some()).await;
    let annotations = pod.metadata.annotations.clone().expect("annotations");
    assert_eq!(annotations[hand_over::HAND_OVER], r#"["sh", "-c", "leave"]"#, "the node is told what to run");
    // Undone: nobody needs it any more.
    cluster.patch::<StatefulSet>("web", image("nginx:1.21")).await;
    let pod = cluster.pod_until("web-1", |pod| asked(pod).is_none()).await;
    assert!(pod.metadata.annotations.as_ref().is_none_or(|all| !all.contains_key(hand_over::HAND_OVER)));
    assert_eq!(cluster.take_log(), "");
    cluster.patch::<StatefulSet>("web", image("nginx:1.23")).await;
    cluster.pod_until("web-1", |pod| asked(pod).is_some()).await;
    answer(&cluster, "web-1", "0").await;
    cluster.pod_until("web-0", |pod| asked(pod).is_some()).await;
    answer(&cluster, "web-0", "3").await;
    cluster.pod_until("web-0", |pod| image_of(pod) == "nginx:1.23").await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
    // Scaled away without an answer, in a time that is soon over.
    cluster.patch::<StatefulSet>("web", annotation(hand_over::SECONDS, "1")).await;
    cluster.patch::<StatefulSet>("web", json!({"spec": {"replicas": 1}})).await;
    pods_are(&cluster, &["web-0"]).await;
    let events = cluster.events("web", 12).await;
    for expected in [
        "Normal HandOverRequested Pod web-1 in StatefulSet web is to hand over within 600 s",
        "Normal HandedOver Pod web-1 in StatefulSet web has handed over",
        "Warning HandOverFailed Pod web-0 in StatefulSet web did not hand over: the answer is 3; it is taken down all the same",
        "Warning HandOverTimedOut Pod web-1 in StatefulSet web has not handed over within 1 s and is taken down all the same",
    ] {
        assert!(events.iter().any(|event| event == expected), "{expected}: {events:#?}");
    }
}

#[tokio::test]
async fn an_ordered_deletion_in_the_foreground_is_ordered_too() {
    let cluster = Cluster::start_with(&["garbage-collector-controller"]).await;
    cluster.create::<StatefulSet>(with(web(3, json!({})), wishes::ORDERED_DELETE, "true")).await;
    cluster.settled("web").await;
    cluster.set_until("web", wishes::is_held).await;
    cluster.take_log();
    let how = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    cluster.api::<StatefulSet>().delete("web", &how).await.expect("deleted");
    let sets = cluster.caches.of::<StatefulSet>();
    cluster.until(&sets, |sets| sets.is_empty().then_some(())).await;
    assert_eq!(cluster.take_log(), "~web-2 -web-2 ~web-1 -web-1 ~web-0 -web-0");
}

#[tokio::test]
async fn a_name_as_long_as_its_pods_can_bear_works() {
    let cluster = Cluster::start().await;
    let name = "x".repeat(61);
    let mut set = web(2, json!({}));
    set["metadata"]["name"] = name.clone().into();
    cluster.create::<StatefulSet>(set).await;
    cluster.settled(&name).await;
    cluster.patch::<StatefulSet>(&name, image("nginx:1.22")).await;
    cluster.pod_until(&format!("{name}-0"), |pod| image_of(pod) == "nginx:1.22").await;
    cluster.settled(&name).await;
}

#[tokio::test]
async fn claims_grow_with_their_templates() {
    let cluster = Cluster::start().await;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
        "provisioner": "p", "allowVolumeExpansion": true,
    });
    let classes: kube::Api<k8s_openapi::api::storage::v1::StorageClass> = kube::Api::all(cluster.client.clone());
    let class = serde_json::from_value(class).expect("a class");
    classes.create(&Default::default(), &class).await.expect("created");
    let templates = |size: &str| {
        json!([{
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "resources": {"requests": {"storage": size}},
            },
        }])
    };
    let set = web(2, json!({"volumeClaimTemplates": templates("1Gi")}));
    cluster.create::<StatefulSet>(with(set, wishes::GROW_CLAIMS, "true")).await;
    cluster.settled("web").await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    for n in 0..2 {
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        let name = format!("data-web-{n}");
        claims.patch_status(&name, &PatchParams::default(), &Patch::Merge(bound)).await.expect("bound");
    }
    let sets = cluster.api::<StatefulSet>();
    let grown = Patch::Merge(json!({"spec": {"volumeClaimTemplates": templates("2Gi")}}));
    sets.patch("web", &PatchParams::default(), &grown).await.expect("templates may grow");
    let cache = cluster.caches.of::<PersistentVolumeClaim>();
    let request = |claim: &PersistentVolumeClaim| {
        let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
        resources.and_then(|r| r.requests.as_ref()?.get("storage").cloned()).unwrap_or_default().0
    };
    cluster.until(&cache, |all| all.list().iter().all(|claim| request(claim) == "2Gi").then_some(())).await;
    let told = |set: &StatefulSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let found = conditions.iter().find(|c| c.type_.as_deref() == Some("ClaimsUpToDate"))?;
        Some(format!("{} {}", found.reason.as_deref()?, found.message.as_deref()?))
    };
    let behind = "ClaimsChanging data-web-0 has 1Gi of 2Gi; data-web-1 has 1Gi of 2Gi";
    cluster.set_until("web", |set| told(set).as_deref() == Some(behind)).await;
    for n in 0..2 {
        let grown = Patch::Merge(json!({"status": {"capacity": {"storage": "2Gi"}}}));
        claims.patch_status(&format!("data-web-{n}"), &PatchParams::default(), &grown).await.expect("grown");
    }
    let done = "ClaimsUpToDate claims that are as their templates ask: 2";
    cluster.set_until("web", |set| told(set).as_deref() == Some(done)).await;

    // A new template and new labels: pods that lack the volume are rolled, claims get the labels.
    cluster.take_log();
    let mut more = templates("2Gi");
    more[0]["metadata"]["labels"] = json!({"tier": "gold"});
    let mut log = templates("1Gi")[0].clone();
    log["metadata"]["name"] = "log".into();
    more.as_array_mut().expect("a list").push(log);
    let added = Patch::Merge(json!({"spec": {"volumeClaimTemplates": more}}));
    sets.patch("web", &PatchParams::default(), &added).await.expect("templates may be added");
    let done = "ClaimsUpToDate claims that are as their templates ask: 4";
    cluster.set_until("web", |set| told(set).as_deref() == Some(done)).await;
    cluster.settled("web").await;
    assert_eq!(cluster.take_log(), "~web-1 -web-1 +web-1 ~web-0 -web-0 +web-0");
    let labelled =
        |claim: &PersistentVolumeClaim| claim.metadata.labels.as_ref().is_some_and(|l| l.contains_key("tier"));
    let names: Vec<_> = cache.list().iter().filter(|c| labelled(c)).filter_map(|c| c.metadata.name.clone()).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    for (change, why) in [
        (
            templates("2Gi"),
            "template \"log\" cannot be removed: claims were made from it; add a template of another name",
        ),
        (
            json!([templates("1Gi")[0], more[1]]),
            "spec.volumeClaimTemplates[0].spec.resources.requests.storage: Forbidden: cannot shrink from 2Gi to 1Gi",
        ),
    ] {
        let patch = Patch::Merge(json!({"spec": {"volumeClaimTemplates": change}}));
        let refused = sets.patch("web", &PatchParams::default(), &patch).await.expect_err("refused");
        assert!(refused.to_string().contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_class_that_does_not_grow_is_told_in_the_condition() {
    let cluster = Cluster::start().await;
    let set = with(web(1, json!({})), wishes::GROW_CLAIMS, "true");
    cluster.create::<StatefulSet>(set).await;
    cluster.settled("web").await;
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    let claims = cluster.api::<PersistentVolumeClaim>();
    claims.patch_status("data-web-0", &PatchParams::default(), &Patch::Merge(bound)).await.expect("bound");
    let grown = json!([{
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    }]);
    let grown = Patch::Merge(json!({"spec": {"volumeClaimTemplates": grown}}));
    cluster.api::<StatefulSet>().patch("web", &PatchParams::default(), &grown).await.expect("templates may grow");
    let refused = |set: &StatefulSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            condition.reason.as_deref() == Some("ClaimsRefused")
                && message.starts_with("data-web-0 asks for 1Gi of 2Gi: ")
        })
    };
    cluster.set_until("web", refused).await;
}

#[tokio::test]
async fn a_strange_pod_in_the_way_is_told_and_waited_for() {
    let cluster = Cluster::start().await;
    let stranger = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    cluster.create::<Pod>(stranger).await;
    cluster.create::<StatefulSet>(web(1, json!({"volumeClaimTemplates": []}))).await;
    assert_eq!(
        cluster.events("web", 1).await[0],
        "Warning FailedCreate create Pod web-0 in StatefulSet web failed error: pods \"web-0\" already exists"
    );
    cluster.delete::<Pod>("web-0").await;
    cluster.settled("web").await;
    assert!(cluster.pods.get(NS, "web-0").expect("there").metadata.owner_references.is_some());
}
