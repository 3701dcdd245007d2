//! What lets a machine become a node: the join token, and certificates for keys that stay on that machine.

use std::path::Path;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};
use sha2::{Digest as _, Sha256};

use super::{Pki, PkiError, files, issue};

/// How long a node's certificates hold: they are renewed long before.
pub const NODE_HOURS: i64 = 24;
/// Random bytes of a secret that is made here.
const SECRET_BYTES: usize = 16;

/// The token in k3s' form: `K10<SHA-256 of the authority's certificate, DER>::server:<secret>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The hash by which an agent knows the authority before it trusts it; `None` in a token that is only a secret.
    pub authority: Option<String>,
    pub secret: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// Reads either form: a whole token, or only the secret.
    ///
    /// # Errors
    /// When it is empty, or begins like a whole token and is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix("K10") else {
            return if text.is_empty() || text.contains(char::is_whitespace) {
                Err("a token is one word".to_owned())
            } else {
                Ok(Self { authority: None, secret: text.to_owned() })
            };
        };
        let (hash, secret) = rest.split_once("::").ok_or("a token of the form K10... has \"::\" after its hash")?;
        let secret = secret.split_once(':').map_or(secret, |(_, secret)| secret);
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash || secret.is_empty() {
            return Err("a token of the form K10... has 64 hexadecimal digits, \"::server:\" and a secret".to_owned());
        }
        Ok(Self { authority: Some(hash.to_ascii_lowercase()), secret: secret.to_owned() })
    }

    /// Whether a caller has the secret. Takes the same time wherever the two differ.
    #[must_use]
    pub fn opens(&self, secret: &str) -> bool {
        Sha256::digest(&self.secret) == Sha256::digest(secret)
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.authority {
            Some(hash) => write!(f, "K10{hash}::server:{}", self.secret),
            None => f.write_str(&self.secret),
        }
    }
}

/// The hash in a token of the authority with this certificate, PEM.
#[must_use]
pub fn authority_hash(ca_pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()).ok()?;
    Some(hex(&Sha256::digest(&pem.contents)))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key that was just made, and the request for a certificate over it: both PEM.
#[derive(Clone)]
pub struct Request {
    pub key_pem: String,
    pub request_pem: String,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("request_pem", &self.request_pem).finish_non_exhaustive()
    }
}

/// Makes a key and asks for a certificate over it in the name of `user`.
///
/// # Errors
/// When the system's randomness fails.
pub fn request(user: &str) -> Result<Request, PkiError> {
    let failed = |e: rcgen::Error| PkiError::Issue { name: user.to_owned(), why: e.to_string() };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = issue::subject(user, &[]);
    let request = params.serialize_request(&key).map_err(failed)?;
    Ok(Request { key_pem: key.serialize_pem(), request_pem: request.pem().map_err(failed)? })
}

/// A random word, for secrets.
///
/// # Errors
/// When the system's randomness fails.
pub fn random_word() -> Result<String, PkiError> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; SECRET_BYTES];
    let filled = ring::rand::SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| PkiError::Issue { name: "a secret".into(), why: "the system has no random bytes".into() })?;
    Ok(hex(&bytes))
}

impl Pki {
    /// The token in `file` (mode 600), made when it is not there; `wanted` replaces its secret.
    ///
    /// # Errors
    /// When the file cannot be read or written, or a token is none.
    pub fn join_token(&self, file: &Path, wanted: Option<&str>) -> Result<JoinToken, PkiError> {
        let dir = file.parent().unwrap_or(file);
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("token");
        let bad = |why: String| files::broken(dir, name, "join token", &why);
        let stored = files::read(dir, name)?;
        let secret = match (wanted, &stored) {
            (Some(text), _) => JoinToken::parse(text).map_err(bad)?.secret,
            (None, Some(text)) => JoinToken::parse(text).map_err(bad)?.secret,
            (None, None) => random_word()?,
        };
        let token = JoinToken { authority: Some(hex(&Sha256::digest(self.ca_der()?))), secret };
        let line = format!("{token}\n");
        if stored.as_ref() != Some(&line) {
            files::write_secret(dir, name, &line)?;
        }
        Ok(token)
    }

    /// A certificate, PEM, for `user` in `groups` over the key of a request. Nothing else of the request counts.
    ///
    /// # Errors
    /// When the request is not one or was not signed with its key.
    pub fn certify(&self, request_pem: &str, user: &str, groups: &[&str]) -> Result<String, PkiError> {
        let failed = |e: rcgen::Error| PkiError::Issue { name: user.to_owned(), why: e.to_string() };
        let asked = CertificateSigningRequestParams::from_pem(request_pem).map_err(failed)?;
        let params = issue::short_lived(issue::client(user, groups), NODE_HOURS);
        Ok(params.signed_by(&asked.public_key, &self.issuer).map_err(failed)?.pem())
    }
}

/// Seconds since the epoch from which and until which a certificate (PEM) holds.
#[must_use]
pub fn validity(cert_pem: &str) -> Option<(i64, i64)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).ok()?;
    let cert = pem.parse_x509().ok()?;
    Some((cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let hash = "ab".repeat(32);
        for (text, authority, secret) in [
            ("simple".to_owned(), None, "simple"),
            (format!("K10{hash}::server:s3"), Some(hash.clone()), "s3"),
            (format!(" K10{}::server:a:b\n", hash.to_uppercase()), Some(hash.clone()), "a:b"),
            (format!("K10{hash}::bare"), Some(hash.clone()), "bare"),
        ] {
            let token = JoinToken::parse(&text).unwrap();
            assert_eq!((token.authority, token.secret.as_str()), (authority, secret), "{text}");
        }
        for wrong in ["", "two words", "K10", "K10abc::server:x", &format!("K10{hash}::server:")] {
            assert!(JoinToken::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_made_once_and_names_its_authority() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join("pki"), &[], &[]).unwrap();
        let file = dir.path().join("token");
        let first = pki.join_token(&file, None).unwrap();
        assert_eq!(pki.join_token(&file, None).unwrap(), first);
        assert_eq!(first.authority.as_ref().map(String::len), Some(64));
        assert!(first.opens(&first.secret) && !first.opens("another"));
        assert_eq!(pki.join_token(&file, Some("mine")).unwrap().secret, "mine");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(JoinToken::parse(&text), pki.join_token(&file, None).map_err(|e| e.to_string()));
    }

    #[test]
    fn a_request_gets_a_certificate_for_what_the_server_says_and_not_for_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &[], &[]).unwrap();
        let asked = request("system:admin").unwrap();
        let cert = pki.certify(&asked.request_pem, "system:node:a", &["system:nodes"]).unwrap();
        issue::check_key(&cert, &KeyPair::from_pem(&asked.key_pem).unwrap()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes()).unwrap();
        let subject = pem.parse_x509().unwrap().subject().to_string();
        assert!(subject.contains("CN=system:node:a") && subject.contains("O=system:nodes"), "{subject}");
        let (from, until) = validity(&cert).unwrap();
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 3700..=now - 3500).contains(&from), "{from}");
        assert!((now + 3600 * NODE_HOURS - 60..=now + 3600 * NODE_HOURS + 60).contains(&until), "{until}");
        assert!(pki.certify("rubbish", "system:node:a", &[]).is_err());
    }
}
