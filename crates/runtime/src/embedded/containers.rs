//! Containers: making the bundle, starting, stopping, removing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::client::lock;
use super::spec::{self, Device, Plan};
use super::{
    ContainerEntry, ContainerRecord, Inner, SandboxEntry, advance, blocking, capabilities, context, copy, new_id,
    rootfs, user,
};
use crate::engine::{
    ContainerConfig, ContainerId, ContainerState, EngineError, EngineEvent, Exit, Propagation, Security,
};
use crate::image::{ImageRecord, ImageStore};
use crate::mounts::{self, Overlay};
use crate::shim::process::unix_nanos;
use crate::shim::protocol::{Answer, Op, Payload, Phase, StartContainer};

const SIGKILL: i32 = 9;
/// How long a killed process may take to end before the caller is told that it does not.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// Device nodes that a container has anyway, or gets its own of.
const OWN_DEVICES: [&str; 9] = [
    "/dev/pts",
    "/dev/shm",
    "/dev/fd",
    "/dev/mqueue",
    "/dev/console",
    "/dev/ptmx",
    "/dev/null",
    "/dev/zero",
    "/dev/tty",
];

impl Inner {
    pub(super) async fn create_container(
        self: &Arc<Self>,
        sandbox: &str,
        config: ContainerConfig,
    ) -> Result<ContainerId, EngineError> {
        let sandbox = self.sandbox(sandbox)?;
        if sandbox.shim.is_none() {
            return Err(EngineError::WrongState(format!("sandbox {} does not run", sandbox.record.id)));
        }
        let found = self.images.find(&config.image);
        let image = found.ok_or_else(|| EngineError::NotFound(format!("image {:?}", config.image)))?;
        let inner = self.clone();
        let record = blocking(move || inner.make_container(&sandbox, &image, config)).await?;
        let id = record.id.clone();
        let entry = ContainerEntry {
            record: Arc::new(record),
            state: watch::Sender::new(ContainerState::Created),
            changing: Arc::default(),
        };
        lock(&self.state).containers.insert(id.clone(), entry);
        Ok(id)
    }

    fn make_container(
        &self,
        sandbox: &SandboxEntry,
        image: &ImageRecord,
        config: ContainerConfig,
    ) -> Result<ContainerRecord, EngineError> {
        let id = new_id();
        let dir = self.container_dir(&id);
        context(|| format!("cannot make {}", dir.display()), std::fs::create_dir(&dir))?;
        let made = self.fill_bundle(sandbox, image, config, &id, &dir);
        if made.is_err() {
            erase(&dir);
        }
        made
    }

    fn fill_bundle(
        &self,
        sandbox: &SandboxEntry,
        image: &ImageRecord,
        config: ContainerConfig,
        id: &str,
        dir: &Path,
    ) -> Result<ContainerRecord, EngineError> {
        let layers = ImageStore::layer_names(image);
        let layers_root = self.images.layers_root();
        let overlay = Overlay { layers_root: &layers_root, layers: &layers, dir, devices: config.security.privileged };
        context(|| format!("cannot prepare container {id}"), overlay.mount())?;
        let bad = |error: String| EngineError::Invalid(format!("failed to generate container {id:?} spec: {error}"));
        let root = context(|| "cannot open root file system".to_owned(), rootfs::open_root(&dir.join("rootfs")))?;
        let payload = payload(sandbox, image, &config, &root).map_err(bad)?;
        context(|| format!("cannot make working directory {:?}", payload.cwd), make_dir(&root, &payload.cwd))?;
        let volumes = volumes(&config, image, &root, dir);
        let volumes = context(|| "cannot make the image's volumes".to_owned(), volumes)?;
        let devices = context(|| "cannot read devices".to_owned(), devices(&config))?;
        let cgroup = self.container_cgroup(&sandbox.record, id);
        let shm = if sandbox.record.config.host_ipc {
            PathBuf::from("/dev/shm")
        } else {
            self.sandbox_dir(&sandbox.record.id).join("shm")
        };
        let plan = Plan {
            sandbox: &sandbox.record.config,
            container: &config,
            payload: &payload,
            cgroup: &cgroup,
            unified_cgroups: self.cgroups.is_unified(),
            cgroup_dirs: &self.cgroups.visible(&cgroup),
            shm: &shm,
            pause_pid: self.first_process(sandbox, &config)?,
            devices: &devices,
            volumes: &volumes,
        };
        let bundle = spec::bundle(&plan);
        let record = ContainerRecord {
            id: id.to_owned(),
            sandbox: sandbox.record.id.clone(),
            created: unix_nanos(),
            image_id: image.id.clone(),
            stop_signal: spec::stop_signal(&image.config.stop_signal),
            payload,
            config,
        };
        let written = write_json(&dir.join("config.json"), &bundle)
            .and_then(|()| write_json(&dir.join("container.json"), &record));
        context(|| format!("cannot write bundle {}", dir.display()), written)?;
        Ok(record)
    }

