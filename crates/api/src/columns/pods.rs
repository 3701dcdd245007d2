//! The table of pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age, condition_is_true, container_cells, flag, int, is_deleted, items, labels, name, text, text_or};
use crate::Kind;

/// The conditions of a table's row: a pod that has ended says so, and `kubectl` can leave it out.
#[must_use]
pub fn row_conditions(kind: &Kind, object: &Value) -> Vec<Value> {
    if kind.kind != "Pod" {
        return Vec::new();
    }
    let completed = |reason: &str, message: &str| {
        vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    };
    match text(&object["status"]["phase"]) {
        "Succeeded" => completed("Succeeded", "The pod has completed successfully."),
        "Failed" => completed("Failed", "The pod failed."),
        _ => Vec::new(),
    }
}

/// What the columns Ready, Status and Restarts sum up.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += int(&container["restartCount"]);
        let ended = age::parse(&container["lastState"]["terminated"]["finishedAt"]);
        self.last_restart = self.last_restart.max(ended);
    }
}

pub(crate) fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(object);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => format!("{} ({} ago)", summary.restarts, age::between(last, now)),
        _ => summary.restarts.to_string(),
    };
    let (spec, status) = (&object["spec"], &object["status"]);
    let ip = items(&status["podIPs"]).first().map_or(&status["podIP"], |ip| &ip["ip"]);
    vec![
        name(object),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(object, now),
        text_or(ip, "<none>").into(),
        text_or(&spec["nodeName"], "<none>").into(),
        text_or(&status["nominatedNodeName"], "<none>").into(),
        readiness_gates(spec, status).into(),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = items(&spec["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition_is_true(&status["conditions"], text(&gate["conditionType"])));
    format!("{}/{}", open.count(), gates.len())
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = items(&spec["initContainers"]).iter().filter(|c| is_sidecar(c)).count();
    let mut summary = Summary {
        reason: text_or(&status["reason"], text(&status["phase"])).to_owned(),
        ready: 0,
        total: items(&spec["containers"]).len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if items(&status["conditions"]).iter().any(gated) {
        "SchedulingGated".clone_into(&mut summary.reason);
    }
    let initializing = init_containers(spec, status, &mut summary);
    if !initializing || condition_is_true(&status["conditions"], "Initialized") {
        containers(spec, status, &mut summary);
    }
    let ended = matches!(text(&status["phase"]), "Succeeded" | "Failed");
    if is_deleted(pod) && status["reason"] == "NodeLost" {
        "Unknown".clone_into(&mut summary.reason);
    } else if is_deleted(pod) && !ended {
        "Terminating".clone_into(&mut summary.reason);
    }
    summary
}

/// An init container that goes on beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn sidecar_named(spec: &Value, name: &Value) -> bool {
    items(&spec["initContainers"]).iter().any(|c| c["name"] == *name && is_sidecar(c))
}

/// Looks at the init containers up to the first that is not done; true when there is one.
fn init_containers(spec: &Value, status: &Value, summary: &mut Summary) -> bool {
    for (index, container) in items(&status["initContainerStatuses"]).iter().enumerate() {
        summary.count_restarts(container);
        let (ended, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if !ended.is_null() && int(&ended["exitCode"]) == 0 {
            continue;
        }
        if sidecar_named(spec, &container["name"]) && flag(&container["started"]) {
            summary.ready += usize::from(flag(&container["ready"]));
            continue;
        }
        let why = text(&waiting["reason"]);
        summary.reason = if !ended.is_null() {
            format!("Init:{}", end_of(ended))
        } else if !why.is_empty() && why != "PodInitializing" {
            format!("Init:{why}")
        } else {
            format!("Init:{index}/{}", items(&spec["initContainers"]).len())
        };
        return true;
    }
    false
}

/// How a container ended: its reason, or else its signal or exit code.
fn end_of(ended: &Value) -> String {
    match (text(&ended["reason"]), int(&ended["signal"])) {
        ("", 0) => format!("ExitCode:{}", int(&ended["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Looks at the containers, the first one's state weighing most; restarts of plain init containers do not count any more.
fn containers(spec: &Value, status: &Value, summary: &mut Summary) {
    (summary.restarts, summary.last_restart) = (0, None);
    for container in items(&status["initContainerStatuses"]) {
        if sidecar_named(spec, &container["name"]) {
            summary.count_restarts(container);
        }
    }
    let mut running = false;
    for container in items(&status["containerStatuses"]).iter().rev() {
        summary.count_restarts(container);
        let state = &container["state"];
        let why = text(&state["waiting"]["reason"]);
        if !why.is_empty() {
            why.clone_into(&mut summary.reason);
        } else if !state["terminated"].is_null() {
            summary.reason = end_of(&state["terminated"]);
        } else if flag(&container["ready"]) && !state["running"].is_null() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let ready = condition_is_true(&status["conditions"], "Ready");
        (if ready { "Running" } else { "NotReady" }).clone_into(&mut summary.reason);
    }
}

pub(crate) fn pod_template(object: &Value, _now: Timestamp) -> Vec<Value> {
    let template = &object["template"];
    let [names, images] = container_cells(&template["spec"]);
    vec![name(object), names, images, labels(&template["metadata"]["labels"]).into()]
}
