//! One container: name, image, ports, environment, mounts, probes, resources, security.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stead_machinery::Path;

use super::meta::invalid_all;
use super::{Judge, non_negative, one_of, port_number};
use crate::names;
use crate::view::{View, quantity};

/// What the containers of one pod share.
pub(super) struct Shared<'a> {
    /// Volumes by name, with the kind of their source.
    pub volumes: &'a BTreeMap<String, &'static str>,
    pub host_network: bool,
    pub grace_seconds: Option<i64>,
    /// Images of a template may be absent only in an object that was stored before.
    pub image_required: bool,
}

/// What a container is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Init,
    /// An init container with restart policy `Always`.
    Sidecar,
    Ephemeral,
}

pub(super) fn container(container: &Value, role: Role, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let name = container.text("name");
    if name.is_empty() {
        judge.errors.required(&path.child("name"), "");
    } else {
        invalid_all(&path.child("name"), name, names::dns_label(name), judge.errors);
    }
    let image = container.text("image");
    if image.is_empty() {
        if shared.image_required {
            judge.errors.required(&path.child("image"), "");
        }
    } else if image.trim() != image {
        judge.errors.invalid(&path.child("image"), &image, "must not have leading or trailing whitespace");
    }
    one_of(
        container.text("terminationMessagePolicy"),
        &["FallbackToLogsOnError", "File"],
        &path.child("terminationMessagePolicy"),
        judge,
    );
    ports(container, shared, &path.child("ports"), judge);
    environment(container, path, judge);
    mounts(container, shared, path, judge);
    one_of(
        container.text("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
        &path.child("imagePullPolicy"),
        judge,
    );
    resources(container.at("resources"), &path.child("resources"), judge);
    security(container.at("securityContext"), &path.child("securityContext"), judge);
    life(container, role, shared, path, judge);
}

/// Probes and hooks: which kinds of container may have them.
fn life(container: &Value, role: Role, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let allowed = matches!(role, Role::Main | Role::Sidecar);
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        let here = container.at(name);
        if here.is_null() {
            continue;
        }
        if !allowed {
            let why = match role {
                Role::Ephemeral => "field not allowed for ephemeral containers",
                _ => "may not be set for init containers without restartPolicy=Always",
            };
            judge.errors.forbidden(&path.child(name), why);
            continue;
        }
        if name == "lifecycle" {
            for hook in ["postStart", "preStop"] {
                if here.has(hook) {
                    hook_handler(here.at(hook), shared, &path.child(name).child(hook), judge);
                }
            }
        } else {
            probe(here, name, shared, &path.child(name), judge);
        }
    }
}

