//! Role-based access control: does any bound rule cover the request.

use serde_json::Value;

use super::{Attributes, Decision, Resource, Target};
use crate::context::Lookup;
use crate::validate::matches;
use crate::view::View;

const GROUP: &str = "rbac.authorization.k8s.io";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Asks the cluster-wide bindings first, then those of the request's namespace.
pub(super) fn authorize(attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Decision {
    let mut missing = Vec::new();
    for binding in lookup.list(GROUP, "clusterrolebindings", None) {
        if let Some(reason) = granted(attributes, &binding, "", lookup, &mut missing) {
            return Decision::Allow(reason);
        }
    }
    if let Target::Resource(resource) = attributes.target
        && !resource.namespace.is_empty()
    {
        for binding in lookup.list(GROUP, "rolebindings", Some(resource.namespace)) {
            if let Some(reason) = granted(attributes, &binding, resource.namespace, lookup, &mut missing) {
                return Decision::Allow(reason);
            }
        }
    }
    Decision::NoOpinion(why_not(&missing))
}

/// `RBAC: clusterrole.rbac.authorization.k8s.io "x" not found` for bindings to roles that do not exist.
fn why_not(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

/// Whether one binding allows the request, and the sentence about it.
fn granted(
    attributes: &Attributes<'_>,
    binding: &Value,
    namespace: &str,
    lookup: &dyn Lookup,
    missing: &mut Vec<String>,
) -> Option<String> {
    let subject = binding.items("subjects").iter().find(|subject| applies(subject, attributes, namespace))?;
    let role_kind = binding.text("roleRef.kind");
    let role_name = binding.text("roleRef.name");
    let role = match role_kind {
        "ClusterRole" => lookup.get(GROUP, "clusterroles", "", role_name),
        "Role" => lookup.get(GROUP, "roles", namespace, role_name),
        _ => None,
    };
    let Some(role) = role else {
        missing.push(format!("{}.{GROUP} {role_name:?} not found", role_kind.to_lowercase()));
        return None;
    };
    let direct = role.items("rules").iter().any(|rule| covers(rule, attributes));
    if !direct && !by_aggregation(&role, attributes, lookup) {
        return None;
    }
    let name = binding.text("metadata.name");
    let binding = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding \"{name}/{namespace}\"")
    };
    Some(format!("RBAC: allowed by {binding} of {role_kind} {role_name:?} to {}", describe(subject, namespace)))
}

/// The rules of every role that is bound to a user.
pub(super) fn rules_of(user: &str, groups: &[String], namespace: &str, lookup: &dyn Lookup) -> Vec<Value> {
    let attributes = Attributes { user, groups, verb: "", target: Target::Path("") };
    let mut rules = Vec::new();
    let mut collect = |binding: &Value, namespace: &str| {
        if !binding.items("subjects").iter().any(|subject| applies(subject, &attributes, namespace)) {
            return;
        }
        let (kind, name) = (binding.text("roleRef.kind"), binding.text("roleRef.name"));
        let role = if kind == "Role" {
            lookup.get(GROUP, "roles", namespace, name)
        } else {
            lookup.get(GROUP, "clusterroles", "", name)
        };
        rules.extend(role.iter().flat_map(|role| role.items("rules").to_vec()));
    };
    lookup.list(GROUP, "clusterrolebindings", None).iter().for_each(|binding| collect(binding, ""));
    if !namespace.is_empty() {
        lookup.list(GROUP, "rolebindings", Some(namespace)).iter().for_each(|binding| collect(binding, namespace));
    }
    rules
}

/// Whether a role that is the sum of others covers the request by one that was labelled after it was made.
fn by_aggregation(role: &Value, attributes: &Attributes<'_>, lookup: &dyn Lookup) -> bool {
    let selectors = role.items("aggregationRule.clusterRoleSelectors");
    !selectors.is_empty()
        && lookup.list(GROUP, "clusterroles", None).iter().any(|other| {
            let labels = other.at("metadata.labels");
            selectors.iter().any(|selector| matches(selector, labels))
                && other.items("rules").iter().any(|rule| covers(rule, attributes))
        })
}

fn describe(subject: &Value, namespace: &str) -> String {
    let name = subject.text("name");
    match subject.text("kind") {
        "ServiceAccount" => {
            let own = subject.text("namespace");
            format!("ServiceAccount \"{name}/{}\"", if own.is_empty() { namespace } else { own })
        }
        kind => format!("{kind} {name:?}"),
    }
}

/// Whether a subject of a binding means the caller.
fn applies(subject: &Value, attributes: &Attributes<'_>, namespace: &str) -> bool {
    let name = subject.text("name");
    match subject.text("kind") {
        "User" => name == attributes.user,
        "Group" => attributes.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let own = subject.text("namespace");
            let of = if own.is_empty() { namespace } else { own };
            attributes
                .user
                .strip_prefix(ACCOUNT_PREFIX)
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|account| account == (of, name))
        }
        _ => false,
    }
}

fn any(rule: &Value, key: &str, matches: impl Fn(&str) -> bool) -> bool {
    rule.items(key).iter().filter_map(Value::as_str).any(matches)
}

/// Whether a rule covers the request.
pub(super) fn covers(rule: &Value, attributes: &Attributes<'_>) -> bool {
    if !any(rule, "verbs", |verb| verb == "*" || verb == attributes.verb) {
        return false;
    }
    match attributes.target {
        Target::Resource(resource) => covers_resource(rule, &resource),
        Target::Path(path) => any(rule, "nonResourceURLs", |pattern| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        }),
    }
}

fn covers_resource(rule: &Value, resource: &Resource<'_>) -> bool {
    let names = rule.items("resourceNames");
    any(rule, "apiGroups", |group| group == "*" || group == resource.group)
        && any(rule, "resources", |wanted| resource_matches(wanted, resource))
        && (names.is_empty() || any(rule, "resourceNames", |name| name == resource.name))
}

/// `*`, `pods`, `pods/log` or `*/scale`.
fn resource_matches(wanted: &str, resource: &Resource<'_>) -> bool {
    if wanted == "*" {
        return true;
    }
    match wanted.split_once('/') {
        None => resource.subresource.is_empty() && wanted == resource.resource,
        Some((name, sub)) => {
            !resource.subresource.is_empty()
                && sub == resource.subresource
                && (name == "*" || name == resource.resource)
        }
    }
}
