//! What every cluster has from the start: namespaces, the `kubernetes` Service, default roles, priority classes.

use std::net::IpAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};
use stead_api::{Kind, kinds};
use stead_machinery::ApiError;
use stead_store::{Durability, Expect, StoreError, Write};

use crate::chain::Identity;
use crate::objects;
use crate::server::{ApiServer, OpenError};
use crate::verbs::write::{self, seconds, store_failed};

/// Upstream's annotation of default roles and bindings that are kept complete.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing, and takes the addresses of the Services that are there.
pub(crate) async fn run(server: &ApiServer) -> Result<(), OpenError> {
    occupy(server).await.map_err(OpenError::Bootstrap)?;
    for namespace in NAMESPACES {
        let labels = json!({"kubernetes.io/metadata.name": namespace});
        let object = json!({"metadata": {"name": namespace, "labels": labels}, "spec": {"finalizers": ["kubernetes"]}});
        ensure(server, "namespaces", object).await.map_err(OpenError::Bootstrap)?;
    }
    roles(server).await.map_err(OpenError::Bootstrap)?;
    let ip = server.0.config.kubernetes_ip()?;
    kubernetes_service(server, ip).await.map_err(OpenError::Bootstrap)?;
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let object = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(server, "priorityclasses", object).await.map_err(OpenError::Bootstrap)?;
    }
    Ok(())
}

async fn occupy(server: &ApiServer) -> Result<(), ApiError> {
    let range = server.0.store.range(b"/registry/services/", b"", 0, None).await.map_err(store_failed)?;
    for entry in range.entries {
        if let Ok(service) = objects::decode(&entry.value, entry.modified) {
            server.0.pool.occupy(&service);
        }
    }
    Ok(())
}

