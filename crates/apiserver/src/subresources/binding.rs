//! Binding: gives a pod its node, once.

use http::StatusCode;
use serde_json::{Value, json};
use stead_api::Subresource;
use stead_machinery::decode::Target as Schema;
use stead_machinery::status::Reason;
use stead_machinery::{ApiError, FieldErrors, Path};

use super::success;
use crate::chain::Call;
use crate::decode;
use crate::negotiate;
use crate::options::{WriteOptions, judged_as};
use crate::response::Answer;
use crate::server::ApiServer;
use crate::verbs::Target;
use crate::verbs::update::Change;
use crate::verbs::write::seconds;

pub(super) async fn create(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let schema =
        Schema::named("", "v1", "Binding").ok_or_else(|| ApiError::internal("there is no schema of Binding"))?;
    let (binding, _) = decode::object_as(&schema, call, &options)?;
    let node = judge(&binding)?;
    let change = Change { target, sub: Some(Subresource::Binding), user: &call.user, dry_run: options.dry_run };
    let done = change.run(server, &mut |pod| bind(target, pod, &binding, &node)).await;
    done.map_err(|mut error| {
        if error.reason == Reason::Conflict {
            error.details = json!({"name": target.name, "kind": "pods/binding"});
        }
        error
    })?;
    Ok(success(StatusCode::CREATED, form))
}

fn judge(binding: &Value) -> Result<String, ApiError> {
    let mut errors = FieldErrors::default();
    let (kind, node) =
        (binding["target"]["kind"].as_str().unwrap_or(""), binding["target"]["name"].as_str().unwrap_or(""));
    let path = Path::new("target");
    if !matches!(kind, "" | "Node") {
        errors.not_supported(&path.child("kind"), &kind, &["Node", "<empty>"]);
    }
    if node.is_empty() {
        errors.required(&path.child("name"), "");
    }
    judged_as("", "Binding", binding["metadata"]["name"].as_str().unwrap_or(""), &errors)?;
    Ok(node.to_owned())
}

/// The pod on its node.
fn bind(target: &Target, pod: &Value, binding: &Value, node: &str) -> Result<Value, ApiError> {
    let name = &target.name;
    let conflict = |why: String| {
        Err(ApiError::new(Reason::Conflict, format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}")))
    };
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let present = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if !present.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {present:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    // A scheduler that names the pod's identity must mean this one, not its successor.
    if let Some(uid) = binding["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
        pod["metadata"]["uid"] = uid.into();
    }
    pod["spec"]["nodeName"] = node.into();
    for key in ["annotations", "labels"] {
        for (name, value) in binding["metadata"][key].as_object().into_iter().flatten() {
            pod["metadata"][key][name] = value.clone();
        }
    }
    set_scheduled(&mut pod);
    Ok(pod)
}

fn set_scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": seconds(crate::source::now()),
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}
