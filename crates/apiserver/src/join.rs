//! How a machine becomes a node: it gets certificates for a token, and opens its tunnel. It knows this server before it
//! says anything: the token holds the hash of the authority, which the server shows in its chain.
//!
//! - `POST /v1-stead/join`: certificates over the caller's key, and what a node has to know of the cluster. Needs the
//!   token, or (to renew) a certificate of the same node.
//! - `GET /v1-stead/connect`, upgraded: the tunnel (see [`crate::tunnel`]). Needs a node's certificate.
//!
//! A node's name belongs to the machine that joined with it first: it shows a password of its own (as k3s has it), so
//! that nobody who has the token can take the place of a node that is there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use hyper::upgrade::OnUpgrade;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stead_admission::Lookup as _;
use stead_admission::authz::node_of;
use stead_api::kinds;
use stead_machinery::ApiError;
use stead_machinery::status::Reason;

use crate::body::ApiBody;
use crate::bootstrap;
use crate::chain::{Peer, authn, read};
use crate::objects;
use crate::pki::join::hex;
use crate::response::{self, Answer};
use crate::server::ApiServer;
use crate::tunnel::TUNNEL_PROTOCOL;

/// Where a machine joins.
pub const JOIN_PATH: &str = "/v1-stead/join";
/// Where a node opens its tunnel.
pub const CONNECT_PATH: &str = "/v1-stead/connect";
/// Longest name of a node, in bytes.
const NODE_NAME_BYTES_MAX: usize = 253;

/// What a machine sends to become a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub node_name: String,
    /// Made by the machine at its first start, the same for ever.
    pub password: String,
    /// A certificate request, PEM.
    pub request: String,
}

/// What it gets: certificates over its key (PEM), and the settings of the cluster that the server was opened with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinAnswer {
    /// The authority that servers of this cluster are known by.
    pub authority: String,
    /// `system:node:NAME`.
    pub node: String,
    /// `system:kube-proxy`.
    pub proxy: String,
    /// `system:serviceaccount:kube-system:coredns`.
    pub dns: String,
    /// `system:serviceaccount:kube-system:local-provisioner`.
    pub storage: String,
    pub cluster: Value,
}

/// Whether a path is served here.
pub(crate) fn is_ours(path: &str) -> bool {
    matches!(path, JOIN_PATH | CONNECT_PATH)
}

pub(crate) async fn serve<B>(
    server: &ApiServer,
    peer: &Peer,
    parts: &Parts,
    body: B,
    upgrade: Option<OnUpgrade>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, JOIN_PATH) => {
            let body = read(body).await?;
            let request: JoinRequest = serde_json::from_slice(&body)
                .map_err(|e| ApiError::bad_request(format!("the body is no request to join: {e}")))?;
            let answer = join(server, peer, parts, &request).await?;
            let text = serde_json::to_string(&answer).map_err(|e| ApiError::internal(&e.to_string()))?;
            Ok(response::with_type(StatusCode::OK, "application/json", ApiBody::full(text)))
        }
        (&Method::GET, CONNECT_PATH) => connect(server, peer, upgrade),
        _ => Err(crate::verbs::not_allowed()),
    }
}

/// The name of the node whose certificate the caller has.
fn certified(peer: &Peer) -> Option<&str> {
    peer.user().and_then(|user| node_of(&user.name, &user.groups))
}

async fn join(server: &ApiServer, peer: &Peer, parts: &Parts, request: &JoinRequest) -> Result<JoinAnswer, ApiError> {
    let Some(joining) = server.0.joining.get() else { return Err(ApiError::bad_request("this server takes no nodes")) };
    let name = request.node_name.as_str();
    if certified(peer) != Some(name) {
        let has_token = authn::bearer(&parts.headers).is_some_and(|secret| joining.token.opens(secret));
        if !has_token {
            return Err(ApiError::new(Reason::Unauthorized, "the token is not that of this server"));
        }
        if !is_node_name(name) {
            return Err(ApiError::bad_request(format!("{name:?} cannot be the name of a node: it is no DNS name")));
        }
        if joining.own_name.as_deref() == Some(name) || !is_owner(server, name, &request.password).await? {
            return Err(ApiError::new(
                Reason::Forbidden,
                format!(
                    "another machine is node {name:?}; give this one another --node-name, or delete that node first"
                ),
            ));
        }
    }
    let certify = |user: &str, groups: &[&str]| {
        server.pki().certify(&request.request, user, groups).map_err(|e| ApiError::bad_request(e.to_string()))
    };
    let account = |name: &str| {
        let user = format!("system:serviceaccount:kube-system:{name}");
        certify(&user, &["system:serviceaccounts:kube-system"])
    };
    Ok(JoinAnswer {
        authority: server.pki().ca_pem().to_owned(),
        node: certify(&format!("system:node:{name}"), &["system:nodes"])?,
        proxy: certify("system:kube-proxy", &[])?,
        dns: account("coredns")?,
        storage: account("local-provisioner")?,
        cluster: joining.cluster.clone(),
    })
}

fn is_node_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let inner = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= NODE_NAME_BYTES_MAX && name.split('.').all(is_part)
}

/// Whether the machine with this password may be the node: it was it before, or nobody is.
async fn is_owner(server: &ApiServer, node: &str, password: &str) -> Result<bool, ApiError> {
    let secret = format!("{node}.node-password.stead");
    let hash = STANDARD.encode(hex(&Sha256::digest(password)));
    let lookup = server.lookup();
    if let Some(known) = lookup.get("", "secrets", "kube-system", &secret) {
        let taken = lookup.get("", "nodes", "", node).is_some();
        if taken || known["data"]["hash"] == hash.as_str() {
            return Ok(known["data"]["hash"] == hash.as_str());
        }
        let kind = kinds::by_name("secrets").ok_or_else(|| ApiError::internal("there is no kind secrets"))?;
        let key = objects::key_of(kind, "kube-system", &secret);
        bootstrap::remove(server, &key).await?;
    }
    let metadata = json!({"name": secret, "namespace": "kube-system"});
    let object = json!({"metadata": metadata, "type": "Opaque", "data": {"hash": hash}});
    bootstrap::ensure(server, "secrets", object).await?;
    Ok(true)
}

/// Takes the caller's connection as the way to its node.
fn connect(server: &ApiServer, peer: &Peer, upgrade: Option<OnUpgrade>) -> Result<Answer, ApiError> {
    let node = certified(peer).ok_or_else(|| ApiError::new(Reason::Unauthorized, "only nodes connect here"))?;
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
    let (server, node) = (server.clone(), node.to_owned());
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => server.0.tunnels.run(&node, upgraded, &server.0.closing).await,
            Err(error) => tracing::debug!(node, %error, "tunnel was not opened"),
        }
    });
    let mut answer = Response::new(ApiBody::Empty);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(TUNNEL_PROTOCOL));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::is_node_name;

    #[test]
    fn names_of_nodes() {
        for (name, good) in [("a", true), ("node-1.example.com", true), ("", false), ("a..b", false), ("A", false)] {
            assert_eq!(is_node_name(name), good, "{name}");
        }
        assert!(!is_node_name("-a") && !is_node_name("a-") && !is_node_name("a/b") && !is_node_name(&"a".repeat(254)));
    }
}
