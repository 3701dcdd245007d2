//! What a request is about, read from its URL: resource, name, sub-resource and verb, or a path that is no resource.
//!
//! Source of the rules: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// The verb that authorisation and audit speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A method that means nothing for resources (HEAD, OPTIONS, ...).
    Other,
}

impl Verb {
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Other => "",
        }
    }

    /// Whether it can change anything.
    #[must_use]
    pub(crate) fn mutates(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Patch | Self::Delete | Self::DeleteCollection)
    }
}

/// A request for a resource. Empty text means "not named".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceRequest {
    pub verb: Verb,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub subresource: String,
    /// What follows the sub-resource (`proxy/a/b`).
    pub rest: String,
    /// The field selector of a list or watch.
    pub selector: String,
}

/// What a URL asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Info {
    Resource(ResourceRequest),
    /// Health, discovery, metrics and whatever does not exist; the path as it came.
    Path(String),
}

impl Info {
    /// Reads method, path and query.
    #[must_use]
    pub(crate) fn read(method: &Method, path: &str, query: &Query) -> Self {
        let parts: Vec<Cow<'_, str>> =
            path.trim_matches('/').split('/').map(|p| percent_decode_str(p).decode_utf8_lossy()).collect();
        let resource = match parts.first().map(AsRef::as_ref) {
            Some("api") if parts.len() >= 3 => resource(method, query, "", &parts[1], &parts[2..]),
            Some("apis") if parts.len() >= 4 => resource(method, query, &parts[1], &parts[2], &parts[3..]),
            _ => None,
        };
        resource.map_or_else(|| Self::Path(path.to_owned()), Self::Resource)
    }
}

fn resource(
    method: &Method,
    query: &Query,
    group: &str,
    version: &str,
    mut parts: &[Cow<'_, str>],
) -> Option<ResourceRequest> {
    // The old form /api/v1/watch/...: a watch even of one object.
    let watch_path = parts.len() > 1 && parts[0] == "watch";
    if watch_path {
        parts = &parts[1..];
    }
    let mut namespace = "";
    if parts[0] == "namespaces" && parts.len() > 1 {
        namespace = &parts[1];
        // `status` and `finalize` are sub-resources of the namespace itself.
        if parts.len() > 2 && !matches!(parts[2].as_ref(), "status" | "finalize") {
            parts = &parts[2..];
        }
    }
    let part = |i: usize| parts.get(i).map_or("", AsRef::as_ref);
    let (plural, name, subresource) = (part(0), part(1), part(2));
    if plural.is_empty() {
        return None;
    }
    let rest = parts.get(3..).map(|rest| rest.join("/")).unwrap_or_default();
    let verb = match *method {
        Method::GET if watch_path => Verb::Watch,
        // It means something only where the request is passed on.
        Method::HEAD if subresource == "proxy" => Verb::Get,
        _ => verb(method, name, query),
    };
    Some(ResourceRequest {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: namespace.to_owned(),
        plural: plural.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        rest,
        selector: if matches!(verb, Verb::List | Verb::Watch) {
            query.get("fieldSelector").to_owned()
        } else {
            String::new()
        },
    })
}

impl ResourceRequest {
    /// The name for authorisation: a list or watch of one object by its name is a request for that object.
    #[must_use]
    pub(crate) fn one_name(&self) -> &str {
        if !self.name.is_empty() {
            return &self.name;
        }
        let named = self.selector.split(',').find_map(|part| part.strip_prefix("metadata.name="));
        named.map_or("", |name| name.strip_prefix('=').unwrap_or(name))
    }
}

fn verb(method: &Method, name: &str, query: &Query) -> Verb {
    match method.as_str() {
        "GET" if !name.is_empty() => Verb::Get,
        "GET" if query.flag("watch") => Verb::Watch,
        "GET" => Verb::List,
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "PATCH" => Verb::Patch,
        "DELETE" if name.is_empty() => Verb::DeleteCollection,
        "DELETE" => Verb::Delete,
        _ => Verb::Other,
    }
}

/// The decoded query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    #[must_use]
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let Some(query) = query else { return Self::default() };
        Self(form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The first value of a parameter, empty when it is not there.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or("")
    }

    /// The first value of a parameter.
    #[must_use]
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Upstream's reading of a boolean: there, and neither `0` nor `false`.
    #[must_use]
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.find(name).is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        let (method, url) = text.split_once(' ').unwrap();
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        match Info::read(&method.parse().unwrap(), path, &Query::parse(query)) {
            Info::Path(path) => format!("path {path}"),
            Info::Resource(r) => {
                [r.verb.as_str(), &r.group, &r.version, &r.namespace, &r.plural, &r.name, &r.subresource]
                    .map(|s| if s.is_empty() { "-" } else { s })
                    .join(" ")
            }
        }
    }

    #[test]
    fn urls() {
        for (url, want) in [
            ("GET /api/v1/pods", "list - v1 - pods - -"),
            ("GET /api/v1/namespaces/http/pods", "list - v1 http pods - -"),
            ("GET /api/v1/namespaces//pods", "list - v1 - pods - -"),
            ("GET /api/v1/namespaces/http/", "get - v1 http namespaces http -"),
            ("GET /api/v1/namespaces/http/pods/web-0", "get - v1 http pods web-0 -"),
            ("GET /api/v1/namespaces/http/pods/web-0?watch=1", "get - v1 http pods web-0 -"),
            ("GET /api/v1/pods?watch=true", "watch - v1 - pods - -"),
            ("GET /api/v1/pods?watch", "watch - v1 - pods - -"),
            ("GET /api/v1/pods?watch=false", "list - v1 - pods - -"),
            ("GET /api/v1/watch/namespaces/http/configmaps", "watch - v1 http configmaps - -"),
            ("GET /api/v1/watch/namespaces/http/configmaps/a", "watch - v1 http configmaps a -"),
            ("PUT /api/v1/namespaces/x/finalize", "update - v1 x namespaces x finalize"),
            ("DELETE /apis/apps/v1/namespaces/http/statefulsets", "deletecollection apps v1 http statefulsets - -"),
            ("PATCH /apis/apps/v1/namespaces/a/statefulsets/w/scale", "patch apps v1 a statefulsets w scale"),
            ("POST /api/v1/nodes", "create - v1 - nodes - -"),
            ("HEAD /api/v1/nodes", "- - v1 - nodes - -"),
            (
                "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
                "get rbac.authorization.k8s.io v1 - clusterroles system:node -",
            ),
            (
                "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io v1 - clusterroles system:node -",
            ),
            ("GET /apis/apps/v1", "path /apis/apps/v1"),
            ("GET /api/v1", "path /api/v1"),
            ("GET /healthz", "path /healthz"),
            ("GET /", "path /"),
        ] {
            assert_eq!(line(url), want, "{url}");
        }
    }
}
