//! ACCEPTANCE 2.9: a class of a real storage system, through the Container Storage Interface. The driver is a small one of the
//! tests' own, with real mounts.

use std::path::{Path, PathBuf};

use stead_csi::Code;
use stead_testkit::cluster::Cluster;
use stead_testkit::csi_driver::{Driver, Options};
use stead_testkit::kubectl::Kubectl;

use crate::support::{cluster, replace};

const NAME: &str = "linstor.csi.linbit.com";

fn options(cluster: &Cluster, attach: bool) -> Options {
    Options {
        name: NAME.to_owned(),
        socket: cluster.data_dir().join("agent/csi/linstor.sock"),
        pool: cluster.directory().join("pool"),
        pool_bytes: 256 << 20,
        attach,
    }
}

/// The class of the document, and a set of Redis on it.
fn redis(replicas: u32, size: &str, more: &str) -> String {
    format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: linstor-r2}}
provisioner: {NAME}
parameters: {{replicas: "2", csi.storage.k8s.io/fstype: ext4}}
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: redis}}
spec:
  serviceName: redis
  replicas: {replicas}
{more}
  selector:
    matchLabels: {{app: redis}}
  template:
    metadata:
      labels: {{app: redis}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: redis
        image: redis
        args: [--appendonly, "yes", --appendfsync, always]
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec:
      accessModes: [ReadWriteOnce]
      storageClassName: linstor-r2
      resources: {{requests: {{storage: {size}}}}}
"#
    )
}

fn ready(kubectl: &Kubectl, wanted: &str) {
    kubectl.eventually("get sts redis -o jsonpath={.status.readyReplicas}", |ready| ready == wanted);
}

/// Mount points below a directory.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

