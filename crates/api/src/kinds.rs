//! What generic code has to know of a kind, and how a kind is looked up.
//!
//! The rows are in [`crate::rows`]. A new kind is a row there, plus its defaults, validation and plan elsewhere.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

pub use crate::rows::KINDS;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Where the objects of a kind come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The store: what was written to it.
    Stored,
    /// The question itself: what is POSTed is answered (TokenReview, SubjectAccessReview, ...).
    Asked,
    /// The nodes: read-only, made up when asked for.
    Measured,
}

/// The sub-resources that a kind can have. The API server serves each of them once, for every kind that lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    EphemeralContainers,
    Resize,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    Token,
    Finalize,
    Approval,
}

impl Subresource {
    /// The last part of the URL: `status`, `ephemeralcontainers`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Token => "token",
            Self::Finalize => "finalize",
            Self::Approval => "approval",
        }
    }

    /// The verbs that discovery lists.
    #[must_use]
    pub const fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::EphemeralContainers | Self::Resize | Self::Approval => {
                &["get", "patch", "update"]
            }
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
            Self::Finalize => &["update"],
        }
    }

    /// What is sent or answered: group version and kind, where it is not the object itself.
    #[must_use]
    pub fn body(self, of: &Kind) -> (GroupVersion, String) {
        let own = |kind: String| (of.group_version(), kind);
        let of_group = |group, version, kind: &str| (GroupVersion { group, version }, kind.to_owned());
        match self {
            Self::Scale => of_group("autoscaling", "v1", "Scale"),
            Self::Eviction => of_group("policy", "v1", "Eviction"),
            Self::Token => of_group("authentication.k8s.io", "v1", "TokenRequest"),
            Self::Binding => own("Binding".to_owned()),
            Self::Exec => own(format!("{}ExecOptions", of.kind)),
            Self::Attach => own(format!("{}AttachOptions", of.kind)),
            Self::PortForward => own(format!("{}PortForwardOptions", of.kind)),
            Self::Proxy => own(format!("{}ProxyOptions", of.kind)),
            _ => own(of.kind.to_owned()),
        }
    }
}

/// A column of the server-side table (`kubectl get`), upstream's heading and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading as upstream prints it, for example `Ready`.
    pub name: &'static str,
    /// JSON schema type: `string`, `integer` or `date`.
    pub kind: &'static str,
    /// JSON schema format; `name` marks the column that holds the object's name.
    pub format: &'static str,
    /// 0: always shown; 1: only with `-o wide`.
    pub priority: i32,
    /// What the column says, as `kubectl` shows it in the table's metadata.
    pub description: &'static str,
}

/// The cells of one row of the server-side table, one per [`Column`], for an object in the kind's own version.
pub type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// The group and version whose JSON form is stored for a kind. Kinds of one resource in several group versions share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupVersion {
    pub group: &'static str,
    pub version: &'static str,
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// Everything generic code has to know of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Resource name in URLs: lower-case plural.
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    /// For example `all`.
    pub categories: &'static [&'static str],
    pub scope: Scope,
    pub subresources: &'static [Subresource],
    pub origin: Origin,
    /// Where objects of this kind are stored; differs from the kind's own group version when several share one storage.
    pub storage: GroupVersion,
    /// Name of the schema: `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Fields that a field selector may name beside `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [&'static str],
    pub columns: &'static [Column],
    pub cells: Cells,
}

/// Two rows are the same kind when group, version and kind are.
impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.kind) == (other.group, other.version, other.kind)
    }
}

impl Eq for Kind {}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }

    #[must_use]
    pub const fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group, version: self.version }
    }

    /// `statefulsets.apps`, or `pods` for the core group: the form that error texts use.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    #[must_use]
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    #[must_use]
    pub fn stored(&self) -> bool {
        self.origin == Origin::Stored
    }

    #[must_use]
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether objects of this kind are stored in another group version's form; see [`crate::convert`].
    #[must_use]
    pub fn converted(&self) -> bool {
        self.storage != self.group_version()
    }

    /// The kind in whose form objects are stored; mostly the kind itself.
    #[must_use]
    pub fn storage_kind(&self) -> &'static Self {
        by_resource(self.storage.group, self.storage.version, self.plural)
            .expect("every row's storage names a row (tested)")
    }

    /// The verbs of the resource itself, as discovery lists them.
    #[must_use]
    pub fn verbs(&self) -> &'static [&'static str] {
        match self.origin {
            Origin::Asked => return &["create"],
            Origin::Measured => return &["get", "list"],
            Origin::Stored => {}
        }
        if self.plural == "namespaces" {
            return &["create", "delete", "get", "list", "patch", "update", "watch"];
        }
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    }
}

/// The row of a resource: `("apps", "v1", "statefulsets")`.
#[must_use]
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.plural == plural && k.group == group && k.version == version)
}

/// The row of a kind: `("apps", "v1", "StatefulSet")`.
#[must_use]
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
}

/// The row of an object's `apiVersion` and `kind`: `("apps/v1", "StatefulSet")`.
#[must_use]
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, kind)
}

/// The preferred row of a resource in any group, by plural, singular or short name (`sts`); for command lines.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Kind> {
    let name = name.to_ascii_lowercase();
    let is = |k: &&Kind| {
        k.plural == name || (k.singular == name && !name.is_empty()) || k.short_names.contains(&name.as_str())
    };
    KINDS.iter().find(|k| is(k))
}

/// Whether any kind of this group and version is served.
#[must_use]
pub fn serves(group: &str, version: &str) -> bool {
    KINDS.iter().any(|k| k.group == group && k.version == version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_unique_and_their_storage_is_a_stored_row() {
        let mut seen = BTreeSet::new();
        for kind in KINDS {
            assert!(seen.insert((kind.group, kind.version, kind.plural)), "twice: {kind:?}");
            let storage = kind.storage_kind();
            assert!(!storage.converted(), "{} is stored as {}, which is itself converted", kind.plural, kind.storage);
            assert_eq!(storage.origin, kind.origin);
            // Upstream's metrics-server tells no singular.
            let singular = if kind.origin == Origin::Measured { String::new() } else { kind.kind.to_lowercase() };
            assert_eq!(kind.singular, singular);
        }
    }

    #[test]
    fn looks_up_by_every_name() {
        for (name, want) in
            [("sts", "StatefulSet"), ("pods", "Pod"), ("ev", "Event"), ("HPA", "HorizontalPodAutoscaler")]
        {
            assert_eq!(by_name(name).map(|k| k.kind), Some(want), "{name}");
        }
        assert_eq!(by_name("ev").map(|k| k.group), Some(""));
        assert_eq!(by_name("hpa").map(|k| k.version), Some("v2"));
        assert_eq!(by_api_version("apps/v1", "StatefulSet"), by_resource("apps", "v1", "statefulsets"));
        assert_eq!(by_api_version("v1", "StatefulSet"), None);
    }
}
