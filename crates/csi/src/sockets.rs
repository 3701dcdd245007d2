//! The sockets in a directory: which there are, and when that changes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Sockets of one directory that are looked at.
const SOCKETS_MAX: usize = 256;

/// A socket; one that was removed and made again is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    pub path: PathBuf,
    /// Inode, and the time of its last change: seconds and nanoseconds.
    born: (u64, i64, i64),
}

/// A directory that is watched for sockets.
#[derive(Debug)]
pub struct Sockets {
    dir: PathBuf,
    inotify: AsyncFd<Raw>,
}

#[derive(Debug)]
struct Raw(Inotify);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Sockets {
    /// Makes the directory if need be, for its owner alone, and begins to watch it.
    ///
    /// # Errors
    /// The file system's.
    #[expect(deprecated, reason = "the new way is unsafe; the descriptor stays with the inotify that moves in")]
    pub fn watch(dir: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_ATTRIB;
        inotify.add_watch(dir, flags)?;
        Ok(Self { dir: dir.to_owned(), inotify: AsyncFd::new(Raw(inotify))? })
    }

    /// The sockets that are there now, at most 256. Hidden ones do not count.
    ///
    /// # Errors
    /// The file system's.
    pub fn list(&self) -> io::Result<BTreeSet<Socket>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.dir)?.flatten().take(SOCKETS_MAX) {
            let path = entry.path();
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.file_type().is_socket() && !entry.file_name().to_string_lossy().starts_with('.') {
                found.insert(Socket { path, born: (meta.ino(), meta.ctime(), meta.ctime_nsec()) });
            }
        }
        Ok(found)
    }

    /// Waits until something happens in the directory. Cancel safe.
    pub async fn changed(&self) {
        let Ok(mut ready) = self.inotify.readable().await else { return std::future::pending().await };
        // What exactly has happened does not matter: the caller looks.
        while self.inotify.get_ref().0.read_events().is_ok_and(|events| !events.is_empty()) {}
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_comes_and_one_that_goes_are_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let sockets = Sockets::watch(&dir.path().join("csi")).expect("watched");
        assert!(sockets.list().expect("listed").is_empty());
        let path = dir.path().join("csi/one.sock");
        fs::write(dir.path().join("csi/file"), "").expect("written");
        let listener = UnixListener::bind(&path).expect("bound");
        sockets.changed().await;
        let first = sockets.list().expect("listed");
        assert_eq!(first.iter().map(|socket| socket.path.as_path()).collect::<Vec<_>>(), [path.as_path()]);
        drop(listener);
        fs::remove_file(&path).expect("removed");
        sockets.changed().await;
        let _again = UnixListener::bind(&path).expect("bound");
        let second = sockets.list().expect("listed");
        assert_ne!(first, second, "another socket under the same name");
    }
}
