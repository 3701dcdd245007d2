//! Paths that are no resources: health, version, discovery, schemas, token keys, metrics.

use std::net::SocketAddr;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use stead_api::kinds::KINDS;
use stead_machinery::ApiError;
use stead_machinery::discovery::{self, Aggregated};
use stead_machinery::openapi;

use crate::body::ApiBody;
use crate::negotiate::{self, Form};
use crate::path::Query;
use crate::response::{self, Answer};
use crate::server::{ApiServer, GIT_VERSION, MINOR};
use crate::verbs::{no_resource, not_allowed};

/// The release that the schemas are of.
const RELEASE: &str = "v1.37.0";
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
        ["metrics"] => Ok(response::text(StatusCode::OK, server.metrics())),
        ["openid", "v1", "jwks"] => Ok(typed(&server.0.pki.tokens.jwks(), "application/jwk-set+json")),
        [".well-known", "openid-configuration"] => Ok(typed(&openid(server), "application/json")),
        ["api" | "apis"] => Ok(roots(server, segments[0], form, parts)),
        ["api", version] => discovery::resource_list("", version).ok_or_else(no_resource).and_then(json),
        ["apis", group] => discovery::group(group).map_or_else(|| Ok(response::page_not_found()), json),
        ["apis", group, version] if discovery::group(group).is_some() => {
            discovery::resource_list(group, version).ok_or_else(no_resource).and_then(json)
        }
        ["openapi", ..] => Ok(schemas(&segments, form, query, parts)),
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
    let address = SocketAddr::new(server.0.config.advertise, server.0.config.bind.port());
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
        let shape = if version == "v2" { Aggregated::V2 } else { Aggregated::V2Beta1 };
        let mut answer = response::json_value(StatusCode::OK, form, &discovery::aggregated(core, shape));
        let text = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let headers = answer.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(header::CONTENT_TYPE, value);
        }
        return answer;
    }
    let address = SocketAddr::new(server.0.config.advertise, server.0.config.bind.port());
    let value = if core { discovery::core_versions(&address.to_string()) } else { discovery::group_list() };
    response::json_value(StatusCode::OK, form, &value)
}

/// The documents are made anew each time: clients keep them, by hash or by entity tag.
fn schemas(segments: &[&str], form: Form, query: &Query, parts: &Parts) -> Answer {
    let accept = parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let path = segments[1..].join("/");
    let tag = format!("\"{}\"", openapi::hash(RELEASE, &format!("{path} {accept}")));
    if parts.headers.get(header::IF_NONE_MATCH).is_some_and(|have| have.as_bytes() == tag.as_bytes()) {
        return tagged(response::with_type(StatusCode::NOT_MODIFIED, "application/json", ApiBody::Empty), &tag);
    }
    let json = |text: String| response::json_bytes(StatusCode::OK, form, text.into());
    let answer = match &segments[1..] {
        ["v2"] if openapi::V2_PROTOBUF_ACCEPTED.iter().any(|known| accept.contains(known)) => {
            let body = ApiBody::full(openapi::v2_protobuf(RELEASE));
            Some(response::with_type(StatusCode::OK, openapi::V2_PROTOBUF, body))
        }
        ["v2"] => Some(json(openapi::v2(RELEASE))),
        ["v3"] => Some(response::json_value(StatusCode::OK, form, &openapi::index(RELEASE))),
        ["v3", "api", version] => openapi::v3("", version, RELEASE).map(json),
        ["v3", "apis", group, version] => openapi::v3(group, version, RELEASE).map(json),
        _ => None,
    };
    let Some(mut answer) = answer else { return response::page_not_found() };
    if query.find("hash").is_some() {
        // The address names the content, which therefore never changes.
        let forever = HeaderValue::from_static("public, immutable");
        answer.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    tagged(answer, &tag)
}

fn tagged(mut answer: Answer, tag: &str) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    answer
}
