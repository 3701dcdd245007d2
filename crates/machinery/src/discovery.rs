//! The discovery documents: which groups, versions, resources and verbs are served, in all forms that clients ask for.
//!
//! Source of the forms: `k8s.io/apimachinery/pkg/apis/meta/v1`, `k8s.io/api/apidiscovery`; order and hashes as upstream's server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use stead_api::kinds::GroupVersion;
use stead_api::{KINDS, Kind, Subresource};

/// Groups in upstream's order of preference; a group that is not named comes last.
const ORDER: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "storagemigration.k8s.io",
    "metrics.k8s.io",
];

/// The two versions of aggregated discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregated {
    V2,
    V2Beta1,
}

/// The named groups that are served, in order of preference.
#[must_use]
pub fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = Vec::new();
    for kind in KINDS {
        if !kind.group.is_empty() && !groups.contains(&kind.group) {
            groups.push(kind.group);
        }
    }
    groups.sort_by_key(|group| ORDER.iter().position(|g| g == group).unwrap_or(ORDER.len()));
    groups
}

/// The versions of a group, the preferred one first.
#[must_use]
pub fn versions(group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&str> = Vec::new();
    for kind in KINDS.iter().filter(|k| k.group == group) {
        if !versions.contains(&kind.version) {
            versions.push(kind.version);
        }
    }
    versions
}