#[test]
fn acceptance_2_9_a_class_served_by_a_csi_driver_behaves_like_the_others() {
    let (mut cluster, kubectl) = cluster();
    let driver = Driver::start(options(&cluster, true)).unwrap();
    kubectl.eventually("get csinodes -o jsonpath={.items[*].spec.drivers[*].name}", |names| names == NAME);
    assert_eq!(kubectl.ok(&format!("get csidriver {NAME} -o jsonpath={{.spec.attachRequired}}")), "true");

    kubectl.apply(&redis(2, "32Mi", ""));
    ready(&kubectl, "2");
    assert_eq!(driver.volumes().len(), 2);
    let first = kubectl.ok("get pvc data-redis-0 -o jsonpath={.spec.volumeName}");
    assert_eq!(
        kubectl.ok(&format!(
            "get pv {first} -o jsonpath='{{.spec.csi.driver}} {{.spec.csi.fsType}} {{.spec.csi.volumeAttributes.replicas}} {{.spec.capacity.storage}}'"
        )),
        format!("{NAME} ext4 2 32Mi")
    );
    kubectl.eventually("get volumeattachments -o jsonpath={.items[*].status.attached}", |seen| seen == "true true");

    // The data are the pod's own, and survive its replacement, the driver's and the server's restart.
    let _ = kubectl.ok("exec redis-0 -- redis-cli set key zero");
    let _ = kubectl.ok("exec redis-1 -- redis-cli set key one");
    let _ = replace(&kubectl, "redis-0");
    assert_eq!(kubectl.ok("exec redis-0 -- redis-cli get key").trim(), "zero");
    drop(driver);
    cluster.kill_server().unwrap();
    cluster.start_server().unwrap();
    let driver = Driver::start(options(&cluster, true)).unwrap();
    kubectl.eventually("get csinodes -o jsonpath={.items[*].spec.drivers[*].name}", |names| names == NAME);
    assert_eq!(kubectl.ok("exec redis-1 -- redis-cli get key").trim(), "one");
    let _ = replace(&kubectl, "redis-1");
    assert_eq!(kubectl.ok("exec redis-1 -- redis-cli get key").trim(), "one");

    // Its size is enforced, and grows; where the kernel does not let the driver do so at once, when the pod comes again.
    let fill = "exec redis-0 -- dd if=/dev/zero of=/data/big bs=1M count=36";
    let full = kubectl.run(fill);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    let _ = kubectl.ok("exec redis-0 -- rm /data/big");
    let _ = kubectl.ok(r#"patch pvc data-redis-0 -p '{"spec":{"resources":{"requests":{"storage":"64Mi"}}}}'"#);
    let size = "get pvc data-redis-0 -o jsonpath='{.status.capacity.storage} {.status.conditions[*].type}'";
    let seen = kubectl.eventually(size, |seen| seen == "64Mi " || seen == "32Mi FileSystemResizePending");
    if seen != "64Mi " {
        let _ = replace(&kubectl, "redis-0");
    }
    kubectl.eventually(size, |seen| seen == "64Mi ");
    let _ = kubectl.ok(fill);
    let _ = kubectl.ok("exec redis-0 -- rm /data/big");

    // Fewer pods keep the claims; then everything goes, from the pool too.
    let _ = kubectl.ok("scale sts redis --replicas=1");
    kubectl.eventually("get pods -o name", |names| names == "pod/redis-0\n");
    kubectl.eventually("get volumeattachments -o name", |names| names.lines().count() == 1);
    assert_eq!(driver.volumes().len(), 2);
    let _ = kubectl.ok("scale sts redis --replicas=2");
    ready(&kubectl, "2");
    assert_eq!(kubectl.ok("exec redis-1 -- redis-cli get key").trim(), "one");
    let _ = kubectl.ok("delete sts redis");
    let _ = kubectl.ok("delete pvc --all");
    kubectl.eventually("get pv,volumeattachments -o name", str::is_empty);
    assert!(driver.volumes().is_empty(), "{:?}", driver.volumes());
    assert_eq!(mounts_below(&cluster.data_dir().join("agent/plugins")), Vec::<PathBuf>::new());
}

#[test]
fn acceptance_2_9_a_failing_driver_is_told_of_and_recovers() {
    let (cluster, kubectl) = cluster();
    let driver = Driver::start(options(&cluster, true)).unwrap();
    let told = |name: &str| {
        format!(
            "get events --field-selector involvedObject.name={name} -o jsonpath='{{range .items[*]}}{{.reason}} {{.message}};{{end}}'"
        )
    };
    let fails = |call: &str, object: &str, text: &str| {
        driver.fail(call, Code::Internal, "the storage is on fire");
        kubectl.eventually(&told(object), |seen| seen.contains(text));
        driver.heal();
    };
    driver.fail("CreateVolume", Code::Internal, "the storage is on fire");
    let policy = "  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Retain}";
    kubectl.apply(&redis(1, "16Mi", policy));
    kubectl.eventually(&told("data-redis-0"), |seen| {
        seen.contains("ProvisioningFailed failed to provision volume with StorageClass \"linstor-r2\": rpc error: code = Internal desc = the storage is on fire")
    });
    driver.fail("ControllerPublishVolume", Code::Internal, "no path to the node");
    driver.fail("NodeStageVolume", Code::Internal, "no such device");
    driver.fail("NodePublishVolume", Code::Internal, "not here");
    driver.heal_one("CreateVolume");
    kubectl.eventually(&told("redis-0"), |seen| {
        seen.contains("FailedAttachVolume AttachVolume.Attach failed for volume")
            && seen.contains("rpc error: code = Internal desc = no path to the node")
    });
    driver.heal_one("ControllerPublishVolume");
    kubectl.eventually(&told("redis-0"), |seen| {
        seen.contains("FailedMount MountVolume.MountDevice failed for volume")
            && seen.contains("rpc error: code = Internal desc = no such device")
            && seen.contains("SuccessfulAttachVolume AttachVolume.Attach succeeded for volume")
    });
    driver.heal_one("NodeStageVolume");
    kubectl.eventually(&told("redis-0"), |seen| {
        seen.contains("FailedMount MountVolume.SetUp failed for volume")
            && seen.contains("rpc error: code = Internal desc = not here")
    });
    driver.heal();
    ready(&kubectl, "1");

    // The node's part of growth fails at first.
    driver.fail("NodeExpandVolume", Code::Internal, "the device is busy");
    let _ = kubectl.ok(r#"patch pvc data-redis-0 -p '{"spec":{"resources":{"requests":{"storage":"24Mi"}}}}'"#);
    kubectl.eventually(&told("redis-0"), |seen| {
        seen.contains("VolumeResizeFailed") && seen.contains("rpc error: code = Internal desc = the device is busy")
    });
    driver.heal();
    let size = "get pvc data-redis-0 -o jsonpath='{.status.capacity.storage} {.status.conditions[*].type}'";
    kubectl.eventually(&told("redis-0"), |seen| {
        // Where the kernel lets nobody grow what is mounted, the driver says so, and it is done with the next pod.
        seen.contains("FailedPrecondition") || kubectl.ok(size) == "24Mi "
    });
    if kubectl.ok(size) != "24Mi " {
        let _ = replace(&kubectl, "redis-0");
    }
    kubectl.eventually(size, |seen| seen == "24Mi ");

    // More than the pool holds: the claim says so, and keeps what it has.
    let volume = kubectl.ok("get pvc data-redis-0 -o jsonpath={.spec.volumeName}");
    let _ = kubectl.ok(r#"patch pvc data-redis-0 -p '{"spec":{"resources":{"requests":{"storage":"1Gi"}}}}'"#);
    kubectl.eventually(&told("data-redis-0"), |seen| {
        seen.contains("VolumeResizeFailed resize volume")
            && seen.contains("rpc error: code = ResourceExhausted desc = the pool has")
    });
    assert_eq!(kubectl.ok("get pvc data-redis-0 -o jsonpath={.status.capacity.storage}"), "24Mi");
    driver.fail("DeleteVolume", Code::Internal, "the storage is on fire");
    let _ = kubectl.ok("delete sts redis");
    kubectl.eventually("get pvc -o name", str::is_empty);
    fails("DeleteVolume", &volume, "VolumeFailedDelete rpc error: code = Internal desc = the storage is on fire");
    kubectl.eventually("get pv -o name", str::is_empty);
    assert!(driver.volumes().is_empty());
}

#[test]
fn acceptance_2_9_a_driver_with_side_cars_of_its_own_is_served_as_by_a_kubelet() {
    let (cluster, kubectl) = cluster();
    let registry = cluster.data_dir().join("agent/plugins_registry/linstor-reg.sock");
    let driver = Driver::start(Options { socket: registry, ..options(&cluster, false) }).unwrap();
    driver.make("by-hand", 16 << 20).unwrap();
    kubectl.eventually("get csinodes -o jsonpath={.items[*].spec.drivers[*].name}", |names| names == NAME);
    assert_eq!(driver.calls("NotifyRegistrationStatus"), 1);
    // What the side-cars and the makers of the driver bring with them.
    kubectl.apply(&format!(
        "apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {{name: {NAME}}}\nspec: {{attachRequired: false}}\n"
    ));
    kubectl.apply(&format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: key, namespace: kube-system}}
stringData: {{passphrase: open sesame}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: by-hand}}
spec:
  capacity: {{storage: 16Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: ""
  persistentVolumeReclaimPolicy: Delete
  csi: {{driver: {NAME}, volumeHandle: by-hand, fsType: ext4, nodeStageSecretRef: {{name: key, namespace: kube-system}}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: by-hand}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: "", volumeName: by-hand, resources: {{requests: {{storage: 16Mi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: user}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000, fsGroup: 2000}}
  containers:
  - {{name: main, image: busybox, command: [sleep, "100000"], volumeMounts: [{{name: data, mountPath: /data}}]}}
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: by-hand}}}}
"#
    ));
    let _ = kubectl.ok("wait pod/user --for=condition=Ready --timeout=120s");
    assert_eq!(driver.secrets()["passphrase"], "open sesame");
    let _ = kubectl.ok("exec user -- sh -c 'echo hello > /data/file'");
    assert_eq!(kubectl.ok("exec user -- stat -c %g /data/file"), "2000\n");
    assert_eq!(kubectl.ok("get volumeattachments -o name"), "");

    // Nobody else does the work of its side-cars.
    kubectl.apply(&redis(1, "16Mi", "").replace("WaitForFirstConsumer", "Immediate"));
    kubectl.eventually(
        "get events --field-selector involvedObject.name=data-redis-0 -o jsonpath={.items[*].message}",
        |seen| {
            seen.contains(&format!("Waiting for a volume to be created either by the external provisioner '{NAME}'"))
        },
    );
    let _ = kubectl.ok("delete pod/user pvc/by-hand sts/redis");
    kubectl.eventually("get pv by-hand -o jsonpath={.status.phase}", |phase| phase == "Released");
    for call in ["CreateVolume", "DeleteVolume", "ControllerPublishVolume"] {
        assert_eq!(driver.calls(call), 0, "{call}");
    }
    assert_eq!(driver.calls("NodeUnstageVolume"), 1);
    assert_eq!(mounts_below(&cluster.data_dir().join("agent/plugins")), Vec::<PathBuf>::new());
}

