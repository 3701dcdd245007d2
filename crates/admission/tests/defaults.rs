//! What a real server answered to a create (Kubernetes 1.24), and what ours answers to the same input.
//! `newer` lists what later versions do otherwise, as a merge patch on the recorded answer.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tables of stories")]

mod support;

use serde_json::{Value, json};
use stead_machinery::decode::{Content, FieldValidation, decode};
use support::{Fixed, World, kind_of, merge, with_context};

struct Story {
    file: &'static str,
    input: Value,
    newer: Value,
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "nginx:1.21"}]}})
}

fn batch(command: Option<&str>, policy: &str) -> Value {
    let mut container = json!({"name": "c", "image": "busybox:1.28"});
    if let Some(command) = command {
        container["command"] = json!([command]);
    }
    json!({"spec": {"restartPolicy": policy, "containers": [container]}})
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "spec": spec})
}

fn workload(version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "spec": spec})
}

fn check(story: &Story) {
    let path = format!("{}/tests/golden/{}.json", env!("CARGO_MANIFEST_DIR"), story.file);
    let mut expected: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let kind = kind_of(&story.input);
    let mut object = decoded(&story.input);
    let labels = object.pointer("/metadata/labels").cloned();
    object["metadata"] = json!({});
    for key in ["name", "namespace", "uid", "creationTimestamp"] {
        object["metadata"][key] = expected["metadata"][key].clone();
    }
    if let Some(labels) = labels {
        object["metadata"]["labels"] = labels;
    }
    let ip = expected.pointer("/spec/clusterIP").and_then(Value::as_str).unwrap_or("").to_owned();
    let port = expected.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64).unwrap_or(0);
    let suffix = expected.pointer("/spec/volumes/0/name").and_then(Value::as_str).unwrap_or("").to_owned();
    let fixed = Fixed::new(&ip, u16::try_from(port).unwrap());
    merge(&mut expected, &story.newer);
    strip(&mut expected);
    let world = World::new();
    let suffix = suffix.rsplit('-').next().unwrap().to_owned();
    let result = with_context(&world, &fixed, &suffix, |ctx| stead_admission::create(kind, &mut object, ctx));
    assert_eq!(result.map(|_| ()), Ok(()), "{}", story.file);
    strip(&mut object);
    same(story.file, &object, &expected);
    let before = object.clone();
    stead_admission::default(kind, &mut object);
    strip(&mut object);
    same(&format!("{} defaulted twice", story.file), &object, &before);
}

/// The way of a request's body: typed, canonical.
fn decoded(input: &Value) -> Value {
    let body = serde_json::to_vec(input).unwrap();
    let (object, warnings) = decode(kind_of(input), Content::Json(&body), FieldValidation::Strict).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    object
}

/// Tells the first lines that differ.
fn same(story: &str, ours: &Value, expected: &Value) {
    let text = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let (ours, expected) = (text(ours), text(expected));
    let differing: Vec<String> = ours
        .lines()
        .zip(expected.lines())
        .filter(|(a, b)| a != b)
        .take(5)
        .map(|(a, b)| format!("ours {a:?} theirs {b:?}"))
        .collect();
    assert!(ours == expected, "{story}: {differing:#?}");
}

/// Nulls are not said any more by newer servers.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

