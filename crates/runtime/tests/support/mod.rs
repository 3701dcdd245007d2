//! A world for the tests: an engine in directories of its own, and images made from the static busybox.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

pub mod registry;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use stead_runtime::embedded::{self, Options, ShimCommand};
use stead_runtime::*;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::broadcast;

pub const IMAGE: &str = "docker.io/library/tiny:1";
/// No single step of a test takes as long as this.
pub const LONG: Duration = Duration::from_secs(30);

/// An engine and its directories. Everything it made is removed when it is dropped.
pub struct World {
    pub engine: Option<Arc<dyn Engine>>,
    pub dir: tempfile::TempDir,
    pub cgroup: String,
    pub registries: Option<PathBuf>,
}

impl World {
    pub async fn new() -> World {
        let world = World::empty().await;
        let archive = world.dir.path().join("tiny.tar");
        std::fs::write(&archive, oci_archive(IMAGE, &[busybox_layer()], TINY_CONFIG)).unwrap();
        world.engine().import(archive).await.unwrap();
        world
    }

    pub async fn empty() -> World {
        let dir = tempfile::Builder::new().prefix("stead-rt-").tempdir().unwrap();
        let cgroup = format!("stead-test-{}", dir.path().file_name().unwrap().to_str().unwrap());
        let mut world = World { engine: None, dir, cgroup, registries: None };
        world.open().await;
        world
    }

    pub async fn open(&mut self) {
        self.engine = None;
        self.engine = Some(embedded::open(self.options()).await.unwrap());
    }

    pub fn options(&self) -> Options {
        Options {
            root: self.dir.path().join("root"),
            run: self.run_dir(),
            cgroup_root: self.cgroup.clone(),
            shim: ShimCommand { program: shim_program(), args: vec!["__shim".into()] },
            registries: self.registries.clone(),
        }
    }

    /// In memory, as /run is on most machines.
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/dev/shm").join(self.dir.path().file_name().unwrap())
    }

    pub fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone().expect("the engine is open")
    }

    pub fn sandbox_config(&self) -> SandboxConfig {
        SandboxConfig {
            hostname: "web-0".to_owned(),
            cgroup_parent: "pod1".to_owned(),
            log_directory: self.dir.path().join("logs"),
            ..SandboxConfig::default()
        }
    }

    pub async fn sandbox(&self) -> String {
        self.engine().run_sandbox(self.sandbox_config()).await.unwrap()
    }

    /// Creates and starts.
    pub async fn start(&self, sandbox: &str, config: ContainerConfig) -> String {
        let id = self.engine().create_container(sandbox, config).await.unwrap();
        self.engine().start_container(&id).await.unwrap();
        id
    }

    pub async fn container(&self, id: &str) -> Container {
        let all = self.engine().containers().await.unwrap();
        all.into_iter().find(|container| container.id == id).expect("container is there")
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("logs").join(name).join("0.log")).unwrap_or_default()
    }

    /// What the container wrote, without the CRI format.
    pub fn output(&self, name: &str) -> String {
        let text = self.log(name);
        let mut output = String::new();
        for line in text.lines() {
            let mut fields = line.splitn(4, ' ');
            let tag = fields.nth(2).unwrap();
            output.push_str(fields.next().unwrap());
            if tag == "F" {
                output.push('\n');
            }
        }
        output
    }

    /// Runs a shell script in a new container to its end.
    pub async fn run(&self, sandbox: &str, config: ContainerConfig) -> (Exit, String) {
        let name = config.name.clone();
        let mut events = self.engine().events();
        let id = self.start(sandbox, config).await;
        let exit = self.wait(&mut events, &id).await;
        (exit, self.output(&name))
    }

    pub async fn wait(&self, events: &mut broadcast::Receiver<EngineEvent>, id: &str) -> Exit {
        loop {
            if let ContainerState::Exited(exit) = self.container(id).await.state {
                return exit;
            }
            tokio::time::timeout(LONG, events.recv()).await.expect("an event comes").unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine = None;
        let options = self.options();
        embedded::kill_all(&options.root, &options.run, &options.cgroup_root).unwrap();
        let left = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!left.contains(self.dir.path().file_name().unwrap().to_str().unwrap()), "mounts are left");
        let _ = std::fs::remove_dir_all(options.run);
    }
}

pub fn shim_program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_stead-shim-test"))
}

pub fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// A container that runs a shell script.
pub fn script(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: strings(&["sh", "-c", script]),
        log_path: Path::new(name).join("0.log"),
        ..ContainerConfig::default()
    }
}

pub async fn read_all(stream: Option<Box<dyn AsyncRead + Send + Unpin>>) -> String {
    let mut text = String::new();
    if let Some(mut stream) = stream {
        tokio::time::timeout(LONG, stream.read_to_string(&mut text)).await.expect("stream ends").unwrap();
    }
    text
}

