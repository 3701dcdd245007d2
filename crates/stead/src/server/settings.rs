//! What the flags mean, checked before anything is opened.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::SignedDuration;

use crate::arguments::ServerFlags;
use crate::machine;
use crate::node::{ClusterSettings, NodeSettings};

/// Parts that `--disable` understands.
const PARTS: [&str; 2] = ["dns", "local-storage"];

/// The configuration of a server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: IpAddr,
    pub(crate) tls_sans: Vec<String>,
    pub(crate) cluster: ClusterSettings,
    pub(crate) disabled: Vec<String>,
    /// This machine, where it runs pods.
    pub(crate) node: Option<NodeSettings>,
    pub(crate) token: Option<String>,
    pub(crate) node_silence_max: SignedDuration,
    pub(crate) autoscaler_sync: Duration,
}

impl Settings {
    pub(crate) fn from_flags(flags: ServerFlags) -> Result<Self> {
        for part in &flags.disable {
            ensure!(PARTS.contains(&part.as_str()), "--disable {part}: there are only {}", PARTS.join(", "));
        }
        let runs_pods = !flags.disable_agent;
        ensure!(
            !runs_pods || machine::is_root(),
            "running pods needs root: use sudo, or --disable-agent for a control plane without a node"
        );
        let pods = Range::parse("--cluster-cidr", &flags.cluster_cidr)?;
        let services = Range::parse("--service-cidr", &flags.service_cidr)?;
        ensure!(
            !pods.overlaps(&services),
            "--cluster-cidr {} and --service-cidr {} overlap",
            flags.cluster_cidr,
            flags.service_cidr
        );
        ensure!(
            services.contains(flags.cluster_dns),
            "--cluster-dns {} is not in --service-cidr {}",
            flags.cluster_dns,
            flags.service_cidr
        );
        std::fs::create_dir_all(&flags.data_dir).with_context(|| format!("--data-dir {}", flags.data_dir.display()))?;
        let data_dir = flags.data_dir.canonicalize()?;
        // Without any route out the node still has its own address in its pods' range.
        let node = NodeSettings::from_flags(flags.node, &data_dir, Some(pods.first()))?;
        Ok(Self {
            data_dir,
            kubeconfig: flags.write_kubeconfig,
            listen: SocketAddr::new(flags.bind_address, flags.https_listen_port),
            advertise: flags.advertise_address.unwrap_or(node.node_ip),
            tls_sans: flags.tls_san,
            cluster: ClusterSettings {
                cluster_cidr: flags.cluster_cidr,
                service_cidr: flags.service_cidr,
                cluster_dns: flags.cluster_dns,
                cluster_domain: flags.cluster_domain,
                dns: !flags.disable.iter().any(|part| part == "dns"),
            },
            disabled: flags.disable,
            node: runs_pods.then_some(node),
            token: flags.token,
            node_silence_max: SignedDuration::from_secs(flags.node_monitor_grace_period.into()),
            autoscaler_sync: Duration::from_secs(flags.horizontal_pod_autoscaler_sync_period.into()),
        })
    }

    pub(crate) fn has(&self, part: &str) -> bool {
        !self.disabled.iter().any(|disabled| disabled == part)
    }
}

/// An IPv4 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    network: u32,
    bits: u8,
}

impl Range {
    fn parse(flag: &str, text: &str) -> Result<Self> {
        let bad = || format!("{flag} {text:?} is not an IPv4 range like 10.42.0.0/16");
        let (network, bits) = text.split_once('/').with_context(bad)?;
        let network: Ipv4Addr = network.parse().with_context(bad)?;
        let bits: u8 = bits.parse().with_context(bad)?;
        if !(8..=28).contains(&bits) {
            bail!("{flag} {text}: between /8 and /28 is needed");
        }
        Ok(Self { network: u32::from(network) & Self::mask(bits), bits })
    }

    fn mask(bits: u8) -> u32 {
        u32::MAX << (32 - u32::from(bits))
    }

    fn contains(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if u32::from(address) & Self::mask(self.bits) == self.network)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let mask = Self::mask(self.bits.min(other.bits));
        self.network & mask == other.network & mask
    }

    fn first(&self) -> IpAddr {
        Ipv4Addr::from(self.network + 1).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::parse("--cluster-cidr", text).unwrap()
    }

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        assert!(range("10.42.0.0/16").overlaps(&range("10.42.7.0/24")));
        assert!(!range("10.42.0.0/16").overlaps(&range("10.43.0.0/16")));
    }

    #[test]
    fn a_bad_range_names_its_flag() {
        let error = Range::parse("--service-cidr", "10.0.0.0").unwrap_err();
        assert_eq!(error.to_string(), r#"--service-cidr "10.0.0.0" is not an IPv4 range like 10.42.0.0/16"#);
    }
}
