//! Advice that goes with pods and templates that are accepted: what does nothing, hides something else, or is going away.
//!
//! Source of the rules and texts: `pkg/api/pod/warnings.go`, `pkg/api/node/util.go` and the strategies below `pkg/registry`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stead_api::Kind;
use stead_machinery::Path;

use super::Judge;
use crate::names;
use crate::view::{View, quantity};

const LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];

const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_OF_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const NO_PODS: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Advice to a new object, or to one whose spec changes. Pods are advised only when they are made: people rarely change them.
pub(super) fn advise(kind: &Kind, object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    if old.is_some_and(|old| kind.kind == "Pod" || same_generation(object, old)) {
        return;
    }
    if old.is_none() {
        names_of_pods(kind, object, judge);
    }
    let spec = Path::new("spec");
    match (kind.group, kind.kind) {
        ("", "Pod") => pod(object, None, judge),
        ("", "PodTemplate") => pod(object.at("template"), Some(&Path::new("template")), judge),
        ("", "ReplicationController") | ("apps", "Deployment" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {
            pod(object.at("spec.template"), Some(&spec.child("template")), judge);
        }
        ("apps", "StatefulSet") => stateful_set(object, old.is_some(), judge),
        ("batch", "CronJob") => {
            let path = spec.child("jobTemplate").child("spec").child("template");
            pod(object.at("spec.jobTemplate.spec.template"), Some(&path), judge);
        }
        _ => {}
    }
}

fn same_generation(object: &Value, old: &Value) -> bool {
    object.at("metadata.generation") == old.at("metadata.generation")
}

/// A set's own advice follows that to its template. The path of a claim template differs, in upstream, between a new set and
/// one that changes.
fn stateful_set(object: &Value, changes: bool, judge: &mut Judge<'_>) {
    let spec = Path::new("spec");
    pod(object.at("spec.template"), Some(&spec.child("template")), judge);
    for (i, claim) in object.items("spec.volumeClaimTemplates").iter().enumerate() {
        let at = spec.child("volumeClaimTemplates").index(i);
        let at = if changes { at.child("Spec") } else { at };
        resources(claim.at("spec.resources"), "storage", &["requests", "limits"], &at.child("resources"), judge);
    }
    if object.int("spec.revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
        say(judge, &spec.child("revisionHistoryLimit"), why);
    }
}

/// A name that is no DNS label makes host names that surprise.
fn names_of_pods(kind: &Kind, object: &Value, judge: &mut Judge<'_>) {
    let whose = match (kind.group, kind.kind) {
        ("", "Pod") => "the Pod's hostname",
        ("", "ReplicationController") | ("apps", "Deployment" | "ReplicaSet") | ("batch", "Job" | "CronJob") => {
            "Pod names and hostnames"
        }
        _ => return,
    };
    let wrong = names::dns_label(object.text("metadata.name"));
    if !wrong.is_empty() {
        judge.warnings.push(format!(
            "metadata.name: this is used in {whose}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
}

fn say(judge: &mut Judge<'_>, path: &Path, what: &str) {
    judge.warnings.push(format!("{path}: {what}"));
}

/// A pod (no `path`) or a template.
fn pod(template: &Value, path: Option<&Path>, judge: &mut Judge<'_>) {
    let child = |name: &str| path.map_or_else(|| Path::new(name), |path| path.child(name));
    let (spec, at, meta) = (template.at("spec"), child("spec"), child("metadata").child("annotations"));
    let annotations = template.at("metadata.annotations");
    placement(spec, &at, judge);
    for (key, why) in ANNOTATIONS.iter().filter(|(key, _)| annotations.get(key).is_some()) {
        say(judge, &meta.key(key), why);
    }
    volumes(spec.items("volumes"), &at.child("volumes"), judge);
    repetitions(spec, &at, judge);
    resources(spec, "memory", &["overhead"], &at, judge);
    resources(spec, "ephemeral-storage", &["overhead"], &at, judge);
    if annotations.get(SECCOMP_OF_POD).is_some() && !spec.has("securityContext.seccompProfile") {
        say(judge, &meta.key(SECCOMP_OF_POD), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
    }
    let all = containers(spec, &at);
    for (container, here) in &all {
        profiles(container, spec, (annotations, &meta), path.is_some(), judge);
        for name in ["memory", "ephemeral-storage"] {
            resources(container.at("resources"), name, &["limits", "requests"], &here.child("resources"), judge);
        }
        environment(container.items("env"), &here.child("env"), judge);
    }
    ports(&all, judge);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        say(judge, &at.child("terminationGracePeriodSeconds"), why);
    }
    neighbours(spec.at("affinity"), &at.child("affinity"), judge);
}

/// All containers of a pod with their paths, in the order in which upstream visits them.
fn containers<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let kinds = ["initContainers", "containers", "ephemeralContainers"];
    let of = |kind: &'static str| {
        let at = path.child(kind);
        spec.items(kind).iter().enumerate().map(move |(i, container)| (container, at.index(i)))
    };
    kinds.into_iter().flat_map(of).collect()
}

fn placement(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    let why = |key: &str| LABELS.iter().find(|(label, _)| *label == key).map(|(_, why)| *why);
    for key in spec.entries("nodeSelector").keys() {
        if let Some(why) = why(key) {
            say(judge, &path.child("nodeSelector").key(key), why);
        }
    }
    let (affinity, at) = (spec.at("affinity.nodeAffinity"), path.child("affinity").child("nodeAffinity"));
    let required = affinity.at(REQUIRED).items("nodeSelectorTerms");
    let preferred = affinity.items(PREFERRED);
    let terms =
        required.iter().enumerate().map(|(i, term)| (term, at.child(REQUIRED).child("nodeSelectorTerms").index(i)));
    let terms = terms.chain(
        preferred
            .iter()
            .enumerate()
            .map(|(i, weighted)| (weighted.at("preference"), at.child(PREFERRED).index(i).child("preference"))),
    );
    for (term, at) in terms {
        for (i, expression) in term.items("matchExpressions").iter().enumerate() {
            let key = expression.text("key");
            if let Some(why) = why(key) {
                say(judge, &at.child("matchExpressions").index(i).child("key"), &format!("{key} is {why}"));
            }
        }
    }
    for (i, constraint) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let (at, key) = (path.child("topologySpreadConstraints").index(i), constraint.text("topologyKey"));
        if let Some(why) = why(key) {
            say(judge, &at.child("topologyKey"), &format!("{key} is {why}"));
        }
        if !constraint.has("labelSelector") {
            say(judge, &at.child("labelSelector"), NO_PODS);
        }
    }
}

/// Terms about other pods that name none.
fn neighbours(affinity: &Value, path: &Path, judge: &mut Judge<'_>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (terms, at) = (affinity.at(kind), path.child(kind));
        for (i, term) in terms.items(REQUIRED).iter().enumerate() {
            if !term.has("labelSelector") {
                say(judge, &at.child(REQUIRED).index(i).child("labelSelector"), NO_PODS);
            }
        }
        for (i, term) in terms.items(PREFERRED).iter().enumerate() {
            if !term.has("podAffinityTerm.labelSelector") {
                say(judge, &at.child(PREFERRED).index(i).child("podAffinityTerm").child("labelSelector"), NO_PODS);
            }
        }
    }
}

