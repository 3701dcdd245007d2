//! The pages of StatefulSets, Deployments, ReplicaSets, DaemonSets, Jobs, CronJobs and disruption budgets.

use serde_json::Value;

use super::{Page, Related, or_none, selector_text, template};
use crate::print::{at, int, list};

/// `2 Running / 1 Waiting / 0 Succeeded / 0 Failed`
fn pods_status(pods: &[Value]) -> String {
    let count = |phase: &str| pods.iter().filter(|pod| at(pod, "/status/phase") == phase).count();
    format!(
        "{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed")
    )
}

/// A StatefulSet.
pub(super) fn stateful_set(page: &mut Page, set: &Value, related: &Related) {
    page.field(0, "Name", at(set, "/metadata/name"));
    page.field(0, "Namespace", at(set, "/metadata/namespace"));
    page.field(0, "CreationTimestamp", &super::time(&set["metadata"]["creationTimestamp"]));
    page.field(0, "Selector", &selector_text(&set["spec"]["selector"]));
    page.labels("Labels", &set["metadata"]["labels"]);
    page.annotations("Annotations", &set["metadata"]["annotations"]);
    page.field(
        0,
        "Replicas",
        &format!("{} desired | {} total", int(set, "/spec/replicas"), int(set, "/status/replicas")),
    );
    let strategy = &set["spec"]["updateStrategy"];
    page.field(0, "Update Strategy", at(strategy, "/type"));
    if let Some(rolling) = strategy.get("rollingUpdate")
        && let Some(partition) = rolling["partition"].as_i64()
    {
        page.field(1, "Partition", &partition.to_string());
        if !rolling["maxUnavailable"].is_null() {
            page.field(1, "MaxUnavailable", &crate::print::go_text(&rolling["maxUnavailable"]));
        }
    }
    page.field(0, "Pods Status", &pods_status(&related.pods));
    template::describe(page, &set["spec"]["template"]);
    claims(page, set);
}

fn claims(page: &mut Page, set: &Value) {
    let templates = list(set, "/spec/volumeClaimTemplates");
    if templates.is_empty() {
        return page.line(0, "Volume Claims:\t<none>");
    }
    page.line(0, "Volume Claims:");
    for claim in templates {
        page.field(1, "Name", at(claim, "/metadata/name"));
        page.field(1, "StorageClass", at(claim, "/spec/storageClassName"));
        page.labels("  Labels", &claim["metadata"]["labels"]);
        page.annotations("  Annotations", &claim["metadata"]["annotations"]);
        let capacity = at(claim, "/spec/resources/requests/storage");
        page.field(1, "Capacity", if capacity.is_empty() { "<default>" } else { capacity });
        let modes: Vec<&str> = list(claim, "/spec/accessModes").iter().filter_map(Value::as_str).collect();
        page.field(1, "Access Modes", &format!("[{}]", modes.join(" ")));
    }
}

/// A Deployment.
pub(super) fn deployment(page: &mut Page, deployment: &Value, related: &Related) {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    page.field(0, "Name", at(deployment, "/metadata/name"));
    page.field(0, "Namespace", at(deployment, "/metadata/namespace"));
    page.field(0, "CreationTimestamp", &super::time(&deployment["metadata"]["creationTimestamp"]));
    page.labels("Labels", &deployment["metadata"]["labels"]);
    page.annotations("Annotations", &deployment["metadata"]["annotations"]);
    page.field(0, "Selector", &selector_text(&spec["selector"]));
    page.field(
        0,
        "Replicas",
        &format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            int(spec, "/replicas"),
            int(status, "/updatedReplicas"),
            int(status, "/replicas"),
            int(status, "/availableReplicas"),
            int(status, "/unavailableReplicas")
        ),
    );
    page.field(0, "StrategyType", at(spec, "/strategy/type"));
    page.field(0, "MinReadySeconds", &int(spec, "/minReadySeconds").to_string());
    if let Some(rolling) = spec["strategy"].get("rollingUpdate") {
        let text = |value: &Value| crate::print::go_text(value);
        let shown =
            format!("{} max unavailable, {} max surge", text(&rolling["maxUnavailable"]), text(&rolling["maxSurge"]));
        page.field(0, "RollingUpdateStrategy", &shown);
    }
    template::describe(page, &spec["template"]);
    conditions(page, status);
    let current = current_set(deployment, &related.replica_sets);
    let named = |set: &Value| {
        format!(
            "{} ({}/{} replicas created)",
            at(set, "/metadata/name"),
            int(set, "/status/replicas"),
            int(set, "/spec/replicas")
        )
    };
    let old: Vec<String> = related
        .replica_sets
        .iter()
        .filter(|set| current.is_none_or(|current| current["metadata"]["uid"] != set["metadata"]["uid"]))
        .map(named)
        .collect();
    page.field(0, "OldReplicaSets", or_none(&old.join(", ")));
    page.field(0, "NewReplicaSet", &current.map_or("<none>".to_owned(), named));
}

