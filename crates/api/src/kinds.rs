//! One row per served kind. A new kind is a row here, plus its defaults, validation and plan elsewhere.

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Namespaced,
    Cluster,
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
    /// Kinds that are only ever POSTed and answered (TokenReview, SubjectAccessReview, ...) are not stored.
    pub stored: bool,
    pub columns: &'static [Column],
}

impl Kind {
    /// `apps/v1`, or `v1` for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `statefulsets.apps`, or `pods` for the core group: the form that error texts use.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}