fn volumes(volumes: &[Value], path: &Path, judge: &mut Judge<'_>) {
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        for (source, why) in VOLUMES.iter().filter(|(source, _)| volume.has(source)) {
            say(judge, &at.child(source), why);
        }
        let claim = volume.at("ephemeral.volumeClaimTemplate.spec.resources");
        let at = at.child("ephemeral").child("volumeClaimTemplate").child("spec").child("resources");
        resources(claim, "storage", &["requests", "limits"], &at, judge);
    }
    for volume in volumes {
        overlaps(volume, judge);
    }
}

/// Files of one volume that would lie at the same place, or one below another.
fn overlaps(volume: &Value, judge: &mut Judge<'_>) {
    let name = volume.text("name");
    for (source, kind, of) in
        [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
    {
        let from = volume.at(source);
        let paths: Vec<&str> = from.items("items").iter().map(|item| item.text("path")).collect();
        let kind = if of.is_empty() { kind.to_owned() } else { format!("{kind} {:?}", from.text(of)) };
        overlapping(&paths, &format!("volume {name:?} ({kind}): overlapping paths"), judge);
    }
    let mut earlier: BTreeSet<&str> = BTreeSet::new();
    for source in volume.items("projected.sources") {
        let Some((kind, paths)) = projected(source) else {
            judge.warnings.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        };
        let what = format!("volume {name:?} (Projected {kind}): overlapping paths");
        overlapping(&paths, &what, judge);
        let unique: BTreeSet<&str> = paths.iter().copied().collect();
        let mut all: Vec<&str> = unique.iter().chain(&earlier).copied().collect();
        all.sort_unstable();
        overlapping(&all, &what, judge);
        earlier.extend(unique);
    }
}

/// What a part of a projected volume is called, and the paths that it names; nothing when it has no source.
fn projected(source: &Value) -> Option<(String, Vec<&str>)> {
    let items = |from: &'_ str| source.at(from).items("items").iter().map(|item| item.text("path")).collect();
    let bundle = source.at("clusterTrustBundle");
    Some(if source.has("configMap") {
        (format!("ConfigMap {:?}", source.text("configMap.name")), items("configMap"))
    } else if source.has("secret") {
        (format!("Secret {:?}", source.text("secret.name")), items("secret"))
    } else if source.has("downwardAPI") {
        ("DownwardAPI".to_owned(), items("downwardAPI"))
    } else if source.has("serviceAccountToken") {
        ("ServiceAccountToken".to_owned(), vec![source.text("serviceAccountToken.path")])
    } else if !bundle.is_null() {
        let by = if bundle.has("name") { "name" } else { "signerName" };
        (format!("ClusterTrustBundle {:?}", bundle.text(by)), vec![bundle.text("path")])
    } else if source.as_object().is_some_and(|fields| !fields.is_empty()) {
        (String::new(), Vec::new())
    } else {
        return None;
    })
}

fn overlapping(paths: &[&str], what: &str, judge: &mut Judge<'_>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for path in paths.iter().map(|path| path.trim_end_matches('/')) {
        let collides = |other: &&&str| {
            **other == path || format!("{other}/").starts_with(path) || format!("{path}/").starts_with(**other)
        };
        let empty = path.is_empty() || seen.contains("");
        if let Some(other) = seen.iter().find(collides).filter(|_| !empty) {
            judge.warnings.push(format!("{what}: {path:?} with {other:?}"));
        }
        seen.insert(path);
    }
}

