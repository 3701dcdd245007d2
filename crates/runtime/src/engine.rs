//! The door to containers: one trait, shaped like CRI, so that the embedded engine and a CRI socket are interchangeable.
//!
//! The trait knows no Kubernetes kinds: sandboxes, containers and images only. The state that an engine reports is the
//! world's (shims, processes, files), never a memory of what was asked for, so a restarted caller can take everything up again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Names a sandbox; unique for ever on this node (chosen by the engine).
pub type SandboxId = String;
/// Names a container; unique for ever on this node (chosen by the engine).
pub type ContainerId = String;

/// Containers, sandboxes and images of one node.
#[async_trait]
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// Name and version as in `Node.status.nodeInfo.containerRuntimeVersion`: `stead://0.1.0`.
    fn version(&self) -> String;

    // --- images ---

    /// The image that `reference` names in the local store, if it is there.
    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError>;
    /// Fetches an image by the mirrors of `registries.yaml`; idempotent; concurrent pulls of one reference share the work.
    async fn pull(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Image, PullError>;
    /// Reads an OCI or docker archive into the store and returns the references it holds. A truncated or corrupt archive
    /// changes nothing.
    async fn import(&self, archive: PathBuf) -> Result<Vec<Image>, EngineError>;
    async fn images(&self) -> Result<Vec<Image>, EngineError>;
    /// Removes a reference, and the content when nothing refers to it any more. Refused while a container uses it.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;

    // --- sandboxes: what the containers of one pod share ---

    /// Starts the sandbox (its shim, and with it the shared namespaces). The network namespace already exists at
    /// `config.netns`. When this returns the sandbox survives a kill of the caller.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, EngineError>;
    /// Kills what still runs in it and ends its shim. Idempotent.
    async fn stop_sandbox(&self, id: &str) -> Result<(), EngineError>;
    /// Removes every trace of a stopped sandbox and its containers but their log files. Idempotent.
    async fn remove_sandbox(&self, id: &str) -> Result<(), EngineError>;
    /// All sandboxes, those left by an earlier process too.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, EngineError>;

    // --- containers ---

    /// Prepares the root file system and the runtime bundle; starts no process.
    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<ContainerId, EngineError>;
    /// Starts the container's process. Returns once the process has been exec'ed or has failed to.
    async fn start_container(&self, id: &str) -> Result<(), EngineError>;
    /// Sends the stop signal (SIGTERM unless the image says otherwise), SIGKILL after `grace`, and returns when the process is
    /// gone. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError>;
    /// Removes a container that does not run. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), EngineError>;
    /// All containers, with their state read from the world.
    async fn containers(&self) -> Result<Vec<Container>, EngineError>;

    /// Runs a command in a running container.
    async fn exec(&self, id: &str, config: ExecConfig) -> Result<Session, EngineError>;
    /// Connects to the streams of a running container's main process.
    async fn attach(&self, id: &str, config: AttachConfig) -> Result<Session, EngineError>;
    /// CPU and memory in use, from the container's cgroup.
    async fn stats(&self, id: &str) -> Result<Stats, EngineError>;
    /// The same of a whole sandbox: its containers, those that have ended, and what they left behind in memory.
    async fn sandbox_stats(&self, id: &str) -> Result<Stats, EngineError>;

    /// What happens from now on. A receiver that lags must read `containers()` again.
    fn events(&self) -> broadcast::Receiver<EngineEvent>;
}

/// Something that happened to a container without having been asked for through this handle, or because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    ContainerStarted { sandbox: SandboxId, container: ContainerId },
    ContainerExited { sandbox: SandboxId, container: ContainerId },
    SandboxStopped { sandbox: SandboxId },
}

/// An image in the local store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image's configuration: `sha256:...`.
    pub id: String,
    /// Full references, tags first: `docker.io/library/redis:6.2-alpine`.
    pub references: Vec<String>,
    /// `docker.io/library/redis@sha256:...`, when it came from a registry.
    pub digests: Vec<String>,
    pub size_bytes: u64,
    /// User of the image's configuration: a uid, a name, or empty for root.
    pub user: String,
}

/// Credentials of an `imagePullSecret`.
#[derive(Clone)]
pub struct RegistryAuth {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What the containers of one pod share.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// Free labels that come back from `sandboxes()`: pod name, namespace, uid, attempt.
    pub labels: BTreeMap<String, String>,
    pub hostname: String,
    /// Path of the pinned network namespace; `None` is the host's.
    pub netns: Option<PathBuf>,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// One PID namespace for all containers (`shareProcessNamespace`).
    pub share_pid: bool,
    /// Cgroup parent below the engine's root, for example `burstable/pod<uid>`; made when absent.
    pub cgroup_parent: String,
    /// Limits of the whole pod, set on the parent cgroup.
    pub resources: Resources,
    pub sysctls: BTreeMap<String, String>,
    /// Directory under which container log files lie (`/var/log/pods/<ns>_<name>_<uid>`).
    pub log_directory: PathBuf,
}

