//! Writes a pod's status, and nothing else of it.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};
use stead_podlife::{conditions, spec};

use crate::Node;

/// Tells a strategic merge in which order conditions are listed.
const SET_ORDER: &str = "$setElementOrder/conditions";

/// The patch that makes the status in the API equal to `status` in everything that the node owns; conditions of others stay.
/// `None`: it is so already.
#[must_use]
pub(crate) fn patch(pod: &Pod, status: &PodStatus) -> Option<Value> {
    if pod.status.as_ref() == Some(status) {
        return None;
    }
    let mut value = serde_json::to_value(status).ok()?;
    let own = value.as_object_mut()?;
    if let Some(Value::Array(list)) = own.get_mut("conditions") {
        let order: Vec<Value> = list.iter().map(|one| json!({"type": one["type"]})).collect();
        list.retain(|one| one["type"].as_str().is_some_and(|kind| conditions::OWNED.contains(&kind)));
        for one in list {
            // A strategic merge keeps what is not named: what is gone has to be named.
            for field in ["reason", "message"] {
                if one.get(field).is_none() {
                    one[field] = Value::Null;
                }
            }
        }
        // A strategic merge leaves what is there where it is, unless it is told the order: a status that differs from the
        // stored one in nothing but the order would be reported for ever, and a pod whose status is not reported stays.
        own.insert(SET_ORDER.to_owned(), order.into());
    }
    let known = pod.status.as_ref().and_then(|known| serde_json::to_value(known).ok()).unwrap_or_default();
    for field in ["podIPs", "hostIPs"] {
        drop_old_addresses(own, known.get(field), field);
    }
    for field in known.as_object().into_iter().flatten().map(|(field, _)| field) {
        if !own.contains_key(field) {
            own.insert(field.clone(), Value::Null);
        }
    }
    own.retain(|field, value| field == "conditions" || field == SET_ORDER || known.get(field) != Some(value));
    Some(json!({ "metadata": { "uid": pod.metadata.uid }, "status": value }))
}

/// A strategic merge joins lists of addresses: those that are no longer true have to be taken out by name.
fn drop_old_addresses(own: &mut Map<String, Value>, known: Option<&Value>, field: &str) {
    let Some(Value::Array(list)) = own.get_mut(field) else { return };
    let old: Vec<Value> = known
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|one| !list.contains(one))
        .map(|one| json!({"$patch": "delete", "ip": one["ip"]}))
        .collect();
    list.extend(old);
}

/// Sends the patch; the answer is the pod as it is now.
///
/// # Errors
/// The API's.
pub(crate) async fn send(node: &Node, pod: &Pod, patch: &Value) -> Result<Pod, kube::Error> {
    let (name, namespace, _) = spec::identity(pod);
    let api: Api<Pod> = Api::namespaced(node.client.clone(), namespace);
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent_and_what_is_gone_is_named() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": []}, "status": {
            "phase": "Pending", "hostIP": "1.1.1.1", "reason": "Old",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m"}, {"type": "Other", "status": "True"}]}}))
        .expect("a pod");
        let status: PodStatus = serde_json::from_value(json!({"phase": "Running", "hostIP": "1.1.1.1",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]}))
        .expect("a status");
        let expected = json!({"metadata": {"uid": "u"}, "status": {"phase": "Running", "reason": null,
            "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Other"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]}});
        assert_eq!(patch(&pod, &status), Some(expected));
        assert_eq!(patch(&Pod { status: Some(status.clone()), ..pod }, &status), None);
    }

    #[test]
    fn an_address_that_changed_replaces_the_old_one() {
        let of = |ip: &str| PodStatus {
            pod_ips: Some(vec![k8s_openapi::api::core::v1::PodIP { ip: ip.to_owned() }]),
            ..PodStatus::default()
        };
        let pod = Pod { status: Some(of("10.42.0.2")), ..Pod::default() };
        let patch = patch(&pod, &of("10.42.0.3")).expect("a patch");
        assert_eq!(patch["status"]["podIPs"], json!([{"ip": "10.42.0.3"}, {"$patch": "delete", "ip": "10.42.0.2"}]));
    }
}
