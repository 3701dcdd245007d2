//! The page of a pod.

use serde_json::Value;

use super::template::{containers, tolerations, topology, volumes};
use super::{Page, Related, or_none};
use crate::print::{at, int, list};

/// Writes it.
pub(super) fn describe(page: &mut Page, pod: &Value, related: &Related) {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    page.field(0, "Name", at(pod, "/metadata/name"));
    page.field(0, "Namespace", at(pod, "/metadata/namespace"));
    if spec["priority"].is_i64() {
        page.field(0, "Priority", &int(spec, "/priority").to_string());
    }
    for (name, pointer) in [
        ("Priority Class Name", "/priorityClassName"),
        ("Runtime Class Name", "/runtimeClassName"),
        ("Service Account", "/serviceAccountName"),
    ] {
        if !at(spec, pointer).is_empty() {
            page.field(0, name, at(spec, pointer));
        }
    }
    match at(spec, "/nodeName") {
        "" => page.field(0, "Node", "<none>"),
        node => page.field(0, "Node", &format!("{node}/{}", at(status, "/hostIP"))),
    }
    if status["startTime"].is_string() {
        page.field(0, "Start Time", &super::time(&status["startTime"]));
    }
    page.labels("Labels", &pod["metadata"]["labels"]);
    page.annotations("Annotations", &pod["metadata"]["annotations"]);
    phase(page, pod, related);
    addresses(page, status);
    page.controller(pod);
    if !at(status, "/nominatedNodeName").is_empty() {
        page.field(0, "NominatedNodeName", at(status, "/nominatedNodeName"));
    }
    if !list(spec, "/initContainers").is_empty() {
        containers(page, "Init Containers", spec, "initContainers", Some(pod), "");
    }
    containers(page, "Containers", spec, "containers", Some(pod), "");
    if !list(spec, "/ephemeralContainers").is_empty() {
        containers(page, "Ephemeral Containers", spec, "ephemeralContainers", Some(pod), "");
    }
    gates_and_conditions(page, spec, status);
    volumes(page, spec, "");
    let class = at(status, "/qosClass");
    page.field(0, "QoS Class", if class.is_empty() { "BestEffort" } else { class });
    page.labels("Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, "Tolerations", spec);
    topology(page, spec, "");
}

fn phase(page: &mut Page, pod: &Value, related: &Related) {
    let status = &pod["status"];
    let deleted = &pod["metadata"]["deletionTimestamp"];
    let finished = matches!(at(status, "/phase"), "Succeeded" | "Failed");
    if deleted.is_string() && !finished {
        let since = stead_machinery::time::since(deleted, related.now);
        page.field(0, "Status", &format!("Terminating (lasts {since})"));
        let grace = int(pod, "/metadata/deletionGracePeriodSeconds");
        page.field(0, "Termination Grace Period", &format!("{grace}s"));
    } else {
        page.field(0, "Status", at(status, "/phase"));
    }
    for (name, pointer) in [("Reason", "/reason"), ("Message", "/message")] {
        if !at(status, pointer).is_empty() {
            page.field(0, name, at(status, pointer));
        }
    }
    let seccomp = &pod["spec"]["securityContext"]["seccompProfile"];
    if seccomp.is_object() {
        page.field(0, "SeccompProfile", at(seccomp, "/type"));
        if at(seccomp, "/type") == "Localhost" {
            page.field(0, "LocalhostProfile", at(seccomp, "/localhostProfile"));
        }
    }
}

fn addresses(page: &mut Page, status: &Value) {
    page.field(0, "IP", at(status, "/podIP"));
    let addresses = list(status, "/podIPs");
    if addresses.is_empty() {
        return page.field(0, "IPs", "<none>");
    }
    page.line(0, "IPs:");
    for address in addresses {
        page.field(1, "IP", at(address, "/ip"));
    }
}

fn gates_and_conditions(page: &mut Page, spec: &Value, status: &Value) {
    let conditions = list(status, "/conditions");
    let gates = list(spec, "/readinessGates");
    if !gates.is_empty() {
        page.line(0, "Readiness Gates:");
        page.line(1, "Type\tStatus");
        for gate in gates {
            let found = conditions.iter().find(|c| c["type"] == gate["conditionType"]);
            let value = found.map_or("", |c| at(c, "/status"));
            page.line(1, &format!("{} \t{} ", at(gate, "/conditionType"), or_none(value)));
        }
    }
    if !conditions.is_empty() {
        page.line(0, "Conditions:");
        page.line(1, "Type\tStatus");
        for condition in conditions {
            page.line(1, &format!("{} \t{} ", at(condition, "/type"), at(condition, "/status")));
        }
    }
}
