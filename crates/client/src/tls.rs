//! TLS to an API server of another machine: credentials that can be renewed while connections are open, and an authority
//! that is known by its hash.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{Request, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::Body;
pub use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::ServiceExt as _;

use crate::Client;

/// A connection of one's own.
pub type Stream = TlsStream<TcpStream>;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After this long without traffic the other end is asked whether it lives, by TCP ...
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// ... and data that nobody has received after this long ends the connection.
const UNANSWERED_MAX: Duration = Duration::from_secs(30);

/// Something that TLS needs is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TlsError {
    pub what: &'static str,
    pub why: String,
}

fn bad(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> TlsError {
    move |why| TlsError { what, why: why.to_string() }
}

/// A client certificate with its key, which may be replaced: connections that are made from then on show the new one.
#[derive(Debug)]
pub struct Credentials(parking_lot::RwLock<Arc<CertifiedKey>>);

impl Credentials {
    /// # Errors
    /// When the texts are not a certificate and its key, PEM.
    pub fn new(cert_pem: &str, key_pem: &str) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(parking_lot::RwLock::new(certified(cert_pem, key_pem)?))))
    }

    /// # Errors
    /// As [`Credentials::new`]; the old ones stay then.
    pub fn replace(&self, cert_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        *self.0.write() = certified(cert_pem, key_pem)?;
        Ok(())
    }
}

impl rustls::client::ResolvesClientCert for Credentials {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certified(cert_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, TlsError> {
    let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|e| bad("client certificate")(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| bad("client key")(&e))?;
    let key = CertifiedKey::from_der(vec![cert], key, &provider()).map_err(|e| bad("client certificate")(&e))?;
    Ok(Arc::new(key))
}

/// TLS to servers that the authority (PEM) vouches for, with these credentials.
///
/// # Errors
/// When the authority's text is not a certificate.
pub fn config(ca_pem: &str, credentials: Arc<Credentials>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|e| bad("authority")(&e))?;
    roots.add(ca).map_err(|e| bad("authority")(&e))?;
    let mut config = versions()?.with_root_certificates(roots).with_client_cert_resolver(credentials);
    // A resumed session would go on with the credentials of the first one.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// TLS without credentials to a server whose chain ends in the authority with this hash (SHA-256 of its DER, lower-case
/// hexadecimal). Without a hash any authority that the server shows is believed.
///
/// # Errors
/// Never with the provider that is built in.
pub fn config_by_hash(hash: Option<String>) -> Result<ClientConfig, TlsError> {
    let verifier = Arc::new(KnownByHash { hash, provider: provider() });
    Ok(versions()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn versions() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| bad("TLS")(&e))
}

#[derive(Debug)]
struct KnownByHash {
    hash: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl KnownByHash {
    fn authority<'a>(&self, chain: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        let Some(hash) = &self.hash else { return chain.last() };
        let of = |cert: &CertificateDer<'_>| -> String {
            Sha256::digest(cert).iter().map(|byte| format!("{byte:02x}")).collect()
        };
        chain.iter().find(|cert| of(cert) == *hash)
    }
}

impl ServerCertVerifier for KnownByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = self.authority(intermediates).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why the other end of a connection is not who it should be: trying again does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// It is known by another authority.
    Authority,
    /// The authority vouches for it, but not under the name by which it was called.
    Name,
}

/// Whether a connection failed because of who answered.
#[must_use]
pub fn stranger(error: &io::Error) -> Option<Stranger> {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>())? {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(Stranger::Name),
        rustls::Error::InvalidCertificate(_) => Some(Stranger::Authority),
        _ => None,
    }
}

/// Where a server is: `https://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    authority: Authority,
}

impl Server {
    /// # Errors
    /// When the text is not of that form.
    pub fn parse(url: &str) -> Result<Self, TlsError> {
        let wrong = || TlsError { what: "server", why: format!("{url:?} is not of the form https://HOST:PORT") };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain = uri.path().trim_end_matches('/').is_empty() && uri.query().is_none();
        if uri.scheme() != Some(&Scheme::HTTPS) || !plain {
            return Err(wrong());
        }
        Ok(Self { authority: uri.authority().cloned().ok_or_else(wrong)? })
    }

    fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(443)
    }

    /// Its name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    /// Opens a connection of one's own.
    ///
    /// # Errors
    /// When nobody answers, or the server is not who it should be.
    pub async fn dial(&self, config: Arc<ClientConfig>) -> io::Result<Stream> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("{} does not answer", self.authority));
        let dialed = async {
            let stream = TcpStream::connect((self.host(), self.port())).await?;
            self.handshake(stream, config).await
        };
        tokio::time::timeout(CONNECT_TIMEOUT, dialed).await.map_err(late)?
    }

    /// Speaks TLS over a connection that is there.
    ///
    /// # Errors
    /// When the other end is not who it should be (see [`stranger`]).
    pub async fn handshake(&self, stream: TcpStream, config: Arc<ClientConfig>) -> io::Result<Stream> {
        let name = ServerName::try_from(self.host().to_owned()).map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        TlsConnector::from(config).connect(name, stream).await
    }
}

/// A client that speaks HTTP/1.1 over TLS. A connection that dies is noticed within half a minute.
#[must_use]
pub fn client(server: &Server, config: ClientConfig) -> Client {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    tcp.set_tcp_user_timeout(Some(UNANSWERED_MAX));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let authority = server.authority.clone();
    let service = http.map_request(move |mut request: Request<Body>| {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        (parts.scheme, parts.authority) = (Some(Scheme::HTTPS), Some(authority.clone()));
        // Scheme, authority and the path that was there always make a URI; a request without a path would fail below.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn where_a_server_is() {
        let of = |url: &str| Server::parse(url).map(|server| (server.host().to_owned(), server.port())).ok();
        for (url, expected) in [
            ("https://10.0.0.1:6443", Some(("10.0.0.1", 6443))),
            ("https://a.example.com/", Some(("a.example.com", 443))),
            ("https://[::1]:6443", Some(("::1", 6443))),
            ("http://10.0.0.1:6443", None),
            ("10.0.0.1:6443", None),
            ("https://a/path", None),
            ("", None),
        ] {
            assert_eq!(of(url), expected.map(|(host, port)| (host.to_owned(), port)), "{url}");
        }
    }
}
