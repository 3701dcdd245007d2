//! Tells placements as tables. A line sets something up, or asks: `place P ... | node`, `put P ... | node` (and it stays there).
//!
//! `node N cpu=4 mem=8Gi pods=10 zone=a K=V taint=k=v:NoSchedule cordoned image=I@bytes`; `namespace N K=V`;
//! `pod P on N ...`, `nominate P on N ...`; `class C wait|now [PROVISIONER]`; `volume V class=C size=1Gi on=N claim=c`;
//! `claim C class=C size=1Gi volume=V mode=M lost deleting selected=N`; `budget K=V allowed=0`.
//! A pod's words: `cpu=1 mem=1Gi gpu=1 init.cpu=2 sidecar.cpu=1 overhead.cpu=1 prio=5 port=80 claim=c at=N ns=x owner=u`
//! `select=k=v want=k=v (required node affinity) wish=k=v tolerate=k=v:Effect near=k=v@topology away=... nearish=... awayish=...`
//! `spread=k=v@topology/skew spreadish=... terminating never nominated=N`; any other `k=v` is a label.

use std::collections::BTreeMap;
use std::sync::Arc;

use expect_test::Expect;
use serde_json::{Value, json};

use crate::{ClaimPlan, Placement, PodInfo, View, place};

/// Runs the left column and compares the whole table.
pub(crate) fn check(story: &Expect) {
    let lines: Vec<&str> = story.data().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let lefts: Vec<&str> = lines.iter().map(|line| line.split(" | ").next().unwrap().trim()).collect();
    let asks = |line: &str| line.starts_with("place ") || line.starts_with("put ");
    let width = lefts.iter().filter(|left| asks(left)).map(|left| left.len()).max().unwrap_or(0);
    let mut view = View::default();
    let mut table = String::new();
    for left in lefts {
        if asks(left) {
            table += &format!("{left:width$} | {}\n", ask(&mut view, left));
        } else {
            set_up(&mut view, left);
            table += &format!("{left}\n");
        }
    }
    story.assert_eq(&table);
}

fn ask(view: &mut View, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pod = pod(words[1], &words[2..]);
    match place(&pod, view) {
        Placement::On { node, claims, .. } => {
            if words[0] == "put" {
                view.add_pod(&node, pod);
            }
            let claims: Vec<String> = claims.iter().map(tell_claim).collect();
            std::iter::once(node).chain(claims).collect::<Vec<_>>().join(", ")
        }
        Placement::Nowhere(refused) => match refused.preemption {
            Some(plan) => {
                let names: Vec<&str> = plan.victims.iter().map(|(name, _)| name.rsplit('/').next().unwrap()).collect();
                format!("{} evict {} from {}", refused.message, names.join(" "), plan.node)
            }
            None => refused.message.replace("no new claims to deallocate, preemption: ", "~ "),
        },
    }
}

fn tell_claim(plan: &ClaimPlan) -> String {
    match plan {
        ClaimPlan::Bind { claim, volume } => format!("bind {claim} to {volume}"),
        ClaimPlan::Provision { claim } => format!("provision {claim}"),
    }
}

fn set_up(view: &mut View, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, rest) = (words[1], &words[2..]);
    match words[0] {
        "node" => view.set_node(Arc::new(serde_json::from_value(node(name, rest)).unwrap())),
        "namespace" => view.set_namespace(name, labels(rest)),
        "pod" => view.add_pod(rest[1], pod(name, &rest[2..])),
        "nominate" => view.nominate(rest[1], pod(name, &rest[2..])),
        "class" => {
            let mode = if rest[0] == "wait" { "WaitForFirstConsumer" } else { "Immediate" };
            let provisioner = rest.get(1).unwrap_or(&"stead.dev/local");
            let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
            view.storage_mut().classes.insert(name.into(), Arc::new(serde_json::from_value(class).unwrap()));
        }
        "volume" => {
            let volume = Arc::new(serde_json::from_value(volume(name, rest)).unwrap());
            view.storage_mut().volumes.insert(name.into(), volume);
        }
        "claim" => {
            let claim = Arc::new(serde_json::from_value(claim(name, rest)).unwrap());
            view.storage_mut().claims.insert(format!("default/{name}"), claim);
        }
        "budget" => {
            let allowed: i32 = value(rest, "allowed").unwrap().parse().unwrap();
            let budget = json!({
                "metadata": {"name": "b", "namespace": "default"},
                "spec": {"selector": {"matchLabels": labels(&[name])}},
                "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
            });
            view.set_budgets(vec![Arc::new(serde_json::from_value(budget).unwrap())]);
        }
        other => panic!("no such line: {other}"),
    }
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn labels(words: &[&str]) -> BTreeMap<String, String> {
    let pair = |word: &&str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    words.iter().filter_map(pair).collect()
}

