//! Defaults of StatefulSet, Deployment, ReplicaSet, DaemonSet, ReplicationController.

use serde_json::{Value, json};

use super::{labels_from_template, made, pod, storage, with};
use crate::view::{Fill, View};

const HISTORY: i64 = 10;
const PROGRESS_SECONDS: i64 = 600;

pub(super) fn stateful_set(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill("podManagementPolicy", "OrderedReady");
    if let Some(strategy) = made(spec, "updateStrategy") {
        if strategy.text("type").is_empty() {
            strategy.put("type", "RollingUpdate");
            strategy.fill_null("rollingUpdate", json!({}));
        }
        if strategy.text("type") == "RollingUpdate" {
            with(strategy, "rollingUpdate", |rolling| {
                rolling.fill_null("partition", 0);
                rolling.fill_null("maxUnavailable", 1);
            });
        }
    }
    if let Some(retention) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        retention.fill("whenDeleted", "Retain");
        retention.fill("whenScaled", "Retain");
    }
    spec.fill_null("replicas", 1);
    spec.fill_null("revisionHistoryLimit", HISTORY);
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
    for claim in spec.items_mut("volumeClaimTemplates") {
        claim.fill("apiVersion", "v1");
        claim.fill("kind", "PersistentVolumeClaim");
        with(claim, "metadata", |metadata| metadata.drop_key("creationTimestamp"));
        storage::claim(claim);
        claim.put("status", json!({"phase": "Pending"}));
    }
}

pub(super) fn deployment(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill_null("replicas", 1);
    if let Some(strategy) = made(spec, "strategy") {
        strategy.fill("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            rolling.fill_null("maxUnavailable", "25%");
            rolling.fill_null("maxSurge", "25%");
        }
    }
    spec.fill_null("revisionHistoryLimit", HISTORY);
    spec.fill_null("progressDeadlineSeconds", PROGRESS_SECONDS);
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    spec.fill_null("replicas", 1);
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
}

pub(super) fn daemon_set(object: &mut Value) {
    let Some(spec) = made(object, "spec") else { return };
    if let Some(strategy) = made(spec, "updateStrategy") {
        strategy.fill("type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            rolling.fill_null("maxUnavailable", 1);
            rolling.fill_null("maxSurge", 0);
        }
    }
    spec.fill_null("revisionHistoryLimit", HISTORY);
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
}

pub(super) fn replication_controller(object: &mut Value) {
    let labels = object.at("spec.template.metadata.labels").clone();
    let Some(spec) = made(object, "spec") else { return };
    spec.fill_null("replicas", 1);
    if spec.entries("selector").is_empty() && labels.is_object() {
        spec.put("selector", labels);
    }
    if let Some(template) = made(spec, "template") {
        pod::template(template);
    }
    labels_from_template(object);
}
