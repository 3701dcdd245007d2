//! Copies a directory tree with owners, modes and links: an image's content into an anonymous volume.

use std::fs::{DirEntry, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

/// Copies what is in `source` to the existing directory `target`. Device nodes and sockets are left out.
pub(super) fn copy_tree(source: &OwnedFd, target: &Path) -> io::Result<()> {
    // By descriptor, because the path may lead over links of the image.
    let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    copy_directory(&source, target)
}

fn copy_directory(source: &Path, target: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        copy_entry(&entry, &target.join(entry.file_name()))?;
    }
    let metadata = std::fs::metadata(source)?;
    chown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    std::fs::set_permissions(target, std::fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

fn copy_entry(entry: &DirEntry, target: &Path) -> io::Result<()> {
    let (source, kind) = (entry.path(), entry.file_type()?);
    let metadata = entry.metadata()?;
    if kind.is_dir() {
        std::fs::create_dir(target)?;
        return copy_directory(&source, target);
    }
    if kind.is_symlink() {
        symlink(std::fs::read_link(&source)?, target)?;
        return lchown(target, Some(metadata.uid()), Some(metadata.gid()));
    }
    if kind.is_file() {
        io::copy(&mut File::open(&source)?, &mut File::create_new(target)?)?;
        chown(target, Some(metadata.uid()), Some(metadata.gid()))?;
        return std::fs::set_permissions(target, std::fs::Permissions::from_mode(metadata.mode() & 0o7777));
    }
    Ok(())
}
