//! Namespaces made in advance, with everything in them that does not depend on the pod.
//!
//! Making one takes 10 to 25 ms (most of it waiting inside the kernel), giving it to a pod less than one.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;

use parking_lot::Mutex;

use super::{Core, Settings, io_error, refused};
use crate::netlink::Socket;
use crate::netns::{self, Namespace};
use crate::network::WireError;
use crate::route::{self, End, Mac};

/// How many are kept ready: as many pods may start at the same moment without waiting.
const SPARES: usize = 4;
/// All host ends have this hardware address: each is alone with its pod, and pods know it without asking.
pub(super) const HOST_MAC: Mac = [0x02, 0x73, 0x74, 0x65, 0x61, 0x64];
/// The name of the interface inside of a pod, as with every container runtime.
const INNER_NAME: &str = "eth0";

/// A namespace that belongs to no pod yet.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) namespace: Namespace,
    pub(super) pin: PathBuf,
    /// Number of the host's end of the pair.
    pub(super) link: u32,
    /// Number of the end inside.
    pub(super) inner: u32,
    /// Hardware address of the end inside.
    pub(super) mac: Mac,
}

impl Spare {
    /// Makes the namespace, the pair of interfaces, and the routes inside.
    pub(super) fn make(settings: &Settings, host: &Socket) -> Result<Self, WireError> {
        let random = RandomState::new().hash_one(0u8);
        let name = format!("{}{:08x}", settings.link_prefix(), random >> 32);
        let mac = mac_of(random);
        let pin = settings.pin(&name);
        let namespace = netns::create(&pin).map_err(|e| io_error("make a network namespace", e))?;
        let made = Self::furnish(settings, host, &namespace, &name, mac);
        match made {
            Ok((link, inner)) => Ok(Self { namespace, pin, link, inner, mac }),
            Err(error) => {
                // Best effort: the next start removes pins without an interface.
                let _ = netns::unpin(&pin);
                Err(error)
            }
        }
    }

    fn furnish(
        settings: &Settings,
        host: &Socket,
        namespace: &Namespace,
        name: &str,
        mac: Mac,
    ) -> Result<(u32, u32), WireError> {
        let here = End { name, mac: HOST_MAC };
        let there = End { name: INNER_NAME, mac };
        host.request(route::new_pair(&here, &there, Some(namespace.file.as_raw_fd()), settings.mtu))
            .map_err(|e| refused(&format!("interface {name}"), &e))?;
        let link = find(host, name)?;
        // Lets the answers to connections that began at 127.0.0.1:<node port> come back; the rules drop all else.
        netns::write_setting(&format!("net/ipv4/conf/{name}/route_localnet"), "1")
            .map_err(|e| io_error(&format!("set up interface {name}"), e))?;
        let inner = find(&namespace.socket, INNER_NAME)?;
        let gateway = settings.gateway;
        let inside = vec![
            route::link_up(route::LOOPBACK),
            route::link_up(inner),
            route::neighbour(inner, gateway, HOST_MAC),
            route::Route::default(gateway, inner).add(),
        ];
        namespace.socket.requests(inside).map_err(|e| refused(&format!("inside of interface {name}"), &e))?;
        route::until_it_passes(name).map_err(|e| io_error(&format!("wait for interface {name}"), e))?;
        // An alias without an id says: finished, free.
        host.request(route::link_alias(link, &settings.alias("")))
            .map_err(|e| refused(&format!("interface {name}"), &e))?;
        Ok((link, inner))
    }

    /// Takes up a finished spare of an earlier process.
    fn take_up(settings: &Settings, link: &route::Link) -> Option<Self> {
        let pin = settings.pin(&link.name);
        let namespace = netns::open(&pin).ok()?;
        let inner = route::link(&namespace.socket, INNER_NAME).ok()?;
        let used = route::addresses(&namespace.socket).ok()?.iter().any(|(at, a)| *at == inner.index && a.is_ipv4());
        (!used).then(|| Self { namespace, pin, link: link.index, inner: inner.index, mac: inner.mac })
    }
}

fn mac_of(random: u64) -> Mac {
    let b = random.to_be_bytes();
    // Locally administered, not multicast.
    [0x0a, b[3], b[4], b[5], b[6], b[7]]
}

fn find(socket: &Socket, name: &str) -> Result<u32, WireError> {
    route::link(socket, name).map(|link| link.index).map_err(|e| refused(&format!("interface {name}"), &e))
}

/// The spares that are ready, and the way to ask for more.
#[derive(Debug)]
pub(super) struct Pool {
    ready: Mutex<Vec<Spare>>,
    /// Held while one is made.
    making: Mutex<()>,
    closed: AtomicBool,
    requests: SyncSender<()>,
}

impl Pool {
    pub(super) fn new() -> (Self, Receiver<()>) {
        // One place: a second request while one waits says nothing new.
        let (requests, receiver) = sync_channel(1);
        (Self { ready: Mutex::default(), making: Mutex::default(), closed: AtomicBool::new(false), requests }, receiver)
    }

    /// Keeps the finished spare behind `link`, if there is room and it is in order.
    pub(super) fn take_up(&self, settings: &Settings, link: &route::Link) -> bool {
        let mut ready = self.ready.lock();
        if ready.len() >= SPARES || !netns::is_pinned(&settings.pin(&link.name)) {
            return false;
        }
        let spare = Spare::take_up(settings, link);
        let kept = spare.is_some();
        ready.extend(spare);
        kept
    }

    pub(super) fn take(&self) -> Option<Spare> {
        let spare = self.ready.lock().pop();
        self.request_refill();
        spare
    }

    pub(super) fn request_refill(&self) {
        // Full: a request waits already. Disconnected: the instance is going down.
        let _ = self.requests.try_send(());
    }

    /// Makes no more, and waits for one in the making; whoever closes removes what there is.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let _made = self.making.lock();
        self.ready.lock().clear();
    }

    fn wants_more(&self) -> bool {
        self.ready.lock().len() < SPARES && !self.closed.load(Ordering::Acquire)
    }
}

/// Starts the thread that makes spares whenever one was taken. It ends with the instance.
pub(super) fn start_refill(core: &Arc<Core>, requests: Receiver<()>) -> io::Result<()> {
    let core = Arc::downgrade(core);
    let socket = Socket::open(netns::ROUTE)?;
    thread::Builder::new().name("netns-spares".into()).spawn(move || refill(&core, &socket, &requests)).map(drop)
}

fn refill(core: &Weak<Core>, socket: &Socket, requests: &Receiver<()>) {
    while requests.recv().is_ok() {
        while let Some(core) = core.upgrade() {
            match make_one(&core, socket) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The next pod makes its own namespace and shows the error where somebody looks.
                    tracing::warn!(%error, "cannot make a spare network namespace");
                    break;
                }
            }
        }
    }
}

/// Makes one if one is wanted. `false`: there are enough.
fn make_one(core: &Core, socket: &Socket) -> Result<bool, WireError> {
    let _making = core.pool.making.lock();
    if !core.pool.wants_more() {
        return Ok(false);
    }
    let spare = Spare::make(&core.settings, socket)?;
    core.pool.ready.lock().push(spare);
    Ok(true)
}
