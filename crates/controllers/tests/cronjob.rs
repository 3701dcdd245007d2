//! CronJobs against the real API server.

mod common;

use common::Cluster;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn a_job_is_started_noted_and_remembered() {
    let cluster = Cluster::start_with(&["cronjob-controller"]).await;
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {"schedule": "@every 1s", "timeZone": "Europe/Berlin", "concurrencyPolicy": "Forbid", "jobTemplate": {
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        }},
    });
    cluster.create::<CronJob>(cron).await;
    let crons = cluster.caches.of::<CronJob>();
    let active = |cron: &CronJob| {
        let active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
        active.first().and_then(|one| one.name.clone())
    };
    let name = cluster.until(&crons, |crons| crons.list().iter().find_map(|cron| active(cron))).await;
    assert!(name.starts_with("tick-"), "{name}");
    cluster.patch::<CronJob>("tick", json!({"spec": {"suspend": true}})).await;
    let jobs = cluster.caches.of::<Job>();
    let job = cluster.until(&jobs, |jobs| jobs.get(common::NS, &name)).await;
    assert_eq!(job.metadata.owner_references.as_ref().expect("an owner")[0].name, "tick");
    // The Job's own controller is not asked: its pod succeeds.
    let pod = cluster.until(&cluster.pods, |pods| pods.list().first().cloned()).await;
    let pod = pod.metadata.name.clone().expect("a name");
    let done = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    let api = cluster.api::<k8s_openapi::api::core::v1::Pod>();
    api.patch_status(&pod, &PatchParams::default(), &done).await.expect("done");
    let over = |cron: &CronJob| {
        let status = cron.status.clone().unwrap_or_default();
        status.active.is_none() && status.last_successful_time.is_some()
    };
    cluster.until(&crons, |crons| crons.list().iter().any(|cron| over(cron)).then_some(())).await;
    let events = cluster.events("tick", 2).await;
    assert!(events.contains(&format!("Normal SuccessfulCreate Created job {name}")), "{events:?}");
    assert!(
        events.contains(&format!("Normal SawCompletedJob Saw completed job: {name}, condition: Complete")),
        "{events:?}"
    );
}