/// The Service through which pods reach this server, and its only endpoint.
async fn kubernetes_service(server: &ApiServer, ip: IpAddr) -> Result<(), ApiError> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let (address, port) = (server.0.config.advertise, server.0.config.bind.port());
    let metadata = json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let ports = json!([{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]);
    let spec =
        json!({"type": "ClusterIP", "clusterIP": ip.to_string(), "clusterIPs": [ip.to_string()], "ports": ports});
    ensure(server, "services", json!({"metadata": metadata, "spec": spec})).await?;
    let own = json!({"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}});
    let endpoints = json!({"metadata": own, "subsets": [{
        "addresses": [{"ip": address.to_string()}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }]});
    replace(server, "endpoints", endpoints).await?;
    let labels = json!({"kubernetes.io/service-name": "kubernetes"});
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels, "generation": 1},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    replace(server, "endpointslices", slice).await
}

/// A default role or binding in its stored form, without an identity.
struct Wanted {
    kind: &'static Kind,
    key: String,
    encoded: Bytes,
    /// How much of it comes behind the metadata.
    body_bytes: usize,
}

impl Wanted {
    fn new(mut object: Value) -> Result<Self, String> {
        let (version, name) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
        let kind = kinds::by_api_version(version, name).ok_or_else(|| format!("there is no kind {version}/{name}"))?;
        stead_admission::default(kind, &mut object);
        let encoded = objects::encode(&object);
        let body_bytes = objects::body_slice(&encoded).map_or(0, <[u8]>::len);
        Ok(Self { kind, key: key_of(kind, &object), encoded, body_bytes })
    }

    /// Whether all of a stored one but the metadata is as it was made: so it is at nearly every start, and need not be parsed.
    fn is_in(&self, stored: &[u8]) -> bool {
        self.body_bytes > 0 && stored.ends_with(&self.encoded[self.encoded.len() - self.body_bytes..])
    }
}

/// The default roles and their bindings. They are made once: tests and the simulator open many servers.
static WANTED: LazyLock<Result<Vec<Wanted>, String>> =
    LazyLock::new(|| stead_admission::authz::bootstrap::objects().into_iter().map(Wanted::new).collect());

/// Makes the default roles and bindings. Those of an earlier version get what they lack (upstream's reconciliation), unless
/// their annotation `autoupdate` says no; what was added to them stays.
async fn roles(server: &ApiServer) -> Result<(), ApiError> {
    let internal = |error: serde_json::Error| ApiError::internal(&error.to_string());
    for wanted in WANTED.as_ref().map_err(|why| ApiError::internal(why))? {
        let entry = server.0.store.get(wanted.key.as_bytes()).await.map_err(store_failed)?;
        if entry.as_ref().is_some_and(|entry| wanted.is_in(&entry.value)) {
            continue;
        }
        let object = serde_json::from_slice(&wanted.encoded).map_err(internal)?;
        let Some(entry) = entry else {
            put(server, wanted.key.clone(), &identified(wanted.kind, object), Expect::Absent).await?;
            continue;
        };
        let old = objects::decode(&entry.value, entry.modified).map_err(internal)?;
        if let Some(new) = completed(&old, &object) {
            put(server, wanted.key.clone(), &new, Expect::Modified(entry.modified)).await?;
        }
    }
    Ok(())
}

/// The stored role or binding with the rules or subjects that it lacks; `None` when it lacks none.
fn completed(old: &Value, wanted: &Value) -> Option<Value> {
    if old["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let mut new = old.clone();
    for list in ["rules", "subjects"] {
        let has = |item: &Value| old[list].as_array().is_some_and(|there| there.contains(item));
        let lacking: Vec<Value> = wanted[list].as_array().into_iter().flatten().filter(|i| !has(i)).cloned().collect();
        if !lacking.is_empty() {
            let mut all = old[list].as_array().cloned().unwrap_or_default();
            all.extend(lacking);
            new[list] = all.into();
        }
    }
    (new != *old).then_some(new)
}

fn kind_of(plural: &str) -> Result<&'static Kind, ApiError> {
    kinds::by_name(plural).ok_or_else(|| ApiError::internal(&format!("there is no kind {plural}")))
}

/// Creates an object unless one of its name is there.
pub(crate) async fn ensure(server: &ApiServer, plural: &str, object: Value) -> Result<(), ApiError> {
    let kind = kind_of(plural)?;
    let key = key_of(kind, &object);
    if server.0.store.get(key.as_bytes()).await.map_err(store_failed)?.is_some() {
        return Ok(());
    }
    let object = complete(server, kind, object)?;
    put(server, key, &object, Expect::Absent).await
}

/// Removes an object, if it is there.
pub(crate) async fn remove(server: &ApiServer, key: &str) -> Result<(), ApiError> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let write = Write { key, value: None, expect: Expect::Exists, durability: Durability::Now };
    match server.0.store.write(write).await {
        Ok(_) | Err(StoreError::Unmet { .. }) => Ok(()),
        Err(error) => Err(store_failed(error)),
    }
}

/// Creates an object, or gives an old one a new content: addresses may have changed since the last start.
async fn replace(server: &ApiServer, plural: &str, object: Value) -> Result<(), ApiError> {
    let kind = kind_of(plural)?;
    let key = key_of(kind, &object);
    let Some(entry) = server.0.store.get(key.as_bytes()).await.map_err(store_failed)? else {
        // Not judged: on a machine of its own the server may well be reached by a loopback address.
        let mut object = identified(kind, object);
        stead_admission::default(kind, &mut object);
        return put(server, key, &object, Expect::Absent).await;
    };
    let old = objects::decode(&entry.value, entry.modified).map_err(|e| ApiError::internal(&e.to_string()))?;
    let mut new = old.clone();
    for (field, value) in object.as_object().into_iter().flatten().filter(|(field, _)| *field != "metadata") {
        new[field] = value.clone();
    }
    if new == old { Ok(()) } else { put(server, key, &new, Expect::Modified(entry.modified)).await }
}

fn key_of(kind: &Kind, object: &Value) -> String {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or("");
    objects::key_of(kind, text("namespace"), text("name"))
}

/// The object as a create through the API would make it.
fn complete(server: &ApiServer, kind: &'static Kind, object: Value) -> Result<Value, ApiError> {
    let mut object = identified(kind, object);
    write::admit(server, &Identity::new("system:apiserver", &["system:masters"]), false, |ctx| {
        stead_admission::create(kind, &mut object, ctx)
    })?;
    Ok(object)
}

fn identified(kind: &Kind, mut object: Value) -> Value {
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.into();
    object["metadata"]["uid"] = crate::source::uuid().to_string().into();
    object["metadata"]["creationTimestamp"] = seconds(crate::source::now()).into();
    object
}

async fn put(server: &ApiServer, key: String, object: &Value, expect: Expect) -> Result<(), ApiError> {
    let value = Some(objects::encode(object));
    let write = Write { key: Bytes::from(key), value, expect, durability: Durability::Lazy };
    match server.0.store.write(write).await {
        // Another server of the same cluster was faster.
        Ok(_) | Err(StoreError::Unmet { .. }) => Ok(()),
        Err(error) => Err(store_failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_role_gets_what_it_lacks_and_keeps_what_was_added() {
        let role = |rules: Value| json!({"metadata": {"annotations": {AUTOUPDATE: "true"}}, "rules": rules});
        let wanted = role(json!(["a", "b"]));
        assert_eq!(completed(&role(json!(["own", "a"])), &wanted), Some(role(json!(["own", "a", "b"]))));
        assert_eq!(completed(&role(json!(["b", "a", "own"])), &wanted), None);
        let mut kept = role(json!([]));
        kept["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(completed(&kept, &wanted), None);
    }
}
