//! Paths that are no resources: health, version, discovery, schemas, token keys, metrics.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use stead_api::kinds::KINDS;
use stead_api::{Kind, Scope};
use stead_machinery::ApiError;

use crate::body::ApiBody;
use crate::negotiate::{self, Form};
use crate::path::Query;
use crate::response::{self, Answer};
use crate::server::{ApiServer, GIT_VERSION, MINOR};
use crate::verbs::{no_resource, not_allowed};

/// What `?verbose` lists.
const CHECKS: &[&str] = &["ping", "log", "store", "poststarthook/bootstrap", "poststarthook/rbac/bootstrap-roles"];

pub(crate) fn serve(server: &ApiServer, path: &str, query: &Query, parts: &Parts) -> Result<Answer, ApiError> {
    let form = Form { shape: negotiate::Shape::Object, ..negotiate::fallback(&parts.headers, query) };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(not_allowed());
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let json = |value: Value| Ok(response::json_value(StatusCode::OK, form, &value));
    match segments.as_slice() {
        [] => json(json!({"paths": index()})),
        ["healthz" | "livez" | "readyz", ..] => Ok(health(server, &segments, query)),
        ["version"] => json(version()),
        ["metrics"] => Ok(response::text(StatusCode::OK, server.0.metrics.render(server.0.store.revision()))),
        ["openid", "v1", "jwks"] => Ok(typed(&server.0.pki.tokens.jwks(), "application/jwk-set+json")),
        [".well-known", "openid-configuration"] => Ok(typed(&openid(server), "application/json")),
        ["api" | "apis"] => Ok(roots(server, segments[0], form, parts)),
        ["api", version] => resources("", version, form),
        ["apis", group] => match group_of(group) {
            Some(mut group) => {
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                json(group)
            }
            None => Ok(response::page_not_found()),
        },
        ["apis", group, version] if group_of(group).is_some() => resources(group, version, form),
        ["openapi", ..] => Ok(openapi(&segments, query, parts)),
        _ => Ok(response::page_not_found()),
    }
}

fn index() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .to_vec();
    for kind in KINDS.iter().filter(|k| !k.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.group));
        paths.push(format!("/apis/{}/{}", kind.group, kind.version));
    }
    paths.sort();
    paths.dedup();
    paths
}

fn health(server: &ApiServer, segments: &[&str], query: &Query) -> Answer {
    let stopping = server.0.closing.is_cancelled() && segments[0] == "readyz";
    if let Some(check) = segments.get(1).map(|_| segments[1..].join("/")) {
        return if CHECKS.contains(&check.as_str()) {
            response::text(StatusCode::OK, "ok")
        } else {
            response::page_not_found()
        };
    }
    if !query.flag("verbose") && query.find("verbose").is_none() && !stopping {
        return response::text(StatusCode::OK, "ok");
    }
    let mut text: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
    if stopping {
        text.push_str("[-]shutdown failed: the server is stopping\nreadyz check failed\n");
        return response::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    }
    text.push_str(&format!("[+]shutdown ok\n{} check passed\n", segments[0]));
    response::text(StatusCode::OK, text)
}

fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn openid(server: &ApiServer) -> Value {
    let issuer = &server.0.issuer;
    let address = std::net::SocketAddr::new(server.0.config.advertise, server.0.config.bind.port());
    json!({
        "issuer": issuer, "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn typed(value: &Value, content_type: &'static str) -> Answer {
    response::with_type(StatusCode::OK, content_type, ApiBody::full(value.to_string()))
}

/// `/api` and `/apis`: the groups, or everything at once for who prefers the aggregated form.
fn roots(server: &ApiServer, root: &str, form: Form, parts: &Parts) -> Answer {
    let core = root == "api";
    if let Some(version) = negotiate::discovery(&parts.headers) {
        let list = aggregated(core, version);
        let mut answer = response::json_value(StatusCode::OK, form, &list);
        let text = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        return answer;
    }
    let value = if core {
        let address = std::net::SocketAddr::new(server.0.config.advertise, server.0.config.bind.port());
        json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}],
        })
    } else {
        let groups: Vec<Value> = groups().iter().filter_map(|group| group_of(group)).collect();
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
    };
    response::json_value(StatusCode::OK, form, &value)
}