fn ports(container: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let mut seen = BTreeSet::new();
    for (i, port) in container.items("ports").iter().enumerate() {
        let here = path.index(i);
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() {
                if !seen.insert(name) {
                    judge.errors.duplicate(&here.child("name"), &name);
                }
            } else {
                invalid_all(&here.child("name"), name, wrong, judge.errors);
            }
        }
        let number = port.int("containerPort").unwrap_or(0);
        if number == 0 {
            judge.errors.required(&here.child("containerPort"), "");
        } else {
            port_number(number, &here.child("containerPort"), judge);
        }
        if let Some(host) = port.int("hostPort").filter(|p| *p != 0) {
            port_number(host, &here.child("hostPort"), judge);
            if shared.host_network && host != number {
                judge.errors.invalid(
                    &here.child("hostPort"),
                    &host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
        one_of(port.text("protocol"), &["SCTP", "TCP", "UDP"], &here.child("protocol"), judge);
    }
}

fn environment(container: &Value, path: &Path, judge: &mut Judge<'_>) {
    for (i, env) in container.items("env").iter().enumerate() {
        let here = path.child("env").index(i);
        let name = env.text("name");
        if name.is_empty() {
            judge.errors.required(&here.child("name"), "");
        } else {
            invalid_all(&here.child("name"), name, names::env_name(name), judge.errors);
        }
        if env.has("valueFrom") {
            value_from(env, &here.child("valueFrom"), judge);
        }
    }
    for (i, from) in container.items("envFrom").iter().enumerate() {
        let here = path.child("envFrom").index(i);
        let prefix = from.text("prefix");
        if !prefix.is_empty() {
            invalid_all(&here.child("prefix"), prefix, names::env_name(prefix), judge.errors);
        }
        let sources: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|s| from.has(s)).collect();
        for source in &sources {
            if from.at(source).text("name").is_empty() {
                judge.errors.required(&here.child(source).child("name"), "");
            }
        }
        match sources.len() {
            0 => judge.errors.invalid(&here, &"", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => judge.errors.invalid(&here, &"", "may not have more than one field specified at a time"),
        }
    }
}

/// Fields of the pod that an environment variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn value_from(env: &Value, path: &Path, judge: &mut Judge<'_>) {
    let from = env.at("valueFrom");
    let mut sources = 0;
    if from.has("fieldRef") {
        sources += 1;
        field_ref(from.at("fieldRef"), ENV_FIELDS, &path.child("fieldRef"), judge);
    }
    if from.has("resourceFieldRef") {
        sources += 1;
        if from.text("resourceFieldRef.resource").is_empty() {
            judge.errors.required(&path.child("resourceFieldRef").child("resource"), "");
        }
    }
    for source in ["configMapKeyRef", "secretKeyRef"] {
        if !from.has(source) {
            continue;
        }
        sources += 1;
        let here = path.child(source);
        if from.at(source).text("name").is_empty() {
            judge.errors.required(&here.child("name"), "");
        }
        let key = from.at(source).text("key");
        if key.is_empty() {
            judge.errors.required(&here.child("key"), "");
        } else {
            invalid_all(&here.child("key"), key, names::config_key(key), judge.errors);
        }
    }
    if from.has("fileKeyRef") {
        sources += 1;
    }
    match sources {
        0 => judge.errors.invalid(
            path,
            &"",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        _ if !env.text("value").is_empty() => {
            judge.errors.invalid(path, &"", "may not be specified when `value` is not empty");
        }
        1 => {}
        _ => judge.errors.invalid(path, &"", "may not have more than one field specified at a time"),
    }
}

/// A reference to a field of the pod: `metadata.labels['key']` or one of a list.
pub(super) fn field_ref(field: &Value, allowed: &[&str], path: &Path, judge: &mut Judge<'_>) {
    if field.text("apiVersion").is_empty() {
        judge.errors.required(&path.child("apiVersion"), "");
    }
    let name = field.text("fieldPath");
    if name.is_empty() {
        judge.errors.required(&path.child("fieldPath"), "");
        return;
    }
    let here = path.child("fieldPath");
    if let Some((of, key)) = name.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        match of {
            "metadata.labels" => invalid_all(&here, key, names::qualified_name(key), judge.errors),
            "metadata.annotations" => {
                invalid_all(&here, key, names::qualified_name(&key.to_lowercase()), judge.errors);
            }
            _ => judge.errors.invalid(&here, &name, "does not support subscript"),
        }
    } else if !allowed.contains(&name) {
        judge.errors.not_supported(&here, &name, allowed);
    }
}

fn mounts(container: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let devices: BTreeMap<&str, &str> =
        container.items("volumeDevices").iter().map(|d| (d.text("name"), d.text("devicePath"))).collect();
    let mut paths = BTreeSet::new();
    for (i, mount) in container.items("volumeMounts").iter().enumerate() {
        let here = path.child("volumeMounts").index(i);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            judge.errors.required(&here.child("name"), "");
        }
        if target.is_empty() {
            judge.errors.required(&here.child("mountPath"), "");
        }
        if !shared.volumes.contains_key(name) {
            judge.errors.not_found(&here.child("name"), &name);
        }
        if !paths.insert(target) {
            judge.errors.invalid(&here.child("mountPath"), &target, "must be unique");
        }
        if devices.contains_key(name) {
            judge.errors.invalid(&here.child("name"), &name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|device| *device == target) {
            judge.errors.invalid(
                &here.child("mountPath"),
                &target,
                "must not already exist as a path in volumeDevices",
            );
        }
        let sub = mount.text("subPath");
        if !sub.is_empty() {
            inside(sub, &here.child("subPath"), judge);
        }
        if !mount.text("subPathExpr").is_empty() {
            if !sub.is_empty() {
                judge.errors.invalid(
                    &here.child("subPathExpr"),
                    &mount.text("subPathExpr"),
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            inside(mount.text("subPathExpr"), &here.child("subPathExpr"), judge);
        }
        if mount.has("mountPropagation") {
            one_of(
                mount.text("mountPropagation"),
                &["Bidirectional", "HostToContainer", "None"],
                &here.child("mountPropagation"),
                judge,
            );
            if mount.text("mountPropagation") == "Bidirectional"
                && container.flag("securityContext.privileged") != Some(true)
            {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                judge.errors.forbidden(&here.child("mountPropagation"), why);
            }
        }
    }
    block_devices(container, shared, &path.child("volumeDevices"), judge);
}

fn block_devices(container: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    for (i, device) in container.items("volumeDevices").iter().enumerate() {
        let here = path.index(i);
        let (name, target) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            judge.errors.required(&here.child("name"), "");
        }
        if target.is_empty() {
            judge.errors.required(&here.child("devicePath"), "");
        }
        match shared.volumes.get(name) {
            None => judge.errors.not_found(&here.child("name"), &name),
            Some(&("persistentVolumeClaim" | "ephemeral")) => {}
            Some(_) => judge.errors.invalid(
                &here.child("name"),
                &name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
        }
    }
}

/// A relative path that stays below its root.
pub(super) fn inside(text: &str, path: &Path, judge: &mut Judge<'_>) {
    if text.starts_with('/') {
        judge.errors.invalid(path, &text, "must be a relative path");
    }
    no_backsteps(text, path, judge);
}

pub(super) fn no_backsteps(text: &str, path: &Path, judge: &mut Judge<'_>) {
    if text.split('/').any(|step| step == "..") {
        judge.errors.invalid(path, &text, "must not contain '..'");
    }
}

pub(super) fn probe(probe: &Value, name: &str, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    handler(probe, true, shared, path, judge);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe.at(field), &path.child(field), judge);
    }
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
        if name == "readinessProbe" {
            judge.errors.invalid(
                &path.child("terminationGracePeriodSeconds"),
                &seconds,
                "must not be set for readinessProbes",
            );
        } else if seconds <= 0 {
            judge.errors.invalid(&path.child("terminationGracePeriodSeconds"), &seconds, "must be greater than 0");
        }
    }
    let successes = probe.int("successThreshold").unwrap_or(1);
    if name != "readinessProbe" && successes != 1 {
        judge.errors.invalid(&path.child("successThreshold"), &successes, "must be 1");
    }
}