#[test]
fn acceptance_2_9_a_pod_lost_while_its_node_was_down_leaves_no_mount() {
    let (mut cluster, kubectl) = cluster();
    let driver = Driver::start(options(&cluster, true)).unwrap();
    kubectl.apply(&redis(1, "16Mi", ""));
    ready(&kubectl, "1");
    let uid = kubectl.ok("get pod redis-0 -o jsonpath={.metadata.uid}");
    let own = cluster.data_dir().join("agent/pods").join(&uid);
    assert_eq!(mounts_below(&own.join("volumes/kubernetes.io~csi")).len(), 1);
    // It is gone from the API at once; the node has no time to see it, and its driver comes back only later.
    let _ = kubectl.ok("scale sts redis --replicas=0");
    let _ = kubectl.run("delete pod redis-0 --grace-period=0 --force --wait=false");
    cluster.kill_server().unwrap();
    drop(driver);
    cluster.start_server().unwrap();
    let driver = Driver::start(options(&cluster, true)).unwrap();
    kubectl.eventually("get pods,volumeattachments -o name", str::is_empty);
    assert_eq!(mounts_below(&own), Vec::<PathBuf>::new());
    assert!(driver.calls("NodeUnstageVolume") <= 1, "not twice");
    let _ = kubectl.ok("scale sts redis --replicas=1");
    ready(&kubectl, "1");
}
