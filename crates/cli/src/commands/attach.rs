//! `attach`: to what a container runs already.

use clap::Args;

use super::pods;
use crate::failure::{Result, plain, usage};
use crate::print::{at, list};
use crate::session::Session;
use crate::stream::{self, Talk};

/// Where and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// POD or TYPE/NAME
    words: Vec<String>,
    #[arg(short = 'c', long)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Its terminal.
    #[arg(short = 't', long)]
    tty: bool,
    #[arg(short = 'q', long)]
    quiet: bool,
    #[arg(long, hide = true)]
    pod_running_timeout: Option<String>,
}

/// Attaches until the process ends.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let [word] = &flags.words[..] else {
        return match flags.words.len() {
            0 => plain("at least 1 argument is required for attach"),
            count => usage(
                "attach",
                &format!("expected POD, TYPE/NAME, or TYPE NAME, got {count} arguments: {:?}", flags.words),
            ),
        };
    };
    let pod = pods::pod(session, word, false).await?;
    let phase = at(&pod.object, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return plain(format!("cannot attach a container in a completed pod; current phase is {phase}"));
    }
    let container = pods::container(session, &pod.object, flags.container.as_deref(), flags.quiet).or_else(|_| {
        let wanted = flags.container.as_deref().unwrap_or_default();
        plain(format!("cannot attach to the container: container {wanted} not found in pod {}", pod.name))
    })?;
    let spec = list(&pod.object, "/spec/containers").iter().find(|c| at(c, "/name") == container);
    let has_tty = spec.is_some_and(|c| c["tty"] == true);
    if flags.tty && !has_tty && !flags.quiet {
        session.err(&format!("error: Unable to use a TTY - container {container} did not allocate one\n"));
    }
    let talk = Talk { container: container.clone(), stdin: flags.stdin, tty: flags.tty && has_tty, silent: false }
        .checked(session);
    if !flags.quiet {
        session.err("If you don't see a command prompt, try pressing enter.\n");
    }
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    let outcome = stream::attach(session, namespace, &pod.name, &talk).await;
    if outcome.is_ok() && talk.stdin && talk.tty && !flags.quiet {
        let always = at(&pod.object, "/spec/restartPolicy") == "Always";
        if always {
            session.err(&format!(
                "Session ended, resume using 'kubectl attach {} -c {container} -i -t' command when the pod is running\n",
                pod.name
            ));
        }
    }
    outcome
}
