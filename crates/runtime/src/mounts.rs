//! Mounts that the engine makes in the host's mount namespace: overlays and the pods' shared memory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Size of a pod's `/dev/shm`, as runtimes have it.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";
/// Nothing of these helps read layers, and each would tie a layer to the mount it was made in.
const PLAIN: &str = "index=off,redirect_dir=off,metacopy=off";

/// An overlay to be mounted: `dir` gets `upper`, `work` and the mount point `rootfs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlay<'a> {
    pub layers_root: &'a Path,
    /// Directories in `layers_root`, uppermost first.
    pub layers: &'a [String],
    pub dir: &'a Path,
    /// Whether device nodes in it work.
    pub devices: bool,
}

impl Overlay<'_> {
    pub(crate) fn mount(&self) -> io::Result<()> {
        for part in ["upper", "work", "rootfs"] {
            std::fs::create_dir(self.dir.join(part))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.layers.join(":"),
            escape(&self.dir.join("upper"))?,
            escape(&self.dir.join("work"))?
        );
        let target = self.dir.join("rootfs");
        let flags = if self.devices { MsFlags::empty() } else { MsFlags::MS_NODEV };
        // What is written here either does not outlive the container or is synced afterwards as a whole: hence `volatile`.
        let variants = [format!("{options},{PLAIN},volatile"), format!("{options},{PLAIN}"), options];
        let result = in_directory(self.layers_root, || {
            let mut result = Ok(());
            for options in &variants {
                result = mount(Some("overlay"), &target, Some("overlay"), flags, Some(options.as_str()));
                if result != Err(Errno::EINVAL) {
                    break; // EINVAL: an option that this kernel does not know
                }
            }
            result
        })?;
        result.map_err(|errno| match errno {
            Errno::ENODEV => io::Error::other("this kernel has no overlayfs; load the module \"overlay\""),
            errno => io::Error::other(format!("cannot mount overlay at {}: {errno}", target.display())),
        })
    }
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

/// A read-only view of a file, on a mount of its own that no path leads to. A program that is executed by way of it cannot be
/// opened for writing through its `/proc/<pid>/exe`, which is how containers have got at their runtime (CVE-2019-5736).
pub(crate) fn read_only_view(file: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL terminated; the kernel returns a new descriptor or an error.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC,
        )
    };
    // SAFETY: the kernel has just given the descriptor to us.
    let view = unsafe { crate::shim::own(Errno::result(fd)? as i32) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the empty path is NUL terminated, and the kernel reads one `mount_attr` of this size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            view.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result)?;
    Ok(view)
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
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
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