    /// The first process of the PID namespace that a container joins; none when it gets one of its own.
    fn first_process(&self, sandbox: &SandboxEntry, config: &ContainerConfig) -> Result<Option<i32>, EngineError> {
        let Some(target) = config.processes_of.as_ref().filter(|_| sandbox.pause_pid.is_none()) else {
            return Ok(sandbox.pause_pid);
        };
        let state = self.container(target)?.state.borrow().clone();
        match state {
            ContainerState::Running { pid, .. } => Ok(Some(pid)),
            _ => {
                Err(EngineError::WrongState(format!("container {target} does not run, its processes cannot be shared")))
            }
        }
    }

    pub(super) async fn start_container(self: &Arc<Self>, id: &str) -> Result<(), EngineError> {
        let entry = self.container(id)?;
        let _changing = entry.changing.lock().await;
        if *entry.state.borrow() != ContainerState::Created {
            return Err(EngineError::WrongState(format!("container {id} has been started before")));
        }
        let sandbox = self.sandbox(&entry.record.sandbox)?;
        let shim = self.shim_of(&entry)?;
        let record = &entry.record;
        let start = StartContainer {
            container: id.to_owned(),
            bundle: self.container_dir(id),
            cgroup: self.container_cgroup(&sandbox.record, id),
            log: sandbox.record.config.log_directory.join(&record.config.log_path),
            tty: record.config.tty,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            kill_rest: sandbox.record.config.host_pid
                || sandbox.pause_pid.is_some()
                || record.config.processes_of.is_some(),
            own_mounts: !record.config.security.privileged
                && record.config.mounts.iter().all(|mount| mount.propagation != Propagation::Bidirectional),
            payload: record.payload.clone(),
        };
        let (answer, _) = shim.call(Op::Start(Box::new(start)), vec![]).await?;
        let Answer::Started { pid, started } = answer else {
            return Err(EngineError::Failed(format!("the shim has not started container {id}")));
        };
        // It may have ended already: the notice of that came first then.
        let newly = entry.state.send_if_modified(|state| advance(state, &Phase::Running { pid, started }));
        if newly {
            self.emit(EngineEvent::ContainerStarted { sandbox: record.sandbox.clone(), container: id.to_owned() });
        }
        Ok(())
    }

    pub(super) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<(), EngineError> {
        let Ok(entry) = self.container(id) else { return Ok(()) };
        let _changing = entry.changing.lock().await;
        if !matches!(*entry.state.borrow(), ContainerState::Running { .. }) {
            return Ok(());
        }
        let shim = self.shim_of(&entry)?;
        for (signal, wait) in [(entry.record.stop_signal, grace), (SIGKILL, KILL_WAIT)] {
            if wait.is_zero() {
                continue;
            }
            match shim.call(Op::Kill { container: id.to_owned(), signal }, vec![]).await {
                // It ended on its own; or the shim did, which ends the container too.
                Ok(_) | Err(EngineError::WrongState(_) | EngineError::Failed(_) | EngineError::Io { .. }) => {}
                Err(error) => return Err(error),
            }
            if tokio::time::timeout(wait, exited(&entry)).await.is_ok() {
                return Ok(());
            }
        }
        Err(EngineError::Failed(format!("container {id} does not end after SIGKILL")))
    }

