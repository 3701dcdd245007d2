//! The terminal that this program runs on.

use std::io::IsTerminal as _;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::failure::{Failure, Result};

/// Whether standard input is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Columns and rows, of whichever standard stream is a terminal.
pub(super) fn size() -> Option<(u16, u16)> {
    let of = tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout()));
    of.ok().map(|size| (size.ws_col, size.ws_row))
}

/// The terminal while every key goes to the container. It is put back when this goes.
pub(crate) struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes the terminal.
    pub(crate) fn raw() -> Result<Self> {
        let failed = |error: rustix::io::Errno| Failure::Plain(format!("cannot use the terminal: {error}"));
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
