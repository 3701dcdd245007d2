//! Delete: at once, after a grace period (pods), or when the finalizers are done. One object or all that match.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stead_api::{Kind, convert};
use stead_machinery::ApiError;
use stead_store::{Entry, Expect};

use super::write::{self, Outcome, store_failed};
use super::{Target, list, render};
use crate::chain::{Call, Identity};
use crate::decode;
use crate::negotiate::{self, Form, Shape};
use crate::objects;
use crate::options::{DeleteOptions, Propagation};
use crate::response::{self, Answer};
use crate::server::ApiServer;

/// Tries of a delete whose object changes under it.
const TRIES_MAX: usize = 16;
const DEFAULT_GRACE_SECONDS: i64 = 30;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose delete answers with the object instead of a Status (upstream's `ReturnDeletedObject`).
const RETURNED: &[&str] = &[
    "pods",
    "services",
    "persistentvolumes",
    "persistentvolumeclaims",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
];

pub(crate) async fn delete(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, true)?;
    let options = DeleteOptions::read(&call.query, decode::delete_options(call)?.as_ref())?;
    let deleted = remove(server, target, &options, &call.user).await?;
    answer(form, target, &deleted, call)
}

fn answer(form: Form, target: &Target, deleted: &Deleted, call: &Call) -> Result<Answer, ApiError> {
    let kind = target.kind;
    let returned = !deleted.gone || (kind.group.is_empty() && RETURNED.contains(&kind.plural));
    if returned {
        return render::object(StatusCode::OK, form, kind, &deleted.entry, call);
    }
    let mut details = json!({"name": target.name, "kind": kind.plural, "uid": deleted.object["metadata"]["uid"]});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(response::json_value(StatusCode::OK, Form { shape: Shape::Object, ..form }, &status))
}

pub(crate) async fn delete_collection(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, true, true)?;
    let options = DeleteOptions::read(&call.query, decode::delete_options(call)?.as_ref())?;
    let found = list::matching(server, target, call).await?;
    let mut deleted = Vec::with_capacity(found.len());
    for entry in found {
        let (namespace, name) = objects::names_of_key(&entry.key);
        let one = Target { kind: target.kind, namespace: namespace.to_owned(), name: name.to_owned() };
        match remove(server, &one, &options, &call.user).await {
            Ok(done) => deleted.push(done.entry),
            // Somebody else was faster: it is gone, which is what was asked for.
            Err(error) if error.reason == stead_machinery::status::Reason::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let revision = server.0.store.revision();
    render::list(form, target.kind, deleted, render::ListMeta::at(revision), call)
}

/// What became of the object.
pub(crate) struct Deleted {
    pub(crate) entry: Entry,
    pub(crate) object: Value,
    /// It is removed already; else it is only marked.
    pub(crate) gone: bool,
}

/// Deletes one object, again when it changes under the hand.
pub(crate) async fn remove(
    server: &ApiServer,
    target: &Target,
    options: &DeleteOptions,
    user: &Identity,
) -> Result<Deleted, ApiError> {
    for _ in 0..TRIES_MAX {
        let entry = server.0.store.get(target.key().as_bytes()).await.map_err(store_failed)?;
        let entry = entry.ok_or_else(|| target.not_found())?;
        if let Some(deleted) = attempt(server, target, options, user, entry).await? {
            return Ok(deleted);
        }
    }
    Err(ApiError::conflict(target.kind, &target.name, "the object keeps changing while it is deleted; try again"))
}

async fn attempt(
    server: &ApiServer,
    target: &Target,
    options: &DeleteOptions,
    user: &Identity,
    entry: Entry,
) -> Result<Option<Deleted>, ApiError> {
    let kind = target.kind.storage_kind();
    let old = objects::decode(&entry.value, entry.modified).map_err(|e| ApiError::internal(&e.to_string()))?;
    preconditions(target, options, &old)?;
    write::admit(server, user, options.dry_run, |ctx| stead_admission::delete(kind, &old, ctx))?;
    match decide(kind, &old, options, crate::source::now()) {
        Decision::Nothing => Ok(Some(Deleted { entry, object: old, gone: false })),
        Decision::Mark(new) => {
            let expect = Expect::Modified(entry.modified);
            let put = write::Put { kind, key: target.key(), expect, dry_run: options.dry_run };
            Ok(match write::put(server, put, objects::encode(&new)).await? {
                Outcome::Done(entry) => Some(Deleted { entry, object: new, gone: false }),
                Outcome::Unmet => None,
            })
        }
        Decision::Remove => {
            if !options.dry_run {
                if write::remove(server, kind, &entry).await?.is_none() {
                    return Ok(None);
                }
                write::release(server, kind, &old, None, false);
            }
            Ok(Some(Deleted { entry, object: convert::from_storage(target.kind, old), gone: true }))
        }
    }
}

/// Whether the object is the one that is meant.
pub(crate) fn preconditions(target: &Target, options: &DeleteOptions, old: &Value) -> Result<(), ApiError> {
    let here = |key: &str| old["metadata"][key].as_str().unwrap_or("").to_owned();
    let refuse = |why: String| {
        let mut error = ApiError::conflict(target.kind, &target.name, &why);
        error.message = format!("Operation cannot be fulfilled on {} {:?}: {why}", target.kind.kind, target.name);
        error.details["kind"] = target.kind.kind.into();
        Err(error)
    };
    if let Some(uid) = &options.uid
        && *uid != here("uid")
    {
        return refuse(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            here("uid")
        ));
    }
    if let Some(version) = &options.resource_version
        && *version != here("resourceVersion")
    {
        return refuse(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({}). The object might have been modified",
            here("resourceVersion")
        ));
    }
    Ok(())
}

