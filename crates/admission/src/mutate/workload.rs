//! What strategies generate: a Job's selector, a DaemonSet's template generation, a Namespace's finalizer.

use serde_json::{Value, json};

use crate::view::{Fill, View, same};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A Job without a manual selector selects its pods by its own UID. The labels without a domain are the old names.
pub(super) fn job_selector(job: &mut Value) {
    if job.flag("spec.manualSelector") == Some(true) {
        return;
    }
    let uid = job.text("metadata.uid").to_owned();
    let name = job.text("metadata.name").to_owned();
    if let Some(labels) = job.object("spec.template.metadata.labels") {
        for (key, value) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            labels.entry(key).or_insert_with(|| json!(value));
        }
    }
    if !job.has("spec.selector")
        && let Some(spec) = job.at_mut("spec")
    {
        spec.put("selector", json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    }
    let labels = job.at("spec.template.metadata.labels").clone();
    if job.entries("metadata.labels").is_empty()
        && let Some(metadata) = job.object("metadata")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

/// Counts the changes of a DaemonSet's template in an annotation.
pub(super) fn template_generation(set: &mut Value, old: Option<&Value>) {
    let generation = match old {
        None => 1,
        Some(old) => {
            let before: i64 = old
                .at("metadata.annotations")
                .get(TEMPLATE_GENERATION)
                .and_then(|g| g.as_str()?.parse().ok())
                .unwrap_or(1);
            before + i64::from(!same(set.at("spec.template"), old.at("spec.template")))
        }
    };
    if let Some(annotations) = set.object("metadata.annotations") {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

/// A new namespace is emptied by the system before it goes.
pub(super) fn namespace_finalizer(namespace: &mut Value) {
    let there = namespace.items("spec.finalizers").iter().any(|f| f.as_str() == Some("kubernetes"));
    if !there && let Some(spec) = namespace.at_mut("spec") {
        super::pod::push(spec, "finalizers", "kubernetes".into());
    }
}
