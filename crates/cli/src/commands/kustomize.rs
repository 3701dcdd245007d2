//! `kustomize`: what a kustomization comes to.
//!
//! Source of the texts: `sigs.k8s.io/kustomize/kustomize/commands/build`.

use std::path::Path;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Result, plain, system};
use crate::kustomize::{Disk, build};
use crate::print::{at, yaml};
use crate::session::Session;

/// Which kustomization.
#[derive(Args, Clone, Debug)]
pub(crate) struct Flags {
    /// DIRECTORY
    words: Vec<String>,
    /// A file to write to, or a directory to write a file per object into.
    #[arg(short = 'o', long)]
    output: Option<String>,
    /// LoadRestrictionsRootOnly: files have to lie below the directory that names them; LoadRestrictionsNone
    #[arg(long, default_value = "LoadRestrictionsRootOnly")]
    load_restrictor: String,
}

/// Prints it.
pub(crate) fn run(session: &Session, flags: &Flags) -> Result {
    let directory = match &flags.words[..] {
        [] => ".",
        [directory] => directory,
        _ => return plain("specify one path to kustomization.yaml"),
    };
    let restricted = match &*flags.load_restrictor {
        "LoadRestrictionsRootOnly" | "rootOnly" => true,
        "LoadRestrictionsNone" | "none" => false,
        other => {
            return plain(format!(
                "illegal flag value --load-restrictor {other}; legal values: [LoadRestrictionsRootOnly LoadRestrictionsNone]"
            ));
        }
    };
    let built = build(&Disk, directory, restricted)?;
    built.warnings.iter().for_each(|warning| session.err(&format!("{warning}\n")));
    let Some(output) = &flags.output else { return session.out(&documents(&built.objects)) };
    let output = Path::new(output);
    if !output.is_dir() {
        return write(output, &documents(&built.objects));
    }
    built.objects.iter().try_for_each(|object| write(&output.join(file_of(object)), &yaml(object)))
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(yaml).collect::<Vec<_>>().join("---\n")
}

fn write(path: &Path, text: &str) -> Result {
    std::fs::write(path, text).map_err(|error| Failure::Plain(format!("open {}: {}", path.display(), system(&error))))
}

/// `apps_v1_statefulset_web.yaml`
fn file_of(object: &Value) -> String {
    let kinds = format!("{}_{}", at(object, "/apiVersion").replace('/', "_"), at(object, "/kind"));
    let named = match at(object, "/metadata/namespace") {
        "" => String::new(),
        namespace => format!("{namespace}_"),
    };
    format!("{named}{}_{}.yaml", kinds.to_lowercase(), at(object, "/metadata/name"))
}
