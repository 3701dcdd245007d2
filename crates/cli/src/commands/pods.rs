//! Which pod and which container a command is about: shared by exec, attach, logs, cp and port-forward.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/polymorphichelpers`, `k8s.io/kubectl/pkg/cmd/util/podcmd`.

use std::rc::Rc;

use serde_json::Value;

use crate::builder::{Found, Named, understand};
use crate::describe::selector_text;
use crate::failure::{Failure, Result, plain};
use crate::print::{at, list};
use crate::resources::Resource;
use crate::session::Session;

/// The container that commands take when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod of a name, or the one that `type/name` stands for. `told` says which when there are several.
pub(crate) async fn pod(session: &Session, word: &str, told: bool) -> Result<Found> {
    let pods = session.kind("", "Pod").await?;
    let named = match word.contains('/') {
        true => understand(&*session.resources().await?, &[word.to_owned()])?.remove(0),
        false => Named { resource: pods.clone(), name: Some(word.to_owned()) },
    };
    let name = named.name.unwrap_or_default();
    let namespace = session.namespace().await?;
    let server = session.server().await?;
    let read = server.get(&named.resource.object_path(Some(namespace), &name)).await;
    let object = match read {
        Ok(object) => object,
        Err(failure) => return Err(crate::builder::absent(session, Some(namespace), failure).await),
    };
    let found = |object: Value| Found {
        resource: Rc::clone(&pods),
        namespace: Some(namespace.to_owned()),
        name: at(&object, "/metadata/name").to_owned(),
        object,
        source: String::new(),
    };
    if named.resource.is("", "Pod") {
        return Ok(found(object));
    }
    let mut all = pods_of(session, namespace, &named.resource, &object, told).await?;
    if all.is_empty() {
        return plain(format!("timed out waiting for the condition: no pod of {}", named.resource.named(&name)));
    }
    let count = all.len();
    let first = found(all.swap_remove(0));
    if told && count > 1 {
        session.err(&format!("Found {count} pods, using pod/{}\n", first.name));
    }
    Ok(first)
}

/// The kinds that select pods.
const SELECTING: [&str; 7] =
    ["DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "Service", "StatefulSet"];

/// The pods that an object selects, the one to take first: those that run longest before others. `logs`: what they are wanted for.
async fn pods_of(
    session: &Session,
    namespace: &str,
    resource: &Resource,
    object: &Value,
    logs: bool,
) -> Result<Vec<Value>> {
    let selector = selector_of(resource, object).map_err(|why| {
        let goal = if logs { "cannot get the logs from" } else { "cannot attach to" };
        Failure::Plain(format!("{goal} *{}.{}: {why}", resource.version, resource.kind))
    })?;
    let pods = session.kind("", "Pod").await?;
    let query = [("labelSelector", selector)];
    let answer = session.server().await?.list(&pods.path(Some(namespace)), &query, "application/json").await?;
    let mut all = list(&answer, "/items").to_vec();
    all.sort_by_key(rank);
    Ok(all)
}

/// The selector of an object's pods, or why it has none.
fn selector_of(resource: &Resource, object: &Value) -> std::result::Result<String, String> {
    let kind = &*resource.kind;
    if !SELECTING.contains(&kind) {
        return Err(format!("selector for *{}.{kind} not implemented", resource.version));
    }
    let selector = match kind {
        "Service" | "ReplicationController" => crate::print::pairs(&object["spec"]["selector"]).join(","),
        _ => selector_text(&object["spec"]["selector"]),
    };
    if selector.is_empty() {
        let (kind, name) = (kind.to_lowercase(), at(object, "/metadata/name"));
        return Err(format!("invalid {kind} '{name}': {} is defined without a selector", resource.kind));
    }
    Ok(selector)
}

/// Smaller is better: scheduled, running, ready, older.
fn rank(pod: &Value) -> (bool, u8, bool, String) {
    let phase = match at(pod, "/status/phase") {
        "Running" => 0,
        "Pending" => 2,
        _ => 1,
    };
    let ready = list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    (at(pod, "/spec/nodeName").is_empty(), phase, !ready, at(pod, "/metadata/creationTimestamp").to_owned())
}

/// The container to use. Says which when it had to choose.
pub(crate) fn container(session: &Session, pod: &Value, wanted: Option<&str>, quiet: bool) -> Result<String> {
    match choose(pod, wanted) {
        Ok((name, told)) => {
            if let (Some(told), false) = (told, quiet) {
                session.err(&told);
            }
            Ok(name)
        }
        Err(text) => plain(text),
    }
}

fn choose(pod: &Value, wanted: Option<&str>) -> std::result::Result<(String, Option<String>), String> {
    let of = |field: &str, mark: &'static str| {
        let names = list(pod, &format!("/spec/{field}")).iter().map(|c| (at(c, "/name").to_owned(), mark));
        names.collect::<Vec<_>>()
    };
    let all: Vec<(String, &str)> =
        [of("containers", ""), of("initContainers", " (init)"), of("ephemeralContainers", " (ephem)")].concat();
    let shown = || all.iter().map(|(name, mark)| format!("{name}{mark}")).collect::<Vec<_>>().join(", ");
    let known = |wanted: &str| all.iter().any(|(name, _)| name == wanted);
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        return match known(wanted) {
            true => Ok((wanted.to_owned(), None)),
            false => Err(format!(
                "container {wanted} not found in pod {}_{}",
                at(pod, "/metadata/name"),
                at(pod, "/metadata/namespace")
            )),
        };
    }
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().filter(|name| known(name));
    if let Some(name) = annotated {
        return Ok((name.to_owned(), None));
    }
    let Some((first, _)) = all.first() else { return Err("Pod has no containers".into()) };
    let told = (all.len() > 1).then(|| format!("Defaulted container {first:?} out of: {}\n", shown()));
    Ok((first.clone(), told))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_container_is_taken_and_told_unless_the_pod_says_which() {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(
            choose(&pod, None),
            Ok(("c".into(), Some("Defaulted container \"c\" out of: c, i (init)\n".into())))
        );
        assert_eq!(choose(&pod, Some("i")), Ok(("i".into(), None)));
        assert_eq!(choose(&pod, Some("x")), Err("container x not found in pod p_n".into()));
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "i"});
        assert_eq!(choose(&pod, None), Ok(("i".into(), None)));
    }
}
