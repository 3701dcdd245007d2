//! What makes this machine a member of the cluster: its certificates, kept on disk and renewed, and the cluster's settings.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use stead_apiserver::join::{JoinAnswer, JoinRequest};
use stead_apiserver::pki::join as pki;
use stead_client::tls::{self, Credentials};
use stead_informer::Caches;

use super::Wish;
use super::join::{Refusal, ask};
use crate::node::{Access, ClusterSettings, pod_range_file};

/// After a request that failed: first and longest pause.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Between two renewals, whatever the clocks say.
const RENEW_PAUSE_MIN: Duration = Duration::from_secs(60);

/// What is kept on disk (mode 600).
#[derive(Clone, Serialize, Deserialize)]
struct Papers {
    key: String,
    #[serde(flatten)]
    answer: JoinAnswer,
}

/// A member of a cluster.
pub(super) struct Member {
    pub(super) wish: Wish,
    pub(super) cluster: ClusterSettings,
    authority: String,
    node: Arc<Credentials>,
    proxy: Arc<Credentials>,
    dns: Arc<Credentials>,
    storage: Arc<Credentials>,
    /// Since when and until when the certificates hold, seconds since the epoch.
    holds: parking_lot::Mutex<(i64, i64)>,
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// When certificates that hold from `from` to `until` are renewed: after two thirds of their time.
fn renewal((from, until): (i64, i64)) -> i64 {
    from + (until - from) / 3 * 2
}

impl Member {
    /// With the papers of an earlier start while they hold; else it joins, as soon as the server answers.
    pub(super) async fn open(wish: Wish) -> Result<Self> {
        let file = papers_file(&wish);
        let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Papers>(&bytes).ok());
        let hash = wish.token.as_ref().and_then(|token| token.authority.clone());
        let kept = kept.filter(|Papers { answer, .. }| {
            let same_cluster = hash.is_none() || hash == pki::authority_hash(&answer.authority);
            same_cluster && pki::validity(&answer.node).is_some_and(|(_, until)| now() < until)
        });
        let papers = match kept {
            Some(papers) => papers,
            None => join(&wish).await?,
        };
        let Papers { key, answer } = papers;
        let holds = pki::validity(&answer.node).context("the node's certificate")?;
        Ok(Self {
            cluster: serde_json::from_value(answer.cluster).context("the cluster's settings")?,
            authority: answer.authority,
            node: Credentials::new(&answer.node, &key)?,
            proxy: Credentials::new(&answer.proxy, &key)?,
            dns: Credentials::new(&answer.dns, &key)?,
            storage: Credentials::new(&answer.storage, &key)?,
            holds: parking_lot::Mutex::new(holds),
            wish,
        })
    }

    /// TLS as this node.
    pub(super) fn tls(&self) -> Result<tls::ClientConfig> {
        Ok(tls::config(&self.authority, self.node.clone())?)
    }

    /// Clients in all the names of a node.
    pub(super) fn access(&self) -> Result<Access> {
        let caches = |credentials: &Arc<Credentials>| -> Result<Caches> {
            let config = tls::config(&self.authority, credentials.clone())?;
            Ok(Caches::new(tls::client(&self.wish.server, config)))
        };
        Ok(Access {
            node: caches(&self.node)?,
            storage: caches(&self.storage)?,
            proxy: caches(&self.proxy)?,
            dns: caches(&self.dns)?,
            dns_publisher: None,
        })
    }

