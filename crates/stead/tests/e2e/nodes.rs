//! A server and two agents, each on a machine of its own: pods spread, reach each other by name across nodes, and are
//! neither lost nor doubled when an agent or the server is killed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use stead_testkit::cluster::Cluster;
use stead_testkit::images;
use stead_testkit::kubectl::Kubectl;
use stead_testkit::machines::{Agent, Wires};

use crate::support::{layout, programs, start};

const MANIFEST: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}
      containers:
      - name: main
        image: nginx:1.21
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "hostname > /data/name; hostname; exec httpd -f -p 8080 -h /data"]
        readinessProbe: {httpGet: {path: /name, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

const PLACES: &str =
    "get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name}={.spec.nodeName}{\"\\n\"}{end}'";
const IDENTITIES: &str = "get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.uid}={.status.containerStatuses[0].containerID}={.status.containerStatuses[0].restartCount}{\"\\n\"}{end}'";

/// A server with two agents, torn down in the right order.
struct World {
    agents: Vec<Agent>,
    cluster: Cluster,
    kubectl: Kubectl,
    wires: Wires,
}

impl World {
    fn new() -> Self {
        let wires = Wires::new().unwrap();
        let address = wires.address(1);
        let node = ["--node-ip", &address, "--node-name", "n1", "--node-lease-duration-seconds", "2"];
        let life = ["--node-monitor-grace-period", "4"];
        let cluster = start(&[&node[..], &life[..]].concat());
        let kubectl = cluster.kubectl(&programs()[0]);
        let binary = Path::new(env!("CARGO_BIN_EXE_stead"));
        let token = Command::new(binary).arg("token").arg("--data-dir").arg(cluster.data_dir()).output().unwrap();
        let token = String::from_utf8(token.stdout).unwrap();
        let archive = cluster.directory().join("nginx.tar");
        images::archive(&layout(), &["library/nginx:1.21"], &archive).unwrap();
        let mut world = Self { agents: Vec::new(), cluster, kubectl, wires };
        for _ in 0..2 {
            let machine = world.wires.add().unwrap();
            let arguments = [
                format!("--server=https://{address}:{}", world.cluster.port()),
                format!("--token={}", token.trim()),
                format!("--node-name=n{machine}"),
                format!("--node-ip={}", world.wires.address(machine)),
                "--node-lease-duration-seconds=2".to_owned(),
                "--private-registry=/nowhere".to_owned(),
            ];
            let directory = world.cluster.directory().join(format!("agent-{machine}"));
            let mut agent =
                Agent::new(binary, &directory, machine, std::slice::from_ref(&archive), &arguments).unwrap();
            let started = agent.start(&world.wires);
            world.agents.push(agent);
            started.unwrap();
        }
        world
    }

    /// Every pod fetches the name that every other one serves, by its name in DNS; and all of them by the Service.
    fn all_reach_all(&self) {
        for from in 0..3 {
            for to in 0..3 {
                let fetched =
                    self.kubectl.ok(&format!("exec web-{from} -- curl -s -S -m 5 http://web-{to}.web:8080/name"));
                assert_eq!(fetched.trim(), format!("web-{to}"), "from web-{from}");
            }
            let fetched = self.kubectl.ok(&format!("exec web-{from} -- curl -s -S -m 5 http://front/name"));
            assert!(fetched.starts_with("web-"), "from web-{from} through the Service: {fetched}");
        }
    }

    /// What a pod serves, through a port that kubectl forwards.
    fn forwarded(&self, pod: &str) -> String {
        let mut forward = self.kubectl.start(&format!("port-forward pod/{pod} :8080"));
        let lines = forward.until(|line| line.contains("Forwarding from 127.0.0.1:"));
        let line = lines.last().cloned().unwrap_or_default();
        let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        let mut connection = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        connection.write_all(b"GET /name HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.lines().last().unwrap_or_default().to_owned()
    }

    /// The same through the server's sub-resource `proxy`.
    fn proxied(&self, what: &str) -> String {
        self.kubectl.ok(&format!("get --raw /api/v1/namespaces/default/{what}/proxy/name")).trim().to_owned()
    }

    fn node(&self, name: &str, path: &str) -> String {
        format!("get node {name} -o \"jsonpath={{{path}}}\"")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            agent.clean_up(&self.wires);
        }
    }
}

#[test]
fn acceptance_6_3_three_nodes_share_an_ordered_set_and_survive_their_agents_and_their_server() {
    let mut world = World::new();
    let kubectl = world.kubectl.clone();
    let nodes = kubectl.ok("get nodes -o 'jsonpath={range .items[*]}{.metadata.name}={.spec.podCIDR}{\"\\n\"}{end}'");
    let ranges: std::collections::BTreeSet<&str> =
        nodes.lines().filter_map(|line| line.split_once('=')).map(|l| l.1).collect();
    assert_eq!(ranges.len(), 3, "each node has a range of its own:\n{nodes}");

    kubectl.apply(MANIFEST);
    kubectl.eventually("get sts web -o jsonpath={.status.readyReplicas}", |ready| ready == "3");
    let places = kubectl.ok(PLACES);
    let mut hosts: Vec<&str> = places.lines().filter_map(|line| line.split_once('=')).map(|(_, node)| node).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["n1", "n2", "n3"], "one pod on each node:\n{places}");
    world.all_reach_all();
    for ordinal in 0..3 {
        assert_eq!(kubectl.ok(&format!("logs web-{ordinal}")).trim(), format!("web-{ordinal}"));
        assert_eq!(world.forwarded(&format!("web-{ordinal}")), format!("web-{ordinal}"));
        assert_eq!(world.proxied(&format!("pods/http:web-{ordinal}:8080")), format!("web-{ordinal}"));
    }
    let through_the_service = world.proxied("services/front:80");
    assert!(through_the_service.starts_with("web-"), "{through_the_service}");

    let _ = kubectl
        .eventually("top nodes --no-headers", |figures| figures.lines().count() == 3 && !figures.contains("<unknown>"));
    let _ = kubectl.eventually("top pods -l app=web --no-headers", |figures| figures.lines().count() == 3);

    let (there, back) = (5_000_000, 20_000_000);
    for ordinal in 0..3 {
        let sent = kubectl.run_with_input(&format!("exec -i web-{ordinal} -- wc -c"), &"x".repeat(there));
        assert_eq!(sent.stdout.trim(), there.to_string(), "{}", sent.stderr);
        let got = kubectl.ok(&format!("exec web-{ordinal} -- head -c {back} /dev/zero"));
        assert_eq!(got.len(), back, "much more than fits a window comes through whole");
    }

    let _ = kubectl.ok("scale sts web --replicas=4");
    let told = kubectl.eventually(
        "get events --field-selector=reason=FailedScheduling,involvedObject.name=web-3 -o jsonpath={.items[*].message}",
        |told| !told.is_empty(),
    );
    let expected = "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.";
    assert!(told.starts_with(expected), "{told}");
    assert_eq!(kubectl.ok("get pod web-3 -o jsonpath={.status.phase}"), "Pending");
    let _ = kubectl.ok("scale sts web --replicas=3");
    kubectl.eventually("get pods -l app=web -o name", |names| names.lines().count() == 3);

    the_server_is_killed(&mut world, &kubectl);
    an_agent_is_killed(&mut world, &kubectl);
    a_node_is_cut_off(&world, &kubectl);
    a_node_object_is_deleted(&world, &kubectl);
}

/// The agents find the server again, even one that was started without it; no container notices.
fn the_server_is_killed(world: &mut World, kubectl: &Kubectl) {
    let before = kubectl.ok(IDENTITIES);
    world.cluster.kill_server().unwrap();
    let (agents, wires) = (&mut world.agents, &world.wires);
    agents[0].kill().unwrap();
    agents[0].begin(wires).unwrap();
    world.cluster.start_server().unwrap();
    world.agents[0].ready().unwrap();
    for name in ["n1", "n2", "n3"] {
        let ready = world.node(name, ".status.conditions[?(@.type=='Ready')].status");
        kubectl.eventually(&ready, |ready| ready == "True");
    }
    for ordinal in 0..3 {
        let logs = format!("logs web-{ordinal}");
        kubectl.eventually(&logs, |logs| logs.trim() == format!("web-{ordinal}"));
    }
    assert_eq!(kubectl.ok(IDENTITIES), before, "the same pods and containers");
    world.all_reach_all();
}

/// Its node is not ready and tainted, its pod stays the only one of its name, and it is taken up again.
fn an_agent_is_killed(world: &mut World, kubectl: &Kubectl) {
    let before = kubectl.ok(IDENTITIES);
    let places = kubectl.ok(PLACES);
    let (pod, _) = places.lines().filter_map(|line| line.split_once('=')).find(|(_, node)| *node == "n3").unwrap();
    world.agents[1].kill().unwrap();
    let ready = world.node("n3", ".status.conditions[?(@.type=='Ready')].status");
    kubectl.eventually(&ready, |ready| ready == "Unknown");
    let taints = world.node("n3", ".spec.taints[*].key}{.spec.taints[*].effect");
    let taints = kubectl.eventually(&taints, |taints| taints.contains("NoExecute"));
    assert!(taints.matches("node.kubernetes.io/unreachable").count() == 2 && taints.contains("NoSchedule"), "{taints}");
    let pod_ready = format!("get pod {pod} -o \"jsonpath={{.status.conditions[?(@.type=='Ready')].status}}\"");
    kubectl.eventually(&pod_ready, |ready| ready == "False");
    assert_eq!(kubectl.ok(IDENTITIES), before, "nothing takes the place of a pod that may still run");
    assert!(kubectl.ok("get nodes").lines().any(|line| line.starts_with("n3 ") && line.contains("NotReady")));

    let (agents, wires) = (&mut world.agents, &world.wires);
    agents[1].start(wires).unwrap();
    kubectl.eventually(&ready, |ready| ready == "True");
    kubectl.eventually(&world.node("n3", ".spec.taints"), str::is_empty);
    kubectl.eventually(&pod_ready, |ready| ready == "True");
    assert_eq!(kubectl.ok(IDENTITIES), before, "the same containers");
    world.all_reach_all();
}

/// A pod of a node that nobody can reach is given up by force; when the node is back, the pod that was meant is gone from
/// it before its successor runs there.
fn a_node_is_cut_off(world: &World, kubectl: &Kubectl) {
    let places = kubectl.ok(PLACES);
    let (pod, _) = places.lines().filter_map(|line| line.split_once('=')).find(|(_, node)| *node == "n3").unwrap();
    let of_pod = |what: &str| format!("get pod {pod} -o \"jsonpath={{{what}}}\"");
    let (uid, container) = (of_pod(".metadata.uid"), of_pod(".status.containerStatuses[0].containerID"));
    let (old_uid, old_container) = (kubectl.ok(&uid), kubectl.ok(&container));
    world.wires.cut(3, true).unwrap();
    let ready = world.node("n3", ".status.conditions[?(@.type=='Ready')].status");
    kubectl.eventually(&ready, |ready| ready == "Unknown");
    let _ = kubectl.ok(&format!("delete pod {pod} --force --grace-period=0 --wait=false"));
    kubectl.eventually(&uid, |uid| uid != old_uid);
    assert_eq!(kubectl.ok(&of_pod(".spec.nodeName")), "", "its volume is on the node that is away");
    world.wires.cut(3, false).unwrap();
    kubectl.eventually(&ready, |ready| ready == "True");
    kubectl.eventually(&of_pod(".status.conditions[?(@.type=='Ready')].status"), |ready| ready == "True");
    assert_ne!(kubectl.ok(&container), old_container);
    assert_eq!(kubectl.ok(&format!("exec {pod} -- cat /data/name")).lines().last(), Some(pod));
    world.all_reach_all();
}

/// The agent registers again, with the range that it has.
fn a_node_object_is_deleted(world: &World, kubectl: &Kubectl) {
    let range = world.node("n2", ".spec.podCIDR");
    let before = kubectl.ok(&range);
    let uid = world.node("n2", ".metadata.uid");
    let old = kubectl.ok(&uid);
    let _ = kubectl.ok("delete node n2");
    kubectl.eventually(&uid, |uid| uid != old);
    assert_eq!(kubectl.ok(&range), before);
    let ready = world.node("n2", ".status.conditions[?(@.type=='Ready')].status");
    kubectl.eventually(&ready, |ready| ready == "True");
    world.all_reach_all();
}
