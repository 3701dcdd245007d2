//! Role-based access control: does any bound rule cover the request.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Decision, Resource, Target};
use crate::context::Lookup;
use crate::validate::matches;
use crate::view::View;

const GROUP: &str = "rbac.authorization.k8s.io";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Everything that bindings give to one caller, so that a question need not look through all of them.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    given: Vec<Grant>,
    /// Namespace of a binding (empty: cluster-wide) and the role it names that does not exist.
    missing: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Grant {
    /// Where it holds; empty: everywhere.
    namespace: String,
    /// The role, and for a sum of roles those that were labelled after it was made.
    roles: Vec<Arc<Value>>,
    reason: String,
}

/// Gathers what the bindings of all namespaces give to a caller: the cluster-wide ones first.
#[must_use]
pub fn grants(user: &str, groups: &[String], lookup: &(impl Lookup + ?Sized)) -> Grants {
    let caller = Attributes { user, groups, verb: "", target: Target::Path("") };
    let mut all = Grants::default();
    for binding in lookup.list(GROUP, "clusterrolebindings", None) {
        all.add(&caller, &binding, "", lookup);
    }
    for binding in lookup.list(GROUP, "rolebindings", None) {
        all.add(&caller, &binding, binding.text("metadata.namespace"), lookup);
    }
    all
}

impl Grants {
    fn add(&mut self, caller: &Attributes<'_>, binding: &Value, namespace: &str, lookup: &(impl Lookup + ?Sized)) {
        let subjects = binding.items("subjects");
        let Some(subject) = subjects.iter().find(|subject| applies(subject, caller, namespace)) else { return };
        let (kind, name) = (binding.text("roleRef.kind"), binding.text("roleRef.name"));
        let role = match kind {
            "ClusterRole" => lookup.get(GROUP, "clusterroles", "", name),
            "Role" => lookup.get(GROUP, "roles", namespace, name),
            _ => None,
        };
        let Some(role) = role else {
            let text = format!("{}.{GROUP} {name:?} not found", kind.to_lowercase());
            return self.missing.push((namespace.to_owned(), text));
        };
        let own = binding.text("metadata.name");
        let binding = if namespace.is_empty() {
            format!("ClusterRoleBinding {own:?}")
        } else {
            format!("RoleBinding \"{own}/{namespace}\"")
        };
        let whom = describe(subject, namespace);
        let reason = format!("RBAC: allowed by {binding} of {kind} {name:?} to {whom}");
        let mut roles = aggregated(&role, lookup);
        roles.insert(0, role);
        self.given.push(Grant { namespace: namespace.to_owned(), roles, reason });
    }

    /// Decides one question.
    pub(super) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let namespace = match attributes.target {
            Target::Resource(resource) => resource.namespace,
            Target::Path(_) => "",
        };
        let here = |of: &str| of.is_empty() || of == namespace;
        let covering = self.given.iter().filter(|grant| here(&grant.namespace)).find(|grant| {
            grant.roles.iter().any(|role| role.items("rules").iter().any(|rule| covers(rule, attributes)))
        });
        match covering {
            Some(grant) => Decision::Allow(grant.reason.clone()),
            None => Decision::NoOpinion(why_not(self.missing.iter().filter(|(of, _)| here(of)).map(|(_, text)| text))),
        }
    }

    /// All rules that hold in a namespace, or only the cluster-wide ones when it is empty.
    pub(super) fn rules(&self, namespace: &str) -> Vec<Value> {
        let here = self.given.iter().filter(|grant| grant.namespace.is_empty() || grant.namespace == namespace);
        here.flat_map(|grant| &grant.roles).flat_map(|role| role.items("rules").to_vec()).collect()
    }
}

/// `RBAC: clusterrole.rbac.authorization.k8s.io "x" not found` for bindings to roles that do not exist.
fn why_not<'a>(missing: impl Iterator<Item = &'a String>) -> String {
    match missing.map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

/// The roles that a sum of roles takes in.
fn aggregated(role: &Value, lookup: &(impl Lookup + ?Sized)) -> Vec<Arc<Value>> {
    let selectors = role.items("aggregationRule.clusterRoleSelectors");
    if selectors.is_empty() {
        return Vec::new();
    }
    let mut others = lookup.list(GROUP, "clusterroles", None);
    others.retain(|other| selectors.iter().any(|selector| matches(selector, other.at("metadata.labels"))));
    others
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