    /// Renews the certificates for ever, each time long before they end.
    pub(super) async fn keep_renewed(&self) {
        loop {
            let due = renewal(*self.holds.lock());
            let left = Duration::from_secs(u64::try_from(due - now()).unwrap_or(0));
            tokio::time::sleep(left.max(RENEW_PAUSE_MIN)).await;
            let mut pause = RETRY_FIRST;
            while let Err(error) = self.renew().await {
                tracing::warn!(error = format!("{error:#}"), "cannot renew this node's certificates; will try again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }

    async fn renew(&self) -> Result<()> {
        let (key, request) = request(&self.wish)?;
        let by_certificate = ask(&self.wish.server, Arc::new(self.tls()?), None, &request).await;
        let answer = match (by_certificate, &self.wish.token) {
            (Ok(answer), _) => answer,
            // The certificate has ended meanwhile: the token still opens.
            (Err(_), Some(token)) => {
                let config = Arc::new(tls::config_by_hash(token.authority.clone())?);
                let answer = ask(&self.wish.server, config, Some(&token.secret), &request).await;
                answer.map_err(|(Refusal::Away(error) | Refusal::Final(error))| error)?
            }
            (Err(Refusal::Away(error) | Refusal::Final(error)), None) => return Err(error),
        };
        let holds = pki::validity(&answer.node).context("the node's certificate")?;
        self.node.replace(&answer.node, &key)?;
        self.proxy.replace(&answer.proxy, &key)?;
        self.dns.replace(&answer.dns, &key)?;
        self.storage.replace(&answer.storage, &key)?;
        keep(&papers_file(&self.wish), &Papers { key, answer })?;
        *self.holds.lock() = holds;
        tracing::info!("renewed this node's certificates");
        Ok(())
    }
}

fn papers_file(wish: &Wish) -> PathBuf {
    wish.node.data_dir.join("agent/membership.json")
}

/// Joins with the token; waits for a server that is not there yet.
async fn join(wish: &Wish) -> Result<Papers> {
    let token = wish.token.as_ref().context("say --token: `stead token` prints it on the server")?;
    if token.authority.is_none() {
        tracing::warn!("the token has no hash of the server's authority: whoever answers is believed");
    }
    let (key, request) = request(wish)?;
    let mut pause = RETRY_FIRST;
    loop {
        let config = Arc::new(tls::config_by_hash(token.authority.clone())?);
        match ask(&wish.server, config, Some(&token.secret), &request).await {
            Ok(answer) => {
                let papers = Papers { key, answer };
                // Another cluster gives another range; the same one gives the same.
                let _ = fs::remove_file(pod_range_file(&wish.node.data_dir));
                keep(&papers_file(wish), &papers)?;
                return Ok(papers);
            }
            Err(Refusal::Final(error)) => return Err(error.context("cannot join")),
            Err(Refusal::Away(error)) => {
                tracing::info!(error = format!("{error:#}"), "cannot reach the server yet; will try again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

/// A new key, and the request for certificates over it.
fn request(wish: &Wish) -> Result<(String, JoinRequest)> {
    let name = wish.node.name.clone();
    let asked = pki::request(&format!("system:node:{name}"))?;
    let password = password(&wish.node.data_dir.join("agent/node-password"))?;
    Ok((asked.key_pem, JoinRequest { node_name: name, password, request: asked.request_pem }))
}

/// The word by which the server knows this machine again, made once.
fn password(file: &Path) -> Result<String> {
    if let Ok(known) = fs::read_to_string(file) {
        return Ok(known);
    }
    let word = pki::random_word()?;
    write_secret(file, word.as_bytes())?;
    Ok(word)
}

fn keep(file: &Path, papers: &Papers) -> Result<()> {
    write_secret(file, &serde_json::to_vec(papers)?)
}

fn write_secret(file: &Path, bytes: &[u8]) -> Result<()> {
    let named = || file.display().to_string();
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut out = fs::File::options().create_new(true).write(true).mode(0o600).open(&new).with_context(named)?;
    out.write_all(bytes).and_then(|()| out.sync_all()).with_context(named)?;
    fs::rename(&new, file).with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_after_two_thirds() {
        assert_eq!(renewal((0, 24 * 3600)), 16 * 3600);
    }

    #[test]
    fn a_machine_keeps_its_password() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node-password");
        let first = password(&file).unwrap();
        assert_eq!((first.len(), password(&file).unwrap()), (32, first));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
