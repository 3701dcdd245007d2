//! ACCEPTANCE section 2 beyond what the seeds' own exercises show: enforced sizes, growth, shared classes.

use crate::support::{cluster, replace};

/// A set with one pod, whose volume is of the class `CLASS`.
fn set(class: &str, parameters: &str, mode: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {class}}}
{parameters}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: store}}
spec:
  serviceName: store
  replicas: {replicas}
  selector:
    matchLabels: {{app: store}}
  template:
    metadata:
      labels: {{app: store}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: busybox
        command: [sleep, "100000"]
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      accessModes: [{mode}]
      storageClassName: {class}
      resources: {{requests: {{storage: 16Mi}}}}
"#
    )
}

const IMAGE: &str = "provisioner: stead.dev/local
parameters: {type: image}
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true";

#[test]
fn acceptance_2_10_a_claims_size_is_enforced_and_grows() {
    let (cluster, kubectl) = cluster();
    kubectl.apply(&set("fast-ssd", IMAGE, "ReadWriteOnce", 2));
    kubectl.eventually("get sts store -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    let _ = kubectl.ok("exec store-1 -- sh -c 'echo mine > /data/file'");
    let fill = "exec store-0 -- dd if=/dev/zero of=/data/big bs=1M count=20";
    let full = kubectl.run(fill);
    assert_ne!(full.code, 0);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    assert_eq!(kubectl.ok("exec store-1 -- cat /data/file"), "mine\n");
    let _ = kubectl.ok("exec store-1 -- sh -c 'echo more >> /data/file'");

    // It grows; where the kernel does not let the node do so at once, when the pod comes again.
    let _ = kubectl.ok(r#"patch pvc data-store-0 -p '{"spec":{"resources":{"requests":{"storage":"32Mi"}}}}'"#);
    let size = "get pvc data-store-0 -o jsonpath='{.status.capacity.storage} {.status.conditions[*].type}'";
    let seen = kubectl.eventually(size, |seen| seen == "32Mi " || seen == "16Mi FileSystemResizePending");
    if seen != "32Mi " {
        let _ = replace(&kubectl, "store-0");
    }
    kubectl.eventually(size, |seen| seen == "32Mi ");
    kubectl.eventually("get sts store -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    let _ = kubectl.ok(fill);
    let refused = kubectl.run(r#"patch pvc data-store-0 -p '{"spec":{"resources":{"requests":{"storage":"8Mi"}}}}'"#);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("can not be less than status.capacity"), "{}", refused.stderr);

    // Another pod in its stead finds the data; the claim's end takes the file with it.
    let _ = replace(&kubectl, "store-1");
    kubectl.eventually("get sts store -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    assert_eq!(kubectl.ok("exec store-1 -- cat /data/file"), "mine\nmore\n");
    let _ = kubectl.ok("delete sts store");
    let _ = kubectl.ok("delete pvc --all");
    kubectl.eventually("get pv -o name", str::is_empty);
    let left: Vec<_> = std::fs::read_dir(cluster.data_dir().join("storage")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_volume_that_no_pod_has_ever_used_goes_with_its_claim() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: now}
provisioner: stead.dev/local
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: unused}
spec: {accessModes: [ReadWriteOnce], storageClassName: now, resources: {requests: {storage: 1Mi}}}
"#,
    );
    kubectl.eventually("get pvc unused -o jsonpath={.status.phase}", |phase| phase == "Bound");
    let _ = kubectl.ok("delete pvc unused");
    kubectl.eventually("get pv -o name", str::is_empty);
}

#[test]
fn acceptance_2_8_a_shared_class_serves_one_claim_to_many_pods() {
    let (cluster, kubectl) = cluster();
    let export = cluster.data_dir().join("export");
    std::fs::create_dir(&export).unwrap();
    let shared = format!("provisioner: stead.dev/shared\nparameters: {{directory: {}}}", export.display());
    kubectl.apply(&set("nfs-client", &shared, "ReadWriteMany", 1));
    let reader = r#"
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: busybox, command: [sleep, "100000"], volumeMounts: [{name: data, mountPath: /data, readOnly: true}]}
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data-store-0}}
"#;
    kubectl.apply(reader);
    for pod in ["store-0", "reader"] {
        let _ = kubectl.ok(&format!("wait pod/{pod} --for=condition=Ready --timeout=60s"));
    }
    let _ = kubectl.ok("exec store-0 -- sh -c 'echo hello > /data/file'");
    assert_eq!(kubectl.ok("exec reader -- cat /data/file"), "hello\n");
    let refused = kubectl.run("exec reader -- touch /data/file");
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    assert_eq!(kubectl.ok("get pvc data-store-0 -o jsonpath={.status.accessModes[0]}"), "ReadWriteMany");
    let _ = kubectl.ok("delete sts/store pod/reader pvc/data-store-0");
    kubectl.eventually("get pv -o name", str::is_empty);
    assert_eq!(std::fs::read_dir(&export).unwrap().count(), 0);
}

