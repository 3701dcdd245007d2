//! The command line, as data. Flags and places follow k3s where k3s has them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Kubernetes for stateful applications, in one binary.
#[derive(Debug, Parser)]
#[command(name = "stead", version, propagate_version = true, after_help = kubectls())]
pub(crate) struct Stead {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `--help` says of the commands that are kubectl's.
fn kubectls() -> String {
    format!(
        "And kubectl's commands, as `stead COMMAND` or `stead kubectl COMMAND`:\n  {}",
        stead_cli::names().join(", ")
    )
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine: control plane and node.
    Server(ServerFlags),
    /// Make this machine one more node of a cluster.
    Agent(AgentFlags),
    /// Add to the StatefulSets of another cluster what stead's can do: roll-outs that heal, pause and are undone, and more.
    Controller(ControllerFlags),
    /// Print the token with which other machines join.
    Token(TokenFlags),
    /// A throw-away cluster and a demo StatefulSet that comes up in order before your eyes.
    Quickstart(QuickstartFlags),
    /// Print a StatefulSet with its pods and claims, say what is wrong and how to mend it.
    Check(stead_cli::check::Flags),
    /// The images of a node.
    Image(ImageFlags),
    /// Stop every container and remove every mount, interface and rule of a data directory; its data stays.
    Killall(KillallFlags),
    /// Print the version.
    Version,
    /// The program inside the demo image.
    #[command(hide = true)]
    Demo(DemoFlags),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServerFlags {
    /// Where everything is kept.
    #[arg(long, default_value = "/var/lib/stead", env = "STEAD_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 6443)]
    pub(crate) https_listen_port: u16,
    /// The address that pods and other machines reach this server at (default: the node's).
    #[arg(long)]
    pub(crate) advertise_address: Option<IpAddr>,
    /// Where the administrator's kubeconfig is written (mode 600).
    #[arg(long, default_value = "/etc/stead/stead.yaml")]
    pub(crate) write_kubeconfig: PathBuf,
    /// More names or addresses for the server's certificate.
    #[arg(long)]
    pub(crate) tls_san: Vec<String>,
    /// Range of the pods' addresses.
    #[arg(long, default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidr: String,
    /// Range of the Services' addresses.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub(crate) service_cidr: String,
    /// Address of the cluster's DNS, within the Services' range.
    #[arg(long, default_value = "10.43.0.10")]
    pub(crate) cluster_dns: IpAddr,
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Parts that are not started: dns, local-storage.
    #[arg(long, value_delimiter = ',')]
    pub(crate) disable: Vec<String>,
    /// Control plane only; needs no root.
    #[arg(long)]
    pub(crate) disable_agent: bool,
    /// The secret with which other machines join (default: made at the first start, see `stead token`).
    #[arg(long, env = "STEAD_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Seconds for which a node may be silent before it counts as not ready.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) node_monitor_grace_period: u32,
    /// Seconds between two looks of a HorizontalPodAutoscaler at what is in use.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) horizontal_pod_autoscaler_sync_period: u32,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// More to log.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// What a machine that runs pods is told of itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeFlags {
    /// Name of this node (default: the host's name).
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// Address of this node (default: that of the default route).
    #[arg(long)]
    pub(crate) node_ip: Option<IpAddr>,
    /// A label that the node registers with: key=value.
    #[arg(long)]
    pub(crate) node_label: Vec<String>,
    /// A taint that the node registers with: key=value:effect.
    #[arg(long)]
    pub(crate) node_taint: Vec<String>,
    /// Seconds for which the node's lease holds; it is renewed four times as often.
    #[arg(long, default_value_t = stead_node::LEASE_SECONDS, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) node_lease_duration_seconds: u32,
    /// Registry mirrors and credentials, in k3s' form.
    #[arg(long, default_value = "/etc/stead/registries.yaml")]
    pub(crate) private_registry: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AgentFlags {
    /// The server to join: https://HOST:PORT.
    #[arg(long, short = 's', env = "STEAD_URL")]
    pub(crate) server: String,
    /// The token that `stead token` prints on the server. Needed for the first start, and after a day's absence.
    #[arg(long, short = 't', env = "STEAD_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file that holds the token.
    #[arg(long, conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, default_value = "/var/lib/stead", env = "STEAD_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeFlags,
    /// More to log.
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ControllerFlags {
    /// The cluster (default: the one that this pod runs in; elsewhere $KUBECONFIG, then ~/.kube/config).
    #[arg(long)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig (default: its current one).
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Only sets of this namespace; may be given more than once (default: all).
    #[arg(long, short = 'n', value_delimiter = ',')]
    pub(crate) namespace: Vec<String>,
    /// Act only while holding the lease: of several processes one does.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    pub(crate) leader_elect: bool,
    /// Where the lease `stead-controller` is.
    #[arg(long, default_value = "kube-system")]
    pub(crate) leader_elect_namespace: String,
    /// Seconds after which others take a lease over that was not renewed.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) leader_elect_lease_duration: u32,
    /// Seconds after which a leader that cannot renew its lease stops.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) leader_elect_renew_deadline: u32,
    /// Seconds between two tries.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) leader_elect_retry_period: u32,
    /// Serve /metrics and /healthz here, without TLS: IP:PORT.
    #[arg(long)]
    pub(crate) metrics_bind_address: Option<SocketAddr>,
    /// More to log.
    #[arg(long)]
    pub(crate) debug: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct TokenFlags {
    /// The server's data directory.
    #[arg(long, default_value = "/var/lib/stead", env = "STEAD_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct QuickstartFlags {
    /// Leave the cluster running until it is interrupted.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where the throw-away cluster lives (default: a temporary directory).
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ImageFlags {
    /// The node's data directory.
    #[arg(long, default_value = "/var/lib/stead", env = "STEAD_DATA_DIR", global = true)]
    pub(crate) data_dir: PathBuf,
    /// Registry mirrors and credentials, in k3s' form.
    #[arg(long, default_value = "/etc/stead/registries.yaml", global = true)]
    pub(crate) private_registry: PathBuf,
    #[command(subcommand)]
    pub(crate) what: ImageCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Read OCI or docker archives.
    Import { archives: Vec<PathBuf> },
    /// Fetch an image from its registry.
    Pull { reference: String },
    /// List the images.
    Ls,
    /// Remove an image.
    Rm { reference: String },
    /// Write an OCI archive with this very program as an image, for `stead controller` in another cluster.
    Archive { file: PathBuf },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct KillallFlags {
    #[arg(long, default_value = "/var/lib/stead", env = "STEAD_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DemoFlags {
    /// Where the demo keeps what it must not lose.
    #[arg(long, default_value = "/data")]
    pub(crate) data: PathBuf,
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
}
