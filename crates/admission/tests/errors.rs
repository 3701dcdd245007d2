//! What is refused, with upstream's texts: base object | what is merged into it | the 422.
//! The stories are those of the records of a real server (1.24), in the words of the newest.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tables of stories")]

mod support;

use serde_json::{Value, json};
use stead_admission::{create, update};
use stead_machinery::ApiError;
use stead_machinery::decode::{Content, FieldValidation, decode};
use support::{Fixed, World, kind_of, merge, with_context};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn decoded(object: &Value) -> Value {
    let body = serde_json::to_vec(object).unwrap();
    decode(kind_of(object), Content::Json(&body), FieldValidation::Strict).unwrap().0
}

fn try_create(world: &World, object: &Value) -> Result<Value, ApiError> {
    let mut object = decoded(object);
    object["metadata"]["uid"] = "1".into();
    let kind = kind_of(&object);
    if kind.namespaced() {
        object["metadata"]["namespace"] = "obj".into();
    }
    let fixed = Fixed::new("10.96.1.1", 30001);
    with_context(world, &fixed, "abcde", |ctx| create(kind, &mut object, ctx)).map(|_| object)
}

fn try_update(world: &World, old: &Value, patch: &Value) -> Result<Value, ApiError> {
    let mut old = old.clone();
    old["metadata"]["resourceVersion"] = "1".into();
    let mut new = old.clone();
    merge(&mut new, patch);
    let kind = kind_of(&old);
    let fixed = Fixed::new("10.96.1.1", 30001);
    with_context(world, &fixed, "abcde", |ctx| update(kind, &mut new, &old, None, ctx)).map(|_| new)
}

/// Text of a refusal without `Kind "name" is invalid: `.
fn why(result: Result<Value, ApiError>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            let text = error.message;
            text.split_once(" is invalid: ").map_or(text.clone(), |(_, rest)| rest.to_owned())
        }
    }
}

fn merged(base: &Value, patch: &Value) -> Value {
    let mut object = base.clone();
    merge(&mut object, patch);
    object
}

/// Creates base + patch and compares the refusal.
fn check_creates(base: &Value, stories: &[(Value, &str)]) {
    let world = World::new();
    assert_eq!(why(try_create(&world, base)), "accepted");
    for (patch, text) in stories {
        assert_eq!(why(try_create(&world, &merged(base, patch))), *text, "{patch}");
    }
}

/// Creates base, then updates it with the patch and compares the start of the refusal (a diff may follow).
/// The set of [`set`] with claims that follow their templates.
#[test]
fn claim_templates_that_may_change() {
    let mut follows = set();
    follows["metadata"]["annotations"] = json!({"stead.dev/grow-claims": "true"});
    let old = try_create(&World::new(), &follows).unwrap();
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}})
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claim = claim("data", "1Gi");
        change(&mut claim);
        json!({"spec": {"volumeClaimTemplates": [claim]}})
    };
    let mend = "add a template of another name, or delete the set with --cascade=orphan and create it anew with the new templates";
    let refused = |field: &str, why: &str| format!("spec.volumeClaimTemplates[0]{field}: Forbidden: {why}; {mend}");
    let size = ".spec.resources.requests.storage";
    let removed = format!(
        "spec.volumeClaimTemplates: Forbidden: template \"data\" cannot be removed: claims were made from it; {mend}"
    );
    let other = "only the storage request may grow, and labels and annotations may change";
    check_updates(
        &old,
        &[
            (with(&|c| c["spec"]["resources"]["requests"]["storage"] = "2Gi".into()), "accepted"),
            (with(&|c| c["metadata"]["labels"] = json!({"tier": "gold"})), "accepted"),
            (with(&|c| c["metadata"]["annotations"] = json!({"a": "b"})), "accepted"),
            (json!({"spec": {"volumeClaimTemplates": [claim("log", "1Gi"), claim("data", "1Gi")]}}), "accepted"),
            (json!({"spec": {"volumeClaimTemplates": [claim("log", "1Gi")]}}), &removed),
            (
                with(&|c| c["spec"]["resources"]["requests"]["storage"] = "512Mi".into()),
                &refused(size, "cannot shrink from 1Gi to 512Mi: claims never do"),
            ),
            (
                with(&|c| c["spec"]["storageClassName"] = "fast".into()),
                &refused(".spec.storageClassName", "cannot be changed: claims keep their class"),
            ),
            (
                with(&|c| c["spec"]["accessModes"] = json!(["ReadWriteMany"])),
                &refused(".spec.accessModes", "cannot be changed: claims keep their access modes"),
            ),
            (with(&|c| c["spec"]["volumeMode"] = "Block".into()), &refused("", other)),
            (
                json!({"spec": {"volumeClaimTemplates": [claim("data", "1Gi"), claim("data", "1Gi")]}}),
                "spec.volumeClaimTemplates[1].metadata.name: Duplicate value: \"data\"",
            ),
            (
                json!({"spec": {"volumeClaimTemplates": [claim("data", "1Gi"), claim("Log", "1Gi")]}}),
                &format!("spec.volumeClaimTemplates[1].metadata.name: Invalid value: \"Log\": {LABEL}"),
            ),
        ],
    );
}

