//! ACCEPTANCE section 9 and the catalogue of states behind it: each is made on purpose on a real server, `stead explain`
//! names it with cause and mend, and the mend as it is printed, carried out in a shell, mends it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use stead_testkit::cluster::Cluster;
use stead_testkit::kubectl::{COMMAND_TIMEOUT, Kubectl};

use crate::support::cluster;

/// What `stead explain` and its kin did.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) errors: String,
}

/// Runs `stead WORDS` with a kubeconfig and nothing else.
pub(crate) fn stead(kubeconfig: &Path, words: &[&str]) -> Told {
    let output = Command::new(env!("CARGO_BIN_EXE_stead"))
        .args(words)
        .env("KUBECONFIG", kubeconfig)
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told { code: output.status.code().unwrap(), text: text(output.stdout), errors: text(output.stderr) }
}

/// A namespace of a server in which one state is made.
struct Place<'a> {
    cluster: &'a Cluster,
    kubectl: Kubectl,
    /// Where a program named `kubectl` is.
    path: &'a Path,
    namespace: &'a str,
}

impl Place<'_> {
    fn apply(&self, manifest: &str) {
        let done = self.kubectl.run_with_input(&format!("-n {} apply -f -", self.namespace), manifest);
        assert_eq!(done.code, 0, "{manifest}\n{}", done.stderr);
    }

    #[track_caller]
    fn ok(&self, command: &str) -> String {
        self.kubectl.ok(&format!("-n {} {command}", self.namespace))
    }

    fn eventually(&self, command: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.kubectl.eventually(&format!("-n {} {command}", self.namespace), wanted)
    }

    fn explain(&self, object: &str) -> Told {
        stead(&self.cluster.kubeconfig(), &["-n", self.namespace, "explain", object])
    }

    /// Asks until the explanation has all of `parts`, and the exit code that goes with them.
    #[track_caller]
    fn explained(&self, object: &str, code: i32, parts: &[&str]) -> String {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            let told = self.explain(object);
            let missing: Vec<_> = parts.iter().filter(|part| !told.text.contains(**part)).collect();
            if missing.is_empty() && told.code == code {
                return told.text;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {missing:?} is missing, or exit code {code} (it is {}), in\n{}{}",
                self.namespace,
                told.code,
                told.errors,
                told.text
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// Carries out the command of a mend as it is printed: the first with that in it.
    #[track_caller]
    fn carry_out(&self, told: &str, part: &str, fill_in: &[(&str, &str)], editor: &str) -> String {
        let commands = told.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
        let command = commands.into_iter().find(|command| command.contains(part));
        let mut command = command.unwrap_or_else(|| panic!("no mend with {part:?} in\n{told}")).to_owned();
        for (word, value) in fill_in {
            assert!(command.contains(word), "{word} is not in {command}");
            command = command.replace(word, value);
        }
        let path = format!("{}:{}", self.path.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", &command])
            .env("PATH", path)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("KUBE_EDITOR", editor)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // What shows what is wrong may itself fail, as a probe's command does.
        assert!(output.status.success() || part == "exec", "{command}\n{text}");
        text
    }

    /// The set is as wanted.
    #[track_caller]
    fn mended(&self, object: &str) {
        self.explained(object, 0, &[]);
    }
}

/// A Service and a set of `replicas` with a container `main` of busybox; what is special of the set, its pods, its container.
fn set(replicas: u32, set: &str, pod: &str, container: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: web}}
spec:
  serviceName: web
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
{set}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
{pod}
      containers:
      - name: main
{}
"#,
        if container.contains("image:") {
            container.to_owned()
        } else {
            format!("        image: busybox\n{container}")
        }
    )
}

const SLEEP: &str = "        command: [sh, -c, 'trap exit TERM; while :; do sleep 0.1; done']";

/// The same with a claim of that class.
fn set_with_claim(class: &str) -> String {
    let template = format!(
        "  volumeClaimTemplates:\n  - metadata: {{name: data}}\n    spec: {{accessModes: [ReadWriteOnce], storageClassName: {class}, resources: {{requests: {{storage: 1Mi}}}}}}"
    );
    set(2, &template, "", &format!("{SLEEP}\n        volumeMounts: [{{name: data, mountPath: /data}}]"))
}

fn image(at: &Place<'_>) {
    at.apply(&set(2, "", "", "        image: busybox:nothere\n        command: [sleep, '100000']"));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "web-1 waits for web-0 to be Running and Ready (OrderedReady)",
            "pod/web-0: the image \"busybox:nothere\" cannot be pulled: ",
            "ImagePullBackOff",
        ],
    );
    at.carry_out(&told, "set image", &[("IMAGE", "busybox")], "");
    at.mended("sts/web");
}

