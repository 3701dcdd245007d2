//! The door to the kernel's network: pod interfaces, routes and service rules behind one trait.

use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;

/// Everything that stead does to this machine's network. Every call is idempotent: repeated with the same arguments it
/// changes nothing.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Makes what all pods need: forwarding, the base rules, the route for the service range, the DNS address on the host.
    async fn prepare(&self) -> Result<(), WireError>;

    /// Makes (or takes up again) the pinned network namespace of a pod, with its interface, address and routes.
    async fn attach(&self, pod: &PodNet) -> Result<PodLink, WireError>;
    /// Removes the namespace and its interface.
    async fn detach(&self, id: &str) -> Result<(), WireError>;
    /// All pod networks that exist, those of an earlier process too.
    async fn attached(&self) -> Result<Vec<PodLink>, WireError>;

    /// Makes the kernel's service rules equal to `table`; only the difference is sent, in one transaction.
    async fn set_services(&self, table: &ServiceTable) -> Result<(), WireError>;

    /// Routes to the pod ranges of the other nodes (through the overlay).
    async fn set_peers(&self, peers: &[Peer]) -> Result<(), WireError>;

    /// Removes every namespace, interface, route and rule that this instance owns.
    async fn remove_all(&self) -> Result<(), WireError>;
}

/// What to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNet {
    /// Unique for ever on this node, at most 64 characters (the pod's uid).
    pub id: String,
    pub addresses: Vec<IpAddr>,
    /// Ports of the host that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub protocol: Protocol,
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// An attached pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLink {
    pub id: String,
    pub netns: PathBuf,
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// The whole forwarding table: what `servicenet` computes and the kernel does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    pub entries: Vec<ServiceEntry>,
}

/// One virtual address and port (or node port) with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    pub frontend: Frontend,
    pub protocol: Protocol,
    pub port: u16,
    /// Empty: connections are rejected at once (ICMP port unreachable), as upstream does.
    pub backends: Vec<Backend>,
    /// `ClientIP` affinity: seconds for which one client stays with one backend.
    pub affinity_seconds: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A ClusterIP, external IP or load-balancer address.
    Address(IpAddr),
    /// Every address of this node.
    NodePort,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    pub node_address: IpAddr,
    pub pod_cidrs: Vec<String>,
    /// Hardware address of the peer's overlay interface.
    pub overlay_mac: [u8; 6],
}

/// A failed change of the network: which object, and what the kernel said.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{object}: {cause}")]
    Kernel { object: String, cause: String },
    #[error("{0}")]
    Invalid(String),
    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
}
