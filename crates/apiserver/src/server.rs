//! The API server as a value: its configuration, what it holds, and how it is opened.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use stead_admission::ServicePool;
use stead_admission::addresses::NODE_PORTS;
use stead_machinery::ApiError;
use stead_store::{Store, StoreError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::bootstrap;
use crate::chain::Identity;
use crate::chain::authn::TokenCache;
use crate::chain::flow::Limits;
use crate::followed::{Granted, Relations};
use crate::inprocess::InProcess;
use crate::lookup::{Memo, StoreLookup};
use crate::measured::Figures;
use crate::metrics::Metrics;
use crate::pki::{JoinToken, Pki, PkiError};
use crate::select::Recent;
use crate::tunnel::Tunnels;

/// The Kubernetes version that the API types are of.
pub(crate) const MINOR: &str = "37";
/// The version that `/version` names.
pub const GIT_VERSION: &str = "v1.37.0+stead1";

/// Where the server listens, and what it is called.
#[derive(Clone, Debug)]
pub struct Config {
    pub bind: SocketAddr,
    /// The address that other machines and pods reach this server at.
    pub advertise: IpAddr,
    pub pki_dir: PathBuf,
    /// More names or addresses of the server, for its certificate.
    pub tls_sans: Vec<String>,
    /// Range of cluster addresses of Services, for example `10.43.0.0/16`.
    pub service_cidr: String,
    pub cluster_domain: String,
    /// Address of the cluster's DNS Service.
    pub cluster_dns: IpAddr,
}

/// What machines need to become nodes, and what they are told.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// Where the token is kept.
    pub token_file: PathBuf,
    /// The token, or its secret, that replaces the one in the file.
    pub token: Option<String>,
    /// The node of this process, whose name nobody else may have.
    pub own_name: Option<String>,
    /// What nodes are told of the cluster; not looked into here.
    pub cluster: serde_json::Value,
}

/// The same with the token read.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) token: JoinToken,
    pub(crate) own_name: Option<String>,
    pub(crate) cluster: serde_json::Value,
}

impl Config {
    /// What `kubernetes.default` resolves to: the first address of the Service range.
    ///
    /// # Errors
    /// When the range is not an IPv4 range.
    pub fn kubernetes_ip(&self) -> Result<IpAddr, OpenError> {
        let bad = || OpenError::Config(format!("service range {:?} is not like \"10.43.0.0/16\"", self.service_cidr));
        let (network, bits) = self.service_cidr.split_once('/').ok_or_else(bad)?;
        let network: Ipv4Addr = network.parse().map_err(|_| bad())?;
        let bits: u32 = bits.parse().ok().filter(|bits| (8..=30).contains(bits)).ok_or_else(bad)?;
        Ok(Ipv4Addr::from((u32::from(network) & (u32::MAX << (32 - bits))) + 1).into())
    }

    /// Who issues service-account tokens.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://kubernetes.default.svc.{}", self.cluster_domain)
    }
}

/// Why the server did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot read the store: {0}")]
    Store(#[from] StoreError),
    #[error("cannot make the objects that every cluster has: {0}")]
    Bootstrap(ApiError),
}

