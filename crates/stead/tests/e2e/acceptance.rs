//! Statements of ACCEPTANCE that no document's own exercise shows, each under its number.

use std::cell::Cell;

use crate::support::{CLAIMS, IDLE, cluster, in_busybox, position, ready, replace, service, set, with_each_kubectl};

#[test]
fn acceptance_1_6_a_cluster_ip_service_gives_names_to_pods() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(&service("app", ""));
    kubectl.apply(&set("app", 2, "", IDLE));
    ready(&kubectl, "app", "2");
    let address = kubectl.ok("get pod app-1 -o jsonpath={.status.podIP}");
    let answer = in_busybox(&kubectl, "nslookup app-1.app.default.svc.cluster.local");
    assert!(answer.contains(&format!("Address: {address}")), "{answer}");
    let of_service = kubectl.ok("get service app -o jsonpath={.spec.clusterIP}");
    let answer = in_busybox(&kubectl, "nslookup app.default.svc.cluster.local");
    assert!(answer.contains(&format!("Address: {of_service}")), "{answer}");
}

#[test]
fn acceptance_1_8_a_pod_comes_back_without_its_service_and_its_name_with_it() {
    let (_cluster, kubectl) = cluster();
    let headless = service("app", "clusterIP: None, ");
    kubectl.apply(&headless);
    kubectl.apply(&set("app", 1, "", IDLE));
    ready(&kubectl, "app", "1");
    let _ = kubectl.ok("delete service app");
    let _ = replace(&kubectl, "app-0");
    let asked = kubectl.run("exec app-0 -- nslookup app-0.app.default.svc.cluster.local");
    assert!(format!("{}{}", asked.stdout, asked.stderr).contains("NXDOMAIN"), "{}{}", asked.stdout, asked.stderr);
    kubectl.apply(&headless);
    let address = kubectl.ok("get pod app-0 -o jsonpath={.status.podIP}");
    kubectl.eventually("exec app-0 -- nslookup app-0.app.default.svc.cluster.local", |seen| {
        seen.contains(&format!("Address: {address}"))
    });
}

#[test]
fn acceptance_2_5_claims_go_when_the_policy_says_so() {
    let (_cluster, kubectl) = cluster();
    let policy = "  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Delete}\n";
    kubectl.apply(&set("gone", 2, &format!("{policy}{CLAIMS}"), IDLE));
    kubectl.apply(&set("kept", 1, CLAIMS, IDLE));
    ready(&kubectl, "gone", "2");
    ready(&kubectl, "kept", "1");
    let _ = kubectl.ok("scale sts gone --replicas=1");
    let names = "get pvc -o name";
    kubectl
        .eventually(names, |names| names == "persistentvolumeclaim/data-gone-0\npersistentvolumeclaim/data-kept-0\n");
    let _ = kubectl.ok("delete sts gone kept");
    kubectl.eventually(names, |names| names == "persistentvolumeclaim/data-kept-0\n");
}

#[test]
fn acceptance_2_6_and_2_7_claims_without_a_class_and_volumes_made_beforehand() {
    let (cluster, kubectl) = cluster();
    let claim = |name: &str, class: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{requests: {{storage: 1Gi}}}}{more}}}\n"
        )
    };
    let told = |name: &str| {
        format!("get events --field-selector involvedObject.name={name} -o jsonpath={{.items[*].message}}")
    };
    kubectl.apply(&claim("none", "\"\"", ""));
    kubectl.eventually(&told("none"), |text| {
        text.contains("no persistent volumes available for this claim and no storage class is set")
    });
    kubectl.apply(&claim("lost", "nowhere", ""));
    kubectl.eventually(&told("lost"), |text| text.contains("storageclass.storage.k8s.io \"nowhere\" not found"));

    let volume = |name: &str, size: &str, label: &str| {
        let path = cluster.data_dir().join(name);
        format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}, labels: {{kind: {label}}}}}\nspec: {{capacity: {{storage: {size}}}, accessModes: [ReadWriteOnce], storageClassName: hand, hostPath: {{path: {}}}}}\n",
            path.display()
        )
    };
    for (name, size, label) in
        [("small", "500Mi", "any"), ("large", "5Gi", "any"), ("fits", "2Gi", "any"), ("marked", "9Gi", "special")]
    {
        kubectl.apply(&volume(name, size, label));
    }
    kubectl.apply(&claim("by-size", "hand", ""));
    kubectl.apply(&claim("by-label", "hand", ", selector: {matchLabels: {kind: special}}"));
    kubectl.apply(&claim("by-name", "hand", ", volumeName: large"));
    for (name, wanted) in [("by-size", "fits"), ("by-label", "marked"), ("by-name", "large")] {
        kubectl.eventually(&format!("get pvc {name} -o jsonpath='{{.status.phase}} {{.spec.volumeName}}'"), |seen| {
            seen == format!("Bound {wanted}")
        });
    }
    assert_eq!(kubectl.ok("get pv small -o jsonpath={.status.phase}"), "Available");
}

