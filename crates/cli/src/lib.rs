//! Commands for people. They reach a cluster by kubeconfig only and work against any Kubernetes cluster.
//!
//! Kubectl's commands: [`arguments`] says what was asked, [`builder`] which objects are meant, a file below `commands` does it.
//! What decides or formats (`print`, `describe`, `apply`, `resources`, the upper half of most commands) is a function from data
//! to text; `server`, `stream` and the `run` functions of the commands do the rest.

#![forbid(unsafe_code)]

mod apply;
mod arguments;
mod builder;
pub mod check;
mod commands;
mod describe;
mod failure;
mod kubeconfig;
mod kustomize;
mod look;
mod manifest;
mod print;
mod resources;
mod server;
mod session;
mod stream;
mod unified;

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::failure::Failure;
use crate::session::Session;

/// Runs kubectl's command line: the words after the program's name. `version` is what `version` calls this client.
#[must_use]
pub fn kubectl(words: Vec<String>, version: &'static str) -> ExitCode {
    if let Some((first, rest)) = words.split_first()
        && commands::completion::ASK.contains(&&**first)
    {
        return complete(rest, version);
    }
    let mut parsed = match arguments::parse(words.clone()) {
        Ok(parsed) => parsed,
        Err(error) if shows_help(error.kind()) => {
            // Nobody is left to tell when the output is closed.
            let _ = write!(std::io::stdout(), "{}", error.render());
            // Kubectl takes `kubectl rollout` for a mistake, and `kubectl` for a question.
            let lacks_more = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !words.is_empty();
            return if lacks_more { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        Err(error) => {
            if error.kind() == ErrorKind::InvalidSubcommand {
                commands::plugin::become_plugin(&words);
            }
            eprint!("{}", arguments::complaint(&error, &words));
            return ExitCode::from(arguments::usage_code(&words));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let arguments::Command::Create(flags) = &mut parsed.command {
        flags.take_user(&mut parsed.globals);
    }
    let session = Session::new(parsed.globals, version);
    let outcome = runtime.block_on(async {
        let waits = parsed.command.waits();
        tokio::select! {
            outcome = commands::run(&session, parsed.command) => outcome,
            () = interrupted(), if waits => Err(Failure::Code(1)),
        }
    });
    // Reading standard input may be under way in a thread that nothing can interrupt.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&session, &failure),
    }
}

/// Ends when the user has enough of waiting.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Then the signal ends the process, as it does without this.
        std::future::pending::<()>().await;
    }
}

/// Answers a shell that asks how a line may go on.
fn complete(words: &[String], version: &'static str) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let answer = runtime.block_on(commands::completion::answer(words, version));
    runtime.shutdown_background();
    // Nobody is left to tell when the output is closed.
    let _ = write!(std::io::stdout(), "{answer}");
    ExitCode::SUCCESS
}

/// Whether help was asked for, or is all that there is to say.
fn shows_help(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

fn end(session: &Session, failure: &Failure) -> ExitCode {
    session.err(&failure.text());
    ExitCode::from(failure.code())
}

/// The names of kubectl's commands, for the program that shows them beside its own.
#[must_use]
pub fn names() -> Vec<String> {
    use clap::CommandFactory as _;
    arguments::Kubectl::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}
