//! The end: SIGINT or SIGTERM asks for it once; a second one does not wait.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was interrupted (128 + SIGINT).
const EXIT_INTERRUPTED: i32 = 130;

/// Cancels `shutdown` at the first signal and exits at the second.
pub(crate) fn on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        shutdown.cancel();
        tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(())
}