fn crash(at: &Place<'_>) {
    at.apply(&set(1, "", "", "        command: [sh, -c, 'echo MODE is not set; exit 3; sleep 100000']"));
    let told = at.explained(
        "sts/web",
        2,
        &["container main ends again and again (exit code 3)", "CrashLoopBackOff", "log: MODE is not set"],
    );
    assert!(at.carry_out(&told, "logs web-0", &[], "").contains("MODE is not set"));
    at.carry_out(&told, "edit statefulset/web", &[], "sed -i 's/exit 3/true/'");
    at.mended("sts/web");
}

fn readiness(at: &Place<'_>) {
    let probe = "        readinessProbe: {exec: {command: [cat, /ready]}, periodSeconds: 1}";
    at.apply(&set(2, "", "", &format!("{SLEEP}\n{probe}")));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "web-1 waits for web-0 to be Running and Ready (OrderedReady)",
            "container main runs, but its readiness probe fails: cat: can't open '/ready'",
            "exec [\"cat\", \"/ready\"], every 1 s, 3 times",
        ],
    );
    assert!(at.carry_out(&told, "exec", &[], "").contains("No such file"));
    at.ok("exec web-0 -- touch /ready");
    at.eventually("exec web-1 -- touch /ready", |_| true);
    at.mended("sts/web");
}

fn readiness_port(at: &Place<'_>) {
    let probe = "        image: nginx:1.21\n        readinessProbe: {httpGet: {port: 81}, periodSeconds: 1}";
    at.apply(&set(1, "", "", probe));
    let told = at.explained(
        "pod/web-0",
        2,
        &["its readiness probe fails: nothing listens on that port", "GET / on port 81, every 1 s"],
    );
    at.carry_out(&told, "edit statefulset/web", &[], "sed -i 's/port: 81/port: 80/'");
    at.mended("sts/web");
}

fn class(at: &Place<'_>) {
    at.apply(&set_with_claim("nowhere-ssd"));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "web-1 waits for web-0 to be Running and Ready (OrderedReady)",
            "  pod/web-0: no node can take it",
            "persistentvolumeclaim/data-web-0: its storage class \"nowhere-ssd\" does not exist",
            "storageclass.storage.k8s.io \"nowhere-ssd\" not found",
        ],
    );
    at.carry_out(&told, "StorageClass", &[], "");
    at.mended("sts/web");
}

fn no_volume(at: &Place<'_>) {
    at.apply("apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: by-hand}\nprovisioner: kubernetes.io/no-provisioner");
    at.apply(&set_with_claim("by-hand").replace("replicas: 2", "replicas: 1"));
    let told = at.explained("sts/web", 2, &[
        "pod has unbound immediate PersistentVolumeClaims",
        "persistentvolumeclaim/data-web-0: no volume is available: those of class \"by-hand\" are made by hand, and none fits",
    ]);
    let path = at.cluster.directory().join("by-hand");
    at.carry_out(&told, "PersistentVolume", &[("PATH", &path.display().to_string())], "");
    at.mended("sts/web");
}

fn provisioner(at: &Place<'_>) {
    at.apply(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: absent}\nprovisioner: example.com/absent",
    );
    at.apply(&set_with_claim("absent").replace("replicas: 2", "replicas: 1"));
    let parts = [
        "persistentvolumeclaim/data-web-0: no volume yet from provisioner example.com/absent",
        "see whether its provisioner runs",
    ];
    let told = at.explained("pvc/data-web-0", 2, &parts);
    let path = at.cluster.directory().join("absent");
    at.carry_out(&told, "PersistentVolume", &[("PATH", &path.display().to_string())], "");
    at.mended("sts/web");
}

fn service_missing(at: &Place<'_>) {
    at.apply(&set(1, "", "", SLEEP));
    at.ok("delete service web");
    let told = at.explained(
        "sts/web",
        2,
        &["service/web: the headless Service of the set does not exist", "1 of 1 pods are Ready"],
    );
    at.carry_out(&told, "\"Service\"", &[], "");
    at.mended("sts/web");
    at.eventually(
        "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].hostname}",
        |names| names == "web-0",
    );
}

fn selector(at: &Place<'_>) {
    at.apply(&set(1, "", "", SLEEP).replace("selector: {app: web}, ports", "selector: {app: wbe, tier: x}, ports"));
    let told = at.explained(
        "sts/web",
        2,
        &["service/web: the Service selects none of the set's pods", "app=wbe,tier=x", "labels of the pods: app=web"],
    );
    at.explained("svc/web", 2, &["it selects no pod"]);
    at.carry_out(&told, "patch service web", &[], "");
    at.mended("sts/web");
    at.mended("svc/web");
}

fn service_name(at: &Place<'_>) {
    at.apply(&set(1, "", "", SLEEP).replace("serviceName: web", "serviceName: web-headless"));
    let told = at.explained("sts/web", 2, &[
        "the set's serviceName is \"web-headless\", which does not exist; the headless Service of its pods is \"web\"",
    ]);
    at.carry_out(&told, "web-headless", &[], "");
    at.mended("sts/web");
}

