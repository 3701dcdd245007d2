//! `stead killall`: ends everything that a data directory has running on this machine. Its data stays.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::KillallFlags;
use crate::machine;
use crate::node::{engine_options, run_dir};
use crate::server::{block_on, open_network_to_remove};

pub(crate) fn run(flags: &KillallFlags) -> Result<ExitCode> {
    anyhow::ensure!(machine::is_root(), "containers and interfaces belong to root: use sudo");
    remove(&flags.data_dir)?;
    Ok(ExitCode::SUCCESS)
}

/// Stops every container of a data directory and removes its mounts, interfaces and rules. Its data stays.
pub(crate) fn remove(data_dir: &Path) -> Result<()> {
    let Ok(data_dir) = data_dir.canonicalize() else { return Ok(()) };
    let options = engine_options(&data_dir, None);
    stead_runtime::embedded::kill_all(&options.root, &options.run, &options.cgroup_root)
        .with_context(|| format!("containers of {}", data_dir.display()))?;
    for part in ["agent", "storage"] {
        stead_runtime::embedded::unmount_below(&data_dir.join(part)).context("volumes of pods")?;
    }
    block_on(async { open_network_to_remove(&data_dir)?.remove_all().await.context("interfaces and rules") })?;
    let run_dir = run_dir(&data_dir);
    if run_dir.exists() {
        std::fs::remove_dir_all(&run_dir).with_context(|| run_dir.display().to_string())?;
    }
    Ok(())
}
