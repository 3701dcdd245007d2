//! `plugin`: programs called `kubectl-...` that are commands of this one, found on the path.
//!
//! Source of the rules and texts: `k8s.io/kubectl/pkg/cmd/plugin`, `k8s.io/kubectl/pkg/cmd` (plug-in handler).

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _, Subcommand};

use crate::arguments::Kubectl;
use crate::failure::{Failure, Result, system};
use crate::session::Session;

/// What the names of plug-ins begin with.
const PREFIX: &str = "kubectl-";

/// Sub-commands of `plugin`.
#[derive(Args, Clone, Debug)]
#[command(arg_required_else_help = true)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The plug-ins that are found.
    List {
        /// Names without directories.
        #[arg(long)]
        name_only: bool,
    },
}

/// Lists them.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result {
    let What::List { name_only } = flags.what;
    let found = found(session);
    if found.is_empty() {
        return Err(Failure::Plain("unable to find any kubectl plugins in your PATH".to_owned()));
    }
    session.out("The following compatible plugins are available:\n\n")?;
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut count = 0;
    for path in found {
        let name = name_of(&path);
        session.out(&format!("{}\n", if name_only { name.clone() } else { path.display().to_string() }))?;
        for warning in warnings(&path, &name, &seen) {
            count += 1;
            session.err(&format!("  - {warning}\n"));
        }
        seen.entry(name).or_insert(path);
    }
    match count {
        0 => Ok(()),
        1 => Err(Failure::Plain("one plugin warning was found".to_owned())),
        count => Err(Failure::Plain(format!("{count} plugin warnings were found"))),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The plug-ins of all directories of the path, in its order.
fn found(session: &Session) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in directories() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                let (shown, why) = (directory.display(), system(&error));
                session.err(&format!(
                    "Unable to read directory {:?} from your PATH: open {shown}: {why}. Skipping...\n",
                    shown.to_string()
                ));
                continue;
            }
        };
        let mut own: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| name_of(path).starts_with(PREFIX) && !path.is_dir())
            .collect();
        own.sort();
        found.append(&mut own);
    }
    found
}

fn directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    let path = std::env::var_os("PATH").unwrap_or_default();
    for directory in std::env::split_paths(&path).filter(|directory| !directory.as_os_str().is_empty()) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// Why a plug-in can not be used, or not by its name.
fn warnings(path: &Path, name: &str, seen: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let mut warnings = Vec::new();
    let shown = path.display();
    if !is_program(path) {
        warnings.push(format!("warning: {shown} identified as a kubectl plugin, but it is not executable"));
    }
    if let Some(first) = seen.get(name) {
        let first = first.display();
        warnings.push(format!("warning: {shown} is overshadowed by a similarly named plugin: {first}"));
    }
    let first = name.trim_start_matches(PREFIX).split('-').next().unwrap_or_default();
    if Kubectl::command().find_subcommand(first).is_some() {
        warnings.push(format!("warning: {name} overwrites existing command: \"kubectl {first}\""));
    }
    warnings
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Becomes the plug-in that the words name, the longest name first; comes back when there is none.
pub(crate) fn become_plugin(words: &[String]) {
    let names: Vec<String> =
        words.iter().take_while(|word| !word.starts_with('-')).map(|word| word.replace('-', "_")).collect();
    for length in (1..=names.len()).rev() {
        let name = format!("{PREFIX}{}", names[..length].join("-"));
        let Some(path) = directories().into_iter().map(|directory| directory.join(&name)).find(|path| is_program(path))
        else {
            continue;
        };
        let error = std::process::Command::new(&path).args(&words[length..]).exec();
        eprintln!("error: {}: {}", path.display(), system(&error));
        std::process::exit(1);
    }
}
