//! `completion`: a shell's completion of commands, flags, and the names that the cluster has at the moment.
//!
//! The scripts ask `__complete`, with the words so far; it answers with a word per line and a number that says what else the
//! shell is to do. Those of stock kubectl ask the same way.
//!
//! Source of the protocol: `github.com/spf13/cobra` (shell completions).

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::Value;

use crate::arguments::{Globals, Kubectl};
use crate::failure::{Failure, Result};
use crate::kubeconfig;
use crate::print::{at, list};
use crate::resources::Resource;
use crate::session::Session;

/// The word by which a script asks.
pub(crate) const ASK: [&str; 2] = ["__complete", "__completeNoDesc"];
/// How long the cluster may take; a shell waits for it.
const WAIT: Duration = Duration::from_secs(3);

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
    let program = &*flags.program;
    let ask = if program == "stead" { "stead kubectl" } else { program };
    let template = match flags.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        shell => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Kubectl::command(), program, &mut script);
            return session.out(&String::from_utf8_lossy(&script));
        }
    };
    let function = program.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    session.out(&template.replace("ASK", ask).replace("FUNCTION", &function).replace("PROGRAM", program))
}

const BASH: &str = r#"# bash completion for PROGRAM
__FUNCTION_complete() {
    local cur words cword out directive line
    COMPREPLY=()
    words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
    cur="${COMP_WORDS[COMP_CWORD]}"
    out=$(ASK __complete "${words[@]:1}" 2>/dev/null) || return
    directive="${out##*:}"
    out="${out%:*}"
    while IFS= read -r line; do
        [[ -n $line && $line == "$cur"* ]] && COMPREPLY+=("$line")
    done <<<"$out"
    if [[ $(type -t compopt) == builtin ]]; then
        (( directive & 2 )) && compopt -o nospace
        (( directive & 4 )) && compopt +o default
    fi
}
complete -o default -F __FUNCTION_complete PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
_FUNCTION() {
    local out directive
    local -a found
    out=$(ASK __complete "${(@)words[2,CURRENT]}" 2>/dev/null) || return
    directive="${out##*:}"
    found=("${(@f)${out%:*}}")
    found=("${(@)found:#}")
    if (( ${#found} )); then
        (( directive & 2 )) && compadd -S '' -a found || compadd -a found
    elif (( ! (directive & 4) )); then
        _files
    fi
}
compdef _FUNCTION PROGRAM
"#;

const FISH: &str = r#"# fish completion for PROGRAM
function __FUNCTION_complete
    set -l words (commandline -opc) (commandline -ct)
    ASK __complete $words[2..-1] 2>/dev/null | string match -rv '^:[0-9]+$'
end
complete -c PROGRAM -a '(__FUNCTION_complete)'
"#;

/// What the words so far leave to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// These words.
    Words(Vec<String>),
    /// A file.
    File,
    /// A type, or one with a name behind a slash.
    Type,
    /// An object of a type.
    Name(String),
    /// An object, as TYPE/NAME; the type is said already.
    Slashed(String),
    /// A pod, or one of what has pods.
    Pod,
    /// A container of a pod.
    Container(String),
    Context(&'static str),
    Nothing,
}

/// Commands that take `TYPE NAME`.
const BY_TYPE: &[&str] = &[
    "get",
    "describe",
    "delete",
    "edit",
    "label",
    "annotate",
    "patch",
    "scale",
    "expose",
    "autoscale",
    "wait",
    "explain",
    "rollout status",
    "rollout history",
    "rollout undo",
    "rollout restart",
    "rollout pause",
    "rollout resume",
    "set image",
    "set env",
    "set resources",
    "set serviceaccount",
    "plan scale",
    "plan set image",
    "timeline",
    "taint",
];
/// Commands that take a pod.
const BY_POD: &[&str] = &["logs", "exec", "attach", "port-forward", "cp", "debug"];
/// Commands that take objects of one type.
const BY_NAME: &[(&str, &str)] = &[
    ("cordon", "nodes"),
    ("uncordon", "nodes"),
    ("drain", "nodes"),
    ("certificate approve", "certificatesigningrequests"),
    ("certificate deny", "certificatesigningrequests"),
];
/// Types that some commands are about.
const SOME_TYPES: &[(&str, &[&str])] = &[
    ("expose", &["deployment", "pod", "replicaset", "replicationcontroller", "service"]),
    ("autoscale", &["deployment", "replicaset", "replicationcontroller", "statefulset"]),
    ("scale", &["deployment", "replicaset", "replicationcontroller", "statefulset"]),
    ("rollout", &["daemonset", "deployment", "statefulset"]),
    ("taint", &["node"]),
];

/// The words so far, understood.
struct Line<'w> {
    command: String,
    /// Words that are no flags, behind the command.
    words: Vec<&'w str>,
    globals: Globals,
    next: Next,
}

/// Understands the words; the last one is being written.
fn understand<'w>(words: &'w [String]) -> Line<'w> {
    let root = Kubectl::command();
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", words),
    };
    let mut at = &root;
    let mut names: Vec<&str> = Vec::new();
    let mut positional: Vec<&str> = Vec::new();
    let mut globals = Globals::default();
    let mut wanted: Option<String> = None;
    for word in before {
        if let Some(flag) = wanted.take() {
            note(&mut globals, &flag, word);
        } else if let Some(flag) = word.strip_prefix('-').filter(|flag| !flag.is_empty()) {
            match flag.trim_start_matches('-').split_once('=') {
                Some((name, value)) => note(&mut globals, name, value),
                None => wanted = takes_value(&root, at, word),
            }
        } else if let Some(inner) = at.find_subcommand(word).filter(|_| positional.is_empty()) {
            at = inner;
            names.push(at.get_name());
        } else {
            positional.push(word);
        }
    }
    let command = names.join(" ");
    let next = match wanted {
        Some(flag) => of_flag(&flag, &positional),
        None if current.starts_with('-') => Next::Words(flags(&root, at)),
        None => of_words(at, &command, &positional, current),
    };
    Line { command, words: positional, globals, next }
}

