//! What is asked of this machine: its name, its address, and the mark that keeps two data directories apart.

use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result};

/// The host's name in the form of a node name.
pub(crate) fn host_name() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name")?;
    Ok(name.trim().to_lowercase())
}

/// The address from which this machine would send to the rest of the world. Nothing is sent.
pub(crate) fn address() -> Option<IpAddr> {
    /// An address of TEST-NET-1: never anyone's, always beyond the default route.
    const ELSEWHERE: &str = "192.0.2.1:9";
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

/// A mark of five letters and digits that is the same for a data directory each time.
pub(crate) fn instance(data_dir: &Path) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let path = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    // FNV-1a: stable across versions, which the standard library's hashers do not promise.
    let mut hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mut mark = String::new();
    for _ in 0..5 {
        mark.push(char::from(LETTERS[usize::try_from(hash % 36).expect("below 36")]));
        hash /= 36;
    }
    mark
}

/// True for the superuser.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
