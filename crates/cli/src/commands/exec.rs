//! `exec`: a command in a container.

use clap::Args;

use super::pods;
use crate::failure::{Result, plain, usage};
use crate::print::at;
use crate::session::Session;
use crate::stream::{self, Talk};

/// Where, what and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// POD or TYPE/NAME
    words: Vec<String>,
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give it a terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// Only what the command prints.
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
    /// The command, after `--`.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs it; the exit code is the command's.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let word = match &flags.words[..] {
        [] => return plain("pod, type/name or --filename must be specified"),
        [word] => word,
        _ => {
            return usage("exec", "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead");
        }
    };
    if flags.command.is_empty() {
        return plain("you must specify at least one command for the container");
    }
    let pod = pods::pod(session, word, false).await?;
    let phase = at(&pod.object, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return plain(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    let container = match &flags.container {
        Some(container) => container.clone(),
        None => pods::container(session, &pod.object, None, flags.quiet)?,
    };
    let talk = Talk { container, stdin: flags.stdin, tty: flags.tty, silent: false }.checked(session);
    stream::exec(session, pod.namespace.as_deref().unwrap_or_default(), &pod.name, &talk, &flags.command).await
}
