//! What a node has to know: of itself by flags, of the cluster from the server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

use crate::arguments::NodeFlags;
use crate::machine;

/// What is the same on all nodes of a cluster. The server tells it to those who join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterSettings {
    pub(crate) cluster_cidr: String,
    pub(crate) service_cidr: String,
    pub(crate) cluster_dns: IpAddr,
    pub(crate) cluster_domain: String,
    /// Whether each node answers DNS for its pods.
    pub(crate) dns: bool,
}

/// What belongs to this machine.
#[derive(Clone, Debug)]
pub(crate) struct NodeSettings {
    pub(crate) data_dir: PathBuf,
    /// Keeps what two data directories make on one machine apart.
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) registries: Option<PathBuf>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) lease_seconds: u32,
}

impl NodeSettings {
    /// Reads the flags; `fallback_ip` is for a machine without any route out.
    pub(crate) fn from_flags(flags: NodeFlags, data_dir: &Path, fallback_ip: Option<IpAddr>) -> Result<Self> {
        let node_ip = flags.node_ip.or_else(machine::address).or(fallback_ip);
        Ok(Self {
            instance: machine::instance(data_dir),
            data_dir: data_dir.to_owned(),
            name: flags.node_name.map_or_else(machine::host_name, Ok)?,
            node_ip: node_ip.context("this machine has no default route: say --node-ip")?,
            registries: flags.private_registry.exists().then_some(flags.private_registry),
            labels: flags.node_label.iter().map(|text| label(text)).collect::<Result<_>>()?,
            taints: flags.node_taint.iter().map(|text| taint(text)).collect::<Result<_>>()?,
            lease_seconds: flags.node_lease_duration_seconds,
        })
    }
}

/// `key=value`.
fn label(text: &str) -> Result<(String, String)> {
    let (key, value) = text.split_once('=').with_context(|| format!("--node-label {text:?} is not like key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `key=value:effect` or `key:effect`.
fn taint(text: &str) -> Result<Taint> {
    let bad = || format!("--node-taint {text:?} is not like key=value:NoSchedule");
    let (rest, effect) = text.rsplit_once(':').with_context(bad)?;
    anyhow::ensure!(matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"), bad());
    let (key, value) = rest.split_once('=').map_or((rest, None), |(key, value)| (key, Some(value)));
    let (key, effect) = (key.to_owned(), effect.to_owned());
    Ok(Taint { key, effect, value: value.map(str::to_owned), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints() {
        assert_eq!(label("disk=fast").unwrap(), ("disk".to_owned(), "fast".to_owned()));
        assert!(label("disk").is_err());
        let seen = |text: &str| taint(text).map(|t| (t.key, t.value.unwrap_or_default(), t.effect)).ok();
        let of = |key: &str, value: &str, effect: &str| Some((key.to_owned(), value.to_owned(), effect.to_owned()));
        assert_eq!(seen("a=b:NoSchedule"), of("a", "b", "NoSchedule"));
        assert_eq!(seen("a:NoExecute"), of("a", "", "NoExecute"));
        assert_eq!((seen("a=b"), seen("a=b:Never")), (None, None));
    }
}
