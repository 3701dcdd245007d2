//! Roles and bindings.

use serde_json::Value;
use stead_api::Kind;
use stead_machinery::Path;

use super::Judge;
use super::meta::invalid_all;
use crate::names;
use crate::view::{View, same};

pub(super) fn rbac(kind: &Kind, object: &Value, old: Option<&Value>, judge: &mut Judge<'_>) {
    match kind.kind {
        "Role" | "ClusterRole" => role(object, kind.kind == "Role", judge),
        "RoleBinding" | "ClusterRoleBinding" => binding(object, old, kind.kind == "RoleBinding", judge),
        _ => {}
    }
}

fn role(object: &Value, namespaced: bool, judge: &mut Judge<'_>) {
    for (i, rule) in object.items("rules").iter().enumerate() {
        let at = Path::new("rules").index(i);
        let has = |field: &str| !rule.items(field).is_empty();
        if !has("verbs") {
            judge.errors.required(&at.child("verbs"), "verbs must contain at least one value");
        }
        if has("nonResourceURLs") {
            if namespaced {
                let why = "namespaced rules cannot apply to non-resource URLs";
                judge.errors.invalid(&at.child("nonResourceURLs"), rule.at("nonResourceURLs"), why);
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                judge.errors.invalid(&at.child("nonResourceURLs"), rule.at("nonResourceURLs"), why);
            }
            continue;
        }
        if !has("apiGroups") {
            judge.errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if !has("resources") {
            judge.errors.required(&at.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn binding(object: &Value, old: Option<&Value>, namespaced: bool, judge: &mut Judge<'_>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let at = Path::new("roleRef");
    let role = object.at("roleRef");
    if role.text("apiGroup") != GROUP {
        judge.errors.not_supported(&at.child("apiGroup"), &role.text("apiGroup"), &[GROUP]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&role.text("kind")) {
        judge.errors.not_supported(&at.child("kind"), &role.text("kind"), kinds);
    }
    if role.text("name").is_empty() {
        judge.errors.required(&at.child("name"), "");
    } else {
        invalid_all(&at.child("name"), role.text("name"), names::path_segment(role.text("name")), judge.errors);
    }
    for (i, subject) in object.items("subjects").iter().enumerate() {
        let at = Path::new("subjects").index(i);
        let (kind, group, name) = (subject.text("kind"), subject.text("apiGroup"), subject.text("name"));
        if name.is_empty() {
            judge.errors.required(&at.child("name"), "");
        }
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    invalid_all(&at.child("name"), name, names::dns_subdomain(name), judge.errors);
                }
                if !group.is_empty() {
                    judge.errors.not_supported(&at.child("apiGroup"), &group, &[""]);
                }
                if !namespaced && subject.text("namespace").is_empty() {
                    judge.errors.required(&at.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    judge.errors.not_supported(&at.child("apiGroup"), &group, &[GROUP]);
                }
            }
            other => {
                let supported = ["ServiceAccount", "User", "Group"];
                judge.errors.not_supported(&at.child("kind"), &other, &supported);
            }
        }
    }
    if let Some(old) = old
        && !same(role, old.at("roleRef"))
    {
        judge.errors.invalid(&at, role, "cannot change roleRef");
    }
}
