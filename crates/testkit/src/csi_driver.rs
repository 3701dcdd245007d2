//! A storage system small enough for tests, behind the Container Storage Interface: a pool of files on this machine, each with an
//! ext4 of enforced size that is mounted through a loop device.
//!
//! It keeps what it knows on disk, so that a second driver on the same directory goes on where the first one stopped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use bytes::Bytes;
use stead_csi::messages::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse, ControllerGetCapabilitiesRequest,
    ControllerGetCapabilitiesResponse, ControllerPublishVolumeRequest, ControllerPublishVolumeResponse,
    ControllerServiceCapability, ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetPluginCapabilitiesRequest,
    GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse, NodeExpandVolumeRequest,
    NodeExpandVolumeResponse, NodeGetCapabilitiesRequest, NodeGetCapabilitiesResponse, NodeGetInfoRequest,
    NodeGetInfoResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, PluginCapability, ProbeRequest, ProbeResponse, Topology,
    Volume, controller_service_capability, node_service_capability, plugin_capability, volume_capability,
};
use stead_csi::registration::{self, InfoRequest, PluginInfo, RegistrationStatusResponse};
use stead_csi::{Code, Handler, Rpc, Status, answer};
use tokio::net::UnixListener;

/// What a test wants of its driver.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it keeps the volumes.
    pub pool: PathBuf,
    /// What all volumes together may hold.
    pub pool_bytes: i64,
    /// Volumes have to be attached to a node before they are staged there.
    pub attach: bool,
}

/// A running driver. Dropping it ends it and removes its socket; volumes stay as they are.
#[derive(Debug)]
pub struct Driver {
    pool: Arc<Pool>,
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Pool {
    options: Options,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The next calls of these names fail.
    failing: BTreeMap<String, Status>,
    /// Names of the calls so far.
    calls: Vec<String>,
    /// What came with the last volume that was staged.
    secrets: BTreeMap<String, String>,
}

impl Driver {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the socket or the directory cannot be made.
    pub fn start(options: Options) -> Result<Self> {
        fs::create_dir_all(&options.pool)?;
        let above = options.socket.parent().context("a socket lies in a directory")?;
        fs::create_dir_all(above)?;
        let _ = fs::remove_file(&options.socket);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let pool = Arc::new(Pool { options, state: Mutex::default() });
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&pool.options.socket)?
        };
        runtime.spawn(stead_csi::serve(listener, pool.clone()));
        Ok(Self { pool, runtime: Some(runtime) })
    }

    /// Lets every call of this name (`CreateVolume`) fail from now on.
    pub fn fail(&self, call: &str, code: Code, message: &str) {
        self.pool.state().failing.insert(call.to_owned(), Status::new(code, message));
    }

    /// Ends the failures of one call.
    pub fn heal_one(&self, call: &str) {
        self.pool.state().failing.remove(call);
    }

    /// Ends all failures.
    pub fn heal(&self) {
        self.pool.state().failing.clear();
    }

    /// Makes a volume past the interface.
    ///
    /// # Errors
    /// The file system's.
    pub fn make(&self, id: &str, bytes: u64) -> Result<()> {
        Ok(fs::File::create(self.pool.file(id))?.set_len(bytes)?)
    }

    /// How often a call of this name has come.
    #[must_use]
    pub fn calls(&self, call: &str) -> usize {
        self.pool.state().calls.iter().filter(|name| *name == call).count()
    }

    /// The secrets that came with the last volume that was staged.
    #[must_use]
    pub fn secrets(&self) -> BTreeMap<String, String> {
        self.pool.state().secrets.clone()
    }

    /// The volumes that there are.
    #[must_use]
    pub fn volumes(&self) -> Vec<String> {
        self.pool.ids()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = fs::remove_file(&self.pool.options.socket);
    }
}

impl Handler for Pool {
    async fn handle(&self, path: &str, body: &Bytes) -> Result<Bytes, Status> {
        let call = path.rsplit('/').next().unwrap_or_default();
        self.state().calls.push(call.to_owned());
        if let Some(status) = self.state().failing.get(call) {
            return Err(status.clone());
        }
        tokio::task::block_in_place(|| self.dispatch(path, body))
    }
}