fn check_updates(old: &Value, stories: &[(Value, &str)]) {
    let world = World::new();
    assert_eq!(why(try_update(&world, old, &json!({}))), "accepted");
    for (patch, text) in stories {
        let got = why(try_update(&world, old, patch));
        let first = got.split("\n@@").next().unwrap().to_owned();
        assert_eq!(first, *text, "{patch}");
    }
}

fn set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {
            "serviceName": "web", "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
                {"name": "nginx", "image": "nginx:1.21", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    })
}

#[test]
fn stateful_sets() {
    let mismatch = "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`";
    let long = "w".repeat(64);
    let too_long = "metadata.name: Invalid value: \"".to_owned() + &long + "\": must be no more than 63 bytes";
    let bad_name = format!("metadata.name: Invalid value: \"Web_1\": {LABEL}");
    let bad_label = format!(
        "[spec.template.metadata.labels: Invalid value: {{\"app\":\"web server!\"}}: `selector` does not match template `labels`, spec.template.labels: Invalid value: \"web server!\": {VALUE}]"
    );
    check_creates(
        &set(),
        &[
            (json!({"spec": {"template": {"metadata": {"labels": {"app": "other"}}}}}), mismatch),
            (
                json!({"spec": {"selector": {"matchLabels": null}}}),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
            (
                json!({"spec": {"selector": null}}),
                "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`]",
            ),
            (json!({"spec": {"replicas": -1}}), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
            (
                json!({"spec": {"template": {"spec": {"containers": []}}}}),
                "spec.template.spec.containers: Required value",
            ),
            (
                json!({"spec": {"podManagementPolicy": "Random"}}),
                "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                json!({"spec": {"updateStrategy": {"type": "Surge"}}}),
                "spec.updateStrategy: Invalid value: {\"Type\":\"Surge\",\"RollingUpdate\":null}: must be 'RollingUpdate', 'OnDelete' or 'Recreate'",
            ),
            (
                json!({"spec": {"updateStrategy": {"type": "Recreate", "rollingUpdate": {"partition": 1}}}}),
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":1,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": -1}}}}),
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "150%"}}}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%",
            ),
            (
                json!({"spec": {"minReadySeconds": -5}}),
                "spec.minReadySeconds: Invalid value: -5: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"ordinals": {"start": -1}}}),
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Sometimes"}}}),
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Sometimes\": supported values: \"Retain\", \"Delete\"",
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ),
            (
                json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
            (json!({"spec": {"template": {"metadata": {"labels": {"app": "web server!"}}}}}), &bad_label),
            (json!({"metadata": {"name": "Web_1"}}), &bad_name),
            (json!({"metadata": {"name": long}}), &too_long),
            (
                json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}}),
                "[spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required, spec.volumeClaimTemplates[0].spec.resources[storage]: Required value]",
            ),
        ],
    );
    let forbidden = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let both = format!(
        "[{}, {forbidden}]",
        "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
    );
    let old = try_create(&World::new(), &set()).unwrap();
    check_updates(
        &old,
        &[
            (
                json!({"spec": {"replicas": 5, "minReadySeconds": 3, "ordinals": {"start": 2}, "revisionHistoryLimit": 2}}),
                "accepted",
            ),
            (json!({"spec": {"serviceName": "other"}}), forbidden),
            (json!({"spec": {"podManagementPolicy": "Parallel"}}), forbidden),
            (json!({"spec": {"volumeClaimTemplates": []}}), forbidden),
            (json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}), &both),
            (
                json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}}),
                forbidden,
            ),
            (json!({"metadata": {"uid": "x"}}), "metadata.uid: Invalid value: \"x\": field is immutable"),
            (
                json!({"metadata": {"resourceVersion": null}}),
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            ),
        ],
    );
    // Generation counts changes of the spec only.
    let relabelled = try_update(&World::new(), &old, &json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
    assert_eq!(relabelled["metadata"]["generation"], 1);
    let scaled = try_update(&World::new(), &old, &json!({"spec": {"replicas": 9}, "status": {"replicas": 9}})).unwrap();
    assert_eq!((&scaled["metadata"]["generation"], &scaled["status"]["replicas"]), (&json!(2), &json!(0)));
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "labels": {"app": "web"}},
        "spec": {"nodeName": "peer", "containers": [{"name": "nginx", "image": "nginx:1.21"}]}})
}

