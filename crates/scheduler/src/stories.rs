//! What the scheduler decides as the cluster changes, told as tables. Left: what the caches say; right: what is decided then.
//!
//! `node N cpu=2 [cordoned]`, `node-gone N`; `pod P cpu=1 prio=5 claim=c nominated=N gated other terminating K=V [on N]`, `gone P`;
//! `over P` (succeeded); `class`, `claim C [selected=N] [bound=V]`, `volume V`; `bound P`, `failed P`: how a binding ended;
//! `later`: every back-off is over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stead_informer::{Change, Key};
use tokio::time::Instant;

use crate::mirror::{Assumed, Decision, Mirror};

struct World {
    mirror: Mirror,
    now: Instant,
    objects: HashMap<String, Value>,
    bindings: HashMap<String, Assumed>,
}

fn check(story: &Expect) {
    let lines: Vec<&str> = story.data().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let lefts: Vec<&str> = lines.iter().map(|line| line.split('|').next().unwrap().trim()).collect();
    let width = lefts.iter().map(|left| left.len()).max().unwrap_or(0);
    let (mirror, now) = (Mirror::new("default-scheduler"), Instant::now());
    let mut world = World { mirror, now, objects: HashMap::new(), bindings: HashMap::new() };
    let table: String = lefts
        .iter()
        .map(|left| {
            world.happens(left);
            format!("{left:width$} | {}\n", world.decided()).replace(" | \n", " |\n")
        })
        .collect();
    story.assert_eq(&table);
}

impl World {
    fn happens(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, rest) = (words.get(1).copied().unwrap_or_default(), words.get(2..).unwrap_or_default());
        match words[0] {
            "node" => {
                let amounts = json!({"cpu": value(rest, "cpu").unwrap_or("4"), "memory": "8Gi", "pods": "10"});
                let meta = json!({"name": name, "labels": {"kubernetes.io/hostname": name}});
                let spec = json!({"unschedulable": rest.contains(&"cordoned")});
                let node = json!({"metadata": meta, "spec": spec, "status": {"allocatable": amounts}});
                let change = self.change("node", "", name, Some(node));
                self.mirror.node(&change);
            }
            "node-gone" => {
                let change = self.change("node", "", name, None);
                self.mirror.node(&change);
            }
            "pod" => {
                let change = self.change("pod", "default", name, Some(pod(name, rest)));
                self.mirror.pod(&change);
            }
            "over" => {
                let mut pod = self.objects[&format!("pod/{name}")].clone();
                pod["status"] = json!({"phase": "Succeeded"});
                let change = self.change("pod", "default", name, Some(pod));
                self.mirror.pod(&change);
            }
            "gone" => {
                let change = self.change("pod", "default", name, None);
                self.mirror.pod(&change);
            }
            "class" => {
                let class = json!({
                    "metadata": {"name": name}, "provisioner": "x", "volumeBindingMode": "WaitForFirstConsumer"
                });
                let change = self.change("class", "", name, Some(class));
                self.mirror.class(&change);
            }
            "claim" => {
                let change = self.change("claim", "default", name, Some(claim(name, rest)));
                self.mirror.claim(&change);
            }
            "volume" => {
                let volume = json!({"metadata": {"name": name}, "spec": {}});
                let change = self.change("volume", "", name, Some(volume));
                self.mirror.volume(&change);
            }
            "bound" => {
                let assumed = self.bindings.remove(name).expect("a binding under way");
                self.mirror.bound(&assumed);
            }
            "failed" => {
                let assumed = self.bindings.remove(name).expect("a binding under way");
                let objects = &self.objects;
                let live = |full: &str| -> Option<Arc<PersistentVolumeClaim>> {
                    let claim = objects.get(&format!("claim/{}", full.strip_prefix("default/")?))?;
                    Some(Arc::new(serde_json::from_value(claim.clone()).unwrap()))
                };
                self.mirror.unbound(&assumed, self.now, live);
            }
            "later" => {
                self.now = self.mirror.next_due().unwrap_or(self.now) + Duration::from_millis(1);
                self.mirror.advance(self.now);
            }
            other => panic!("no such line: {other}"),
        }
    }

    fn change<K: DeserializeOwned>(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        new: Option<Value>,
    ) -> Change<K> {
        let id = format!("{kind}/{name}");
        let old = match &new {
            Some(object) => self.objects.insert(id, object.clone()),
            None => self.objects.remove(&id),
        };
        let typed = |object: Value| Arc::new(serde_json::from_value(object).unwrap());
        Change { key: Key::new(namespace, name), old: old.map(typed), new: new.map(typed) }
    }

    fn decided(&mut self) -> String {
        let mut told = Vec::new();
        while let Some(decision) = self.mirror.decide() {
            told.push(match decision {
                Decision::Bind(assumed) => {
                    let text = format!("{} -> {}{}", assumed.key.name, assumed.node, "*".repeat(assumed.claims.len()));
                    self.bindings.insert(assumed.key.name.to_string(), assumed);
                    text
                }
                Decision::Refuse(key, _, refused) => {
                    let causes: Vec<&str> = refused.causes.iter().map(|cause| cause.as_str()).collect();
                    let evicts = refused.preemption.map(|plan| {
                        let victims: Vec<&str> =
                            plan.victims.iter().map(|(name, _)| &name["default/".len()..]).collect();
                        format!(", evicts {} from {}", victims.join(" "), plan.node)
                    });
                    format!("{} refused by {}{}", key.name, causes.join("+"), evicts.unwrap_or_default())
                }
            });
        }
        told.join("; ")
    }
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn pod(name: &str, words: &[&str]) -> Value {
    let requests = json!({"cpu": value(words, "cpu").unwrap_or("0")});
    let on = words.iter().position(|word| *word == "on").map(|at| words[at + 1]);
    let claims: Vec<Value> = value(words, "claim")
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .into_iter()
        .collect();
    let gates = if words.contains(&"gated") { json!([{"name": "g"}]) } else { Value::Null };
    let apart = value(words, "apart").map(|label| {
        let term = json!({"labelSelector": {"matchLabels": {"app": label}}, "topologyKey": "kubernetes.io/hostname"});
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    });
    json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": value(words, "uid").unwrap_or(name),
            "labels": value(words, "app").map(|app| json!({"app": app})),
            "deletionTimestamp": words.contains(&"terminating").then_some("2026-11-20T15:00:00Z")
        },
        "spec": {
            "containers": [{"name": "c", "resources": {"requests": requests}}], "nodeName": on, "volumes": claims,
            "priority": value(words, "prio").map(|prio| prio.parse::<i32>().unwrap()), "schedulingGates": gates,
            "schedulerName": if words.contains(&"other") { "other" } else { "default-scheduler" }, "affinity": apart
        },
        "status": {"nominatedNodeName": value(words, "nominated")}
    })
}

