//! Pod Security Standards: what a namespace's labels forbid its pods.
//!
//! Source of rules and texts: `k8s.io/pod-security-admission/policy`. Checks stand in the order of upstream's names.

use serde_json::Value;
use stead_api::Kind;
use stead_machinery::ApiError;

use crate::context::Context;
use crate::view::View;

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Capabilities that a container has anyway.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
/// Volumes that hold nothing of the node.
const SAFE_VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SAFE_SELINUX: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Level and version of one mode (`enforce` or `warn`) of a namespace.
fn level(namespace: &Value, mode: &str) -> (Level, String) {
    let labels = namespace.at("metadata.labels");
    let label = |name: String| labels.get(name).and_then(Value::as_str).unwrap_or("");
    let level = match label(format!("{PREFIX}{mode}")) {
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        // A word that nobody knows is the strictest, as upstream has it.
        "" | "privileged" => Level::Privileged,
        _ => Level::Restricted,
    };
    let version = label(format!("{PREFIX}{mode}-version"));
    let name = if level == Level::Baseline { "baseline" } else { "restricted" };
    (level, format!("{name}:{}", if version.is_empty() { "latest" } else { version }))
}

/// Refuses a pod that its namespace forbids.
pub(super) fn enforce(kind: &Kind, pod: &Value, ctx: &Context<'_>) -> Result<(), ApiError> {
    let Some(namespace) = ctx.lookup.get("", "namespaces", "", pod.text("metadata.namespace")) else { return Ok(()) };
    let (level, name) = level(&namespace, "enforce");
    let found = violations(pod.at("metadata"), pod.at("spec"), level);
    if found.is_empty() {
        return Ok(());
    }
    let why = format!("violates PodSecurity {name:?}: {}", found.join(", "));
    Err(ApiError::forbidden(kind, pod.text("metadata.name"), &why))
}

/// What a pod or a template will run into.
pub(crate) fn warn(kind: &Kind, object: &Value, ctx: &Context<'_>) -> Option<String> {
    let template = match (kind.group, kind.kind) {
        ("", "Pod") => object,
        ("apps", _) | ("batch", "Job") | ("", "ReplicationController") => object.at("spec.template"),
        ("batch", "CronJob") => object.at("spec.jobTemplate.spec.template"),
        _ => return None,
    };
    let namespace = ctx.lookup.get("", "namespaces", "", object.text("metadata.namespace"))?;
    let (level, name) = level(&namespace, "warn");
    let found = violations(template.at("metadata"), template.at("spec"), level);
    (!found.is_empty()).then(|| format!("would violate PodSecurity {name:?}: {}", found.join(", ")))
}

fn violations(metadata: &Value, spec: &Value, level: Level) -> Vec<String> {
    if level == Level::Privileged || !spec.is_object() {
        return Vec::new();
    }
    let restricted = level == Level::Restricted;
    let checks = [
        restricted.then(|| escalation(spec)).flatten(),
        app_armor(metadata),
        if restricted { capabilities_restricted(spec) } else { capabilities(spec) },
        host_namespaces(spec),
        (!restricted).then(|| host_paths(spec)).flatten(),
        host_ports(spec),
        privileged(spec),
        proc_mount(spec),
        restricted.then(|| volumes(spec)).flatten(),
        restricted.then(|| non_root(spec)).flatten(),
        restricted.then(|| root_user(spec)).flatten(),
        selinux(spec),
        if restricted { seccomp_restricted(spec) } else { seccomp(spec) },
        sysctls(spec),
    ];
    checks.into_iter().flatten().collect()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec.items(list))
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn named(names: &[&str]) -> String {
    format!("container{} {}", if names.len() == 1 { "" } else { "s" }, quoted(names))
}

/// `WHAT (container "a" must RULE)` when some container breaks the rule.
fn each(spec: &Value, what: &str, rule: &str, bad: impl Fn(&Value) -> bool) -> Option<String> {
    let names: Vec<&str> = containers(spec).filter(|c| bad(c)).map(|c| c.text("name")).collect();
    (!names.is_empty()).then(|| format!("{what} ({} must {rule})", named(&names)))
}

fn escalation(spec: &Value) -> Option<String> {
    if spec.text("os.name") == "windows" {
        return None;
    }
    each(spec, "allowPrivilegeEscalation != false", "set securityContext.allowPrivilegeEscalation=false", |c| {
        c.flag("securityContext.allowPrivilegeEscalation") != Some(false)
    })
}

