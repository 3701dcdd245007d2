//! Pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;
use stead_machinery::Path;

use super::container::{Role, Shared, container, seccomp, user_id};
use super::diff::diff;
use super::meta::{annotations, invalid_all, labels};
use super::{Judge, one_of, placement, volume};
use crate::mutate::qos_class;
use crate::names;
use crate::view::{Fill, View, same};

/// Longest time that a pod may be active, in seconds.
const ACTIVE_MAX: i64 = i32::MAX as i64;

/// What differs between the places where a pod's spec is written.
#[derive(Clone, Copy, Default)]
pub(super) struct Rules<'a> {
    /// Names of volumes that come from elsewhere (claim templates of a StatefulSet).
    pub more_volumes: &'a [&'a str],
    pub template: bool,
}

pub(super) fn pod(object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    spec(object.at("spec"), Rules::default(), &path, judge);
    if let Some(old) = old {
        update(object, old, &path, judge);
    }
}

/// A template at `path`, for example `spec.template`.
pub(super) fn template(template: &Value, rules: Rules<'_>, path: &Path, judge: &mut Judge<'_>) {
    labels(template.at("metadata.labels"), &path.child("labels"), judge.errors);
    annotations(template.at("metadata.annotations"), &path.child("annotations"), judge.errors);
    let here = path.child("spec");
    spec(template.at("spec"), Rules { template: true, ..rules }, &here, judge);
    if !template.items("spec.ephemeralContainers").is_empty() {
        judge.errors.forbidden(&here.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn spec(spec: &Value, rules: Rules<'_>, path: &Path, judge: &mut Judge<'_>) {
    let mut volumes = volume::volumes(spec, &path.child("volumes"), judge);
    for name in rules.more_volumes {
        volumes.insert((*name).to_owned(), "persistentVolumeClaim");
    }
    let shared = Shared {
        volumes: &volumes,
        host_network: spec.flag("hostNetwork") == Some(true),
        grace_seconds: spec.int("terminationGracePeriodSeconds"),
        image_required: true,
    };
    containers(spec, &shared, path, judge);
    let restart = ["Always", "OnFailure", "Never"];
    one_of(spec.text("restartPolicy"), &restart, &path.child("restartPolicy"), judge);
    dns(spec, path, judge);
    labels(spec.at("nodeSelector"), &path.child("nodeSelector"), judge.errors);
    security(spec.at("securityContext"), &path.child("securityContext"), judge);
    placement::affinity(spec.at("affinity"), &path.child("affinity"), judge);
    gates(spec, path, judge);
    placement::spread(spec.at("topologySpreadConstraints"), &path.child("topologySpreadConstraints"), judge);
    for (field, rule) in [
        ("serviceAccountName", names::dns_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
    ] {
        let value = spec.text(field);
        if !value.is_empty() {
            invalid_all(&path.child(field), value, rule(value), judge.errors);
        }
    }
    if let Some(seconds) = spec.int("activeDeadlineSeconds").filter(|s| !(1..=ACTIVE_MAX).contains(s)) {
        judge.errors.invalid(&path.child("activeDeadlineSeconds"), &seconds, &names::between(1, ACTIVE_MAX));
    }
    if let Some(seconds) = spec.int("terminationGracePeriodSeconds").filter(|s| *s < 0 && rules.template) {
        let why = "must be greater than or equal to 0";
        judge.errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, why);
    }
    placement::tolerations(spec.at("tolerations"), &path.child("tolerations"), judge);
    for (i, alias) in spec.items("hostAliases").iter().enumerate() {
        let here = path.child("hostAliases").index(i);
        invalid_all(&here.child("ip"), alias.text("ip"), names::ip(alias.text("ip")), judge.errors);
        for name in alias.items("hostnames").iter().filter_map(Value::as_str) {
            invalid_all(&here.child("hostnames"), name, names::dns_subdomain(name), judge.errors);
        }
    }
    for field in ["priorityClassName", "runtimeClassName"] {
        let value = spec.text(field);
        if !value.is_empty() {
            invalid_all(&path.child(field), value, names::dns_subdomain(value), judge.errors);
        }
    }
    if spec.has("preemptionPolicy") {
        let policies = ["Never", "PreemptLowerPriority"];
        one_of(spec.text("preemptionPolicy"), &policies, &path.child("preemptionPolicy"), judge);
    }
}

fn containers(spec: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let at = path.child("containers");
    if spec.items("containers").is_empty() {
        judge.errors.required(&at, "");
    }
    for (i, one) in spec.items("containers").iter().enumerate() {
        container(one, Role::Main, shared, &at.index(i), judge);
        unique(one.text("name"), &mut seen, &at.index(i), judge);
        if !one.text("restartPolicy").is_empty()
            && !["Always", "OnFailure", "Never"].contains(&one.text("restartPolicy"))
        {
            let supported = ["Always", "Never", "OnFailure"];
            judge.errors.not_supported(&at.index(i).child("restartPolicy"), &one.text("restartPolicy"), &supported);
        }
    }
    host_ports(spec.items("containers"), &at, judge);
    let at = path.child("initContainers");
    for (i, one) in spec.items("initContainers").iter().enumerate() {
        let role = if one.text("restartPolicy") == "Always" { Role::Sidecar } else { Role::Init };
        container(one, role, shared, &at.index(i), judge);
        unique(one.text("name"), &mut seen, &at.index(i), judge);
        let policy = one.text("restartPolicy");
        if !["", "Always", "OnFailure", "Never"].contains(&policy) {
            judge.errors.not_supported(&at.index(i).child("restartPolicy"), &policy, &["Always", "Never", "OnFailure"]);
        }
    }
    let at = path.child("ephemeralContainers");
    for (i, one) in spec.items("ephemeralContainers").iter().enumerate() {
        container(one, Role::Ephemeral, shared, &at.index(i), judge);
        unique(one.text("name"), &mut seen, &at.index(i), judge);
        let target = one.text("targetContainerName");
        if !target.is_empty() && !seen.contains(target) {
            judge.errors.not_found(&at.index(i).child("targetContainerName"), &target);
        }
        for field in ["ports", "resources.requests", "resources.limits"] {
            if !crate::view::hollow(one.at(field)) {
                let field = field.split('.').next().unwrap_or(field);
                judge.errors.forbidden(&at.index(i).child(field), "cannot be set for an Ephemeral Container");
            }
        }
    }
}

fn unique<'a>(name: &'a str, seen: &mut BTreeSet<&'a str>, path: &Path, judge: &mut Judge<'_>) {
    if !name.is_empty() && !seen.insert(name) {
        judge.errors.duplicate(&path.child("name"), &name);
    }
}

/// One host port can be taken once: `Duplicate value: "TCP//80"`.
fn host_ports(containers: &[Value], path: &Path, judge: &mut Judge<'_>) {
    let mut taken = BTreeSet::new();
    for (c, container) in containers.iter().enumerate() {
        for (p, port) in container.items("ports").iter().enumerate() {
            let Some(number) = port.int("hostPort").filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
            if !taken.insert(key.clone()) {
                judge.errors.duplicate(&path.index(c).child("ports").index(p).child("hostPort"), &key);
            }
        }
    }
}

fn dns(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    const SERVERS: usize = 3;
    const PATHS: usize = 32;
    const CHARS: usize = 2048;
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec.text("dnsPolicy"), &policies, &path.child("dnsPolicy"), judge);
    let (config, at) = (spec.at("dnsConfig"), path.child("dnsConfig"));
    let servers = config.items("nameservers");
    if spec.text("dnsPolicy") == "None" && servers.is_empty() {
        let here = if config.is_null() { at.clone() } else { at.child("nameservers") };
        judge.errors.required(&here, "must provide at least one DNS nameserver when `dnsPolicy` is None");
    }
    if servers.len() > SERVERS {
        let why = format!("must not have more than {SERVERS} nameservers");
        judge.errors.invalid(&at.child("nameservers"), config.at("nameservers"), &why);
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&at.child("nameservers").index(i), server, names::ip(server), judge.errors);
    }
    let searches: Vec<&str> = config.items("searches").iter().filter_map(Value::as_str).collect();
    if searches.len() > PATHS {
        let why = format!("must not have more than {PATHS} search paths");
        judge.errors.invalid(&at.child("searches"), config.at("searches"), &why);
    }
    if searches.join(" ").len() > CHARS {
        let why = format!("must not have more than {CHARS} characters (including spaces) in the search list");
        judge.errors.invalid(&at.child("searches"), config.at("searches"), &why);
    }
    for (i, search) in searches.iter().enumerate() {
        // As relaxed since 1.34: a trailing dot, a lone dot and underscores are fine.
        let plain = search.trim_end_matches('.').replace('_', "-");
        if *search != "." {
            invalid_all(
                &at.child("searches").index(i),
                search,
                names::dns_subdomain(plain.trim_start_matches('-')),
                judge.errors,
            );
        }
    }
    for (i, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            judge.errors.required(&at.child("options").index(i), "must not be empty");
        }
    }
}