#[test]
fn acceptance_3_4_and_3_5_parallel_sets_and_the_time_that_pods_get_to_end() {
    let (_cluster, kubectl) = cluster();
    // None of them ever gets ready, so an ordered set would stay at one.
    let never = format!("{IDLE}\n        readinessProbe: {{exec: {{command: [\"false\"]}}}}");
    kubectl.apply(&set("all", 3, "  podManagementPolicy: Parallel", &never));
    kubectl.eventually("get pods -l app=all -o jsonpath={.items[*].status.phase}", |phases| {
        phases == "Running Running Running"
    });
    let _ = kubectl.ok("delete sts all");

    // preStop, then SIGTERM, and the volume shows both in their order.
    let told = r#"        command: [sh, -c, "trap 'echo term >> /log/told; exit' TERM; while :; do sleep 0.1; done"]
        lifecycle: {preStop: {exec: {command: [sh, -c, "echo hook >> /log/told"]}}}
        volumeMounts: [{name: log, mountPath: /log}]"#;
    let directory = tempfile::tempdir().unwrap();
    let volume = format!("{told}\n      volumes: [{{name: log, hostPath: {{path: {}}}}}]", directory.path().display());
    let patient =
        set("end", 1, "", &volume).replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 20");
    kubectl.apply(&patient);
    ready(&kubectl, "end", "1");
    let _ = kubectl.ok("delete sts end");
    kubectl.eventually("get pods -l app=end -o name", str::is_empty);
    assert_eq!(std::fs::read_to_string(directory.path().join("told")).unwrap(), "hook\nterm\n");
}

#[test]
fn acceptance_6_1_configuration_probes_and_init_containers() {
    let (_cluster, kubectl) = cluster();
    let _ = kubectl.ok("create configmap settings --from-literal=colour=green");
    let _ = kubectl.ok("create secret generic keys --from-literal=password=open");
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: all, labels: {role: judge}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo made > /shared/file"], volumeMounts: [{name: shared, mountPath: /shared}]}
  containers:
  - name: main
    image: nginx:1.21
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: BOTH, value: "$(COLOUR)-$(PASSWORD)"}
    resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
    startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, -e, /shared/file]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 2}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /etc/settings}
    - {name: keys, mountPath: /etc/keys}
    - {name: about, mountPath: /etc/about}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;
    kubectl.apply(pod);
    let _ = kubectl.ok("wait pod/all --for=condition=Ready --timeout=60s");
    assert_eq!(kubectl.ok("exec all -- sh -c 'echo $COLOUR $PASSWORD $BOTH'"), "green open green-open\n");
    assert_eq!(
        kubectl.ok("exec all -- cat /shared/file /etc/settings/colour /etc/keys/password /etc/about/labels"),
        "made\ngreenopenrole=\"judge\""
    );
    // A ConfigMap's change reaches the volume.
    let _ = kubectl.ok(r#"patch configmap settings -p '{"data":{"colour":"blue"}}'"#);
    kubectl.eventually("exec all -- cat /etc/settings/colour", |colour| colour == "blue");
    // The liveness probe fails: the container is restarted in place, and the pod stays.
    let uid = kubectl.ok("get pod all -o jsonpath={.metadata.uid}");
    let _ = kubectl.ok("exec all -- rm /shared/file");
    kubectl.eventually("get pod all -o jsonpath={.status.containerStatuses[0].restartCount}", |count| count != "0");
    assert_eq!(kubectl.ok("get pod all -o jsonpath={.metadata.uid}"), uid);
}

