//! What admission may know besides the object itself.

use std::sync::Arc;

use serde_json::Value;

use crate::addresses::AddressPool;
use crate::authz::{self, Grants, Referent};

/// What admission may look up: the API server implements it over its cache.
///
/// Resources are named by API group (empty for core) and lower-case plural.
pub trait Lookup {
    /// One object; `namespace` is empty for cluster-scoped resources.
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// All objects, or those of one namespace.
    fn list(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<Arc<Value>>;

    /// Whether a pod of the node refers to the object (see [`crate::authz::references`]).
    fn node_needs(&self, node: &str, namespace: &str, what: Referent, name: &str) -> bool {
        authz::needs(node, namespace, what, name, self)
    }

    /// What the bindings give to a caller.
    fn grants(&self, user: &str, groups: &[String]) -> Arc<Grants> {
        Arc::new(authz::grants(user, groups, self))
    }
}

/// Makes a lower-case alphanumeric suffix of the given length.
pub type Random<'a> = &'a mut dyn FnMut(usize) -> String;

/// One request as admission sees it.
#[allow(missing_debug_implementations, reason = "holds trait objects")]
pub struct Context<'a> {
    pub now: jiff::Timestamp,
    /// The caller, for example `system:node:peer`.
    pub user: &'a str,
    pub groups: &'a [String],
    pub lookup: &'a dyn Lookup,
    pub random: Random<'a>,
    /// Cluster addresses and node ports of Services.
    pub addresses: &'a dyn AddressPool,
    /// With dry run nothing stays allocated.
    pub dry_run: bool,
}

impl Context<'_> {
    /// A number from [`Context::random`].
    pub(crate) fn seed(&mut self) -> u64 {
        (self.random)(12).bytes().fold(0, |n: u64, b| n.wrapping_mul(131).wrapping_add(u64::from(b)))
    }
}
