//! The node with the embedded engine and the kernel's network, in namespaces of the test's own. The API server reaches the
//! node's endpoints, so that `kube` can exec, read logs and forward ports.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Api, Client};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use stead_apiserver::{AsyncReadWrite, NodeDialer};
use stead_informer::{Cache, Caches, system_clock};
use stead_node::{Node, NodeConfig};
use stead_runtime::Engine;
use stead_runtime::embedded::{self, Options, ShimCommand};
use stead_wire::Network;
use stead_wire::kernel::KernelConfig;
use tokio_util::sync::CancellationToken;

use super::{NAMESPACE, Pod, Value, api, create, pod, until};

pub const IMAGE: &str = "docker.io/library/tiny:1";

pub struct Real {
    pub dir: tempfile::TempDir,
    pub client: Client,
    pub caches: Caches,
    pub engine: Option<Arc<dyn Engine>>,
    pub network: Arc<dyn Network>,
    pub node: Arc<Node>,
    reach: Arc<Reach>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Reach(parking_lot::Mutex<Option<Arc<Node>>>);

#[async_trait::async_trait]
impl NodeDialer for Reach {
    async fn connect(&self, _: &str) -> std::io::Result<Box<dyn AsyncReadWrite>> {
        let node = self.0.lock().clone().ok_or(std::io::ErrorKind::NotConnected)?;
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let node = node.clone();
                async move { Ok::<_, std::convert::Infallible>(node.handle(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            let _ = connection.with_upgrades().await;
        });
        Ok(Box::new(ours))
    }
}

/// Runs a test in fresh network and mount namespaces, which end with it.
pub fn isolated<F: Future<Output = ()>>(number: u8, test: impl FnOnce(Real) -> F + Send) {
    super::trace();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async { test(Real::new(number).await).await });
        });
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

impl Real {
    async fn new(number: u8) -> Real {
        let dir = tempfile::Builder::new().prefix("stead-node-").tempdir().expect("a directory");
        let reach = Arc::new(Reach::default());
        let client = api(dir.path(), reach.clone()).await;
        let caches = Caches::new(client.clone());
        let engine = embedded::open(options(&dir)).await.expect("an engine");
        let archive = dir.path().join("tiny.tar");
        std::fs::write(&archive, busybox_archive()).expect("written");
        engine.import(archive).await.expect("imported");
        let network = stead_wire::kernel::open(KernelConfig {
            instance: format!("n{number}"),
            pod_cidr: format!("10.{number}.0.0/24"),
            cluster_cidr: format!("10.{number}.0.0/16"),
            service_cidr: format!("10.{}.0.0/16", number + 1),
            cluster_dns: IpAddr::from([10, number + 1, 0, 10]),
            node_ip: Ipv4Addr::new(192, 0, 2, 1).into(),
            run_dir: dir.path().join("net"),
        });
        let network = network.expect("a network");
        let stop = CancellationToken::new();
        let node = start(&dir, number, &caches, engine.clone(), network.clone(), &stop);
        *reach.0.lock() = Some(node.clone());
        Real { dir, client, caches, engine: Some(engine), network, node, reach, stop }
    }

    /// Another process takes the node over: nothing but disk and kernel stays.
    pub async fn restart(&mut self, number: u8) {
        self.stop.cancel();
        self.stop = CancellationToken::new();
        let engine = embedded::open(options(&self.dir)).await.expect("an engine");
        self.engine = Some(engine.clone());
        self.node = start(&self.dir, number, &self.caches, engine, self.network.clone(), &self.stop);
        *self.reach.0.lock() = Some(self.node.clone());
    }

    pub fn pods(&self) -> Cache<Pod> {
        self.caches.of::<Pod>()
    }

    pub fn api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub async fn pod(&self, name: &str, spec: Value) -> Pod {
        create(&self.client, &pod(name, spec)).await
    }

    pub async fn until(&self, name: &str, what: impl FnMut(&Pod) -> bool) -> Arc<Pod> {
        until(&self.pods(), name, what).await
    }

    pub async fn gone(&self, name: &str) {
        let cache = self.pods();
        let waiting = cache.until(|cache| cache.get(NAMESPACE, name).is_none());
        tokio::time::timeout(super::LONG, waiting).await.expect("the pod goes");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.stop.cancel();
        self.engine = None;
        let options = options(&self.dir);
        let killed = embedded::kill_all(&options.root, &options.run, &options.cgroup_root);
        if !std::thread::panicking() {
            killed.expect("everything goes");
        }
    }
}

fn options(dir: &tempfile::TempDir) -> Options {
    let mark = dir.path().file_name().and_then(|name| name.to_str()).expect("a name");
    Options {
        root: dir.path().join("engine"),
        run: dir.path().join("run"),
        cgroup_root: format!("stead-test-{mark}"),
        shim: ShimCommand { program: env!("CARGO_BIN_EXE_stead-node-shim-test").into(), args: vec!["__shim".into()] },
        registries: None,
    }
}

fn start(
    dir: &tempfile::TempDir,
    number: u8,
    caches: &Caches,
    engine: Arc<dyn Engine>,
    network: Arc<dyn Network>,
    stop: &CancellationToken,
) -> Arc<Node> {
    let cidr = format!("10.{number}.0.0/24");
    let mut config = NodeConfig::new("n1", dir.path().join("node"), IpAddr::from([192, 0, 2, 1]), &cidr);
    config.cluster_dns = vec![IpAddr::from([10, number + 1, 0, 10])];
    let node = Node::new(config, (caches, caches), engine, network, system_clock(), stop.clone()).expect("a node");
    let running = node.clone();
    tokio::spawn(async move { running.run().await.expect("the node runs") });
    node
}

/// `docker save` of an image with nothing but busybox.
fn busybox_archive() -> Vec<u8> {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(build_archive).clone()
}

fn build_archive() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin", "etc", "tmp", "root"] {
        append(&mut layer, tar::EntryType::Directory, dir, 0o755, b"");
    }
    append(&mut layer, tar::EntryType::Regular, "bin/busybox", 0o755, &busybox);
    append(&mut layer, tar::EntryType::Regular, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    for applet in [
        "sh", "echo", "cat", "sleep", "id", "hostname", "ls", "env", "httpd", "wget", "nc", "stat", "mount", "kill",
        "trap", "true", "false", "touch", "ps", "df",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("appended");
    }
    let layer = layer.into_inner().expect("a layer");
    let digest = sha256(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    let manifest = format!(r#"[{{"Config":"config.json","RepoTags":["{IMAGE}"],"Layers":["layer.tar"]}}]"#);
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, tar::EntryType::Regular, "manifest.json", 0o644, manifest.as_bytes());
    append(&mut archive, tar::EntryType::Regular, "config.json", 0o644, config.as_bytes());
    append(&mut archive, tar::EntryType::Regular, "layer.tar", 0o644, &layer);
    archive.into_inner().expect("an archive")
}

fn append(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data).expect("appended");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