/// What a delete does to an object.
#[derive(Debug, PartialEq)]
enum Decision {
    /// It is being deleted already, and not sooner for this request.
    Nothing,
    Mark(Value),
    Remove,
}

/// Source of the rules: `k8s.io/apiserver/pkg/registry/rest/delete.go` and `registry/generic/registry/store.go`.
fn decide(kind: &Kind, old: &Value, options: &DeleteOptions, now: Timestamp) -> Decision {
    let mut new = old.clone();
    let finalizers = finalizers(old, options.propagation);
    set_finalizers(&mut new, &finalizers);
    let already = old["metadata"]["deletionTimestamp"].is_string();
    let held = !finalizers.is_empty()
        || (kind.kind == "Namespace" && old["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()));
    if kind.kind == "Namespace" && kind.group.is_empty() {
        new["status"]["phase"] = "Terminating".into();
    }
    let grace = if is_pod(kind) { grace_of_pod(old, options.grace_period) } else { 0 };
    let present = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if already {
        // Only sooner, never later.
        if grace < present {
            reschedule(&mut new, present, grace);
        }
    } else if grace > 0 || held {
        mark(&mut new, grace, now);
        if kind.kind == "Namespace" && kind.group.is_empty() {
            drop_key(&mut new["metadata"], "deletionGracePeriodSeconds");
        }
    }
    let still = if already { grace.min(present) } else { grace };
    if still <= 0 && !held {
        Decision::Remove
    } else if new == *old {
        Decision::Nothing
    } else {
        Decision::Mark(new)
    }
}

fn is_pod(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

/// The grace period of a pod: asked for, or its own; none when no node has it or all its containers are done.
fn grace_of_pod(pod: &Value, asked: Option<i64>) -> i64 {
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE_SECONDS);
    let unplaced = pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty();
    let done = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    match asked.unwrap_or(own) {
        _ if unplaced || done => 0,
        // A negative period means "as soon as possible, but not by force".
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

fn finalizers(old: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let present: Vec<String> = old["metadata"]["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| f.as_str().map(str::to_owned))
        .collect();
    let Some(propagation) = propagation else { return present };
    let mut wanted: Vec<String> = present.into_iter().filter(|f| f != ORPHAN && f != FOREGROUND).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => wanted.push(FOREGROUND.to_owned()),
        Propagation::Orphan => wanted.push(ORPHAN.to_owned()),
    }
    wanted
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    if finalizers.is_empty() {
        drop_key(&mut object["metadata"], "finalizers");
    } else {
        object["metadata"]["finalizers"] = finalizers.to_vec().into();
    }
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    let metadata = &mut object["metadata"];
    let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    metadata["deletionTimestamp"] = write::seconds(at).into();
    metadata["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = metadata["generation"].as_i64().filter(|g| *g > 0) {
        metadata["generation"] = (generation + 1).into();
    } else {
        drop_key(metadata, "generation");
    }
}

/// Moves a deletion that is under way forward.
fn reschedule(object: &mut Value, before: i64, grace: i64) {
    let metadata = &mut object["metadata"];
    let at: Option<Timestamp> = metadata["deletionTimestamp"].as_str().and_then(|t| t.parse().ok());
    if let Some(at) = at.and_then(|at| at.checked_sub(SignedDuration::from_secs(before - grace)).ok()) {
        metadata["deletionTimestamp"] = write::seconds(at).into();
    }
    metadata["deletionGracePeriodSeconds"] = grace.into();
}

fn drop_key(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use stead_api::kinds;

    use super::*;

    fn pod(node: &str, extra: Value) -> Value {
        let mut pod =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 20}});
        for (key, value) in extra.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        pod
    }

    fn line(kind: &str, object: &Value, options: &DeleteOptions) -> String {
        match decide(kinds::by_name(kind).unwrap(), object, options, "2026-01-01T00:00:00Z".parse().unwrap()) {
            Decision::Nothing => "nothing".to_owned(),
            Decision::Remove => "remove".to_owned(),
            Decision::Mark(new) => {
                let m = &new["metadata"];
                format!("mark {} grace {} {}", m["deletionTimestamp"], m["deletionGracePeriodSeconds"], m["finalizers"])
            }
        }
    }

    #[test]
    fn what_a_delete_does() {
        let grace = |seconds| DeleteOptions { grace_period: Some(seconds), ..DeleteOptions::default() };
        let policy = |p| DeleteOptions { propagation: Some(p), ..DeleteOptions::default() };
        let none = DeleteOptions::default();
        let dying = json!({"deletionTimestamp": "2026-01-01T00:00:20Z", "deletionGracePeriodSeconds": 20});
        let cm = json!({"metadata": {"name": "c"}});
        let held = json!({"metadata": {"name": "c", "finalizers": ["x/y"]}});
        for (kind, object, options, want) in [
            ("pods", pod("", json!({})), &none, "remove"),
            ("pods", pod("n", json!({})), &none, r#"mark "2026-01-01T00:00:20Z" grace 20 null"#),
            ("pods", pod("n", json!({})), &grace(5), r#"mark "2026-01-01T00:00:05Z" grace 5 null"#),
            ("pods", pod("n", json!({})), &grace(-3), r#"mark "2026-01-01T00:00:01Z" grace 1 null"#),
            ("pods", pod("n", json!({})), &grace(0), "remove"),
            ("pods", pod("n", json!({"finalizers": ["a"]})), &grace(0), r#"mark "2026-01-01T00:00:00Z" grace 0 ["a"]"#),
            ("pods", pod("n", dying.clone()), &none, "nothing"),
            ("pods", pod("n", dying.clone()), &grace(60), "nothing"),
            ("pods", pod("n", dying.clone()), &grace(5), r#"mark "2026-01-01T00:00:05Z" grace 5 null"#),
            ("pods", pod("n", dying), &grace(0), "remove"),
            ("configmaps", cm.clone(), &none, "remove"),
            (
                "configmaps",
                cm.clone(),
                &policy(Propagation::Foreground),
                r#"mark "2026-01-01T00:00:00Z" grace 0 ["foregroundDeletion"]"#,
            ),
            (
                "configmaps",
                cm.clone(),
                &policy(Propagation::Orphan),
                r#"mark "2026-01-01T00:00:00Z" grace 0 ["orphan"]"#,
            ),
            ("configmaps", cm, &policy(Propagation::Background), "remove"),
            ("configmaps", held, &none, r#"mark "2026-01-01T00:00:00Z" grace 0 ["x/y"]"#),
            (
                "namespaces",
                json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}),
                &none,
                r#"mark "2026-01-01T00:00:00Z" grace null null"#,
            ),
            ("namespaces", json!({"metadata": {"name": "n"}, "spec": {}}), &none, "remove"),
        ] {
            assert_eq!(line(kind, &object, options), want, "{kind} {object} {options:?}");
        }
    }
}
