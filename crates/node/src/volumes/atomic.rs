//! Writes all files of a volume so that a reader sees either all old or all new ones: upstream's `..data` scheme
//! (`pkg/volume/util/atomic_writer.go`), which programs that watch their configuration know.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use super::payload::File;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes the volume at `dir` hold exactly `files`. `stamp` names the new generation; `group` may read everything.
/// Returns whether anything was written.
///
/// # Errors
/// A path that leaves the volume, or the file system's error.
pub(crate) fn write(dir: &Path, files: &[File], stamp: &str, group: Option<u32>) -> Result<bool> {
    for file in files {
        check(&file.path)?;
    }
    fs::create_dir_all(dir)?;
    let old = fs::read_link(dir.join(DATA)).ok().map(|name| dir.join(name));
    if let Some(old) = &old
        && is_same(old, files)
    {
        return Ok(false);
    }
    let name = format!("..{stamp}");
    let new = dir.join(&name);
    fs::create_dir(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    for file in files {
        write_file(&new, file, group)?;
    }
    if let Some(group) = group {
        chown(&new, None, Some(group))?;
    }
    let next = dir.join(DATA_NEXT);
    remove_if_there(&next)?;
    symlink(&name, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    link_visible(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(old)?;
    }
    Ok(true)
}

fn check(path: &str) -> Result<()> {
    let bad = || Error::new(ErrorKind::InvalidInput, format!("path {path:?} is not below the volume"));
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || path.starts_with("..") || !normal { Err(bad()) } else { Ok(()) }
}

fn write_file(root: &Path, file: &File, group: Option<u32>) -> Result<()> {
    let path = root.join(&file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    out.write_all(&file.bytes)?;
    if group.is_some() || file.owner.is_some() {
        chown(&path, file.owner, group)?;
    }
    let readable_by_group = if group.is_some() { (file.mode & 0o400) >> 3 | (file.mode & 0o100) >> 3 } else { 0 };
    out.set_permissions(fs::Permissions::from_mode(file.mode | readable_by_group))
}

fn is_same(old: &Path, files: &[File]) -> bool {
    let wanted: BTreeSet<PathBuf> = files.iter().map(|file| PathBuf::from(&file.path)).collect();
    let there = walk(old, Path::new("")).unwrap_or_default();
    let same = |file: &File| fs::read(old.join(&file.path)).is_ok_and(|bytes| bytes == file.bytes);
    wanted == there && files.iter().all(same)
}

fn walk(root: &Path, below: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(walk(root, &path)?);
        } else {
            found.insert(path);
        }
    }
    Ok(found)
}

/// The names that users see are links through `..data`; names that are no longer wanted go.
fn link_visible(dir: &Path, files: &[File]) -> Result<()> {
    let tops: BTreeSet<&str> = files.iter().filter_map(|file| file.path.split('/').next()).collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let visible = !name.as_encoded_bytes().starts_with(b"..");
        if visible && !name.to_str().is_some_and(|name| tops.contains(name)) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), mode: 0o644, bytes: text.as_bytes().to_vec(), owner: None }
    }

    #[test]
    fn a_new_generation_replaces_the_old_one_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert!(write(dir.path(), &[file("a", "1"), file("x/y", "2")], "1", None).expect("written"));
        assert_eq!((read("a"), read("x/y")), (Some("1".to_owned()), Some("2".to_owned())));
        assert_eq!(fs::read_link(dir.path().join("a")).expect("a link"), PathBuf::from("..data/a"));
        assert!(!write(dir.path(), &[file("a", "1"), file("x/y", "2")], "2", None).expect("the same"));
        assert!(write(dir.path(), &[file("b", "3")], "3", None).expect("written"));
        assert_eq!((read("a"), read("x/y"), read("b")), (None, None, Some("3".to_owned())));
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 3, "..data, ..3, b");
    }

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().expect("a directory");
        for path in ["../x", "/x", "..x", "a/../../x", ""] {
            assert!(write(dir.path(), &[file(path, "")], "1", None).is_err(), "{path}");
        }
    }
}
