//! Image references as docker normalises them: `redis` is `docker.io/library/redis:latest`.

use std::fmt;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// Host, with a port where given: `docker.io`.
    pub domain: String,
    /// `library/redis`.
    pub path: String,
    pub tag: Option<String>,
    /// `sha256:...`.
    pub digest: Option<String>,
}

/// Longest repository name the grammar allows.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;
const INVALID: &str = "invalid reference format";

impl Reference {
    /// # Errors
    /// The grammar's own words, as docker and the kubelet show them.
    pub(crate) fn parse(text: &str) -> Result<Reference, String> {
        if is_hex(text, 64) {
            return Err(format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(parse_tag(tag)?)),
            _ => (rest, None),
        };
        let (domain, path) = split_domain(name);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            let shown = path.split(':').next().unwrap_or_default();
            return Err(format!("{INVALID}: repository name ({shown}) must be lowercase"));
        }
        if !is_domain(&domain) || !path.split('/').all(is_component) {
            return Err(INVALID.to_owned());
        }
        if path.len() > NAME_BYTES_MAX {
            return Err(format!("repository name must not be more than {NAME_BYTES_MAX} characters"));
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Reference { domain, path, tag, digest })
    }

    /// `docker.io/library/redis`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What the registry is asked for: the digest when there is one, else the tag.
    pub(crate) fn object(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase() => {
            (first.to_owned(), rest.to_owned())
        }
        _ => ("docker.io".to_owned(), name.to_owned()),
    };
    let domain = if domain == "index.docker.io" { "docker.io".to_owned() } else { domain };
    let path = if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
    (domain, path)
}

fn parse_tag(tag: &str) -> Result<String, String> {
    let mut chars = tag.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest && tag.len() <= TAG_BYTES_MAX { Ok(tag.to_owned()) } else { Err(INVALID.to_owned()) }
}

/// Only SHA-256, which is what registries use.
pub(crate) fn parse_digest(digest: &str) -> Result<String, String> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_hex(hex, 64) => Ok(digest.to_owned()),
        _ => Err(INVALID.to_owned()),
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !domain.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    host_fits && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits with `.`, `_`, `__` or any number of `-` between.
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let long = "a".repeat(129);
        for (text, expected) in [
            ("redis", "docker.io/library/redis:latest"),
            ("redis:6.2-alpine", "docker.io/library/redis:6.2-alpine"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/redis", "docker.io/library/redis:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1"),
            ("127.0.0.1:5000/a/b_c/d__e/f--g", "127.0.0.1:5000/a/b_c/d__e/f--g:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            (&format!("redis@{digest}"), &format!("docker.io/library/redis@{digest}")),
            (&format!("redis:7@{digest}"), &format!("docker.io/library/redis:7@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).map(|r| r.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for text in
            ["", "a b", "UPPER", "x:", ":x", "x@sha256:1", "a//b", "x:-a", "a..b", "-a", "a/", &format!("x:{long}")]
        {
            assert!(Reference::parse(text).unwrap_err().starts_with(INVALID), "{text}");
        }
        assert!(Reference::parse(&"a".repeat(64)).unwrap_err().starts_with("invalid repository name"));
    }
}