/// Reads until `end` has been seen.
pub async fn read_until(stream: &mut (dyn AsyncRead + Send + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let mut chunk = [0u8; 1024];
    while !String::from_utf8_lossy(&text).contains(end) {
        let read = tokio::time::timeout(LONG, stream.read(&mut chunk));
        let count =
            read.await.unwrap_or_else(|_| panic!("{end:?} comes, not only {:?}", String::from_utf8_lossy(&text)));
        match count.unwrap() {
            0 => break,
            count => text.extend_from_slice(&chunk[..count]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Runs a command in a container: exit code, stdout, stderr.
pub async fn exec(engine: &Arc<dyn Engine>, id: &str, command: &[&str]) -> (i32, String, String) {
    let config = ExecConfig { command: strings(command), stdout: true, stderr: true, ..ExecConfig::default() };
    let mut session = engine.exec(id, config).await.unwrap();
    let (stdout, stderr) = tokio::join!(read_all(session.stdout.take()), read_all(session.stderr.take()));
    (tokio::time::timeout(LONG, session.exit).await.unwrap().unwrap(), stdout, stderr)
}

// --- images ---

pub const TINY_CONFIG: &str = r#"{"Env":["FROM_IMAGE=yes"],"Entrypoint":["/bin/sh","-c"],"Cmd":["echo default"],"WorkingDir":"/work",
    "Volumes":{"/data":{}},"StopSignal":"SIGUSR1"}"#;

const APPLETS: [&str; 42] = [
    "sh", "echo", "cat", "sleep", "id", "mkdir", "mount", "unshare", "hostname", "ls", "env", "true", "false", "kill",
    "ps", "touch", "stty", "pwd", "head", "tail", "dd", "grep", "ping", "wc", "ip", "stat", "readlink", "umount",
    "yes", "date", "mknod", "test", "printf", "seq", "trap", "tty", "rm", "cut", "chmod", "awk", "sort", "ipcs",
];

/// A tar of directories, files and links.
pub struct Layer {
    tar: tar::Builder<Vec<u8>>,
}

impl Layer {
    pub fn new() -> Layer {
        Layer { tar: tar::Builder::new(Vec::new()) }
    }

    pub fn entry(mut self, kind: tar::EntryType, path: &str, mode: u32, owner: (u64, u64), data: &[u8]) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        self.tar.append_data(&mut header, path, data).unwrap();
        self
    }

    pub fn dir(self, path: &str, mode: u32, owner: (u64, u64)) -> Layer {
        self.entry(tar::EntryType::Directory, path, mode, owner, b"")
    }

    pub fn file(self, path: &str, text: &str) -> Layer {
        self.entry(tar::EntryType::Regular, path, 0o644, (0, 0), text.as_bytes())
    }

    pub fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        self.tar.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }
}

pub fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = Layer::new()
        .dir("bin", 0o755, (0, 0))
        .dir("etc", 0o755, (0, 0))
        .dir("tmp", 0o1777, (0, 0))
        .dir("root", 0o700, (0, 0))
        .dir("data", 0o750, (999, 998))
        .entry(tar::EntryType::Regular, "data/seed", 0o640, (999, 998), b"seed\n")
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/data:/bin/sh\n")
        .file("etc/group", "root:x:0:\nredis:x:998:\nstaff:x:50:redis\n")
        .file("plain", "no program\n")
        .entry(tar::EntryType::Regular, "bin/busybox", 0o755, (0, 0), &busybox);
    for applet in APPLETS {
        layer = layer.link(tar::EntryType::Symlink, &format!("bin/{applet}"), "busybox");
    }
    layer.done()
}

pub fn digest(bytes: &[u8]) -> String {
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}

pub fn config_json(layers: &[Vec<u8>], config: &str) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("{:?}", digest(layer))).collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Manifest, configuration and compressed layers of an image, by digest; the manifest first.
pub fn image_blobs(layers: &[Vec<u8>], config: &str) -> Vec<(String, Vec<u8>)> {
    let config = config_json(layers, config).into_bytes();
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let descriptor = |kind: &str, bytes: &[u8]| {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":{}}}"#, digest(bytes), bytes.len())
    };
    let listed: Vec<String> =
        packed.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer)).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        descriptor("application/vnd.oci.image.config.v1+json", &config),
        listed.join(",")
    );
    let mut blobs = vec![manifest.into_bytes(), config];
    blobs.extend(packed);
    blobs.into_iter().map(|bytes| (digest(&bytes), bytes)).collect()
}

/// An OCI layout as a tar.
pub fn oci_archive(reference: &str, layers: &[Vec<u8>], config: &str) -> Vec<u8> {
    let blobs = image_blobs(layers, config);
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},
            "annotations":{{"io.containerd.image.name":"{reference}"}}}}]}}"#,
        blobs[0].0,
        blobs[0].1.len()
    );
    let mut layer = Layer::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).file("index.json", &index);
    for (digest, bytes) in &blobs {
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        layer = layer.entry(tar::EntryType::Regular, &path, 0o644, (0, 0), bytes);
    }
    layer.done()
}
