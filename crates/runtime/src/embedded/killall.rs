//! Ends everything of one instance, without its server.

use std::io;
use std::path::Path;

use crate::cgroup::Cgroups;
use crate::mounts;

/// Kills every shim and container of the instance and removes its mounts, cgroups and sockets. Images, container records and
/// logs stay. Works without a running server; the three arguments are those of [`super::Options`].
///
/// # Errors
/// A process that cannot be killed, or a mount that cannot be removed.
pub fn kill_all(root: &Path, run: &Path, cgroup_root: &str) -> io::Result<()> {
    let cgroups = Cgroups::read()?;
    // Shims first, so that none starts anything; they are in a group of their own below the instance's.
    cgroups.kill(&format!("{cgroup_root}/shims"))?;
    cgroups.kill(cgroup_root)?;
    for dir in [root, run] {
        unmount_below(dir)?;
    }
    cgroups.remove(cgroup_root);
    for entry in std::fs::read_dir(run).into_iter().flatten().flatten() {
        if entry.path().join(crate::shim::CONFIG).exists() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Removes every mount below `dir`, innermost first. `dir` itself, which may be a mount of the machine's, stays.
///
/// # Errors
/// A mount that cannot be removed.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    for point in mounts::mounts_below(&dir)?.into_iter().filter(|point| *point != dir) {
        mounts::unmount(&point)?;
    }
    Ok(())
}
