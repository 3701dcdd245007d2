//! What is wrong with a set, and the mend: a pure function of what was read.
//!
//! Source of the texts that are recognised: STATEFULSET upstream's controllers, scheduler and kubelet.

use k8s_openapi::api::core::v1::{ContainerStatus, PersistentVolumeClaim, Pod};

use super::snapshot::{Snapshot, service_name};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `pod/web-0`.
    pub object: String,
    /// The state and its cause.
    pub what: String,
    /// What was seen: texts of events and statuses, word for word.
    pub evidence: Vec<String>,
    /// What to do.
    pub mend: String,
}

/// Everything that keeps the set from being as wanted, causes before what they cause. Empty: it is healthy.
#[must_use]
pub fn diagnose(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    service(snapshot, &mut findings);
    for pod in snapshot.pods.values() {
        for claim in claim_names(pod) {
            claims(snapshot, pod, claim, &mut findings);
        }
        pod_state(snapshot, pod, &mut findings);
    }
    missing(snapshot, &mut findings);
    findings
}

/// The claims that a pod's volumes name.
pub(super) fn claim_names(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn service(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let Some(name) = service_name(&snapshot.set) else { return };
    let object = format!("service/{name}");
    let labels = snapshot.set.spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let Some(service) = &snapshot.service else {
        findings.push(Finding {
            object,
            what: "the headless Service of the set does not exist: its pods run, but their DNS names do not resolve"
                .to_owned(),
            evidence: vec![format!("spec.serviceName: {name}")],
            mend: format!("create the Service {name} with clusterIP: None and the selector {}", shown(&labels)),
        });
        return;
    };
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        findings.push(Finding {
            object: object.clone(),
            what: "the Service selects none of the set's pods: their DNS names do not resolve".to_owned(),
            evidence: vec![
                format!("selector: {}", shown(&selector)),
                format!("labels of the pods: {}", shown(&labels)),
            ],
            mend: format!("kubectl patch {object} -p '{{\"spec\":{{\"selector\":{}}}}}'", json(&labels)),
        });
    }
}

fn claims(snapshot: &Snapshot, pod: &Pod, name: &str, findings: &mut Vec<Finding>) {
    let object = format!("persistentvolumeclaim/{name}");
    let Some(claim) = snapshot.claims.get(name) else {
        findings.push(Finding {
            object,
            what: format!("the claim of pod {} does not exist", name_of(pod)),
            evidence: messages(snapshot, "Pod", name_of(pod), 1),
            mend: format!("delete the pod to have claim and pod made anew: kubectl delete pod {}", name_of(pod)),
        });
        return;
    };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound") {
        return;
    }
    let (what, mend) = unbound(snapshot, claim);
    let evidence = messages(snapshot, "PersistentVolumeClaim", name, 1);
    // A claim that waits for its pod to be placed is no fault of its own: the pod's finding says what it waits for.
    if let Some(what) = what {
        findings.push(Finding { object, what, evidence, mend });
    }
}

fn unbound(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> (Option<String>, String) {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref());
    match class {
        None | Some("") => (
            Some("no storage class is set and no volume fits".to_owned()),
            "make a class the default (annotation storageclass.kubernetes.io/is-default-class: \"true\"), or create a \
             PersistentVolume that fits"
                .to_owned(),
        ),
        Some(class) => match snapshot.classes.get(class) {
            None => (
                Some(format!("its storage class {class:?} does not exist")),
                format!("create the StorageClass {class}; there are: {}", known(snapshot)),
            ),
            Some(found) if found.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
                (None, String::new())
            }
            Some(found) => (
                Some(format!("no volume yet from provisioner {}", found.provisioner)),
                format!("look at the provisioner {}", found.provisioner),
            ),
        },
    }
}

fn known(snapshot: &Snapshot) -> String {
    let names: Vec<&str> = snapshot.classes.keys().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn pod_state(snapshot: &Snapshot, pod: &Pod, findings: &mut Vec<Finding>) {
    let name = name_of(pod);
    let object = format!("pod/{name}");
    if is_ready(pod) {
        return;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        findings.push(Finding {
            object,
            what: "the pod is ending; its replacement comes when it is gone".to_owned(),
            evidence: messages(snapshot, "Pod", name, 1),
            mend: "wait; if its node is lost for good, delete the Node object".to_owned(),
        });
        return;
    }
    if let Some(message) = unschedulable(pod) {
        findings.push(Finding {
            object,
            what: placement_cause(&message).to_owned(),
            evidence: vec![message],
            mend: placement_mend(pod),
        });
        return;
    }
    let container = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten()).find(|c| !c.ready);
    let (what, mend) = container.map_or_else(
        || ("the pod has not started yet".to_owned(), format!("kubectl describe {object}")),
        |container| container_cause(snapshot, pod, container),
    );
    findings.push(Finding { object, what, evidence: evidence_of(snapshot, name, container), mend });
}

