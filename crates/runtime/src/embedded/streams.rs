//! Exec and attach.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::libc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use super::client::ShimClient;
use super::containers::exited;
use super::session::{Terminal, input, output, writer};
use super::{Inner, new_id};
use crate::engine::{AttachConfig, ContainerState, EngineError, ExecConfig, Session};
use crate::shim::protocol::{Answer, Op, StartExec};

/// Signals for one command that may wait to be sent.
const SIGNALS_MAX: usize = 4;

type Reader = Box<dyn AsyncRead + Send + Unpin>;
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// This side's ends of pipes, and the other ends in the order stdin, stdout, stderr.
#[derive(Default)]
struct Pipes {
    stdin: Option<Writer>,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    theirs: Vec<OwnedFd>,
}

impl Inner {
    pub(super) async fn exec(self: &Arc<Self>, id: &str, config: ExecConfig) -> Result<Session, EngineError> {
        let entry = self.container(id)?;
        if !matches!(*entry.state.borrow(), ContainerState::Running { .. }) {
            return Err(EngineError::WrongState(format!("container {id} does not run")));
        }
        let shim = self.shim_of(&entry)?;
        let exec = new_id();
        let mut payload = entry.record.payload.clone();
        payload.args = config.command;
        if config.tty && !payload.env.iter().any(|entry| entry.starts_with("TERM=")) {
            payload.env.push("TERM=xterm".to_owned());
        }
        let mut pipes = Pipes::default();
        if !config.tty {
            pipes = Pipes::new(config.stdin, config.stdout, config.stderr).map_err(streams_failed)?;
        }
        let start = StartExec {
            container: id.to_owned(),
            exec: exec.clone(),
            tty: config.tty,
            stdin: config.stdin,
            stdout: config.stdout,
            stderr: config.stderr,
            payload,
        };
        let exit = shim.expect_exec(&exec);
        let mut abandoned = Abandoned { command: Some((shim.clone(), exec.clone())) };
        let called = shim.call(Op::Exec(Box::new(start)), std::mem::take(&mut pipes.theirs)).await;
        abandoned.command = None;
        let (_, fds) = called.map_err(|error| {
            shim.forget_exec(&exec);
            exec_failed(&exec, error)
        })?;
        let kill = Some(signaller(shim, exec));
        match fds.into_iter().next() {
            Some(terminal) => {
                let terminal = Terminal::new(terminal).map_err(streams_failed)?;
                Ok(terminal_session(&terminal, config.stdin, config.stdout, exit, kill))
            }
            None => {
                Ok(Session { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr, resize: None, exit, kill })
            }
        }
    }

    pub(super) async fn attach(self: &Arc<Self>, id: &str, config: AttachConfig) -> Result<Session, EngineError> {
        let entry = self.container(id)?;
        let shim = self.shim_of(&entry)?;
        let stderr = config.stderr && !entry.record.config.tty;
        let mut pipes = Pipes::new(false, config.stdout, stderr).map_err(streams_failed)?;
        let op = Op::Attach { container: id.to_owned(), stdin: config.stdin, stdout: config.stdout, stderr };
        let (answer, fds) = shim.call(op, std::mem::take(&mut pipes.theirs)).await?;
        let (sender, exit) = oneshot::channel();
        tokio::spawn(async move {
            let mut sender = sender;
            tokio::select! {
                exit = exited(&entry) => drop(sender.send(exit.code)),
                () = sender.closed() => {}
            }
        });
        let mut session =
            Session { stdin: None, stdout: pipes.stdout, stderr: pipes.stderr, resize: None, exit, kill: None };
        match (answer, fds.into_iter().next()) {
            (Answer::Attached { terminal: true }, Some(fd)) => {
                let terminal = Terminal::new(fd).map_err(streams_failed)?;
                session.resize = Some(terminal.resizer());
                session.stdin = config.stdin.then(|| Box::new(terminal) as Writer);
            }
            (_, Some(fd)) => session.stdin = Some(writer(fd).map_err(streams_failed)?),
            (_, None) => {}
        }
        Ok(session)
    }
}

impl Pipes {
    fn new(stdin: bool, stdout: bool, stderr: bool) -> io::Result<Pipes> {
        let mut pipes = Pipes::default();
        if stdin {
            let (own, theirs) = input()?;
            pipes.stdin = Some(own);
            pipes.theirs.push(theirs);
        }
        for (wanted, slot) in [(stdout, &mut pipes.stdout), (stderr, &mut pipes.stderr)] {
            if wanted {
                let (own, theirs) = output()?;
                *slot = Some(own);
                pipes.theirs.push(theirs);
            }
        }
        Ok(pipes)
    }
}

fn terminal_session(
    terminal: &Terminal,
    stdin: bool,
    stdout: bool,
    exit: oneshot::Receiver<i32>,
    kill: Option<mpsc::Sender<i32>>,
) -> Session {
    Session {
        stdin: stdin.then(|| Box::new(terminal.clone()) as Writer),
        stdout: stdout.then(|| Box::new(terminal.clone()) as Reader),
        stderr: None,
        resize: Some(terminal.resizer()),
        exit,
        kill,
    }
}

/// Kills a command whose caller goes before it has an answer: nobody would ever end it, and a probe that runs out of time again
/// and again would fill the machine with them.
struct Abandoned {
    command: Option<(Arc<ShimClient>, String)>,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let (Some((shim, exec)), Ok(runtime)) = (self.command.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let _ = shim.call(Op::KillExec { exec: exec.clone(), signal: libc::SIGKILL }, vec![]).await;
            shim.forget_exec(&exec);
        });
    }
}

/// Passes signals on to a command for as long as somebody may send them.
fn signaller(shim: Arc<ShimClient>, exec: String) -> mpsc::Sender<i32> {
    let (sender, mut receiver) = mpsc::channel(SIGNALS_MAX);
    tokio::spawn(async move {
        while let Some(signal) = receiver.recv().await {
            let _ = shim.call(Op::KillExec { exec: exec.clone(), signal }, vec![]).await;
        }
    });
    sender
}

/// In the words of containerd, which users know from `kubectl exec`.
fn exec_failed(exec: &str, error: EngineError) -> EngineError {
    match error {
        EngineError::Failed(cause) => {
            EngineError::Failed(format!("failed to exec in container: failed to start exec {exec:?}: {cause}"))
        }
        other => other,
    }
}

fn streams_failed(source: io::Error) -> EngineError {
    EngineError::Io { context: "cannot make streams".to_owned(), source }
}