fn claim(name: &str, words: &[&str]) -> Value {
    let selected = value(words, "selected").map(|node| json!({"volume.kubernetes.io/selected-node": node}));
    let bound = value(words, "bound");
    json!({
        "metadata": {"name": name, "namespace": "default", "annotations": selected},
        "spec": {"storageClassName": "local", "volumeName": bound},
        "status": {"phase": if bound.is_some() { "Bound" } else { "Pending" }}
    })
}

#[test]
fn a_pod_counts_on_its_node_from_the_decision_on() {
    check(&expect![[r#"
        node n1 cpu=2     |
        pod a cpu=1       | a -> n1
        pod b cpu=1       | b -> n1
        pod c cpu=1       | c refused by NodeResourcesFit
        bound a           |
        pod a cpu=1 on n1 |
        pod a cpu=1 on n1 |
        gone b            | c -> n1
        bound c           |
    "#]]);
}

#[test]
fn who_fits_nowhere_is_looked_at_again_only_when_it_can_help() {
    check(&expect![[r#"
        node n1 cpu=2 cordoned |
        pod a cpu=1            | a refused by NodeUnschedulable
        pod x cpu=1 on n1      |
        gone x                 |
        pod a cpu=1 prio=3     | a refused by NodeUnschedulable
        claim c                |
        node n1 cpu=2 cordoned |
        node n1 cpu=3 cordoned | a refused by NodeUnschedulable
        node n1 cpu=3          | a -> n1
    "#]]);
}

#[test]
fn room_is_used_as_soon_as_a_pod_is_gone_or_over() {
    check(&expect![[r#"
        node n1 cpu=2                 |
        pod x cpu=1 on n1             |
        pod y cpu=1 on n1             |
        pod a cpu=1                   | a refused by NodeResourcesFit
        pod b cpu=1                   | b refused by NodeResourcesFit
        pod x cpu=1 on n1 terminating |
        over x                        | a -> n1; b refused by NodeResourcesFit
        gone y                        | b -> n1
    "#]]);
}

#[test]
fn the_most_important_is_placed_first_then_the_first() {
    check(&expect![[r#"
        pod a cpu=1        | a refused by NodeName
        pod b cpu=1 prio=5 | b refused by NodeName
        pod c cpu=1        | c refused by NodeName
        node n1 cpu=2      | b -> n1; a -> n1; c refused by NodeResourcesFit
    "#]]);
}

#[test]
fn gated_foreign_and_leaving_pods_are_left_alone() {
    check(&expect![[r#"
        node n1                 |
        pod a gated             |
        pod b other             |
        pod c terminating       |
        pod a                   | a -> n1
        pod d cpu=9             | d refused by NodeResourcesFit
        pod d cpu=9 terminating |
        node n2 cpu=64          |
    "#]]);
}

#[test]
fn a_failed_binding_gives_its_room_back_and_is_tried_again_later() {
    check(&expect![[r#"
        node n1 cpu=1 |
        pod a cpu=1   | a -> n1
        pod b cpu=1   | b refused by NodeResourcesFit
        failed a      | b -> n1
        later         | a refused by NodeResourcesFit
        bound b       |
        gone b        | a -> n1
        failed a      |
        later         | a -> n1
    "#]]);
}

#[test]
fn a_pod_that_is_gone_while_it_is_bound_leaves_nothing_behind() {
    check(&expect![[r#"
        node n1 cpu=1         |
        pod a cpu=1           | a -> n1
        gone a                |
        pod b cpu=1           | b -> n1
        failed a              |
        later                 |
        gone b                |
        bound b               |
        pod a cpu=1 uid=other | a -> n1
    "#]]);
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    check(&expect![[r#"
        node n1 cpu=1                 |
        pod web-0 cpu=1 uid=one on n1 |
        pod web-0 cpu=1 uid=two       | web-0 -> n1
        failed web-0                  |
        later                         | web-0 -> n1
        pod web-0 cpu=1 uid=three     | web-0 -> n1
        bound web-0                   |
    "#]]);
}

#[test]
fn a_claim_that_waits_for_its_pod_ties_the_others_to_the_same_node() {
    check(&expect![[r#"
        node n1 cpu=1                  |
        node n2 cpu=4 cordoned         |
        class local                    |
        pod a cpu=1 claim=data         | a refused by VolumeBinding
        claim data                     | a -> n1*
        node n2 cpu=4                  |
        pod b cpu=1 claim=data         | b refused by NodeResourcesFit+VolumeBinding
        claim data                     | b refused by NodeResourcesFit+VolumeBinding
        claim data selected=n1         | b refused by NodeResourcesFit+VolumeBinding
        claim data selected=n1 bound=v | b refused by NodeResourcesFit+VolumeBinding
        volume v                       | b -> n2
        bound a                        |
    "#]]);
}

#[test]
fn a_failed_provisioning_unties_the_claim() {
    check(&expect![[r#"
        node n1 cpu=1          |
        class local            |
        claim data             |
        pod a cpu=1 claim=data | a -> n1*
        claim data selected=n1 |
        node n1 cpu=1 cordoned |
        node n2 cpu=1          |
        claim data             |
        failed a               |
        later                  | a -> n2*
    "#]]);
}

#[test]
fn preemption_reserves_the_room_until_the_pod_has_it() {
    check(&expect![[r#"
        node n1 cpu=2                        |
        pod a cpu=2 prio=1 on n1             |
        pod vip cpu=2 prio=9                 | vip refused by NodeResourcesFit, evicts a from n1
        pod vip cpu=2 prio=9 nominated=n1    |
        pod a cpu=2 prio=1 on n1 terminating |
        pod small cpu=1 prio=5               | small refused by NodeResourcesFit
        gone a                               | vip -> n1; small refused by NodeResourcesFit
        bound vip                            |
        pod vip cpu=2 prio=9 on n1           |
        gone vip                             | small -> n1
    "#]]);
}

#[test]
fn anti_affinity_waits_for_the_other_to_leave_or_change() {
    check(&expect![[r#"
        node n1                 |
        pod a app=web on n1     |
        pod b app=web apart=web | b refused by InterPodAffinity
        pod c cpu=1 on n1       | b refused by InterPodAffinity
        pod a app=other on n1   | b -> n1
    "#]]);
}
