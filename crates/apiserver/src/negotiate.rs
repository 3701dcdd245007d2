//! In which form the caller wants the answer: media type, and object, table or metadata only.
//!
//! Source of the rules: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`. Protobuf is not spoken: a caller that
//! also takes JSON gets JSON.

use http::{HeaderMap, header};
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::path::Query;

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Media {
    #[default]
    Json,
    Yaml,
    /// Only read, never written.
    Protobuf,
}

impl Media {
    #[must_use]
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) enum Shape {
    #[default]
    Object,
    Table,
    /// Also for lists, where it becomes PartialObjectMetadataList.
    Metadata,
}

/// The negotiated form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Form {
    pub media: Media,
    pub shape: Shape,
    pub pretty: bool,
}

/// One alternative of an Accept header.
struct Clause<'a> {
    media: &'a str,
    shape: &'a str,
    group: &'a str,
    version: &'a str,
}

/// The alternatives, in the caller's order of preference (quality first, then place).
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut list: Vec<(u32, Clause<'_>)> = accept
        .split(',')
        .map(|text| {
            let mut parts = text.split(';').map(str::trim);
            let mut clause = Clause { media: parts.next().unwrap_or(""), shape: "", group: "", version: "" };
            let mut quality = 1000;
            for part in parts {
                match part.split_once('=') {
                    Some(("as", v)) => clause.shape = v,
                    Some(("g", v)) => clause.group = v,
                    Some(("v", v)) => clause.version = v,
                    Some(("q", v)) => quality = v.parse::<f32>().map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32),
                    _ => {}
                }
            }
            (quality, clause)
        })
        .filter(|(_, clause)| !clause.media.is_empty())
        .collect();
    list.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    list.into_iter().map(|(_, clause)| clause).collect()
}

fn media_of(clause: &Clause<'_>) -> Option<Media> {
    match clause.media {
        "application/json" | "*/*" | "application/*" => Some(Media::Json),
        "application/yaml" => Some(Media::Yaml),
        _ => None,
    }
}

fn shape_of(clause: &Clause<'_>, list: bool) -> Option<Shape> {
    match (clause.shape, clause.group, clause.version) {
        ("", ..) => Some(Shape::Object),
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Some(Shape::Table),
        ("PartialObjectMetadata", "meta.k8s.io", "v1" | "v1beta1") if !list => Some(Shape::Metadata),
        ("PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") if list => Some(Shape::Metadata),
        _ => None,
    }
}

fn accept(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("")
}

/// Whether to indent: asked for, or a browser or curl reads it.
fn pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.find("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla"].iter().any(|known| agent.starts_with(known))
}

/// The form for a resource. `list` says whether the answer is a list (or a watch, whose items are single objects).
///
/// # Errors
/// Not acceptable (406) when the header names nothing that is served.
pub(crate) fn resource(headers: &HeaderMap, query: &Query, list: bool, shapes: bool) -> Result<Form, ApiError> {
    let accept = accept(headers);
    let pretty = pretty(headers, query);
    if accept.is_empty() {
        return Ok(Form { pretty, ..Form::default() });
    }
    let found = clauses(accept).iter().find_map(|clause| {
        let shape = shape_of(clause, list).filter(|shape| shapes || *shape == Shape::Object)?;
        Some(Form { media: media_of(clause)?, shape, pretty })
    });
    found.ok_or_else(|| not_acceptable(accept))
}

/// The form of a watch: each event carries one object.
///
/// # Errors
/// Not acceptable (406) when the header names nothing that is served.
pub(crate) fn watch(headers: &HeaderMap, query: &Query) -> Result<Form, ApiError> {
    let mut form = resource(headers, query, false, true).or_else(|_| resource(headers, query, true, true))?;
    form.media = Media::Json;
    form.pretty = false;
    Ok(form)
}

/// The form of errors: whatever fits, JSON when nothing does.
#[must_use]
pub(crate) fn fallback(headers: &HeaderMap, query: &Query) -> Form {
    let media = clauses(accept(headers)).iter().find_map(media_of).unwrap_or_default();
    Form { media, shape: Shape::Object, pretty: pretty(headers, query) }
}

/// Which aggregated discovery version the caller prefers over the plain one: `v2`, `v2beta1` or none.
#[must_use]
pub(crate) fn discovery(headers: &HeaderMap) -> Option<&'static str> {
    for clause in clauses(accept(headers)) {
        match (clause.media, clause.shape, clause.group, clause.version) {
            ("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some("v2"),
            ("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some("v2beta1"),
            ("application/json" | "*/*" | "application/*", "", ..) => return None,
            _ => {}
        }
    }
    None
}

fn not_acceptable(accept: &str) -> ApiError {
    let mut known = clauses(accept).into_iter().filter(|clause| media_of(clause).is_some());
    let text = if known.any(|clause| !clause.shape.is_empty()) {
        "only the following media types are accepted: application/json, application/yaml"
    } else {
        "406: Not Acceptable"
    };
    ApiError::new(Reason::NotAcceptable, text)
}

/// The language of a request body.
///
/// # Errors
/// Unsupported media type (415).
pub(crate) fn body_media(headers: &HeaderMap) -> Result<Media, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match content_type.split(';').next().unwrap_or("").trim() {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
        _ => Err(ApiError::new(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn forms() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let partial_list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (accept, list, want) in [
            ("", true, "Json Object"),
            ("*/*", true, "Json Object"),
            ("application/yaml", true, "Yaml Object"),
            (table, true, "Json Table"),
            (partial_list, true, "Json Metadata"),
            (partial_list, false, "Json Object"),
            ("application/vnd.kubernetes.protobuf,application/json", true, "Json Object"),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                false,
                "Json Metadata",
            ),
            ("application/json;q=0.1, application/yaml;q=0.9", true, "Yaml Object"),
            (
                "application/json;as=Frob;v=v1;g=meta.k8s.io",
                true,
                "only the following media types are accepted: application/json, application/yaml",
            ),
            ("application/xml", true, "406: Not Acceptable"),
        ] {
            let got = match resource(&headers(accept), &Query::default(), list, true) {
                Ok(form) => format!("{:?} {:?}", form.media, form.shape),
                Err(error) => error.message,
            };
            assert_eq!(got, want, "{accept}");
        }
    }

    #[test]
    fn aggregated_discovery_only_when_preferred() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(discovery(&headers(&format!("{new},application/json"))), Some("v2"));
        assert_eq!(discovery(&headers(&format!("application/json,{new}"))), None);
        assert_eq!(discovery(&headers("*/*")), None);
    }
}