#[test]
fn pods() {
    let with = |container: Value| {
        let mut one = json!({"name": "nginx", "image": "nginx:1.21"});
        merge(&mut one, &container);
        json!({"spec": {"containers": [one]}})
    };
    let long_label = format!("metadata.labels: Invalid value: \"{}\": must be no more than 63 bytes", "w".repeat(64));
    let names = format!(
        "[metadata.name: Invalid value: \"X\": {SUBDOMAIN}, spec.containers[0].name: Invalid value: \"X\": {LABEL}]"
    );
    let sysctl = |at: usize, name: &str| {
        format!(
            "spec.securityContext.sysctls[{at}].name: Invalid value: {name:?}: must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
        )
    };
    let sysctls = format!("[{}, {}]", sysctl(1, "foo-"), sysctl(2, "bar.."));
    check_creates(
        &pod(),
        &[
            (json!({"spec": {"containers": []}}), "spec.containers: Required value"),
            (
                json!({"spec": {"securityContext": {"sysctls": [{"name": "kernel.shm_rmid-forced/a"}, {"name": "foo-"}, {"name": "bar.."}]}}}),
                &sysctls,
            ),
            (with(json!({"image": null})), "spec.containers[0].image: Required value"),
            (
                json!({"spec": {"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]}}),
                "spec.containers[1].name: Duplicate value: \"a\"",
            ),
            (json!({"metadata": {"labels": {"controller-revision-hash": "w".repeat(64)}}}), &long_label),
            (
                with(json!({"volumeMounts": [{"name": "nowhere", "mountPath": "/d"}]})),
                "spec.containers[0].volumeMounts[0].name: Not found: \"nowhere\"",
            ),
            (
                merged(
                    &with(
                        json!({"volumeMounts": [{"name": "e", "mountPath": "/d"}, {"name": "e", "mountPath": "/d"}]}),
                    ),
                    &json!({"spec": {"volumes": [{"name": "e"}]}}),
                ),
                "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/d\": must be unique",
            ),
            (
                with(json!({"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}}})),
                "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi",
            ),
            (
                with(json!({"resources": {"requests": {"memori": "1Gi"}}})),
                "[spec.containers[0].resources.requests[memori]: Invalid value: \"memori\": must be a standard resource type or fully qualified, spec.containers[0].resources.requests[memori]: Invalid value: \"memori\": must be a standard resource for containers]",
            ),
            (
                with(json!({"ports": [{"name": "this-name-is-too-long", "containerPort": 70000}]})),
                "[spec.containers[0].ports[0].name: Invalid value: \"this-name-is-too-long\": must be no more than 15 bytes, spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive]",
            ),
            (
                with(json!({"ports": [{"name": "web", "containerPort": 80}, {"name": "web", "containerPort": 81}]})),
                "spec.containers[0].ports[1].name: Duplicate value: \"web\"",
            ),
            (
                with(json!({"env": [{"name": "A=B"}, {"name": "B", "valueFrom": {}}]})),
                "[spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '=', spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`]",
            ),
            (
                with(
                    json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}, "readinessProbe": {"periodSeconds": -3}}),
                ),
                "[spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type, spec.containers[0].readinessProbe: Required value: must specify a handler type, spec.containers[0].readinessProbe.periodSeconds: Invalid value: -3: must be greater than or equal to 0]",
            ),
            (
                with(json!({"imagePullPolicy": "Sometimes"})),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (merged(&json!({"metadata": {"name": "X"}}), &with(json!({"name": "X"}))), &names),
            (
                json!({"spec": {"serviceAccountName": "nothere"}}),
                "pods \"web-0\" is forbidden: error looking up service account obj/nothere: serviceaccount \"nothere\" not found",
            ),
            (
                json!({"spec": {"priorityClassName": "none"}}),
                "pods \"web-0\" is forbidden: no PriorityClass with name none was found",
            ),
            (
                json!({"spec": {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/x"}}]}}),
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            ),
        ],
    );
    let forbidden = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    let old = try_create(&World::new(), &pod()).unwrap();
    let bad_label = format!("metadata.labels: Invalid value: \"x y\": {VALUE}");
    let container = |patch: Value| {
        let mut one = old["spec"]["containers"][0].clone();
        merge(&mut one, &patch);
        json!({"spec": {"containers": [one]}})
    };
    check_updates(
        &old,
        &[
            (container(json!({"image": "nginx:1.22"})), "accepted"),
            (json!({"spec": {"activeDeadlineSeconds": 5}}), "accepted"),
            (json!({"spec": {"nodeName": "other"}}), forbidden),
            (container(json!({"command": ["x"]})), forbidden),
            (container(json!({"image": ""})), "spec.containers[0].image: Required value"),
            (json!({"spec": {"restartPolicy": "Never"}}), forbidden),
            (json!({"spec": {"terminationGracePeriodSeconds": 5}}), forbidden),
            (json!({"spec": {"tolerations": []}}), "accepted"),
            (json!({"metadata": {"labels": {"app": "x y"}}}), &bad_label),
        ],
    );
}

#[test]
fn services() {
    let base =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let bad_name = "[metadata.name: Invalid value: \"1web\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?'), spec.ports: Required value]";
    check_creates(
        &base,
        &[
            (json!({"metadata": {"name": "1web"}, "spec": {"ports": []}}), bad_name),
            (
                json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}),
                "[spec.ports[0].name: Required value, spec.ports[1].name: Required value]",
            ),
            (
                json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}}),
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ),
            (
                json!({"spec": {"clusterIP": "10.1.2.3"}}),
                "spec.clusterIPs: Invalid value: [\"10.1.2.3\"]: failed to allocate IP 10.1.2.3: the provided IP (10.1.2.3) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
            ),
            (
                json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}),
                "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
            ),
            (
                json!({"spec": {"type": "NodePort", "clusterIP": "None"}}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
        ],
    );
    let old = try_create(&World::new(), &base).unwrap();
    check_updates(
        &old,
        &[
            (
                json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}}),
                "spec.clusterIPs[0]: Invalid value: [\"10.96.9.9\"]: may not change once set",
            ),
            (json!({"spec": {"clusterIP": null, "clusterIPs": null}}), "accepted"),
            (json!({"spec": {"type": "NodePort"}}), "accepted"),
        ],
    );
    let kept = try_update(&World::new(), &old, &json!({"spec": {"clusterIP": null, "clusterIPs": null}})).unwrap();
    assert_eq!(kept["spec"]["clusterIP"], "10.96.1.1");
    let opened = try_update(&World::new(), &old, &json!({"spec": {"type": "NodePort"}})).unwrap();
    assert_eq!(opened["spec"]["ports"][0]["nodePort"], 30001);
    let closed = try_update(&World::new(), &opened, &json!({"spec": {"type": "ClusterIP"}})).unwrap();
    assert!(closed["spec"]["ports"][0].get("nodePort").is_none());
    let named = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let outside = try_update(&World::new(), &closed, &named).unwrap();
    assert!(outside["spec"].get("clusterIP").is_none());
}

