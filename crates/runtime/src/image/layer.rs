//! Unpacks a layer's tar stream over the layers below it, in an overlay mount.
//!
//! The kernel makes whiteouts of what is removed and keeps the owners of directories that the layer does not mention; links
//! of the layers below are followed as in the finished image. Every path is resolved with the mount as its root (`openat2`),
//! so no entry, link or earlier link in the stream leads outside.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of the AUFS era in front of which `.wh..wh.` stands mean nothing.
const AUFS: &[u8] = b".wh..wh.";
/// Deepest path accepted, so that a hostile archive cannot use up the stack or the kernel's patience.
const DEPTH_MAX: usize = 256;

/// Unpacks `stream` (plain tar) to `dir`. The bytes written come back.
pub(crate) fn unpack(stream: impl Read, dir: &Path) -> io::Result<u64> {
    let root = OwnedFd::from(File::open(dir)?);
    let mut tree = Tree { root, directories: Vec::new(), made: BTreeSet::new(), bytes: 0 };
    let mut archive = Archive::new(stream);
    for entry in archive.entries()? {
        tree.apply(&mut entry?)?;
    }
    tree.set_directory_times()?;
    Ok(tree.bytes)
}

struct Tree {
    root: OwnedFd,
    /// Directories with their times, which are set last because making entries changes them.
    directories: Vec<(PathBuf, i64)>,
    /// What this layer has brought: an opaque directory hides all but that.
    made: BTreeSet<PathBuf>,
    bytes: u64,
}

impl Tree {
    fn apply<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        let path = clean(&entry.path()?)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return self.set_root(entry);
        };
        let parent = self.make_parents(path.parent().unwrap_or(Path::new("")))?;
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            return self.hide_lower(&parent, path.parent().unwrap_or(Path::new("")));
        }
        if bytes.starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            return remove(parent.as_fd(), OsStr::from_bytes(hidden));
        }
        self.made.insert(path.clone());
        self.make(entry, &parent, &name, &path).map_err(|error| named(&error, &path))
    }

    fn make<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            if !is_directory(parent.as_fd(), name) {
                remove(parent.as_fd(), name)?;
                mkdirat(parent, name, Mode::from_bits_truncate(0o755))?;
            }
            self.directories.push((path.to_owned(), entry.header().mtime().unwrap_or(0) as i64));
            return set_metadata(entry, parent.as_fd(), name);
        }
        remove(parent.as_fd(), name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(parent, name, flags, Mode::from_bits_truncate(0o600))?);
                self.bytes += io::copy(entry, &mut file)?;
            }
            EntryType::Link => return self.hard_link(entry, parent, name),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| invalid("symbolic link without a target"))?;
                symlinkat(OsStr::from_bytes(&target), parent, name)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let header = entry.header();
                let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
                let (major, minor) = (number(header.device_major()), number(header.device_minor()));
                let kind = match kind {
                    EntryType::Char => SFlag::S_IFCHR,
                    EntryType::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFIFO,
                };
                mknodat(parent, name, kind, Mode::empty(), makedev(major.into(), minor.into()))?;
            }
            // Extension headers are read by the tar crate; anything else is not part of a file system.
            _ => return Ok(()),
        }
        set_metadata(entry, parent.as_fd(), name)
    }

    fn hard_link<R: Read>(&self, entry: &Entry<'_, R>, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = entry.link_name()?.ok_or_else(|| invalid("hard link without a target"))?;
        let target = clean(&target)?;
        let from_name = target.file_name().ok_or_else(|| invalid("hard link to a directory"))?;
        let from = self.open_directory(target.parent().unwrap_or(Path::new("")))?;
        Ok(linkat(&from, from_name, parent, name, AtFlags::empty())?)
    }

    /// Removes what the layers below have in a directory.
    fn hide_lower(&self, directory: &OwnedFd, path: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(descriptor_path(directory.as_fd()))? {
            let name = entry?.file_name();
            if !self.made.contains(&path.join(&name)) {
                remove(directory.as_fd(), &name)?;
            }
        }
        Ok(())
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(&self.root, path, how)?)
    }

    /// The directory `path`, with what is missing on the way made as root's.
    fn make_parents(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let parent = self.make_parents(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or_else(|| invalid("path without a name"))?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => self.open_directory(path),
            Err(errno) => Err(errno.into()),
        }
    }

    fn set_root<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        self.directories.push((PathBuf::from("."), entry.header().mtime().unwrap_or(0) as i64));
        let root = self.root.try_clone()?;
        set_metadata(entry, root.as_fd(), OsStr::new("."))
    }

    fn set_directory_times(&self) -> io::Result<()> {
        for (path, seconds) in self.directories.iter().rev() {
            // A later entry may have replaced the directory.
            let Ok(directory) = self.open_directory(path) else { continue };
            let time = TimeSpec::new(*seconds, 0);
            utimensat(&directory, ".", &time, &time, UtimensatFlags::NoFollowSymlink)?;
        }
        Ok(())
    }
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The path below the root, without `.` and without leading `/`.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(&format!("path {} leads outside of the layer", path.display())));
            }
        }
    }
    if clean.components().count() > DEPTH_MAX {
        return Err(invalid("path is too deep"));
    }
    Ok(clean)
}

fn is_directory(parent: BorrowedFd<'_>, name: &OsStr) -> bool {
    let stat = nix::sys::stat::fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// A path to what a descriptor is open on.
fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// Removes an entry, whatever it is; none being there is fine.
fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => std::fs::remove_dir_all(descriptor_path(parent).join(name)),
        Err(errno) => Err(errno.into()),
    }
}

/// Owner, extended attributes, mode and time, in the order in which each survives the next.
fn set_metadata<R: Read>(entry: &mut Entry<'_, R>, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let header = entry.header();
    // An empty number is 0, as for other readers of tar.
    let (uid, gid) = (header.uid().unwrap_or(0) as u32, header.gid().unwrap_or(0) as u32);
    let mode = header.mode().unwrap_or(0o644);
    let (kind, mtime) = (header.entry_type(), header.mtime().unwrap_or(0) as i64);
    fchownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if kind != EntryType::Symlink {
        let mode = Mode::from_bits_truncate(mode & 0o7777);
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)?;
    }
    set_xattrs(entry, parent, name)?;
    let time = TimeSpec::new(mtime, 0);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

fn set_xattrs<R: Read>(entry: &mut Entry<'_, R>, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    let mut attributes = Vec::new();
    for extension in extensions {
        let extension = extension?;
        if let Some(attribute) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.")
            && !attribute.starts_with(b"trusted.overlay.")
        {
            attributes.push((CString::new(attribute)?, extension.value_bytes().to_vec()));
        }
    }
    if attributes.is_empty() {
        return Ok(());
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    // What cannot be opened (links, devices) has no attributes worth an error.
    let Ok(fd) = openat(parent, name, flags, Mode::empty()) else { return Ok(()) };
    for (attribute, value) in attributes {
        match set_xattr(fd.as_fd(), &attribute, &value) {
            Err(error) if error.raw_os_error() == Some(libc::ENOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}

fn set_xattr(fd: BorrowedFd<'_>, name: &std::ffi::CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: the descriptor is open, the name is NUL terminated, and the kernel reads `value.len()` bytes of the value.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop).map_err(Into::into)
}
