//! The cluster's own certificate authority, serving and client certificates, and the service-account signing key.
//!
//! Everything lives in one directory, private keys with mode 600. Opening it again finds the same authority: only leaf
//! certificates are issued anew, when they are about to expire or when their names changed. A file that is there but
//! cannot be read as what it should be is an error, never silently replaced: clients trust the old one.

mod files;
mod issue;
pub mod join;
pub mod token;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use join::JoinToken;
pub use token::{Claims, TokenKey};

/// Who the administrator's certificate speaks for: upstream's super-user group passes authorisation.
const ADMIN_USER: &str = "system:admin";
const ADMIN_GROUP: &str = "system:masters";

/// Why the certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} is not a usable {what}: {why}; restore it from a backup, or remove the whole directory {dir} to start with a new authority (all clients then need new kubeconfigs)"
    )]
    Broken { path: PathBuf, dir: PathBuf, what: &'static str, why: String },
    #[error("cannot issue the certificate for {name}: {why}")]
    Issue { name: String, why: String },
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority and what it issued for this server.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    pub server: Pair,
    pub admin: Pair,
    pub tokens: Arc<TokenKey>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Pki {
    /// Opens the directory, making what is not there yet. `names` and `addresses` are what the server is called.
    ///
    /// # Errors
    /// When the directory cannot be written, or holds a file that is not what it should be.
    pub fn open(dir: &Path, names: &[String], addresses: &[IpAddr]) -> Result<Self, PkiError> {
        files::make_dir(dir)?;
        let ca = match files::read_pair(dir, "ca")? {
            Some(pair) => pair,
            None => files::write_pair(dir, "ca", issue::authority()?)?,
        };
        let issuer = issuer_of(dir, &ca)?;
        let sans = issue::subject_alt_names(names, addresses);
        let server = leaf(dir, "server", &issuer, &sans, || issue::server(&sans))?;
        let admin = leaf(dir, "admin", &issuer, &[], || Ok(issue::client(ADMIN_USER, &[ADMIN_GROUP])))?;
        let tokens = Arc::new(open_token_key(dir)?);
        Ok(Self { dir: dir.to_owned(), ca_pem: ca.cert_pem, issuer, server, admin, tokens })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's certificate, DER.
    ///
    /// # Errors
    /// When the stored certificate is not PEM (checked when opened).
    pub fn ca_der(&self) -> Result<CertificateDer<'static>, PkiError> {
        CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|e| self.broken("ca.crt", "certificate", &e))
    }

    /// A new client certificate for `user` in `groups`, valid for a year.
    ///
    /// # Errors
    /// When the certificate cannot be signed.
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<Pair, PkiError> {
        issue::sign(&self.issuer, user, issue::client(user, groups))
    }

    /// A new serving certificate for a node (`system:node:NAME`), valid for a year as server and as client.
    ///
    /// # Errors
    /// When a name is not a DNS name, or the certificate cannot be signed.
    pub fn issue_node(&self, node: &str, names: &[String], addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        let mut params = issue::server(&issue::subject_alt_names(names, addresses))?;
        let user = format!("system:node:{node}");
        params.distinguished_name = issue::subject(&user, &["system:nodes"]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        issue::sign(&self.issuer, &user, params)
    }

    /// Chain and key for the TLS listener.
    ///
    /// # Errors
    /// When the stored files are not PEM.
    pub fn server_identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let cert = CertificateDer::from_pem_slice(self.server.cert_pem.as_bytes())
            .map_err(|e| self.broken("server.crt", "certificate", &e))?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes())
            .map_err(|e| self.broken("server.key", "private key", &e))?;
        Ok((vec![cert, self.ca_der()?], key))
    }

    fn broken(&self, file: &str, what: &'static str, why: &dyn std::fmt::Display) -> PkiError {
        files::broken(&self.dir, file, what, why)
    }
}

fn issuer_of(dir: &Path, ca: &Pair) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let key = KeyPair::from_pem(&ca.key_pem).map_err(|e| files::broken(dir, "ca.key", "private key", &e))?;
    issue::check_key(&ca.cert_pem, &key).map_err(|why| files::broken(dir, "ca.crt", "certificate", &why))?;
    Issuer::from_ca_cert_pem(&ca.cert_pem, key).map_err(|e| files::broken(dir, "ca.crt", "certificate", &e))
}

/// The stored leaf certificate while it serves, or a new one.
fn leaf(
    dir: &Path,
    name: &str,
    issuer: &Issuer<'static, KeyPair>,
    sans: &[String],
    params: impl FnOnce() -> Result<CertificateParams, PkiError>,
) -> Result<Pair, PkiError> {
    if let Some(pair) = files::read_pair(dir, name)? {
        let key = KeyPair::from_pem(&pair.key_pem)
            .map_err(|e| files::broken(dir, &format!("{name}.key"), "private key", &e))?;
        issue::check_key(&pair.cert_pem, &key)
            .map_err(|why| files::broken(dir, &format!("{name}.crt"), "certificate", &why))?;
        if issue::still_serves(&pair.cert_pem, issuer, sans) {
            return Ok(pair);
        }
    }
    files::write_pair(dir, name, issue::sign(issuer, name, params()?)?)
}

fn open_token_key(dir: &Path) -> Result<TokenKey, PkiError> {
    let file = "sa.key";
    let pem = match files::read(dir, file)? {
        Some(pem) => pem,
        None => {
            let key = KeyPair::generate()
                .map_err(|e| PkiError::Issue { name: "service account tokens".into(), why: e.to_string() })?;
            files::write_secret(dir, file, &key.serialize_pem())?;
            key.serialize_pem()
        }
    };
    TokenKey::from_pem(&pem).map_err(|why| files::broken(dir, file, "private key", &why))
}
