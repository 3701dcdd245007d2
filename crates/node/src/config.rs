//! What a node has to be told about itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Taint;

/// Pods that fit on one node, as upstream's default.
pub const PODS_MAX: u32 = 110;
/// For how long a node's lease holds, seconds, as upstream's default.
pub const LEASE_SECONDS: u32 = 40;
/// Port of the node's HTTP endpoints, as upstream's.
pub const SERVER_PORT: u16 = 10250;

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub name: String,
    /// Below it lie `pods/<uid>` and the state of this node.
    pub data_dir: PathBuf,
    /// Container logs: `<log_dir>/<namespace>_<name>_<uid>/<container>/<attempt>.log`.
    pub log_dir: PathBuf,
    pub node_ip: IpAddr,
    /// Range of pod addresses on this node, for example `10.42.0.0/24`.
    pub pod_cidr: String,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Labels and taints that the node registers with, beside the standard labels.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub pods_max: u32,
    /// For how long the node's lease holds, seconds; it is renewed four times as often.
    pub lease_seconds: u32,
    /// Port that the API server finds the HTTP endpoints at.
    pub server_port: u16,
    /// `v1.37.0+stead.0.1.0`.
    pub version: String,
    /// Resolver configuration of the host, for pods that ask for it and for search domains.
    pub resolv_conf: PathBuf,
    /// Memory and CPU kept back for the system and stead itself: (thousandths of a core, bytes).
    pub reserved: (u64, u64),
}

impl NodeConfig {
    /// A node with upstream's defaults.
    #[must_use]
    pub fn new(name: &str, data_dir: PathBuf, node_ip: IpAddr, pod_cidr: &str) -> Self {
        NodeConfig {
            name: name.to_owned(),
            log_dir: data_dir.join("pod-logs"),
            data_dir,
            node_ip,
            pod_cidr: pod_cidr.to_owned(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            pods_max: PODS_MAX,
            lease_seconds: LEASE_SECONDS,
            server_port: SERVER_PORT,
            version: "v1.37.0".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            reserved: (0, 100 << 20),
        }
    }

    /// Everything that belongs to one pod but its logs.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    #[must_use]
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
