//! The last steps of a container process before its program: system call filter, capabilities, look-up, `execve`.
//!
//! libcontainer would drop capabilities earlier, but a filter can only be set without `no_new_privs` while CAP_SYS_ADMIN is
//! still there; so capabilities, `no_new_privs` and the filter are all set here, in the order that each of them needs.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::AccessFlags;
use seccompiler::BpfProgram;

use super::protocol::Payload;

/// Exit code of a process whose program the kernel would not run, as runc has it.
const EXEC_REFUSED: i32 = 255;

/// Hands the process over to its program. Errors before that go to the status pipe as one line `E<text>`.
#[derive(Clone, Debug)]
pub(crate) struct PayloadExecutor {
    pub payload: Payload,
    pub filters: Vec<BpfProgram>,
    pub status: RawFd,
}

impl Executor for PayloadExecutor {
    fn exec(&self, _spec: &Spec) -> Result<(), ExecutorError> {
        let text = match self.run() {
            Ok(never) => match never {},
            Err(text) => text,
        };
        report(self.status, 'E', &text);
        // SAFETY: ends this process, which only exists to become the payload, without running handlers inherited by fork.
        unsafe { libc::_exit(EXEC_REFUSED) }
    }

    fn validate(&self, _spec: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is given to execve; this process keeps its own.
        Ok(())
    }
}

impl PayloadExecutor {
    fn run(&self) -> Result<std::convert::Infallible, String> {
        let payload = &self.payload;
        let late_filter = payload.no_new_privileges;
        if !late_filter {
            self.install_filters()?;
        }
        set_capabilities(payload.capabilities).map_err(|errno| format!("unable to apply caps: {errno}"))?;
        if payload.no_new_privileges {
            set_no_new_privileges().map_err(|errno| format!("unable to set no_new_privs: {errno}"))?;
        }
        if late_filter {
            self.install_filters()?;
        }
        let name = payload.args.first().map_or("", String::as_str);
        let path = look_path(name, &payload.env).map_err(|cause| format!("exec: {name:?}: {cause}"))?;
        let args = c_strings(&payload.args)?;
        let env = c_strings(&payload.env)?;
        reset_signals();
        let errno = match nix::unistd::execve(&path, &args, &env) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        // The start has been answered by now in the field's runtimes, so this is the program's own failure: it shows in its log.
        let _ = writeln!(std::io::stderr(), "exec {}: {}", path.to_string_lossy(), describe(errno));
        // SAFETY: as above.
        unsafe { libc::_exit(EXEC_REFUSED) }
    }

    fn install_filters(&self) -> Result<(), String> {
        for filter in &self.filters {
            install_filter(filter).map_err(|errno| format!("unable to init seccomp: {errno}"))?;
        }
        Ok(())
    }
}

/// Writes one line to the status pipe. Lines are shorter than PIPE_BUF, so they are never mixed.
pub(crate) fn report(status: RawFd, tag: char, text: &str) {
    let mut line = format!("{tag}{}", text.replace('\n', " "));
    line.truncate(line.floor_char_boundary(2000));
    line.push('\n');
    // SAFETY: the caller's descriptor is open for the life of this process.
    let fd = unsafe { BorrowedFd::borrow_raw(status) };
    let _ = nix::unistd::write(fd, line.as_bytes());
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>, String> {
    strings
        .iter()
        .map(|text| CString::new(text.as_bytes()).map_err(|_| "exec: argument holds a NUL byte".to_owned()))
        .collect()
}

/// Finds the program as a shell would, with the words of Go's `exec.LookPath`, which is what users know.
fn look_path(name: &str, env: &[String]) -> Result<CString, String> {
    if name.is_empty() {
        return Err("no command".to_owned());
    }
    if name.contains('/') {
        return executable(name);
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    path.split(':')
        .map(|dir| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") })
        .find_map(|candidate| executable(&candidate).ok())
        .ok_or_else(|| "executable file not found in $PATH".to_owned())
}

fn executable(path: &str) -> Result<CString, String> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        format!("stat {path}: {}", describe(errno))
    })?;
    if metadata.is_dir() {
        return Err("is a directory".to_owned());
    }
    nix::unistd::access(Path::new(path), AccessFlags::X_OK).map_err(|_| "permission denied".to_owned())?;
    CString::new(path).map_err(|_| "invalid argument".to_owned())
}

/// Error texts as Go prints them: lower case.
fn describe(errno: Errno) -> String {
    let text = errno.desc();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().collect::<String>() + chars.as_str())
}

fn install_filter(filter: &BpfProgram) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    // SAFETY: the kernel copies the program, whose instructions have the kernel's layout (seccompiler's `sock_filter` is
    // `repr(C)` with the same fields), before the call returns.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    Errno::result(result).map(drop)
}

fn set_no_new_privileges() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAPABILITY_LAST: u32 = 63;

/// Leaves the wanted capabilities, as far as this process has them itself, in the bounding, permitted and effective sets;
/// the inheritable and ambient sets stay empty (as runtimes do since CVE-2022-24769).
fn set_capabilities(wanted: u64) -> Result<(), Errno> {
    let mut header = CapabilityHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 reads and writes exactly two data elements.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let own = u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32;
    let keep = wanted & own;
    for capability in 0..=CAPABILITY_LAST {
        if keep & (1 << capability) == 0 {
            // SAFETY: takes numbers only.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
            if result < 0 {
                if Errno::last() == Errno::EINVAL {
                    break; // beyond the kernel's last capability
                }
                return Err(Errno::last());
            }
        }
    }
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    for (index, element) in data.iter_mut().enumerate() {
        let half = (keep >> (32 * index)) as u32;
        *element = CapabilityData { effective: half, permitted: half, inheritable: 0 };
    }
    // SAFETY: as for capget.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Rust ignores SIGPIPE, the shim blocks SIGCHLD, and the server may have been started with more; all of it would survive
/// execve. By system call, because libc keeps two real-time signals to itself.
fn reset_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    const SIGNALS: i32 = 64;
    const MASK_BYTES: usize = 8;
    // The kernel's `struct sigaction`, all zero: default handler, no flags, empty mask.
    let default = [0u64; 4];
    for signal in 1..=SIGNALS {
        // SAFETY: the kernel reads one `sigaction` of at most 32 bytes; SIGKILL and SIGSTOP are refused, which is fine.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), MASK_BYTES)
        };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Names this process, for `ps`.
pub(crate) fn set_process_name(name: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a NUL terminated string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_up_speaks_like_the_field() {
        let env = |path: &str| vec![format!("PATH={path}")];
        for (name, path, expected) in [
            ("sh", "/nowhere:/bin", Ok("/bin/sh")),
            ("/bin/sh", "", Ok("/bin/sh")),
            ("nosuch", "/bin", Err("executable file not found in $PATH")),
            ("sh", "", Err("executable file not found in $PATH")),
            ("/nosuch", "/bin", Err("stat /nosuch: no such file or directory")),
            ("/etc", "/bin", Err("is a directory")),
            ("/etc/passwd", "/bin", Err("permission denied")),
            ("", "/bin", Err("no command")),
        ] {
            let found = look_path(name, &env(path)).map(|path| path.into_string().unwrap());
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned), "{name}");
        }
    }
}