fn repetitions(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    for (list, field, what) in [("hostAliases", "ip", "duplicate ip"), ("imagePullSecrets", "name", "duplicate name")] {
        let mut seen = BTreeSet::new();
        for (i, item) in spec.items(list).iter().enumerate() {
            let value = item.text(field);
            if !seen.insert(value) {
                say(judge, &path.child(list).index(i).child(field), &format!("{what} {value:?}"));
            }
        }
    }
    for (i, _) in spec.items("imagePullSecrets").iter().enumerate().filter(|(_, secret)| secret.text("name").is_empty())
    {
        say(judge, &path.child("imagePullSecrets").index(i).child("name"), "invalid empty name \"\"");
    }
}

/// Bytes come whole.
fn resources(owner: &Value, name: &str, lists: &[&str], path: &Path, judge: &mut Judge<'_>) {
    for list in lists {
        let amount = owner.at(list).get(name).and_then(quantity);
        if let Some(amount) = amount.filter(|amount| amount.milli_value() % 1000 != 0) {
            let why = format!("fractional byte value {:?} is invalid, must be an integer", amount.to_string());
            say(judge, &path.child(list).key(name), &why);
        }
    }
}

/// Annotations that fields stand for now.
fn profiles(
    container: &Value,
    spec: &Value,
    (annotations, meta): (&Value, &Path),
    is_template: bool,
    judge: &mut Judge<'_>,
) {
    let name = container.text("name");
    let key = format!("{SECCOMP_OF_CONTAINER}{name}");
    if annotations.get(&key).is_some() && !container.has("securityContext.seccompProfile") {
        say(judge, &meta.key(&key), "non-functional in v1.27+; use the \"seccompProfile\" field instead");
    }
    let key = format!("{APPARMOR_OF_CONTAINER}{name}");
    let field = "securityContext.appArmorProfile";
    if is_template && annotations.get(&key).is_some() && !spec.has(field) && !container.has(field) {
        say(judge, &meta.key(&key), "deprecated since v1.30; use the \"appArmorProfile\" field instead");
    }
}

/// A variable that is set twice and does not build on what it was before.
fn environment(variables: &[Value], path: &Path, judge: &mut Judge<'_>) {
    let mut seen = BTreeSet::new();
    for (i, variable) in variables.iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        if seen.insert(name) {
            continue;
        }
        let before = format!("$({name})");
        if variable.has("valueFrom") || value == before || !value.contains(&before) {
            let why = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            say(judge, &path.index(i), &why);
        }
    }
}

/// Ports that are named twice, in whichever containers.
fn ports(containers: &[(&Value, Path)], judge: &mut Judge<'_>) {
    let mut taken: BTreeMap<(i64, &str), Vec<(&Value, Path)>> = BTreeMap::new();
    for (container, path) in containers {
        for (i, port) in container.items("ports").iter().enumerate() {
            let at = path.child("ports").index(i);
            let (number, protocol) = (port.int("containerPort").unwrap_or(0), port.text("protocol"));
            let host = |port: &Value| port.int("hostPort").unwrap_or(0);
            if !port.text("hostIP").is_empty() && host(port) == 0 {
                let shown = format!(
                    "{{Name:{} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{}}}",
                    port.text("name"),
                    port.text("hostIP")
                );
                say(judge, &at, &format!("hostIP set without hostPort: {shown}"));
            }
            let others = taken.entry((number, protocol)).or_default();
            for (other, where_) in others.iter() {
                let (ip, other_ip) = (port.text("hostIP"), other.text("hostIP"));
                let how = if (ip, host(port)) == (other_ip, host(other)) {
                    "duplicate"
                } else if host(port) == 0 || host(other) == 0 {
                    "overlapping"
                } else if host(port) == host(other) && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                say(judge, &at, &format!("{how} port definition with {where_}"));
            }
            others.push((port, at));
        }
    }
}