#[test]
fn claims_and_volumes() {
    let base = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let bad_name = format!("metadata.name: Invalid value: \"Data_1\": {SUBDOMAIN}");
    check_creates(
        &base,
        &[
            (
                json!({"spec": {"accessModes": null, "resources": null}}),
                "[spec.accessModes: Required value: at least 1 access mode is required, spec.resources[storage]: Required value]",
            ),
            (
                json!({"spec": {"accessModes": ["ReadWriteSometimes"]}}),
                "spec.accessModes: Unsupported value: \"ReadWriteSometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
            (json!({"metadata": {"name": "Data_1"}}), &bad_name),
            (
                json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (
                json!({"spec": {"resources": {"requests": {"storage": "-1Gi"}}}}),
                "spec.resources[storage]: Invalid value: \"-1Gi\": must be greater than zero",
            ),
        ],
    );
    let mut old = try_create(&World::new(), &base).unwrap();
    old["spec"]["volumeName"] = "pv".into();
    old["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
    let frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let block = format!("[{frozen}");
    check_updates(
        &old,
        &[
            (
                json!({"spec": {"resources": {"requests": {"storage": "500Mi"}}}}),
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity",
            ),
            (
                json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}),
                "persistentvolumeclaims \"data\" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
            ),
            (json!({"spec": {"accessModes": ["ReadWriteMany"]}}), frozen),
            (json!({"spec": {"storageClassName": "other"}}), frozen),
            (json!({"spec": {"volumeName": "other"}}), frozen),
            (json!({"spec": {"volumeMode": "Block"}}), &block),
        ],
    );
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a"}}});
    check_creates(
        &volume,
        &[
            (
                json!({"spec": {"accessModes": null, "hostPath": null}}),
                "[spec.accessModes: Required value, spec: Required value: must specify a volume type]",
            ),
            (
                json!({"spec": {"nfs": {"server": "a", "path": "/"}}}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                json!({"spec": {"capacity": null, "hostPath": {"path": "/a/../b"}}}),
                "[spec.capacity: Required value, spec.capacity: Unsupported value: null: supported values: \"storage\", spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..']",
            ),
        ],
    );
    let old = try_create(&World::new(), &volume).unwrap();
    check_updates(
        &old,
        &[
            (
                json!({"spec": {"hostPath": {"path": "/b"}}}),
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ),
            (json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}), "accepted"),
        ],
    );
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "a"}, "provisioner": "x"});
    check_creates(
        &class,
        &[(
            json!({"reclaimPolicy": "Recycle", "volumeBindingMode": "Sometimes"}),
            "[reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\", volumeBindingMode: Unsupported value: \"Sometimes\": supported values: \"Immediate\", \"WaitForFirstConsumer\"]",
        )],
    );
    let old = try_create(&World::new(), &class).unwrap();
    check_updates(
        &old,
        &[
            (json!({"provisioner": "y"}), "provisioner: Forbidden: updates to provisioner are forbidden."),
            (json!({"parameters": {"a": "b"}}), "parameters: Forbidden: updates to parameters are forbidden."),
            (json!({"reclaimPolicy": "Retain"}), "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."),
            (
                json!({"volumeBindingMode": "WaitForFirstConsumer"}),
                "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
            ),
            (json!({"allowVolumeExpansion": true}), "accepted"),
        ],
    );
}