fn container_cause(snapshot: &Snapshot, pod: &Pod, container: &ContainerStatus) -> (String, String) {
    let (name, pod_name) = (&container.name, name_of(pod));
    let waiting =
        container.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref()).unwrap_or_default();
    match waiting {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => (
            format!("the image {:?} cannot be pulled{}", container.image, stuck(snapshot, pod)),
            format!(
                "correct the image: kubectl set image statefulset/{} {name}=IMAGE{}",
                name_of(&snapshot.set),
                replaced_by_hand(snapshot, pod)
            ),
        ),
        "CrashLoopBackOff" => (
            format!("container {name} ends again and again (CrashLoopBackOff){}", stuck(snapshot, pod)),
            format!("read why: kubectl logs {pod_name} -c {name} --previous{}", replaced_by_hand(snapshot, pod)),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            (format!("container {name} cannot be made ({waiting})"), format!("kubectl describe pod {pod_name}"))
        }
        _ if container.state.as_ref().is_some_and(|state| state.running.is_some()) => (
            format!("container {name} runs but its readiness probe fails{}", stuck(snapshot, pod)),
            format!("see what the probe asks for: kubectl describe pod {pod_name}; kubectl logs {pod_name} -c {name}"),
        ),
        _ => (format!("container {name} is not ready yet ({waiting})"), format!("kubectl describe pod {pod_name}")),
    }
}

/// An ordered set does not go past a broken pod, not even when its template is mended.
fn stuck(snapshot: &Snapshot, pod: &Pod) -> String {
    if outdated(snapshot, pod) {
        " at a revision that is not the newest: the roll-out is stuck on it".to_owned()
    } else {
        String::new()
    }
}

fn replaced_by_hand(snapshot: &Snapshot, pod: &Pod) -> String {
    if outdated(snapshot, pod) { format!("; then kubectl delete pod {}", name_of(pod)) } else { String::new() }
}

fn outdated(snapshot: &Snapshot, pod: &Pod) -> bool {
    // By their hashes: the label of a set with a long name leaves a part of the name out.
    let hash = |revision: &String| revision.rsplit('-').next().map(str::to_owned);
    let newest = snapshot.set.status.as_ref().and_then(|status| hash(status.update_revision.as_ref()?));
    let own = pod.metadata.labels.as_ref().and_then(|labels| hash(labels.get("controller-revision-hash")?));
    newest.is_some() && own.is_some() && newest != own
}

fn evidence_of(snapshot: &Snapshot, pod: &str, container: Option<&ContainerStatus>) -> Vec<String> {
    let state = container.and_then(|container| container.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.message.clone());
    let ended = container.and_then(|container| container.last_state.as_ref()?.terminated.as_ref());
    let ended = ended
        .map(|end| format!("last end: exit code {}, reason {}", end.exit_code, end.reason.as_deref().unwrap_or("-")));
    let mut evidence: Vec<String> = waiting.into_iter().chain(ended).collect();
    for message in messages(snapshot, "Pod", pod, 2) {
        if !evidence.contains(&message) {
            evidence.push(message);
        }
    }
    evidence
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(condition.message.clone().unwrap_or_default())
}

fn placement_cause(message: &str) -> &'static str {
    const CAUSES: [(&str, &str); 6] = [
        ("Insufficient", "no node has enough free resources"),
        ("anti-affinity", "its anti-affinity cannot be met: every node has a pod that it must not share with"),
        ("affinity", "no node fits its affinity or node selector"),
        ("taint", "no node's taints are tolerated"),
        ("persistentvolumeclaim", "its claim is missing or not bound"),
        ("PersistentVolumeClaims", "its claim is not bound"),
    ];
    let found = CAUSES.iter().find(|(word, _)| message.contains(word));
    found.map_or("no node has been found for it", |(_, cause)| cause)
}

fn placement_mend(pod: &Pod) -> String {
    format!("add a node or change what the pod asks for; kubectl describe pod {}", name_of(pod))
}

/// Pods that do not exist although they are wanted, and what an ordered set waits for.
fn missing(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let spec = &snapshot.set.spec;
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let wanted = start..start + spec.replicas.unwrap_or(1);
    let absent: Vec<String> = wanted
        .filter(|ordinal| !snapshot.pods.contains_key(ordinal))
        .map(|ordinal| format!("{}-{ordinal}", name_of(&snapshot.set)))
        .collect();
    if absent.is_empty() {
        return;
    }
    let ordered = spec.pod_management_policy.as_deref() != Some("Parallel");
    let blocker = snapshot.pods.values().find(|pod| !is_ready(pod)).filter(|_| ordered);
    let (what, mend) = match blocker {
        Some(pod) => (
            format!("{} wait for {} to be Running and Ready (OrderedReady)", absent.join(", "), name_of(pod)),
            format!("mend {} first", name_of(pod)),
        ),
        None => (format!("{} do not exist yet", absent.join(", ")), "see the events of the set".to_owned()),
    };
    let object = format!("statefulset/{}", name_of(&snapshot.set));
    findings.push(Finding {
        object,
        what,
        evidence: messages(snapshot, "StatefulSet", name_of(&snapshot.set), 1),
        mend,
    });
}