fn hook_handler(hook: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    handler(hook, false, shared, path, judge);
}

/// Exactly one way to act: exec, httpGet, tcpSocket, and for probes grpc, for hooks sleep.
fn handler(holder: &Value, probe: bool, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    let mut found = 0;
    let kinds: &[&str] =
        if probe { &["exec", "httpGet", "tcpSocket", "grpc"] } else { &["exec", "httpGet", "tcpSocket", "sleep"] };
    for kind in kinds {
        let action = holder.at(kind);
        if action.is_null() {
            continue;
        }
        let here = path.child(kind);
        if found > 0 {
            judge.errors.forbidden(&here, "may not specify more than 1 handler type");
        } else {
            found += 1;
            self::action(kind, action, shared, &here, judge);
        }
    }
    if found == 0 {
        judge.errors.required(path, "must specify a handler type");
    }
}

fn action(kind: &str, action: &Value, shared: &Shared<'_>, path: &Path, judge: &mut Judge<'_>) {
    match kind {
        "exec" if action.items("command").is_empty() => judge.errors.required(&path.child("command"), ""),
        "exec" => {}
        "sleep" => {
            let (seconds, grace) = (action.int("seconds").unwrap_or(0), shared.grace_seconds.unwrap_or(30));
            if seconds < 0 || seconds > grace {
                let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                judge.errors.invalid(path, &seconds, &why);
            }
        }
        "grpc" => port_number(action.int("port").unwrap_or(0), &path.child("port"), judge),
        _ => {
            if kind == "httpGet" {
                if action.text("path").is_empty() {
                    judge.errors.required(&path.child("path"), "");
                }
                one_of(action.text("scheme"), &["HTTP", "HTTPS"], &path.child("scheme"), judge);
                for header in action.items("httpHeaders") {
                    let name = header.text("name");
                    let good =
                        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                    if !good {
                        judge.errors.invalid(&path.child("httpHeaders"), &name, "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')");
                    }
                }
            }
            named_port(action.at("port"), &path.child("port"), judge);
        }
    }
}