fn app_armor(metadata: &Value) -> Option<String> {
    const KEY: &str = "container.apparmor.security.beta.kubernetes.io/";
    let bad: Vec<String> = metadata
        .entries("annotations")
        .iter()
        .filter(|(key, _)| key.starts_with(KEY))
        .filter(|(_, value)| {
            let value = value.as_str().unwrap_or("");
            !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let plural = if bad.len() == 1 { "" } else { "s" };
    (!bad.is_empty()).then(|| format!("forbidden AppArmor profile{plural} ({})", bad.join(", ")))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    container.items("securityContext.capabilities.add").iter().filter_map(Value::as_str)
}

fn capabilities(spec: &Value) -> Option<String> {
    let bad = |c: &Value| added(c).any(|name| !DEFAULT_CAPABILITIES.contains(&name));
    let names: Vec<&str> = containers(spec).filter(|c| bad(c)).map(|c| c.text("name")).collect();
    let mut more: Vec<&str> =
        containers(spec).flat_map(added).filter(|name| !DEFAULT_CAPABILITIES.contains(name)).collect();
    more.sort_unstable();
    more.dedup();
    (!names.is_empty()).then(|| {
        format!(
            "non-default capabilities ({} must not include {} in securityContext.capabilities.add)",
            named(&names),
            quoted(&more)
        )
    })
}

fn capabilities_restricted(spec: &Value) -> Option<String> {
    if spec.text("os.name") == "windows" {
        return None;
    }
    let keeps = |c: &&Value| !c.items("securityContext.capabilities.drop").iter().any(|d| d.as_str() == Some("ALL"));
    let adds = |c: &&Value| added(c).any(|name| name != "NET_BIND_SERVICE");
    let dropping: Vec<&str> = containers(spec).filter(keeps).map(|c| c.text("name")).collect();
    let adding: Vec<&str> = containers(spec).filter(adds).map(|c| c.text("name")).collect();
    let mut parts = Vec::new();
    if !dropping.is_empty() {
        parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&dropping)));
    }
    if !adding.is_empty() {
        let mut more: Vec<&str> = containers(spec).flat_map(added).filter(|name| *name != "NET_BIND_SERVICE").collect();
        more.sort_unstable();
        more.dedup();
        let list = quoted(&more);
        parts.push(format!("{} must not include {list} in securityContext.capabilities.add", named(&adding)));
    }
    (!parts.is_empty()).then(|| format!("unrestricted capabilities ({})", parts.join("; ")))
}

fn host_namespaces(spec: &Value) -> Option<String> {
    let on: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec.flag(field) == Some(true))
        .map(|field| format!("{field}=true"))
        .collect();
    (!on.is_empty()).then(|| format!("host namespaces ({})", on.join(", ")))
}

fn host_paths(spec: &Value) -> Option<String> {
    let names: Vec<&str> = spec.items("volumes").iter().filter(|v| v.has("hostPath")).map(|v| v.text("name")).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    (!names.is_empty()).then(|| format!("hostPath volumes (volume{plural} {})", quoted(&names)))
}

fn host_ports(spec: &Value) -> Option<String> {
    let ports = |c: &Value| -> Vec<i64> {
        c.items("ports").iter().filter_map(|p| p.int("hostPort")).filter(|p| *p != 0).collect()
    };
    let names: Vec<&str> = containers(spec).filter(|c| !ports(c).is_empty()).map(|c| c.text("name")).collect();
    let mut all: Vec<i64> = containers(spec).flat_map(ports).collect();
    all.sort_unstable();
    all.dedup();
    let (verb, word) =
        (if names.len() == 1 { "uses" } else { "use" }, if all.len() == 1 { "hostPort" } else { "hostPorts" });
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    (!names.is_empty()).then(|| format!("hostPort ({} {verb} {word} {list})", named(&names)))
}

fn privileged(spec: &Value) -> Option<String> {
    each(spec, "privileged", "not set securityContext.privileged=true", |c| {
        c.flag("securityContext.privileged") == Some(true)
    })
}

fn proc_mount(spec: &Value) -> Option<String> {
    let unmasked = |c: &Value| !matches!(c.text("securityContext.procMount"), "" | "Default");
    each(spec, "procMount", "not set securityContext.procMount to \"Unmasked\"", unmasked)
}