/// The newest warnings of an object, newest first.
fn messages(snapshot: &Snapshot, kind: &str, name: &str, most: usize) -> Vec<String> {
    let of_object = snapshot.events.iter().rev().filter(|event| {
        let about = &event.involved_object;
        about.kind.as_deref() == Some(kind)
            && about.name.as_deref() == Some(name)
            && event.type_.as_deref() == Some("Warning")
    });
    of_object.filter_map(|event| event.message.clone()).take(most).collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn name_of<K: kube::Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

fn shown(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn json(labels: &std::collections::BTreeMap<String, String>) -> String {
    serde_json::to_string(labels).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn snapshot(pod: Value, claims: &Value, classes: &Value) -> Snapshot {
        let set = json!({
            "metadata": {"name": "web"},
            "spec": {"serviceName": "nginx", "replicas": 2, "selector": {}, "template": {"metadata": {"labels": {"app": "web"}}}},
            "status": {"replicas": 1, "updateRevision": "web-2"},
        });
        let named = |objects: &Value| -> Vec<(String, Value)> {
            objects
                .as_array()
                .into_iter()
                .flatten()
                .map(|o| (o["metadata"]["name"].as_str().unwrap().to_owned(), o.clone()))
                .collect()
        };
        Snapshot {
            set: serde_json::from_value(set).unwrap(),
            pods: [(0, serde_json::from_value(pod).unwrap())].into(),
            claims: named(claims).into_iter().map(|(n, o)| (n, serde_json::from_value(o).unwrap())).collect(),
            classes: named(classes).into_iter().map(|(n, o)| (n, serde_json::from_value(o).unwrap())).collect(),
            service: Some(
                serde_json::from_value(json!({"metadata": {"name": "nginx"}, "spec": {"selector": {"app": "web"}}}))
                    .unwrap(),
            ),
            events: Vec::new(),
        }
    }

    /// The findings as `object: what`, one a line.
    #[track_caller]
    fn check(snapshot: &Snapshot, expected: &[&str]) {
        let found: Vec<String> = diagnose(snapshot).iter().map(|f| format!("{}: {}", f.object, f.what)).collect();
        assert_eq!(found, expected);
    }

    fn pod(status: &Value) -> Value {
        json!({
            "metadata": {"name": "web-0", "labels": {"controller-revision-hash": "web-2"}},
            "spec": {"containers": [], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d-web-0"}}]},
            "status": status,
        })
    }

    const BOUND: &str = r#"[{"metadata": {"name": "d-web-0"}, "status": {"phase": "Bound"}}]"#;

    fn bound() -> Value {
        serde_json::from_str(BOUND).unwrap()
    }

    #[test]
    fn a_missing_class_comes_before_the_pod_that_waits_for_it() {
        let status = json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."}]});
        let claims = json!([{"metadata": {"name": "d-web-0"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}}]);
        check(
            &snapshot(
                pod(&status),
                &claims,
                &json!([{"metadata": {"name": "standard"}, "provisioner": "stead.dev/local"}]),
            ),
            &[
                "persistentvolumeclaim/d-web-0: its storage class \"fast\" does not exist",
                "pod/web-0: its claim is not bound",
                "statefulset/web: web-1 wait for web-0 to be Running and Ready (OrderedReady)",
            ],
        );
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_named() {
        let status = json!({"containerStatuses": [{"name": "nginx", "ready": false, "image": "nginx:nothere", "imageID": "",
            "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]});
        check(
            &snapshot(pod(&status), &bound(), &json!([])),
            &[
                "pod/web-0: the image \"nginx:nothere\" cannot be pulled",
                "statefulset/web: web-1 wait for web-0 to be Running and Ready (OrderedReady)",
            ],
        );
    }

    #[test]
    fn a_healthy_set_has_no_findings() {
        let mut healthy =
            snapshot(pod(&json!({"conditions": [{"type": "Ready", "status": "True"}]})), &bound(), &json!([]));
        healthy.set.spec.replicas = Some(1);
        check(&healthy, &[]);
    }

    #[test]
    fn a_service_that_selects_nothing_is_a_finding() {
        let mut wrong =
            snapshot(pod(&json!({"conditions": [{"type": "Ready", "status": "True"}]})), &bound(), &json!([]));
        wrong.set.spec.replicas = Some(1);
        wrong.service.as_mut().unwrap().spec.as_mut().unwrap().selector =
            Some([("app".to_owned(), "x".to_owned())].into());
        check(&wrong, &["service/nginx: the Service selects none of the set's pods: their DNS names do not resolve"]);
        wrong.service = None;
        check(
            &wrong,
            &[
                "service/nginx: the headless Service of the set does not exist: its pods run, but their DNS names do not resolve",
            ],
        );
    }
}
