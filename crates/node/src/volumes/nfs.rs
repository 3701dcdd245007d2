//! NFS: a directory of another machine, mounted by the kernel for one pod. No program of the machine takes part.
//!
//! The kernel wants to be told the server's address and the version; what else `mount.nfs` would settle with the server (older
//! versions, locks of version 3) is up to the mount options.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount as mount_fs};

use super::{is_mounted, make_dir};

const PORT: u16 = 2049;
/// Versions that are tried, in order, when the options name none.
const VERSIONS: [&str; 3] = ["4.2", "4.1", "4.0"];

/// What is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Export {
    pub server: String,
    pub path: String,
    pub read_only: bool,
    /// As in a StorageClass or volume: `nfsvers=4.1`, `noatime`.
    pub options: Vec<String>,
}

/// Mounts the export at `target`, unless it is.
///
/// # Errors
/// The text for the pod's event.
pub(crate) fn mount(export: &Export, target: &Path) -> Result<(), String> {
    make_dir(target, 0o750).map_err(|error| format!("cannot make {}: {error}", target.display()))?;
    if is_mounted(target) {
        return Ok(());
    }
    let source = format!("{}:{}", export.server, export.path);
    let address = address_of(&export.server)?;
    let (flags, data) = options(export);
    let named = data.iter().any(|option| option.starts_with("vers=") || option.starts_with("nfsvers="));
    let versions = if named { &[""][..] } else { &VERSIONS[..] };
    let mut last = Errno::EPROTONOSUPPORT;
    for version in versions {
        match mount_fs(Some(source.as_str()), target, Some("nfs"), flags, Some(line(&data, version, address).as_str()))
        {
            Ok(()) => return Ok(()),
            // The server does not speak it: an older one perhaps.
            Err(error @ (Errno::EPROTONOSUPPORT | Errno::EINVAL)) => last = error,
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    let cause = match last {
        Errno::ENODEV => {
            "this kernel has no NFS client: load its module nfs, or mount the export on each node and use provisioner stead.dev/shared".to_owned()
        }
        error => error.desc().to_owned(),
    };
    Err(format!("mount failed: {source} at {}: {cause}", target.display()))
}

fn address_of(server: &str) -> Result<IpAddr, String> {
    let bare = server.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    let mut found = (bare, PORT).to_socket_addrs().map_err(|error| format!("cannot resolve {server:?}: {error}"))?;
    found.next().map(|address| address.ip()).ok_or_else(|| format!("cannot resolve {server:?}: it has no address"))
}

/// What every file system knows, as flags, and what is for NFS.
fn options(export: &Export) -> (MsFlags, Vec<String>) {
    let mut flags = if export.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    let mut data = Vec::new();
    for option in export.options.iter().flat_map(|option| option.split(',')).filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "rw" | "defaults" | "_netdev" => {}
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "nodiratime" => flags |= MsFlags::MS_NODIRATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            other => data.push(other.to_owned()),
        }
    }
    (flags, data)
}

/// The options as the kernel reads them.
fn line(data: &[String], version: &str, address: IpAddr) -> String {
    let version = (!version.is_empty()).then(|| format!("vers={version}"));
    let address = format!("addr={address}");
    data.iter().cloned().chain(version).chain([address]).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(options: &[&str]) -> Export {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Export { server: "10.0.0.9".to_owned(), path: "/srv".to_owned(), read_only: false, options }
    }

    #[test]
    fn options_are_parted_into_flags_and_the_clients_own() {
        let (flags, data) = options(&export(&["hard,noatime", "nfsvers=4.1", "ro"]));
        assert_eq!(flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert_eq!(data, ["hard", "nfsvers=4.1"]);
        let address = address_of("10.0.0.9").expect("an address");
        assert_eq!(line(&data, "", address), "hard,nfsvers=4.1,addr=10.0.0.9");
        assert_eq!(line(&[], "4.2", address), "vers=4.2,addr=10.0.0.9");
        assert_eq!(address_of("[fd00::1]").expect("an address").to_string(), "fd00::1");
        let (flags, _) = options(&Export { read_only: true, ..export(&[]) });
        assert_eq!(flags, MsFlags::MS_RDONLY);
    }
}
