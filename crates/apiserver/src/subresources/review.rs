//! Reviews: questions that are posted and answered, never stored. Who am I, what may I, whose token is this.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};
use stead_admission::Lookup as _;
use stead_machinery::ApiError;

use super::binding;
use crate::chain::authz::{self, Attributes};
use crate::chain::{Call, Identity, authn};
use crate::decode;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::verbs::Target;

/// Answers a posted question.
pub(crate) async fn review(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    if target.kind.kind == "Binding" {
        return bind_by_body(server, target, call).await;
    }
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let (mut object, warnings) = decode::object(target.kind, call, &options)?;
    let status = match target.kind.kind {
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            access(server, &named_user(&object["spec"]), &object["spec"])?
        }
        "SelfSubjectAccessReview" => access(server, &call.user, &object["spec"])?,
        "SelfSubjectRulesReview" => rules(server, &call.user, object["spec"]["namespace"].as_str().unwrap_or("")),
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "TokenReview" => token(server, &object["spec"]),
        other => return Err(ApiError::internal(&format!("{other} is not answered by this server"))),
    };
    object["status"] = status;
    let mut answer = response::json_value(StatusCode::CREATED, form, &object);
    response::warn(answer.headers_mut(), &warnings);
    Ok(answer)
}

/// The old way to bind: the pod is named in the body.
async fn bind_by_body(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let (object, _) = decode::object(target.kind, call, &options)?;
    let kind = stead_api::kinds::by_resource("", "v1", "pods").ok_or_else(|| ApiError::internal("no pods"))?;
    let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let pod = Target { kind, namespace: target.namespace.clone(), name };
    binding::create(server, &pod, call).await
}

fn named_user(spec: &Value) -> Identity {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let extra: BTreeMap<String, Vec<String>> =
        spec["extra"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), texts(v))).collect();
    let text = |key: &str| spec[key].as_str().unwrap_or("").to_owned();
    Identity { name: text("user"), uid: text("uid"), groups: texts(&spec["groups"]), extra }
}

fn access(server: &ApiServer, user: &Identity, spec: &Value) -> Result<Value, ApiError> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or("").to_owned();
    if resource.is_object() == path.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        return Err(ApiError::bad_request(why));
    }
    let verb = text(if resource.is_object() { resource } else { path }, "verb");
    let [group, namespace, plural, sub, name] =
        ["group", "namespace", "resource", "subresource", "name"].map(|key| text(resource, key));
    let url = text(path, "path");
    let decision = authz::decide(
        server,
        user,
        &Attributes {
            verb: &verb,
            group: &group,
            namespace: &namespace,
            // An empty resource would be taken for a path.
            resource: if resource.is_object() && plural.is_empty() { "-" } else { &plural },
            subresource: &sub,
            name: &name,
            selector: "",
            path: &url,
        },
    );
    let mut status = json!({"allowed": decision.allowed()});
    let (stead_admission::authz::Decision::Allow(why) | stead_admission::authz::Decision::NoOpinion(why)) = decision;
    if !why.is_empty() {
        status["reason"] = why.into();
    }
    Ok(status)
}

/// Every rule that is bound to the user in a namespace.
fn rules(server: &ApiServer, user: &Identity, namespace: &str) -> Value {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let lookup = server.lookup();
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.groups.iter().any(|g| g == stead_admission::authz::SUPERUSERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    let cluster = lookup.list(GROUP, "clusterrolebindings", None);
    let local = lookup.list(GROUP, "rolebindings", Some(namespace));
    let here = |binding: &Value| binding["kind"] == "RoleBinding";
    for binding in cluster.iter().chain(&local) {
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        if !subjects.into_iter().any(|subject| means(subject, user)) {
            continue;
        }
        let name = binding["roleRef"]["name"].as_str().unwrap_or("");
        let role = match binding["roleRef"]["kind"].as_str() {
            Some("ClusterRole") => lookup.get(GROUP, "clusterroles", "", name),
            _ => lookup.get(GROUP, "roles", namespace, name),
        };
        for rule in role.iter().flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
            if rule["resources"].is_array() {
                resources.push(rule.clone());
            } else if !here(binding) {
                paths.push(rule.clone());
            }
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn means(subject: &Value, user: &Identity) -> bool {
    let name = subject["name"].as_str().unwrap_or("");
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|g| g == name),
        Some("ServiceAccount") => {
            user.name == format!("system:serviceaccount:{}:{name}", subject["namespace"].as_str().unwrap_or(""))
        }
        _ => false,
    }
}

fn user_info(user: &Identity) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.clone().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.clone().into());
    }
    info.insert("groups".into(), user.groups.clone().into());
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

fn token(server: &ApiServer, spec: &Value) -> Value {
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    match authn::of_token(server, spec["token"].as_str().unwrap_or(""), Some(&audiences)) {
        Some(user) => {
            let audiences = if audiences.is_empty() { vec![server.0.issuer.clone()] } else { audiences };
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        None => json!({"user": {}, "error": "invalid bearer token"}),
    }
}
