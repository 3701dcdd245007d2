//! `cargo xtask test`: the steps in the order in which they fail fastest.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{images, tidy};

/// Debian packages that the end-to-end tests use and a fresh machine may lack.
const PACKAGES: &[(&str, &str)] = &[
    ("dpkg-deb", "dpkg"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("mkfs.ext4", "e2fsprogs"),
    ("script", "bsdutils"),
];

/// `cargo deny` holds the fences of deny.toml. It is installed into `target/tools` where the machine has none.
const DENY_VERSION: &str = "0.20.2";

pub(crate) fn run(root: &Path, no_e2e: bool) -> Result<()> {
    step("format", || cargo(root, &["fmt", "--all", "--check"]))?;
    step("tidy", || tidy::run(root))?;
    step("dependency fences", || deny(root))?;
    step("lints", || cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    if no_e2e {
        return step("unit tests and stories", || cargo(root, &["test", "--workspace", "--lib", "--bins"]));
    }
    if !is_root() {
        bail!("the end-to-end tests need root: run `sudo -E cargo xtask test`, or `cargo xtask test --no-e2e`");
    }
    step("packages", install_packages)?;
    step("test images", || stead_testkit::images::build_all(&images(root)).map(drop))?;
    step("stock kubectl", || stead_testkit::kubectl::programs(&root.join("target/tools")).map(drop))?;
    step("unit tests, stories, door suites and end-to-end tests", || cargo(root, &["test", "--workspace"]))
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    work()?;
    println!("== {name}: {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    run_command(Command::new("cargo").args(arguments).current_dir(root))
}

fn deny(root: &Path) -> Result<()> {
    let tools = root.join("target/tools");
    let own = tools.join("bin/cargo-deny");
    if !own.exists() && !on_path("cargo-deny") {
        let install = ["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", DENY_VERSION, "--root"];
        run_command(Command::new("cargo").args(install).arg(&tools).current_dir(root))?;
    }
    let program = if own.exists() { own } else { "cargo-deny".into() };
    // Advisories need the network; who updates dependencies runs `cargo deny check`.
    run_command(
        Command::new(program).args(["--log-level", "error", "check", "bans", "licenses", "sources"]).current_dir(root),
    )
}

fn on_path(program: &str) -> bool {
    let found = |directory: std::path::PathBuf| directory.join(program).exists();
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(found))
}

fn install_packages() -> Result<()> {
    run_command(Command::new("apt-get").args(["update", "-qq"]))?;
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run_command(Command::new("apt-get").args(install).args(missing).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn run_command(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
