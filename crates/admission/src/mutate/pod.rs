//! Service account, priority, tolerations and first status of a pod.

use serde_json::{Value, json};
use stead_api::Kind;
use stead_machinery::ApiError;

use crate::context::{Context, Lookup};
use crate::view::{Fill, View, quantity};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";
/// Life of the mounted token: an hour and some seconds, by which the server knows tokens that it may extend.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
/// How long a pod stays on a node that is not ready, in seconds.
const EVICTION_SECONDS: i64 = 300;
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod.at("metadata.annotations").get(MIRROR).is_some()
}

/// Whether a pod to be created needs the default service account of its namespace, which is not there yet: a fresh
/// namespace gets one within milliseconds, so the caller may wait a moment for it before it calls
/// [`crate::create`].
#[must_use]
pub fn waits_for_account(kind: &Kind, object: &Value, lookup: &dyn Lookup) -> bool {
    let name = object.text("spec.serviceAccountName");
    (kind.group, kind.kind) == ("", "Pod")
        && (name.is_empty() || name == "default")
        && !is_mirror(object)
        && lookup.get("", "namespaces", "", object.text("metadata.namespace")).is_some()
        && lookup.get("", "serviceaccounts", object.text("metadata.namespace"), "default").is_none()
}

/// `ServiceAccount`: names the account, mounts its token, takes over its pull secrets.
pub(super) fn account(kind: &Kind, pod: &mut Value, ctx: &mut Context<'_>) -> Result<(), ApiError> {
    let pod_name = pod.text("metadata.name").to_owned();
    if is_mirror(pod) {
        return mirror_account(kind, pod, &pod_name);
    }
    let namespace = pod.text("metadata.namespace").to_owned();
    let Some(spec) = pod.at_mut("spec") else { return Ok(()) };
    spec.fill("serviceAccountName", "default");
    let name = spec.text("serviceAccountName").to_owned();
    spec.put("serviceAccount", name.clone());
    let Some(account) = ctx.lookup.get("", "serviceaccounts", &namespace, &name) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(ApiError::forbidden(kind, &pod_name, &why));
    };
    let wanted = spec.flag("automountServiceAccountToken").or(account.flag("automountServiceAccountToken"));
    if wanted.unwrap_or(true) {
        mount_token(spec, ctx);
    }
    if spec.items("imagePullSecrets").is_empty() && !account.items("imagePullSecrets").is_empty() {
        spec.put("imagePullSecrets", account.at("imagePullSecrets").clone());
    }
    Ok(())
}

/// A mirror of a static pod has no identity of its own.
fn mirror_account(kind: &Kind, pod: &Value, name: &str) -> Result<(), ApiError> {
    let why = if !pod.text("spec.serviceAccountName").is_empty() {
        "a mirror pod may not reference service accounts"
    } else if pod.items("spec.volumes").iter().any(|volume| volume.has("secret")) {
        "a mirror pod may not reference secrets"
    } else {
        return Ok(());
    };
    Err(ApiError::forbidden(kind, name, why))
}

fn mount_token(spec: &mut Value, ctx: &mut Context<'_>) {
    let there = spec
        .items("volumes")
        .iter()
        .find(|volume| volume.text("name").starts_with(TOKEN_VOLUME) && volume.has("projected"))
        .map(|volume| volume.text("name").to_owned());
    let name = there.clone().unwrap_or_else(|| format!("{TOKEN_VOLUME}{}", (ctx.random)(5)));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in spec.items_mut(list) {
            if container.items("volumeMounts").iter().any(|mount| mount.text("mountPath") == TOKEN_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            mounted = true;
        }
    }
    if mounted && there.is_none() {
        let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
            ]}},
        ]}});
        push(spec, "volumes", volume);
    }
}

/// Appends to a list that may be absent.
pub(super) fn push(object: &mut Value, key: &str, item: Value) {
    object.fill_null(key, json!([]));
    if let Some(Value::Array(items)) = object.get_mut(key) {
        items.push(item);
    }
}

/// `Priority`: the class becomes a number.
pub(super) fn priority(kind: &Kind, pod: &mut Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let pod_name = pod.text("metadata.name").to_owned();
    let class_name = pod.text("spec.priorityClassName").to_owned();
    let class = if class_name.is_empty() {
        let all = ctx.lookup.list("scheduling.k8s.io", "priorityclasses", None);
        all.into_iter().filter(|c| c.flag("globalDefault") == Some(true)).min_by_key(|c| c.int("value").unwrap_or(0))
    } else {
        let class = ctx.lookup.get("scheduling.k8s.io", "priorityclasses", "", &class_name);
        if class.is_none() {
            let why = format!("no PriorityClass with name {class_name} was found");
            return Err(ApiError::forbidden(kind, &pod_name, &why));
        }
        class
    };
    let value = class.as_ref().and_then(|c| c.int("value")).unwrap_or(0);
    let policy = class.as_ref().map_or("", |c| c.text("preemptionPolicy"));
    let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
    if let Some(given) = pod.int("spec.priority").filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(kind, &pod_name, &why));
    }
    if let Some(given) = Some(pod.text("spec.preemptionPolicy")).filter(|given| !given.is_empty() && *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(ApiError::forbidden(kind, &pod_name, &why));
    }
    let Some(spec) = pod.at_mut("spec") else { return Ok(()) };
    if let Some(class) = &class {
        spec.put("priorityClassName", class.text("metadata.name"));
    }
    spec.put("priority", value);
    spec.put("preemptionPolicy", policy);
    Ok(())
}

/// At most one priority class is the default.
pub(super) fn one_default(kind: &Kind, class: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    if class.flag("globalDefault") != Some(true) {
        return Ok(());
    }
    let name = class.text("metadata.name");
    let all = ctx.lookup.list("scheduling.k8s.io", "priorityclasses", None);
    let other = all.iter().find(|c| c.flag("globalDefault") == Some(true) && c.text("metadata.name") != name);
    other.map_or(Ok(()), |other| {
        let other = other.text("metadata.name");
        let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
        Err(ApiError::forbidden(kind, name, &why))
    })
}

/// `DefaultTolerationSeconds`: how long the pod stays on a node that is lost.
pub(super) fn tolerations(pod: &mut Value) {
    let Some(spec) = pod.at_mut("spec") else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = spec.items("tolerations").iter().any(|toleration| {
            let (of, effect) = (toleration.text("key"), toleration.text("effect"));
            (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            let toleration = json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTION_SECONDS,
            });
            push(spec, "tolerations", toleration);
        }
    }
}

/// The status that a new pod has.
pub(super) fn status(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(pod)});
    if !pod.items("spec.schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    pod.put("status", status);
}

/// Guaranteed, Burstable or BestEffort, from cpu and memory alone.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let mut containers = pod.items("spec.containers").iter().chain(pod.items("spec.initContainers")).peekable();
    if containers.peek().is_none() {
        return "BestEffort";
    }
    for resources in containers.map(|container| container.at("resources")) {
        for name in ["cpu", "memory"] {
            let amount = |of: &str| {
                let quantity = resources.at(of).get(name).and_then(quantity);
                quantity.filter(|q| q.sign() > 0)
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_service() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let stories = [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"ephemeral-storage": "1Gi"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}), "Burstable"),
        ];
        stories
            .iter()
            .for_each(|(resources, class)| assert_eq!(qos_class(&pod(resources.clone())), *class, "{resources}"));
    }
}
