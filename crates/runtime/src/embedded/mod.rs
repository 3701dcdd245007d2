//! The engine in this process: shims for sandboxes, overlayfs for root file systems, its own image store.
//!
//! On disk, below `root`: `images/` and `layers/` (see [`crate::image`]), `sandboxes/<id>.json`, `containers/<id>/` (the bundle:
//! `container.json`, `config.json`, `state.json`, `rootfs`, `upper`). Below `run`: one directory per sandbox with its shim's
//! socket. What is in memory is only a copy of what the shims say and the files hold; `open` builds it anew.

pub(crate) mod capabilities;
mod client;
mod containers;
mod copy;
mod killall;
mod pulls;
mod rootfs;
mod sandboxes;
mod session;
mod spec;
mod streams;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot, watch};

use crate::cgroup::Cgroups;
use crate::engine::{
    AttachConfig, Container, ContainerConfig, ContainerId, ContainerState, Engine, EngineError, EngineEvent,
    ExecConfig, Exit, Image, PullError, RegistryAuth, Sandbox, SandboxConfig, SandboxId, SandboxState, Session, Stats,
};
use crate::image::ImageStore;
use crate::mounts;
use crate::shim::protocol::{Ended, Payload, Phase};
use client::{ShimClient, lock};

pub use killall::{kill_all, unmount_below};

/// Events that a slow receiver may be behind before it has to read everything again.
const EVENTS_MAX: usize = 4096;
/// How long an earlier engine on the same directory may take to end.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Where and how an embedded engine works.
#[derive(Clone, Debug)]
pub struct Options {
    /// State, images and container layers; on a file system that can be the upper one of an overlay.
    pub root: PathBuf,
    /// Sockets and pinned things.
    pub run: PathBuf,
    /// Name of this instance's cgroup, unique on the machine.
    pub cgroup_root: String,
    pub shim: ShimCommand,
    /// A `registries.yaml` in k3s' form.
    pub registries: Option<PathBuf>,
}

/// How to start a shim: a program whose `main` passes the arguments after the given ones to [`crate::shim_main`].
#[derive(Clone, Debug)]
pub struct ShimCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

impl Default for ShimCommand {
    /// This program, even when its file has been replaced meanwhile, with `__shim`.
    fn default() -> Self {
        ShimCommand { program: PathBuf::from("/proc/self/exe"), args: vec![OsString::from("__shim")] }
    }
}

/// Opens the engine: takes up every living shim, and settles what happened to the others.
///
/// # Errors
/// The directories cannot be made or read, or another process has the engine open.
pub async fn open(options: Options) -> Result<Arc<dyn Engine>, EngineError> {
    for dir in [options.root.join("sandboxes"), options.root.join("containers"), options.run.clone()] {
        context(|| format!("cannot make {}", dir.display()), std::fs::create_dir_all(&dir))?;
    }
    let lock = lock_root(options.root.clone()).await?;
    let inner = Arc::new(Inner::new(options, Some(lock))?);
    context(|| "cannot clean the image store".to_owned(), inner.images.clean())?;
    context(|| "cannot take up containers".to_owned(), inner.take_up().await)?;
    inner.settle_images();
    Ok(Arc::new(Embedded { inner }))
}

/// The image store alone, beside a running engine or without one.
///
/// # Errors
/// The directories cannot be made or read.
pub fn open_images(options: Options) -> Result<Images, EngineError> {
    Ok(Images { inner: Arc::new(Inner::new(options, None)?) })
}

/// One process at a time has the engine; one that is just ending is waited for.
async fn lock_root(root: PathBuf) -> Result<File, EngineError> {
    let path = root.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = context(|| format!("cannot open {}", path.display()), file)?;
    if lock_file(&file, false).is_ok() {
        return Ok(file);
    }
    // A thread of its own, because the runtime's would have to be waited for.
    let (sender, locked) = oneshot::channel();
    std::thread::spawn(move || sender.send(lock_file(&file, true).map(|()| file)));
    match tokio::time::timeout(LOCK_WAIT, locked).await {
        Ok(Ok(locked)) => context(|| format!("cannot lock {}", path.display()), locked),
        _ => Err(EngineError::WrongState(format!("{} is in use by another process", root.display()))),
    }
}