fn resources(at: &Place<'_>) {
    at.apply(&set(2, "", "", &format!("{SLEEP}\n        resources: {{requests: {{cpu: 1000}}}}")));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "0/1 nodes are available: 1 Insufficient cpu.",
            "it asks for 1k cpu, more than any node has at all",
            "cpu left",
        ],
    );
    at.carry_out(&told, "set resources", &[], "");
    at.mended("sts/web");
}

fn anti_affinity(at: &Place<'_>) {
    let rule = "      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}]}}";
    at.apply(&set(2, "", rule, SLEEP));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "its anti-affinity cannot be met: every node has a pod that it must not share with",
            "not with app=web on one kubernetes.io/hostname",
            "has pod web-0",
        ],
    );
    at.carry_out(&told, "scale statefulset/web --replicas=1", &[], "");
    at.mended("sts/web");
}

fn node_selector(at: &Place<'_>) {
    at.apply(&set(1, "", "      nodeSelector: {disk: fast}", SLEEP));
    let told = at.explained("sts/web", 2, &["no node has the labels that it asks for", "spec.nodeSelector: disk=fast"]);
    at.carry_out(&told, "label node", &[], "");
    at.mended("sts/web");
}

fn roll_out(at: &Place<'_>) {
    at.apply(&set(2, "", "", SLEEP));
    at.mended("sts/web");
    at.ok("set image sts/web main=busybox:nothere");
    let told = at.explained(
        "sts/web",
        2,
        &[
            "1 of 2 pods are of it",
            "it is stuck on web-1 (it has the new revision)",
            "cannot be pulled",
            "go back to the revision that worked",
        ],
    );
    assert!(!told.contains("delete pod"), "healing makes that needless:\n{told}");
    at.carry_out(&told, "rollout undo", &[], "");
    at.mended("sts/web");
}

fn roll_out_without_healing(at: &Place<'_>) {
    at.apply(&set(2, "", "", SLEEP));
    at.mended("sts/web");
    at.ok("annotate sts web stead.dev/heal=false");
    at.ok("set image sts/web main=busybox:nothere");
    let told = at.explained(
        "sts/web",
        2,
        &["it is stuck on web-1 (it has the new revision)", "then replace the broken pod, which the set waits for"],
    );
    at.carry_out(&told, "rollout undo", &[], "");
    // Upstream's trap: the template is mended, and nothing happens.
    let told = at.explained(
        "sts/web",
        2,
        &["it is stuck on web-1 (it has an old revision)", "an ordered set waits for it: delete it"],
    );
    at.carry_out(&told, "delete pod web-1", &[], "");
    at.mended("sts/web");
}

fn quota(at: &Place<'_>) {
    at.apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: 1}}");
    at.eventually("get resourcequota few -o jsonpath={.status.hard.pods}", |hard| hard == "1");
    at.apply(&set(3, "", "", SLEEP));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "web-2 waits for web-1 (OrderedReady)",
            "pod/web-1: it cannot be made: a quota forbids it",
            "resourcequota/few: it allows no more",
            "pods 1 of 1",
        ],
    );
    at.carry_out(&told, "patch resourcequota few", &[("RESOURCE", "pods"), ("AMOUNT", "5")], "");
    at.mended("sts/web");
}

fn config(at: &Place<'_>) {
    at.apply(&set(1, "", "", &format!("{SLEEP}\n        envFrom: [{{configMapRef: {{name: settings}}}}]")));
    let told = at.explained(
        "sts/web",
        2,
        &[
            "container main cannot be made: something that it is given does not exist",
            "configmap/settings: it does not exist",
        ],
    );
    at.carry_out(&told, "ConfigMap", &[("KEY", "mode"), ("VALUE", "fast")], "");
    at.mended("sts/web");
}

fn stranger(at: &Place<'_>) {
    at.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: web-0, labels: {app: other}}\nspec: {terminationGracePeriodSeconds: 0, containers: [{name: main, image: busybox, command: [sleep, '100000']}]}");
    at.apply(&set(1, "", "", SLEEP));
    let told = at.explained(
        "sts/web",
        2,
        &["pod/web-0: it exists, but is not of this set, which cannot make its own", "app=other"],
    );
    at.carry_out(&told, "delete pod web-0", &[], "");
    at.mended("sts/web");
}

fn claim_deleted(at: &Place<'_>) {
    at.apply(&set_with_claim("standard").replace("replicas: 2", "replicas: 1"));
    at.mended("sts/web");
    at.ok("delete pvc data-web-0 --wait=false");
    let told = at.explained(
        "sts/web",
        2,
        &[
            "persistentvolumeclaim/data-web-0: it is being deleted, and goes when no pod uses it any more",
            "kubernetes.io/pvc-protection",
            "used by: web-0",
        ],
    );
    at.carry_out(&told, "delete pod web-0", &[], "");
    at.mended("sts/web");
}

