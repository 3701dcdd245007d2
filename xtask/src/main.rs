//! Project tasks.

mod codegen;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// Project tasks.
#[derive(Debug, Parser)]
enum Task {
    /// Generate the schema of the API types from published JSON schemas.
    Codegen {
        /// `_definitions.json` of the wanted Kubernetes version.
        definitions: PathBuf,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    match Task::parse() {
        Task::Codegen { definitions } => codegen::run(&definitions, root),
    }
}
