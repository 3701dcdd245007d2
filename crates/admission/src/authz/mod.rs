//! Who may do what: RBAC over stored roles and bindings, the node authoriser, and upstream's texts of refusal.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/rbac/validation`, `plugin/pkg/auth/authorizer/{rbac,node}` and
//! `k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/errors.go`.

pub mod bootstrap;
mod graph;
mod node;
mod rbac;

use serde_json::json;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::context::Lookup;

pub use graph::Graph;
pub(crate) use node::needs;
pub use node::{Referent, node_of, references};
pub use rbac::{Grants, grants};

/// Members of this group may do everything, whatever the roles say.
pub const SUPERUSERS: &str = "system:masters";

/// The resource that a request is about. `group` is empty for core; `name`, `namespace` and `subresource` are empty
/// when the request has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The field selector of a list or watch, as it was asked for.
    pub selector: &'a str,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Resource(Resource<'a>),
    /// A URL path that is no resource, for example `/healthz`.
    Path(&'a str),
}

/// One question: may this user do this. `verb` is in lower case (`get`, `list`, `create`, ...; for a path the HTTP
/// method in lower case).
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a str,
    pub groups: &'a [String],
    pub verb: &'a str,
    pub target: Target<'a>,
}

/// The answer, with the reason that `kubectl auth can-i` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow(String),
    /// Nobody allowed it. The text says why when there is something to say.
    NoOpinion(String),
}

impl Decision {
    #[must_use]
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Decides one question: superusers, then nodes by what their pods need, then RBAC.
#[must_use]
pub fn authorize(attributes: &Attributes<'_>, lookup: &dyn Lookup) -> Decision {
    if attributes.groups.iter().any(|group| group == SUPERUSERS) {
        return Decision::Allow(String::new());
    }
    let of_node = node::authorize(attributes, lookup);
    if of_node.as_ref().is_some_and(Decision::allowed) {
        return of_node.unwrap_or(Decision::NoOpinion(String::new()));
    }
    match (lookup.grants(attributes.user, attributes.groups).decide(attributes), of_node) {
        (Decision::NoOpinion(why), Some(Decision::NoOpinion(of_node))) if why.is_empty() => {
            Decision::NoOpinion(of_node)
        }
        (decision, _) => decision,
    }
}

/// All rules that hold for a user, in a namespace too unless that is empty (`kubectl auth can-i --list`).
#[must_use]
pub fn rules_of(user: &str, groups: &[String], namespace: &str, lookup: &dyn Lookup) -> Vec<serde_json::Value> {
    lookup.grants(user, groups).rules(namespace)
}

/// The 403 that a refused request gets.
#[must_use]
pub fn forbidden(attributes: &Attributes<'_>, decision: &Decision) -> ApiError {
    let why = match decision {
        Decision::NoOpinion(why) if !why.is_empty() => format!(": {why}"),
        _ => String::new(),
    };
    let (user, verb) = (attributes.user, attributes.verb);
    match attributes.target {
        Target::Path(path) => {
            let text = format!("forbidden: User {user:?} cannot {verb} path {path:?}{why}");
            let mut error = ApiError::new(Reason::Forbidden, text);
            error.details = json!({});
            error
        }
        Target::Resource(r) => {
            let full = if r.subresource.is_empty() {
                r.resource.to_owned()
            } else {
                format!("{}/{}", r.resource, r.subresource)
            };
            let place = if r.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", r.namespace)
            };
            let qualified =
                if r.group.is_empty() { r.resource.to_owned() } else { format!("{}.{}", r.resource, r.group) };
            let object = if r.name.is_empty() { qualified } else { format!("{qualified} {:?}", r.name) };
            let text = format!(
                "{object} is forbidden: User {user:?} cannot {verb} resource {full:?} in API group {:?} {place}{why}",
                r.group
            );
            let mut error = ApiError::new(Reason::Forbidden, text);
            let mut details = json!({"kind": r.resource});
            if !r.name.is_empty() {
                details["name"] = r.name.into();
            }
            if !r.group.is_empty() {
                details["group"] = r.group.into();
            }
            error.details = details;
            error
        }
    }
}
