//! `stead controller` beside another StatefulSet controller: that of a stead server, which stands back from managed sets.
//! The companions have no more rights than `examples/controller.yaml` gives.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use stead_testkit::cluster::{Cluster, Options};
use stead_testkit::kubectl::Kubectl;

use crate::support::{IDLE, cluster, example, programs, registries, set, uid};

const LEASE: &str = "get lease stead-controller -n kube-system -o jsonpath={.spec.holderIdentity}";
/// Whether a roll-out of the newest revision is complete, as the companion has it.
const GOOD: &str = "get sts web -o jsonpath='{.metadata.generation} {.status.observedGeneration} \
                    {.status.updateRevision} {.metadata.annotations.stead\\.dev/good-revision} {.status.readyReplicas}'";

/// One `stead controller`.
struct Companion(Child);

impl Companion {
    /// Starts one that loses its lease within seconds, and waits until it stands for election.
    fn start(kubeconfig: &Path, name: &str, more: &[&str]) -> Self {
        let log = File::create(kubeconfig.with_file_name(format!("{name}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command.arg("controller").arg("--kubeconfig").arg(kubeconfig).args(more);
        command.args([
            "--leader-elect-lease-duration=3",
            "--leader-elect-renew-deadline=2",
            "--leader-elect-retry-period=1",
        ]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "stead controller is ready\n", "see {name}.log beside {}", kubeconfig.display());
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    fn stop(mut self) -> ExitStatus {
        let done = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(done.success());
        self.0.wait().unwrap()
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A kubeconfig for the service account of the example, with the rights that the example gives and no other.
fn account(cluster: &Cluster, kubectl: &Kubectl) -> std::path::PathBuf {
    let manifest = example("controller");
    let rights: Vec<&str> =
        manifest.split("\n---\n").filter(|document| !document.contains("kind: Deployment")).collect();
    kubectl.apply(&rights.join("\n---\n"));
    let token = kubectl.ok("create token stead-controller -n kube-system");
    let kubeconfig = cluster.directory().join("companion.yaml");
    std::fs::copy(cluster.kubeconfig(), &kubeconfig).unwrap();
    let own = Kubectl { kubeconfig: kubeconfig.clone(), ..kubectl.clone() };
    let _ = own.ok(&format!("config set-credentials companion --token={}", token.trim()));
    let _ = own.ok("config set-context --current --user=companion");
    assert_eq!(own.run("auth can-i create pods").stdout, "no\n");
    kubeconfig
}

fn managed(replicas: u32) -> String {
    let probe = "        readinessProbe: {exec: {command: [\"true\"]}, periodSeconds: 1}";
    set("web", replicas, "  updateStrategy: {type: OnDelete}", &format!("{IDLE}\n{probe}")).replace(
        "metadata: {name: web}\nspec:\n  serviceName",
        "metadata: {name: web, annotations: {stead.dev/managed: \"true\"}}\nspec:\n  serviceName",
    )
}

fn rolled_out(kubectl: &Kubectl, replicas: &str) {
    kubectl.eventually(GOOD, |text| {
        let words: Vec<&str> = text.trim_matches('\'').split(' ').collect();
        matches!(words[..], [wanted, seen, update, good, ready] if wanted == seen && update == good && ready == replicas)
    });
}

fn stead(cluster: &Cluster, words: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_stead")).args(words).env("KUBECONFIG", cluster.kubeconfig()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_companion_heals_pauses_rolls_out_and_deletes_in_order_and_another_takes_over() {
    let (cluster, kubectl) = cluster();
    let kubeconfig = account(&cluster, &kubectl);
    let first = Companion::start(&kubeconfig, "first", &[]);
    let leader = kubectl.eventually(LEASE, |holder| !holder.is_empty());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let second = Companion::start(&kubeconfig, "second", &[&format!("--metrics-bind-address=127.0.0.1:{port}")]);
    kubectl.apply(&managed(3));
    rolled_out(&kubectl, "3");
    assert!(metrics(port).contains("\nstead_companion_leader 0\n"));

    // An image that does not exist: the roll-out stops at its first pod, and goes on when the template is back.
    let (zero, one) = (uid(&kubectl, "web-0"), uid(&kubectl, "web-1"));
    let _ = kubectl.ok("set image sts/web main=busybox:nowhere");
    let waiting = "get pod web-2 -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    kubectl.eventually(waiting, |reason| reason.contains("ImagePull"));
    let told = stead(&cluster, &["explain", "sts/web"]);
    assert!(told.contains("it is stuck on web-2") && !told.contains("delete pod"), "{told}");
    let _ = kubectl.ok("rollout undo sts/web");
    rolled_out(&kubectl, "3");
    assert_eq!((uid(&kubectl, "web-0"), uid(&kubectl, "web-1")), (zero.clone(), one));
    let told =
        kubectl.ok("get events --field-selector reason=ReplacingBrokenPod -o jsonpath={.items[*].source.component}");
    assert_eq!(told, "stead-controller");

    // Held, then let go: the leader dies meanwhile, and the other one goes on where it was.
    assert!(stead(&cluster, &["rollout", "pause", "sts/web"]).contains("paused"));
    let _ = kubectl.ok("set env sts/web NEW=1");
    let progress = "get sts web -o jsonpath={.metadata.annotations.stead\\.dev/progress}";
    kubectl.eventually(progress, |text| text.contains("StatefulSetPaused"));
    assert_eq!(uid(&kubectl, "web-0"), zero);
    let told = stead(&cluster, &["explain", "sts/web"]);
    assert!(told.contains("it is paused"), "{told}");
    let plan = stead(&cluster, &["plan", "scale", "sts/web", "--replicas=4"]);
    assert!(plan.contains("create pod web-3"), "{plan}");
    first.kill();
    assert!(stead(&cluster, &["rollout", "resume", "sts/web"]).contains("resumed"));
    let other = kubectl.eventually(LEASE, |holder| !holder.is_empty() && holder != leader);
    rolled_out(&kubectl, "3");
    let told = stead(&cluster, &["rollout", "status", "sts/web"]);
    assert_eq!(told, "partitioned roll out complete: 3 new pods have been updated...\n");
    let text = metrics(port);
    assert!(
        text.contains("\nstead_companion_leader 1\n") && text.contains("{action=\"delete_outdated\"} 3\n"),
        "{text}"
    );

    // Taken down in order, which the built-in controller would not do.
    let _ = kubectl.ok("annotate sts web stead.dev/ordered-delete=true");
    kubectl
        .eventually("get sts web -o jsonpath={.metadata.finalizers}", |all| all.contains("stead.dev/ordered-delete"));
    let mut watch = kubectl.start("get pods -l app=web -w --output-watch-events");
    watch.until(|line| line.contains("web-2"));
    let _ = kubectl.ok("delete sts web");
    let lines = watch.until(|line| line.starts_with("DELETED") && line.contains("web-0")).to_vec();
    let gone: Vec<&str> = lines
        .iter()
        .filter(|line| line.starts_with("DELETED"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(gone, ["web-2", "web-1", "web-0"]);

    // Who goes in peace gives the lease back.
    assert!(kubectl.ok(LEASE) == other && second.stop().success());
    assert_eq!(kubectl.ok(LEASE), "");
}

fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The manifest as it is, with the image that the binary makes of itself.
#[test]
fn the_deployment_of_the_example_does_its_work_and_hands_over() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("stead.tar");
    let made = Command::new(env!("CARGO_BIN_EXE_stead")).args(["image", "archive"]).arg(&archive).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let options = Options {
        binary: env!("CARGO_BIN_EXE_stead").into(),
        registries: Some(registries()),
        archives: vec![archive],
        flags: Vec::new(),
    };
    let cluster = Cluster::start(options).unwrap();
    let kubectl = cluster.kubectl(&programs()[0]);
    kubectl.apply(&example("controller"));
    let _ = kubectl.ok("rollout status -n kube-system deployment/stead-controller --timeout=110s");
    kubectl.apply(&managed(2));
    rolled_out(&kubectl, "2");
    let _ = kubectl.ok("set env sts/web NEW=1");
    rolled_out(&kubectl, "2");
    // The leader is told to go: the other one does not have to wait until the lease runs out.
    let leader = kubectl.eventually(LEASE, |holder| !holder.is_empty());
    let (pod, _) = leader.rsplit_once('_').unwrap();
    let _ = kubectl.ok(&format!("delete pod -n kube-system {pod} --wait=false"));
    kubectl.eventually(LEASE, |holder| !holder.is_empty() && holder != leader);
    let _ = kubectl.ok("set env sts/web NEW=2");
    rolled_out(&kubectl, "2");
}
