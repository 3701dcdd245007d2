//! Logs: to standard error, so that standard output is for people.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `STEAD_LOG` overrides the level, in the usual form `warn,stead_node=debug`.
pub(crate) fn start(default: &str) {
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
