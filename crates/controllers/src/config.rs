//! What can be set of the controllers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use stead_client::Client;
use stead_informer::{Clock, system_clock};
use stead_workloads::nodeipam::Parts;
use stead_workloads::{hpa, nodelife};

use crate::Metrics;
use crate::statefulset::Counts;

/// The client of a service account in `kube-system`, by its name.
pub type Accounts = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Settings of all controllers. The defaults are upstream's.
#[derive(Clone)]
pub struct Config {
    /// Names of controllers that are not run (the names of [`crate::registry::all`]).
    pub disabled: Vec<String>,
    /// Where the time of day comes from.
    pub clock: Clock,
    /// The certificate (PEM) by which pods know the API server; without it none is published.
    pub root_ca: Option<String>,
    /// Where nodes keep local volumes: an absolute path, the same on every node.
    pub storage_dir: String,
    /// Each controller writes in the name of its own account; without this all write with the one client given.
    pub accounts: Option<Accounts>,
    /// What nodes get their pods' ranges out of; without it they get none.
    pub pod_ranges: Option<Parts>,
    /// How long a node may be silent (`--node-monitor-grace-period`).
    pub node_silence_max: SignedDuration,
    /// For [`crate::statefulset::Companion`]: the cluster's own controller is stead's, which takes its finalizers away by itself.
    pub beside_stead: bool,
    /// What [`crate::statefulset::Companion`] did, for its metrics.
    pub companion_counts: Arc<Counts>,
    /// Where controllers put their figures.
    pub metrics: Metrics,
    /// How often autoscalers look (`--horizontal-pod-autoscaler-sync-period`).
    pub autoscaler_sync: Duration,
    pub autoscaling: hpa::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            disabled: Vec::new(),
            clock: system_clock(),
            root_ca: None,
            storage_dir: "/var/lib/stead/storage".to_owned(),
            accounts: None,
            pod_ranges: None,
            node_silence_max: nodelife::SILENCE_MAX,
            beside_stead: false,
            companion_counts: Arc::default(),
            metrics: Metrics::default(),
            autoscaler_sync: crate::hpa::sync_period(),
            autoscaling: hpa::Settings::default(),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("disabled", &self.disabled).finish_non_exhaustive()
    }
}