#[test]
fn core_kinds() {
    let port = || json!([{"port": 80}]);
    let stories = [
        Story {
            file: "pod-minimal",
            input: workload("v1", "Pod", json!({"containers": [{"name": "c", "image": "nginx"}]})),
            newer: json!({"metadata": {"generation": 1}}),
        },
        Story {
            file: "pvc-minimal",
            input: workload(
                "v1",
                "PersistentVolumeClaim",
                json!({
                    "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                }),
            ),
            newer: json!({}),
        },
        Story {
            file: "pv-minimal",
            input: workload(
                "v1",
                "PersistentVolume",
                json!({
                    "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1024Mi"}, "storageClassName": "manual",
                    "hostPath": {"path": "/mnt/bare"},
                }),
            ),
            newer: json!({"status": {"lastPhaseTransitionTime": "2026-11-20T14:55:13Z"}}),
        },
        Story {
            file: "storageclass-minimal",
            input: json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/x"}),
            newer: json!({}),
        },
        Story {
            file: "configmap",
            input: json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}),
            newer: json!({}),
        },
        Story {
            file: "secret",
            input: json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}}),
            newer: json!({}),
        },
        Story { file: "namespace", input: json!({"apiVersion": "v1", "kind": "Namespace"}), newer: json!({}) },
        Story {
            file: "serviceaccount",
            input: json!({"apiVersion": "v1", "kind": "ServiceAccount"}),
            newer: json!({}),
        },
        Story {
            file: "service-clusterip",
            input: service(json!({"selector": {"app": "web"}, "ports": port()})),
            newer: json!({}),
        },
        Story {
            file: "service-externalname",
            input: service(json!({"type": "ExternalName", "externalName": "example.com"})),
            newer: json!({"spec": {"internalTrafficPolicy": null}}),
        },
        Story {
            file: "service-headless-noports",
            input: service(json!({"clusterIP": "None", "selector": {"app": "web"}})),
            newer: json!({}),
        },
        Story {
            file: "service-headless",
            input: json!({"apiVersion": "v1", "kind": "Service", "metadata": {"labels": {"app": "web"}},
                "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "web", "port": 80}]}}),
            newer: json!({}),
        },
        Story {
            file: "service-loadbalancer",
            input: service(json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": port()})),
            newer: json!({}),
        },
        Story {
            file: "service-nodeport",
            input: service(
                json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "web"}]}),
            ),
            newer: json!({}),
        },
        Story { file: "service-noselector", input: service(json!({"ports": port()})), newer: json!({}) },
        Story {
            file: "service-notready",
            input: service(json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": port(),
                "publishNotReadyAddresses": true, "sessionAffinity": "ClientIP"})),
            newer: json!({}),
        },
        Story {
            file: "endpoints-by-hand",
            input: json!({"apiVersion": "v1", "kind": "Endpoints",
                "subsets": [{"addresses": [{"ip": "10.1.1.1"}], "ports": [{"port": 80}]}]}),
            newer: json!({}),
        },
        Story {
            file: "limitrange",
            input: workload(
                "v1",
                "LimitRange",
                json!({"limits": [{"type": "Container", "default": {"cpu": "1000m"}}]}),
            ),
            newer: json!({}),
        },
        Story {
            file: "quota",
            input: workload("v1", "ResourceQuota", json!({"hard": {"pods": "100"}})),
            newer: json!({}),
        },
    ];
    stories.iter().for_each(check);
}

#[test]
fn workloads() {
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let retention = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    let newer_set = json!({"spec": {
        "persistentVolumeClaimRetentionPolicy": retention, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 1}},
    }});
    let newer_job = |file: &str| {
        let uid = match file {
            "job" => "5b56d8bc-f81a-4c7b-b808-71c5249df97c",
            "job-failing" => "21ab9ef4-bd16-46db-b937-c3f9bfc29a46",
            _ => "4a78fa9f-01ca-4d38-96dc-8e8466d910e9",
        };
        let name = match file {
            "job" => "job",
            "job-failing" => "jobf",
            _ => "jobm",
        };
        let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name});
        json!({
            "metadata": {"annotations": null, "labels": labels},
            "spec": {"podReplacementPolicy": "TerminatingOrFailed", "manualSelector": false,
                "selector": {"matchLabels": {"controller-uid": null, "batch.kubernetes.io/controller-uid": uid}},
                "template": {"metadata": {"labels": labels}}},
        })
    };
    let stories = [
        Story {
            file: "statefulset-minimal",
            input: workload(
                "apps/v1",
                "StatefulSet",
                json!({
                    "serviceName": "min", "replicas": 0, "selector": selector("min"), "template": template("min"),
                }),
            ),
            newer: newer_set,
        },
        Story {
            file: "statefulset-full",
            input: full_set(),
            newer: json!({"spec": {"persistentVolumeClaimRetentionPolicy": retention}}),
        },
        Story {
            file: "deployment",
            input: workload(
                "apps/v1",
                "Deployment",
                json!({
                    "replicas": 2, "selector": selector("dep"), "template": template("dep"),
                }),
            ),
            newer: json!({}),
        },
        Story {
            file: "replicaset",
            input: workload("apps/v1", "ReplicaSet", json!({"selector": selector("rs"), "template": template("rs")})),
            newer: json!({}),
        },
        Story {
            file: "daemonset",
            input: workload("apps/v1", "DaemonSet", json!({"selector": selector("ds"), "template": template("ds")})),
            newer: json!({}),
        },
        Story {
            file: "job",
            input: workload("batch/v1", "Job", json!({"template": batch(Some("true"), "Never")})),
            newer: newer_job("job"),
        },
        Story {
            file: "job-failing",
            input: workload("batch/v1", "Job", json!({"backoffLimit": 0, "template": batch(Some("false"), "Never")})),
            newer: newer_job("job-failing"),
        },
        Story {
            file: "job-minimal",
            input: workload("batch/v1", "Job", json!({"suspend": true, "template": batch(None, "OnFailure")})),
            newer: newer_job("job-minimal"),
        },
        Story {
            file: "cronjob",
            input: workload(
                "batch/v1",
                "CronJob",
                json!({
                    "schedule": "* * * * *", "jobTemplate": {"spec": {"template": batch(Some("true"), "OnFailure")}},
                }),
            ),
            newer: json!({}),
        },
        Story {
            file: "pdb",
            input: workload(
                "policy/v1",
                "PodDisruptionBudget",
                json!({"minAvailable": 2, "selector": selector("web")}),
            ),
            newer: json!({}),
        },
        Story {
            file: "hpa",
            input: workload(
                "autoscaling/v2",
                "HorizontalPodAutoscaler",
                json!({
                    "maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"},
                }),
            ),
            newer: json!({}),
        },
    ];
    stories.iter().for_each(check);
}