    pub(super) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<(), EngineError> {
        let Ok(entry) = self.container(id) else { return Ok(()) };
        let _changing = entry.changing.lock().await;
        match *entry.state.borrow() {
            ContainerState::Running { .. } => {
                return Err(EngineError::WrongState(format!("container {id} runs; stop it first")));
            }
            ContainerState::Starting => {
                return Err(EngineError::WrongState(format!("container {id} is being started")));
            }
            ContainerState::Created | ContainerState::Exited(_) => {}
        }
        if let Ok(shim) = self.shim_of(&entry) {
            let _ = shim.call(Op::Forget { container: id.to_owned() }, vec![]).await;
        }
        let group = self.sandbox(&entry.record.sandbox).ok().map(|s| self.container_cgroup(&s.record, id));
        let (inner, dir) = (self.clone(), self.container_dir(id));
        blocking(move || {
            if let Some(group) = group {
                inner.cgroups.remove(&group);
            }
            erase(&dir);
            Ok(())
        })
        .await?;
        lock(&self.state).containers.remove(id);
        Ok(())
    }
}

/// Waits until the container has ended.
pub(super) async fn exited(entry: &ContainerEntry) -> Exit {
    let mut state = entry.state.subscribe();
    loop {
        if let ContainerState::Exited(exit) = &*state.borrow_and_update() {
            return exit.clone();
        }
        if state.changed().await.is_err() {
            // Cannot be while `entry` holds the sender; waiting for ever is what a missing event means.
            std::future::pending::<()>().await;
        }
    }
}

/// Unmounts and deletes a container's directory. It takes its new name first, so that a half deleted one is never taken for
/// a container.
fn erase(dir: &Path) {
    let _ = mounts::unmount(&dir.join("rootfs"));
    let _ = std::fs::remove_file(dir.join("container.json"));
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, dir = %dir.display(), "cannot delete container directory");
    }
}

fn payload(
    sandbox: &SandboxEntry,
    image: &ImageRecord,
    config: &ContainerConfig,
    root: &OwnedFd,
) -> Result<Payload, String> {
    let identity = identity(&image.config.user, &config.security, root)?;
    let capabilities = capabilities::of(&config.security)?;
    let payload = spec::payload(config, &image.config, &sandbox.record.config.hostname, &identity, capabilities);
    if payload.args.is_empty() {
        return Err("failed to generate spec: no command specified".to_owned());
    }
    Ok(payload)
}

fn identity(image_user: &str, security: &Security, root: &OwnedFd) -> Result<user::Identity, String> {
    let read = |path: &str| rootfs::read_in_root(root, path).map_err(|error| format!("cannot read {path}: {error}"));
    user::resolve(image_user, security, &read("/etc/passwd")?, &read("/etc/group")?)
}

fn make_dir(root: &OwnedFd, path: &str) -> io::Result<()> {
    rootfs::make_in_root(root, Path::new(path)).map(drop)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    std::fs::write(path, serde_json::to_vec(value)?)
}

/// Anonymous directories for the volumes that the image declares and nobody mounts something at, with the image's content.
fn volumes(
    config: &ContainerConfig,
    image: &ImageRecord,
    root: &OwnedFd,
    dir: &Path,
) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut volumes = BTreeMap::new();
    for place in image.config.volumes.keys() {
        let place = Path::new("/").join(place);
        if config.mounts.iter().any(|mount| mount.container_path == place) {
            continue;
        }
        let source = rootfs::make_in_root(root, &place)?;
        let volume = dir.join("volumes").join(volumes.len().to_string());
        std::fs::create_dir_all(&volume)?;
        copy::copy_tree(&source, &volume)?;
        volumes.insert(volume, place);
    }
    Ok(volumes.into_iter().collect())
}

/// The device nodes of the host that the container gets: those asked for, all of them when it is privileged.
fn devices(config: &ContainerConfig) -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    if config.security.privileged {
        collect_devices(Path::new("/dev"), &mut devices)?;
    }
    for path in &config.devices {
        if !devices.iter().any(|device: &Device| device.path == *path) {
            devices.extend(device(path)?);
        }
    }
    Ok(devices)
}

fn collect_devices(dir: &Path, devices: &mut Vec<Device>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if OWN_DEVICES.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect_devices(&path, devices)?,
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => devices.extend(device(&path)?),
            _ => {}
        }
    }
    Ok(())
}

fn device(path: &Path) -> io::Result<Option<Device>> {
    let metadata = std::fs::metadata(path)?;
    let kind = metadata.file_type();
    let number = metadata.rdev();
    Ok((kind.is_char_device() || kind.is_block_device()).then(|| Device {
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: nix::sys::stat::major(number),
        minor: nix::sys::stat::minor(number),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}