/// A byte stream in both directions.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// Reaches the node agents: plain HTTP/1.1 is spoken over what it returns, whatever lies below.
#[async_trait::async_trait]
pub trait NodeDialer: Send + Sync {
    /// Opens a connection to the agent of `node`.
    async fn connect(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>>;
}

/// The dialer of a cluster without nodes.
#[derive(Clone, Copy, Debug)]
pub struct NoNodes;

#[async_trait::async_trait]
impl NodeDialer for NoNodes {
    async fn connect(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        Err(std::io::Error::new(
            std::io::ErrorKind::NotConnected,
            format!("node {node} is not connected to this server"),
        ))
    }
}

/// Figures as text in Prometheus' format.
type MetricsSource = Box<dyn Fn() -> String + Send + Sync>;

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: Arc<dyn NodeDialer>,
    pub(crate) tunnels: Tunnels,
    pub(crate) figures: Figures,
    pub(crate) joining: OnceLock<Joining>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) issuer: String,
    pub(crate) memo: Memo,
    pub(crate) relations: Relations,
    pub(crate) granted: Granted,
    pub(crate) recent: Arc<Recent>,
    pub(crate) pool: ServicePool,
    pub(crate) tokens: TokenCache,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    /// Figures of other parts of this process.
    pub(crate) more_metrics: Mutex<Vec<MetricsSource>>,
    /// Ends long-running requests when the server stops.
    pub(crate) closing: CancellationToken,
    /// One quota check and write at a time, so that two requests cannot both take the last place.
    pub(crate) quota: tokio::sync::Mutex<()>,
    pub(crate) listening: Mutex<Option<SocketAddr>>,
}

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer(pub(crate) Arc<Inner>);

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Opens the server over a store: makes or reads the certificates, and makes the objects that every cluster has.
    ///
    /// # Errors
    /// When the configuration or the certificate directory is not usable, or the store fails.
    pub async fn open(config: Config, store: Arc<dyn Store>, nodes: Arc<dyn NodeDialer>) -> Result<Self, OpenError> {
        let kubernetes_ip = config.kubernetes_ip()?;
        let (names, addresses) = server_names(&config, kubernetes_ip);
        let pki = Pki::open(&config.pki_dir, &names, &addresses)?;
        Self::start(config, Arc::new(pki), store, nodes).await
    }

    /// Opens a server of the same configuration over a store, as after a restart, without reading the certificates again:
    /// simulations restart often.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_again(&self, store: Arc<dyn Store>) -> Result<Self, OpenError> {
        Self::start(self.0.config.clone(), self.0.pki.clone(), store, self.0.nodes.clone()).await
    }

    async fn start(
        config: Config,
        pki: Arc<Pki>,
        store: Arc<dyn Store>,
        nodes: Arc<dyn NodeDialer>,
    ) -> Result<Self, OpenError> {
        let pool = ServicePool::new(&config.service_cidr, NODE_PORTS).map_err(|e| OpenError::Config(e.to_string()))?;
        let server = Self(Arc::new(Inner {
            issuer: config.issuer(),
            config,
            store,
            nodes,
            tunnels: Tunnels::default(),
            figures: Figures::default(),
            joining: OnceLock::new(),
            pki,
            memo: Memo::default(),
            relations: Relations::default(),
            granted: Granted::default(),
            recent: Arc::default(),
            pool,
            tokens: TokenCache::default(),
            limits: Limits::default(),
            metrics: Metrics::default(),
            more_metrics: Mutex::default(),
            closing: CancellationToken::new(),
            quota: tokio::sync::Mutex::new(()),
            listening: Mutex::new(None),
        }));
        bootstrap::run(&server).await?;
        Ok(server)
    }

    /// A handle that serves requests of `user` without a socket: a `tower` service that clients can be built on.
    #[must_use]
    pub fn in_process(&self, user: Identity) -> InProcess {
        InProcess::new(self.clone(), user)
    }

    /// Adds figures of another part of this process to `/metrics`.
    pub fn add_metrics(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.0.more_metrics.lock().push(Box::new(source));
    }

    /// Everything that `/metrics` tells.
    pub(crate) fn metrics(&self) -> String {
        let mut text = self.0.metrics.render(self.0.store.revision());
        text.extend(self.0.more_metrics.lock().iter().map(|source| source()));
        text
    }

    /// Opens a connection to the agent of a node: through its tunnel if it has one.
    pub(crate) async fn dial(&self, node: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        match self.0.tunnels.connect(node).await {
            Some(dialed) => dialed,
            None => self.0.nodes.connect(node).await,
        }
    }

    /// Lets other machines become nodes from now on. Only the first call counts.
    ///
    /// # Errors
    /// When the token's file cannot be read or written, or a token is none.
    pub fn let_join(&self, config: JoinConfig) -> Result<(), PkiError> {
        let JoinConfig { token_file, token, own_name, cluster } = config;
        let token = self.0.pki.join_token(&token_file, token.as_deref())?;
        let _ = self.0.joining.set(Joining { token, own_name, cluster });
        Ok(())
    }

    /// The token with which machines join.
    #[must_use]
    pub fn join_token(&self) -> Option<String> {
        self.0.joining.get().map(|joining| joining.token.to_string())
    }

    pub(crate) fn lookup(&self) -> StoreLookup<'_> {
        StoreLookup {
            store: self.0.store.as_ref(),
            memo: &self.0.memo,
            relations: &self.0.relations,
            granted: &self.0.granted,
        }
    }

    /// The certificates of this server.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.0.pki
    }

    /// A kubeconfig for the administrator, YAML.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> String {
        let address = self.0.listening.lock().unwrap_or(self.0.config.bind);
        let host = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        let server = format!("https://{}", SocketAddr::new(host, address.port()));
        kubeconfig(&server, self.0.pki.ca_pem(), &self.0.pki.admin.cert_pem, &self.0.pki.admin.key_pem)
    }
}

fn kubeconfig(server: &str, ca: &str, cert: &str, key: &str) -> String {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\nclusters:\n- name: default\n  cluster:\n    \
         server: {server}\n    certificate-authority-data: {}\ncontexts:\n- name: default\n  context:\n    \
         cluster: default\n    user: default\nusers:\n- name: default\n  user:\n    \
         client-certificate-data: {}\n    client-key-data: {}\n",
        encode(ca),
        encode(cert),
        encode(key)
    )
}

/// Every name and address under which clients may call this server.
fn server_names(config: &Config, kubernetes_ip: IpAddr) -> (Vec<String>, Vec<IpAddr>) {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned).to_vec();
    names.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
    let mut addresses = vec![kubernetes_ip, config.advertise, Ipv4Addr::LOCALHOST.into()];
    if !config.bind.ip().is_unspecified() {
        addresses.push(config.bind.ip());
    }
    for san in &config.tls_sans {
        match san.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(san.clone()),
        }
    }
    (names, addresses)
}