#[test]
fn acceptance_2_1_a_set_with_two_templates_has_two_claims_a_pod() {
    let (_cluster, kubectl) = cluster();
    let logs = "  - metadata: {name: logs}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Mi}}}
";
    let mounts = "volumeMounts: [{name: data, mountPath: /data}, {name: logs, mountPath: /logs}]";
    let two = set("fast-ssd", IMAGE, "ReadWriteOnce", 2) + logs;
    kubectl.apply(&two.replace("volumeMounts: [{name: data, mountPath: /data}]", mounts));
    kubectl.eventually("get sts store -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    let claims =
        kubectl.ok("get pvc -o custom-columns=:.metadata.name,:.spec.storageClassName,:.status.phase --no-headers");
    let claims: Vec<Vec<&str>> = claims.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        claims,
        [
            ["data-store-0", "fast-ssd", "Bound"],
            ["data-store-1", "fast-ssd", "Bound"],
            ["logs-store-0", "standard", "Bound"],
            ["logs-store-1", "standard", "Bound"],
        ]
    );
    // Each goes to its own place in its own pod, and is found there by the next one.
    let _ = kubectl.ok("exec store-1 -- sh -c 'echo d > /data/file; echo l > /logs/file'");
    let other = kubectl.run("exec store-0 -- cat /data/file /logs/file");
    assert_ne!(other.code, 0, "{}", other.stdout);
    let _ = replace(&kubectl, "store-1");
    kubectl.eventually("get sts store -o jsonpath={.status.readyReplicas}", |ready| ready == "2");
    assert_eq!(kubectl.ok("exec store-1 -- cat /data/file /logs/file"), "d\nl\n");
}

/// A pod that mounts the claim; `more` goes into its spec.
fn user(name: &str, claim: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
{more}
  containers:
  - {{name: main, image: busybox, command: [sleep, "100000"], volumeMounts: [{{name: data, mountPath: /data}}]}}
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}
"#
    )
}

/// The messages of all events about an object.
fn told(name: &str) -> String {
    format!("get events --field-selector involvedObject.name={name} -o jsonpath={{.items[*].message}}")
}

#[test]
fn acceptance_2_8_a_claim_for_one_pod_is_refused_to_a_second() {
    let (_cluster, kubectl) = cluster();
    kubectl.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: sole}\nspec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Mi}}}",
    );
    kubectl.apply(&user("first", "sole", ""));
    let _ = kubectl.ok("wait pod/first --for=condition=Ready --timeout=120s");
    // One comes through the scheduler, one past it.
    kubectl.apply(&user("second", "sole", ""));
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    kubectl.apply(&user("third", "sole", &format!("  nodeName: {node}")));
    kubectl.eventually(&told("second"), |text| {
        text.contains("1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
    });
    kubectl.eventually(&told("third"), |text| {
        text.contains("MountVolume.SetUp failed for volume")
            && text.contains("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
    });
    assert_eq!(kubectl.ok("get pod first -o jsonpath={.status.phase}"), "Running");
    // When the first is gone, one of them gets it.
    let _ = kubectl.ok("delete pod first second");
    let _ = kubectl.ok("wait pod/third --for=condition=Ready --timeout=120s");
}

#[test]
fn acceptance_2_8_a_volume_without_the_access_mode_is_not_bound() {
    let (cluster, kubectl) = cluster();
    let claim = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteMany], storageClassName: hand, resources: {{requests: {{storage: 1Mi}}}}{more}}}\n"
        )
    };
    kubectl.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: once}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce, ReadOnlyMany], storageClassName: hand, hostPath: {{path: {}}}}}\n",
        cluster.data_dir().join("once").display()
    ));
    kubectl.apply(&claim("many", ""));
    kubectl.apply(&claim("named", ", volumeName: once"));
    kubectl.eventually(&told("named"), |text| {
        text.contains("Cannot bind to requested volume \"once\": incompatible accessMode")
    });
    kubectl.eventually(&told("many"), |text| text.contains("storageclass.storage.k8s.io \"hand\" not found"));
    assert_eq!(kubectl.ok("get pvc -o jsonpath={.items[*].status.phase}"), "Pending Pending");
    // ReadOnlyMany is among its modes.
    kubectl.apply(&claim("read", "").replace("ReadWriteMany", "ReadOnlyMany"));
    kubectl.eventually("get pvc read -o jsonpath='{.status.phase} {.spec.volumeName}'", |seen| seen == "Bound once");
}

#[test]
fn the_examples_of_the_storage_page_are_taken() {
    let (_cluster, kubectl) = cluster();
    let page = std::fs::read_to_string(crate::support::root().join("docs/storage.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    assert!(blocks.len() >= 3, "{page}");
    for block in blocks {
        kubectl.apply(block);
    }
    let classes = kubectl.ok("get storageclass -o name");
    for class in ["standard", "fast-ssd", "nfs-client", "linstor-r2"] {
        assert!(classes.contains(class), "{classes}");
    }
}

#[test]
fn acceptance_2_8_an_nfs_volume_without_a_server_or_a_client_says_so() {
    let (_cluster, kubectl) = cluster();
    let pod = user("reader", "none", "");
    // Nothing listens there: a kernel with a client is refused, one without says what to do.
    let nfs = "nfs: {server: 127.0.0.1, path: /srv/export}";
    kubectl.apply(&pod.replace("persistentVolumeClaim: {claimName: none}", nfs));
    kubectl.eventually(&told("reader"), |text| {
        text.contains("MountVolume.SetUp failed for volume \"data\" : mount failed: 127.0.0.1:/srv/export at ")
            && (text.contains("this kernel has no NFS client")
                || text.contains("refused")
                || text.contains("timed out"))
    });
    let _ = kubectl.ok("delete pod reader");
}