/// A lock of this process: within one process an engine may be opened anew before the last user of the old one is gone.
fn lock_file(file: &File, wait: bool) -> io::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let how = if wait { FcntlArg::F_SETLKW(&whole) } else { FcntlArg::F_SETLK(&whole) };
    Ok(fcntl(file, how).map(drop)?)
}

/// See [`open_images`].
#[derive(Debug)]
pub struct Images {
    inner: Arc<Inner>,
}

impl Images {
    pub async fn import(&self, archive: PathBuf) -> Result<Vec<Image>, EngineError> {
        self.inner.import(archive).await
    }

    pub async fn pull(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Image, PullError> {
        self.inner.pull(reference, auth).await
    }

    pub fn list(&self) -> Vec<Image> {
        self.inner.images.list().iter().map(|image| image.public()).collect()
    }

    pub async fn remove(&self, reference: &str) -> Result<(), EngineError> {
        self.inner.remove_image(reference).await
    }
}

/// Needs Linux 5.12 and the right to mount; without, the program is started by its path.
fn shim_program(command: &ShimCommand) -> Option<OwnedFd> {
    let view = mounts::read_only_view(&command.program);
    view.inspect_err(|error| tracing::warn!(%error, "the shim's program is not protected from privileged containers"))
        .ok()
}

#[derive(Debug)]
struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    cgroups: Cgroups,
    images: Arc<ImageStore>,
    state: Mutex<State>,
    events: broadcast::Sender<EngineEvent>,
    pulls: pulls::Pulls,
    /// The shim's program, as it was when the engine was opened, in a form that containers cannot write to.
    shim_program: Option<OwnedFd>,
    /// Held by the engine; the image store alone has none.
    lock: Option<File>,
}

#[derive(Debug, Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, SandboxEntry>,
    containers: BTreeMap<ContainerId, ContainerEntry>,
}

#[derive(Clone, Debug)]
struct SandboxEntry {
    record: Arc<SandboxRecord>,
    shim: Option<Arc<ShimClient>>,
    /// A process in the shared PID namespace.
    pause_pid: Option<i32>,
    /// Held while the sandbox is being ended.
    ending: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug)]
struct ContainerEntry {
    record: Arc<ContainerRecord>,
    state: watch::Sender<ContainerState>,
    /// Held while the container is started, stopped or removed.
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// `sandboxes/<id>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SandboxRecord {
    id: String,
    created: i64,
    config: SandboxConfig,
}

/// `containers/<id>/container.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ContainerRecord {
    id: String,
    sandbox: String,
    created: i64,
    config: ContainerConfig,
    image_id: String,
    payload: Payload,
    stop_signal: i32,
}

impl Inner {
    fn new(options: Options, lock: Option<File>) -> Result<Inner, EngineError> {
        Ok(Inner {
            cgroups: context(|| "cannot read cgroup hierarchies".to_owned(), Cgroups::read())?,
            images: Arc::new(context(|| "cannot open the image store".to_owned(), ImageStore::open(&options.root))?),
            state: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            pulls: pulls::Pulls::default(),
            shim_program: lock.is_some().then(|| shim_program(&options.shim)).flatten(),
            lock,
            options,
        })
    }

    async fn import(&self, archive: PathBuf) -> Result<Vec<Image>, EngineError> {
        let images = self.images.clone();
        let imported = blocking(move || images.import(&archive)).await?;
        self.settle_images();
        Ok(imported.iter().map(|image| image.public()).collect())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let in_use = context(|| "cannot read containers".to_owned(), self.images_in_use())?;
        let (images, reference) = (self.images.clone(), reference.to_owned());
        blocking(move || images.remove(&reference, &in_use)).await
    }

