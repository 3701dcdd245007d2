//! `registries.yaml` in k3s' form: where images of a registry are fetched from, and how one talks to each host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

use super::null_is_default;
use super::reference::Reference;

/// Applies to registries that are not named.
const ANY: &str = "*";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Registries {
    #[serde(deserialize_with = "null_is_default")]
    mirrors: BTreeMap<String, Mirror>,
    #[serde(deserialize_with = "null_is_default")]
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Mirror {
    #[serde(deserialize_with = "null_is_default", alias = "endpoints")]
    endpoint: Vec<String>,
    /// Regular expression over the repository to its replacement.
    #[serde(deserialize_with = "null_is_default")]
    rewrite: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostConfig {
    pub auth: Option<HostAuth>,
    pub tls: Option<HostTls>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HostAuth {
    pub username: String,
    pub password: String,
    /// `username:password` in base64.
    pub auth: String,
    #[serde(alias = "identitytoken")]
    pub identity_token: String,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(default)]
pub(crate) struct HostTls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

/// A place to fetch an image from.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `https://registry-1.docker.io/v2`, without a slash at the end.
    pub base: String,
    /// The repository there.
    pub repository: String,
    /// The registry that it stands in for; mirrors are told.
    pub mirror_of: Option<String>,
    pub config: HostConfig,
}

impl Registries {
    /// Reads the file; a missing one is an empty one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Registries, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Registries::parse(&text).map_err(|error| format!("{}: {error}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Registries::default()),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Registries, String> {
        if text.trim().is_empty() {
            return Ok(Registries::default());
        }
        let parsed: Option<Registries> = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        Ok(parsed.unwrap_or_default())
    }

    /// Where to look for an image, in order: the mirrors of its registry, then the registry itself.
    ///
    /// # Errors
    /// An endpoint that is no URL, or a rewrite that is no regular expression.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, String> {
        let mirror = self.mirrors.get(&reference.domain).or_else(|| self.mirrors.get(ANY));
        let mut endpoints = Vec::new();
        for url in mirror.iter().flat_map(|mirror| &mirror.endpoint) {
            let rewrites = mirror.map(|mirror| &mirror.rewrite);
            let repository = rewrite(&reference.path, rewrites.into_iter().flatten())?;
            endpoints.push(self.mirror(url, repository, &reference.domain)?);
        }
        let own = self.own(reference);
        if !endpoints.iter().any(|endpoint| endpoint.base == own.base && endpoint.repository == own.repository) {
            endpoints.push(own);
        }
        Ok(endpoints)
    }

    fn mirror(&self, url: &str, repository: String, domain: &str) -> Result<Endpoint, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("mirror endpoint {url:?} is not a URL"))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "v2" } else { path };
        let mirror_of = (host != domain).then(|| domain.to_owned());
        let base = format!("{scheme}://{host}/{path}");
        Ok(Endpoint { base, repository, mirror_of, config: self.config(host) })
    }

    fn own(&self, reference: &Reference) -> Endpoint {
        let host = if reference.domain == "docker.io" { "registry-1.docker.io" } else { &reference.domain };
        let scheme = if is_local(host) { "http" } else { "https" };
        let mut config = self.config(host);
        if config.auth.is_none() {
            config.auth = self.configs.get(&reference.domain).and_then(|config| config.auth.clone());
        }
        Endpoint { base: format!("{scheme}://{host}/v2"), repository: reference.path.clone(), mirror_of: None, config }
    }

    fn config(&self, host: &str) -> HostConfig {
        self.configs.get(host).or_else(|| self.configs.get(ANY)).cloned().unwrap_or_default()
    }
}

/// Registries on this machine are spoken to without TLS, as containerd does.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    name == "localhost"
        || name == "[::1]"
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

fn rewrite<'a>(path: &str, rules: impl Iterator<Item = (&'a String, &'a String)>) -> Result<String, String> {
    for (pattern, replacement) in rules {
        let pattern = Regex::new(pattern).map_err(|error| format!("bad rewrite {pattern:?}: {error}"))?;
        if pattern.is_match(path) {
            return Ok(pattern.replace_all(path, braced(replacement).as_str()).into_owned());
        }
    }
    Ok(path.to_owned())
}

/// Go and this crate read `$1x` alike (as the group `1x`), which nobody means: a number ends at its last digit.
fn braced(replacement: &str) -> String {
    let mut text = String::new();
    let mut chars = replacement.chars().peekable();
    while let Some(char) = chars.next() {
        text.push(char);
        if char == '$' && chars.peek().is_some_and(char::is_ascii_digit) {
            text.push('{');
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                text.push(digit);
            }
            text.push('}');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint: ["http://127.0.0.1:5000", "https://proxy.example/v2/hub/"]
    rewrite: {"^library/(.*)": "mirror/$1-x"}
  plain.example:
  "*":
    endpoint: ["https://any.example"]
configs:
  "127.0.0.1:5000":
    auth: {username: u, password: p}
  "any.example":
    tls: {insecure_skip_verify: true, ca_file: /ca}
"#;

    #[test]
    fn endpoints() {
        let registries = Registries::parse(FILE).unwrap();
        let of = |registries: &Registries, name: &str| {
            let reference = Reference::parse(name).unwrap();
            let endpoints = registries.endpoints(&reference).unwrap();
            endpoints.iter().map(|e| format!("{}/{}", e.base, e.repository)).collect::<Vec<_>>()
        };
        for (name, expected) in [
            (
                "redis",
                &[
                    "http://127.0.0.1:5000/v2/mirror/redis-x",
                    "https://proxy.example/v2/hub/mirror/redis-x",
                    "https://registry-1.docker.io/v2/library/redis",
                ][..],
            ),
            ("plain.example/a/b", &["https://plain.example/v2/a/b"]),
            ("other.example/a", &["https://any.example/v2/a", "https://other.example/v2/a"]),
            ("localhost:5000/a", &["https://any.example/v2/a", "http://localhost:5000/v2/a"]),
            ("any.example/a", &["https://any.example/v2/a"]),
        ] {
            assert_eq!(of(&registries, name), expected, "{name}");
        }
        assert_eq!(of(&Registries::default(), "redis"), ["https://registry-1.docker.io/v2/library/redis"]);
        let first = registries.endpoints(&Reference::parse("redis").unwrap()).unwrap().remove(0);
        assert_eq!(first.config.auth.unwrap().username, "u");
        assert_eq!(first.mirror_of.as_deref(), Some("docker.io"));
    }

    #[test]
    fn files() {
        for (text, fits) in
            [("", true), ("# nothing\n", true), ("mirrors:\n", true), ("mirrors: [", false), ("mirrors: 5", false)]
        {
            assert_eq!(Registries::parse(text).is_ok(), fits, "{text:?}");
        }
        let bad = Registries::parse("mirrors: {docker.io: {endpoint: [nourl]}}").unwrap();
        assert!(bad.endpoints(&Reference::parse("x").unwrap()).is_err());
    }
}
