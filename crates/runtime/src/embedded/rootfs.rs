//! A container's root file system: an overlay of its image's layers, and careful access to what is in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, mkdirat};

/// Largest `/etc/passwd` or `/etc/group` that is read.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// Size of a pod's `/dev/shm`, as runtimes have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// Mounts the overlay of `layers` (directories in `layers_root`, uppermost first) at `dir/rootfs`, with `dir/upper` above.
pub(crate) fn mount_overlay(layers_root: &Path, layers: &[String], dir: &Path, devices: bool) -> io::Result<()> {
    for part in ["upper", "work", "rootfs"] {
        std::fs::create_dir(dir.join(part))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        layers.join(":"),
        escape(&dir.join("upper"))?,
        escape(&dir.join("work"))?
    );
    let target = dir.join("rootfs");
    let flags = if devices { MsFlags::empty() } else { MsFlags::MS_NODEV };
    // What a container writes to its own layer does not outlive it, so it need not be synced (`volatile`).
    let attempt = |options: &str| mount(Some("overlay"), &target, Some("overlay"), flags, Some(options));
    let result = in_directory(layers_root, || match attempt(&format!("{options},volatile")) {
        Err(Errno::EINVAL) => attempt(&options),
        other => other,
    })?;
    result.map_err(|errno| match errno {
        Errno::ENODEV => io::Error::other("this kernel has no overlayfs; load the module \"overlay\""),
        errno => io::Error::other(format!("cannot mount overlay at {}: {errno}", target.display())),
    })
}

/// Runs on a thread of its own with this working directory: relative layer names keep the options within their one page.
fn in_directory<T: Send>(dir: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<T> {
            unshare(CloneFlags::CLONE_FS)?;
            std::env::set_current_dir(dir)?;
            Ok(work())
        });
        thread.join().map_err(|_| io::Error::other("mounting thread panicked"))?
    })
}

fn escape(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or_else(|| io::Error::other("data directory is not valid UTF-8"))?;
    Ok(text.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:"))
}

/// The `/dev/shm` that a pod's containers share.
pub(crate) fn mount_shm(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("shm"), dir, Some("tmpfs"), flags, Some(SHM_OPTIONS))?)
}

/// Takes a mount away; none being there is fine.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Every mount point below `dir`, innermost first.
pub(crate) fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(unescape(point)))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    Ok(points)
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// Opens something in a root file system as seen from inside: no link leads out.
fn open_in_root(root: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let relative: PathBuf =
        path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)).collect();
    let relative = if relative.as_os_str().is_empty() { PathBuf::from(".") } else { relative };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(root, &relative, how)
}

/// A text file's content; empty when it is not there.
pub(crate) fn read_in_root(root: &OwnedFd, path: &str) -> io::Result<String> {
    match open_in_root(root, Path::new(path), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
        Ok(fd) => {
            let mut bytes = Vec::new();
            File::from(fd).take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(String::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory, made with all above it when it is not there.
pub(crate) fn make_in_root(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    match open_in_root(root, path, directory) {
        Err(Errno::ENOENT) => {}
        other => return Ok(other?),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other(format!("{} is not a usable directory", path.display())));
    };
    let parent = make_in_root(root, parent)?;
    match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(open_in_root(root, path, directory)?),
        Err(errno) => Err(errno.into()),
    }
}

/// The root's descriptor, for the functions above.
pub(crate) fn open_root(rootfs: &Path) -> io::Result<OwnedFd> {
    Ok(OwnedFd::from(File::open(rootfs)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("/", root.join("up")).unwrap();
        let fd = open_root(&root).unwrap();
        assert_eq!(read_in_root(&fd, "/etc/passwd").unwrap(), "inside");
        assert_eq!(read_in_root(&fd, "/nosuch").unwrap(), "");
        make_in_root(&fd, Path::new("/up/a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
        assert!(make_in_root(&fd, Path::new("/secret/x")).is_err());
    }
}