impl Pool {
    fn dispatch(&self, path: &str, body: &Bytes) -> Result<Bytes, Status> {
        match path {
            InfoRequest::PATH => answer(body, |_: InfoRequest| Ok(self.registration())),
            registration::RegistrationStatus::PATH => {
                answer(body, |_: registration::RegistrationStatus| Ok(RegistrationStatusResponse {}))
            }
            GetPluginInfoRequest::PATH => answer(body, |_: GetPluginInfoRequest| {
                let (name, vendor_version) = (self.options.name.clone(), "1".to_owned());
                Ok(GetPluginInfoResponse { name, vendor_version, ..GetPluginInfoResponse::default() })
            }),
            GetPluginCapabilitiesRequest::PATH => answer(body, |_: GetPluginCapabilitiesRequest| Ok(services())),
            ProbeRequest::PATH => answer(body, |_: ProbeRequest| Ok(ProbeResponse { ready: Some(true) })),
            ControllerGetCapabilitiesRequest::PATH => {
                answer(body, |_: ControllerGetCapabilitiesRequest| Ok(self.controller_abilities()))
            }
            CreateVolumeRequest::PATH => answer(body, |request| self.create(&request)),
            DeleteVolumeRequest::PATH => answer(body, |request| self.delete(&request)),
            ControllerPublishVolumeRequest::PATH => answer(body, |request| self.attach(&request)),
            ControllerUnpublishVolumeRequest::PATH => answer(body, |request| self.detach(&request)),
            ControllerExpandVolumeRequest::PATH => answer(body, |request| self.expand(&request)),
            NodeGetInfoRequest::PATH => answer(body, |_: NodeGetInfoRequest| Ok(self.node())),
            NodeGetCapabilitiesRequest::PATH => answer(body, |_: NodeGetCapabilitiesRequest| Ok(node_abilities())),
            NodeStageVolumeRequest::PATH => answer(body, |request| self.stage(&request)),
            NodeUnstageVolumeRequest::PATH => answer(body, |request: NodeUnstageVolumeRequest| {
                unmount(Path::new(&request.staging_target_path)).map(|()| NodeUnstageVolumeResponse {})
            }),
            NodePublishVolumeRequest::PATH => answer(body, |request| publish(&request)),
            NodeUnpublishVolumeRequest::PATH => answer(body, |request: NodeUnpublishVolumeRequest| {
                let target = Path::new(&request.target_path);
                unmount(target)?;
                let _ = fs::remove_dir(target);
                Ok(NodeUnpublishVolumeResponse {})
            }),
            NodeExpandVolumeRequest::PATH => answer(body, |request| self.grow(&request)),
            _ => Err(Status::new(Code::Unimplemented, format!("unknown call {path}"))),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn registration(&self) -> PluginInfo {
        PluginInfo {
            r#type: registration::CSI_PLUGIN.to_owned(),
            name: self.options.name.clone(),
            endpoint: String::new(),
            supported_versions: vec!["1.0.0".to_owned()],
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.options.pool.join(format!("{id}.img"))
    }

    fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.options.pool).into_iter().flatten().flatten();
        let mut ids: Vec<String> =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".img").map(str::to_owned)).collect();
        ids.sort();
        ids
    }

    fn size(&self, id: &str) -> Result<i64, Status> {
        match fs::metadata(self.file(id)) {
            Ok(meta) => Ok(meta.len().cast_signed()),
            Err(_) => Err(Status::new(Code::NotFound, format!("volume {id} does not exist"))),
        }
    }

    // --- the controller ---

    fn controller_abilities(&self) -> ControllerGetCapabilitiesResponse {
        use controller_service_capability::{RPC, Type, rpc};
        let mut able = vec![rpc::Type::CreateDeleteVolume, rpc::Type::ExpandVolume];
        if self.options.attach {
            able.push(rpc::Type::PublishUnpublishVolume);
        }
        let capability = |kind| ControllerServiceCapability { r#type: Some(Type::Rpc(RPC { r#type: kind as i32 })) };
        ControllerGetCapabilitiesResponse { capabilities: able.into_iter().map(capability).collect() }
    }

    /// Refuses more than the pool holds.
    fn reserve(&self, id: &str, bytes: i64) -> Result<(), Status> {
        let others = self.ids().into_iter().filter(|other| other != id);
        let used: i64 = others.filter_map(|other| self.size(&other).ok()).sum();
        let free = self.options.pool_bytes - used;
        if bytes > free {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!("the pool has {free} bytes left, {bytes} were asked for"),
            ));
        }
        Ok(())
    }

    fn create(&self, request: &CreateVolumeRequest) -> Result<CreateVolumeResponse, Status> {
        if let Some(wrong) = request.parameters.keys().find(|key| !matches!(key.as_str(), "replicas" | "storagePool")) {
            return Err(Status::new(Code::InvalidArgument, format!("unknown parameter {wrong}")));
        }
        let bytes = request.capacity_range.as_ref().map_or(0, |range| range.required_bytes).max(1 << 20);
        let id = &request.name;
        let bytes = match self.size(id) {
            Ok(has) if has >= bytes => has,
            Ok(_) => return Err(Status::new(Code::AlreadyExists, format!("volume {id} exists with another size"))),
            Err(_) => {
                self.reserve(id, bytes)?;
                fs::File::create(self.file(id)).and_then(|file| file.set_len(bytes.cast_unsigned())).map_err(broken)?;
                bytes
            }
        };
        let segments = BTreeMap::from([(self.topology_key(), "here".to_owned())]);
        let volume = Volume {
            capacity_bytes: bytes,
            volume_id: id.clone(),
            volume_context: request.parameters.clone(),
            accessible_topology: vec![Topology { segments }],
            ..Volume::default()
        };
        Ok(CreateVolumeResponse { volume: Some(volume) })
    }

    fn delete(&self, request: &DeleteVolumeRequest) -> Result<DeleteVolumeResponse, Status> {
        let file = self.file(&request.volume_id);
        if file.exists() {
            if self.attached_to(&request.volume_id).is_some() || loop_of(&file).is_some() {
                return Err(Status::new(Code::FailedPrecondition, format!("volume {} is in use", request.volume_id)));
            }
            fs::remove_file(file).map_err(broken)?;
        }
        Ok(DeleteVolumeResponse {})
    }

    fn mark(&self, id: &str) -> PathBuf {
        self.options.pool.join(format!("{id}.attached"))
    }

    fn attached_to(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.mark(id)).ok()
    }

    fn attach(&self, request: &ControllerPublishVolumeRequest) -> Result<ControllerPublishVolumeResponse, Status> {
        let _ = self.size(&request.volume_id)?;
        if let Some(other) = self.attached_to(&request.volume_id).filter(|other| *other != request.node_id) {
            return Err(Status::new(Code::FailedPrecondition, format!("the volume is attached to node {other}")));
        }
        fs::write(self.mark(&request.volume_id), &request.node_id).map_err(broken)?;
        let publish_context = BTreeMap::from([("attached".to_owned(), request.node_id.clone())]);
        Ok(ControllerPublishVolumeResponse { publish_context })
    }

    fn detach(&self, request: &ControllerUnpublishVolumeRequest) -> Result<ControllerUnpublishVolumeResponse, Status> {
        if loop_of(&self.file(&request.volume_id)).is_some() {
            return Err(Status::new(Code::FailedPrecondition, "the volume is still mounted"));
        }
        let _ = fs::remove_file(self.mark(&request.volume_id));
        Ok(ControllerUnpublishVolumeResponse {})
    }

    fn expand(&self, request: &ControllerExpandVolumeRequest) -> Result<ControllerExpandVolumeResponse, Status> {
        let wanted = request.capacity_range.as_ref().map_or(0, |range| range.required_bytes);
        let has = self.size(&request.volume_id)?;
        if wanted > has {
            self.reserve(&request.volume_id, wanted)?;
            let file = fs::OpenOptions::new().write(true).open(self.file(&request.volume_id)).map_err(broken)?;
            file.set_len(wanted.cast_unsigned()).map_err(broken)?;
        }
        Ok(ControllerExpandVolumeResponse { capacity_bytes: wanted.max(has), node_expansion_required: true })
    }

    // --- the node ---

    fn topology_key(&self) -> String {
        format!("topology.{}/place", self.options.name)
    }

    fn node(&self) -> NodeGetInfoResponse {
        let segments = BTreeMap::from([(self.topology_key(), "here".to_owned())]);
        NodeGetInfoResponse {
            node_id: "the-node".to_owned(),
            max_volumes_per_node: 8,
            accessible_topology: Some(Topology { segments }),
        }
    }

    fn stage(&self, request: &NodeStageVolumeRequest) -> Result<NodeStageVolumeResponse, Status> {
        self.state().secrets.clone_from(&request.secrets);
        let bytes = self.size(&request.volume_id)?;
        let (file, at) = (self.file(&request.volume_id), Path::new(&request.staging_target_path));
        if self.options.attach && !request.publish_context.contains_key("attached") {
            return Err(Status::new(Code::FailedPrecondition, "the volume is not attached"));
        }
        if is_mounted(at) {
            return Ok(NodeStageVolumeResponse {});
        }
        fs::create_dir_all(at).map_err(broken)?;
        let arguments = file.to_string_lossy();
        if let Some(device) = loop_of(&file) {
            // A container that is still ending holds it: a second device on the same file would destroy what is in it.
            run("mount", &[&device, &request.staging_target_path])?;
            return Ok(NodeStageVolumeResponse {});
        }
        if run("blkid", &[&arguments]).is_err() {
            run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "root_owner=0:0", &arguments])?;
        } else if filesystem_bytes(&file)? < bytes {
            let _ = run("e2fsck", &["-f", "-p", &arguments]);
            run("resize2fs", &[&arguments])?;
        }
        run("mount", &["-o", "loop", &arguments, &request.staging_target_path])?;
        Ok(NodeStageVolumeResponse {})
    }

    fn grow(&self, request: &NodeExpandVolumeRequest) -> Result<NodeExpandVolumeResponse, Status> {
        let file = self.file(&request.volume_id);
        let bytes = self.size(&request.volume_id)?;
        if filesystem_bytes(&file)? < bytes {
            let device = loop_of(&file).ok_or_else(|| Status::new(Code::FailedPrecondition, "it is not mounted"))?;
            run("losetup", &["-c", &device])?;
            run("resize2fs", &[&device]).map_err(|status| Status::new(Code::FailedPrecondition, status.message))?;
        }
        Ok(NodeExpandVolumeResponse { capacity_bytes: bytes })
    }
}

