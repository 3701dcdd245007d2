//! Names in DNS: the Service of a set, and any Service without endpoints.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use stead_workloads::pod::is_ready;

use crate::finding::{Finding, Report};
use crate::mend::{create, quoted};
use crate::snapshot::{Lookup, Snapshot, name};

type Labels = BTreeMap<String, String>;

pub(crate) fn report(snapshot: &Snapshot, service: &Service) -> Report {
    let selector = selector(service);
    let chosen: Vec<&Pod> = snapshot.pods.values().filter(|pod| selects(&selector, &labels(pod))).collect();
    let ready = chosen.iter().filter(|pod| is_ready(pod)).count();
    let object = format!("service/{}", name(&service.metadata));
    let mut findings = Vec::new();
    if selector.is_empty() {
        findings.push(Finding::new("NoSelector", &object, "it has no selector: its endpoints are made by hand").note());
    } else if chosen.is_empty() && snapshot.pods.is_known() {
        let known: Vec<String> = snapshot
            .pods
            .values()
            .take(5)
            .map(|pod| format!("{} {}", name(&pod.metadata), shown(&labels(pod))))
            .collect();
        findings.push(
            Finding::new("SelectsNothing", &object, "it selects no pod: its name resolves to nothing")
                .seen("spec.selector", shown(&selector))
                .seen("pods", if known.is_empty() { "there are none".to_owned() } else { known.join("\n") })
                .mended_by("give it the labels of the pods that it is for", select(snapshot, service, None)),
        );
    }
    let publishes = publishes(service);
    let sick = chosen.iter().filter(|pod| !is_ready(pod) && !publishes);
    findings.extend(sick.filter_map(|pod| crate::pod::state(snapshot, pod)));
    Report { object, headline: format!("{ready} of {} pods behind it are Ready", chosen.len()), findings }
}

/// Whether the names of the set's pods resolve.
pub(crate) fn of_set(snapshot: &Snapshot, set: &StatefulSet) -> Option<Finding> {
    let service = set.spec.service_name.as_deref().filter(|name| !name.is_empty());
    let wanted = set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let Some(service) = service else {
        let object = format!("statefulset/{}", name(&set.metadata));
        return Some(
            Finding::new("NoServiceName", object, "it names no Service: its pods have no names in DNS").note(),
        );
    };
    match snapshot.services.get(service) {
        Lookup::Unknown => None,
        Lookup::Absent => Some(missing(snapshot, set, service, &wanted)),
        Lookup::Found(found) => wrong_selector(snapshot, found, &wanted).or_else(|| not_headless(found)),
    }
}

fn missing(snapshot: &Snapshot, set: &StatefulSet, service: &str, wanted: &Labels) -> Finding {
    let object = format!("service/{service}");
    let like = snapshot.services.values().find(|other| is_headless(other) && selects(&selector(other), wanted));
    let made = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": service},
        "spec": {"clusterIP": "None", "selector": wanted, "ports": ports(set, like)},
    });
    let command = create(&snapshot.kubectl(), &made);
    match like {
        Some(like) => {
            let like = name(&like.metadata);
            Finding::new(
                "WrongServiceName",
                object,
                format!("the set's serviceName is {service:?}, which does not exist; the headless Service of its pods is {like:?}: their names do not resolve"),
            )
            .seen(format!("statefulset/{} spec.serviceName", name(&set.metadata)), service)
            .seen(format!("service/{like} spec.selector"), shown(wanted))
            .mended_by(format!("create a Service {service:?} (serviceName cannot be changed; the set would have to be made anew)"), command)
        }
        None => Finding::new(
            "ServiceMissing",
            object,
            "the headless Service of the set does not exist: its pods run, but their DNS names do not resolve",
        )
        .seen(format!("statefulset/{} spec.serviceName", name(&set.metadata)), service)
        .mended_by(format!("create the Service {service}"), command),
    }
}

/// The ports of the Service that is like it, or those that the containers name; empty for none, which a headless Service may have.
fn ports(set: &StatefulSet, like: Option<&Service>) -> Value {
    if let Some(ports) = like.and_then(|like| like.spec.as_ref()?.ports.clone()) {
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| json!({"name": port.name, "port": port.port, "protocol": port.protocol});
        return ports.iter().map(port).map(without_nulls).collect();
    }
    let containers = set.spec.template.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.map(|port| without_nulls(json!({"name": port.name.clone().unwrap_or_else(|| format!("p{}", port.container_port)), "port": port.container_port, "protocol": port.protocol}))).collect()
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

fn wrong_selector(snapshot: &Snapshot, service: &Service, wanted: &Labels) -> Option<Finding> {
    let selector = selector(service);
    if selects(&selector, wanted) {
        return None;
    }
    let object = format!("service/{}", name(&service.metadata));
    let finding = Finding::new(
        "WrongSelector",
        object,
        "the Service selects none of the set's pods: their DNS names do not resolve",
    )
    .seen("spec.selector", if selector.is_empty() { "(none)".to_owned() } else { shown(&selector) })
    .seen("labels of the pods", shown(wanted));
    Some(finding.mended_by("let it select them", select(snapshot, service, Some(wanted))))
}

fn not_headless(service: &Service) -> Option<Finding> {
    if is_headless(service) {
        return None;
    }
    let object = format!("service/{}", name(&service.metadata));
    let what = "it is not headless: its own name leads to one address for all pods; the names of the pods resolve all the same";
    Some(Finding::new("NotHeadless", object, what).seen("spec.clusterIP", cluster_ip(service)).note())
}

/// The command that changes what a Service selects.
fn select(snapshot: &Snapshot, service: &Service, wanted: Option<&Labels>) -> String {
    let value = wanted.map_or_else(|| json!({"KEY": "VALUE"}), |labels| json!(labels));
    let patch = json!([{"op": "add", "path": "/spec/selector", "value": value}]);
    format!(
        "{} patch service {} --type=json -p {}",
        snapshot.kubectl(),
        name(&service.metadata),
        quoted(&patch.to_string())
    )
}

/// Whether the names of pods that are not Ready resolve as well.
pub(crate) fn publishes(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

fn is_headless(service: &Service) -> bool {
    cluster_ip(service) == "None"
}

fn cluster_ip(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default()
}

fn selector(service: &Service) -> Labels {
    service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default()
}

fn labels(pod: &Pod) -> Labels {
    pod.metadata.labels.clone().unwrap_or_default()
}

fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// `app=web,tier=db`.
pub(crate) fn shown(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