/// `/api`: the versions of the core group. `address` is what clients should speak to: `192.0.2.2:6443`.
#[must_use]
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions(""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`: all groups.
#[must_use]
pub fn group_list() -> Value {
    let groups: Vec<Value> = groups().into_iter().map(describe_group).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; none when it is not served.
#[must_use]
pub fn group(name: &str) -> Option<Value> {
    if name.is_empty() || versions(name).is_empty() {
        return None;
    }
    let mut group = describe_group(name);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn describe_group(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `/api/v1` and `/apis/GROUP/VERSION`: the resources; none when the version is not served.
#[must_use]
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut kinds = kinds_of(group, version);
    if kinds.is_empty() {
        return None;
    }
    kinds.sort_by_key(|kind| kind.plural);
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(describe_resource(kind));
        resources.extend(sorted_subresources(kind).into_iter().map(|sub| describe_subresource(kind, sub)));
    }
    let group_version = api_version(group, version);
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

fn kinds_of(group: &str, version: &str) -> Vec<&'static Kind> {
    KINDS.iter().filter(|k| k.group == group && k.version == version).collect()
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn sorted_subresources(kind: &Kind) -> Vec<Subresource> {
    let mut list = kind.subresources.to_vec();
    list.sort_by_key(|sub| sub.name());
    list
}

fn describe_resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced(), "kind": kind.kind,
        "verbs": kind.verbs(),
    });
    put_names(kind, &mut resource);
    if kind.stored() {
        resource["storageVersionHash"] = storage_version_hash(kind).into();
    }
    resource
}

fn put_names(kind: &Kind, resource: &mut Value) {
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
}

fn describe_subresource(kind: &Kind, sub: Subresource) -> Value {
    let (of, body) = sub.body(kind);
    let mut resource = json!({
        "name": format!("{}/{}", kind.plural, sub.name()), "singularName": "", "namespaced": kind.namespaced(),
        "kind": body, "verbs": sub.verbs(),
    });
    if of != kind.group_version() {
        resource["group"] = of.group.into();
        resource["version"] = of.version.into();
    }
    resource
}

/// Tells clients whether two resources are stored as one; the same text as upstream's for the same storage.
fn storage_version_hash(kind: &Kind) -> String {
    let text = format!("{}/{}/{}", kind.storage.group, kind.storage.version, kind.kind);
    STANDARD.encode(&Sha256::digest(text)[..8])
}

/// `/api` (`core`) or `/apis` in one document with all resources.
#[must_use]
pub fn aggregated(core: bool, form: Aggregated) -> Value {
    let groups = if core { vec![""] } else { groups() };
    let items: Vec<Value> = groups.into_iter().map(aggregated_group).collect();
    let api_version = match form {
        Aggregated::V2 => "apidiscovery.k8s.io/v2",
        Aggregated::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items})
}

fn aggregated_group(group: &str) -> Value {
    let version = |version: &str| {
        let mut kinds = kinds_of(group, version);
        kinds.sort_by_key(|kind| kind.plural);
        let resources: Vec<Value> = kinds.into_iter().map(aggregated_resource).collect();
        json!({"version": version, "resources": resources, "freshness": "Current"})
    };
    let versions: Vec<Value> = versions(group).into_iter().map(version).collect();
    let mut metadata = Map::new();
    metadata.insert("creationTimestamp".into(), Value::Null);
    if !group.is_empty() {
        metadata.insert("name".into(), group.into());
    }
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "resource": kind.plural, "singularResource": kind.singular, "verbs": kind.verbs(),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "responseKind": response_kind(kind.group_version(), kind.kind),
    });
    put_names(kind, &mut resource);
    let subresources: Vec<Value> = sorted_subresources(kind)
        .into_iter()
        .map(|sub| {
            let (of, body) = sub.body(kind);
            json!({"subresource": sub.name(), "responseKind": response_kind(of, &body), "verbs": sub.verbs()})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

fn response_kind(of: GroupVersion, kind: &str) -> Value {
    json!({"group": of.group, "version": of.version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(list: &Value, name: &str) -> Value {
        let resources = list["resources"].as_array().expect("a list");
        resources.iter().find(|r| r["name"] == name).cloned().unwrap_or_default()
    }

    #[test]
    fn the_core_group_is_listed_as_upstream_lists_it() {
        let list = resource_list("", "v1").expect("served");
        assert_eq!(list["groupVersion"], "v1");
        assert_eq!(
            entry(&list, "pods"),
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8="})
        );
        assert_eq!(
            entry(&list, "pods/eviction"),
            json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy", "version": "v1",
                "kind": "Eviction", "verbs": ["create"]})
        );
        assert_eq!(entry(&list, "nodes/proxy")["kind"], "NodeProxyOptions");
        let names: Vec<&str> =
            list["resources"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.is_sorted() && names[0] == "bindings" && names.contains(&"serviceaccounts/token"));
    }

    #[test]
    fn the_hash_tells_what_is_stored_together() {
        let hash = |group, version, name| {
            entry(&resource_list(group, version).expect("served"), name)["storageVersionHash"].clone()
        };
        assert_eq!(hash("apps", "v1", "statefulsets"), "H+vl74LkKdo=");
        assert_eq!(hash("events.k8s.io", "v1", "events"), "r2yiGXH7wu8=");
        assert_eq!(hash("", "v1", "events"), "r2yiGXH7wu8=");
        assert_eq!(hash("storage.k8s.io", "v1", "storageclasses"), "K+m6uJwbjGY=");
        assert_eq!(
            hash("autoscaling", "v1", "horizontalpodautoscalers"),
            hash("autoscaling", "v2", "horizontalpodautoscalers")
        );
    }

    #[test]
    fn groups_come_in_upstreams_order_with_their_preferred_version() {
        let list = group_list();
        let names: Vec<&str> =
            list["groups"].as_array().expect("a list").iter().filter_map(|g| g["name"].as_str()).collect();
        assert_eq!(names[..3], ["apiregistration.k8s.io", "apps", "events.k8s.io"]);
        assert!(names.iter().all(|name| ORDER.contains(name)), "{names:?}");
        let autoscaling = group("autoscaling").expect("served");
        assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
        assert_eq!(autoscaling["versions"][1]["groupVersion"], "autoscaling/v1");
        assert_eq!(group("nothere"), None);
        assert_eq!(resource_list("apps", "v9"), None);
    }

    #[test]
    fn aggregated_discovery_says_the_same_in_one_document() {
        let core = aggregated(true, Aggregated::V2);
        assert_eq!(core["items"][0]["metadata"], json!({"creationTimestamp": null}));
        let all = aggregated(false, Aggregated::V2Beta1);
        assert_eq!(all["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let apps =
            all["items"].as_array().and_then(|l| l.iter().find(|g| g["metadata"]["name"] == "apps")).expect("apps");
        let sts = apps["versions"][0]["resources"]
            .as_array()
            .and_then(|l| l.iter().find(|r| r["resource"] == "statefulsets"));
        assert_eq!(
            sts.map(|s| s["subresources"].clone()),
            Some(json!([
                {"subresource": "scale", "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "verbs": ["get", "patch", "update"]},
                {"subresource": "status", "responseKind": {"group": "apps", "version": "v1", "kind": "StatefulSet"}, "verbs": ["get", "patch", "update"]},
            ]))
        );
    }
}