fn finalizer(at: &Place<'_>) {
    at.apply(&set(1, "", "", SLEEP));
    at.mended("sts/web");
    at.ok(r#"patch pod web-0 --type=merge -p '{"metadata":{"finalizers":["example.com/hold"]}}'"#);
    at.ok("delete pod web-0 --wait=false");
    let told = at.explained(
        "sts/web",
        2,
        &["it has ended but is held by its finalizers", "metadata.finalizers: example.com/hold"],
    );
    at.carry_out(&told, "patch pod web-0", &[], "");
    at.mended("sts/web");
}

/// What is held on purpose is no fault: exit code 0, and a note says what holds it.
fn held(at: &Place<'_>) {
    at.apply(&set(2, "  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}", "", SLEEP));
    at.mended("sts/web");
    at.ok("set env sts/web A=1");
    let told = at.explained(
        "sts/web",
        0,
        &["note: roll-out of web-", "1 of 2 pods are of it: web-0 stay as they are, below the partition"],
    );
    at.carry_out(&told, "patch statefulset/web", &[], "");
    at.eventually("get sts web -o jsonpath={.status.updatedReplicas}", |updated| updated == "2");
    at.mended("sts/web");
    at.ok("scale sts/web --replicas=1");
    at.eventually("get pods -o name", |pods| pods.trim() == "pod/web-0");
    at.explained("sts/web", 0, &["1 of 1 pods are Ready"]);
}

type State = (&'static str, fn(&Place<'_>));

/// What every section of this file makes, in a namespace of its own.
const STATES: &[State] = &[
    ("provisioner", provisioner),
    ("image", image),
    ("crash", crash),
    ("readiness", readiness),
    ("readiness-port", readiness_port),
    ("class", class),
    ("no-volume", no_volume),
    ("service-missing", service_missing),
    ("selector", selector),
    ("service-name", service_name),
    ("resources", resources),
    ("anti-affinity", anti_affinity),
    ("node-selector", node_selector),
    ("roll-out", roll_out),
    ("roll-out-without-healing", roll_out_without_healing),
    ("quota", quota),
    ("config", config),
    ("stranger", stranger),
    ("claim-deleted", claim_deleted),
    ("finalizer", finalizer),
    ("held", held),
];

/// How many states are made at a time.
const AT_A_TIME: usize = 8;

/// A directory with a link named `kubectl`.
fn kubectl_directory(cluster: &Cluster) -> PathBuf {
    let directory = cluster.directory().join("bin");
    std::fs::create_dir(&directory).unwrap();
    // Ours: the stock one may wait for ever for a pod that has a successor already, see `support::replace`.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stead"), directory.join("kubectl")).unwrap();
    directory
}

#[test]
fn acceptance_9_every_state_is_named_with_its_cause_and_the_mend_mends_it() {
    let (cluster, kubectl) = cluster();
    let path = kubectl_directory(&cluster);
    let only = std::env::var("STATE").ok();
    let states: Vec<State> =
        STATES.iter().copied().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((namespace, make)) = states.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    let _ = kubectl.ok(&format!("create namespace {namespace}"));
                    make(&Place { cluster: &cluster, kubectl: kubectl.clone(), path: &path, namespace });
                    eprintln!("{namespace}: {:?}", begun.elapsed());
                }
            });
        }
    });
    if only.is_some() {
        return;
    }
    // What concerns the whole cluster comes alone: a node out of scheduling, and no default class.
    let at = |namespace| {
        let _ = kubectl.ok(&format!("create namespace {namespace}"));
        Place { cluster: &cluster, kubectl: kubectl.clone(), path: &path, namespace }
    };
    let alone = at("cordoned");
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}");
    let _ = kubectl.ok(&format!("cordon {node}"));
    alone.apply(&set(1, "", "", SLEEP));
    let told = alone.explained(
        "sts/web",
        2,
        &["nodes are taken out of scheduling (cordoned)", "1 node(s) were unschedulable"],
    );
    alone.carry_out(&told, "uncordon", &[], "");
    alone.mended("sts/web");

    let alone = at("no-default");
    let _ = kubectl.ok("annotate storageclass standard storageclass.kubernetes.io/is-default-class=false --overwrite");
    alone.apply(&set_with_claim("X").replace("storageClassName: X, ", ""));
    let told = alone.explained(
        "sts/web",
        2,
        &[
            "persistentvolumeclaim/data-web-0: no storage class is set, and none is the default",
            "no persistent volumes available for this claim and no storage class is set",
        ],
    );
    alone.carry_out(&told, "patch storageclass", &[], "");
    alone.mended("sts/web");
}
