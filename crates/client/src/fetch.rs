//! A file of a web server, over HTTP or HTTPS with the machine's own authorities.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

/// How many redirections are followed.
const REDIRECTS_MAX: usize = 10;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a server answered.
#[derive(Debug)]
pub struct Fetched {
    pub code: u16,
    /// The words beside the code.
    pub reason: String,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is no URL: {1}")]
    Url(String, String),
    #[error("{0} refused the connection")]
    Refused(String),
    #[error("{0}")]
    Failed(String),
}

/// Reads a URL, following redirections. An answer of more than `limit_bytes` is an error.
///
/// # Errors
/// When the URL is none, when nobody answers or the answer breaks off. That the server refuses is no error.
pub async fn fetch(url: &str, limit_bytes: u64) -> Result<Fetched, FetchError> {
    crate::install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(connector);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let mut at = url.to_owned();
    for _ in 0..=REDIRECTS_MAX {
        let uri: Uri =
            at.parse().map_err(|error: http::uri::InvalidUri| FetchError::Url(at.clone(), error.to_string()))?;
        let host = uri.authority().map(ToString::to_string).unwrap_or_default();
        if host.is_empty() {
            return Err(FetchError::Failed("http: no Host in request URL".to_owned()));
        }
        let request = Request::get(uri).header("user-agent", "stead").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| FetchError::Url(at.clone(), error.to_string()))?;
        let response = client.request(request).await.map_err(|error| failed(&error, &host))?;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let target = location.filter(|_| response.status().is_redirection()).and_then(|location| join(&at, location));
        match target {
            Some(target) => at = target,
            None => return read(response, limit_bytes).await,
        }
    }
    Err(FetchError::Failed(format!("Get {url:?}: stopped after {REDIRECTS_MAX} redirects")))
}

async fn read(response: Response<Incoming>, limit_bytes: u64) -> Result<Fetched, FetchError> {
    let status = response.status();
    let reason = match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(phrase) => String::from_utf8_lossy(phrase.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body = body.map_err(|error| FetchError::Failed(format!("the answer cannot be read: {error}")))?;
    Ok(Fetched { code: status.as_u16(), reason, body: body.to_bytes().to_vec() })
}

/// Where a redirection leads to.
fn join(base: &str, location: &str) -> Option<String> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if location.starts_with('/') {
        return Some(format!("{scheme}://{host}{location}"));
    }
    let directory = path.rsplit_once('/').map_or(String::new(), |(directory, _)| format!("{directory}/"));
    Some(format!("{scheme}://{host}/{directory}{location}"))
}

/// The innermost cause, in Go's words where they are known.
fn failed(error: &hyper_util::client::legacy::Error, host: &str) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = error.source();
    let mut last = error.to_string();
    while let Some(inner) = cause {
        let io = inner.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return FetchError::Refused(host.to_owned());
        }
        last = inner.to_string();
        cause = inner.source();
    }
    if last.contains("failed to lookup address") {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        return FetchError::Failed(format!("dial tcp: lookup {name}: no such host"));
    }
    FetchError::Failed(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_followed_as_a_browser_does() {
        for (base, location, wanted) in [
            ("http://a/b/c", "https://d/e", "https://d/e"),
            ("http://a/b/c", "/e", "http://a/e"),
            ("http://a/b/c", "e", "http://a/b/e"),
            ("http://a", "e", "http://a/e"),
        ] {
            assert_eq!(join(base, location).as_deref(), Some(wanted));
        }
    }
}