#[test]
fn acceptance_6_4_a_container_that_ends_again_and_again() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(&set("crash", 1, "", r#"        command: [sh, -c, "echo life $(date +%s%N); exit 3"]"#));
    kubectl.eventually("get pods --no-headers", |line| line.contains("CrashLoopBackOff"));
    let restarts = kubectl.ok("get pod crash-0 -o jsonpath={.status.containerStatuses[0].restartCount}");
    assert_ne!(restarts, "0");
    let last = "get pod crash-0 -o jsonpath='{.status.containerStatuses[0].lastState.terminated.exitCode} {.status.containerStatuses[0].lastState.terminated.reason}'";
    assert_eq!(kubectl.ok(last), "3 Error");
    assert!(kubectl.ok("logs crash-0 --previous").starts_with("life "));
    let events = kubectl.ok("get events --field-selector involvedObject.name=crash-0 -o jsonpath={.items[*].reason}");
    assert!(events.contains("BackOff"), "{events}");
}

#[test]
fn acceptance_5_1_the_old_flag_leaves_the_pods_alone() {
    let understood = Cell::new(0);
    with_each_kubectl(|_, kubectl| {
        kubectl.apply(&set("app", 2, "", IDLE));
        ready(kubectl, "app", "2");
        let identities = "get pods -l app=app -o jsonpath={.items[*].metadata.uid}";
        let before = kubectl.ok(identities);
        // Debian's kubectl knows it; a newer one may have dropped it.
        let old = kubectl.run("delete sts app --cascade=false");
        if old.code == 0 {
            understood.set(understood.get() + 1);
        } else {
            assert!(old.stderr.contains("cascade"), "{old:?}");
            let _ = kubectl.ok("delete sts app --cascade=orphan");
        }
        assert_eq!(kubectl.ok("get sts -o name"), "");
        kubectl.eventually("get pods -l app=app -o jsonpath={.items[*].metadata.ownerReferences}", str::is_empty);
        assert_eq!(kubectl.ok(identities), before, "the pods run on");
        kubectl.apply(&set("app", 2, "", IDLE));
        ready(kubectl, "app", "2");
        assert_eq!(kubectl.ok(identities), before, "a new set takes them over");
    });
    assert!(understood.get() > 0, "no kubectl at hand knows the old flag");
}

#[test]
fn acceptance_5_1b_a_set_that_asks_for_it_goes_in_reverse_order() {
    let (_cluster, kubectl) = cluster();
    let ordered = set("app", 3, CLAIMS, IDLE)
        .replace("{name: app}\nspec:", "{name: app, annotations: {stead.dev/ordered-delete: \"true\"}}\nspec:");
    assert!(ordered.contains("ordered-delete"));
    kubectl.apply(&ordered);
    ready(&kubectl, "app", "3");
    let mut watch = kubectl.start("get pods -l app=app --watch-only --output-watch-events --no-headers");
    let _ = kubectl.ok("delete sts app --cascade=foreground");
    let seen = watch.until(|line| line.starts_with("DELETED") && line.contains("app-0")).to_vec();
    let at = |what: &str, pod: &str| position(&seen, pod, |line| line.starts_with(what) && line.contains(pod));
    for (above, below) in [("app-2", "app-1"), ("app-1", "app-0")] {
        assert!(
            at("DELETED", above) < at("MODIFIED", below),
            "{below} was touched before {above} was gone:\n{}",
            seen.join("\n")
        );
    }
    assert_eq!(kubectl.ok("get sts -o name"), "");
    assert_eq!(kubectl.ok("get pvc -o name").lines().count(), 3, "claims stay");
}

#[test]
fn acceptance_6_1_a_grpc_probe_asks_a_real_health_service() {
    let (_cluster, kubectl) = cluster();
    let pod = |name: &str, probe: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: etcd\n    image: quay.io/coreos/etcd:v3.4.23\n    command: [etcd, --data-dir=/tmp/data, \"--listen-client-urls=http://0.0.0.0:2379\", \"--advertise-client-urls=http://127.0.0.1:2379\"]\n    {probe}\n"
        )
    };
    kubectl.apply(&pod("serves", "readinessProbe: {grpc: {port: 2379}, periodSeconds: 1}"));
    // It knows nothing of a service of that name, and nobody listens on that port.
    kubectl.apply(&pod("unknown", "readinessProbe: {grpc: {port: 2379, service: other}, periodSeconds: 1}"));
    kubectl.apply(&pod("closed", "readinessProbe: {grpc: {port: 2999}, periodSeconds: 1}"));
    let _ = kubectl.ok("wait --for=condition=Ready pod/serves --timeout=110s");
    for name in ["unknown", "closed"] {
        kubectl.eventually(&format!("get events --field-selector involvedObject.name={name},reason=Unhealthy -o jsonpath={{.items[*].message}}"), |told| {
            told.contains("Readiness probe failed")
        });
        assert_eq!(kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.containerStatuses[0].ready}}")), "false");
    }
}
