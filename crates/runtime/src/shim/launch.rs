//! Forks the short-lived helper that makes a container or a further process in one with libcontainer.
//!
//! The helper is a single-threaded child of the single-threaded shim. It takes the memory that libcontainer needs with it when
//! it ends, and a hang in it (a dead network mount, say) never stops the shim from draining logs. What it creates is left to
//! the shim, which is the nearest subreaper. Progress comes as lines on a pipe: `P<pid>`, `E<cause>`; the end of the pipe says
//! that the program runs (the last holder is closed by `execve`).

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{ForkResult, fork};

use super::payload::{PayloadExecutor, report, set_process_name};
use super::protocol::Payload;
use crate::seccomp;

/// The three streams of a process, or the socket that will bring its terminal.
#[derive(Debug)]
pub(crate) enum Streams {
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(UnixListener, PathBuf),
}

/// What the helper shall make.
#[derive(Debug)]
pub(crate) enum Work<'a> {
    Container { bundle: &'a Path },
    Exec { process: &'a Path },
}

/// A helper under way.
#[derive(Debug)]
pub(crate) struct Launch {
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
    oci_root: &Path,
    container: &str,
    work: &Work<'_>,
    payload: Payload,
    streams: Streams,
) -> io::Result<Launch> {
    let (status, status_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: this process has one thread, so the child may do anything a new process may.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            let terminal = match streams {
                Streams::Terminal(listener, _) => Some(listener),
                Streams::Pipes { .. } => None,
            };
            Ok(Launch { status, terminal, text: Vec::new() })
        }
        ForkResult::Child => {
            set_process_name(c"stead-runc");
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            let result = helper(oci_root, container, work, payload, streams, status_end.as_raw_fd());
            match result {
                Ok(()) => exit(0),
                Err(text) => {
                    report(status_end.as_raw_fd(), 'E', &text);
                    exit(1)
                }
            }
        }
    }
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
    let done = match work {
        Work::Container { bundle } => make_container(builder, bundle, status),
        Work::Exec { process } => builder
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
            Launch { status, terminal: None, text: text.into() }.outcome()
        };
        let failed = |pid, error: &str| Outcome { pid, error: Some(error.to_owned()) };
        assert_eq!(outcome("P12\n"), Outcome { pid: Some(12), error: None });
        assert_eq!(outcome("P12\nEexec: no\n"), failed(Some(12), "exec: no"));
        assert_eq!(outcome("Eexec: no\nP12\n"), failed(Some(12), "exec: no"));
        assert_eq!(outcome(""), failed(None, "container helper ended early"));
    }
}
