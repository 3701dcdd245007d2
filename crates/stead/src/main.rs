//! The `stead` binary: a whole cluster, its node and its command line.

#![forbid(unsafe_code)]

mod agent;
mod arguments;
mod controller;
mod demo;
mod images;
mod kill_all;
mod machine;
mod node;
mod own_image;
mod quickstart;
mod server;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use anyhow::Context as _;
use arguments::{Command, Stead};
use clap::{CommandFactory as _, Parser};

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
    if let Some(words) = kubectl_words(std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()) {
        return stead_cli::kubectl(words, stead_apiserver::GIT_VERSION);
    }
    let stead = match Stead::try_parse() {
        Ok(stead) => stead,
        Err(error) => return usage(&error),
    };
    let result = match stead.command {
        Command::Server(flags) => server::run(flags),
        Command::Agent(flags) => agent::run(flags),
        Command::Controller(flags) => controller::run(flags),
        Command::Token(flags) => token(&flags),
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

/// The words for kubectl's command line: all of a program called `kubectl`, those after `stead kubectl`, and those of a command line
/// whose first word is none of stead's own.
fn kubectl_words(words: Vec<String>) -> Option<Vec<String>> {
    let mut words = words.into_iter();
    let program = words.next()?;
    let rest: Vec<String> = words.collect();
    let name = std::path::Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name == "kubectl" || name.starts_with("kubectl-") {
        return Some(rest);
    }
    if rest.first().is_some_and(|word| word == "kubectl") {
        return Some(rest.into_iter().skip(1).collect());
    }
    // A shell asks by this word how a line may go on.
    if rest.first().is_some_and(|word| word.starts_with("__complete")) {
        return Some(rest);
    }
    // By itself it is stead's; with flags it can only be kubectl's.
    if rest.len() > 1 && rest.first().is_some_and(|word| word == "version") {
        return Some(rest);
    }
    // None of stead's own commands has flags before its name: a namespace called like one of them is no command.
    if rest
        .first()
        .is_some_and(|word| word.starts_with('-') && !matches!(&**word, "-h" | "--help" | "-V" | "--version"))
    {
        return Some(rest);
    }
    let own = Stead::command();
    let kubectls = stead_cli::names();
    let first = rest.iter().find(|word| own.find_subcommand(word).is_some() || kubectls.contains(word))?;
    own.find_subcommand(first).is_none().then_some(rest)
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

/// Prints the token that a server keeps.
fn token(flags: &arguments::TokenFlags) -> anyhow::Result<ExitCode> {
    let file = server::token_file(&flags.data_dir);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{}: is this the data directory of a server that has run?", file.display()))?;
    println!("{}", text.trim());
    Ok(ExitCode::SUCCESS)
}

fn version() -> anyhow::Result<ExitCode> {
    println!("stead version {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), stead_apiserver::GIT_VERSION);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_program_leads_to_its_commands() {
        let words =
            |line: &str| kubectl_words(line.split(' ').map(str::to_owned).collect()).map(|words| words.join(" "));
        for (line, wanted) in [
            ("/usr/bin/kubectl get pods", Some("get pods")),
            ("kubectl version", Some("version")),
            ("stead kubectl version", Some("version")),
            ("stead get pods", Some("get pods")),
            ("stead -n x get pods", Some("-n x get pods")),
            ("stead -n image get pods", Some("-n image get pods")),
            ("stead --help", None),
            ("stead server --debug", None),
            ("stead check a b", None),
            ("stead version", None),
            ("stead version --client -o yaml", Some("version --client -o yaml")),
            ("stead nothere", None),
            ("stead __complete get ", Some("__complete get ")),
            ("stead diff -f x", Some("diff -f x")),
        ] {
            assert_eq!(words(line).as_deref(), wanted, "{line}");
        }
    }
}
