//! Careful access to what is in a container's root file system.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};

/// Largest `/etc/passwd` or `/etc/group` that is read.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
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