/// Keeps what says which cluster is asked.
fn note(globals: &mut Globals, flag: &str, value: &str) {
    let text = || Some(value.to_owned());
    match flag {
        "n" | "namespace" => globals.namespace = text(),
        "context" => globals.context = text(),
        "cluster" => globals.cluster = text(),
        "user" => globals.user = text(),
        "s" | "server" => globals.server = text(),
        "token" => globals.token = text(),
        "kubeconfig" => globals.kubeconfig = Some(value.into()),
        "as" => globals.as_user = text(),
        _ => {}
    }
}

/// The long name of a flag that needs a value behind it.
fn takes_value(root: &clap::Command, at: &clap::Command, word: &str) -> Option<String> {
    let all = at.get_arguments().chain(root.get_arguments().filter(|arg| arg.is_global_set()));
    let named = |arg: &&clap::Arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => word.len() == 2 && arg.get_short() == word.chars().nth(1),
    };
    let arg = all.into_iter().find(named)?;
    let takes = arg.get_action().takes_values() && !arg.is_require_equals_set();
    takes.then(|| arg.get_long().unwrap_or_default().to_owned())
}

/// The flags of a command.
fn flags(root: &clap::Command, at: &clap::Command) -> Vec<String> {
    let all = at.get_arguments().chain(root.get_arguments().filter(|arg| arg.is_global_set()));
    let names: BTreeSet<String> =
        all.filter(|arg| !arg.is_hide_set()).filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    names.into_iter().collect()
}