/// The ReplicaSet with the Deployment's present template.
fn current_set<'s>(deployment: &Value, sets: &'s [Value]) -> Option<&'s Value> {
    sets.iter().find(|set| {
        let mut template = set["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        template == deployment["spec"]["template"]
    })
}

fn conditions(page: &mut Page, status: &Value) {
    let conditions = list(status, "/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus\tReason");
    page.line(1, "----\t------\t------");
    for condition in conditions {
        page.line(
            1,
            &format!("{} \t{}\t{}", at(condition, "/type"), at(condition, "/status"), at(condition, "/reason")),
        );
    }
}

/// A ReplicaSet.
pub(super) fn replica_set(page: &mut Page, set: &Value, related: &Related) {
    page.field(0, "Name", at(set, "/metadata/name"));
    page.field(0, "Namespace", at(set, "/metadata/namespace"));
    page.field(0, "Selector", &selector_text(&set["spec"]["selector"]));
    page.labels("Labels", &set["metadata"]["labels"]);
    page.annotations("Annotations", &set["metadata"]["annotations"]);
    page.controller(set);
    page.field(
        0,
        "Replicas",
        &format!("{} current / {} desired", int(set, "/status/replicas"), int(set, "/spec/replicas")),
    );
    page.field(0, "Pods Status", &pods_status(&related.pods));
    template::describe(page, &set["spec"]["template"]);
    conditions(page, &set["status"]);
}

