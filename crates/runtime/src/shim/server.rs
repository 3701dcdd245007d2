//! The shim's loop: one `poll` over the engine's connections, children, outputs and those attached.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};

use super::OCI;
use super::launch::{Launch, Outcome, Streams, What, Work, launch};
use super::log::LogFile;
use super::process::{
    Container, Exec, READ_BYTES, Sink, console_listener, container_streams, receive_terminal, set_nonblocking,
    start_failed, unix_nanos,
};
use super::protocol::{Answer, Ended, Frame, FrameReader, Message, Op, Phase, Request, StartContainer, StartExec};
use crate::cgroup::Cgroups;

/// Engines connected at once: one server, and what looks in from the command line.
const CONNECTIONS_MAX: usize = 16;
/// Bytes waiting for an engine that does not read, before it is dropped.
const QUEUED_BYTES_MAX: usize = 4 << 20;
/// Those attached to one container at once.
const SINKS_MAX: usize = 32;

/// What every start error begins with, in the words of containerd and runc.
const START_FAILED: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc \
                            create failed: unable to start container process";
const EXEC_FAILED: &str = "OCI runtime exec failed: exec failed: unable to start container process";

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    queue: VecDeque<Frame>,
}

/// A helper under way and who wants to know.
#[derive(Debug)]
struct Pending {
    launch: Launch,
    connection: u64,
    request: u64,
    what: Target,
}

#[derive(Clone, Debug)]
enum Target {
    Container(String),
    Exec(String),
}

/// What a polled descriptor belongs to.
#[derive(Clone, Debug)]
enum Token {
    Listener,
    Signals,
    Connection(u64),
    Pending(usize),
    Stream(String, usize),
    Sink(String, usize, usize),
    Lingering(usize),
}

#[derive(Debug)]
pub(super) struct Server {
    oci_root: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    pause: Option<i32>,
    cgroups: Cgroups,
    next: u64,
    connections: BTreeMap<u64, Connection>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<String, Exec>,
    pending: Vec<Pending>,
    /// Ended processes whose PID the helper has not told yet.
    unclaimed: BTreeMap<i32, WaitStatus>,
    lingering: Vec<Sink>,
    /// Who waits for the end, once it is asked for.
    shutdown: Option<(u64, u64)>,
    buffer: Vec<u8>,
}