fn full_set() -> Value {
    let quantity = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let container = json!({
        "name": "c", "image": "nginx:1.21", "ports": [{"containerPort": 80}],
        "env": [{"name": "A", "value": "b"}, {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
        "livenessProbe": {"exec": {"command": ["true"]}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "initialDelaySeconds": 10, "periodSeconds": 5},
        "startupProbe": {"grpc": {"port": 9}},
        "resources": {"limits": quantity("1000m", "2048Mi"), "requests": quantity("0.5", "1Gi")},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "cm", "mountPath": "/cm"}],
    });
    workload(
        "apps/v1",
        "StatefulSet",
        json!({
            "minReadySeconds": 5, "podManagementPolicy": "Parallel", "replicas": 0, "revisionHistoryLimit": 3,
            "selector": {"matchLabels": {"app": "full"}}, "serviceName": "full", "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": {"app": "full"}}, "spec": {
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "full"}}, "topologyKey": "kubernetes.io/hostname"}]}},
                "containers": [container], "initContainers": [{"name": "i", "image": "busybox"}],
                "volumes": [{"name": "cm", "configMap": {"name": "x"}}, {"name": "sec", "secret": {"secretName": "x"}},
                    {"name": "e"}, {"name": "h", "hostPath": {"path": "/x"}}],
            }},
            "volumeClaimTemplates": [
                {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                    "resources": {"requests": {"storage": "1Gi"}}}},
                {"metadata": {"name": "logs"}, "spec": {"accessModes": ["ReadWriteMany"],
                    "resources": {"requests": {"storage": 1_073_741_824}}}},
            ],
        }),
    )
}

#[test]
fn other_kinds() {
    let rbac = "rbac.authorization.k8s.io/v1";
    let stories = [
        Story {
            file: "ingress",
            input: workload(
                "networking.k8s.io/v1",
                "Ingress",
                json!({
                    "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
                }),
            ),
            newer: json!({}),
        },
        Story {
            file: "networkpolicy",
            input: workload("networking.k8s.io/v1", "NetworkPolicy", json!({"podSelector": {}})),
            newer: json!({}),
        },
        Story {
            file: "role",
            input: json!({"apiVersion": rbac, "kind": "Role",
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
            newer: json!({}),
        },
        Story {
            file: "rolebinding",
            input: json!({"apiVersion": rbac, "kind": "RoleBinding", "roleRef": {"kind": "Role", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": "a"}]}),
            newer: json!({}),
        },
    ];
    stories.iter().for_each(check);
}
