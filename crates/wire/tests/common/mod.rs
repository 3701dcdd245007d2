//! A world of the test's own: fresh network and mount namespaces in a fresh thread, gone with it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use stead_wire::kernel::{KernelConfig, open};
use stead_wire::{Network, PodLink, PodNet};

/// Long enough for a connection on this machine; tests wait for it only when they fail.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a test in its own namespaces.
pub fn isolated<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                sh("ip link set lo up");
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(test());
            })
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
}

/// Two namespaces joined by a wire: the test's own is the node (192.0.2.1), `outside` is a neighbour (192.0.2.2) that
/// routes nothing through the node except what it is told.
pub fn wire_to_outside(dir: &Path) -> std::path::PathBuf {
    let pin = dir.join("outside");
    File::create(&pin).unwrap();
    let target = pin.clone();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        sh("ip link set lo up");
    })
    .join()
    .unwrap();
    std::fs::create_dir_all("/run/netns").unwrap();
    sh(&format!(
        "mount -t tmpfs none /run/netns && touch /run/netns/outside && mount --bind {} /run/netns/outside",
        pin.display()
    ));
    sh("ip link add node0 type veth peer name eth0 netns outside");
    sh("ip addr add 192.0.2.1/24 dev node0 && ip link set node0 up");
    inside(&pin, || sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up"));
    pin
}

pub fn config(instance: &str, number: u8, dir: &Path) -> KernelConfig {
    KernelConfig {
        instance: instance.into(),
        pod_cidr: format!("10.{number}.0.0/24"),
        cluster_cidr: format!("10.{number}.0.0/16"),
        service_cidr: format!("10.{}.0.0/16", number + 1),
        cluster_dns: format!("10.{}.0.10", number + 1).parse().unwrap(),
        node_ip: "192.0.2.1".parse().unwrap(),
        run_dir: dir.join(instance),
    }
}

pub async fn network(instance: &str, number: u8, dir: &Path) -> Arc<dyn Network> {
    let network = open(config(instance, number, dir)).unwrap();
    network.prepare().await.unwrap();
    network
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn pod(id: &str, address: &str) -> PodNet {
    PodNet { id: id.into(), addresses: vec![ip(address)], host_ports: Vec::new() }
}

pub async fn attach(network: &Arc<dyn Network>, id: &str, address: &str) -> PodLink {
    network.attach(&pod(id, address)).await.unwrap()
}

pub fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Does something inside of a namespace, in a thread of its own.
pub fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(File::open(netns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// A TCP server inside of a namespace that answers each connection with its name and the caller's address, then keeps
/// echoing what it gets.
pub fn serve(netns: &Path, address: &str, name: &'static str) {
    let listener = inside(netns, || TcpListener::bind(address).unwrap());
    serve_on(listener, name);
}

pub fn serve_on(listener: TcpListener, name: &'static str) {
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let peer = connection.peer_addr().unwrap().ip();
                connection.write_all(format!("{name} {peer}\n").as_bytes()).ok();
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = connection.read(&mut buffer) {
                    connection.write_all(&buffer[..n]).ok();
                }
            });
        }
    });
}

/// A UDP server that answers each packet with its name.
pub fn serve_udp(netns: &Path, address: &str, name: &'static str) {
    let socket = inside(netns, || UdpSocket::bind(address).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), from).ok();
        }
    });
}

/// Connects from the calling thread's namespace and returns the server's line, or the error's kind.
pub fn call(address: &str) -> Result<String, std::io::ErrorKind> {
    let mut connection = connect(address)?;
    line(&mut connection)
}

pub fn connect(address: &str) -> Result<TcpStream, std::io::ErrorKind> {
    let address: SocketAddr = address.parse().unwrap();
    let connection = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.kind())?;
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(connection)
}

pub fn line(connection: &mut TcpStream) -> Result<String, std::io::ErrorKind> {
    let mut line = Vec::new();
    let mut byte = [0];
    while connection.read(&mut byte).map_err(|e| e.kind())? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line).unwrap())
}

/// Sends one packet and returns the answer.
pub fn ask_udp(address: &str) -> Result<String, std::io::ErrorKind> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"?").map_err(|e| e.kind())?;
    let mut buffer = [0; 64];
    let n = socket.recv(&mut buffer).map_err(|e| e.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}