fn volumes(spec: &Value) -> Option<String> {
    let kind = |volume: &Value| -> Option<String> {
        let kinds = volume.as_object()?.keys().filter(|key| *key != "name");
        kinds.into_iter().find(|key| !SAFE_VOLUMES.contains(&key.as_str())).cloned()
    };
    let bad: Vec<(&str, String)> =
        spec.items("volumes").iter().filter_map(|v| Some((v.text("name"), kind(v)?))).collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let mut kinds: Vec<&str> = bad.iter().map(|(_, kind)| kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let (plural, verb) = if names.len() == 1 { ("", "uses") } else { ("s", "use") };
    let types = if kinds.len() == 1 { "type" } else { "types" };
    (!names.is_empty()).then(|| {
        let (names, kinds) = (quoted(&names), quoted(&kinds));
        format!("restricted volume types (volume{plural} {names} {verb} restricted volume {types} {kinds})")
    })
}

/// What the pod says holds for containers that say nothing.
fn non_root(spec: &Value) -> Option<String> {
    let pod = spec.flag("securityContext.runAsNonRoot");
    let own = |c: &Value| c.flag("securityContext.runAsNonRoot");
    let explicit: Vec<&str> = containers(spec).filter(|c| own(c) == Some(false)).map(|c| c.text("name")).collect();
    let silent: Vec<&str> =
        containers(spec).filter(|c| own(c).is_none() && pod != Some(true)).map(|c| c.text("name")).collect();
    let mut parts = Vec::new();
    if pod == Some(false) && !silent.is_empty() {
        parts.push("pod must not set securityContext.runAsNonRoot=false".to_owned());
    }
    if !explicit.is_empty() {
        parts.push(format!("{} must not set securityContext.runAsNonRoot=false", named(&explicit)));
    }
    if parts.is_empty() && !silent.is_empty() {
        parts.push(format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)));
    }
    (!parts.is_empty()).then(|| format!("runAsNonRoot != true ({})", parts.join(", ")))
}

fn root_user(spec: &Value) -> Option<String> {
    let root = |value: &Value| value.int("securityContext.runAsUser") == Some(0);
    let names: Vec<&str> = containers(spec).filter(|c| root(c)).map(|c| c.text("name")).collect();
    let mut parts = Vec::new();
    if root(spec) {
        parts.push("pod".to_owned());
    }
    if !names.is_empty() {
        parts.push(named(&names));
    }
    (!parts.is_empty()).then(|| format!("runAsUser=0 ({} must not set runAsUser=0)", parts.join(" and ")))
}

fn selinux(spec: &Value) -> Option<String> {
    let bad = |holder: &Value| {
        let options = holder.at("securityContext.seLinuxOptions");
        !SAFE_SELINUX.contains(&options.text("type"))
            || !options.text("user").is_empty()
            || !options.text("role").is_empty()
    };
    let names: Vec<&str> = containers(spec).filter(|c| bad(c)).map(|c| c.text("name")).collect();
    let mut parts = Vec::new();
    if bad(spec) {
        parts.push("pod".to_owned());
    }
    if !names.is_empty() {
        parts.push(named(&names));
    }
    (!parts.is_empty())
        .then(|| format!("seLinuxOptions ({} set forbidden securityContext.seLinuxOptions)", parts.join(" and ")))
}

fn profile(holder: &Value) -> &str {
    holder.text("securityContext.seccompProfile.type")
}

fn seccomp(spec: &Value) -> Option<String> {
    let names: Vec<&str> = containers(spec).filter(|c| profile(c) == "Unconfined").map(|c| c.text("name")).collect();
    let mut parts = Vec::new();
    if profile(spec) == "Unconfined" {
        parts.push("pod".to_owned());
    }
    if !names.is_empty() {
        parts.push(named(&names));
    }
    let rule = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
    (!parts.is_empty()).then(|| format!("seccompProfile ({} {rule})", parts.join(" and ")))
}

fn seccomp_restricted(spec: &Value) -> Option<String> {
    if spec.text("os.name") == "windows" {
        return None;
    }
    if let Some(bad) = seccomp(spec) {
        return Some(bad);
    }
    let silent = |c: &&Value| profile(c).is_empty() && profile(spec).is_empty();
    let names: Vec<&str> = containers(spec).filter(silent).map(|c| c.text("name")).collect();
    let rule = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    (!names.is_empty()).then(|| format!("seccompProfile (pod or {} {rule})", named(&names)))
}

fn sysctls(spec: &Value) -> Option<String> {
    let bad: Vec<&str> = spec
        .items("securityContext.sysctls")
        .iter()
        .map(|sysctl| sysctl.text("name"))
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    (!bad.is_empty()).then(|| format!("forbidden sysctls ({})", bad.join(", ")))
}
