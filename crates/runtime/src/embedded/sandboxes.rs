//! Sandboxes: starting a shim, taking living ones up again, and clearing up after dead ones.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::client::{Notice, ShimClient, lock};
use super::{
    ContainerEntry, ContainerRecord, Inner, SandboxEntry, SandboxRecord, advance, blocking, context, new_id, state_of,
};
use crate::engine::{ContainerState, EngineError, EngineEvent, SandboxConfig, SandboxId};
use crate::mounts;
use crate::shim::process::{read_state, unix_nanos, write_state};
use crate::shim::protocol::{Answer, Ended, Op, Phase, ShimConfig};

/// What `ps` shows.
const SHIM_NAME: &str = "stead-shim";
/// How long a shim that is told to end may take to see its processes die.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);
/// Exit code of what was killed together with its shim.
const KILLED: i32 = 137;
const SIGKILL: i32 = 9;

impl Inner {
    pub(super) async fn run_sandbox(self: &Arc<Self>, config: SandboxConfig) -> Result<SandboxId, EngineError> {
        let id = new_id();
        let record = Arc::new(SandboxRecord { id: id.clone(), created: unix_nanos(), config });
        let result = self.start_shim(&record).await;
        if result.is_err() {
            self.erase_sandbox(&record).await;
        }
        let (shim, pause_pid) = result?;
        let entry = SandboxEntry { record, shim: Some(Arc::new(shim)), pause_pid, ending: Arc::default() };
        lock(&self.state).sandboxes.insert(id.clone(), entry);
        Ok(id)
    }

