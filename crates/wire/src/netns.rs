//! Network namespaces that outlive their maker: each is pinned by a bind mount on a file.
//!
//! A thread that enters a namespace is one of our own, does only that, and ends; the async runtime's threads never move.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::statfs;

use crate::netlink::Socket;

/// The file of the calling thread's network namespace.
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";
/// `NETLINK_ROUTE` of linux/netlink.h.
pub(crate) const ROUTE: isize = 0;
/// `NSFS_MAGIC` of linux/magic.h.
const NAMESPACE_FILESYSTEM: i64 = 0x6e73_6673;
/// What container runtimes allow in every pod's own namespace: low ports and ping for ordinary users.
const POD_SETTINGS: [(&str, &str); 2] =
    [("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")];

/// A namespace at hand: its file, and a socket that works inside it.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) file: File,
    pub(crate) socket: Socket,
}

/// Makes a namespace, pinned at `path`.
pub(crate) fn create(path: &Path) -> io::Result<Namespace> {
    let path = path.to_path_buf();
    in_own_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        for (name, value) in POD_SETTINGS {
            // A kernel built without one of these is no reason to have no pod.
            if let Err(error) = write_setting(name, value) {
                tracing::debug!(name, %error, "cannot set");
            }
        }
        pin(Path::new(OWN_NAMESPACE), &path)?;
        Ok(Namespace { file: File::open(OWN_NAMESPACE)?, socket: Socket::open(ROUTE)? })
    })
}

/// Takes up a namespace that is pinned at `path`.
pub(crate) fn open(path: &Path) -> io::Result<Namespace> {
    let file = File::open(path)?;
    in_own_thread(move || {
        setns(&file, CloneFlags::CLONE_NEWNET)?;
        Ok(Namespace { socket: Socket::open(ROUTE)?, file })
    })
}

/// Gives a pinned namespace another name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    pin(from, to)?;
    unpin(from)
}

/// Whether a namespace is pinned at `path`; a plain file is left over from before a reboot.
pub(crate) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type().0 == NAMESPACE_FILESYSTEM)
}

/// Removes the pin. The namespace ends with the last process and socket in it.
pub(crate) fn unpin(path: &Path) -> io::Result<()> {
    while is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a setting below `/proc/sys` of the calling thread's namespace.
pub(crate) fn write_setting(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value)
}

fn pin(namespace: &Path, path: &Path) -> io::Result<()> {
    unpin(path)?;
    File::create(path)?;
    mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn in_own_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    thread::Builder::new()
        .name("netns".into())
        .spawn(work)?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that handles network namespaces failed")))
}