#[test]
fn other_kinds() {
    let bad_name = format!("metadata.name: Invalid value: \"Bad_Name\": {LABEL}");
    check_creates(
        &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
        &[(json!({"metadata": {"name": "Bad_Name"}}), &bad_name)],
    );
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "b"}});
    check_creates(
        &map,
        &[
            (
                json!({"data": {"bad key/": "x"}}),
                "data[bad key/]: Invalid value: \"bad key/\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ),
            (json!({"data": {"a": "x".repeat(1_048_577)}}), "[]: Too long: may not be more than 1048576 bytes"),
            (
                json!({"metadata": {"annotations": {"a": "x".repeat(262_144)}}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
        ],
    );
    let old = try_create(&World::new(), &merged(&map, &json!({"immutable": true}))).unwrap();
    check_updates(
        &old,
        &[
            (json!({"data": {"a": "c"}}), "data: Forbidden: field is immutable when `immutable` is set"),
            (json!({"immutable": false}), "immutable: Forbidden: field is immutable when `immutable` is set"),
        ],
    );
    let template =
        json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": template}});
    check_creates(
        &deployment,
        &[
            (
                json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
        ],
    );
    let old = try_create(&World::new(), &deployment).unwrap();
    check_updates(
        &old,
        &[(
            json!({"spec": {"selector": {"matchLabels": {"app": "e"}}, "template": {"metadata": {"labels": {"app": "e"}}}}}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"e\"}}: field is immutable",
        )],
    );
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}}});
    check_creates(
        &job,
        &[(
            json!({"spec": {"template": {"spec": {"restartPolicy": "Always"}}}}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        )],
    );
    job_policies(&job);
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cj"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job["spec"]}}});
    check_creates(
        &cron,
        &[
            (
                json!({"spec": {"schedule": "every day"}}),
                "spec.schedule: Invalid value: \"every day\": expected exactly 5 fields, found 2: [every day]",
            ),
            (json!({"spec": {"timeZone": "Europe/Zurich"}}), "accepted"),
            (
                json!({"spec": {"timeZone": "bad-time-zone"}}),
                "spec.timeZone: Invalid value: \"bad-time-zone\": unknown time zone bad-time-zone",
            ),
            (
                json!({"spec": {"timeZone": "europe/zurich"}}),
                "spec.timeZone: Invalid value: \"europe/zurich\": unknown time zone europe/zurich",
            ),
        ],
    );
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"kind": "StatefulSet", "name": "web", "apiVersion": "apps/v1"}}});
    check_creates(
        &scaler,
        &[(
            json!({"spec": {"minReplicas": 5, "maxReplicas": 2}}),
            "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
        )],
    );
    autoscalers(&scaler);
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    check_creates(
        &ingress,
        &[(
            json!({"spec": {"defaultBackend": null}}),
            "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
        )],
    );
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "two"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    check_creates(
        &budget,
        &[(
            json!({"spec": {"maxUnavailable": 1}}),
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"app\":\"web\"}},\"MaxUnavailable\":1,\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set",
        )],
    );
}