    fn images_in_use(&self) -> io::Result<BTreeSet<String>> {
        if self.lock.is_some() {
            return Ok(lock(&self.state).containers.values().map(|entry| entry.record.image_id.clone()).collect());
        }
        let dir = self.options.root.join("containers");
        if !dir.exists() {
            return Ok(BTreeSet::new());
        }
        let records = sandboxes::records::<ContainerRecord>(&dir, |path| path.join("container.json"))?;
        Ok(records.into_iter().map(|record| record.image_id).collect())
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.options.root.join("containers").join(id)
    }

    fn sandbox_file(&self, id: &str) -> PathBuf {
        self.options.root.join("sandboxes").join(format!("{id}.json"))
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.options.run.join(id)
    }

    fn pod_cgroup(&self, sandbox: &SandboxRecord) -> String {
        let parent = sandbox.config.cgroup_parent.trim_matches('/');
        if parent.is_empty() {
            format!("{}/{}", self.options.cgroup_root, sandbox.id)
        } else {
            format!("{}/{parent}", self.options.cgroup_root)
        }
    }

    fn pause_cgroup(&self, sandbox: &SandboxRecord) -> String {
        format!("{}/pause-{}", self.pod_cgroup(sandbox), sandbox.id)
    }

    fn container_cgroup(&self, sandbox: &SandboxRecord, container: &str) -> String {
        format!("{}/{container}", self.pod_cgroup(sandbox))
    }

    fn sandbox(&self, id: &str) -> Result<SandboxEntry, EngineError> {
        let state = lock(&self.state);
        state.sandboxes.get(id).cloned().ok_or_else(|| EngineError::NotFound(format!("sandbox {id:?}")))
    }

    fn container(&self, id: &str) -> Result<ContainerEntry, EngineError> {
        let state = lock(&self.state);
        state.containers.get(id).cloned().ok_or_else(|| EngineError::NotFound(format!("container {id:?}")))
    }

    fn shim_of(&self, entry: &ContainerEntry) -> Result<Arc<ShimClient>, EngineError> {
        let sandbox = self.sandbox(&entry.record.sandbox)?;
        sandbox.shim.ok_or_else(|| EngineError::WrongState(format!("sandbox {} does not run", entry.record.sandbox)))
    }

    /// Sees to it, without waiting, that new images survive a power cut.
    fn settle_images(&self) {
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = images.settle() {
                tracing::warn!(%error, "cannot sync images to disk");
            }
        });
    }

    fn emit(&self, event: EngineEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }
}

#[async_trait]
impl Engine for Embedded {
    fn version(&self) -> String {
        format!("stead://{}", env!("CARGO_PKG_VERSION"))
    }

    async fn image(&self, reference: &str) -> Result<Option<Image>, EngineError> {
        Ok(self.inner.images.find(reference).map(|image| image.public()))
    }

