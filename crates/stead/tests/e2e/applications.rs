//! The applications that the documents name, from the manifests in `examples/`, with their own clients.

use std::collections::BTreeSet;

use stead_testkit::kubectl::Kubectl;

use crate::support::{cluster, example};

/// Puts one key after the other and says which were acknowledged, until it is told to stop.
const ETCD_WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: etcd-writer}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: writer
    image: quay.io/coreos/etcd:v3.4.23
    env: [{name: ETCDCTL_ENDPOINTS, value: "http://etcd-0.etcd:2379,http://etcd-1.etcd:2379,http://etcd-2.etcd:2379"}]
    command:
    - sh
    - -c
    - |
      i=0
      while [ ! -e /tmp/stop ]; do
        i=$((i + 1))
        etcdctl --command-timeout=3s put /written/$i $i > /dev/null 2>&1 && echo acknowledged $i
        sleep 0.1
      done
"#;

/// The same with one session of ZooKeeper's own client, which moves from member to member.
const ZOOKEEPER_WRITER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: zk-writer}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: writer
    image: zookeeper:3.8
    command:
    - sh
    - -c
    - |
      # A new client for every 50 writes: one whose session has expired says no more than "Not connected".
      n=0
      while [ ! -e /tmp/stop ]; do
        {
          echo create /written x
          i=0
          while [ $i -lt 50 ] && [ ! -e /tmp/stop ]; do
            i=$((i + 1))
            echo create /written/$((n * 50 + i)) $i
            sleep 0.1
          done
        } | zkCli.sh -server zk-0.zk:2181,zk-1.zk:2181,zk-2.zk:2181 2>&1
        n=$((n + 1))
      done
"#;

#[test]
fn acceptance_10_quorums_form_lose_any_pod_and_are_rolled_under_a_client_that_writes_all_the_time() {
    let (_cluster, kubectl) = cluster();
    for name in ["etcd", "zookeeper"] {
        kubectl.apply(&example(name));
    }
    for name in ["etcd", "zk"] {
        let _ = kubectl.ok(&format!("rollout status sts/{name} --timeout=110s"));
    }
    assert_is_a_quorum(&kubectl);
    kubectl.apply(ETCD_WRITER);
    kubectl.apply(ZOOKEEPER_WRITER);
    writes_go_on(&kubectl);
    for ordinal in 0..3 {
        let pods = [format!("etcd-{ordinal}"), format!("zk-{ordinal}")];
        replace(&kubectl, &pods);
        writes_go_on(&kubectl);
    }
    let _ = kubectl.ok("set image sts/etcd etcd=quay.io/coreos/etcd:v3.4.24");
    let _ = kubectl.ok("rollout restart sts/zk");
    for name in ["etcd", "zk"] {
        let _ = kubectl.ok(&format!("rollout status sts/{name} --timeout=110s"));
    }
    writes_go_on(&kubectl);
    assert_eq!(
        kubectl.ok("get pods -l app=etcd -o jsonpath={.items[*].spec.containers[0].image}"),
        ["quay.io/coreos/etcd:v3.4.24"; 3].join(" ")
    );
    for writer in ["etcd-writer", "zk-writer"] {
        let _ = kubectl.ok(&format!("exec {writer} -- touch /tmp/stop"));
        kubectl.eventually(&format!("get pod {writer} -o jsonpath={{.status.phase}}"), |phase| phase != "Running");
    }
    assert_is_a_quorum(&kubectl);
    for ordinal in 0..3 {
        let keys = kubectl.ok(&format!("exec etcd-{ordinal} -- etcdctl get /written/ --prefix --keys-only"));
        let kept = keys.lines().filter_map(|line| line.strip_prefix("/written/")?.parse().ok()).collect();
        assert_nothing_is_lost(&acknowledged(&kubectl, "etcd-writer"), &kept);
        let said = kubectl.ok(&format!(
            r#"exec zk-{ordinal} -- sh -c 'printf "sync /written\nls /written\n" | zkCli.sh 2>/dev/null'"#
        ));
        let list = said.lines().find_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']')).unwrap_or_default();
        let kept = list.split(", ").filter_map(|word| word.parse().ok()).collect();
        assert_nothing_is_lost(&acknowledged(&kubectl, "zk-writer"), &kept);
    }
}

/// One leader and two that follow it, for both.
#[track_caller]
fn assert_is_a_quorum(kubectl: &Kubectl) {
    let members = kubectl.ok("exec etcd-0 -- etcdctl member list");
    assert_eq!(members.matches("started").count(), 3, "{members}");
    for name in ["etcd-0", "etcd-1", "etcd-2"] {
        assert!(members.contains(&format!("{name}, http://{name}.etcd:2380, http://{name}.etcd:2379")), "{members}");
    }
    let modes: Vec<String> = (0..3)
        .map(|ordinal| kubectl.ok(&format!("exec zk-{ordinal} -- sh -c 'echo srvr | nc 127.0.0.1 2181 | grep Mode'")))
        .collect();
    let count = |mode: &str| modes.iter().filter(|line| line.trim() == format!("Mode: {mode}")).count();
    assert_eq!((count("leader"), count("follower")), (1, 2), "{modes:?}");
}

/// Waits until both writers have had more writes acknowledged.
#[track_caller]
fn writes_go_on(kubectl: &Kubectl) {
    for writer in ["etcd-writer", "zk-writer"] {
        kubectl.eventually(&format!("get pod {writer} -o jsonpath={{.status.phase}}"), |phase| phase == "Running");
        let before = acknowledged(kubectl, writer).len();
        kubectl.eventually(&format!("logs {writer}"), |log| numbers(log).len() >= before + 3);
    }
}

