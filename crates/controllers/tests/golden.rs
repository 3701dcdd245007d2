//! What upgrades of stead must never change: the revisions of sets that people have. Another name or other data of a
//! revision would roll every database of a cluster at once.
//!
//! `golden/revisions-VERSION.txt` has what that version made of the sets below, from the manifest on: a file is written
//! once, for a new version with `UPDATE_EXPECT=1`, and never edited. All files must fit.

#![allow(clippy::too_many_lines, reason = "a table")]

mod common;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::Cluster;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use serde_json::{Value, json};
use stead_workloads::history::{canonical, name_of};

/// A set without pods: revisions are made all the same.
fn set(name: &str, spec: Value) -> Value {
    let mut template = json!({"metadata": {"labels": {"app": name}}, "spec": spec});
    if let Some(metadata) = template["spec"].as_object_mut().and_then(|spec| spec.remove("metadata")) {
        template["metadata"]["annotations"] = metadata;
    }
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "annotations": {"team": "data"}},
        "spec": {
            "replicas": 0, "serviceName": name, "selector": {"matchLabels": {"app": name}}, "template": template,
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })
}

/// Every part of a pod template that databases use, with and without what the server adds.
fn sets() -> Vec<Value> {
    vec![
        set("smallest", json!({"containers": [{"name": "c", "image": "i"}]})),
        set("tagged", json!({"containers": [{"name": "c", "image": "registry.example:5000/a/b:1.21"}]})),
        set(
            "nginx",
            json!({
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": "nginx", "image": "nginx:1.21", "ports": [{"containerPort": 80, "name": "web"}],
                    "volumeMounts": [{"name": "data", "mountPath": "/usr/share/nginx/html"}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
                }],
            }),
        ),
        set(
            "redis",
            json!({
                "metadata": {"checksum/config": "0123<>&\u{2028}é"},
                "containers": [{
                    "name": "redis", "image": "redis:7", "command": ["redis-server", "/etc/redis/redis.conf"],
                    "args": ["--appendonly", "yes"],
                    "env": [
                        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "password"}}},
                        ],
                    "resources": {"requests": {"cpu": "100m", "memory": "0.5Gi"}, "limits": {"memory": "1Gi"}},
                    "livenessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "initialDelaySeconds": 5},
                    "readinessProbe": {"tcpSocket": {"port": "redis"}},
                    "startupProbe": {"grpc": {"port": 9000}, "failureThreshold": 30},
                    "ports": [{"containerPort": 6379, "name": "redis"}],
                    "lifecycle": {"preStop": {"exec": {"command": ["redis-cli", "shutdown"]}}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "config", "mountPath": "/etc/redis"}],
                }],
                "volumes": [{"name": "config", "configMap": {"name": "redis", "items": [{"key": "c", "path": "redis.conf"}]}}],
            }),
        ),
        set(
            "mysql",
            json!({
                "initContainers": [
                    {"name": "init", "image": "mysql:8", "command": ["bash", "-c", "set -ex\n[[ $HOSTNAME =~ -([0-9]+)$ ]]"]},
                    {"name": "sidecar", "image": "xtrabackup:1", "restartPolicy": "Always"},
                ],
                "containers": [{
                    "name": "mysql", "image": "mysql@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                    "imagePullPolicy": "IfNotPresent", "stdin": true, "tty": true,
                    "volumeMounts": [{"name": "data", "mountPath": "/var/lib/mysql", "subPath": "mysql"}],
                }],
                "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
            }),
        ),
        set(
            "secured",
            json!({
                "serviceAccountName": "db", "automountServiceAccountToken": false,
                "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{
                    "name": "c", "image": "i:1",
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true},
                }],
                "volumes": [
                    {"name": "secret", "secret": {"secretName": "tls"}},
                    {"name": "all", "projected": {"sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                    ]}},
                ],
            }),
        ),
        set(
            "placed",
            json!({
                "nodeSelector": {"disk": "ssd"}, "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
                "schedulerName": "default-scheduler", "enableServiceLinks": false, "shareProcessNamespace": true,
                "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"labelSelector": {"matchLabels": {"app": "placed"}}, "topologyKey": "kubernetes.io/hostname"},
                ]}},
                "topologySpreadConstraints": [{
                    "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"app": "placed"}},
                }],
                "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}, "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 9000}]}],
            }),
        ),
        set(&format!("long-{}", "x".repeat(40)), json!({"containers": [{"name": "c", "image": "i"}]})),
        // The names of these two were reckoned apart from this program, from what Go's types make of such manifests.
        set(
            "zeros",
            json!({
                "hostNetwork": false, "hostPID": false, "nodeSelector": {}, "tolerations": [], "hostname": "", "imagePullSecrets": [],
                "initContainers": [], "serviceAccountName": "", "priorityClassName": "", "volumes": [],
                "containers": [{
                    "name": "c", "image": "i:1", "command": [], "args": [], "workingDir": "", "stdin": false, "tty": false,
                    "env": [{"name": "A", "value": ""}], "ports": [{"containerPort": 80, "hostPort": 0, "name": "", "hostIP": ""}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": false, "subPath": ""}],
                    "readinessProbe": {"tcpSocket": {"port": 80, "host": ""}, "initialDelaySeconds": 0},
                }],
            }),
        ),
        set(
            "pointers",
            json!({
                "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 0,
                "shareProcessNamespace": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": false, "supplementalGroups": []},
                "containers": [{
                    "name": "c", "image": "i:1",
                    "securityContext": {"allowPrivilegeEscalation": false, "privileged": false, "capabilities": {}},
                    "env": [{"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
                    "livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "X-Empty"}]}},
                }],
                "volumes": [{"name": "s", "emptyDir": {}}, {"name": "o", "secret": {"secretName": "x", "optional": false, "items": []}}],
            }),
        ),
    ]
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Per set: its name, the name of its revision, and the bytes of its data.
async fn made() -> String {
    let cluster = Cluster::start().await;
    let revisions = cluster.caches.of::<ControllerRevision>();
    let mut text = String::new();
    for manifest in sets() {
        let set = cluster.create::<StatefulSet>(manifest).await;
        let uid = set.metadata.uid.as_ref().expect("a uid");
        let owned = |revision: &ControllerRevision| {
            revision.metadata.owner_references.iter().flatten().any(|owner| owner.uid == *uid)
        };
        let found = cluster.until(&revisions, |all| all.list().into_iter().find(|revision| owned(revision))).await;
        let name = set.metadata.name.as_deref().expect("a name");
        let _ = writeln!(text, "{name}\n{}\n{}\n", name_of(&found), canonical(&found.data.0));
    }
    text
}

#[tokio::test]
async fn no_version_of_stead_rolls_what_an_earlier_one_rolled_out() {
    let made = made().await;
    let newest = dir().join(concat!("revisions-", env!("CARGO_PKG_VERSION"), ".txt"));
    if std::env::var_os("UPDATE_EXPECT").is_some() && !newest.exists() {
        std::fs::write(&newest, &made).expect("written");
    }
    assert!(newest.exists(), "{} is missing: write it once with UPDATE_EXPECT=1", newest.display());
    let now: Vec<&str> = made.split("\n\n").collect();
    for file in std::fs::read_dir(dir()).expect("the directory").map(|entry| entry.expect("an entry").path()) {
        let then = std::fs::read_to_string(&file).expect("readable");
        for (then, now) in then.split("\n\n").zip(&now) {
            assert_eq!(then, *now, "what {} has is what clusters have: this would roll them", file.display());
        }
    }
}
