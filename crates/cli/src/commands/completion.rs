//! `completion`: a shell's completion of commands and flags.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Kubectl;
use crate::failure::Result;
use crate::session::Session;

/// Which shell.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    shell: Shell,
    /// The name of the program to complete.
    #[arg(long, default_value = "kubectl")]
    program: String,
}

/// Prints the script.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Kubectl::command(), &flags.program, &mut script);
    session.out(&String::from_utf8_lossy(&script))
}
