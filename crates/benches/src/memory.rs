//! Resident memory as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// `VmRSS` of a process.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1024.0)
}

/// The mean over all shims on this machine.
pub(crate) fn shims_mib() -> Result<f64> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if command.split(|byte| *byte == 0).any(|word| word == b"__shim") {
            sizes.extend(resident_mib(pid).ok());
        }
    }
    Ok(sizes.iter().sum::<f64>() / sizes.len().max(1) as f64)
}
