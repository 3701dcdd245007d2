//! `stead killall`: ends everything that a data directory has running on this machine. Its data stays.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::KillallFlags;
use crate::machine;
use crate::server::{block_on, engine_options, open_network_to_remove};

pub(crate) fn run(flags: &KillallFlags) -> Result<ExitCode> {
    anyhow::ensure!(machine::is_root(), "containers and interfaces belong to root: use sudo");
    if !flags.data_dir.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let data_dir = flags.data_dir.canonicalize()?;
    let options = engine_options(&data_dir, None);
    stead_runtime::embedded::kill_all(&options.root, &options.run, &options.cgroup_root)
        .with_context(|| format!("containers of {}", data_dir.display()))?;
    block_on(async { open_network_to_remove(&data_dir)?.remove_all().await.context("interfaces and rules") })?;
    Ok(ExitCode::SUCCESS)
}
