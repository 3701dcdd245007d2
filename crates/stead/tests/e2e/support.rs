//! One registry for all tests, one server for each.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use stead_testkit::cluster::{Cluster, Options};
use stead_testkit::images;
use stead_testkit::kubectl::{self, Kubectl};
use stead_testkit::registry::Registry;

/// Runs an exercise once with each stock kubectl, each time on a server of its own.
pub(crate) fn with_each_kubectl(exercise: impl Fn(&Cluster, &Kubectl)) {
    for program in programs() {
        eprintln!("--- with {}", program.display());
        let cluster = start(&[]);
        exercise(&cluster, &cluster.kubectl(program));
    }
}

/// A server, and the newest kubectl at hand.
pub(crate) fn cluster() -> (Cluster, Kubectl) {
    let cluster = start(&[]);
    let kubectl = cluster.kubectl(&programs()[0]);
    (cluster, kubectl)
}

/// A namespace of its own on a server that tests share which run at the same time. For tests that neither stop the server nor
/// look at what belongs to no namespace.
pub(crate) fn namespace(name: &str) -> (Arc<Cluster>, Kubectl) {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let cluster = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(start(&[]));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    };
    let everywhere = cluster.kubectl(&programs()[0]);
    let _ = everywhere.ok(&format!("create namespace {name}"));
    let kubeconfig = cluster.directory().join(format!("{name}.yaml"));
    std::fs::copy(cluster.kubeconfig(), &kubeconfig).unwrap();
    let kubectl = Kubectl { kubeconfig, ..everywhere };
    let _ = kubectl.ok(&format!("config set-context --current --namespace={name}"));
    (cluster, kubectl)
}

/// The stock kubectls, looked for once.
pub(crate) fn programs() -> &'static [PathBuf] {
    static PROGRAMS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    PROGRAMS.get_or_init(|| kubectl::programs(&root().join("target/tools")).unwrap())
}

pub(crate) fn start(flags: &[&str]) -> Cluster {
    let options = Options {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_stead")),
        registries: Some(registries()),
        archives: Vec::new(),
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
    };
    Cluster::start(options).unwrap()
}

/// The layout of the test images.
pub(crate) fn layout() -> PathBuf {
    images::build_all(&root().join("target/test-images")).unwrap()
}

/// The `registries.yaml` that leads every pull to the loopback registry, which lives as long as this process.
pub(crate) fn registries() -> String {
    static YAML: OnceLock<String> = OnceLock::new();
    YAML.get_or_init(|| {
        let layout = layout();
        let (sender, yaml) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let registry = Registry::serve(&layout, 0).await.unwrap();
                sender.send(registry.registries_yaml()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        yaml.recv().unwrap()
    })
    .clone()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// A manifest of `examples/`.
pub(crate) fn example(name: &str) -> String {
    std::fs::read_to_string(root().join("examples").join(name).with_extension("yaml")).unwrap()
}

/// Whether the line of `get pods` shows all containers ready.
pub(crate) fn is_ready(line: &str) -> bool {
    line.contains(" 1/1 ") && line.contains(" Running ")
}

/// Where in `lines` the first one stands that `wanted` accepts.
#[track_caller]
pub(crate) fn position(lines: &[String], what: &str, wanted: impl Fn(&str) -> bool) -> usize {
    lines.iter().position(|line| wanted(line)).unwrap_or_else(|| panic!("no line with {what} in\n{}", lines.join("\n")))
}

/// Asserts that a watch of pods saw `names` come up one after the other, each only after the one before it was ready.
#[track_caller]
pub(crate) fn assert_came_up_in_order(lines: &[String], names: &[&str]) {
    for pair in names.windows(2) {
        let ready = position(lines, pair[0], |line| line.starts_with(&format!("{} ", pair[0])) && is_ready(line));
        let made = position(lines, pair[1], |line| line.starts_with(&format!("{} ", pair[1])));
        assert!(ready < made, "{} was made before {} was ready:\n{}", pair[1], pair[0], lines.join("\n"));
    }
}

/// Runs a command in a busybox pod of its own and returns what it printed.
#[track_caller]
pub(crate) fn in_busybox(kubectl: &Kubectl, command: &str) -> String {
    kubectl.ok(&format!("run asking --image=busybox --rm -i --restart=Never -- {command}"))
}

/// A set of busybox pods; `extra` goes into the set's spec, `container` into the container.
pub(crate) fn set(name: &str, replicas: u32, extra: &str, container: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  serviceName: {name}
  replicas: {replicas}
{extra}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
{container}
"#
    )
}

/// A container that ends at once when it is told to.
pub(crate) const IDLE: &str = r#"        command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]"#;
/// A claim template `data`.
pub(crate) const CLAIMS: &str = "  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}";

/// A Service for the set of that name; `address` is a field of its spec, with a comma.
pub(crate) fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{address}selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n"
    )
}

/// Waits for so many ready pods.
#[track_caller]
pub(crate) fn ready(kubectl: &Kubectl, set: &str, wanted: &str) {
    kubectl.eventually(&format!("get sts {set} -o jsonpath={{.status.readyReplicas}}"), |ready| ready == wanted);
}

/// The uid of a pod.
#[track_caller]
pub(crate) fn uid(kubectl: &Kubectl, pod: &str) -> String {
    kubectl.ok(&format!("get pod {pod} -o jsonpath={{.metadata.uid}}"))
}

/// Deletes the pod, waits until another one has its name and is Ready, and returns what kubectl said.
///
/// kubectl itself is not to wait: where a set is quick, kubectl up to 1.32 may look at the old pod, then find the new one, and
/// wait for ever for that one to go.
#[track_caller]
pub(crate) fn replace(kubectl: &Kubectl, pod: &str) -> String {
    let before = uid(kubectl, pod);
    let said = kubectl.ok(&format!("delete pod {pod} --wait=false"));
    replaced(kubectl, pod, &before);
    said
}

/// Waits until the pod is another one than that of the uid `before`, and Ready.
#[track_caller]
pub(crate) fn replaced(kubectl: &Kubectl, pod: &str, before: &str) {
    let look =
        format!("get pod {pod} -o jsonpath='{{.metadata.uid}} {{.status.conditions[?(@.type==\"Ready\")].status}}'");
    kubectl.eventually(&look, |seen| !seen.starts_with(before) && seen.ends_with("True"));
}
