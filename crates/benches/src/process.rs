//! What processes use, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// `VmRSS` of a process.
pub(crate) fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1024.0)
}

/// What a process used in a stretch of time: the share of one processor in percent, and KiB/s that it had written to a disk.
pub(crate) async fn used(pid: u32, during: Duration) -> Result<(f64, f64)> {
    let before = (processor_seconds(pid)?, written_bytes(pid)?);
    tokio::time::sleep(during).await;
    let (processor, written) = (processor_seconds(pid)? - before.0, written_bytes(pid)? - before.1);
    Ok((processor / during.as_secs_f64() * 100.0, written / 1024.0 / during.as_secs_f64()))
}

/// `utime` and `stime`, which the kernel gives in hundredths of a second.
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().context("no name")?;
    let times: Vec<f64> = after_name.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
    Ok(times.iter().sum::<f64>() / 100.0)
}

/// `write_bytes`: what went towards a disk, not what stayed in the page cache of a memory file system.
fn written_bytes(pid: u32) -> Result<f64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    Ok(line.trim().parse()?)
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
