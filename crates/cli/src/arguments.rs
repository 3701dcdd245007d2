//! The command line as data, with kubectl's names, and kubectl's words for what cannot be understood.

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::commands::{
    annotate, api_resources, apply, attach, auth, autoscale, certificate, cluster_info, completion, config, cordon, cp,
    create, debug, delete, describe, diff, drain, edit, events, exec, explain, expose, get, kustomize, label, logs,
    patch, plan, plugin, port_forward, proxy, replace, rollout, run, scale, set, taint, timeline, top, version, wait,
};

/// kubectl's commands, for any Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl", disable_help_subcommand = true, args_override_self = true)]
pub(crate) struct Kubectl {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Globals {
    /// The namespace that the command is about.
    #[arg(short = 'n', long, global = true, help_heading = "Options of every command")]
    pub(crate) namespace: Option<String>,
    /// The kubeconfig (default: $KUBECONFIG, ~/.kube/config, /etc/stead/stead.yaml).
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) context: Option<String>,
    /// The kubeconfig's cluster.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) cluster: Option<String>,
    /// The kubeconfig's user.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) user: Option<String>,
    /// Address of the API server.
    #[arg(short = 's', long, global = true, help_heading = "Options of every command")]
    pub(crate) server: Option<String>,
    /// Bearer token for the API server.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) token: Option<String>,
    /// Do not check the server's certificate.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) insecure_skip_tls_verify: bool,
    /// User to impersonate.
    #[arg(long = "as", global = true, help_heading = "Options of every command")]
    pub(crate) as_user: Option<String>,
    /// Group to impersonate.
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) as_group: Vec<String>,
    /// How long one request may take, such as 30s (default: 0, for ever).
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) request_timeout: Option<String>,
    /// Where kubectl caches what it discovers; nothing is cached here.
    #[arg(long, global = true, hide = true)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Level of kubectl's log; there is none here.
    #[arg(short = 'v', long = "v", global = true, hide = true)]
    pub(crate) verbosity: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Display one or many resources.
    Get(get::Flags),
    /// Show details of a resource or of several.
    Describe(describe::Flags),
    /// Bring objects into the state that manifests describe.
    Apply(apply::Flags),
    /// Create objects from files, or of a kind by flags.
    Create(create::Flags),
    /// Replace objects by those of files.
    Replace(replace::Flags),
    /// Delete objects by file, name or selector.
    Delete(delete::Flags),
    /// Set a new number of replicas.
    Scale(scale::Flags),
    /// Edit an object in an editor.
    Edit(edit::Flags),
    /// Change fields of an object.
    Patch(patch::Flags),
    /// Set features of objects.
    Set(set::Flags),
    /// Look after a roll-out.
    Rollout(rollout::Flags),
    /// Run a command in a container.
    Exec(exec::Flags),
    /// Print the log of a container.
    #[command(alias = "log")]
    Logs(logs::Flags),
    /// Run an image in a pod.
    Run(run::Flags),
    /// Attach to a container that runs.
    Attach(attach::Flags),
    /// Change labels.
    Label(label::Flags),
    /// Change annotations.
    Annotate(annotate::Flags),
    /// Wait for a condition.
    Wait(wait::Flags),
    /// List events.
    Events(events::Flags),
    /// Forward local ports to a pod.
    PortForward(port_forward::Flags),
    /// Copy files to and from containers.
    Cp(cp::Flags),
    /// The resources that the server has.
    ApiResources(api_resources::Flags),
    /// The API versions that the server has.
    ApiVersions,
    /// Documentation of a resource's fields (TYPE); why an object is not as wanted, and the mend (TYPE/NAME).
    Explain(explain::Flags),
    /// What apply, scale or set image would do, pod by pod, before it is done.
    Plan(plan::Flags),
    /// What happened to an object and what belongs to it, in order.
    Timeline(timeline::Flags),
    /// CPU and memory in use by nodes and pods.
    Top(top::Flags),
    /// Versions of client and server.
    Version(version::Flags),
    /// Take a node out of scheduling.
    Cordon(cordon::Flags),
    /// Take a node back into scheduling.
    Uncordon(cordon::Flags),
    /// Keep pods off nodes that they do not tolerate.
    Taint(taint::Flags),
    /// What the server allows, and whom it takes the user for.
    Auth(auth::Flags),
    /// Empty a node for maintenance.
    Drain(drain::Flags),
    /// Look at the kubeconfig, or change what is current in it.
    Config(config::Flags),
    /// What a kustomization comes to.
    Kustomize(kustomize::Flags),
    /// What an apply would change, line by line.
    Diff(diff::Flags),
    /// Make a Service for what has pods and ports.
    Expose(expose::Flags),
    /// Make an autoscaler for what can be scaled.
    Autoscale(autoscale::Flags),
    /// Look into a pod with a container beside it, a copy of it, or a pod on its node.
    Debug(debug::Flags),
    /// Serve the API at an address of this machine.
    Proxy(proxy::Flags),
    /// Approve or deny requests for certificates.
    Certificate(certificate::Flags),
    /// Programs on the path that are commands too.
    Plugin(plugin::Flags),
    /// The flags of every command.
    Options,
    /// Addresses of the control plane.
    ClusterInfo(cluster_info::Flags),
    /// A shell's completion.
    Completion(completion::Flags),
}