fn groups() -> Vec<&'static str> {
    let mut groups = Vec::new();
    for kind in KINDS.iter().filter(|k| !k.group.is_empty()) {
        if !groups.contains(&kind.group) {
            groups.push(kind.group);
        }
    }
    groups
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for kind in KINDS.iter().filter(|k| k.group == group) {
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    versions
}

fn group_of(group: &str) -> Option<Value> {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

fn resources(group: &str, version: &str, form: Form) -> Result<Answer, ApiError> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return Err(no_resource());
    }
    let mut rows: Vec<Value> = Vec::new();
    for kind in kinds {
        rows.push(resource_row(kind));
        rows.extend(kind.subresources.iter().map(|sub| subresource_row(kind, *sub)));
    }
    rows.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": rows});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Ok(response::json_value(StatusCode::OK, form, &list))
}

fn resource_row(kind: &Kind) -> Value {
    let mut row = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced(), "kind": kind.kind,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        row["shortNames"] = kind.short_names.into();
    }
    if !kind.categories.is_empty() {
        row["categories"] = kind.categories.into();
    }
    row
}

/// What a sub-resource speaks of, and its verbs.
fn subresource_form(
    kind: &Kind,
    sub: stead_api::Subresource,
) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
    use stead_api::Subresource as S;
    let own = (kind.group, kind.version, kind.kind);
    match sub {
        S::Scale => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        S::Binding => ("", "v1", "Binding", &["create"]),
        S::Eviction => ("policy", "v1", "Eviction", &["create"]),
        S::Token => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        S::Log => ("", "v1", "Pod", &["get"]),
        S::Exec => ("", "v1", "PodExecOptions", &["create", "get"]),
        S::Attach => ("", "v1", "PodAttachOptions", &["create", "get"]),
        S::PortForward => ("", "v1", "PodPortForwardOptions", &["create", "get"]),
        S::Proxy => match kind.plural {
            "nodes" => ("", "v1", "NodeProxyOptions", &["create", "delete", "get", "patch", "update"]),
            "services" => ("", "v1", "ServiceProxyOptions", &["create", "delete", "get", "patch", "update"]),
            _ => ("", "v1", "PodProxyOptions", &["create", "delete", "get", "patch", "update"]),
        },
        S::Finalize => (own.0, own.1, own.2, &["update"]),
        S::Status | S::EphemeralContainers | S::Resize | S::Approval => {
            (own.0, own.1, own.2, &["get", "patch", "update"])
        }
    }
}

fn subresource_row(kind: &Kind, sub: stead_api::Subresource) -> Value {
    let (group, version, name, verbs) = subresource_form(kind, sub);
    let mut row = json!({
        "name": format!("{}/{}", kind.plural, sub.name()), "singularName": "", "namespaced": kind.namespaced(),
        "kind": name, "verbs": verbs,
    });
    if (group, version) != (kind.group, kind.version) {
        if !group.is_empty() {
            row["group"] = group.into();
        }
        row["version"] = version.into();
    }
    row
}

/// All groups with all their resources in one document.
fn aggregated(core: bool, version: &str) -> Value {
    let groups = if core { vec![""] } else { groups() };
    let items: Vec<Value> = groups.into_iter().map(aggregated_group).collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    })
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| {
            let kinds = KINDS.iter().filter(|k| k.group == group && k.version == version);
            let resources: Vec<Value> = kinds.map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|sub| {
            let (group, version, name, verbs) = subresource_form(kind, *sub);
            json!({
                "subresource": sub.name(), "verbs": verbs,
                "responseKind": {"group": group, "version": version, "kind": name},
            })
        })
        .collect();
    let mut row = json!({
        "resource": kind.plural, "singularResource": kind.singular, "verbs": kind.verbs(),
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
    });
    for (key, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !list.is_empty() {
            row[key] = list.into();
        }
    }
    if !subresources.is_empty() {
        row["subresources"] = subresources.into();
    }
    row
}

fn openapi(_segments: &[&str], _query: &Query, _parts: &Parts) -> Answer {
    let _: Bytes = Bytes::new();
    response::page_not_found()
}
