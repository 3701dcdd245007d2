//! Wrong input gets upstream's (or a clear) error, and nothing is lost or left half made.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use stead_testkit::cluster::Cluster;
use stead_testkit::images;
use stead_testkit::kubectl::Kubectl;

use crate::support::{cluster, layout};

const SET: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: web
spec:
  serviceName: web
  replicas: 1
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - {name: main, image: "nginx:1.21"}
"#;

#[test]
fn a_bad_manifest_gets_upstreams_error_and_leaves_nothing() {
    let (_cluster, kubectl) = cluster();
    let cases = [
        ("an unknown field", SET.replace("replicas: 1", "replica: 1"), "unknown field \"spec.replica\""),
        (
            "a wrong type",
            SET.replace("replicas: 1", "replicas: one"),
            "cannot unmarshal string into Go struct field StatefulSetSpec.spec.replicas of type int32",
        ),
        ("no selector", SET.replace("  selector:\n    matchLabels: {app: web}\n", ""), "spec.selector: Required value"),
        (
            "labels that do not match",
            SET.replace("labels: {app: web}", "labels: {app: other}"),
            "`selector` does not match template `labels`",
        ),
        ("a bad name", SET.replacen("name: web", "name: Web_1", 1), "metadata.name: Invalid value: \"Web_1\""),
    ];
    for (what, manifest, text) in cases {
        let done = kubectl.run_with_input("create -f -", &manifest);
        assert_eq!(done.code, 1, "{what}");
        assert!(done.stderr.contains(text), "{what}: {}", done.stderr);
        assert_eq!(kubectl.ok("get sts,pods,pvc,controllerrevisions -o name"), "", "{what} left something");
    }
}

#[test]
fn an_object_that_is_too_large_is_refused_whole() {
    let (cluster, kubectl) = cluster();
    let file = cluster.data_dir().join("large.txt");
    std::fs::write(&file, "x".repeat(2 << 20)).unwrap();
    let done = kubectl.run(&format!("create configmap large --from-file={}", file.display()));
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("Too long: may not be more than 1048576 bytes"), "{}", done.stderr);
    std::fs::write(&file, "x".repeat(4 << 20)).unwrap();
    let done = kubectl.run(&format!("create configmap large --from-file={}", file.display()));
    assert_eq!(done.code, 1);
    assert!(done.stderr.to_lowercase().contains("large"), "{}", done.stderr);
    assert!(!kubectl.ok("get configmaps -o name").contains("large"));
}

#[test]
fn rubbish_instead_of_tls_hurts_nobody() {
    let (cluster, kubectl) = cluster();
    let mut connections = Vec::new();
    for rubbish in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 255, 255, 1], &[0; 4096]] {
        let mut connection = TcpStream::connect(("127.0.0.1", cluster.port())).unwrap();
        connection.write_all(rubbish).unwrap();
        connections.push(connection);
    }
    assert_eq!(kubectl.ok("get --raw /readyz"), "ok");
}

#[test]
fn a_client_that_trusts_another_authority_is_told_so() {
    let (cluster, kubectl) = cluster();
    let (other, _) = crate::support::cluster();
    let read = |cluster: &Cluster| std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let authority = |config: &str| {
        let line = config.lines().find(|line| line.contains("certificate-authority-data:"));
        line.unwrap().trim().to_owned()
    };
    let (own, foreign) = (read(&cluster), read(&other));
    let mixed = cluster.kubeconfig().with_extension("mixed");
    std::fs::write(&mixed, own.replace(&authority(&own), &authority(&foreign))).unwrap();
    let done = Kubectl { kubeconfig: mixed.clone(), ..kubectl.clone() }.run("get pods");
    assert_eq!(done.code, 1);
    assert!(done.stderr.contains("x509: certificate signed by unknown authority"), "{}", done.stderr);

    // A certificate that another cluster has signed is nobody's here.
    let server = |config: &str| config.lines().find(|line| line.contains("server:")).unwrap().trim().to_owned();
    let stranger = foreign.replace(&authority(&foreign), &authority(&own)).replace(&server(&foreign), &server(&own));
    std::fs::write(&mixed, stranger).unwrap();
    let done = Kubectl { kubeconfig: mixed, ..kubectl.clone() }.run("get pods");
    assert_eq!(done.code, 1, "{}{}", done.stdout, done.stderr);
    assert_eq!(kubectl.ok("get --raw /readyz"), "ok");
}

#[test]
fn a_truncated_image_archive_is_refused_and_leaves_nothing() {
    let (cluster, _kubectl) = cluster();
    let archive = cluster.data_dir().join("busybox.tar");
    images::archive(&layout(), &["library/busybox:1.36"], &archive).unwrap();
    let whole = std::fs::read(&archive).unwrap();
    let stead = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stead"))
            .arg("image")
            .args(arguments)
            .arg("--data-dir")
            .arg(cluster.data_dir())
            .output();
        output.unwrap()
    };
    let path = archive.to_str().unwrap();
    std::fs::write(&archive, &whole[..whole.len() / 2]).unwrap();
    let output = stead(&["import", path]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("busybox.tar"), "{error}");
    assert!(!String::from_utf8_lossy(&stead(&["ls"]).stdout).contains("busybox"));
    std::fs::write(&archive, &whole).unwrap();
    assert!(stead(&["import", path]).status.success());
    assert!(String::from_utf8_lossy(&stead(&["ls"]).stdout).contains("docker.io/library/busybox"));
}