fn services() -> GetPluginCapabilitiesResponse {
    use plugin_capability::{Service, Type, service};
    let services = [service::Type::ControllerService, service::Type::VolumeAccessibilityConstraints];
    let capability = |kind| PluginCapability { r#type: Some(Type::Service(Service { r#type: kind as i32 })) };
    GetPluginCapabilitiesResponse { capabilities: services.into_iter().map(capability).collect() }
}

fn node_abilities() -> NodeGetCapabilitiesResponse {
    use node_service_capability::{RPC, Type, rpc};
    let able = [rpc::Type::StageUnstageVolume, rpc::Type::ExpandVolume];
    let capability = |kind| NodeServiceCapability { r#type: Some(Type::Rpc(RPC { r#type: kind as i32 })) };
    NodeGetCapabilitiesResponse { capabilities: able.into_iter().map(capability).collect() }
}

fn publish(request: &NodePublishVolumeRequest) -> Result<NodePublishVolumeResponse, Status> {
    let (from, to) = (Path::new(&request.staging_target_path), Path::new(&request.target_path));
    let capability = request.volume_capability.as_ref().and_then(|capability| capability.access_type.as_ref());
    if !matches!(capability, Some(volume_capability::AccessType::Mount(_))) {
        return Err(Status::new(Code::InvalidArgument, "only mounts are offered"));
    }
    if !is_mounted(from) {
        return Err(Status::new(Code::FailedPrecondition, "the volume is not staged"));
    }
    if !is_mounted(to) {
        fs::create_dir_all(to).map_err(broken)?;
        run("mount", &["--bind", &request.staging_target_path, &request.target_path])?;
        if request.readonly {
            run("mount", &["-o", "remount,bind,ro", &request.target_path])?;
        }
    }
    Ok(NodePublishVolumeResponse {})
}

fn broken(error: std::io::Error) -> Status {
    Status::new(Code::Internal, error.to_string())
}

fn is_mounted(path: &Path) -> bool {
    let (own, above) = (fs::metadata(path), path.parent().map(fs::metadata));
    matches!((own, above), (Ok(own), Some(Ok(above))) if own.dev() != above.dev())
}

fn unmount(path: &Path) -> Result<(), Status> {
    if is_mounted(path) { run("umount", &[&path.to_string_lossy()]).map(drop) } else { Ok(()) }
}

/// The loop device that has the file.
fn loop_of(file: &Path) -> Option<String> {
    let said = run("losetup", &["-n", "-O", "NAME", "-j", &file.to_string_lossy()]).ok()?;
    said.lines().next().map(|line| line.trim().to_owned())
}

/// What the file system in the file says of its size.
fn filesystem_bytes(file: &Path) -> Result<i64, Status> {
    let said = run("dumpe2fs", &["-h", &file.to_string_lossy()])?;
    let number = |key: &str| {
        said.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<i64>().ok()).unwrap_or_default()
    };
    Ok(number("Block count:") * number("Block size:"))
}

/// Runs a program of the machine; what it printed.
fn run(program: &str, arguments: &[&str]) -> Result<String, Status> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output().map_err(broken)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Status::new(Code::Internal, format!("{program}: {}", said.trim())))
}
