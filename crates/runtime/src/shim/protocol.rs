//! What the engine and a sandbox's shim say to each other: JSON frames with a length in front over a UNIX stream socket,
//! with file descriptors beside them.
//!
//! A frame is `u32 length, u32 number of descriptors` (little endian) and the JSON body; the descriptors travel with the first
//! byte. The shim outlives the engine's process, so both sides may be of different versions: fields are only ever added, with
//! defaults, and unknown fields are ignored.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

/// Largest frame either side accepts: a command line of 2 MiB and room for its environment.
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;
/// Most descriptors beside one frame.
pub(crate) const FRAME_FDS_MAX: usize = 4;
const HEADER_BYTES: usize = 8;
const READ_BYTES: usize = 16 << 10;

/// How to run one process in a container: all that is not in the bundle's `config.json`, because it has to be done at the
/// last moment before `execve`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Bit n is capability number n.
    pub capabilities: u64,
    pub no_new_privileges: bool,
    pub seccomp: SeccompChoice,
    pub oom_score_adj: Option<i32>,
}

/// Which system call filter the process gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    Profile(PathBuf),
}

/// One container to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartContainer {
    pub container: String,
    /// Absolute directory with `config.json` and `rootfs`; `state.json` is written here.
    pub bundle: PathBuf,
    /// Below every cgroup hierarchy's mount point, without a leading slash.
    pub cgroup: String,
    pub log: PathBuf,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Kill what is left in the cgroup when the main process ends (it does not have a PID namespace of its own).
    pub kill_rest: bool,
    /// See `launch::Work`.
    pub own_mounts: bool,
    pub payload: Payload,
}

/// One command to run in a running container; stdin, stdout and stderr travel as descriptors in this order where asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartExec {
    pub container: String,
    pub exec: String,
    pub tty: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub payload: Payload,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Op {
    /// What the shim holds.
    List,
    Start(Box<StartContainer>),
    Exec(Box<StartExec>),
    Kill {
        container: String,
        signal: i32,
    },
    KillExec {
        exec: String,
        signal: i32,
    },
    /// Write ends for the wanted outputs come as descriptors; the answer carries stdin's write end, or the terminal.
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Forget an exited container.
    Forget {
        container: String,
    },
    /// Kill everything and end.
    Shutdown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub id: u64,
    pub op: Op,
}

/// Where a container's main process is; also the content of `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It was asked for, and neither runs nor has failed yet. Never in the file.
    Starting,
    Running {
        pid: i32,
        started: i64,
    },
    Exited(Ended),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// Unix time in nanoseconds; 0 when it never ran.
    pub started: i64,
    pub finished: i64,
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub start_error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// The thing asked for is not there, or not in the state for it.
    Refused(String),
    /// A process that could not be started, in the field's words.
    StartFailed(String),
    List {
        containers: Vec<(String, Phase)>,
        /// A process in the shared PID namespace, when there is one.
        pause_pid: Option<i32>,
    },
    Started {
        pid: i32,
        started: i64,
    },
    /// `terminal` when the one descriptor beside is a terminal's master side.
    Attached {
        terminal: bool,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Answer {
        id: u64,
        answer: Answer,
    },
    /// To those who did not ask for it: whoever did may have gone meanwhile.
    Started {
        container: String,
        pid: i32,
        started: i64,
    },
    Exited {
        container: String,
        ended: Ended,
    },
    ExecExited {
        exec: String,
        code: i32,
    },
}

/// What a shim is started with: `shim.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub sandbox: String,
    pub hostname: String,
    pub netns: Option<PathBuf>,
    pub host_ipc: bool,
    pub host_network: bool,
    pub share_pid: bool,
    pub sysctls: std::collections::BTreeMap<String, String>,
    /// For the process that holds a shared PID namespace.
    pub pause_cgroup: String,
    /// Where the shim itself goes, out of the server's cgroup.
    pub shim_cgroup: String,
}

/// A frame ready to be sent.
#[derive(Debug)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    sent: usize,
}

impl Frame {
    pub(crate) fn new<T: Serialize>(message: &T, fds: Vec<OwnedFd>) -> io::Result<Frame> {
        let mut bytes = vec![0; HEADER_BYTES];
        serde_json::to_writer(&mut bytes, message)?;
        let length = bytes.len() - HEADER_BYTES;
        if length > FRAME_BYTES_MAX || fds.len() > FRAME_FDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message to the shim is too large"));
        }
        bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&(fds.len() as u32).to_le_bytes());
        Ok(Frame { bytes, fds, sent: 0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sends what the socket takes; `true` when all is sent.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            let raw: Vec<_> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
            let slices = [IoSlice::new(&self.bytes[self.sent..])];
            self.sent += sendmsg::<UnixAddr>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?;
            self.fds.clear();
        }
        Ok(true)
    }
}

/// Puts frames together from what a socket delivers.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl FrameReader {
    /// One `recvmsg`; the number of bytes read, 0 at the end of the stream.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut chunk = [0u8; READ_BYTES];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; FRAME_FDS_MAX]);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        let message =
            recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
                self.fds.extend(fds.into_iter().map(|fd| unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }));
            }
        }
        let count = message.bytes;
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// A descriptor that came without a frame, as libcontainer sends terminals.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// The next whole message, if it is there.
    pub(crate) fn next<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        if self.bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let word = |at: usize| {
            u32::from_le_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]) as usize
        };
        let (length, fds) = (word(0), word(4));
        if length > FRAME_BYTES_MAX || fds > FRAME_FDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame is too large"));
        }
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
        }
        let message = serde_json::from_slice(&self.bytes[HEADER_BYTES..HEADER_BYTES + length])?;
        self.bytes.drain(..HEADER_BYTES + length);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn frames_keep_their_descriptors_and_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let (pipe, _keep) = io::pipe().unwrap();
        for (id, fds) in [(1, vec![]), (2, vec![OwnedFd::from(pipe)]), (3, vec![])] {
            let request = Request { id, op: Op::List };
            assert!(Frame::new(&request, fds).unwrap().send(left.as_fd()).unwrap());
        }
        let mut reader = FrameReader::default();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            reader.fill(right.as_fd()).unwrap();
            while let Some((request, fds)) = reader.next::<Request>().unwrap() {
                seen.push((request.id, fds.len()));
            }
        }
        assert_eq!(seen, [(1, 0), (2, 1), (3, 0)]);
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused() {
        let mut reader = FrameReader { bytes: vec![0xff; 8], fds: VecDeque::new() };
        assert!(reader.next::<Request>().is_err());
    }
}
