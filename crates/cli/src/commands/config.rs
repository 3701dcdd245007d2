//! `config`: what the kubeconfig says, and which context is the current one.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::failure::{Failure, Result, plain, system};
use crate::kubeconfig;
use crate::print::{Tab, at, list, yaml};
use crate::session::Session;

/// Sub-commands of `config`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// The merged kubeconfig, without its secrets unless --raw.
    View {
        #[arg(long)]
        raw: bool,
        /// Only what the current context needs.
        #[arg(long)]
        minify: bool,
        /// yaml, json, jsonpath=...
        #[arg(short = 'o', long, default_value = "yaml")]
        output: String,
    },
    /// The name of the current context.
    CurrentContext,
    /// The contexts.
    GetContexts {
        names: Vec<String>,
        #[arg(short = 'o', long)]
        output: Option<String>,
        #[arg(long)]
        no_headers: bool,
    },
    /// The clusters.
    GetClusters,
    /// The users.
    GetUsers,
    /// Make a context the current one.
    UseContext { name: String },
    /// Change a context, or add one.
    SetContext {
        name: Option<String>,
        /// Change the current context.
        #[arg(long)]
        current: bool,
    },
}

/// Does it.
pub(crate) async fn run(session: &Session, flags: Flags) -> Result {
    let mut config = kubeconfig::merged(&session.globals)?;
    if let Some(context) = &session.globals.context {
        config["current-context"] = context.as_str().into();
    }
    match flags.what {
        What::View { raw, minify, output } => {
            let config = if minify { kubeconfig::minified(config)? } else { config };
            let config = if raw { config } else { kubeconfig::redacted(config) };
            let output =
                crate::print::Output { output: Some(output), allow_missing_template_keys: true, ..Default::default() };
            session.out(&output.format(crate::print::PLAIN_FORMATS, true)?.print(&emptied(config))?)
        }
        What::CurrentContext => match at(&config, "/current-context") {
            "" => plain("current-context is not set"),
            name => session.out(&format!("{name}\n")),
        },
        What::GetContexts { names, output, no_headers } => {
            let known = |name: &&String| kubeconfig::find(&config, "contexts", &json!(name)).is_some();
            let there: Vec<String> = names.iter().filter(known).cloned().collect();
            if names.is_empty() || !there.is_empty() {
                session.out(&contexts(&config, &there, output.as_deref() == Some("name"), no_headers))?;
            } else if output.is_none() && !no_headers {
                session.out("CURRENT   NAME   CLUSTER   AUTHINFO   NAMESPACE\n")?;
            }
            let missing: Vec<&String> = names.iter().filter(|name| !known(name)).collect();
            missing.iter().for_each(|name| session.err(&format!("error: context {name} not found\n")));
            if missing.is_empty() { Ok(()) } else { Err(Failure::Code(1)) }
        }
        What::GetClusters => session.out(&names(&config, "clusters")),
        What::GetUsers => session.out(&names(&config, "users")),
        What::UseContext { name } => {
            if kubeconfig::find(&config, "contexts", &json!(name)).is_none() {
                return plain(format!("no context exists with the name: {name:?}"));
            }
            change(session, |file| file["current-context"] = name.as_str().into())?;
            session.out(&format!("Switched to context {name:?}.\n"))
        }
        What::SetContext { name, current } => set_context(session, &config, name, current),
    }
}

/// Lists that are empty are null, as kubectl shows them.
fn emptied(mut config: Value) -> Value {
    for list in ["clusters", "contexts", "users"] {
        if config[list].as_array().is_some_and(Vec::is_empty) {
            config[list] = Value::Null;
        }
    }
    config
}

fn names(config: &Value, key: &str) -> String {
    let lines: String =
        list(config, &format!("/{key}")).iter().map(|entry| format!("{}\n", at(entry, "/name"))).collect();
    format!("NAME\n{lines}")
}

fn contexts(config: &Value, only: &[String], name_only: bool, no_headers: bool) -> String {
    let mut lines = Vec::new();
    if !no_headers && !name_only {
        lines.push(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"].map(str::to_owned).to_vec());
    }
    for entry in list(config, "/contexts") {
        let name = at(entry, "/name").to_owned();
        if !only.is_empty() && !only.contains(&name) {
            continue;
        }
        let current = if at(config, "/current-context") == name { "*" } else { "" };
        let cell = |pointer: &str| at(entry, pointer).to_owned();
        lines.push(if name_only {
            vec![name]
        } else {
            vec![current.to_owned(), name, cell("/context/cluster"), cell("/context/user"), cell("/context/namespace")]
        });
    }
    Tab::default().lay_out(&lines)
}

fn set_context(session: &Session, config: &Value, name: Option<String>, current: bool) -> Result {
    let name = match (name, current) {
        (Some(name), false) => name,
        (None, true) => at(config, "/current-context").to_owned(),
        _ => return plain("you must specify a non-empty context name or --current"),
    };
    let known = kubeconfig::find(config, "contexts", &json!(name)).is_some();
    let globals = &session.globals;
    let new = [("namespace", &globals.namespace), ("cluster", &globals.cluster), ("user", &globals.user)];
    change(session, |file| {
        if !file["contexts"].is_array() {
            file["contexts"] = json!([]);
        }
        if let Some(list) = file["contexts"].as_array_mut() {
            if !list.iter().any(|entry| entry["name"] == name.as_str()) {
                list.push(json!({"name": name, "context": {}}));
            }
            for entry in list.iter_mut().filter(|entry| entry["name"] == name.as_str()) {
                for (key, value) in &new {
                    if let Some(value) = value {
                        entry["context"][*key] = value.as_str().into();
                    }
                }
            }
        }
    })?;
    session.out(&format!("Context {name:?} {}.\n", if known { "modified" } else { "created" }))
}

/// Changes the first kubeconfig file in place.
fn change(session: &Session, change: impl FnOnce(&mut Value)) -> Result {
    let files = kubeconfig::files(&session.globals);
    let Some(path) = files.iter().find(|path| path.exists()).or(files.first()) else { return plain("no kubeconfig") };
    let failed = |error: std::io::Error| Failure::Plain(format!("open {}: {}", path.display(), system(&error)));
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let mut file: Value = serde_norway::from_str(&text).map_err(|error| Failure::Plain(error.to_string()))?;
    change(&mut file);
    std::fs::write(path, yaml(&file)).map_err(failed)
}
