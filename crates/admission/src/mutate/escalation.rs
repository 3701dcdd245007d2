//! Nobody grants what he does not have: roles and bindings are checked against the caller's own rules.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/rbac/escalation_check.go` and `validation/rule.go`.

use serde_json::Value;
use stead_api::Kind;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::authz::{self, Attributes, Resource, SUPERUSERS, Target};
use crate::context::Context;
use crate::view::{View, same};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a role or binding that is created, or changed from `old`.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>, ctx: &Context<'_>) -> Result<(), ApiError> {
    if kind.group != GROUP || ctx.groups.iter().any(|group| group == SUPERUSERS) {
        return Ok(());
    }
    let unchanged = |field: &str| old.is_some_and(|old| same(old.at(field), object.at(field)));
    let namespace = object.text("metadata.namespace");
    match kind.kind {
        "Role" | "ClusterRole" => {
            let name = object.text("metadata.name");
            let kept = unchanged("rules") && unchanged("aggregationRule");
            if kept || may("escalate", kind.plural, namespace, name, ctx) {
                return Ok(());
            }
            if object.has("aggregationRule") && !unchanged("aggregationRule") {
                let why = "must have cluster-admin privileges to use an aggregationRule";
                return Err(ApiError::forbidden(kind, name, why));
            }
            covered(kind, object, object.items("rules"), ctx)
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let (role_kind, role_name) = (object.text("roleRef.kind"), object.text("roleRef.name"));
            let (plural, of) = if role_kind == "Role" { ("roles", namespace) } else { ("clusterroles", "") };
            let kept = unchanged("subjects") && unchanged("roleRef");
            if kept || may("bind", plural, namespace, role_name, ctx) {
                return Ok(());
            }
            let Some(role) = ctx.lookup.get(GROUP, plural, of, role_name) else {
                let text = format!("{}.{GROUP} {role_name:?} not found", role_kind.to_lowercase());
                return Err(ApiError::new(Reason::NotFound, text));
            };
            covered(kind, object, role.items("rules"), ctx)
        }
        _ => Ok(()),
    }
}

fn may(verb: &str, resource: &str, namespace: &str, name: &str, ctx: &Context<'_>) -> bool {
    let target = Target::Resource(Resource { group: GROUP, resource, namespace, name, ..Resource::default() });
    let question = Attributes { user: ctx.user, groups: ctx.groups, verb, target };
    authz::authorize(&question, ctx.lookup).allowed()
}

/// Every atom of every rule must be allowed to the caller.
fn covered(kind: &Kind, object: &Value, rules: &[Value], ctx: &Context<'_>) -> Result<(), ApiError> {
    let own = authz::rules_of(ctx.user, ctx.groups, object.text("metadata.namespace"), ctx.lookup);
    let missing: Vec<String> =
        rules.iter().filter(|rule| !atoms(rule).all(|atom| allowed(&own, &atom))).map(shown).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups = ctx.groups.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>().join(" ");
    let why = format!(
        "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{}",
        ctx.user,
        missing.join("\n")
    );
    Err(ApiError::forbidden(kind, object.text("metadata.name"), &why))
}

/// One thing that a rule allows. The texts may be `*`.
struct Atom<'a> {
    verb: &'a str,
    /// API group, resource, name (empty: any).
    resource: Option<(&'a str, &'a str, &'a str)>,
    path: &'a str,
}

fn texts<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    rule.items(key).iter().filter_map(Value::as_str).collect()
}

fn atoms(rule: &Value) -> impl Iterator<Item = Atom<'_>> {
    let mut all = Vec::new();
    let mut names = texts(rule, "resourceNames");
    if names.is_empty() {
        names.push("");
    }
    for verb in texts(rule, "verbs") {
        all.extend(texts(rule, "nonResourceURLs").into_iter().map(|path| Atom { verb, resource: None, path }));
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                all.extend(names.iter().map(|name| Atom { verb, resource: Some((group, resource, *name)), path: "" }));
            }
        }
    }
    all.into_iter()
}

fn allowed(own: &[Value], atom: &Atom<'_>) -> bool {
    let listed = |rule: &Value, key: &str, wanted: &str| texts(rule, key).iter().any(|t| *t == "*" || *t == wanted);
    own.iter().any(|rule| {
        listed(rule, "verbs", atom.verb)
            && match atom.resource {
                None => texts(rule, "nonResourceURLs").iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => atom.path.starts_with(prefix),
                    None => *pattern == atom.path,
                }),
                Some((group, resource, name)) => {
                    let names = texts(rule, "resourceNames");
                    let any_of_sub = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
                    listed(rule, "apiGroups", group)
                        && (listed(rule, "resources", resource)
                            || any_of_sub.is_some_and(|any| texts(rule, "resources").contains(&any.as_str())))
                        && (names.is_empty() || names.contains(&name))
                }
            }
    })
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
fn shown(rule: &Value) -> String {
    let part = |word: &str, key: &str| {
        let list = texts(rule, key);
        let quoted = list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" ");
        (!list.is_empty()).then(|| format!("{word}:[{quoted}]"))
    };
    let parts = [
        part("APIGroups", "apiGroups"),
        part("Resources", "resources"),
        part("NonResourceURLs", "nonResourceURLs"),
        part("ResourceNames", "resourceNames"),
        part("Verbs", "verbs"),
    ];
    format!("{{{}}}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}
