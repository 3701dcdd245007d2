//! A container in the shim: its streams, its log, those attached to it, and its state file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::launch::{Launch, Streams};
use super::log::{Lines, LogFile, Output, timestamp};
use super::protocol::{Ended, FrameReader, Phase, StartContainer};

/// The container's last known state, in its bundle.
pub(crate) const STATE: &str = "state.json";
/// Bytes read from a container at once.
pub(crate) const READ_BYTES: usize = 32 << 10;
/// Output kept for who attaches first, of each stream, in bytes. `kubectl run -i` attaches only once it has seen the pod run; what
/// a quick command has said by then would be missed.
const EARLY_BYTES_MAX: usize = 64 << 10;
/// Reads of one stream before the others get their turn.
const READS_PER_TURN: usize = 4;
/// The terminal's socket, in libcontainer's directory.
const CONSOLE: &str = "console.sock";

/// One output of a container: to its log and to whoever is attached.
#[derive(Debug)]
pub(crate) struct Stream {
    pub fd: Option<OwnedFd>,
    pub output: Output,
    pub lines: Lines,
    pub sinks: Vec<Sink>,
    /// What has come before anybody was attached. `None` when nobody is waited for, or when it is too much to keep.
    early: Option<VecDeque<u8>>,
}

/// Somebody attached to an output. While it has pending bytes the stream is not read: a slow reader slows the container down,
/// as a terminal does, and loses nothing.
#[derive(Debug)]
pub(crate) struct Sink {
    pub fd: OwnedFd,
    pub pending: VecDeque<u8>,
}

impl Sink {
    /// Writes what it takes; `false` when its reader is gone.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match nix::unistd::write(&self.fd, self.pending.as_slices().0) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd, output: Output) -> io::Result<Stream> {
        set_nonblocking(fd.as_fd())?;
        Ok(Stream { fd: Some(fd), output, lines: Lines::default(), sinks: Vec::new(), early: None })
    }

    /// Keeps what comes until the first one attaches.
    fn keep_early(&mut self) {
        self.early = Some(VecDeque::new());
    }

    /// Adds a reader; the first one also gets what has come before.
    pub(crate) fn attach(&mut self, fd: OwnedFd) {
        let mut sink = Sink { fd, pending: self.early.take().unwrap_or_default() };
        if sink.flush() {
            self.sinks.push(sink);
        }
    }

    pub(crate) fn wants_read(&self) -> bool {
        self.fd.is_some() && self.sinks.iter().all(|sink| sink.pending.is_empty())
    }

    /// Reads what is there, up to a fair share. `drain` reads all, whoever is slow.
    pub(crate) fn pump(&mut self, log: &mut LogFile, buffer: &mut [u8], drain: bool) {
        let mut turn = 0;
        while drain || (turn < READS_PER_TURN && self.wants_read()) {
            turn += 1;
            let Some(fd) = &self.fd else { return };
            match nix::unistd::read(fd, buffer) {
                Ok(count) if count > 0 => self.deliver(log, &buffer[..count]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The end; a terminal says EIO.
                Ok(_) | Err(_) => return self.fd = None,
            }
        }
    }

    fn deliver(&mut self, log: &mut LogFile, chunk: &[u8]) {
        let now = timestamp(unix_nanos());
        let mut records = Vec::with_capacity(chunk.len() + 64);
        self.lines.push(chunk, self.output, &now, &mut records);
        log.write(&records, &now);
        if let Some(early) = &mut self.early {
            early.extend(chunk);
            if early.len() > EARLY_BYTES_MAX {
                self.early = None;
            }
        }
        self.sinks.retain_mut(|sink| {
            sink.pending.extend(chunk);
            sink.flush()
        });
    }

    pub(crate) fn finish(&mut self, log: &mut LogFile) {
        let now = timestamp(unix_nanos());
        let mut records = Vec::new();
        self.lines.finish(self.output, &now, &mut records);
        log.write(&records, &now);
        self.fd = None;
    }
}

/// A container that was started by this shim.
#[derive(Debug)]
pub(crate) struct Container {
    pub start: StartContainer,
    pub log: LogFile,
    pub streams: Vec<Stream>,
    /// Write end of standard input, or the terminal.
    pub stdin: Option<OwnedFd>,
    pub pid: Option<i32>,
    pub phase: Option<Phase>,
}

impl Container {
    pub(crate) fn running(&self) -> Option<i32> {
        match self.phase {
            Some(Phase::Running { pid, .. }) => Some(pid),
            _ => None,
        }
    }

