//! Project tasks: `cargo xtask test` is what a contributor and CI run; the others are its parts.

mod codegen;
mod csi;
mod go;
mod mutants;
mod protobuf;
mod tidy;
mod verify;
mod zeros;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// Project tasks.
#[derive(Debug, Parser)]
enum Task {
    /// Everything that must hold: formatting, lints, house rules, unit and story tests, end-to-end tests (as root).
    Test {
        /// Leave out the tests that need root and a few minutes.
        #[arg(long)]
        no_e2e: bool,
    },
    /// The house rules alone, and the shape of the house.
    Tidy,
    /// Spoil the decisions line by line and see whether a test notices each time.
    Mutants {
        /// Only those whose name contains this.
        only: Option<String>,
    },
    /// Build the test images from Debian packages into `target/test-images`.
    Images,
    /// Serve the test images as a registry on loopback until interrupted.
    Registry {
        #[arg(long, default_value_t = 5000)]
        port: u16,
    },
    /// Generate the schema of the API types from published JSON schemas.
    Codegen {
        /// `_definitions.json` of the wanted Kubernetes version.
        definitions: PathBuf,
    },
    /// Mark in that schema what becomes of zero values, from the Go types.
    CodegenZeros {
        /// Checkouts of k8s.io/api, apimachinery, apiextensions-apiserver, kube-aggregator and metrics of the same version.
        #[arg(required = true)]
        checkouts: Vec<PathBuf>,
    },
    /// Generate the field numbers of the protobuf form from the Go types.
    CodegenProtobuf {
        /// A checkout of k8s.io/api.
        api: PathBuf,
        /// A checkout of k8s.io/apimachinery of the same version.
        apimachinery: PathBuf,
    },
    /// Generate the messages of the Container Storage Interface.
    CodegenCsi {
        /// `csi.proto` of the wanted version.
        proto: PathBuf,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the workspace")?;
    match Task::parse() {
        Task::Test { no_e2e } => verify::run(root, no_e2e),
        Task::Tidy => tidy::run(root),
        Task::Mutants { only } => mutants::run(root, only.as_deref()),
        Task::Images => stead_testkit::images::build_all(&images(root)).map(|layout| println!("{}", layout.display())),
        Task::Registry { port } => serve(root, port),
        Task::Codegen { definitions } => codegen::run(&definitions, root),
        Task::CodegenCsi { proto } => csi::run(&proto, root),
        Task::CodegenZeros { checkouts } => zeros::run(&checkouts, root),
        Task::CodegenProtobuf { api, apimachinery } => protobuf::run(&api, &apimachinery, root),
    }
}

fn images(root: &Path) -> PathBuf {
    root.join("target/test-images")
}

#[tokio::main(flavor = "current_thread")]
async fn serve(root: &Path, port: u16) -> Result<()> {
    let layout = stead_testkit::images::build_all(&images(root))?;
    let registry = stead_testkit::registry::Registry::serve(&layout, port).await?;
    println!("# registries.yaml\n{}", registry.registries_yaml());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
