//! Volumes of enforced size: an ext4 file system in a file beside the volume's directory, mounted there through a loop device.
//!
//! The file is as large as the volume's capacity, but takes only the space that has been written. It is mounted while a pod of
//! this node has the volume, grows while it is mounted where the kernel lets this process (`CAP_SYS_RESOURCE`), and otherwise
//! when the next pod takes it. `mkfs.ext4`, and for growth `e2fsck` and `resize2fs`, are the machine's (package e2fsprogs).

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount as mount_fs, umount2};

use super::claim::{marker_of, once};
use super::disk;

const LOOP_CONTROL: &str = "/dev/loop-control";
/// `linux/loop.h`.
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4C07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
/// The device lets go of the file when it is unmounted.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Past the page cache, where the file system below can: pages are kept once, not twice.
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// `_IOW('f', 16, u64)`: grows a mounted ext4 to a number of blocks.
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;
/// Free devices that others may take before us.
const ATTACH_TRIES: usize = 16;
/// How often, and how far apart, is looked whether a device has let go of its file.
const RELEASE_LOOKS: usize = 100;
const RELEASE_PAUSE: Duration = Duration::from_millis(20);

/// What has come of a growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// The file system was as large as wanted.
    None,
    /// It is now.
    Done,
    /// Not while it is mounted: the next mount does it.
    AtNextMount,
}

/// The file that holds the file system.
#[must_use]
pub(crate) fn file_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".img");
    PathBuf::from(name)
}

/// Makes the volume at its first use, and mounts it at `path` unless it is. With `alone` (no other pod has it) a file system that
/// cannot grow while it is mounted is unmounted for it.
///
/// # Errors
/// What keeps it from being made or mounted; a file that has been lost is not replaced by an empty one.
pub(super) fn mount(path: &Path, uid: &str, bytes: u64, options: &str, alone: bool) -> Result<Growth, String> {
    let file = file_of(path);
    disk::make_dir(path, 0o755).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    if is_mounted(path) {
        let growth = grow(path, bytes)?;
        if growth != Growth::AtNextMount || !alone {
            return Ok(growth);
        }
        unmount(path)?;
        if is_mounted(path) {
            return Ok(growth);
        }
    }
    let is_new = !marker_of(path).exists();
    once(path, uid, &file, || make(&file, bytes))?;
    // A container that is still ending may hold the device. A second one on the same file would destroy what is in it.
    let behind = !is_new && size_inside(&file)? < whole_blocks(bytes);
    let held = if behind && alone { still_held(&file) } else { device_of(&file) };
    if held.is_none() && size_inside(&file)? < whole_blocks(bytes) {
        lengthen(&file, bytes)?;
        tool("e2fsck", &["-f", "-p"], &file, 1)?;
        tool("resize2fs", &[], &file, 0)?;
    }
    let device = held.map_or_else(|| attach(&file), open_device)?;
    let data = (!options.is_empty()).then_some(options);
    mount_fs(Some(&device.path), path, Some("ext4"), MsFlags::empty(), data)
        .map_err(|error| format!("cannot mount {} at {}: {error}", file.display(), path.display()))?;
    if is_untouched(path) {
        open_to_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    grow(path, bytes)
}

/// Grows a volume that is mounted.
///
/// # Errors
/// The kernel's, as text.
pub(crate) fn grow(path: &Path, bytes: u64) -> Result<Growth, String> {
    let file = file_of(path);
    if size_inside(&file)? >= whole_blocks(bytes) {
        return Ok(Growth::None);
    }
    lengthen(&file, bytes)?;
    let failed = |what: &str, error: Errno| format!("cannot {what} {}: {error}", path.display());
    let source = source_of(path).ok_or_else(|| format!("{} is not mounted", path.display()))?;
    let device = File::open(&source).map_err(|error| format!("{source}: {error}"))?;
    control(&device, LOOP_SET_CAPACITY, 0).map_err(|error| failed("lengthen the device of", error))?;
    let root = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let block = root.metadata().map_err(|error| format!("{}: {error}", path.display()))?.blksize();
    let blocks = bytes / block;
    // SAFETY: the kernel reads one u64 from the pointer, which outlives the call.
    match Errno::result(unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) }) {
        Ok(_) => Ok(Growth::Done),
        Err(Errno::EPERM) => Ok(Growth::AtNextMount),
        Err(error) => Err(failed("grow", error)),
    }
}

/// Unmounts a volume that nobody uses; what still uses it keeps it mounted.
///
/// # Errors
/// The kernel's, but for a volume that is in use or not mounted.
pub(crate) fn unmount(path: &Path) -> Result<(), String> {
    if !is_mounted(path) {
        return Ok(());
    }
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EBUSY | Errno::EINVAL) => Ok(()),
        Err(error) => Err(format!("cannot unmount {}: {error}", path.display())),
    }
}

/// Whether something is mounted at `path`.
#[must_use]
pub(crate) fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    let (own, above) = (device(path), path.parent().and_then(device));
    own.is_some() && own != above
}

fn make(file: &Path, bytes: u64) -> Result<(), String> {
    let new = file.with_extension("new");
    let failed = |error: std::io::Error| format!("cannot make {}: {error}", new.display());
    let _ = fs::remove_file(&new);
    let made = OpenOptions::new().create_new(true).write(true).open(&new).map_err(failed)?;
    made.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    made.set_len(bytes).map_err(failed)?;
    // No blocks are kept back for root: the pod is to get what its claim says.
    tool("mkfs.ext4", &["-q", "-F", "-m", "0"], &new, 0)?;
    made.sync_all().map_err(failed)?;
    fs::rename(&new, file).map_err(failed)
}