    /// Takes the terminal over that the new process has sent.
    pub(crate) fn adopt_terminal(&mut self, launch: &Launch) -> io::Result<()> {
        if let Some(listener) = &launch.terminal {
            let terminal = receive_terminal(listener)?;
            self.stdin = Some(terminal.try_clone()?);
            let mut stream = Stream::new(terminal, Output::Stdout)?;
            if self.start.stdin_once {
                stream.keep_early();
            }
            self.streams.push(stream);
        }
        Ok(())
    }

    /// Reads to the end what the ended process has left, and closes the streams. Those attached keep what is pending.
    pub(crate) fn close_streams(&mut self, buffer: &mut [u8]) -> Vec<Sink> {
        let mut lingering = Vec::new();
        for stream in &mut self.streams {
            stream.pump(&mut self.log, buffer, true);
            stream.finish(&mut self.log);
            lingering.extend(stream.sinks.drain(..).filter(|sink| !sink.pending.is_empty()));
        }
        self.streams.clear();
        self.stdin = None;
        lingering
    }

    /// Writes the state file, so that the state is known when the shim is not there any more. No fsync: it has to survive
    /// the death of processes, while a machine that stops takes the containers with it.
    pub(crate) fn save(&self) {
        if let Some(phase) = &self.phase {
            let _ = write_state(&self.start.bundle, phase);
        }
    }
}

pub(crate) fn write_state(bundle: &Path, phase: &Phase) -> io::Result<()> {
    let new = bundle.join(format!("{STATE}.new"));
    std::fs::write(&new, serde_json::to_vec(phase)?)?;
    std::fs::rename(new, bundle.join(STATE))
}

/// The state file's content; `None` when there is none or it is not whole.
pub(crate) fn read_state(bundle: &Path) -> Option<Phase> {
    serde_json::from_slice(&std::fs::read(bundle.join(STATE)).ok()?).ok()
}

/// A process started by exec.
#[derive(Debug)]
pub(crate) struct Exec {
    /// `None` while its helper is under way.
    pub pid: Option<i32>,
    /// A signal that came before the process was there.
    pub doomed: Option<i32>,
    /// The connection that asked for it.
    pub connection: u64,
}

/// The shim's ends of a new process's streams.
#[derive(Debug, Default)]
pub(crate) struct OwnEnds {
    pub stdin: Option<OwnedFd>,
    pub streams: Vec<Stream>,
}

/// Makes the streams of a container's main process.
pub(crate) fn container_streams(start: &StartContainer, oci_root: &Path) -> io::Result<(Streams, OwnEnds)> {
    if start.tty {
        let (listener, path) = console_listener(oci_root, &start.container)?;
        return Ok((Streams::Terminal(listener, path), OwnEnds::default()));
    }
    let (stdin, own_stdin) = if start.stdin {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        (read, Some(write))
    } else {
        (OwnedFd::from(File::open("/dev/null")?), None)
    };
    let (out_read, stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (err_read, stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut streams = vec![Stream::new(out_read, Output::Stdout)?, Stream::new(err_read, Output::Stderr)?];
    if start.stdin_once {
        streams.iter_mut().for_each(Stream::keep_early);
    }
    Ok((Streams::Pipes { stdin, stdout, stderr }, OwnEnds { stdin: own_stdin, streams }))
}

/// A socket to which the new process will send its terminal.
pub(crate) fn console_listener(oci_root: &Path, name: &str) -> io::Result<(UnixListener, std::path::PathBuf)> {
    let path = oci_root.join(format!("{name}.{CONSOLE}"));
    let _ = std::fs::remove_file(&path);
    let handle = File::open(oci_root)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}.{CONSOLE}", handle.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok((listener, path))
}

/// The terminal that has been sent to the socket.
pub(crate) fn receive_terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    if let Ok(address) = listener.local_addr()
        && let Some(path) = address.as_pathname()
    {
        let _ = std::fs::remove_file(path);
    }
    let mut reader = FrameReader::default();
    reader.fill(stream.as_fd())?;
    reader.take_descriptor().ok_or_else(|| io::Error::other("the process has sent no terminal"))
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

pub(crate) fn unix_nanos() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A process that could never run.
pub(crate) fn start_failed(cause: &str) -> Ended {
    Ended { code: 128, start_error: Some(cause.to_owned()), finished: unix_nanos(), ..Ended::default() }
}