impl Command {
    /// Whether it waits for others, and ends by itself, with 1, when it is interrupted.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Get(flags) => flags.watch || flags.watch_only,
            Self::Rollout(_) | Self::Wait(_) | Self::Delete(_) => true,
            _ => false,
        }
    }
}

/// Understands the words after the program's name, as kubectl would.
pub(crate) fn parse(words: Vec<String>) -> Result<Kubectl, clap::Error> {
    let words = plain_booleans(&Kubectl::command(), words);
    Kubectl::try_parse_from(std::iter::once("kubectl".to_owned()).chain(words))
}

/// `--watch=true` is `--watch`, and `--watch=false` nothing, for flags that take no value; up to a `--`.
fn plain_booleans(command: &clap::Command, words: Vec<String>) -> Vec<String> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let mut chain = vec![command];
    for word in &words[..end] {
        let inner = chain.last().and_then(|command| command.find_subcommand(word));
        chain.extend(inner);
    }
    let is_switch = |name: &str| {
        let args = chain.iter().flat_map(|command| command.get_arguments());
        let named: Vec<&clap::Arg> = args
            .filter(|arg| arg.get_long() == Some(name) || (name.len() == 1 && arg.get_short() == name.chars().next()))
            .collect();
        named.last().is_some_and(|arg| matches!(arg.get_action(), clap::ArgAction::SetTrue))
    };
    let plain = |(at, word): (usize, String)| {
        let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some((name, value)) = flag.and_then(|flag| flag.split_once('=')).filter(|_| at < end) else {
            return Some(word);
        };
        match value {
            "true" | "1" | "t" if is_switch(name) => Some(word.split('=').next().unwrap_or_default().to_owned()),
            "false" | "0" | "f" if is_switch(name) => None,
            _ => Some(word),
        }
    };
    words.into_iter().enumerate().filter_map(plain).collect()
}