/// What a flag is followed by.
fn of_flag(flag: &str, words: &[&str]) -> Next {
    let formats = ["custom-columns=", "go-template=", "json", "jsonpath=", "name", "wide", "yaml"];
    match flag {
        "namespace" => Next::Name("namespaces".to_owned()),
        "container" | "target" => Next::Container(words.first().copied().unwrap_or_default().to_owned()),
        "context" => Next::Context("contexts"),
        "cluster" => Next::Context("clusters"),
        "user" => Next::Context("users"),
        "output" => Next::Words(formats.iter().map(|format| (*format).to_owned()).collect()),
        "filename" | "kustomize" | "kubeconfig" | "from-file" | "from-env-file" | "cert" | "key" | "custom" => {
            Next::File
        }
        _ => Next::Nothing,
    }
}

/// What a command is followed by.
fn of_words(at: &clap::Command, command: &str, words: &[&str], current: &str) -> Next {
    let shown = at.get_subcommands().filter(|inner| !inner.is_hide_set()).map(|inner| inner.get_name().to_owned());
    let inner: Vec<String> = shown.collect();
    if words.is_empty() && !inner.is_empty() && !matches!(command, "apply" | "cluster-info") {
        return Next::Words(inner);
    }
    if let Some((_, resource)) = BY_NAME.iter().find(|(name, _)| *name == command) {
        return Next::Name((*resource).to_owned());
    }
    if command == "config use-context" {
        return Next::Context("contexts");
    }
    if command == "kustomize" {
        return Next::File;
    }
    let slashed = current.split_once('/').map(|(kind, _)| kind.to_owned());
    if BY_POD.contains(&command) {
        return match (slashed, words.len()) {
            (Some(kind), 0) => Next::Slashed(kind),
            (None, 0) => Next::Pod,
            _ if command == "cp" => Next::File,
            _ => Next::Nothing,
        };
    }
    if !BY_TYPE.contains(&command) {
        return Next::Nothing;
    }
    match (slashed, words.first()) {
        (Some(kind), _) => Next::Slashed(kind),
        (None, Some(first)) if !first.contains('/') && !first.contains(',') => Next::Name((*first).to_owned()),
        (None, Some(_)) => Next::Nothing,
        (None, None) => Next::Type,
    }
}

/// Answers a script.
pub(crate) async fn answer(words: &[String], version: &'static str) -> String {
    let line = understand(words);
    let current = words.last().map_or("", String::as_str);
    let session = Session::new(line.globals.clone(), version);
    let asked = tokio::time::timeout(WAIT, candidates(&session, &line));
    // A shell shows nothing rather than an error in the middle of a line.
    let (found, directive) = asked.await.map_or((Vec::new(), 4), |found| found.unwrap_or((Vec::new(), 4)));
    let fits = found.into_iter().filter(|word| word.starts_with(current) && !line.words.contains(&&**word));
    let mut text: String = fits.map(|word| word + "\n").collect();
    text.push_str(&format!(":{directive}\n"));
    text
}

/// The words that may follow, and what the shell is to do: 0 files too, 2 no blank behind it, 4 no files.
async fn candidates(session: &Session, line: &Line<'_>) -> Result<(Vec<String>, u8)> {
    let found = match &line.next {
        Next::Words(words) => words.clone(),
        Next::File => return Ok((Vec::new(), 0)),
        Next::Nothing => Vec::new(),
        Next::Type => types(session, &line.command).await?,
        Next::Name(word) => names(session, word).await?,
        Next::Slashed(kind) => {
            let names = names(session, kind).await?;
            names.into_iter().map(|name| format!("{kind}/{name}")).collect()
        }
        Next::Pod => names(session, "pods").await?,
        Next::Container(pod) => containers(session, pod).await?,
        Next::Context(list) => of_kubeconfig(session, list)?,
    };
    let open = !found.is_empty() && found.iter().all(|word| word.ends_with('='));
    Ok((found, if open { 6 } else { 4 }))
}

