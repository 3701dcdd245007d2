//! TokenRequest: a signed token for a service account, bound to the life of an object when asked.

use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use stead_admission::Lookup as _;
use stead_machinery::decode::Target as Schema;
use stead_machinery::{ApiError, FieldErrors, Path};

use super::present;
use crate::chain::Call;
use crate::decode;
use crate::negotiate;
use crate::options::{WriteOptions, judged_as};
use crate::pki::Claims;
use crate::pki::token::{Bound, Reference};
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::verbs::Target;
use crate::verbs::write::seconds;

const DEFAULT_SECONDS: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

pub(super) async fn create(server: &ApiServer, target: &Target, call: &Call) -> Result<Answer, ApiError> {
    let form = negotiate::resource(call.headers(), &call.query, false, false)?;
    let options = WriteOptions::read("CreateOptions", &call.query, false)?;
    let schema = Schema::named("authentication.k8s.io", "v1", "TokenRequest")
        .ok_or_else(|| ApiError::internal("there is no schema of TokenRequest"))?;
    let (mut request, _) = decode::object_as(&schema, call, &options)?;
    let caller = (call.user.name.as_str(), call.user.groups.as_slice());
    let account = (target.kind, target.namespace.as_str(), target.name.as_str());
    stead_admission::node_token(caller, account, &request["spec"], &server.lookup())?;
    let account = present(server, target).await?;
    let lifetime = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    judge(lifetime)?;
    let now = crate::source::now();
    let expires = now.checked_add(SignedDuration::from_secs(lifetime)).unwrap_or(now);
    let audiences: Vec<String> = match request["spec"]["audiences"].as_array() {
        Some(list) if !list.is_empty() => list.iter().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        _ => vec![server.0.issuer.clone()],
    };
    let claims = Claims {
        aud: audiences.clone(),
        exp: expires.as_second(),
        iat: now.as_second(),
        nbf: now.as_second(),
        iss: server.0.issuer.clone(),
        jti: crate::source::uuid().to_string(),
        sub: format!("system:serviceaccount:{}:{}", target.namespace, target.name),
        kubernetes: bound(server, target, &account, &request["spec"]["boundObjectRef"])?,
    };
    let token = server.0.pki.tokens.sign(&claims).map_err(|e| ApiError::internal(&e))?;
    request["metadata"] =
        json!({"name": target.name, "namespace": target.namespace, "creationTimestamp": seconds(now)});
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = lifetime.into();
    request["status"] = json!({"token": token, "expirationTimestamp": seconds(expires)});
    Ok(response::json_value(StatusCode::CREATED, form, &request))
}

fn judge(lifetime: i64) -> Result<(), ApiError> {
    let mut errors = FieldErrors::default();
    let path = Path::new("spec").child("expirationSeconds");
    if lifetime < SECONDS_MIN {
        errors.invalid(&path, &lifetime, "may not specify a duration less than 10 minutes");
    }
    if lifetime > SECONDS_MAX {
        errors.invalid(&path, &lifetime, "may not specify a duration larger than 2^32 seconds");
    }
    judged_as("authentication.k8s.io", "TokenRequest", "", &errors)
}

/// The objects that must live for the token to hold.
fn bound(server: &ApiServer, target: &Target, account: &Value, reference: &Value) -> Result<Bound, ApiError> {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or("").to_owned();
    let mut bound = Bound {
        namespace: target.namespace.clone(),
        serviceaccount: Reference { name: target.name.clone(), uid: uid(account) },
        ..Bound::default()
    };
    if !reference.is_object() {
        return Ok(bound);
    }
    let name = reference["name"].as_str().unwrap_or("");
    let (kind, version) = (reference["kind"].as_str().unwrap_or(""), reference["apiVersion"].as_str().unwrap_or(""));
    let plural = match (version, kind) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        ("v1", "Node") => "nodes",
        _ => return Err(ApiError::bad_request(format!("cannot bind token for object of type {version}, Kind={kind}"))),
    };
    let lookup = server.lookup();
    let namespace = if plural == "nodes" { "" } else { target.namespace.as_str() };
    let object = lookup.get("", plural, namespace, name).ok_or_else(|| {
        stead_api::kinds::by_resource("", "v1", plural)
            .map_or_else(|| ApiError::internal("no such kind"), |kind| ApiError::not_found(kind, name))
    })?;
    let wanted = reference["uid"].as_str().unwrap_or("");
    if !wanted.is_empty() && wanted != uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let mut error = ApiError::conflict(target.kind, name, &why);
        error.message = format!("Operation cannot be fulfilled on {plural} {name:?}: {why}");
        return Err(error);
    }
    let found = Some(Reference { name: name.to_owned(), uid: uid(&object) });
    match plural {
        "pods" => {
            let account = object["spec"]["serviceAccountName"].as_str().unwrap_or("");
            if account != target.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    target.name
                )));
            }
            bound.pod = found;
            if let Some(node) = object["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
                let known = lookup.get("", "nodes", "", node);
                bound.node = Some(Reference { name: node.to_owned(), uid: known.map(|n| uid(&n)).unwrap_or_default() });
            }
        }
        "secrets" => bound.secret = found,
        _ => bound.node = found,
    }
    Ok(bound)
}