fn job_policies(job: &Value) {
    let indexed =
        |more: Value| merged(&json!({"spec": {"completionMode": "Indexed", "completions": 3}}), &json!({"spec": more}));
    let rule = |rule: Value| json!({"spec": {"podFailurePolicy": {"rules": [rule]}}});
    let codes = |operator: &str, values: Value| json!({"operator": operator, "values": values});
    let success = |rule: Value| indexed(json!({"successPolicy": {"rules": [rule]}}));
    check_creates(
        job,
        &[
            (
                json!({"spec": {"maxFailedIndexes": 1}}),
                "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
            ),
            (
                indexed(json!({"maxFailedIndexes": 1})),
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            ),
            (
                indexed(json!({"maxFailedIndexes": 4, "backoffLimitPerIndex": 1})),
                "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions",
            ),
            (
                indexed(json!({"completions": 200_000, "backoffLimitPerIndex": 1})),
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
            ),
            (
                indexed(json!({"parallelism": 100_001})),
                "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            ),
            (json!({"spec": {"managedBy": "acme.io/queue"}}), "accepted"),
            (
                json!({"spec": {"managedBy": "me"}}),
                "spec.managedBy: Invalid value: \"me\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
            (rule(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})), "accepted"),
            (
                rule(json!({"action": "FailIndex", "onExitCodes": codes("In", json!([1]))})),
                "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            ),
            (
                rule(json!({"action": "Count"})),
                "spec.podFailurePolicy.rules[0]: Invalid value: null: specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (
                rule(json!({"action": "FailJob", "onExitCodes": codes("In", json!([0]))})),
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            ),
            (
                rule(json!({"action": "FailJob", "onExitCodes": codes("NotIn", json!([3, 1]))})),
                "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [3,1]: must be ordered",
            ),
            (
                rule(json!({"action": "Stop", "onExitCodes": codes("In", json!([1]))})),
                "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            ),
            (success(json!({"succeededIndexes": "0,2"})), "accepted"),
            (
                success(json!({})),
                "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            ),
            (
                success(json!({"succeededCount": 4})),
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
            ),
            (
                success(json!({"succeededCount": 2, "succeededIndexes": "1"})),
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 2: must be less than or equal to 1 (the number of indexes in the specified succeededIndexes field)",
            ),
            (
                success(json!({"succeededIndexes": "2,1"})),
                "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"2,1\": error parsing succeededIndexes: non-increasing order, previous: 2, current: 1",
            ),
            (
                json!({"spec": {"successPolicy": {"rules": [{"succeededCount": 1}]}}}),
                "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode",
            ),
        ],
    );
}

fn autoscalers(scaler: &Value) {
    let metric = |metric: Value| json!({"spec": {"metrics": [metric]}});
    let cpu = |target: Value| metric(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    let up = |rules: Value| json!({"spec": {"behavior": {"scaleUp": rules}}});
    check_creates(
        scaler,
        &[
            (cpu(json!({"type": "Utilization", "averageUtilization": 50})), "accepted"),
            (
                cpu(json!({"type": "Utilization", "averageUtilization": 0})),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ),
            (
                cpu(json!({"type": "AverageValue", "averageValue": "0"})),
                "spec.metrics[0].resource.target.averageValue: Invalid value: \"0\": must be positive",
            ),
            (
                cpu(json!({"type": "Utilization"})),
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
            ),
            (
                metric(
                    json!({"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 5}}}),
                ),
                "[spec.metrics[0].pods: Required value: must populate information for the given metric source, spec.metrics[0].resource: Forbidden: must populate the given metric source only]",
            ),
            (
                metric(json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "",
                    "target": {"type": "Utilization", "averageUtilization": 5}}})),
                "spec.metrics[0].containerResource.container: Required value: must specify a container",
            ),
            (
                metric(json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value"}}})),
                "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target",
            ),
            (
                up(json!({"stabilizationWindowSeconds": 3601})),
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            ),
            (
                up(json!({"selectPolicy": "Best"})),
                "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Best\": supported values: \"Disabled\", \"Max\", \"Min\"",
            ),
            (
                up(json!({"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]})),
                "[spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero, spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800]",
            ),
            (up(json!({"tolerance": "50m"})), "accepted"),
            (
                up(json!({"tolerance": "-50m"})),
                "spec.behavior.scaleUp.tolerance: Invalid value: \"-50m\": must be greater than or equal to 0",
            ),
        ],
    );
}

#[test]
fn quotas() {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"pods": "5", "count/widgets.example.com": "2", "requests.hugepages-2Mi": "1Gi"}}});
    let scoped = |scopes: Value, resource: &str| json!({"spec": {"scopes": scopes, "hard": {"requests.hugepages-2Mi": null, resource: "1"}}});
    let selecting = |term: Value| json!({"spec": {"hard": {"requests.hugepages-2Mi": null}, "scopeSelector": {"matchExpressions": [term]}}});
    check_creates(
        &quota,
        &[
            (
                json!({"spec": {"hard": {"widgets": "1"}}}),
                "[spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified, spec.hard[widgets]: Invalid value: \"widgets\": must be a standard resource for quota]",
            ),
            (
                json!({"spec": {"hard": {"storage": "1"}}}),
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ),
            (scoped(json!(["NotBestEffort", "Terminating"]), "limits.cpu"), "accepted"),
            (scoped(json!(["Rare"]), "limits.cpu"), "spec.scopes: Invalid value: [\"Rare\"]: unsupported scope"),
            (
                scoped(json!(["BestEffort"]), "limits.cpu"),
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ),
            (
                scoped(json!(["Terminating"]), "services"),
                "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
            ),
            (
                scoped(json!(["Terminating", "NotTerminating"]), "cpu"),
                "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
            ),
            (selecting(json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]})), "accepted"),
            (
                selecting(json!({"scopeName": "PriorityClass", "operator": "In"})),
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            (
                selecting(json!({"scopeName": "PriorityClass", "operator": "Exists", "values": ["high"]})),
                "spec.scopeSelector.matchExpressions.values: Invalid value: [\"high\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            (
                selecting(json!({"scopeName": "BestEffort", "operator": "DoesNotExist"})),
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            ),
            (
                selecting(json!({"scopeName": "Rare", "operator": "Sometimes"})),
                "[spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"Rare\": unsupported scope, spec.scopeSelector.matchExpressions.operator: Invalid value: \"Sometimes\": not a valid selector operator]",
            ),
        ],
    );
    let old = try_create(&World::new(), &merged(&quota, &scoped(json!(["NotBestEffort"]), "cpu"))).unwrap();
    check_updates(
        &old,
        &[
            (json!({"spec": {"hard": {"cpu": "2"}}}), "accepted"),
            (
                json!({"spec": {"scopes": ["Terminating"]}}),
                "spec.scopes: Invalid value: [\"Terminating\"]: field is immutable",
            ),
        ],
    );
}