fn security(context: &Value, path: &Path, judge: &mut Judge<'_>) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        user_id(context.at(field), &path.child(field), judge);
    }
    for (i, group) in context.items("supplementalGroups").iter().enumerate() {
        user_id(group, &path.child("supplementalGroups").index(i), judge);
    }
    if context.has("fsGroupChangePolicy") {
        let policies = ["Always", "OnRootMismatch"];
        one_of(context.text("fsGroupChangePolicy"), &policies, &path.child("fsGroupChangePolicy"), judge);
    }
    for (i, sysctl) in context.items("sysctls").iter().enumerate() {
        let (name, at) = (sysctl.text("name"), path.child("sysctls").index(i).child("name"));
        let good = |part: &str| {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            part.starts_with(word) && part.ends_with(word) && part.chars().all(|c| word(c) || matches!(c, '-' | '_'))
        };
        if name.is_empty() {
            judge.errors.required(&at, "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(good) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            judge.errors.invalid(&at, &name, why);
        }
    }
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), judge);
}

fn gates(spec: &Value, path: &Path, judge: &mut Judge<'_>) {
    for (i, gate) in spec.items("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        let at = path.child("readinessGates").index(i).child("conditionType");
        invalid_all(&at, kind, names::qualified_name(kind), judge.errors);
    }
    let mut seen = BTreeSet::new();
    for (i, gate) in spec.items("schedulingGates").iter().enumerate() {
        let (name, at) = (gate.text("name"), path.child("schedulingGates").index(i));
        invalid_all(&at, name, names::qualified_name(name), judge.errors);
        if !seen.insert(name) {
            judge.errors.duplicate(&at, &name);
        }
    }
}

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What may change in a pod that exists.
fn update(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    for list in ["containers", "initContainers"] {
        if new.at("spec").items(list).len() != old.at("spec").items(list).len() {
            judge.errors.forbidden(&path.child(list), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(new, old, path, judge);
    placement::added_tolerations(
        new.at("spec.tolerations"),
        old.at("spec.tolerations"),
        &path.child("tolerations"),
        judge,
    );
    let gates = |pod: &Value| pod.items("spec.schedulingGates").to_vec();
    let fresh: Vec<Value> = gates(new).into_iter().filter(|gate| !gates(old).contains(gate)).collect();
    if !fresh.is_empty() {
        judge
            .errors
            .forbidden(&path.child("schedulingGates"), "only deletion is allowed, but found new scheduling gates");
    }
    // Whatever may change is taken from the old pod; then nothing may differ.
    let mut kept = new.at("spec").clone();
    for list in ["containers", "initContainers"] {
        for (one, before) in kept.items_mut(list).iter_mut().zip(old.at("spec").items(list)) {
            one.put("image", before.at("image").clone());
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        kept.put(field, old.at("spec").at(field).clone());
    }
    if new.int("spec.terminationGracePeriodSeconds") == Some(1)
        && old.int("spec.terminationGracePeriodSeconds").is_some_and(|s| s < 0)
    {
        kept.put("terminationGracePeriodSeconds", old.at("spec.terminationGracePeriodSeconds").clone());
    }
    if !gates(old).is_empty() {
        // A gated pod is not placed yet: where it may go can still be narrowed.
        for field in ["nodeSelector", "affinity"] {
            kept.put(field, old.at("spec").at(field).clone());
        }
    }
    if !same(&kept, old.at("spec")) {
        crate::view::drop_nulls(&mut kept);
        judge.errors.forbidden(path, &format!("{FORBIDDEN}\n{}", diff(&kept, old.at("spec"))));
    }
}

/// `activeDeadlineSeconds` may be set once and shortened after that.
fn deadline(new: &Value, old: &Value, path: &Path, judge: &mut Judge<'_>) {
    let Some(before) = old.int("spec.activeDeadlineSeconds") else { return };
    let at = path.child("activeDeadlineSeconds");
    match new.int("spec.activeDeadlineSeconds") {
        None => judge.errors.invalid(&at, &Value::Null, "must not update from a positive integer to nil value"),
        Some(now) if now > before => judge.errors.invalid(&at, &now, "must be less than or equal to previous value"),
        Some(_) => {}
    }
}

/// Through `resize` only cpu and memory of containers change.
pub(super) fn resize(new: &Value, old: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    spec(new.at("spec"), Rules::default(), &path, judge);
    if qos_class(new) != qos_class(old) {
        judge.errors.invalid(&path, &qos_class(new), "Pod QOS Class may not change as a result of resizing");
    }
    let mut kept = new.at("spec").clone();
    for list in ["containers", "initContainers"] {
        for (one, before) in kept.items_mut(list).iter_mut().zip(old.at("spec").items(list)) {
            for of in ["requests", "limits"] {
                for name in ["cpu", "memory"] {
                    let amount = before.at("resources").at(of).get(name).cloned();
                    let Some(target) =
                        one.object("resources").and_then(|r| r.get_mut(of)).and_then(Value::as_object_mut)
                    else {
                        continue;
                    };
                    match amount {
                        Some(amount) => target.insert(name.to_owned(), amount),
                        None => target.remove(name),
                    };
                }
            }
        }
    }
    if !same(&kept, old.at("spec")) {
        judge
            .errors
            .forbidden(&path, &format!("only cpu and memory resources are mutable\n{}", diff(&kept, old.at("spec"))));
    }
}

/// Through `ephemeralcontainers` only such containers are added.
pub(super) fn ephemeral(new: &Value, old: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("spec");
    spec(new.at("spec"), Rules::default(), &path, judge);
    let at = path.child("ephemeralContainers");
    let now = new.items("spec.ephemeralContainers");
    for (i, before) in old.items("spec.ephemeralContainers").iter().enumerate() {
        let name = before.text("name");
        match now.iter().find(|one| one.text("name") == name) {
            None => {
                judge.errors.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be removed\n"))
            }
            Some(one) if !same(one, before) => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n{}", diff(before, one));
                judge.errors.forbidden(&at.index(i), &why);
            }
            Some(_) => {}
        }
    }
}

/// What a status may say after another one.
pub(super) fn status(new: &Value, old: &Value, judge: &mut Judge<'_>) {
    let path = Path::new("status");
    for (list, spec_list) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        let policy = new.text("spec.restartPolicy");
        if policy == "Always" {
            continue;
        }
        for (i, before) in old.at("status").items(list).iter().enumerate() {
            let name = before.text("name");
            let own = new.at("spec").items(spec_list).iter().find(|c| c.text("name") == name);
            if own.is_none_or(|c| c.has("restartPolicy") || c.has("restartPolicyRules"))
                || !before.has("state.terminated")
            {
                continue;
            }
            if policy == "OnFailure" && before.int("state.terminated.exitCode") != Some(0) {
                continue;
            }
            let now = new.at("status").items(list).iter().find(|c| c.text("name") == name);
            if now.is_some_and(|c| !c.has("state.terminated") && !c.at("state").is_null()) {
                let at = path.child(list).index(i).child("state");
                judge.errors.forbidden(&at, "may not be transitioned to non-terminated state");
            }
        }
    }
    let nominated = new.text("status.nominatedNodeName");
    if !nominated.is_empty() {
        let at = path.child("nominatedNodeName");
        invalid_all(&at, nominated, names::dns_subdomain(nominated), judge.errors);
    }
    if !old.text("status.qosClass").is_empty() && new.text("status.qosClass") != old.text("status.qosClass") {
        judge.errors.invalid(&path.child("qosClass"), &new.text("status.qosClass"), "field is immutable");
    }
}