/// Kubectl's words for a command line that cannot be understood.
pub(crate) fn complaint(error: &clap::Error, words: &[String]) -> String {
    let (command, rest) = command_of(words);
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(all)) => all.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let hint = if command.is_empty() { "kubectl".to_owned() } else { format!("kubectl {command}") };
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.split([' ', '=']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::InvalidSubcommand if command == "create" => {
            format!("error: Unexpected args: [{}]\nSee '{hint} -h' for help and examples\n", rest.join(" "))
        }
        ErrorKind::InvalidSubcommand if !command.is_empty() => {
            format!("error: unknown command {:?}\nSee '{hint} -h' for help and examples\n", rest.join(" "))
        }
        ErrorKind::InvalidSubcommand => {
            let mut text =
                format!("error: unknown command {:?} for {hint:?}\n", context(ContextKind::InvalidSubcommand));
            if let Some(ContextValue::Strings(close)) = error.get(ContextKind::SuggestedSubcommand) {
                let close: String = close.iter().map(|name| format!("\t{name}\n")).collect();
                text.push_str(&format!("\nDid you mean this?\n{close}"));
            }
            text
        }
        ErrorKind::UnknownArgument if flag.starts_with("--") && command == "diff" => {
            format!("error: unknown flag: {flag}\nSee '{hint} -h' for help and examples\n")
        }
        ErrorKind::UnknownArgument if flag.starts_with("--") => {
            format!("error: unknown flag: {flag}\nSee '{hint} --help' for usage.\n")
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') => {
            let short: String = flag.chars().skip(1).take(1).collect();
            format!("error: unknown shorthand flag: '{short}' in {flag}\nSee '{hint} --help' for usage.\n")
        }
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            let last = words.last().map_or("", String::as_str);
            let flag = match last.strip_prefix('-') {
                Some(short) if short.chars().count() == 1 => format!("'{short}' in {last}"),
                _ => flag.to_owned(),
            };
            format!("error: flag needs an argument: {flag}\nSee '{hint} --help' for usage.\n")
        }
        ErrorKind::ValueValidation if flag.starts_with("--") => {
            let value = context(ContextKind::InvalidValue);
            format!(
                "error: invalid argument {value:?} for {flag:?} flag: strconv.ParseInt: parsing {value:?}: invalid syntax\nSee '{hint} --help' for usage.\n"
            )
        }
        ErrorKind::MissingRequiredArgument if flag.starts_with("--") => {
            format!("error: required flag(s) {:?} not set\n", flag.trim_start_matches('-'))
        }
        ErrorKind::MissingRequiredArgument if command == "completion" => {
            format!("error: Shell not specified.\nSee '{hint} -h' for help and examples\n")
        }
        _ => format!("{error}"),
    }
}

/// The exit code of a command line that cannot be understood: for `diff`, 1 means something else.
pub(crate) fn usage_code(words: &[String]) -> u8 {
    if command_of(words).0 == "diff" { diff::FAILED } else { 1 }
}

/// The command and sub-commands that the words name, such as `rollout status`, and the words behind them.
fn command_of(words: &[String]) -> (String, Vec<&str>) {
    let root = Kubectl::command();
    let mut at = &root;
    let mut names = Vec::new();
    let mut end = 0;
    for (number, word) in words.iter().enumerate().take_while(|(_, word)| *word != "--") {
        if let Some(inner) = at.find_subcommand(word) {
            names.push(inner.get_name().to_owned());
            at = inner;
            end = number + 1;
        }
    }
    (names.join(" "), words[end..].iter().map(String::as_str).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Kubectl::command().debug_assert();
    }

    #[test]
    fn flags_stand_anywhere_and_in_any_form() {
        for line in [
            "get pods -n x -o yaml",
            "-n x get pods -oyaml",
            "get -o=yaml --namespace=x pods",
            "--kubeconfig k get pods -o yaml -n x -w=false --watch-only=false",
        ] {
            let parsed = parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(parsed.globals.namespace.as_deref(), Some("x"), "{line}");
            let Command::Get(flags) = parsed.command else { panic!("{line}") };
            assert_eq!(
                (&flags.words[..], flags.output.output.as_deref(), flags.watch),
                (&["pods".to_owned()][..], Some("yaml"), false)
            );
        }
    }

    #[test]
    fn wrong_command_lines_get_kubectls_words() {
        for (line, wanted) in [
            ("get pods --nothere", "error: unknown flag: --nothere\nSee 'kubectl get --help' for usage.\n"),
            (
                "rollout status x --frob=1",
                "error: unknown flag: --frob\nSee 'kubectl rollout status --help' for usage.\n",
            ),
            ("gett pods", "error: unknown command \"gett\" for \"kubectl\"\n\nDid you mean this?\n\tset\n\tget\n"),
            ("nothere", "error: unknown command \"nothere\" for \"kubectl\"\n"),
            ("get pods -n", "error: flag needs an argument: 'n' in -n\nSee 'kubectl get --help' for usage.\n"),
        ] {
            let error = parse(words(line)).err().unwrap_or_else(|| panic!("{line} is understood"));
            assert_eq!(complaint(&error, &words(line)), wanted, "{line}");
        }
    }
}
