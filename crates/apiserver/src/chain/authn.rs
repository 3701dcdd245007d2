//! Who makes a request: client certificate, bearer token, or nobody; and whom they speak for.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use stead_admission::Lookup as _;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authz::{self, Attributes};
use super::{Identity, Peer};
use crate::pki::Claims;
use crate::pki::token::Reference;
use crate::server::ApiServer;

/// Tokens whose signature was checked already. When there are more, all are forgotten.
const TOKENS_MAX: usize = 4096;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// Claims by the hash of a token with a valid signature. Expiry and bound objects are looked at every time.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<HashMap<[u8; 32], Arc<Claims>>>);

/// The user that a client certificate names: CN, groups in O.
pub(crate) fn of_certificate(der: &[u8]) -> Option<Identity> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<&str> = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(Identity::new(&name, &groups))
}

/// Who the request comes from.
///
/// # Errors
/// Unauthorized (401) for credentials that do not hold.
pub(crate) fn authenticate(server: &ApiServer, peer: &Peer, headers: &HeaderMap) -> Result<Arc<Identity>, ApiError> {
    match peer {
        Peer::InProcess(user) | Peer::Tls(Some(user)) => Ok(user.clone()),
        Peer::Tls(None) => match bearer(headers) {
            Some(token) => of_token(server, token, None).map(Arc::new).ok_or_else(unauthorized),
            None if headers.contains_key(header::AUTHORIZATION) => Err(unauthorized()),
            None => Ok(Arc::new(Identity::anonymous())),
        },
    }
}

fn unauthorized() -> ApiError {
    ApiError::new(Reason::Unauthorized, "Unauthorized")
}

/// The bearer token: in the Authorization header, or among WebSocket protocols as browsers send it.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

/// The service account that a token speaks for. `audiences`: what the token must be meant for (`None`: this server).
pub(crate) fn of_token(server: &ApiServer, token: &str, audiences: Option<&[String]>) -> Option<Identity> {
    let claims = verified(server, token)?;
    let own = [server.0.issuer.clone()];
    let wanted = audiences.filter(|a| !a.is_empty()).unwrap_or(&own);
    if !claims.aud.iter().any(|aud| wanted.contains(aud)) {
        return None;
    }
    let bound = &claims.kubernetes;
    let lookup = server.lookup();
    let lives = |plural: &str, namespace: &str, reference: &Reference| {
        lookup.get("", plural, namespace, &reference.name).is_some_and(|o| o["metadata"]["uid"] == reference.uid)
    };
    let namespace = bound.namespace.as_str();
    let account = &bound.serviceaccount;
    let live = lives("serviceaccounts", namespace, account)
        && bound.pod.as_ref().is_none_or(|pod| lives("pods", namespace, pod))
        && bound.secret.as_ref().is_none_or(|secret| lives("secrets", namespace, secret));
    if !live {
        return None;
    }
    let mut user = Identity::new(
        &format!("system:serviceaccount:{namespace}:{}", account.name),
        &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
    );
    user.uid.clone_from(&account.uid);
    let mut extra = |key: &str, value: &str| user.extra.insert(key.to_owned(), vec![value.to_owned()]);
    if let Some(pod) = &bound.pod {
        extra(POD_NAME, &pod.name);
        extra(POD_UID, &pod.uid);
    }
    if let Some(node) = &bound.node {
        extra(NODE_NAME, &node.name);
        extra(NODE_UID, &node.uid);
    }
    if !claims.jti.is_empty() {
        extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    Some(user)
}

/// The claims of a token that this server signed and that has not expired.
fn verified(server: &ApiServer, token: &str) -> Option<Arc<Claims>> {
    let now = crate::source::now().as_second();
    let hash: [u8; 32] = Sha256::digest(token).into();
    let cache = &server.0.tokens.0;
    if let Some(claims) = cache.lock().get(&hash) {
        return (now < claims.exp).then(|| claims.clone());
    }
    let claims = Arc::new(server.0.pki.tokens.verify(token, &server.0.issuer, now)?);
    let mut cache = cache.lock();
    if cache.len() >= TOKENS_MAX {
        cache.clear();
    }
    cache.insert(hash, claims.clone());
    Some(claims)
}

/// Whom a request speaks for.
pub(crate) enum Impersonation {
    None,
    As(Arc<Identity>),
    /// Groups or extras without a user.
    Nonsense(String),
}

/// Reads the impersonation headers and asks whether the caller may use them.
///
/// # Errors
/// Forbidden (403) when they may not.
pub(crate) fn impersonated(
    server: &ApiServer,
    caller: &Arc<Identity>,
    headers: &HeaderMap,
) -> Result<Impersonation, ApiError> {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let name = texts("impersonate-user").into_iter().next().unwrap_or_default();
    let mut groups = texts("impersonate-group");
    if name.is_empty() {
        return Ok(match groups.first() {
            Some(group) => {
                Impersonation::Nonsense(format!("requested [{{Group  {group}    }}] without impersonating a user"))
            }
            None => Impersonation::None,
        });
    }
    let mut user = Identity { name, ..Identity::default() };
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        authz::check(
            server,
            caller,
            &Attributes { verb: "impersonate", group, namespace, resource, subresource, name, ..Attributes::default() },
        )
    };
    match user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            may("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        None => may("", "users", "", "", &user.name)?,
    }
    for group in texts("impersonate-group") {
        may("", "groups", "", "", &group)?;
    }
    for (key, value) in headers {
        let Some(extra) = key.as_str().strip_prefix("impersonate-extra-") else { continue };
        let value = value.to_str().unwrap_or("").to_owned();
        may("authentication.k8s.io", "userextras", extra, "", &value)?;
        user.extra.entry(extra.to_owned()).or_default().push(value);
    }
    if let Some(uid) = texts("impersonate-uid").pop() {
        may("authentication.k8s.io", "uids", "", "", &uid)?;
        user.uid = uid;
    }
    let anonymous = user.name == "system:anonymous";
    groups.push(if anonymous { "system:unauthenticated" } else { "system:authenticated" }.to_owned());
    groups.dedup();
    user.groups = groups;
    Ok(Impersonation::As(Arc::new(user)))
}
