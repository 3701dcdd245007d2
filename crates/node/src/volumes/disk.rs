//! Directories, tmpfs, ownership, and taking them away again.

use std::fs;
use std::io::{ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Makes a directory with exactly this mode; one that is there keeps its own.
///
/// # Errors
/// The file system's.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Mounts a tmpfs over `dir` unless one is there.
///
/// # Errors
/// The kernel's, as text.
pub(crate) fn ensure_tmpfs(dir: &Path, bytes: Option<i128>) -> std::result::Result<(), String> {
    let parent = dir.parent().unwrap_or(dir);
    let (own, above) = (fs::metadata(dir), fs::metadata(parent));
    let is_mounted = matches!((&own, &above), (Ok(own), Ok(above)) if own.dev() != above.dev());
    if is_mounted {
        return Ok(());
    }
    let mode = own.map_or(0o755, |own| own.permissions().mode() & 0o7777);
    let size = bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let data = format!("mode={mode:o}{size}");
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(data.as_str()))
        .map_err(|error| format!("cannot mount tmpfs at {}: {error}", dir.display()))
}

/// Lets a group own a tree: readable and writable for it, and new files in directories belong to it.
///
/// # Errors
/// The file system's.
pub(crate) fn give_to_group(path: &Path, group: u32) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let more = if meta.is_dir() { 0o2770 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(meta.permissions().mode() & 0o7777 | more))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    }
    Ok(())
}

/// Whether the root of a tree already belongs to the group as [`give_to_group`] would have it.
#[must_use]
pub(crate) fn belongs_to_group(path: &Path, group: u32) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.gid() == group && meta.permissions().mode() & 0o2070 == 0o2070)
}

/// Checks, and for the `OrCreate` types makes, a path of the host (upstream: `pkg/volume/hostpath`).
///
/// # Errors
/// Upstream's text for a path that is not of the type.
pub(crate) fn host_path(path: &Path, kind: &str) -> std::result::Result<(), String> {
    let shown = path.display();
    let is = |what: fn(&fs::Metadata) -> bool| fs::metadata(path).is_ok_and(|meta| what(&meta));
    let check = |ok: bool, what: &str| {
        if ok { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not {what}")) }
    };
    match kind {
        "DirectoryOrCreate" => {
            if fs::metadata(path).is_err() {
                make_dir(path, 0o755).map_err(|error| error.to_string())?;
            }
            check(is(fs::Metadata::is_dir), "a directory")
        }
        "FileOrCreate" => {
            if fs::metadata(path).is_err() {
                let made = fs::OpenOptions::new().create(true).append(true).open(path);
                made.map_err(|error| format!("open {shown}: {error}"))?;
            }
            check(is(fs::Metadata::is_file), "a file")
        }
        "Directory" => check(is(fs::Metadata::is_dir), "a directory"),
        "File" => check(is(fs::Metadata::is_file), "a file"),
        "Socket" => check(is(|meta| meta.file_type().is_socket()), "a socket file"),
        "CharDevice" => check(is(|meta| meta.file_type().is_char_device()), "a character device"),
        "BlockDevice" => check(is(|meta| meta.file_type().is_block_device()), "a block device"),
        // Without a type the engine makes a directory where there is nothing, as upstream's do.
        "" if fs::metadata(path).is_err() => make_dir(path, 0o755).map_err(|error| error.to_string()),
        "" => Ok(()),
        other => Err(format!("hostPath type {other} is not valid")),
    }
}

/// Mount points below a directory (and itself), deepest first.
fn mounts_below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|text| PathBuf::from(unescape(text)));
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(dir)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    below
}

/// Octal escapes of mountinfo: `\040` is a blank.
pub(super) fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let code = (byte == b'\\').then(|| rest.get(..3)).flatten();
        let value = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                bytes.nth(2);
            }
            None => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Unmounts everything below a directory.
///
/// # Errors
/// When something stays mounted.
pub(crate) fn unmount_below(dir: &Path) -> std::result::Result<(), String> {
    for point in mounts_below(dir) {
        if let Err(error) = umount2(&point, MntFlags::MNT_DETACH) {
            tracing::warn!(point = %point.display(), %error, "unmount");
        }
    }
    match mounts_below(dir).first() {
        None => Ok(()),
        Some(point) => Err(format!("{} is still mounted", point.display())),
    }
}

/// Removes a tree without following links or crossing into another file system.
///
/// # Errors
/// The file system's; being gone already is success.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    remove_on(path, meta.dev())
}

fn remove_on(path: &Path, device: u64) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.dev() != device {
        let text = format!("{} is on another file system", path.display());
        return Err(std::io::Error::new(ErrorKind::CrossesDevices, text));
    }
    if !meta.is_dir() {
        return fs::remove_file(path);
    }
    for entry in fs::read_dir(path)? {
        remove_on(&entry?.path(), device)?;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked_by_type() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("f");
        fs::write(&file, "x").expect("written");
        let text = |path: &Path, kind| host_path(path, kind).err().unwrap_or_default();
        assert_eq!(
            text(&file, "Directory"),
            format!("hostPath type check failed: {} is not a directory", file.display())
        );
        assert_eq!(
            text(dir.path(), "File"),
            format!("hostPath type check failed: {} is not a file", dir.path().display())
        );
        assert_eq!(text(&dir.path().join("new/d"), "DirectoryOrCreate"), "");
        assert_eq!(text(&dir.path().join("new/f"), "FileOrCreate"), "");
        assert_eq!(text(&dir.path().join("any"), ""), "");
        assert!(dir.path().join("any").is_dir());
        assert!(!text(&file, "Socket").is_empty());
    }

    #[test]
    fn a_tree_goes_with_its_links_and_not_what_they_point_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (tree, kept) = (dir.path().join("tree"), dir.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).expect("made");
        fs::write(&kept, "x").expect("written");
        std::os::unix::fs::symlink(&kept, tree.join("a/link")).expect("linked");
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).expect("gone already");
    }

    #[test]
    fn escapes_of_the_mount_table_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