    async fn pull(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Image, PullError> {
        self.inner.pull(reference, auth).await
    }

    async fn import(&self, archive: PathBuf) -> Result<Vec<Image>, EngineError> {
        self.inner.import(archive).await
    }

    async fn images(&self) -> Result<Vec<Image>, EngineError> {
        Ok(self.inner.images.list().iter().map(|image| image.public()).collect())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.inner.remove_image(reference).await
    }

    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, EngineError> {
        self.inner.run_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.inner.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), EngineError> {
        self.inner.remove_sandbox(id).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, EngineError> {
        Ok(lock(&self.inner.state).sandboxes.values().map(SandboxEntry::public).collect())
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<ContainerId, EngineError> {
        self.inner.create_container(sandbox, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        self.inner.stop_container(id, grace).await
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        self.inner.remove_container(id).await
    }

    async fn containers(&self) -> Result<Vec<Container>, EngineError> {
        let state = lock(&self.inner.state);
        let log_directory = |sandbox: &str| {
            state.sandboxes.get(sandbox).map(|entry| entry.record.config.log_directory.clone()).unwrap_or_default()
        };
        Ok(state.containers.values().map(|entry| entry.public(&log_directory(&entry.record.sandbox))).collect())
    }

    async fn exec(&self, id: &str, config: ExecConfig) -> Result<Session, EngineError> {
        self.inner.exec(id, config).await
    }

    async fn attach(&self, id: &str, config: AttachConfig) -> Result<Session, EngineError> {
        self.inner.attach(id, config).await
    }

    async fn stats(&self, id: &str) -> Result<Stats, EngineError> {
        let container = self.inner.container(id)?;
        let sandbox = self.inner.sandbox(&container.record.sandbox)?;
        if !matches!(*container.state.borrow(), ContainerState::Running { .. }) {
            return Err(EngineError::WrongState(format!("container {id} does not run")));
        }
        Ok(self.inner.cgroups.stats(&self.inner.container_cgroup(&sandbox.record, id)))
    }

    async fn sandbox_stats(&self, id: &str) -> Result<Stats, EngineError> {
        let sandbox = self.inner.sandbox(id)?;
        Ok(self.inner.cgroups.stats(&self.inner.pod_cgroup(&sandbox.record)))
    }

    fn events(&self) -> broadcast::Receiver<EngineEvent> {
        self.inner.events.subscribe()
    }
}

impl SandboxEntry {
    fn public(&self) -> Sandbox {
        Sandbox {
            id: self.record.id.clone(),
            state: if self.shim.is_some() { SandboxState::Ready } else { SandboxState::Stopped },
            created_at_unix_nanos: self.record.created,
            config: self.record.config.clone(),
        }
    }
}

impl ContainerEntry {
    fn public(&self, log_directory: &Path) -> Container {
        let record = &self.record;
        Container {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            name: record.config.name.clone(),
            attempt: record.config.attempt,
            labels: record.config.labels.clone(),
            image: record.config.image.clone(),
            image_id: record.image_id.clone(),
            state: self.state.borrow().clone(),
            created_at_unix_nanos: record.created,
            log_path: log_directory.join(&record.config.log_path),
            termination_message_path: record.config.termination_message_path.clone(),
        }
    }
}

fn state_of(phase: &Phase) -> ContainerState {
    match phase {
        Phase::Starting => ContainerState::Starting,
        Phase::Running { pid, started } => ContainerState::Running { started_at_unix_nanos: *started, pid: *pid },
        Phase::Exited(ended) => ContainerState::Exited(exit_of(ended)),
    }
}

/// Takes a state over, unless the container is further on in its life already; whether it did.
fn advance(state: &mut ContainerState, phase: &Phase) -> bool {
    let age = |state: &ContainerState| match state {
        ContainerState::Created => 0,
        ContainerState::Starting => 1,
        ContainerState::Running { .. } => 2,
        ContainerState::Exited(_) => 3,
    };
    let told = state_of(phase);
    let newer = age(&told) > age(state);
    if newer {
        *state = told;
    }
    newer
}

fn exit_of(ended: &Ended) -> Exit {
    Exit {
        started_at_unix_nanos: ended.started,
        finished_at_unix_nanos: ended.finished,
        code: ended.code,
        signal: ended.signal,
        oom_killed: ended.oom_killed,
        start_error: ended.start_error.clone(),
    }
}

/// Runs file system work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| EngineError::Failed(format!("engine task failed: {error}")))?
}

/// Adds what was being done to an IO error.
fn context<T>(what: impl FnOnce() -> String, result: io::Result<T>) -> Result<T, EngineError> {
    result.map_err(|source| EngineError::Io { context: what(), source })
}

/// A new id: 64 hexadecimal digits, as container ids are everywhere.
fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
