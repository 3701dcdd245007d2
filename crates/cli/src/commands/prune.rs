//! What `apply --prune` and `diff --prune` find: objects that were applied once and are in no manifest any more.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/util/prune`, `k8s.io/kubectl/pkg/cmd/apply` (prune).

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value;

use crate::apply::LAST_APPLIED;
use crate::builder::{Found, Target};
use crate::failure::{Failure, Result, plain};
use crate::print::at;
use crate::resources::Resource;
use crate::session::Session;

/// The kinds that are looked at when none are named, by group; those without a namespace last.
const USUAL: &[(&str, &str)] = &[
    ("", "ConfigMap"),
    ("", "Endpoints"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("", "Secret"),
    ("", "Service"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("networking.k8s.io", "Ingress"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("", "Namespace"),
    ("", "PersistentVolume"),
];

/// What manifests named, to be kept.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    uids: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Seen {
    /// Notes an object of a manifest as the server has it; null when it has none.
    pub(crate) fn note(&mut self, target: &Target, live: &Value) {
        self.namespaces.extend(target.namespace.clone());
        let uid = at(live, "/metadata/uid");
        if !uid.is_empty() {
            self.uids.insert(uid.to_owned());
        }
    }
}

/// The resources of `--prune-allowlist`.
pub(crate) async fn allowed(session: &Session, list: &[String]) -> Result<Vec<Rc<Resource>>> {
    let mut allowed = Vec::new();
    for entry in list {
        let [group, version, kind] = entry.split('/').collect::<Vec<_>>()[..] else {
            return plain(format!("invalid GroupVersionKind format: {entry}, please follow <group/version/kind>"));
        };
        let group = if group == "core" { "" } else { group };
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        match session.resources().await?.of_object(&api_version, kind) {
            Some(resource) => allowed.push(resource),
            None => return plain(format!("no matches for kind {kind:?} in version {api_version:?}")),
        }
    }
    Ok(allowed)
}

/// The objects that are to go, kind by kind.
pub(crate) async fn find(
    session: &Session,
    allowed: Vec<Rc<Resource>>,
    seen: &Seen,
    selector: &str,
) -> Result<Vec<Found>> {
    let resources = match allowed.is_empty() {
        true => usual(session).await?,
        false => allowed,
    };
    let (namespaced, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(|resource| resource.namespaced);
    let mut found = Vec::new();
    for namespace in &seen.namespaces {
        for resource in &namespaced {
            found.extend(of_resource(session, resource, Some(namespace), seen, selector).await?);
        }
    }
    for resource in &others {
        found.extend(of_resource(session, resource, None, seen, selector).await?);
    }
    Ok(found)
}

async fn usual(session: &Session) -> Result<Vec<Rc<Resource>>> {
    session.err("W: Deprecated: kubectl apply will no longer prune non-namespaced resources by default when used with the --namespace flag in a future release. To preserve the current behaviour, list the resources you want to target explicitly in the --prune-allowlist flag.\n");
    let resources = session.resources().await?;
    let mut usual = Vec::new();
    for (group, kind) in USUAL {
        match resources.of_kind(group, kind) {
            Some(resource) => usual.push(resource),
            None => {
                return plain(format!(
                    "error retrieving RESTMappings to prune: invalid resource {group}/v1, Kind={kind}: the server does not have it; name the resources with --prune-allowlist"
                ));
            }
        }
    }
    Ok(usual)
}

async fn of_resource(
    session: &Session,
    resource: &Rc<Resource>,
    namespace: Option<&String>,
    seen: &Seen,
    selector: &str,
) -> Result<Vec<Found>> {
    let query = match selector {
        "" => Vec::new(),
        selector => vec![("labelSelector", selector.to_owned())],
    };
    let path = resource.path(namespace.map(String::as_str));
    let listed = session.server().await?.list(&path, &query, "application/json").await;
    let scope = if namespace.is_some() { "namespaced" } else { "nonNamespaced" };
    let answer = listed.map_err(|failure| {
        let kind = format!("{}/{}, Kind={}", resource.group, resource.version, resource.kind);
        Failure::Plain(format!("error pruning {scope} object {kind}: {}", failure.message()))
    })?;
    let stays = |object: &&Value| {
        object["metadata"]["annotations"].get(LAST_APPLIED).is_none() || seen.uids.contains(at(object, "/metadata/uid"))
    };
    let found = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.clone().into();
        Found {
            resource: resource.clone(),
            namespace: namespace.cloned(),
            name: at(&object, "/metadata/name").to_owned(),
            object,
            source: String::new(),
        }
    };
    Ok(crate::print::list(&answer, "/items").iter().filter(|object| !stays(object)).map(found).collect())
}