    async fn start_shim(
        self: &Arc<Self>,
        record: &Arc<SandboxRecord>,
    ) -> Result<(ShimClient, Option<i32>), EngineError> {
        let dir = self.sandbox_dir(&record.id);
        context(|| format!("cannot prepare sandbox {}", record.id), self.prepare_sandbox(record, &dir))?;
        let command = &self.options.shim;
        let program = match &self.shim_program {
            Some(view) => PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd())),
            None => command.program.clone(),
        };
        let output = tokio::process::Command::new(program)
            .arg0(SHIM_NAME)
            .args(&command.args)
            .arg(&dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .await;
        let output = context(|| format!("cannot start shim {}", command.program.display()), output)?;
        if !output.status.success() {
            let cause = String::from_utf8_lossy(&output.stderr);
            return Err(EngineError::Failed(format!("cannot start sandbox: {}", cause.trim())));
        }
        self.connect(&record.id, &dir).await
    }

    fn prepare_sandbox(&self, record: &SandboxRecord, dir: &Path) -> io::Result<()> {
        let config = &record.config;
        std::fs::create_dir_all(dir)?;
        let pod_cgroup = self.pod_cgroup(record);
        self.cgroups.limit(&pod_cgroup, &config.resources)?;
        if !config.host_ipc {
            mounts::mount_shm(&dir.join("shm"))?;
        }
        let shim = ShimConfig {
            sandbox: record.id.clone(),
            hostname: config.hostname.clone(),
            netns: config.netns.clone(),
            host_ipc: config.host_ipc,
            host_network: config.netns.is_none(),
            share_pid: config.share_pid && !config.host_pid,
            sysctls: config.sysctls.clone(),
            pause_cgroup: self.pause_cgroup(record),
            shim_cgroup: format!("{}/shims", self.options.cgroup_root),
        };
        std::fs::write(dir.join(crate::shim::CONFIG), serde_json::to_vec(&shim)?)?;
        std::fs::write(self.sandbox_file(&record.id), serde_json::to_vec(record)?)
    }

    /// Connects and learns what the shim holds.
    async fn connect(self: &Arc<Self>, id: &str, dir: &Path) -> Result<(ShimClient, Option<i32>), EngineError> {
        let (inner, sandbox) = (Arc::downgrade(self), id.to_owned());
        let shim = ShimClient::connect(dir, move |notice| on_notice(&inner, &sandbox, notice));
        let shim = context(|| format!("cannot connect to the shim of sandbox {id}"), shim)?;
        let (answer, _) = shim.call(Op::List, vec![]).await?;
        let Answer::List { containers, pause_pid } = answer else {
            return Err(EngineError::Failed("the shim does not understand this engine".to_owned()));
        };
        for (container, phase) in containers {
            if let Ok(entry) = self.container(&container) {
                // What comes next in its life may have been told since the list was made.
                entry.state.send_if_modified(|state| advance(state, &phase));
            }
        }
        Ok((shim, pause_pid))
    }

    /// Reads all records, connects to the shims that live and settles the sandboxes whose shims do not.
    pub(super) async fn take_up(self: &Arc<Self>) -> io::Result<()> {
        for record in records::<SandboxRecord>(&self.options.root.join("sandboxes"), |path| path.to_owned())? {
            let entry = SandboxEntry { record: Arc::new(record), shim: None, pause_pid: None, ending: Arc::default() };
            lock(&self.state).sandboxes.insert(entry.record.id.clone(), entry);
        }
        let containers = self.options.root.join("containers");
        for record in records::<ContainerRecord>(&containers, |path| path.join("container.json"))? {
            let state = read_state(&self.container_dir(&record.id)).map_or(ContainerState::Created, |p| state_of(&p));
            let entry =
                ContainerEntry { state: watch::Sender::new(state), changing: Arc::default(), record: Arc::new(record) };
            lock(&self.state).containers.insert(entry.record.id.clone(), entry);
        }
        self.discard_halves(&containers);
        let ids: Vec<String> = lock(&self.state).sandboxes.keys().cloned().collect();
        for id in ids {
            match self.connect(&id, &self.sandbox_dir(&id)).await {
                Ok((shim, pause_pid)) => {
                    if let Some(entry) = lock(&self.state).sandboxes.get_mut(&id) {
                        entry.shim = Some(Arc::new(shim));
                        entry.pause_pid = pause_pid;
                    }
                }
                Err(error) if is_dead(&error) => self.bury(&id).await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }

    /// The connection has broken. A living shim is connected to again.
    async fn lost(self: &Arc<Self>, id: &str) {
        if self.sandbox(id).map_or(true, |sandbox| sandbox.shim.is_none()) {
            return;
        }
        match self.connect(id, &self.sandbox_dir(id)).await {
            Ok((shim, _)) => {
                if let Some(entry) = lock(&self.state).sandboxes.get_mut(id) {
                    entry.shim = Some(Arc::new(shim));
                }
            }
            Err(_) => self.bury(id).await,
        }
    }

    /// Directories of containers whose creation was interrupted, or whose sandbox is gone.
    fn discard_halves(&self, containers: &Path) {
        let known = |name: &str| {
            let state = lock(&self.state);
            state.containers.get(name).is_some_and(|entry| state.sandboxes.contains_key(&entry.record.sandbox))
        };
        for entry in std::fs::read_dir(containers).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known(&name) {
                let _ = mounts::unmount(&entry.path().join("rootfs"));
                let _ = std::fs::remove_dir_all(entry.path());
                lock(&self.state).containers.remove(&name);
            }
        }
    }

    pub(super) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<(), EngineError> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        if let Some(shim) = &sandbox.shim {
            // Whatever the answer, what is left is killed by way of its cgroup.
            let _ = tokio::time::timeout(SHUTDOWN_WAIT, shim.call(Op::Shutdown, vec![])).await;
        }
        self.bury(id).await;
        Ok(())
    }

    pub(super) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<(), EngineError> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        for container in self.containers_of(id) {
            self.remove_container(&container).await?;
        }
        self.erase_sandbox(&sandbox.record).await;
        lock(&self.state).sandboxes.remove(id);
        Ok(())
    }

    pub(super) fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let state = lock(&self.state);
        let of = state.containers.values().filter(|entry| entry.record.sandbox == sandbox);
        of.map(|entry| entry.record.id.clone()).collect()
    }

    async fn erase_sandbox(self: &Arc<Self>, record: &Arc<SandboxRecord>) {
        let (inner, record) = (self.clone(), record.clone());
        let _ = blocking(move || {
            let dir = inner.sandbox_dir(&record.id);
            let _ = mounts::unmount(&dir.join("shm"));
            let _ = std::fs::remove_dir_all(dir);
            inner.cgroups.remove(&inner.pod_cgroup(&record));
            let _ = std::fs::remove_file(inner.sandbox_file(&record.id));
            Ok(())
        })
        .await;
    }

    /// The shim is gone, or has to be: kills what is left, and records the end of what ran. Idempotent.
    pub(super) async fn bury(self: &Arc<Self>, id: &str) {
        let Ok(sandbox) = self.sandbox(id) else { return };
        let _ending = sandbox.ending.lock().await;
        let was_ready = lock(&self.state).sandboxes.get_mut(id).is_some_and(|entry| entry.shim.take().is_some());
        let containers: Vec<ContainerEntry> =
            self.containers_of(id).iter().filter_map(|container| self.container(container).ok()).collect();
        let (inner, record) = (self.clone(), sandbox.record.clone());
        let groups: Vec<(ContainerEntry, String)> = containers
            .into_iter()
            .map(|entry| (entry.clone(), self.container_cgroup(&record, &entry.record.id)))
            .collect();
        let ended = blocking(move || {
            for (_, group) in &groups {
                if let Err(error) = inner.cgroups.kill(group) {
                    tracing::warn!(%error, group, "cannot kill what a dead shim has left");
                }
            }
            let _ = inner.cgroups.kill(&inner.pause_cgroup(&record));
            let _ = mounts::unmount(&inner.sandbox_dir(&record.id).join("shm"));
            Ok(groups.into_iter().filter_map(|(entry, _)| inner.settle(&entry).then_some(entry)).collect::<Vec<_>>())
        })
        .await;
        for entry in ended.unwrap_or_default() {
            self.emit(EngineEvent::ContainerExited { sandbox: id.to_owned(), container: entry.record.id.clone() });
        }
        if was_ready {
            self.emit(EngineEvent::SandboxStopped { sandbox: id.to_owned() });
        }
    }

    /// Records how a container ended whose shim is dead; `true` when that was not known yet.
    fn settle(&self, entry: &ContainerEntry) -> bool {
        let started = match *entry.state.borrow() {
            ContainerState::Running { started_at_unix_nanos, .. } => started_at_unix_nanos,
            ContainerState::Starting => 0,
            ContainerState::Created | ContainerState::Exited(_) => return false,
        };
        let dir = self.container_dir(&entry.record.id);
        let phase = match read_state(&dir) {
            Some(phase @ Phase::Exited(_)) => phase,
            _ => {
                let oom = self.sandbox(&entry.record.sandbox).is_ok_and(|sandbox| {
                    self.cgroups.oom_kills(&self.container_cgroup(&sandbox.record, &entry.record.id)) > 0
                });
                let phase = Phase::Exited(Ended {
                    started,
                    finished: unix_nanos(),
                    code: KILLED,
                    signal: Some(SIGKILL),
                    oom_killed: oom,
                    start_error: None,
                });
                let _ = write_state(&dir, &phase);
                phase
            }
        };
        entry.state.send_replace(state_of(&phase));
        true
    }
}