/// The numbers whose writing was acknowledged.
fn acknowledged(kubectl: &Kubectl, writer: &str) -> BTreeSet<u32> {
    numbers(&kubectl.ok(&format!("logs {writer}")))
}

fn numbers(log: &str) -> BTreeSet<u32> {
    let number =
        |line: &str| line.rsplit_once("acknowledged ").or(line.rsplit_once("Created /written/"))?.1.parse().ok();
    log.lines().filter_map(|line| number(line.trim())).collect()
}

#[track_caller]
fn assert_nothing_is_lost(acknowledged: &BTreeSet<u32>, kept: &BTreeSet<u32>) {
    let lost: Vec<&u32> = acknowledged.difference(kept).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
}

/// Deletes pods and waits until others of the same names are ready.
fn replace(kubectl: &Kubectl, pods: &[String]) {
    let uid = |pod: &String| kubectl.ok(&format!("get pod {pod} -o jsonpath={{.metadata.uid}}"));
    let before: Vec<String> = pods.iter().map(uid).collect();
    let _ = kubectl.ok(&format!("delete pod {} --wait=false", pods.join(" ")));
    for (pod, uid) in pods.iter().zip(&before) {
        let look = "-o jsonpath='{.metadata.uid} {.status.containerStatuses[0].ready}'";
        kubectl.eventually(&format!("get pod {pod} {look}"), |seen| !seen.starts_with(uid) && seen.ends_with("true"));
    }
}

#[test]
fn acceptance_10_nginx_redis_and_mysql_lose_any_pod_and_are_rolled_with_their_data() {
    let (_cluster, kubectl) = cluster();
    for name in ["nginx", "redis", "mysql", "debug"] {
        kubectl.apply(&example(name));
    }
    for set in ["web", "redis", "mysql"] {
        let _ = kubectl.ok(&format!("rollout status sts/{set} --timeout=110s"));
    }
    let _ = kubectl.ok("wait --for=condition=Ready pod/debug --timeout=60s");
    let sql = "exec mysql-1 -- mysql -h mysql-0.mysql -ppassword shop -e";
    let _ = kubectl
        .ok(&format!(r#"{sql} "CREATE TABLE orders (id INT PRIMARY KEY); INSERT INTO orders VALUES (41), (42)""#));
    assert_eq!(kubectl.ok("exec redis-0 -- redis-cli SET mykey kept"), "OK\n");
    assert_serve(&kubectl, 77);
    for ordinal in 0..3 {
        let sets: &[&str] = if ordinal < 2 { &["web", "redis", "mysql"] } else { &["web", "redis"] };
        let pods: Vec<String> = sets.iter().map(|set| format!("{set}-{ordinal}")).collect();
        replace(&kubectl, &pods);
        assert_serve(&kubectl, 77);
    }
    // New settings by a new ConfigMap and a restart.
    kubectl.apply(&example("mysql").replace("max_connections = 77", "max_connections = 78"));
    let _ = kubectl.ok("rollout restart sts/web sts/redis sts/mysql");
    for set in ["web", "redis", "mysql"] {
        let _ = kubectl.ok(&format!("rollout status sts/{set} --timeout=110s"));
    }
    assert_serve(&kubectl, 78);
    let client = "run -it --rm mysql-client --image=mysql:8.0 --restart=Never -- mysql -h mysql-0.mysql.default.svc.cluster.local -ppassword shop";
    let seen = kubectl.on_terminal(client, "SELECT SUM(id) FROM orders;\nexit\n");
    assert!(seen.stdout.contains("83"), "{}{}", seen.stdout, seen.stderr);
}

/// Every page is its pod's own, every Redis has the value and MySQL has its rows and its settings.
#[track_caller]
fn assert_serve(kubectl: &Kubectl, connections: u32) {
    for ordinal in 0..3 {
        kubectl.eventually(&format!("exec debug -- wget -qO- http://web-{ordinal}.nginx-svc"), |page| {
            page == format!("web-{ordinal}\n")
        });
        // A follower takes the leader's data after it is there.
        kubectl.eventually(&format!("exec redis-{ordinal} -- redis-cli GET mykey"), |value| value == "kept\n");
    }
    let sql = r#"-ppassword shop -N -e "SELECT GROUP_CONCAT(id), @@max_connections FROM orders""#;
    assert_eq!(kubectl.ok(&format!("exec mysql-1 -- mysql -h mysql-0.mysql {sql}")), format!("41,42\t{connections}\n"));
}

#[test]
fn acceptance_10_the_server_accepts_the_further_examples() {
    let (_cluster, kubectl) = cluster();
    for name in ["cassandra", "elasticsearch", "kafka", "mongodb", "postgresql", "rabbitmq"] {
        let done = kubectl.run_with_input("apply --dry-run=server -f -", &example(&format!("more/{name}")));
        assert_eq!(done.code, 0, "{name}: {}{}", done.stdout, done.stderr);
        assert!(!done.stderr.contains("unknown field"), "{name}: {}", done.stderr);
        assert!(done.stdout.contains("statefulset.apps/"), "{name}: {}", done.stdout);
        assert!(done.stdout.lines().all(|line| line.ends_with(" created (server dry run)")), "{name}: {}", done.stdout);
    }
    assert_eq!(kubectl.ok("get statefulsets,pdb -A -o name"), "", "nothing was made");
}
