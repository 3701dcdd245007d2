//! The OpenAPI documents: version 3 per group version, and version 2 in one piece, as JSON and as protobuf.
//!
//! `kubectl` reads them for `explain`, for `apply` and `diff` (how lists merge) and to learn that the server validates fields.
//! Documents are written type by type, so that a large one never exists as a tree. Source of the forms: `k8s.io/kube-openapi`.

mod paths;
mod proto;
mod schemas;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stead_api::schema::{TypeId, schema};
use stead_api::{KINDS, Kind};

use self::paths::{Dialect, PathItem};
use self::schemas::Definitions;

/// Media types by which clients ask for [`v2_protobuf`]: the old one is no well-formed media type, but is sent.
pub const V2_PROTOBUF_ACCEPTED: [&str; 2] = ["application/com.github.proto-openapi.spec.v2@v1.0+protobuf", V2_PROTOBUF];
/// Content type of [`v2_protobuf`]; clients refuse an answer that is marked with the old one.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v3`: where the document of each group version is. The hash changes with the documents, so that they can be kept.
#[must_use]
pub fn index(release: &str) -> Value {
    let mut paths = serde_json::Map::new();
    for kind in KINDS {
        let path = group_version_path(kind.group, kind.version);
        let hash = hash(release, &path);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
    }
    json!({"paths": paths})
}

/// Identifies the documents of this program: they depend on nothing but the schema, the kinds and the release.
#[must_use]
pub fn hash(release: &str, path: &str) -> String {
    static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut digest = Sha256::new();
        digest.update(stead_api::schema::fingerprint());
        digest.update(env!("CARGO_PKG_VERSION"));
        for kind in KINDS {
            digest.update(format!("{}/{}/{:?}\n", kind.api_version(), kind.plural, kind.subresources));
        }
        digest.finalize().to_vec()
    });
    let mut digest = Sha256::new();
    digest.update(BASE.as_slice());
    digest.update(release);
    digest.update([0]);
    digest.update(path);
    let mut text = String::with_capacity(64);
    for byte in digest.finalize() {
        let _ = write!(text, "{byte:02X}");
    }
    text
}

/// `api/v1`, `apis/apps/v1`.
fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3/apis/GROUP/VERSION` as JSON text; none when it is not served. `release` is the server's: `v1.37.0`.
#[must_use]
pub fn v3(group: &str, version: &str, release: &str) -> Option<String> {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|k| k.group == group && k.version == version).collect();
    if kinds.is_empty() {
        return None;
    }
    let definitions = Definitions::of(Dialect::V3, reachable(&kinds));
    let mut out = String::with_capacity(256 * 1024);
    write_head(&mut out, "\"openapi\":\"3.0.0\"", release);
    write_paths(&mut out, Dialect::V3, paths::of(&kinds));
    out.push_str(",\"components\":{\"schemas\":{");
    write_members(&mut out, definitions.iter());
    out.push_str("}}}");
    Some(out)
}

/// `/openapi/v2` as JSON text.
#[must_use]
pub fn v2(release: &str) -> String {
    let kinds: Vec<&Kind> = KINDS.iter().collect();
    let definitions = Definitions::of(Dialect::V2, all_types());
    let mut out = String::with_capacity(3 * 1024 * 1024);
    write_head(&mut out, "\"swagger\":\"2.0\"", release);
    write_paths(&mut out, Dialect::V2, paths::of(&kinds));
    out.push_str(",\"definitions\":{");
    write_members(&mut out, definitions.iter());
    out.push_str("}}");
    out
}

/// `/openapi/v2` in the protobuf form of gnostic, which older `kubectl`s ask for.
#[must_use]
pub fn v2_protobuf(release: &str) -> Vec<u8> {
    let kinds: Vec<&Kind> = KINDS.iter().collect();
    let definitions = Definitions::of(Dialect::V2, all_types());
    let paths = paths::of(&kinds).into_iter().map(|item| (item.path.clone(), item.to_value(Dialect::V2)));
    proto::document(release, paths, definitions.iter())
}

fn write_head(out: &mut String, dialect: &str, release: &str) {
    let info = json!({"title": "Kubernetes", "version": release});
    let _ = write!(out, "{{{dialect},\"info\":{info},\"paths\":{{");
}

fn write_paths(out: &mut String, dialect: Dialect, items: Vec<PathItem>) {
    write_members(out, items.into_iter().map(|item| (item.path.clone(), item.to_value(dialect))));
    out.push('}');
}

/// The members of a JSON object, each made, written and dropped before the next.
fn write_members(out: &mut String, members: impl Iterator<Item = (String, Value)>) {
    for (index, (name, value)) in members.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{}:{value}", Value::String(name));
    }
}

/// The types that the paths of some kinds speak of, and what those refer to.
fn reachable(kinds: &[&Kind]) -> BTreeSet<TypeId> {
    let schema = schema();
    let names = kinds.iter().flat_map(|kind| {
        let bodies = kind.subresources.iter().filter_map(|sub| {
            let (of, body) = sub.body(kind);
            schema.of_object(of.group, of.version, &body).map(|id| schema.get(id).name())
        });
        [kind.schema.to_owned(), format!("{}List", kind.schema)].into_iter().chain(bodies)
    });
    let always = ["DeleteOptions", "Patch", "Status", "WatchEvent", "APIResourceList"];
    let always = always.into_iter().map(|name| format!("{}{name}", paths::META));
    let roots = names.chain(always).filter_map(|name| schema.find(&name)).collect();
    schemas::closure(schema, roots)
}

fn all_types() -> BTreeSet<TypeId> {
    schema().types().map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests;
