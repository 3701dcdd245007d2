//! `subPath`: a bind mount of one place within a volume, made so that a link planted in the volume cannot lead out of it
//! (upstream: `pkg/volume/util/subpath`).

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount as mount_fs};
use nix::sys::stat::{Mode, mkdirat};

/// Binds `volume/sub` at `target` and returns `target`. What does not exist is made as a directory.
///
/// # Errors
/// A path that leads out of the volume, or the kernel's refusal.
pub(crate) fn mount(volume: &Path, sub: &str, target: &Path) -> Result<PathBuf, String> {
    let failed = |error: &dyn std::fmt::Display| format!("failed to prepare subPath for volumeMount: {error}");
    let relative = Path::new(sub);
    if relative.is_absolute() || relative.components().any(|part| part == Component::ParentDir) {
        return Err(failed(&format!("subPath \"{sub}\" must be a relative path without '..'")));
    }
    let root = fs::canonicalize(volume).map_err(|error| failed(&error))?;
    let place = open_within(&root, &resolve(&root, relative)?).map_err(|error| failed(&error))?;
    let source = format!("/proc/self/fd/{}", place.as_raw_fd());
    let is_dir = fs::metadata(&source).is_ok_and(|meta| meta.is_dir());
    prepare(target, is_dir).map_err(|error| failed(&error))?;
    let bind = mount_fs(Some(source.as_str()), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>);
    bind.map_err(|error| failed(&error))?;
    Ok(target.to_owned())
}

/// Follows links as far as the path exists; the result must lie within the volume.
fn resolve(root: &Path, relative: &Path) -> Result<PathBuf, String> {
    let mut known = root.to_path_buf();
    let mut rest = relative.components();
    for part in rest.by_ref() {
        let next = known.join(part);
        match fs::canonicalize(&next) {
            Ok(real) if real.starts_with(root) => known = real,
            Ok(_) => return Err(format!("subPath \"{}\" leads out of the volume", relative.display())),
            Err(_) => {
                known = next;
                break;
            }
        }
    }
    known.extend(rest);
    let below =
        known.strip_prefix(root).map_err(|_| format!("subPath \"{}\" leads out of the volume", relative.display()))?;
    Ok(below.to_path_buf())
}

/// Opens a path part by part without following links, making directories that are missing.
fn open_within(root: &Path, below: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = open(root, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    for part in below.components() {
        let name = part.as_os_str();
        let next = match openat(at.as_fd(), name, flags, Mode::empty()) {
            Err(nix::errno::Errno::ENOENT) => {
                mkdirat(at.as_fd(), name, Mode::from_bits_truncate(0o750))?;
                openat(at.as_fd(), name, flags | OFlag::O_DIRECTORY, Mode::empty())?
            }
            other => other?,
        };
        at = next;
    }
    Ok(at)
}

fn prepare(target: &Path, is_dir: bool) -> std::io::Result<()> {
    if is_dir {
        return fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().create(true).append(true).open(target).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_may_not_lead_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(dir.path()).expect("a path");
        fs::create_dir_all(root.join("vol/in")).expect("made");
        fs::create_dir_all(root.join("out")).expect("made");
        symlink(root.join("out"), root.join("vol/evil")).expect("linked");
        symlink("in", root.join("vol/good")).expect("linked");
        let vol = root.join("vol");
        assert_eq!(resolve(&vol, Path::new("good/x")), Ok(PathBuf::from("in/x")));
        assert_eq!(resolve(&vol, Path::new("new/deep")), Ok(PathBuf::from("new/deep")));
        assert!(resolve(&vol, Path::new("evil/x")).is_err());
        assert!(open_within(&vol, Path::new("evil/x")).is_err(), "even when it is swapped in afterwards");
        assert!(open_within(&vol, Path::new("new/deep")).is_ok());
        assert!(vol.join("new/deep").is_dir());
    }
}