/// A number or the name of a port.
pub(super) fn named_port(port: &Value, path: &Path, judge: &mut Judge<'_>) {
    match port {
        Value::String(name) => invalid_all(path, name, names::port_name(name), judge.errors),
        other => port_number(other.as_i64().unwrap_or(0), path, judge),
    }
}

/// Resources that every container knows.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];

fn resource_name(name: &str, path: &Path, judge: &mut Judge<'_>) {
    invalid_all(path, name, names::qualified_name(name), judge.errors);
    if name.contains('/') {
        let domain = name.split('/').next().unwrap_or("");
        if domain == "requests.kubernetes.io" || name.starts_with("requests.") {
            judge.errors.invalid(path, &name, "doesn't follow extended resource name standard");
        }
        return;
    }
    if STANDARD.contains(&name) || name.starts_with("hugepages-") {
        return;
    }
    if ["pods", "services", "storage", "configmaps", "secrets"].contains(&name) {
        judge.errors.invalid(path, &name, "must be a standard resource for containers");
        return;
    }
    judge.errors.invalid(path, &name, "must be a standard resource type or fully qualified");
    judge.errors.invalid(path, &name, "must be a standard resource for containers");
}

/// Limits and requests: known names, amounts that are not negative, requests within limits.
pub(super) fn resources(resources: &Value, path: &Path, judge: &mut Judge<'_>) {
    for of in ["limits", "requests"] {
        for (name, value) in resources.entries(of) {
            let here = path.child(of).key(name);
            resource_name(name, &here, judge);
            let Some(amount) = quantity(value) else { continue };
            if amount.sign() < 0 {
                judge.errors.invalid(&here, &amount.to_string(), "must be greater than or equal to 0");
            }
            if of == "requests" {
                let limit = resources.at("limits").get(name).and_then(quantity);
                if let Some(limit) = limit.filter(|limit| amount > *limit) {
                    let why = format!("must be less than or equal to {name} limit of {limit}");
                    judge.errors.invalid(&path.child("requests"), &amount.to_string(), &why);
                }
            }
            if name.contains('/') && amount.milli_value() % 1000 != 0 {
                judge.errors.invalid(&here, &amount.to_string(), "must be an integer");
            }
        }
    }
}

fn security(context: &Value, path: &Path, judge: &mut Judge<'_>) {
    if context.is_null() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        user_id(context.at(field), &path.child(field), judge);
    }
    if context.has("procMount") {
        one_of(context.text("procMount"), &["Default", "Unmasked"], &path.child("procMount"), judge);
    }
    seccomp(context.at("seccompProfile"), &path.child("seccompProfile"), judge);
    if context.flag("allowPrivilegeEscalation") == Some(false) {
        if context.flag("privileged") == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            judge.errors.invalid(path, context, why);
        }
        if context.items("capabilities.add").iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            judge.errors.invalid(path, context, why);
        }
    }
}

/// A user or group number: 0 to 2^31 - 1.
pub(super) fn user_id(value: &Value, path: &Path, judge: &mut Judge<'_>) {
    if let Some(id) = value.as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        judge.errors.invalid(path, &id, &names::between(0, i64::from(i32::MAX)));
    }
}

pub(super) fn seccomp(profile: &Value, path: &Path, judge: &mut Judge<'_>) {
    if profile.is_null() {
        return;
    }
    one_of(profile.text("type"), &["Localhost", "RuntimeDefault", "Unconfined"], &path.child("type"), judge);
    let local = profile.text("type") == "Localhost";
    if local && profile.text("localhostProfile").is_empty() {
        judge.errors.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
    } else if !local && profile.has("localhostProfile") {
        let shown = profile.text("localhostProfile");
        judge.errors.invalid(&path.child("localhostProfile"), &shown, "can only be set when seccomp type is Localhost");
    }
}