impl Server {
    pub(super) fn new(dir: &Path, listener: UnixListener, signals: &SigSet, pause: Option<i32>) -> io::Result<Server> {
        Ok(Server {
            oci_root: dir.join(OCI),
            listener,
            signals: SignalFd::with_flags(signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            pause,
            cgroups: Cgroups::read()?,
            next: 0,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            pending: Vec::new(),
            unclaimed: BTreeMap::new(),
            lingering: Vec::new(),
            shutdown: None,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Runs until it is told to shut down and everything has ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            for (token, events) in self.wait()? {
                self.handle(&token, events);
            }
            self.lingering.retain(|sink| !sink.pending.is_empty());
            if let Some((connection, request)) = self.shutdown
                && childless()
            {
                self.answer(connection, request, Answer::Done, vec![]);
                return Ok(());
            }
        }
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let (read, write, none) = (PollFlags::POLLIN, PollFlags::POLLOUT, PollFlags::empty());
        let mut polled: Vec<(Token, BorrowedFd<'_>, PollFlags)> =
            vec![(Token::Listener, self.listener.as_fd(), read), (Token::Signals, self.signals.as_fd(), read)];
        for (id, connection) in &self.connections {
            let events = if connection.queue.is_empty() { read } else { read | write };
            polled.push((Token::Connection(*id), connection.stream.as_fd(), events));
        }
        for (index, pending) in self.pending.iter().enumerate() {
            polled.push((Token::Pending(index), pending.launch.status.as_fd(), read));
        }
        for (id, container) in &self.containers {
            for (at, stream) in container.streams.iter().enumerate() {
                if let Some(fd) = stream.fd.as_ref().filter(|_| stream.wants_read()) {
                    polled.push((Token::Stream(id.clone(), at), fd.as_fd(), read));
                }
                for (index, sink) in stream.sinks.iter().enumerate() {
                    let events = if sink.pending.is_empty() { none } else { write };
                    polled.push((Token::Sink(id.clone(), at, index), sink.fd.as_fd(), events));
                }
            }
        }
        for (index, sink) in self.lingering.iter().enumerate() {
            polled.push((Token::Lingering(index), sink.fd.as_fd(), write));
        }
        let mut fds: Vec<PollFd<'_>> = polled.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        let ready = polled.iter().zip(&fds).filter_map(|((token, _, _), fd)| {
            let events = fd.revents().filter(|events| !events.is_empty())?;
            Some((token.clone(), events))
        });
        // From the back, so that indexes stay true while things are removed.
        Ok(ready.rev().collect())
    }

    fn handle(&mut self, token: &Token, events: PollFlags) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.on_signals(),
            Token::Connection(id) => self.on_connection(*id),
            Token::Pending(index) => self.on_status(*index),
            Token::Stream(id, at) => {
                if let Some(container) = self.containers.get_mut(id)
                    && let Some(stream) = container.streams.get_mut(*at)
                {
                    stream.pump(&mut container.log, &mut self.buffer, false);
                }
            }
            Token::Sink(id, at, index) => {
                let stream = self.containers.get_mut(id).and_then(|container| container.streams.get_mut(*at));
                if let Some(stream) = stream
                    && let Some(sink) = stream.sinks.get_mut(*index)
                    && (events.contains(PollFlags::POLLERR) || !sink.flush())
                {
                    stream.sinks.remove(*index);
                }
            }
            Token::Lingering(index) => {
                if let Some(sink) = self.lingering.get_mut(*index)
                    && (events.contains(PollFlags::POLLERR) || !sink.flush())
                {
                    sink.pending.clear();
                }
            }
        }
    }

    // --- connections ---

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            self.next += 1;
            let connection = Connection { stream, reader: FrameReader::default(), queue: VecDeque::new() };
            self.connections.insert(self.next, connection);
        }
    }

    fn on_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut open = connection.flush();
        let mut requests = Vec::new();
        while open {
            match connection.reader.fill(connection.stream.as_fd()) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => open = false,
            }
            loop {
                match connection.reader.next::<Request>() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(_) => {
                        open = false;
                        break;
                    }
                }
            }
        }
        for (request, fds) in requests {
            self.serve(id, request, fds);
        }
        if !open {
            self.connections.remove(&id);
        }
    }

    fn answer(&mut self, connection: u64, id: u64, answer: Answer, fds: Vec<OwnedFd>) {
        self.send(connection, &Message::Answer { id, answer }, fds);
    }

    fn send(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Ok(frame) = Frame::new(message, fds) else { return };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.queue.push_back(frame);
        let queued: usize = connection.queue.iter().map(Frame::len).sum();
        if !connection.flush() || queued > QUEUED_BYTES_MAX {
            self.connections.remove(&id);
        }
    }

    fn broadcast(&mut self, message: &Message) {
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send(id, message, vec![]);
        }
    }

    fn serve(&mut self, connection: u64, request: Request, fds: Vec<OwnedFd>) {
        let id = request.id;
        let answer = match request.op {
            Op::List => Ok(self.list()),
            Op::Start(start) => match self.start(connection, id, *start) {
                Ok(()) => return,
                Err(answer) => Err(answer),
            },
            Op::Exec(exec) => match self.exec(connection, id, *exec, fds) {
                Ok(()) => return,
                Err(answer) => Err(answer),
            },
            Op::Kill { container, signal } => self.kill_container(&container, signal),
            Op::KillExec { exec, signal } => Ok(self.kill_exec(&exec, signal)),
            Op::Attach { container, stdin, stdout, stderr } => {
                match self.attach(&container, stdin, [stdout, stderr], fds) {
                    Ok((answer, fds)) => return self.answer(connection, id, answer, fds),
                    Err(answer) => Err(answer),
                }
            }
            Op::Forget { container } => {
                if self.containers.get(&container).is_some_and(|container| container.running().is_none()) {
                    self.containers.remove(&container);
                }
                Ok(Answer::Done)
            }
            Op::Shutdown => {
                self.shutdown = Some((connection, id));
                self.kill_everything();
                return;
            }
        };
        self.answer(connection, id, answer.unwrap_or_else(|refusal| refusal), vec![]);
    }

    fn list(&self) -> Answer {
        let phase = |container: &Container| container.phase.clone().unwrap_or(Phase::Starting);
        let phases = self.containers.iter().map(|(id, container)| (id.clone(), phase(container)));
        Answer::List { containers: phases.collect(), pause_pid: self.pause }
    }

    fn kill_container(&self, id: &str, signal: i32) -> Result<Answer, Answer> {
        let container = self.containers.get(id).ok_or_else(|| refused(id, "is not known to its shim"))?;
        let pid = container.running().ok_or_else(|| refused(id, "does not run"))?;
        Ok(send_signal(pid, signal))
    }

    /// A command that is not there yet never comes when it is to be killed; any other signal waits for it.
    fn kill_exec(&mut self, id: &str, signal: i32) -> Answer {
        let Some(exec) = self.execs.get_mut(id) else { return refused(id, "has ended") };
        if let Some(pid) = exec.pid {
            return send_signal(pid, signal);
        }
        exec.doomed = Some(signal);
        let launch = self.pending.iter().find(|pending| matches!(&pending.what, Target::Exec(exec) if exec == id));
        if let Some(pending) = launch.filter(|_| signal == Signal::SIGKILL as i32) {
            pending.launch.abandon();
        }
        Answer::Done
    }

    fn kill_everything(&self) {
        let mains = self.containers.values().filter_map(|container| container.pid);
        let pids = mains.chain(self.execs.values().filter_map(|exec| exec.pid)).chain(self.pause);
        for pid in pids {
            send_signal(pid, Signal::SIGKILL as i32);
        }
        for container in self.containers.values() {
            self.cgroups.signal_kill(&container.start.cgroup);
        }
    }

    // --- starting ---

    fn start(&mut self, connection: u64, request: u64, start: StartContainer) -> Result<(), Answer> {
        let id = start.container.clone();
        if self.shutdown.is_some() || self.containers.contains_key(&id) {
            return Err(refused(&id, "cannot be started twice"));
        }
        let failed = |error: io::Error| Answer::StartFailed(format!("{START_FAILED}: {error}: unknown"));
        let log = LogFile::open(&start.log).map_err(failed)?;
        let (streams, own) = container_streams(&start, &self.oci_root).map_err(failed)?;
        let what = What::Container { bundle: &start.bundle };
        let work = Work { what, cgroup: &start.cgroup, own_mounts: start.own_mounts };
        let launch =
            launch(&self.cgroups, &self.oci_root, &id, &work, start.payload.clone(), streams).map_err(failed)?;
        let container = Container { start, log, streams: own.streams, stdin: own.stdin, pid: None, phase: None };
        self.containers.insert(id.clone(), container);
        self.pending.push(Pending { launch, connection, request, what: Target::Container(id) });
        Ok(())
    }

    fn exec(&mut self, connection: u64, request: u64, exec: StartExec, fds: Vec<OwnedFd>) -> Result<(), Answer> {
        let container = self.containers.get(&exec.container).filter(|container| container.running().is_some());
        let Some(container) = container.filter(|_| self.shutdown.is_none()) else {
            return Err(refused(&exec.container, "does not run"));
        };
        let failed = |error: io::Error| Answer::StartFailed(format!("{EXEC_FAILED}: {error}: unknown"));
        let streams = self.exec_streams(&exec, fds).map_err(failed)?;
        let process = self.oci_root.join(format!("{}.process.json", exec.exec));
        std::fs::write(&process, process_json(&exec)).map_err(failed)?;
        let what = What::Exec { process: &process };
        let work = Work { what, cgroup: &container.start.cgroup, own_mounts: true };
        let launch =
            launch(&self.cgroups, &self.oci_root, &exec.container, &work, exec.payload, streams).map_err(failed)?;
        self.execs.insert(exec.exec.clone(), Exec { pid: None, doomed: None, connection });
        self.pending.push(Pending { launch, connection, request, what: Target::Exec(exec.exec) });
        Ok(())
    }

    fn exec_streams(&self, exec: &StartExec, fds: Vec<OwnedFd>) -> io::Result<Streams> {
        if exec.tty {
            let (listener, path) = console_listener(&self.oci_root, &exec.exec)?;
            return Ok(Streams::Terminal(listener, path));
        }
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| match wanted.then(|| fds.next()).flatten() {
            Some(fd) => Ok(fd),
            None => std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from),
        };
        Ok(Streams::Pipes { stdin: take(exec.stdin)?, stdout: take(exec.stdout)?, stderr: take(exec.stderr)? })
    }

    /// The helper's pipe has something to say, or has ended: then the process runs or never will.
    fn on_status(&mut self, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let mut chunk = [0u8; 4096];
        match nix::unistd::read(&pending.launch.status, &mut chunk) {
            Ok(count) if count > 0 => return pending.launch.text.extend_from_slice(&chunk[..count]),
            Err(Errno::EINTR | Errno::EAGAIN) => return,
            Ok(_) | Err(_) => {}
        }
        let pending = self.pending.remove(index);
        let outcome = pending.launch.outcome();
        match &pending.what {
            Target::Container(id) => self.container_launched(&id.clone(), pending, outcome),
            Target::Exec(id) => self.exec_launched(&id.clone(), pending, outcome),
        }
        if self.pending.is_empty() {
            self.unclaimed.clear();
        }
    }

    fn container_launched(&mut self, id: &str, pending: Pending, outcome: Outcome) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let terminal = if outcome.error.is_none() { container.adopt_terminal(&pending.launch).err() } else { None };
        let error = outcome.error.or_else(|| terminal.map(|error| error.to_string()));
        let (Some(pid), None) = (outcome.pid, &error) else {
            let cause = format!("{START_FAILED}: {}: unknown", error.unwrap_or_default());
            if let Some(pid) = outcome.pid {
                send_signal(pid, Signal::SIGKILL as i32);
            }
            let ended = start_failed(&cause);
            container.phase = Some(Phase::Exited(ended.clone()));
            container.close_streams(&mut self.buffer);
            container.save();
            // The end first: who gets the answer looks at the state at once.
            self.broadcast(&Message::Exited { container: id.to_owned(), ended });
            return self.answer(pending.connection, pending.request, Answer::StartFailed(cause), vec![]);
        };
        let started = unix_nanos();
        container.pid = Some(pid);
        container.phase = Some(Phase::Running { pid, started });
        container.save();
        self.answer(pending.connection, pending.request, Answer::Started { pid, started }, vec![]);
        for other in self.connections.keys().copied().filter(|one| *one != pending.connection).collect::<Vec<_>>() {
            self.send(other, &Message::Started { container: id.to_owned(), pid, started }, vec![]);
        }
        if self.shutdown.is_some() {
            // It was not there yet when everything was killed.
            send_signal(pid, Signal::SIGKILL as i32);
        }
        if let Some(status) = self.unclaimed.remove(&pid) {
            self.container_ended(id, status);
        }
    }

    fn exec_launched(&mut self, id: &str, pending: Pending, outcome: Outcome) {
        let _ = std::fs::remove_file(self.oci_root.join(format!("{id}.process.json")));
        let terminal = match (&pending.launch.terminal, &outcome.error) {
            (Some(listener), None) => receive_terminal(listener).map(Some),
            _ => Ok(None),
        };
        let error = outcome.error.or_else(|| terminal.as_ref().err().map(ToString::to_string));
        let (Some(pid), None) = (outcome.pid, &error) else {
            self.execs.remove(id);
            if let Some(pid) = outcome.pid {
                send_signal(pid, Signal::SIGKILL as i32);
            }
            let cause = format!("{EXEC_FAILED}: {}: unknown", error.unwrap_or_default());
            return self.answer(pending.connection, pending.request, Answer::StartFailed(cause), vec![]);
        };
        if let Some(exec) = self.execs.get_mut(id) {
            exec.pid = Some(pid);
            if let Some(signal) = exec.doomed {
                send_signal(pid, signal);
            }
        }
        let fds = terminal.ok().flatten().into_iter().collect();
        self.answer(pending.connection, pending.request, Answer::Started { pid, started: unix_nanos() }, fds);
        if let Some(status) = self.unclaimed.remove(&pid) {
            self.exec_ended(id, status);
        }
    }

    // --- attaching ---

    fn attach(
        &mut self,
        id: &str,
        stdin: bool,
        outputs: [bool; 2],
        fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), Answer> {
        let container = self.containers.get_mut(id).filter(|container| container.running().is_some());
        let container = container.ok_or_else(|| refused(id, "does not run"))?;
        let mut fds = fds.into_iter();
        for (at, wanted) in outputs.into_iter().enumerate() {
            let Some(fd) = wanted.then(|| fds.next()).flatten() else { continue };
            let Some(stream) = container.streams.get_mut(at) else { continue };
            if stream.sinks.len() >= SINKS_MAX || set_nonblocking(fd.as_fd()).is_err() {
                return Err(refused(id, "has too many attached to it"));
            }
            stream.attach(fd);
        }
        let terminal = container.start.tty;
        let mut own = container.stdin.as_ref().filter(|_| stdin || terminal).and_then(|fd| fd.try_clone().ok());
        if stdin && container.start.stdin_once && !terminal {
            own = container.stdin.take().or(own);
        }
        Ok((Answer::Attached { terminal }, own.into_iter().collect()))
    }

    // --- ending ---

    fn on_signals(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(status) => {
                    if let Some(pid) = status.pid() {
                        self.reaped(pid.as_raw(), status);
                    }
                }
            }
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus) {
        let container = self.containers.iter().find(|(_, container)| container.running() == Some(pid));
        if let Some(id) = container.map(|(id, _)| id.clone()) {
            return self.container_ended(&id, status);
        }
        let exec = self.execs.iter().find(|(_, exec)| exec.pid == Some(pid)).map(|(id, _)| id.clone());
        if let Some(id) = exec {
            return self.exec_ended(&id, status);
        }
        if !self.pending.is_empty() {
            self.unclaimed.insert(pid, status);
        }
    }

    fn container_ended(&mut self, id: &str, status: WaitStatus) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (code, signal) = exit_code(status);
        if container.start.kill_rest {
            self.cgroups.signal_kill(&container.start.cgroup);
        }
        let lingering = container.close_streams(&mut self.buffer);
        let started = match container.phase {
            Some(Phase::Running { started, .. }) => started,
            _ => 0,
        };
        let oom_killed = self.cgroups.oom_kills(&container.start.cgroup) > 0;
        let ended = Ended { started, finished: unix_nanos(), code, signal, oom_killed, start_error: None };
        container.pid = None;
        container.phase = Some(Phase::Exited(ended.clone()));
        container.save();
        self.lingering.extend(lingering);
        self.broadcast(&Message::Exited { container: id.to_owned(), ended });
    }

    fn exec_ended(&mut self, id: &str, status: WaitStatus) {
        if let Some(exec) = self.execs.remove(id) {
            let (code, _) = exit_code(status);
            self.send(exec.connection, &Message::ExecExited { exec: id.to_owned(), code }, vec![]);
        }
    }
}

