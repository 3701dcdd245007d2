//! Forks the short-lived helper that makes a container or a further process in one with libcontainer.
//!
//! The helper is a single-threaded child of the single-threaded shim. It takes the memory that libcontainer needs with it when
//! it ends, and a hang in it (a dead network mount, say) never stops the shim from draining logs. What it creates is left to
//! the shim, which is the nearest subreaper. Progress comes as lines on a pipe: `P<pid>`, `E<cause>`; the end of the pipe says
//! that the program runs (the last holder is closed by `execve`).

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork};

use super::payload::{PayloadExecutor, report, set_process_name};
use super::protocol::Payload;
use crate::cgroup::Cgroups;
use crate::seccomp;

/// The three streams of a process, or the socket that will bring its terminal.
#[derive(Debug)]
pub(crate) enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(UnixListener, PathBuf),
}

/// What the helper shall make, and in which cgroup.
#[derive(Debug)]
pub(crate) struct Work<'a> {
    pub what: What<'a>,
    pub cgroup: &'a str,
    /// The helper may have a mount namespace of its own: the container neither sees all cgroups nor passes mounts on.
    pub own_mounts: bool,
}

#[derive(Debug)]
pub(crate) enum What<'a> {
    Container { bundle: &'a Path },
    Exec { process: &'a Path },
}

/// A helper under way.
#[derive(Debug)]
pub(crate) struct Launch {
    pub helper: i32,
    pub status: OwnedFd,
    pub terminal: Option<UnixListener>,
    pub text: Vec<u8>,
}

/// What the status pipe has told when it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub pid: Option<i32>,
    pub error: Option<String>,
}

impl Launch {
    /// Ends the helper and what it has begun. Its status pipe then tells that it ended.
    pub(crate) fn abandon(&self) {
        kill_with_children(self.helper);
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let text = String::from_utf8_lossy(&self.text);
        let line = |tag: char| text.lines().find_map(|line| line.strip_prefix(tag)).map(str::to_owned);
        let pid = line('P').and_then(|pid| pid.parse().ok());
        let error = line('E').or_else(|| pid.is_none().then(|| "container helper ended early".to_owned()));
        Outcome { pid, error }
    }
}

/// Starts the helper. `oci_root` is libcontainer's state directory for this sandbox.
pub(crate) fn launch(
    cgroups: &Cgroups,
    oci_root: &Path,
    container: &str,
    work: &Work<'_>,
    payload: Payload,
    streams: Streams,
) -> io::Result<Launch> {
    let (status, status_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let birthplace = if work.own_mounts { cgroups.birthplace(work.cgroup) } else { None };
    // SAFETY: this process has one thread, so the child may do anything a new process may.
    match unsafe { fork_into(birthplace.as_ref()) }? {
        ForkResult::Parent { child } => {
            let terminal = match streams {
                Streams::Terminal(listener, _) => Some(listener),
                Streams::Pipes { .. } => None,
            };
            Ok(Launch { helper: child.as_raw(), status, terminal, text: Vec::new() })
        }
        ForkResult::Child => {
            set_process_name(c"stead-runc");
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let enter = || {
                if work.own_mounts {
                    enter_cgroup(cgroups, work.cgroup, birthplace.is_some());
                }
            };
            match helper(oci_root, container, work, payload, streams, status_end.as_raw_fd(), enter) {
                Ok(()) => exit(0),
                Err(text) => {
                    report(status_end.as_raw_fd(), 'E', &text);
                    exit(1)
                }
            }
        }
    }
}

/// Stopped first, so that it has no further child between the look and the kill.
fn kill_with_children(pid: i32) {
    signal(pid, libc::SIGSTOP);
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        kill_with_children(child);
    }
    signal(pid, libc::SIGKILL);
}

/// To a child of this process, or a child of one: what has ended meanwhile needs none.
fn signal(pid: i32, signal: c_int) {
    // SAFETY: takes numbers only.
    let _ = unsafe { libc::kill(pid, signal) };
}