/// The types that a command is about.
async fn types(session: &Session, command: &str) -> Result<Vec<String>> {
    let first = command.split(' ').next().unwrap_or_default();
    if let Some((_, some)) = SOME_TYPES.iter().find(|(name, _)| *name == first) {
        return Ok(some.iter().map(|kind| (*kind).to_owned()).collect());
    }
    let listed = |resource: &Resource| resource.verbs.iter().any(|verb| verb == "list");
    let word = |resource: &Resource| match resource.group.is_empty() {
        true => resource.plural.clone(),
        false => format!("{}.{}", resource.plural, resource.group),
    };
    let resources = session.resources().await?;
    let words: BTreeSet<String> = resources.all.iter().filter(|resource| listed(resource)).map(|r| word(r)).collect();
    Ok(words.into_iter().collect())
}

/// The names of a type's objects.
async fn names(session: &Session, word: &str) -> Result<Vec<String>> {
    let resource = session.resource(word).await?;
    let namespace = if resource.namespaced { Some(session.namespace().await?) } else { None };
    let path = resource.path(namespace);
    let answer = session.server().await?.list(&path, &[], crate::server::TABLE).await?;
    let rows = list(&answer, "/rows").iter().map(|row| at(row, "/object/metadata/name"));
    let items = list(&answer, "/items").iter().map(|item| at(item, "/metadata/name"));
    Ok(rows.chain(items).map(str::to_owned).collect())
}

async fn containers(session: &Session, pod: &str) -> Result<Vec<String>> {
    let name = pod.rsplit('/').next().unwrap_or(pod);
    let pod: Value = session.read("", "Pod", session.namespace().await?, name).await?;
    let fields = ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"];
    Ok(fields.iter().flat_map(|field| list(&pod, field)).map(|c| at(c, "/name").to_owned()).collect())
}

fn of_kubeconfig(session: &Session, field: &str) -> Result<Vec<String>> {
    let config = kubeconfig::merged(&session.globals).map_err(|failure| Failure::Plain(failure.message()))?;
    Ok(list(&config, &format!("/{field}")).iter().map(|entry| at(entry, "/name").to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(line: &str) -> Next {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        understand(&words).next
    }

    #[test]
    fn what_comes_next_is_understood_from_the_words_so_far() {
        let name = |word: &str| Next::Name(word.to_owned());
        for (line, wanted) in [
            ("get ", Next::Type),
            ("get sts ", name("sts")),
            ("-n x get sts web ", name("sts")),
            ("get sts/", Next::Slashed("sts".to_owned())),
            ("get pods -n ", name("namespaces")),
            ("get pods -o yaml ", name("pods")),
            ("rollout status ", Next::Type),
            ("expose ", Next::Type),
            ("autoscale sts ", name("sts")),
            ("logs ", Next::Pod),
            ("logs web-0 -c ", Next::Container("web-0".to_owned())),
            ("debug web-0 --image=x --target ", Next::Container("web-0".to_owned())),
            ("debug node/", Next::Slashed("node".to_owned())),
            ("certificate approve ", name("certificatesigningrequests")),
            ("cordon ", name("nodes")),
            ("diff -f ", Next::File),
            ("kustomize ", Next::File),
            ("config use-context ", Next::Context("contexts")),
            ("certificate ", Next::Words(vec!["approve".to_owned(), "deny".to_owned()])),
            ("version ", Next::Nothing),
        ] {
            assert_eq!(next(line), wanted, "{line}");
        }
        let Next::Words(commands) = next("") else { panic!("no commands") };
        assert!(commands.contains(&"diff".to_owned()) && commands.contains(&"debug".to_owned()), "{commands:?}");
        let Next::Words(flags) = next("diff --") else { panic!("no flags") };
        assert!(flags.contains(&"--server-side".to_owned()) && flags.contains(&"--namespace".to_owned()), "{flags:?}");
    }

    #[test]
    fn the_cluster_of_the_line_is_asked() {
        let words = ["-n", "x", "--context=c", "get", "pods", "--kubeconfig", "/k", ""].map(str::to_owned);
        let line = understand(&words);
        assert_eq!(line.globals.namespace.as_deref(), Some("x"));
        assert_eq!(line.globals.context.as_deref(), Some("c"));
        assert_eq!(line.globals.kubeconfig, Some("/k".into()));
    }
}