fn node(name: &str, words: &[&str]) -> Value {
    let mut labels = labels(words);
    labels.insert("kubernetes.io/hostname".into(), name.into());
    if let Some(zone) = labels.remove("zone") {
        labels.insert("topology.kubernetes.io/zone".into(), zone);
    }
    let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "10"});
    for (word, resource) in [("cpu", "cpu"), ("mem", "memory"), ("pods", "pods"), ("gpu", "example.com/gpu")] {
        if let Some(amount) = labels.remove(word) {
            allocatable[resource] = json!(amount);
        }
    }
    let taints: Vec<Value> = words.iter().filter_map(|word| word.strip_prefix("taint=")).map(taint).collect();
    let images = value(words, "image").map(|image| {
        let (name, bytes) = image.split_once('@').unwrap();
        json!([{"names": [name], "sizeBytes": bytes.parse::<i64>().unwrap()}])
    });
    json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "unschedulable": words.contains(&"cordoned")},
        "status": {"allocatable": allocatable, "images": images}
    })
}

/// `k=v:Effect`
fn taint(text: &str) -> Value {
    let (pair, effect) = text.rsplit_once(':').unwrap();
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    json!({"key": key, "value": value, "effect": effect})
}

fn volume(name: &str, words: &[&str]) -> Value {
    let affinity = value(words, "on").map(|node| {
        let term = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [term]}]}})
    });
    let reference = value(words, "claim").map(|claim| json!({"namespace": "default", "name": claim}));
    json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": value(words, "class"), "capacity": {"storage": value(words, "size").unwrap_or("1Gi")},
            "accessModes": ["ReadWriteOnce"], "nodeAffinity": affinity, "claimRef": reference
        },
        "status": {"phase": if reference.is_some() { "Bound" } else { "Available" }}
    })
}

fn claim(name: &str, words: &[&str]) -> Value {
    let bound = value(words, "volume");
    let phase = if words.contains(&"lost") {
        "Lost"
    } else if bound.is_some() {
        "Bound"
    } else {
        "Pending"
    };
    let deleting = words.contains(&"deleting").then_some("2026-11-20T15:00:00Z");
    let annotations = value(words, "selected").map(|node| json!({"volume.kubernetes.io/selected-node": node}));
    json!({
        "metadata": {"name": name, "namespace": "default", "deletionTimestamp": deleting, "annotations": annotations},
        "spec": {
            "storageClassName": value(words, "class"), "volumeName": bound,
            "accessModes": [value(words, "mode").unwrap_or("ReadWriteOnce")],
            "resources": {"requests": {"storage": value(words, "size").unwrap_or("1Gi")}}
        },
        "status": {"phase": phase}
    })
}

