//! What strategies generate: a Job's selector, a DaemonSet's template generation, a Namespace's finalizer.

use serde_json::{Value, json};

use crate::context::Context;
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
            before.saturating_add(i64::from(!same(set.at("spec.template"), old.at("spec.template"))))
        }
    };
    if let Some(annotations) = set.object("metadata.annotations") {
        annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string().into());
    }
}

/// `DefaultIngressClass`: an Ingress that names no class gets the newest default, when there is one.
pub(super) fn default_ingress_class(ingress: &mut Value, ctx: &Context<'_>) {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    const OLD: &str = "kubernetes.io/ingress.class";
    if ingress.has("spec.ingressClassName") || ingress.at("metadata.annotations").get(OLD).is_some() {
        return;
    }
    let all = ctx.lookup.list("networking.k8s.io", "ingressclasses", None);
    let default = |class: &&std::sync::Arc<Value>| {
        class.at("metadata.annotations").get(DEFAULT).and_then(Value::as_str) == Some("true")
    };
    let newest = all.iter().filter(default).max_by_key(|class| class.text("metadata.creationTimestamp").to_owned());
    if let (Some(class), Some(spec)) = (newest, ingress.at_mut("spec")) {
        spec.put("ingressClassName", class.text("metadata.name"));
    }
}

/// A new namespace is emptied by the system before it goes.
pub(super) fn namespace_finalizer(namespace: &mut Value) {
    let there = namespace.items("spec.finalizers").iter().any(|f| f.as_str() == Some("kubernetes"));
    if !there && let Some(spec) = namespace.at_mut("spec") {
        super::pod::push(spec, "finalizers", "kubernetes".into());
    }
}
