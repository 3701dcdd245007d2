//! Talking to a process in a container: standard streams, a terminal, its exit code.

mod terminal;

use std::io::{Read as _, Write as _};

use futures::SinkExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub(crate) use self::terminal::{Terminal, is_terminal};
use crate::failure::{Failure, Result, plain};
use crate::session::Session;

/// What is read of standard input at a time, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// How many chunks of standard input wait for the network.
const CHUNKS_WAITING_MAX: usize = 8;

/// How to talk to a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talk {
    pub(crate) container: String,
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
    /// Say nothing of the process' exit code: the caller tells what became of the pod.
    pub(crate) silent: bool,
}

impl Talk {
    /// Takes the terminal back when there is none to give.
    pub(crate) fn checked(mut self, session: &Session) -> Self {
        if self.tty && !self.stdin {
            self.tty = false;
        }
        if self.tty && !is_terminal() {
            session.err("Unable to use a TTY - input is not a terminal or the right kind of file\n");
            self.tty = false;
        }
        self
    }

    fn params(&self) -> AttachParams {
        AttachParams::default()
            .container(self.container.clone())
            .stdin(self.stdin)
            .stdout(true)
            .stderr(!self.tty)
            .tty(self.tty)
    }
}

/// Runs a command in a container, with this program's standard streams.
pub(crate) async fn exec(session: &Session, namespace: &str, pod: &str, talk: &Talk, command: &[String]) -> Result {
    let server = session.server().await?;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), namespace);
    let process = pods.exec(pod, command, &talk.params()).await.map_err(|error| refused(server.failure(error)))?;
    converse(process, talk).await
}

/// Attaches to what a container runs, with this program's standard streams.
pub(crate) async fn attach(session: &Session, namespace: &str, pod: &str, talk: &Talk) -> Result {
    let server = session.server().await?;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), namespace);
    let process = pods.attach(pod, &talk.params()).await.map_err(|error| refused(server.failure(error)))?;
    converse(process, talk).await
}

/// Runs a command for its output, with `input` on its standard input.
pub(crate) async fn capture(
    session: &Session,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[String],
    input: Option<mpsc::Receiver<Vec<u8>>>,
    mut output: impl FnMut(&[u8]) -> Result,
) -> Result {
    let server = session.server().await?;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), namespace);
    let params =
        AttachParams::default().container(container).stdin(input.is_some()).stdout(true).stderr(true).tty(false);
    let mut process = pods.exec(pod, command, &params).await.map_err(|error| refused(server.failure(error)))?;
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let feeding = async {
        if let (Some(mut stdin), Some(mut input)) = (stdin, input) {
            while let Some(chunk) = input.recv().await {
                if stdin.write_all(&chunk).await.is_err() {
                    break;
                }
            }
            // The process may have ended before its input did.
            let _ = stdin.shutdown().await;
        }
    };
    let reading = async {
        match stdout {
            Some(stdout) => copy(stdout, &mut output).await,
            None => Ok(()),
        }
    };
    let complaining = async {
        match stderr {
            Some(stderr) => copy(stderr, &mut |bytes| Ok(std::io::stderr().lock().write_all(bytes)?)).await,
            None => Ok(()),
        }
    };
    let status = process.take_status();
    let ((), read, complained) = futures::join!(feeding, reading, complaining);
    read?;
    complained?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    ended(status.and_then(|status| serde_json::to_value(status).ok()).as_ref(), false)
}

async fn converse(mut process: AttachedProcess, talk: &Talk) -> Result {
    let terminal = if talk.tty { Some(Terminal::raw()?) } else { None };
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status();
    let resizing = process.terminal_size().map(|sizes| tokio::spawn(resize(sizes)));
    let feeding = stdin.map(|mut stdin| {
        let mut input = standard_input();
        tokio::spawn(async move {
            while let Some(chunk) = input.recv().await {
                if stdin.write_all(&chunk).await.is_err() || stdin.flush().await.is_err() {
                    return;
                }
            }
            // The process may have ended before its input did.
            let _ = stdin.shutdown().await;
        })
    });
    let out = async {
        match stdout {
            Some(stdout) => copy(stdout, &mut |bytes| to_stdout(bytes)).await,
            None => Ok(()),
        }
    };
    let err = async {
        match stderr {
            Some(stderr) => copy(stderr, &mut |bytes| Ok(std::io::stderr().lock().write_all(bytes)?)).await,
            None => Ok(()),
        }
    };
    let (out, err) = futures::join!(out, err);
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    for task in [feeding, resizing].into_iter().flatten() {
        task.abort();
    }
    drop(terminal);
    out?;
    err?;
    ended(status.and_then(|status| serde_json::to_value(status).ok()).as_ref(), talk.silent)
}

/// Writes to standard output at once.
pub(crate) fn to_stdout(bytes: &[u8]) -> Result {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

async fn copy(mut from: impl AsyncRead + Unpin, to: &mut impl FnMut(&[u8]) -> Result) -> Result {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(length) => to(&buffer[..length])?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Standard input in chunks, read by a thread of its own: such a read cannot be taken back.
fn standard_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = stdin.read(&mut buffer) {
            if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Tells the size of the terminal now and after each change.
async fn resize(mut sizes: futures::channel::mpsc::Sender<TerminalSize>) {
    let Ok(mut changes) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()) else { return };
    loop {
        if let Some((width, height)) = terminal::size()
            && sizes.send(TerminalSize { width, height }).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// A refusal to open the streams, in kubectl's words.
fn refused(failure: Failure) -> Failure {
    match failure.reason() {
        // A refusal in plain text, as nodes give it.
        "Failed to parse error data" => {
            Failure::Plain(format!("unable to upgrade connection: {}", failure.message().trim_end()))
        }
        "InternalError" => Failure::Plain(failure.message()),
        _ => failure,
    }
}

/// What the Status at the end of a process means for this program.
fn ended(status: Option<&Value>, silent: bool) -> Result {
    let Some(status) = status else { return Ok(()) };
    if status["status"] != "Failure" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array();
    let exit = causes.and_then(|causes| causes.iter().find(|cause| cause["reason"] == "ExitCode"));
    match exit.and_then(|exit| exit["message"].as_str()).and_then(|code| code.parse::<i32>().ok()) {
        Some(code) if status["reason"] == "NonZeroExitCode" => {
            if !silent {
                // Nobody is left to tell when standard error is closed.
                let _ = writeln!(std::io::stderr().lock(), "command terminated with exit code {code}");
            }
            Err(Failure::Code(u8::try_from(code & 0xff).unwrap_or(1)))
        }
        _ => plain(status["message"].as_str().unwrap_or("the process ended in an unknown way")),
    }
}
