//! What this machine is: capacity, kernel, identity.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;

use crate::NodeConfig;

/// What the machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub pods: u32,
}

#[must_use]
pub(crate) fn capacity(config: &NodeConfig) -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Capacity {
        cpu_milli: u64::try_from(cores).unwrap_or(1) * 1000,
        memory_bytes: meminfo("MemTotal").unwrap_or(0),
        disk_bytes: disk(&config.data_dir).map_or(0, |disk| disk.0),
        pods: config.pods_max,
    }
}

/// A line of /proc/meminfo in bytes.
#[must_use]
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU time that the machine has spent not idle since it was started, nanoseconds.
#[must_use]
pub(crate) fn busy_nanos() -> Option<u64> {
    busy_ticks(&fs::read_to_string("/proc/stat").ok()?).map(|ticks| ticks * (1_000_000_000 / TICKS_PER_SECOND))
}

/// The kernel's `USER_HZ`, the same on every architecture that is built for.
const TICKS_PER_SECOND: u64 = 100;

/// User, nice, system, interrupts and stolen time; neither idle nor waiting for disks. Guests are in user already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, rest @ ..] = ticks.as_slice() else { return None };
    Some(user + nice + system + rest.iter().take(3).sum::<u64>())
}

/// Size and free bytes of the file system at `path`.
#[must_use]
pub(crate) fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(path).ok()?;
    let block = stat.fragment_size();
    Some((stat.blocks() * block, stat.blocks_available() * block))
}

/// The words of `nodeInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    pub architecture: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub machine_id: String,
    pub os_image: String,
    pub system_uuid: String,
}

#[must_use]
pub(crate) fn info() -> Info {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let kernel = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let machine_id = text("/etc/machine-id");
    let uuid = text("/sys/class/dmi/id/product_uuid");
    Info {
        architecture: architecture().to_owned(),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        kernel_version: kernel,
        os_image: os_image(&text("/etc/os-release")),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
    }
}

/// As Go names it.
#[must_use]
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image(release: &str) -> String {
    let line = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        let stat = "cpu  10 2 30 1000 500 1 2 3 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(busy_ticks(stat), Some(10 + 2 + 30 + 1 + 2 + 3));
        assert_eq!(busy_ticks("intr 1\n"), None);
    }
}