fn on_notice(inner: &Weak<Inner>, sandbox: &str, notice: Notice) {
    let Some(inner) = inner.upgrade() else { return };
    match notice {
        Notice::Started { container, pid, started } => {
            if let Ok(entry) = inner.container(&container)
                && entry.state.send_if_modified(|state| advance(state, &Phase::Running { pid, started }))
            {
                inner.emit(EngineEvent::ContainerStarted { sandbox: sandbox.to_owned(), container });
            }
        }
        Notice::Exited { container, ended } => {
            if let Ok(entry) = inner.container(&container) {
                entry.state.send_replace(state_of(&Phase::Exited(ended)));
                inner.emit(EngineEvent::ContainerExited { sandbox: sandbox.to_owned(), container });
            }
        }
        Notice::Gone => {
            let sandbox = sandbox.to_owned();
            tokio::spawn(async move { inner.lost(&sandbox).await });
        }
    }
}

/// Whether nobody listens on the socket, or has just stopped to.
fn is_dead(error: &EngineError) -> bool {
    match error {
        EngineError::Io { source, .. } => {
            matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::BrokenPipe
            )
        }
        _ => true,
    }
}

/// All whole records in a directory; a torn one counts as not there.
pub(super) fn records<T: for<'a> serde::Deserialize<'a>>(
    dir: &Path,
    file: impl Fn(&Path) -> PathBuf,
) -> io::Result<Vec<T>> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let Ok(bytes) = std::fs::read(file(&entry?.path())) else { continue };
        records.extend(serde_json::from_slice(&bytes).ok());
    }
    Ok(records)
}
