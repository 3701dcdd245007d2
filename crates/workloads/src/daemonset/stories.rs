//! Stories of DaemonSets: nodes and their pods | what the plan says.
//!
//! A node is `n1:` and its pods: `o` old, `n` new; upper case when available; `x` before it when terminating, `f` when
//! failed. `n1!` has a taint that pods may not be scheduled to, `n1!!` one that drives them away.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::{Observed, new_pod, plan, status};

const NOW: i64 = 1_000_000;

fn set(strategy: &Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "uid": "u"},
        "spec": {"selector": {}, "updateStrategy": strategy, "template": {"spec": {"containers": []}}},
    }))
    .expect("a set")
}

fn world(set: &DaemonSet, text: &str) -> (Vec<Arc<Node>>, Vec<Arc<Pod>>) {
    let (mut nodes, mut pods) = (vec![], vec![]);
    for word in text.split_whitespace() {
        let (node, there) = word.split_once(':').expect("node:pods");
        let name = node.trim_end_matches('!');
        let taints = match node.len() - name.len() {
            0 => json!([]),
            1 => json!([{"key": "k", "effect": "NoSchedule"}]),
            _ => json!([{"key": "k", "effect": "NoExecute"}]),
        };
        nodes.push(Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"taints": taints}})).expect("a node"),
        ));
        let (mut going, mut failed) = (false, false);
        for letter in there.chars() {
            match letter {
                'x' => going = true,
                'f' => failed = true,
                letter => {
                    let mut pod = new_pod(set, name, if letter.eq_ignore_ascii_case(&'n') { "new" } else { "old" });
                    pod.metadata.name = Some(format!("{name}-{letter}"));
                    pod.spec.as_mut().expect("spec").node_name = Some(name.to_owned());
                    let ready = if letter.is_ascii_uppercase() { "True" } else { "False" };
                    let phase = if failed { "Failed" } else { "Running" };
                    let value = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
                    pod.status = serde_json::from_value(value).expect("a status");
                    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
                    pod.metadata.deletion_timestamp = going.then_some(at);
                    pods.push(Arc::new(pod));
                    (going, failed) = (false, false);
                }
            }
        }
    }
    (nodes, pods)
}

#[track_caller]
fn check(strategy: &Value, table: &str) {
    let set = set(strategy);
    let (mut actual, mut expected) = (String::new(), String::new());
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (world_text, answer) = line.split_once('|').expect("two cells");
        let (nodes, pods) = world(&set, world_text);
        let now = Timestamp::from_second(NOW).expect("in range");
        let held = BTreeMap::from([("held".to_owned(), Timestamp::from_second(NOW + 4).expect("in range"))]);
        let observed = Observed { set: &set, nodes: &nodes, pods: &pods, hash: "new", held: &held, now };
        let plan = plan(&observed);
        let create = plan.create.iter().map(|node| format!("create {node}"));
        let delete = plan.delete.iter().map(|pod| format!("delete {}", pod.metadata.name.clone().unwrap_or_default()));
        let words: Vec<_> = create.chain(delete).collect();
        let told = if words.is_empty() { "settled".to_owned() } else { words.join(", ") };
        actual += &format!("{:<24}| {told}\n", world_text.trim());
        expected += &format!("{:<24}| {}\n", world_text.trim(), answer.trim());
    }
    assert!(actual == expected, "\n--- expected ---\n{expected}\n--- actual ---\n{actual}");
}

fn rolling(unavailable: i32, surge: i32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

#[test]
fn every_node_that_fits_has_one_pod() {
    check(
        &rolling(1, 0),
        "n1: n2:N n3!: n4!!:   | create n1
         n1:N n2:N             | settled
         n1:xN                 | settled
         n1:fN                 | delete n1-N
         held:fN               | settled
         n1!:N n2!!:N          | delete n2-N
         n1:NN                 | delete n1-N",
    );
}

#[test]
fn rolls_out_as_many_nodes_at_a_time_as_may_be_unavailable() {
    check(
        &rolling(1, 0),
        "n1:O n2:O n3:O  | delete n1-O
         n1:xO n2:O n3:O | settled
         n1:n n2:O n3:O  | settled
         n1:N n2:O n3:O  | delete n2-O
         n1:N n2:N n3:O  | delete n3-O",
    );
    check(&rolling(2, 0), "n1:O n2:O n3:O | delete n1-O, delete n2-O");
}

#[test]
fn an_old_pod_that_is_not_available_is_replaced_first() {
    check(&rolling(1, 0), "n1:O n2:o n3:O | delete n2-o");
}

#[test]
fn with_surge_the_new_pod_comes_first() {
    check(
        &rolling(0, 1),
        "n1:O n2:O   | create n1
         n1:On n2:O  | settled
         n1:ON n2:O  | delete n1-O
         n1:N n2:O   | create n2
         n1:N n2:on  | delete n2-o",
    );
}

#[test]
fn on_delete_leaves_old_pods_alone() {
    check(&json!({"type": "OnDelete"}), "n1:O n2: | create n2\nn1:O n2:N | settled");
}

#[test]
fn status_counts_nodes() {
    let set = set(&rolling(1, 0));
    let (nodes, pods) = world(&set, "n1:N n2:o n3: n4!:O");
    let now = Timestamp::from_second(NOW).expect("in range");
    let observed = Observed { set: &set, nodes: &nodes, pods: &pods, hash: "new", held: &BTreeMap::new(), now };
    assert_eq!(
        serde_json::to_value(status(&observed, None)).expect("json"),
        json!({
            "desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "numberAvailable": 1,
            "numberUnavailable": 2, "numberMisscheduled": 1, "updatedNumberScheduled": 1,
        })
    );
}