/// Goes to the container's cgroup before libcontainer does, which takes the slow way. Where this fails, that way is left.
fn enter_cgroup(cgroups: &Cgroups, group: &str, born_there: bool) {
    if !born_there && (cgroups.is_unified() || cgroups.enter_v1(group).is_err()) {
        return;
    }
    let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    let separated =
        unshare(CloneFlags::CLONE_NEWNS).and_then(|()| mount(None::<&str>, "/", None::<&str>, slave, None::<&str>));
    if separated.is_ok() {
        let _ = cgroups.cover_procs(group);
    }
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks, on cgroup version 2 into the given group: a process that is born in a group need not be moved to it.
///
/// # Safety
/// The process must have one thread.
unsafe fn fork_into(group: Option<&File>) -> nix::Result<ForkResult> {
    if let Some(group) = group {
        let arguments = CloneArguments {
            flags: CLONE_INTO_CGROUP,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: group.as_raw_fd() as u64,
            ..CloneArguments::default()
        };
        // SAFETY: like fork, without sharing anything; with one thread there is no lock that the child could find held.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) } {
            0 => return Ok(ForkResult::Child),
            pid if pid > 0 => return Ok(ForkResult::Parent { child: Pid::from_raw(pid as i32) }),
            _ => {}
        }
    }
    // SAFETY: by the caller's promise.
    unsafe { fork() }
}

fn exit(code: c_int) -> ! {
    // SAFETY: ends the forked helper without running handlers inherited from the shim.
    unsafe { libc::_exit(code) }
}

fn helper(
    oci_root: &Path,
    container: &str,
    work: &Work<'_>,
    payload: Payload,
    streams: Streams,
    status: c_int,
    enter_cgroup: impl FnOnce(),
) -> Result<(), String> {
    if let Some(score) = payload.oom_score_adj {
        // Without CAP_SYS_RESOURCE it can be raised only: then the process keeps what it inherits.
        let _ = std::fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    let filters = seccomp::programs(&payload.seccomp, payload.capabilities)?;
    let executor = PayloadExecutor { payload, filters, status };
    let mut builder = ContainerBuilder::new(container.to_owned(), SyscallType::default())
        .with_root_path(oci_root)
        .map_err(|error| chain(&error))?
        .with_executor(executor);
    builder = match streams {
        Streams::Pipes { stdin, stdout, stderr } => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
        Streams::Terminal(_, path) => builder.with_console_socket(Some(path)),
    };
    // As late as possible, so that little of the helper's memory counts as the container's.
    enter_cgroup();
    let done = match work.what {
        What::Container { bundle } => make_container(builder, bundle, status),
        What::Exec { process } => builder
            .as_tenant()
            .with_detach(true)
            .with_process(Some(process))
            .build()
            .map(|pid| report(status, 'P', &pid.to_string())),
    };
    done.map_err(|error| chain(&error))
}

fn make_container(builder: ContainerBuilder, bundle: &Path, status: c_int) -> Result<(), LibcontainerError> {
    let mut container = builder.as_init(bundle).with_systemd(false).with_detach(true).build()?;
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    report(status, 'P', &pid.to_string());
    container.start()
}

/// An error with its causes, outermost first, as Go prints wrapped errors.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        let outcome = |text: &str| {
            let (status, _) = nix::unistd::pipe().unwrap();
            Launch { helper: 0, status, terminal: None, text: text.into() }.outcome()
        };
        let failed = |pid, error: &str| Outcome { pid, error: Some(error.to_owned()) };
        assert_eq!(outcome("P12\n"), Outcome { pid: Some(12), error: None });
        assert_eq!(outcome("P12\nEexec: no\n"), failed(Some(12), "exec: no"));
        assert_eq!(outcome("Eexec: no\nP12\n"), failed(Some(12), "exec: no"));
        assert_eq!(outcome(""), failed(None, "container helper ended early"));
    }
}
