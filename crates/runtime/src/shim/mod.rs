//! The shim: one small single-threaded process per sandbox that outlives the engine.
//!
//! It holds the pod's namespaces, is the parent of its processes, writes their log files, remembers how they ended (in memory
//! and in `state.json` files) and answers the engine on a socket. It never waits for anything but `poll`.

pub(crate) mod launch;
pub(crate) mod log;
pub(crate) mod payload;
pub(crate) mod process;
pub(crate) mod protocol;
mod server;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, fork};

use crate::cgroup;
use protocol::ShimConfig;

/// The shim's socket in its directory.
pub(crate) const SOCKET: &str = "shim.sock";
/// What the shim is started with, in its directory.
pub(crate) const CONFIG: &str = "shim.json";
/// libcontainer's state, in the shim's directory.
pub(crate) const OCI: &str = "oci";
/// Where the shim says why it ended, should it ever do so by itself.
const LOG: &str = "shim.log";
const ACCEPT_BACKLOG: i32 = 16;

/// Entry of the shim program: to be called from `main` before any thread exists, with the arguments after `__shim`.
/// Returns the exit code of the starting process, which ends as soon as the shim is ready; the cause of a failure is on
/// standard error.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let Some(dir) = args.into_iter().next() else {
        eprintln!("shim: directory is missing");
        return 2;
    };
    match start(Path::new(&dir)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn start(dir: &Path) -> Result<(), String> {
    close_inherited();
    let config = std::fs::read(dir.join(CONFIG)).map_err(|error| format!("cannot read {CONFIG}: {error}"))?;
    let config: ShimConfig =
        serde_json::from_slice(&config).map_err(|error| format!("cannot understand {CONFIG}: {error}"))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let listener = bind(dir).map_err(|error| format!("cannot listen in {}: {error}", dir.display()))?;
    std::fs::create_dir_all(dir.join(OCI)).map_err(|error| format!("cannot make {OCI}: {error}"))?;
    cgroup::join_everywhere(&config.shim_cgroup);
    enter_namespaces(&config)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(|error| format!("cannot fork: {error}"))? {
        ForkResult::Parent { .. } => Ok(()),
        ForkResult::Child => {
            let code = match serve(dir, &config, listener) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("shim of {}: {error}", config.sandbox);
                    1
                }
            };
            // SAFETY: ends the daemon without running handlers meant for the starting process.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Descriptors of the server (sockets, the store) must not live on in the shim.
fn close_inherited() {
    // SAFETY: nothing in this process uses a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Socket paths are limited to 108 bytes, directories are not: so by way of the directory's descriptor.
fn bind(dir: &Path) -> io::Result<UnixListener> {
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle = File::open(dir)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()))?;
    // SAFETY: takes numbers only; a second listen sets the backlog.
    unsafe { libc::listen(listener.as_raw_fd(), ACCEPT_BACKLOG) };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the shim whose directory this is.
pub(crate) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let handle = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()))
}

fn enter_namespaces(config: &ShimConfig) -> Result<(), String> {
    if let Some(path) = &config.netns {
        let netns = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|error| format!("cannot open network namespace {}: {error}", path.display()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|error| format!("cannot join network namespace {}: {error}", path.display()))?;
    }
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWIPC, !config.host_ipc);
    flags.set(CloneFlags::CLONE_NEWUTS, !config.hostname.is_empty());
    unshare(flags).map_err(|error| format!("cannot make namespaces: {error}"))?;
    if !config.hostname.is_empty() {
        std::fs::write("/proc/sys/kernel/hostname", &config.hostname)
            .map_err(|error| format!("cannot set hostname {:?}: {error}", config.hostname))?;
    }
    for (name, value) in &config.sysctls {
        let path = PathBuf::from("/proc/sys").join(sysctl_path(name));
        std::fs::write(&path, value).map_err(|error| format!("cannot set sysctl {name}={value}: {error}"))?;
    }
    Ok(())
}

/// `net.ipv4.tcp_syncookies` or `net/ipv4/conf/eth0.1/forwarding` (the first separator decides, as in sysctl(8)).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        _ => name.split('.').map(|part| part.replace('/', ".")).collect::<Vec<_>>().join("/"),
    }
}

fn serve(dir: &Path, config: &ShimConfig, listener: UnixListener) -> io::Result<()> {
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    redirect_streams(dir)?;
    payload::set_process_name(c"stead-shim");
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    let pause = if config.share_pid { Some(start_pause(&config.pause_cgroup)?) } else { None };
    server::Server::new(dir, listener, &signals, pause)?.run()?;
    let _ = std::fs::remove_file(dir.join(SOCKET));
    Ok(())
}

fn redirect_streams(dir: &Path) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let log = File::options().create(true).append(true).open(dir.join(LOG))?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}

/// Makes the shared PID namespace and its init process, which does nothing but reap. Returns its PID.
fn start_pause(cgroup: &str) -> io::Result<i32> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // A go-between, because the namespace applies to children: the shim's own children shall not all be in it.
    // SAFETY: this process has one thread.
    let between = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            cgroup::join_everywhere(cgroup);
            let code = match make_pause(write) {
                Ok(()) => 0,
                Err(_) => 1,
            };
            // SAFETY: ends the go-between.
            unsafe { libc::_exit(code) }
        }
    };
    drop(write);
    nix::sys::wait::waitpid(between, None)?;
    let mut text = [0u8; 16];
    let count = nix::unistd::read(read.as_fd(), &mut text)?;
    let pid = std::str::from_utf8(&text[..count]).ok().and_then(|text| text.parse().ok());
    pid.ok_or_else(|| io::Error::other("cannot make the shared PID namespace"))
}

fn make_pause(write: OwnedFd) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            nix::unistd::write(write.as_fd(), child.as_raw().to_string().as_bytes())?;
            Ok(())
        }
        ForkResult::Child => {
            drop(write);
            close_inherited();
            payload::set_process_name(c"pause");
            let mut wanted = SigSet::empty();
            wanted.add(Signal::SIGCHLD);
            loop {
                let _ = wanted.wait();
                while let Ok(status) = nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                    if status == nix::sys::wait::WaitStatus::StillAlive {
                        break;
                    }
                }
            }
        }
    }
}

/// A descriptor that the kernel has just given us.
///
/// # Safety
/// Nobody else may own it.
pub(crate) unsafe fn own(fd: i32) -> OwnedFd {
    // SAFETY: by the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn sysctl_names() {
        for (name, path) in [
            ("net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(super::sysctl_path(name), path);
        }
    }
}
