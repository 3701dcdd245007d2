//! The tables of workloads: sets, deployments, jobs, autoscalers, budgets, revisions.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    age, condition_is_true, container_cells, count, int, is_deleted, items, labels, name, selector, selector_or_none,
    shown, text, text_or,
};

fn ready_of(object: &Value) -> Value {
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    format!("{}/{wanted}", int(&object["status"]["readyReplicas"])).into()
}

pub(crate) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let [names, images] = container_cells(&object["spec"]["template"]["spec"]);
    vec![name(object), ready_of(object), age(object, now), names, images]
}

pub(crate) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    vec![
        name(object),
        ready_of(object),
        int(&status["updatedReplicas"]).into(),
        int(&status["availableReplicas"]).into(),
        age(object, now),
        names,
        images,
        selector(&spec["selector"]).unwrap_or_else(|| "<invalid>".to_owned()).into(),
    ]
}

fn replicas(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    vec![
        name(object),
        spec["replicas"].as_i64().unwrap_or(1).into(),
        int(&status["replicas"]).into(),
        int(&status["readyReplicas"]).into(),
        age(object, now),
        names,
        images,
        selector.into(),
    ]
}

pub(crate) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, selector_or_none(&object["spec"]["selector"]))
}

pub(crate) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, labels(&object["spec"]["selector"]))
}

pub(crate) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = container_cells(&spec["template"]["spec"]);
    let number = |field: &str| Value::from(int(&status[field]));
    vec![
        name(object),
        number("desiredNumberScheduled"),
        number("currentNumberScheduled"),
        number("numberReady"),
        number("updatedNumberScheduled"),
        number("numberAvailable"),
        labels(&spec["template"]["spec"]["nodeSelector"]).into(),
        age(object, now),
        names,
        images,
        selector_or_none(&spec["selector"]).into(),
    ]
}

pub(crate) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let [names, images] = container_cells(&spec["template"]["spec"]);
    vec![
        name(object),
        job_status(object).into(),
        job_completions(object).into(),
        job_duration(object, now).into(),
        age(object, now),
        names,
        images,
        selector_or_none(&spec["selector"]).into(),
    ]
}

fn job_status(object: &Value) -> &'static str {
    let is = |kind: &str| condition_is_true(&object["status"]["conditions"], kind);
    match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if is_deleted(object) => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () => "Running",
    }
}

fn job_completions(object: &Value) -> String {
    let (spec, succeeded) = (&object["spec"], int(&object["status"]["succeeded"]));
    match (spec["completions"].as_i64(), int(&spec["parallelism"])) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn job_duration(object: &Value, now: Timestamp) -> String {
    let status = &object["status"];
    let Some(start) = age::parse(&status["startTime"]) else { return String::new() };
    age::between(start, age::parse(&status["completionTime"]).unwrap_or(now))
}

pub(crate) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let job = &spec["jobTemplate"]["spec"];
    let [names, images] = container_cells(&job["template"]["spec"]);
    let suspend = match spec["suspend"].as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let last = &status["lastScheduleTime"];
    let last = if last.is_null() { "<none>".to_owned() } else { age::since(last, now) };
    vec![
        name(object),
        text(&spec["schedule"]).into(),
        spec["timeZone"].as_str().unwrap_or("<none>").into(),
        suspend.into(),
        count(&status["active"]),
        last.into(),
        age(object, now),
        names,
        images,
        selector_or_none(&job["selector"]).into(),
    ]
}

pub(crate) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let object = &super::storage_form(object);
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let min = spec["minReplicas"].as_i64().map_or_else(|| "<unset>".to_owned(), |n| n.to_string());
    vec![
        name(object),
        format!("{}/{}", text(&target["kind"]), text(&target["name"])).into(),
        metrics(items(&spec["metrics"]), items(&status["currentMetrics"])).into(),
        min.into(),
        int(&spec["maxReplicas"]).into(),
        int(&status["currentReplicas"]).into(),
        age(object, now),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    const SHOWN: usize = 2;
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let list: Vec<String> =
        specs.iter().enumerate().map(|(i, spec)| metric(spec, statuses.get(i).unwrap_or(&Value::Null))).collect();
    if list.len() > SHOWN {
        return format!("{} + {} more...", list[..SHOWN].join(", "), list.len() - SHOWN);
    }
    list.join(", ")
}

/// `CURRENT/TARGET` of one metric.
fn metric(spec: &Value, status: &Value) -> String {
    let (source, named) = match text(&spec["type"]) {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[source]["target"], &status[source]["current"]);
    let known = |field: &str| {
        let value = shown(&current[field]);
        if value.is_empty() { "<unknown>".to_owned() } else { value }
    };
    let average = !target["averageValue"].is_null();
    if named {
        let of = text(&spec[source]["name"]);
        if average {
            return format!("{of}: {}/{}", known("averageValue"), shown(&target["averageValue"]));
        }
        let percent = |value: &Value, absent: &str| value.as_i64().map_or(absent.to_owned(), |n| format!("{n}%"));
        let have = percent(&current["averageUtilization"], "<unknown>");
        return format!("{of}: {have}/{}", percent(&target["averageUtilization"], "<auto>"));
    }
    match (source, average) {
        ("pods", _) => format!("{}/{}", known("averageValue"), shown(&target["averageValue"])),
        (_, true) => format!("{}/{} (avg)", known("averageValue"), shown(&target["averageValue"])),
        (_, false) => format!("{}/{}", known("value"), shown(&target["value"])),
    }
}

pub(crate) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let bound = |field: &str| if spec[field].is_null() { "N/A".to_owned() } else { shown(&spec[field]) };
    vec![
        name(object),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        int(&object["status"]["disruptionsAllowed"]).into(),
        age(object, now),
    ]
}

pub(crate) fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(&object["metadata"]["ownerReferences"]).iter().find(|o| o["controller"] == true);
    let owner = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = text(&owner["kind"]).to_lowercase();
            let name = text(&owner["name"]);
            match text(&owner["apiVersion"]).split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{name}"),
                None => format!("{kind}/{name}"),
            }
        },
    );
    vec![name(object), owner.into(), int(&object["revision"]).into(), age(object, now)]
}

pub(crate) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        int(&object["value"]).into(),
        super::flag(&object["globalDefault"]).into(),
        age(object, now),
        text_or(&object["preemptionPolicy"], "").into(),
    ]
}