/// Whether a sandbox's shim lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    Stopped,
}

#[derive(Clone, Debug)]
pub struct Sandbox {
    pub id: SandboxId,
    pub state: SandboxState,
    pub created_at_unix_nanos: i64,
    pub config: SandboxConfig,
}

/// One container to be.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Name within the pod.
    pub name: String,
    /// Times this container was started before (the `restartCount` it will report); part of the log file's name.
    pub attempt: u32,
    pub labels: BTreeMap<String, String>,
    /// A reference or id that `image()` knows.
    pub image: String,
    /// Replaces the image's entry point when not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty (and alone, keeps the entry point).
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    /// Added over the image's environment, in order, later wins.
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<PathBuf>,
    pub resources: Resources,
    pub security: Security,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// Log file relative to the sandbox's `log_directory`, CRI format: `<container>/<attempt>.log`.
    pub log_path: PathBuf,
    /// Host file bound at `terminationMessagePath`; its bytes are the termination message.
    pub termination_message_path: Option<PathBuf>,
    /// Id of a container that runs and whose processes this one sees, where the pod does not share them anyway.
    pub processes_of: Option<String>,
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub read_only: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// Limits; zero or `None` means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Relative weight, 2..=262144 (1024 is one core).
    pub cpu_shares: Option<u64>,
    /// CPU time per period, microseconds.
    pub cpu_quota_micros: Option<i64>,
    pub cpu_period_micros: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    /// Lowering it below the caller's own may be refused by the kernel; the engine then warns and goes on.
    pub oom_score_adj: Option<i32>,
}

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// Numeric user; `None` is the image's.
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_rootfs: bool,
    pub allow_privilege_escalation: bool,
    /// Names without `CAP_`, added to or taken from the default set; `ALL` is understood.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: Seccomp,
    /// `procMount: Unmasked`.
    pub unmasked_proc: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// The engine's default profile.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile in OCI/docker JSON form on the host.
    Localhost(PathBuf),
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    /// It is being started, at the request of a process that is gone.
    Starting,
    Running {
        started_at_unix_nanos: i64,
        pid: i32,
    },
    Exited(Exit),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub started_at_unix_nanos: i64,
    pub finished_at_unix_nanos: i64,
    /// 0..=255; 128 + signal when a signal ended it.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Why it could not be started, when it never ran (`reason` is then `StartError`, code 128).
    pub start_error: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Container {
    pub id: ContainerId,
    pub sandbox: SandboxId,
    pub name: String,
    pub attempt: u32,
    pub labels: BTreeMap<String, String>,
    /// As asked for.
    pub image: String,
    /// Digest of the configuration.
    pub image_id: String,
    pub state: ContainerState,
    pub created_at_unix_nanos: i64,
    pub log_path: PathBuf,
    pub termination_message_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default)]
pub struct ExecConfig {
    pub command: Vec<String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct AttachConfig {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The streams of an exec or attach. Dropping it closes them; dropping an exec's session kills nothing (but a terminal hangs up,
/// as terminals do).
pub struct Session {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes (columns, rows); `None` without a terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code of the command; for attach, of the container's main process.
    pub exit: oneshot::Receiver<i32>,
    /// Signals the exec'ed process; probes use it to end a command at its deadline. `None` for attach.
    pub kill: Option<mpsc::Sender<i32>>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time used since the start, nanoseconds.
    pub cpu_usage_nanos: u64,
    pub memory_usage_bytes: u64,
    /// Usage less inactive file pages.
    pub memory_working_set_bytes: u64,
    /// Memory that no file backs.
    pub memory_rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

/// A failed engine call.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The sandbox, container or image is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// The call does not fit the state: exec in a container that does not run, removal of one that does.
    #[error("{0}")]
    WrongState(String),
    /// Bad input: an archive that is truncated, a user that the image does not know.
    #[error("{0}")]
    Invalid(String),
    #[error("{context}: {source}")]
    Io { context: String, source: std::io::Error },
    /// Anything else, with the chain of causes in the text.
    #[error("{0}")]
    Failed(String),
}

/// A failed pull, as the node has to report it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The reference cannot be parsed: reason `InvalidImageName`.
    #[error("{0}")]
    InvalidName(String),
    /// The registry does not have it: reason `ErrImagePull`.
    #[error("{0}")]
    NotFound(String),
    /// The registry refuses the credentials: reason `ErrImagePull`.
    #[error("{0}")]
    Unauthorized(String),
    /// No registry answered, or the content was torn: worth another try.
    #[error("{0}")]
    Failed(String),
}