/// Whether the root is as `mkfs.ext4` left it. A node that was killed right after it had made the volume finds it so.
fn is_untouched(path: &Path) -> bool {
    let as_made = fs::metadata(path).is_ok_and(|meta| (meta.uid(), meta.permissions().mode() & 0o7777) == (0, 0o755));
    as_made && path.join("lost+found").is_dir()
}

/// Like the directory of a volume without a size. `lost+found` goes: databases refuse a directory that is not empty.
fn open_to_all(path: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir(path.join("lost+found"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}

fn lengthen(file: &Path, bytes: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot lengthen {}: {error}", file.display());
    let open = OpenOptions::new().write(true).open(file).map_err(failed)?;
    if open.metadata().map_err(failed)?.len() < bytes {
        open.set_len(bytes).and_then(|()| open.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Bytes of a file system of this size; ext4 has no part of a block.
fn whole_blocks(bytes: u64) -> u64 {
    /// Largest block of ext4.
    const BLOCK_BYTES_MAX: u64 = 4096;
    bytes / BLOCK_BYTES_MAX * BLOCK_BYTES_MAX
}

/// Size that the superblock tells, in bytes.
fn size_inside(file: &Path) -> Result<u64, String> {
    let mut block = [0; 1024];
    let mut open = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
    open.seek(SeekFrom::Start(1024))
        .and_then(|_| open.read_exact(&mut block))
        .map_err(|error| format!("cannot read the superblock of {}: {error}", file.display()))?;
    let word = |at: usize| u64::from(u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
    let (low, log_size, high) = (word(0x4), word(0x18), word(0x150));
    if u16::from_le_bytes([block[0x38], block[0x39]]) != 0xEF53 || log_size > 6 {
        return Err(format!("{} holds no ext4 file system", file.display()));
    }
    Ok((high << 32 | low) << (10 + log_size))
}

/// Runs a program of e2fsprogs on the file; exit codes up to `worst` are good.
fn tool(program: &str, arguments: &[&str], file: &Path, worst: i32) -> Result<(), String> {
    // An agent's PATH may lack the places of administration programs.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).arg(file).env("PATH", path).output().map_err(|error| {
        format!("cannot run {program}, which volumes of type image need (package e2fsprogs): {error}")
    })?;
    if output.status.code().is_some_and(|code| (0..=worst).contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {}: {}", file.display(), said.trim().lines().next_back().unwrap_or("failed")))
}

/// A loop device; it lives as long as it is open or mounted.
struct Device {
    path: PathBuf,
    open: File,
}

#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

fn open_device(path: PathBuf) -> Result<Device, String> {
    let open = OpenOptions::new().read(true).write(true).open(&path);
    open.map(|open| Device { open, path: path.clone() }).map_err(|error| format!("{}: {error}", path.display()))
}

/// The loop device that keeps the file although it is unmounted. A container's mount namespace ends some time after its last
/// process, and the kernel tells nobody when: so this looks a few times.
fn still_held(file: &Path) -> Option<PathBuf> {
    for _ in 0..RELEASE_LOOKS {
        device_of(file)?;
        std::thread::sleep(RELEASE_PAUSE);
    }
    device_of(file)
}

/// The loop device that has the file already.
fn device_of(file: &Path) -> Option<PathBuf> {
    let file = file.canonicalize().ok()?;
    let devices = fs::read_dir("/sys/block").ok()?.flatten();
    let mut has = devices.filter(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        Path::new(backing.trim_end_matches('\n')) == file
    });
    has.next().map(|device| Path::new("/dev").join(device.file_name()))
}

fn attach(file: &Path) -> Result<Device, String> {
    let failed = |error: std::io::Error| format!("cannot make a loop device for {}: {error}", file.display());
    let backing = OpenOptions::new().read(true).write(true).open(file).map_err(failed)?;
    let control_file = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL).map_err(failed)?;
    for _ in 0..ATTACH_TRIES {
        let number = control(&control_file, LOOP_CTL_GET_FREE, 0).map_err(|error| failed(error.into()))?;
        let device = open_device(PathBuf::from(format!("/dev/loop{number}")))?;
        match configure(&device.open, backing.as_raw_fd()) {
            Ok(()) => return Ok(device),
            // Somebody else was faster.
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Err(format!("cannot make a loop device for {}: others took each one that was free", file.display()))
}

fn configure(device: &File, backing: RawFd) -> Result<(), Errno> {
    let info = LoopInfo {
        numbers: [0; 5],
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(backing).map_err(|_| Errno::EBADF)?;
    let config = LoopConfig { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the kernel reads one `struct loop_config`, whose layout this is, from the pointer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

fn control(file: &File, request: libc::Ioctl, argument: libc::c_ulong) -> Result<i32, Errno> {
    // SAFETY: these requests take a number, not a pointer.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request, argument) })
}

/// The device that is mounted at `path`.
fn source_of(path: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").ok()?;
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4).is_some_and(|at| disk::unescape(at) == *path.to_string_lossy()))?;
    line.split(" - ").nth(1)?.split(' ').nth(1).map(str::to_owned)
}