impl Connection {
    /// Sends what the socket takes; `false` when it is broken.
    fn flush(&mut self) -> bool {
        while let Some(frame) = self.queue.front_mut() {
            match frame.send(self.stream.as_fd()) {
                Ok(_) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

fn refused(id: &str, why: &str) -> Answer {
    Answer::Refused(format!("{id} {why}"))
}

/// Whether no child is left, not even one that has ended; reaps nothing.
fn childless() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags) == Err(Errno::ECHILD)
}

fn send_signal(pid: i32, signal: i32) -> Answer {
    // SAFETY: takes numbers only. Not nix's `kill`, which knows no real-time signals.
    match Errno::result(unsafe { nix::libc::kill(pid, signal) }) {
        Ok(_) | Err(Errno::ESRCH) => Answer::Done,
        Err(errno) => Answer::Refused(format!("cannot send signal {signal} to process {pid}: {errno}")),
    }
}

/// Exit code as the field counts it (128 + signal), and the signal.
fn exit_code(status: WaitStatus) -> (i32, Option<i32>) {
    match status {
        WaitStatus::Exited(_, code) => (code, None),
        WaitStatus::Signaled(_, signal, _) => (128 + signal as i32, Some(signal as i32)),
        _ => (255, None),
    }
}

/// The process in the form of the OCI runtime specification, for libcontainer. Capabilities and `noNewPrivileges` are missing
/// on purpose: see `payload`.
fn process_json(exec: &StartExec) -> Vec<u8> {
    let payload = &exec.payload;
    serde_json::json!({
        "terminal": exec.tty,
        "user": {"uid": payload.uid, "gid": payload.gid, "additionalGids": payload.groups, "umask": 0o022},
        "args": payload.args,
        "env": payload.env,
        "cwd": payload.cwd,
    })
    .to_string()
    .into_bytes()
}
