//! The `stead` binary: a whole cluster, its node and its command line.

#![forbid(unsafe_code)]

mod arguments;
mod demo;
mod images;
mod kill_all;
mod machine;
mod quickstart;
mod server;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use arguments::{Command, Stead};
use clap::Parser;

/// The argument with which the engine starts this program as a pod's shim.
const SHIM: &str = "__shim";
/// Exit code of a command line that cannot be understood (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    // Containers are made by a single-threaded process: this has to come before any thread exists.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == SHIM) {
        return ExitCode::from(u8::try_from(stead_runtime::shim_main(words)).unwrap_or(1));
    }
    let stead = match Stead::try_parse() {
        Ok(stead) => stead,
        Err(error) => return usage(&error),
    };
    let result = match stead.command {
        Command::Server(flags) => server::run(flags),
        Command::Quickstart(flags) => quickstart::run(&flags),
        Command::Check(flags) => stead_cli::check::run(&flags),
        Command::Image(flags) => images::run(flags),
        Command::Killall(flags) => kill_all::run(&flags),
        Command::Version => version(),
        Command::Demo(flags) => demo::run(&flags),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what is wrong with the command line. `stead check` exits with 1 as the checker that it stands for does.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let checking = std::env::args().nth(1).as_deref() == Some("check");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if checking => ExitCode::FAILURE,
        _ => ExitCode::from(EXIT_USAGE),
    }
}

fn version() -> anyhow::Result<ExitCode> {
    println!("stead version {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), stead_apiserver::GIT_VERSION);
    Ok(ExitCode::SUCCESS)
}