fn pod(name: &str, words: &[&str]) -> Arc<PodInfo> {
    let mut spec = json!({"containers": [container("", words)]});
    let mut labels = BTreeMap::new();
    let mut status = json!({});
    let mut meta = json!({"name": name, "namespace": "default", "uid": name});
    spec["initContainers"] = json!([container("sidecar.", words), container("init.", words)]);
    spec["initContainers"][0]["restartPolicy"] = json!("Always");
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "cpu" | "mem" | "gpu" | "init.cpu" | "sidecar.cpu" | "port" | "image" => {}
            "overhead.cpu" => spec["overhead"] = json!({"cpu": value}),
            "prio" => spec["priority"] = json!(value.parse::<i32>().unwrap()),
            "never" => spec["preemptionPolicy"] = json!("Never"),
            "at" => spec["nodeName"] = json!(value),
            "ns" => meta["namespace"] = json!(value),
            "terminating" => meta["deletionTimestamp"] = json!("2026-11-20T15:00:00Z"),
            "nominated" => status["nominatedNodeName"] = json!(value),
            "owner" => {
                let owner = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": value, "controller": true});
                meta["ownerReferences"] = json!([owner]);
            }
            "claim" => {
                push(&mut spec["volumes"], json!({"name": value, "persistentVolumeClaim": {"claimName": value}}))
            }
            "ephemeral" => push(&mut spec["volumes"], json!({"name": value, "ephemeral": {}})),
            "select" => spec["nodeSelector"] = json!(self::labels(&[value])),
            "want" => push(&mut spec["affinity"]["nodeAffinity"][HARD]["nodeSelectorTerms"], node_term(value)),
            "named" => {
                let field = json!({"key": "metadata.name", "operator": "In", "values": [value]});
                let term = json!({"matchFields": [field]});
                push(&mut spec["affinity"]["nodeAffinity"][HARD]["nodeSelectorTerms"], term);
            }
            "wish" => {
                push(
                    &mut spec["affinity"]["nodeAffinity"][SOFT],
                    json!({"weight": 50, "preference": node_term(value)}),
                );
            }
            "tolerate" => push(&mut spec["tolerations"], taint(value)),
            "near" => push(&mut spec["affinity"]["podAffinity"][HARD], pod_term(value)),
            "away" => push(&mut spec["affinity"]["podAntiAffinity"][HARD], pod_term(value)),
            "nearish" => push(&mut spec["affinity"]["podAffinity"][SOFT], weighted(value)),
            "awayish" => push(&mut spec["affinity"]["podAntiAffinity"][SOFT], weighted(value)),
            "spread" => push(&mut spec["topologySpreadConstraints"], spread(value, "DoNotSchedule")),
            "spreadish" => push(&mut spec["topologySpreadConstraints"], spread(value, "ScheduleAnyway")),
            _ => drop(labels.insert(key.to_owned(), value.to_owned())),
        }
    }
    meta["labels"] = json!(labels);
    let pod = json!({"metadata": meta, "spec": spec, "status": status});
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

const HARD: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const SOFT: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn push(list: &mut Value, value: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(value),
        None => *list = json!([value]),
    }
}

fn container(prefix: &str, words: &[&str]) -> Value {
    let mut requests = json!({});
    for (word, resource) in [("cpu", "cpu"), ("mem", "memory"), ("gpu", "example.com/gpu")] {
        if let Some(amount) = value(words, &format!("{prefix}{word}")) {
            requests[resource] = json!(amount);
        }
    }
    let port = value(words, "port").filter(|_| prefix.is_empty()).map(|port| {
        let (ip, port) = port.split_once(':').unwrap_or(("", port));
        json!([{"containerPort": 1, "hostPort": port.parse::<i32>().unwrap(), "hostIP": ip}])
    });
    let image = value(words, "image").filter(|_| prefix.is_empty());
    json!({"name": format!("{prefix}c"), "image": image, "resources": {"requests": requests}, "ports": port})
}

fn node_term(pair: &str) -> Value {
    let (key, value) = pair.split_once('=').unwrap();
    json!({"matchExpressions": [{"key": topology(key), "operator": "In", "values": value.split(',').collect::<Vec<_>>()}]})
}

fn topology(short: &str) -> &str {
    match short {
        "zone" => "topology.kubernetes.io/zone",
        "host" => "kubernetes.io/hostname",
        other => other,
    }
}

/// `k=v@topology`, with `@ns=x` (namespaces) or `@all` (all namespaces) behind it.
fn pod_term(text: &str) -> Value {
    let parts: Vec<&str> = text.split('@').collect();
    let mut term = json!({"labelSelector": {"matchLabels": labels(&parts[..1])}, "topologyKey": topology(parts[1])});
    match parts.get(2) {
        Some(&"all") => term["namespaceSelector"] = json!({}),
        Some(selected) => term["namespaceSelector"] = json!({"matchLabels": labels(&[selected])}),
        None => {}
    }
    term
}

fn weighted(text: &str) -> Value {
    json!({"weight": 100, "podAffinityTerm": pod_term(text)})
}

/// `k=v@topology/skew`, with `/domains` behind it.
fn spread(text: &str, when: &str) -> Value {
    let (selector, rest) = text.split_once('@').unwrap();
    let parts: Vec<&str> = rest.split('/').collect();
    let number = |at: usize| parts.get(at).map(|text| text.parse::<i32>().unwrap());
    json!({
        "labelSelector": {"matchLabels": labels(&[selector])}, "topologyKey": topology(parts[0]),
        "maxSkew": number(1), "minDomains": number(2), "whenUnsatisfiable": when
    })
}
