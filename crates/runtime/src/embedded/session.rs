//! The engine's ends of the streams of an exec or attach.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use nix::libc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::shim::process::set_nonblocking;

/// Terminal sizes that may wait to be set.
const RESIZES_MAX: usize = 8;

/// The master side of a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Terminal {
    fd: Arc<AsyncFd<OwnedFd>>,
}

impl Terminal {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Terminal> {
        set_nonblocking(fd.as_fd())?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and open for as long as it is registered.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Terminal { fd: Arc::new(fd) })
    }

    /// Sets sizes as they come, for as long as somebody may send them.
    pub(crate) fn resizer(&self) -> mpsc::Sender<(u16, u16)> {
        let (sender, mut receiver) = mpsc::channel(RESIZES_MAX);
        let fd = Arc::downgrade(&self.fd);
        tokio::spawn(async move {
            while let Some((columns, rows)) = receiver.recv().await {
                let Some(fd) = fd.upgrade() else { return };
                let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                // SAFETY: the descriptor is open and the kernel reads one `winsize`.
                unsafe { libc::ioctl(fd.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            }
        });
        sender
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(context))?;
            let result = guard.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer.initialize_unfilled())?));
            match result {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The other side is closed: the end of the stream.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A pipe to read from here, and its write end for the process.
pub(crate) fn output() -> io::Result<(Box<dyn AsyncRead + Send + Unpin>, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(read.as_fd())?;
    Ok((Box::new(pipe::Receiver::from_owned_fd(read)?), write))
}

/// A pipe to write to here, and its read end for the process.
pub(crate) fn input() -> io::Result<(Box<dyn AsyncWrite + Send + Unpin>, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((writer(write)?, read))
}

pub(crate) fn writer(write: OwnedFd) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    set_nonblocking(write.as_fd())?;
    Ok(Box::new(pipe::Sender::from_owned_fd(write)?))
}
