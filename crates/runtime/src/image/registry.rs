//! A client of the registry protocol (OCI distribution): one endpoint, its TLS, its authorisation.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::archive::{DOCKER_LIST, DOCKER_MANIFEST, DOCUMENT_BYTES_MAX, OCI_INDEX, OCI_MANIFEST};
use super::registries::{Endpoint, HostAuth};
use super::tls;

const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// Longest silence of a registry before it counts as gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;

/// What went wrong, by what the caller does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegistryError {
    NotFound,
    Unauthorized(String),
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Registry {
    endpoint: Endpoint,
    http: HyperClient<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    credentials: Option<HostAuth>,
    /// The `Authorization` that worked.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// A `WWW-Authenticate` challenge.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Registry {
    /// `credentials` are those of the image's pull secret; those of the configuration come first.
    pub(super) fn new(endpoint: Endpoint, credentials: Option<HostAuth>) -> Result<Registry, RegistryError> {
        let config = tls::client_config(endpoint.config.tls.as_ref()).map_err(RegistryError::Failed)?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_WAIT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HyperClient::builder(TokioExecutor::new()).build(connector);
        let credentials = endpoint.config.auth.clone().or(credentials);
        Ok(Registry { endpoint, http, credentials, authorization: Mutex::default() })
    }

    /// The digest of the manifest that a tag or digest names, when the registry says it.
    pub(super) async fn resolve(&self, object: &str) -> Result<Option<String>, RegistryError> {
        let response = self.send(Method::HEAD, &self.url("manifests", object), &[]).await?;
        let digest = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        Ok(digest.map(str::to_owned))
    }

    pub(super) async fn manifest(&self, object: &str) -> Result<Bytes, RegistryError> {
        let response = self.send(Method::GET, &self.url("manifests", object), &[]).await?;
        collect(response).await
    }

    /// A blob from `offset` on; `true` when the registry begins there, otherwise it begins at the start.
    pub(super) async fn blob(&self, digest: &str, offset: u64) -> Result<(Response<Incoming>, bool), RegistryError> {
        let range = format!("bytes={offset}-");
        let headers = if offset > 0 { vec![(RANGE, range.as_str())] } else { vec![] };
        let response = self.send(Method::GET, &self.url("blobs", digest), &headers).await?;
        let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok((response, resumed || offset == 0))
    }

    fn url(&self, what: &str, object: &str) -> String {
        let endpoint = &self.endpoint;
        let mut url = format!("{}/{}/{what}/{object}", endpoint.base, endpoint.repository);
        if let Some(registry) = &endpoint.mirror_of {
            url.push_str("?ns=");
            url.push_str(registry);
        }
        url
    }

    /// Sends a request, with authorisation when it is asked for, and follows redirections.
    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
    ) -> Result<Response<Incoming>, RegistryError> {
        let authorization = self.authorization.lock().await.clone();
        let mut response = self.once(&method, url, headers, authorization.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let authorization = self.authorize(response.headers()).await?;
            response = self.once(&method, url, headers, Some(&authorization)).await?;
            *self.authorization.lock().await = Some(authorization);
        }
        let mut at = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            if !response.status().is_redirection() {
                break;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = location
                .and_then(|location| join(&at, location))
                .ok_or_else(|| RegistryError::Failed(format!("redirection from {at} without a usable Location")))?;
            // The credentials are for the registry, not for where it stores its blobs.
            response = self.once(&method, &target, headers, None).await?;
            at = target;
        }
        check(&method, &at, response)
    }

    async fn once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(USER_AGENT, concat!("stead/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, format!("{OCI_INDEX}, {DOCKER_LIST}, {OCI_MANIFEST}, {DOCKER_MANIFEST}, */*"));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|error| RegistryError::Failed(format!("{url}: {error}")))?;
        let failed = |cause: String| {
            let verb = if method == Method::HEAD { "Head" } else { "Get" };
            RegistryError::Failed(format!("failed to do request: {verb} {url:?}: {cause}"))
        };
        match tokio::time::timeout(SILENCE_MAX, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(cause(&error, url))),
            Err(_) => Err(failed("net/http: timeout awaiting response headers".to_owned())),
        }
    }

    async fn authorize(&self, headers: &HeaderMap) -> Result<HeaderValue, RegistryError> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenges.filter_map(parse_challenge).next();
        let text = match challenge {
            Some(Challenge::Bearer { realm, service, scope }) => {
                format!("Bearer {}", self.token(&realm, &service, &scope).await?)
            }
            Some(Challenge::Basic) => {
                let basic = self.credentials.as_ref().and_then(basic);
                basic.ok_or_else(|| denied("authorization failed: no basic auth credentials"))?
            }
            None => return Err(denied("authorization failed: no usable challenge")),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| denied("authorization failed: the token is not a header value"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(&self, realm: &str, service: &str, scope: &str) -> Result<String, RegistryError> {
        let default_scope = format!("repository:{}:pull", self.endpoint.repository);
        let scope = if scope.is_empty() { &default_scope } else { scope };
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}service={}&scope={}", encode(service), encode(scope));
        let basic = self.credentials.as_ref().and_then(basic).and_then(|text| HeaderValue::from_str(&text).ok());
        let response = self.once(&Method::GET, &url, &[], basic.as_ref()).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let kind = if basic.is_some() { "oauth" } else { "anonymous" };
            let status = response.status();
            return Err(RegistryError::Unauthorized(format!(
                "failed to authorize: failed to fetch {kind} token: unexpected status from GET request to {url}: {status}"
            )));
        }
        let bytes = collect(check(&Method::GET, &url, response)?).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|error| RegistryError::Failed(format!("bad token from {realm}: {error}")))?;
        Ok(if token.token.is_empty() { token.access_token } else { token.token })
    }
}

fn check(method: &Method, url: &str, response: Response<Incoming>) -> Result<Response<Incoming>, RegistryError> {
    let status = response.status();
    match status {
        _ if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(RegistryError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(denied("server message: insufficient_scope: authorization failed"))
        }
        _ => Err(RegistryError::Failed(format!("unexpected status from {method} request to {url}: {status}"))),
    }
}

/// containerd's words for what a registry does not let one see.
fn denied(why: &str) -> RegistryError {
    RegistryError::Unauthorized(format!(
        "pull access denied, repository does not exist or may require authorization: {why}"
    ))
}

fn basic(auth: &HostAuth) -> Option<String> {
    if !auth.auth.is_empty() {
        return Some(format!("Basic {}", auth.auth));
    }
    let password = if auth.password.is_empty() { &auth.identity_token } else { &auth.password };
    let pair = format!("{}:{password}", auth.username);
    (!auth.username.is_empty()).then(|| format!("Basic {}", BASE64.encode(pair)))
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, RegistryError> {
    let body = http_body_util::Limited::new(response.into_body(), DOCUMENT_BYTES_MAX as usize);
    match tokio::time::timeout(SILENCE_MAX, body.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) => Err(RegistryError::Failed(format!("cannot read the registry's answer: {error}"))),
        Err(_) => Err(RegistryError::Failed("the registry went silent".to_owned())),
    }
}

/// The cause of a request that did not get through, in Go's words where users know them.
fn cause(error: &hyper_util::client::legacy::Error, url: &str) -> String {
    let uri: Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or("");
    let mut text = Vec::new();
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = next {
        let message = inner.to_string();
        if message.contains("dns error") {
            return format!("dial tcp: lookup {host}: no such host");
        }
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && let Some(code) = io.raw_os_error()
        {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            let words = nix::errno::Errno::from_raw(code).desc().to_lowercase();
            return format!("dial tcp {host}:{port}: connect: {words}");
        }
        text.push(message);
        next = inner.source();
    }
    text.dedup();
    text.join(": ")
}

/// Where a `Location` leads from `base`.
fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    let host = rest.split('/').next()?;
    location.starts_with('/').then(|| format!("{scheme}://{host}{location}"))
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn parse_challenge(text: &str) -> Option<Challenge> {
    let (scheme, parameters) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |name: &str| {
        let at = parameters.find(&format!("{name}=\""))? + name.len() + 2;
        parameters[at..].split('"').next().map(str::to_owned)
    };
    let realm = value("realm")?;
    Some(Challenge::Bearer {
        realm,
        service: value("service").unwrap_or_default(),
        scope: value("scope").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: "registry".to_owned(),
            scope: "repository:a/b:pull,push".to_owned(),
        };
        let text = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push""#;
        assert_eq!(parse_challenge(text), Some(bearer));
        assert_eq!(parse_challenge("basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(parse_challenge("Negotiate"), None);
        assert_eq!(parse_challenge("Bearer service=\"x\""), None);
    }

    #[test]
    fn locations() {
        let base = "https://a.example:5000/v2/x/blobs/y";
        assert_eq!(join(base, "/z?q=1"), Some("https://a.example:5000/z?q=1".to_owned()));
        assert_eq!(join(base, "http://b/z"), Some("http://b/z".to_owned()));
        assert_eq!(join(base, "z"), None);
    }
}
