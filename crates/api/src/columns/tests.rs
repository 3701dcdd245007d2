//! Stories of tables: an object, and the cells that upstream prints for it.

use super::*;
use crate::KINDS;
use crate::kinds::by_name;

fn now() -> Timestamp {
    "2026-11-20T15:00:00Z".parse().expect("a time")
}

/// The cells of an object as one line.
fn line(kind: &str, object: &Value) -> String {
    let kind = by_name(kind).expect("a kind");
    let cells = (kind.cells)(object, now());
    assert_eq!(cells.len(), kind.columns.len());
    cells.iter().map(shown).collect::<Vec<_>>().join(" | ")
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": "web-0", "creationTimestamp": "2026-11-20T14:59:00Z"}, "spec": spec, "status": status})
}

#[test]
fn every_kind_has_a_cell_for_each_column_even_when_empty() {
    for kind in KINDS {
        assert_eq!((kind.cells)(&json!({}), now()).len(), kind.columns.len(), "{}", kind.kind);
        assert!(kind.columns.iter().any(|c| c.format == "name"), "{}", kind.kind);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_status_of_a_pod_is_upstreams() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let one = json!({"containers": [{"name": "a"}]});
    let init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let sidecar = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i", "restartPolicy": "Always"}]});
    let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
    for (what, object, want) in [
        ("not placed yet", pod(spec.clone(), json!({"phase": "Pending"})), "0/2 | Pending | 0"),
        (
            "running",
            pod(spec.clone(), json!({"phase": "Running", "containerStatuses": [running, running]})),
            "2/2 | Running | 0",
        ),
        (
            "restarted a while ago",
            pod(
                one.clone(),
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}, "restartCount": 3,
                    "lastState": {"terminated": {"finishedAt": "2026-11-20T14:55:00Z"}}}]}),
            ),
            "1/1 | Running | 3 (5m ago)",
        ),
        (
            "crashing",
            pod(
                one.clone(),
                json!({"phase": "Running", "containerStatuses": [{"restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            ),
            "0/1 | CrashLoopBackOff | 1",
        ),
        (
            "completed",
            pod(
                one.clone(),
                json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
            ),
            "0/1 | Completed | 0",
        ),
        (
            "failed without a reason",
            pod(
                one.clone(),
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            ),
            "0/1 | ExitCode:3 | 0",
        ),
        (
            "killed by a signal",
            pod(
                one.clone(),
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9}}}]}),
            ),
            "0/1 | Signal:9 | 0",
        ),
        (
            "one completed, the other goes on",
            pod(
                spec.clone(),
                json!({"phase": "Running", "containerStatuses": [{"state": {"terminated": {"reason": "Completed"}}}, running]}),
            ),
            "1/2 | NotReady | 0",
        ),
        ("evicted", pod(one.clone(), json!({"phase": "Failed", "reason": "Evicted"})), "0/1 | Evicted | 0"),
        (
            "gated",
            pod(
                one.clone(),
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ),
            "0/1 | SchedulingGated | 0",
        ),
        (
            "at the second init container",
            pod(
                init.clone(),
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "state": {"running": {}}}], "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}),
            ),
            "0/1 | Init:1/2 | 2",
        ),
        (
            "an init container waits",
            pod(
                init.clone(),
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            ),
            "0/1 | Init:ImagePullBackOff | 0",
        ),
        (
            "an init container failed",
            pod(
                init.clone(),
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            ),
            "0/1 | Init:Error | 0",
        ),
        (
            "restarts of init containers are forgotten afterwards",
            pod(
                init,
                json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "restartCount": 5, "state": {"terminated": {"exitCode": 0}}}],
                    "containerStatuses": [running]}),
            ),
            "1/1 | Running | 0",
        ),
        (
            "a side car counts as a container",
            pod(
                sidecar,
                json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
                    "containerStatuses": [running]}),
            ),
            "2/2 | Running | 1",
        ),
    ] {
        assert_eq!(line("po", &object), format!("web-0 | {want} | 60s | <none> | <none> | <none> | <none>"), "{what}");
    }
    let mut going =
        pod(one, json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [running]}));
    going["metadata"]["deletionTimestamp"] = "2026-11-20T15:00:00Z".into();
    going["spec"]["nodeName"] = "n".into();
    assert_eq!(line("po", &going), "web-0 | 1/1 | Terminating | 0 | 60s | 10.0.0.1 | n | <none> | <none>");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn other_kinds_are_printed_as_upstream_prints_them() {
    let template = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y"}]}});
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["z", "y"]}]});
    for (kind, mut object, want) in [
        (
            "sts",
            json!({"spec": {"replicas": 3, "template": template}, "status": {"readyReplicas": 1}}),
            "n | 1/3 | 4d3h | a,b | x:1,y",
        ),
        (
            "deploy",
            json!({"spec": {"replicas": 2, "template": template, "selector": selector}, "status": {"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}}),
            "n | 2/2 | 1 | 2 | 4d3h | a,b | x:1,y | a in (y,z),app=web",
        ),
        (
            "rs",
            json!({"spec": {"replicas": 2, "template": template, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}}),
            "n | 2 | 2 | 0 | 4d3h | a,b | x:1,y | app=web",
        ),
        (
            "svc",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80, "protocol": "TCP"}], "selector": {"app": "web"}}}),
            "n | ClusterIP | None | <none> | 80/TCP | 4d3h | app=web",
        ),
        (
            "svc",
            json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            "n | LoadBalancer | 10.0.0.1 | <pending> | 80:30000/TCP,53/UDP | 4d3h | <none>",
        ),
        (
            "svc",
            json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
            "n | ExternalName | <none> | a.b | <none> | 4d3h | <none>",
        ),
        (
            "pvc",
            json!({"spec": {"volumeName": "v", "storageClassName": "standard", "volumeMode": "Filesystem"},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}),
            "n | Bound | v | 1Gi | RWO,RWX | standard | <unset> | 4d3h | Filesystem",
        ),
        (
            "pvc",
            json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Pending"}}),
            "n | Pending |  |  |  |  | <unset> | 4d3h | <unset>",
        ),
        (
            "pv",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "s", "volumeMode": "Block"}, "status": {"phase": "Released"}}),
            "n | 1Gi | RWO | Delete | Released | d/c | s | <unset> |  | 4d3h | Block",
        ),
        ("sc", json!({"provisioner": "p", "allowVolumeExpansion": true}), "n | p | Delete | Immediate | true | 4d3h"),
        (
            "no",
            json!({"spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}],
                "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}], "nodeInfo": {"kubeletVersion": "v1", "osImage": "o"}}}),
            "n | NotReady,SchedulingDisabled | <none> | 4d3h | v1 | 1.2.3.4 | <none> | o | <unknown> | <unknown>",
        ),
        (
            "ep",
            json!({"subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}], "ports": [{"port": 80}, {"port": 81}]}]}),
            "n | 1.1.1.1:80,1.1.1.2:80,1.1.1.1:81 + 1 more... | 4d3h",
        ),
        (
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}], "endpoints": []}),
            "n | IPv4 | 80,x,* | <unset> | 4d3h",
        ),
        (
            "jobs",
            json!({"spec": {"completions": 2, "template": template}, "status": {"succeeded": 2, "startTime": "2026-11-20T14:00:00Z",
                "completionTime": "2026-11-20T14:02:30Z", "conditions": [{"type": "Complete", "status": "True"}]}}),
            "n | Complete | 2/2 | 2m30s | 4d3h | a,b | x:1,y | <none>",
        ),
        (
            "cj",
            json!({"spec": {"schedule": "* * * * *", "suspend": false, "jobTemplate": {"spec": {"template": template}}}, "status": {"active": [{}]}}),
            "n | * * * * * | <none> | False | 1 | <none> | 4d3h | a,b | x:1,y | <none>",
        ),
        (
            "hpa",
            json!({"spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "web"}, "minReplicas": 1, "maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
            "n | StatefulSet/web | cpu: <unknown>/80% | 1 | 3 | 0 | 4d3h",
        ),
        (
            "pdb",
            json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}}),
            "n | 50% | N/A | 1 | 4d3h",
        ),
        (
            "quota",
            json!({"status": {"hard": {"pods": "5", "limits.cpu": "2", "requests.cpu": "1"}, "used": {"pods": "3"}}}),
            "n | pods: 3/5, requests.cpu: 0/1 | limits.cpu: 0/2 | 4d3h",
        ),
        (
            "controllerrevisions",
            json!({"revision": 2, "metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}}),
            "n | statefulset.apps/web | 2 | 4d3h",
        ),
        (
            "ing",
            json!({"spec": {"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}}),
            "n | <none> | a,b,c + 1 more... |  | 80, 443 | 4d3h",
        ),
        (
            "rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}]}),
            "n | Role/r | 4d3h | u |  | d/s",
        ),
        (
            "apiservices",
            json!({"status": {"conditions": [{"type": "Available", "status": "True"}]}}),
            "n | Local | True | 4d3h",
        ),
        ("secrets", json!({"type": "Opaque", "data": {"a": "", "b": ""}}), "n | Opaque | 2 | 4d3h"),
        ("limits", json!({}), "n | 2026-11-16T12:00:00Z"),
    ] {
        object["metadata"]["name"] = "n".into();
        object["metadata"]["creationTimestamp"] = "2026-11-16T12:00:00Z".into();
        assert_eq!(line(kind, &object), want, "{kind}");
    }
}

#[test]
fn an_event_is_printed_alike_from_either_group() {
    let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "R", "message": " m\n",
        "involvedObject": {"kind": "Pod", "name": "web-0", "fieldPath": "spec.containers{a}"}, "source": {"component": "kubelet", "host": "h"},
        "firstTimestamp": "2026-11-20T14:50:00Z", "lastTimestamp": "2026-11-20T14:59:55Z", "count": 4});
    let want = "5s | Normal | R | pod/web-0 | spec.containers{a} | kubelet, h | m | 10m | 4 | e";
    assert_eq!(line("ev", &core), want);
    let kind = by_api_version("events.k8s.io/v1", "Event").expect("a kind");
    let other = convert::from_storage(kind, core);
    let cells = (kind.cells)(&other, now());
    assert_eq!(cells.iter().map(shown).collect::<Vec<_>>().join(" | "), want);
    let single = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "R", "message": "m", "involvedObject": {"kind": "Node"},
        "reportingComponent": "c", "reportingInstance": "i", "eventTime": "2026-11-20T14:59:58.123456Z", "firstTimestamp": null});
    assert_eq!(line("ev", &single), "1s | Warning | R | node |  | c, i | m | 1s | 1 | e");
}