/// A DaemonSet.
pub(super) fn daemon_set(page: &mut Page, set: &Value, related: &Related) {
    let status = &set["status"];
    page.field(0, "Name", at(set, "/metadata/name"));
    page.field(0, "Selector", &selector_text(&set["spec"]["selector"]));
    let nodes = crate::print::pairs(&set["spec"]["template"]["spec"]["nodeSelector"]).join(",");
    page.field(0, "Node-Selector", or_none(&nodes));
    page.labels("Labels", &set["metadata"]["labels"]);
    page.annotations("Annotations", &set["metadata"]["annotations"]);
    for (name, pointer) in [
        ("Desired Number of Nodes Scheduled", "/desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "/currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "/updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "/numberAvailable"),
        ("Number of Nodes Misscheduled", "/numberMisscheduled"),
    ] {
        page.line(0, &format!("{name}: {}", int(status, pointer)));
    }
    page.field(0, "Pods Status", &pods_status(&related.pods));
    template::describe(page, &set["spec"]["template"]);
}

/// A Job.
pub(super) fn job(page: &mut Page, job: &Value) {
    let (spec, status) = (&job["spec"], &job["status"]);
    page.field(0, "Name", at(job, "/metadata/name"));
    page.field(0, "Namespace", at(job, "/metadata/namespace"));
    page.field(0, "Selector", &selector_text(&spec["selector"]));
    page.labels("Labels", &job["metadata"]["labels"]);
    page.annotations("Annotations", &job["metadata"]["annotations"]);
    page.controller(job);
    let number = |value: &Value| value.as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
    page.field(0, "Parallelism", &number(&spec["parallelism"]));
    page.field(0, "Completions", &number(&spec["completions"]));
    for (name, pointer) in [("Completion Mode", "/completionMode")] {
        if !at(spec, pointer).is_empty() {
            page.field(0, name, at(spec, pointer));
        }
    }
    if let Some(suspend) = spec["suspend"].as_bool() {
        page.field(0, "Suspend", &suspend.to_string());
    }
    if let Some(limit) = spec["backoffLimit"].as_i64() {
        page.field(0, "Backoff Limit", &limit.to_string());
    }
    if let Some(seconds) = spec["ttlSecondsAfterFinished"].as_i64() {
        page.field(0, "TTL Seconds After Finished", &seconds.to_string());
    }
    for (name, field) in [("Start Time", "startTime"), ("Completed At", "completionTime")] {
        if status[field].is_string() {
            page.field(0, name, &super::time(&status[field]));
        }
    }
    let time = |field: &str| stead_machinery::time::parse(&status[field]);
    if let (Some(from), Some(to)) = (time("startTime"), time("completionTime")) {
        page.field(0, "Duration", &stead_machinery::time::between(from, to));
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64() {
        page.field(0, "Active Deadline Seconds", &format!("{seconds}s"));
    }
    let ready = status["ready"].as_i64().map_or(String::new(), |ready| format!(" ({ready} Ready)"));
    page.field(
        0,
        "Pods Statuses",
        &format!(
            "{} Active{ready} / {} Succeeded / {} Failed",
            int(status, "/active"),
            int(status, "/succeeded"),
            int(status, "/failed")
        ),
    );
    if at(spec, "/completionMode") == "Indexed" {
        page.field(0, "Completed Indexes", or_none(at(status, "/completedIndexes")));
    }
    template::describe(page, &spec["template"]);
}

/// A CronJob.
pub(super) fn cron_job(page: &mut Page, cron: &Value) {
    let spec = &cron["spec"];
    page.field(0, "Name", at(cron, "/metadata/name"));
    page.field(0, "Namespace", at(cron, "/metadata/namespace"));
    page.labels("Labels", &cron["metadata"]["labels"]);
    page.annotations("Annotations", &cron["metadata"]["annotations"]);
    page.field(0, "Schedule", at(spec, "/schedule"));
    page.field(0, "Concurrency Policy", at(spec, "/concurrencyPolicy"));
    let suspended = match spec["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    page.field(0, "Suspend", suspended);
    let or_unset = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
    let number = |value: &Value, unit: &str| or_unset(value.as_i64().map_or(String::new(), |n| format!("{n}{unit}")));
    page.field(0, "Time Zone", &or_unset(at(spec, "/timeZone").to_owned()));
    page.field(0, "Successful Job History Limit", &number(&spec["successfulJobsHistoryLimit"], ""));
    page.field(0, "Failed Job History Limit", &number(&spec["failedJobsHistoryLimit"], ""));
    page.field(0, "Starting Deadline Seconds", &number(&spec["startingDeadlineSeconds"], "s"));
    let job = &spec["jobTemplate"]["spec"];
    let selector = if job["selector"].is_null() { "<unset>".to_owned() } else { selector_text(&job["selector"]) };
    page.field(0, "Selector", &selector);
    page.field(0, "Parallelism", &number(&job["parallelism"], ""));
    page.field(0, "Completions", &number(&job["completions"], ""));
    if let Some(seconds) = job["activeDeadlineSeconds"].as_i64() {
        page.field(0, "Active Deadline Seconds", &format!("{seconds}s"));
    }
    template::describe(page, &job["template"]);
    page.field(0, "Last Schedule Time", &super::time(&cron["status"]["lastScheduleTime"]));
    let active: Vec<&str> = list(cron, "/status/active").iter().map(|job| at(job, "/name")).collect();
    page.field(0, "Active Jobs", or_none(&active.join(", ")));
}

/// A ReplicationController.
pub(super) fn replication_controller(page: &mut Page, controller: &Value, related: &Related) {
    page.field(0, "Name", at(controller, "/metadata/name"));
    page.field(0, "Namespace", at(controller, "/metadata/namespace"));
    page.field(0, "Selector", or_none(&crate::print::pairs(&controller["spec"]["selector"]).join(",")));
    page.labels("Labels", &controller["metadata"]["labels"]);
    page.annotations("Annotations", &controller["metadata"]["annotations"]);
    let (now, wanted) = (int(controller, "/status/replicas"), int(controller, "/spec/replicas"));
    page.field(0, "Replicas", &format!("{now} current / {wanted} desired"));
    page.field(0, "Pods Status", &pods_status(&related.pods));
    template::describe(page, &controller["spec"]["template"]);
    conditions(page, &controller["status"]);
}

/// A PodDisruptionBudget.
pub(super) fn disruption_budget(page: &mut Page, budget: &Value) {
    page.field(0, "Name", at(budget, "/metadata/name"));
    page.field(0, "Namespace", at(budget, "/metadata/namespace"));
    let (spec, status) = (&budget["spec"], &budget["status"]);
    if !spec["minAvailable"].is_null() {
        page.field(0, "Min available", &crate::print::go_text(&spec["minAvailable"]));
    } else if !spec["maxUnavailable"].is_null() {
        page.field(0, "Max unavailable", &crate::print::go_text(&spec["maxUnavailable"]));
    }
    let selector = selector_text(&spec["selector"]);
    page.field(0, "Selector", if spec["selector"].is_null() { "<unset>" } else { or_none(&selector) });
    page.line(0, "Status:");
    for (name, pointer) in [
        ("Allowed disruptions", "/disruptionsAllowed"),
        ("Current", "/currentHealthy"),
        ("Desired", "/desiredHealthy"),
        ("Total", "/expectedPods"),
    ] {
        page.field(2, name, &int(status, pointer).to_string());
    }
}
