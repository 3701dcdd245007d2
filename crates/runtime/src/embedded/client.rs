//! The engine's connection to one shim: requests with their answers, and what the shim tells by itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::engine::EngineError;
use crate::shim::protocol::{Answer, Ended, Frame, FrameReader, Message, Op, Request};

/// What a shim tells by itself.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A container runs that somebody before this connection has asked for.
    Started {
        container: String,
        pid: i32,
        started: i64,
    },
    Exited {
        container: String,
        ended: Ended,
    },
    /// The connection is gone: the shim has ended, or never was.
    Gone,
}

type Waiting = HashMap<u64, oneshot::Sender<(Answer, Vec<OwnedFd>)>>;

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    next: AtomicU64,
    /// `None` once the connection is gone.
    waiting: Mutex<Option<Waiting>>,
    /// Exit codes of commands that were asked for over this connection.
    execs: Mutex<HashMap<String, oneshot::Sender<i32>>>,
    sending: tokio::sync::Mutex<()>,
}

/// A connection to a shim. Dropping it leaves the shim alone.
#[derive(Debug)]
pub(crate) struct ShimClient {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

impl Drop for ShimClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl ShimClient {
    /// Connects to the shim in `dir`; `on_notice` is called in the order in which things happen.
    pub(crate) fn connect(dir: &Path, on_notice: impl Fn(Notice) + Send + Sync + 'static) -> io::Result<ShimClient> {
        let stream = crate::shim::connect(dir)?;
        stream.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            stream: UnixStream::from_std(stream)?,
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(Waiting::new())),
            execs: Mutex::default(),
            sending: tokio::sync::Mutex::default(),
        });
        let reader = tokio::spawn({
            let shared = shared.clone();
            async move {
                let _ = shared.read(&on_notice).await;
                shared.close();
                on_notice(Notice::Gone);
            }
        });
        Ok(ShimClient { shared, reader })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&self, op: Op, fds: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>), EngineError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(gone()),
        }
        let mut frame = Frame::new(&Request { id, op }, fds).map_err(io_failed)?;
        self.shared.send(&mut frame).await.map_err(io_failed)?;
        match receiver.await.map_err(|_| gone())? {
            (Answer::Refused(why), _) => Err(EngineError::WrongState(why)),
            (Answer::StartFailed(why), _) => Err(EngineError::Failed(why)),
            answer => Ok(answer),
        }
    }

    /// The exit code of a command that is about to be asked for.
    pub(crate) fn expect_exec(&self, exec: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.execs).insert(exec.to_owned(), sender);
        receiver
    }

    pub(crate) fn forget_exec(&self, exec: &str) {
        lock(&self.shared.execs).remove(exec);
    }
}

impl Shared {
    async fn send(&self, frame: &mut Frame) -> io::Result<()> {
        let _one_at_a_time = self.sending.lock().await;
        loop {
            self.stream.writable().await?;
            let result = self.stream.try_io(Interest::WRITABLE, || frame.send(self.stream.as_fd()));
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other.map(drop),
            }
        }
    }

    async fn read(&self, on_notice: &(impl Fn(Notice) + Sync)) -> io::Result<()> {
        let mut reader = FrameReader::default();
        loop {
            self.stream.readable().await?;
            match self.stream.try_io(Interest::READABLE, || reader.fill(self.stream.as_fd())) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            while let Some((message, fds)) = reader.next::<Message>()? {
                self.dispatch(message, fds, on_notice);
            }
        }
    }

    fn dispatch(&self, message: Message, fds: Vec<OwnedFd>, on_notice: &(impl Fn(Notice) + Sync)) {
        match message {
            Message::Answer { id, answer } => {
                let waiting = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
                if let Some(waiting) = waiting {
                    let _ = waiting.send((answer, fds));
                }
            }
            Message::Started { container, pid, started } => on_notice(Notice::Started { container, pid, started }),
            Message::Exited { container, ended } => on_notice(Notice::Exited { container, ended }),
            Message::ExecExited { exec, code } => {
                if let Some(waiting) = lock(&self.execs).remove(&exec) {
                    let _ = waiting.send(code);
                }
            }
        }
    }

    fn close(&self) {
        lock(&self.waiting).take();
        lock(&self.execs).clear();
    }
}

/// A poisoned lock only means that a thread panicked between two complete updates.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone() -> EngineError {
    EngineError::Failed("the sandbox's shim has ended".to_owned())
}

fn io_failed(source: io::Error) -> EngineError {
    EngineError::Io { context: "cannot talk to the sandbox's shim".to_owned(), source }
}
