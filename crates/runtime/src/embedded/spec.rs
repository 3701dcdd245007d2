//! Decides how a container is run: its command, environment and OCI bundle, from its configuration and image. Pure.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::user::Identity;
use crate::engine::{ContainerConfig, Mount, Propagation, Resources, SandboxConfig, Seccomp};
use crate::image::RunConfig;
use crate::shim::protocol::{Payload, SeccompChoice};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths in /proc and /sys that tell about or reach the host; the list is containerd's.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// A device node for the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub path: PathBuf,
    pub block: bool,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// All that the bundle depends on.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub sandbox: &'a SandboxConfig,
    pub container: &'a ContainerConfig,
    pub payload: &'a Payload,
    /// Below every hierarchy's mount point, without a leading slash.
    pub cgroup: &'a str,
    pub unified_cgroups: bool,
    /// Cgroup version 1: directories to show and their names.
    pub cgroup_dirs: &'a [(PathBuf, String)],
    /// The pod's /dev/shm.
    pub shm: &'a Path,
    /// A process in the shared PID namespace.
    pub pause_pid: Option<i32>,
    pub devices: &'a [Device],
    /// Anonymous volumes: host directory, place in the container.
    pub volumes: &'a [(PathBuf, PathBuf)],
}

/// The command line: `command` replaces the image's entry point and with it its arguments; `args` alone replaces the arguments.
pub(crate) fn command(config: &ContainerConfig, image: &RunConfig) -> Vec<String> {
    let (command, args) = (&config.command, &config.args);
    match (command.is_empty(), args.is_empty()) {
        (true, true) => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
        (true, false) => image.entrypoint.iter().chain(args).cloned().collect(),
        (false, _) => command.iter().chain(args).cloned().collect(),
    }
}

/// The environment: a usable PATH, the host name, the image's, the container's own; a later value takes an earlier one's place.
pub(crate) fn environment(config: &ContainerConfig, image: &RunConfig, hostname: &str, home: &str) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name_end = entry.find('=').map_or(entry.len(), |at| at + 1);
        match env.iter_mut().find(|known| known.as_bytes().starts_with(&entry.as_bytes()[..name_end])) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    };
    set(DEFAULT_PATH.to_owned());
    if config.tty {
        set("TERM=xterm".to_owned());
    }
    if !hostname.is_empty() {
        set(format!("HOSTNAME={hostname}"));
    }
    image.env.iter().cloned().for_each(&mut set);
    config.env.iter().map(|(name, value)| format!("{name}={value}")).for_each(&mut set);
    if !env.iter().any(|entry| entry.starts_with("HOME=") && entry != "HOME=") {
        env.retain(|entry| entry != "HOME=");
        env.push(format!("HOME={home}"));
    }
    env
}

/// What is to be done right before the program runs.
pub(crate) fn payload(
    config: &ContainerConfig,
    image: &RunConfig,
    hostname: &str,
    identity: &Identity,
    capabilities: u64,
) -> Payload {
    let security = &config.security;
    Payload {
        args: command(config, image),
        env: environment(config, image, hostname, &identity.home),
        cwd: working_dir(config, image),
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups.clone(),
        capabilities,
        no_new_privileges: !security.allow_privilege_escalation && !security.privileged,
        seccomp: match &security.seccomp {
            _ if security.privileged => SeccompChoice::Unconfined,
            Seccomp::RuntimeDefault => SeccompChoice::Default,
            Seccomp::Unconfined => SeccompChoice::Unconfined,
            Seccomp::Localhost(path) => SeccompChoice::Profile(path.clone()),
        },
        oom_score_adj: config.resources.oom_score_adj,
    }
}

fn working_dir(config: &ContainerConfig, image: &RunConfig) -> String {
    let wanted = config.working_dir.as_deref().filter(|dir| !dir.is_empty());
    let dir = wanted.unwrap_or(&image.working_dir);
    if dir.starts_with('/') { dir.to_owned() } else { format!("/{dir}") }
}

/// The number of the signal that asks the container to stop: `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`; SIGTERM when there is none.
pub(crate) fn stop_signal(text: &str) -> i32 {
    const TERM: i32 = 15;
    const REAL_TIME_FIRST: i32 = 34;
    const REAL_TIME_LAST: i32 = 64;
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=REAL_TIME_LAST).contains(&number) { number } else { TERM };
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        return REAL_TIME_FIRST + offset.trim_start_matches('+').parse::<i32>().unwrap_or(0);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        return REAL_TIME_LAST - offset.trim_start_matches('-').parse::<i32>().unwrap_or(0);
    }
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map_or(TERM, |signal| signal as i32)
}

/// The bundle's `config.json`.
pub(crate) fn bundle(plan: &Plan<'_>) -> Value {
    let security = &plan.container.security;
    let payload = plan.payload;
    let unmasked = security.privileged || security.unmasked_proc;
    let (masked, mut read_only): (&[&str], Vec<&str>) =
        if unmasked { (&[], vec![]) } else { (&MASKED_PATHS, READ_ONLY_PATHS.to_vec()) };
    if !security.privileged && !plan.unified_cgroups {
        read_only.push(CGROUP_MOUNT);
    }
    let mut linux = json!({
        "cgroupsPath": format!("/{}", plan.cgroup),
        "namespaces": namespaces(plan),
        "resources": resources(plan),
        "devices": plan.devices.iter().map(device).collect::<Vec<_>>(),
        "maskedPaths": masked,
        "readonlyPaths": read_only,
    });
    let widest = plan.container.mounts.iter().map(|mount| mount.propagation);
    if widest.clone().any(|propagation| propagation == Propagation::Bidirectional) {
        linux["rootfsPropagation"] = json!("shared");
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": security.read_only_rootfs},
        // Capabilities and no_new_privs are set by the executor, see `shim::payload`.
        "process": {
            "terminal": plan.container.tty,
            "user": {"uid": payload.uid, "gid": payload.gid, "additionalGids": payload.groups, "umask": 0o022},
            "args": payload.args,
            "env": payload.env,
            "cwd": payload.cwd,
        },
        "mounts": mounts(plan),
        "linux": linux,
    })
}

/// The rest (network, ipc, uts) is inherited from the shim, which is in the pod's.
fn namespaces(plan: &Plan<'_>) -> Value {
    let mut list = vec![json!({"type": "mount"})];
    if !plan.sandbox.host_pid {
        list.push(match plan.pause_pid {
            Some(pid) => json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}),
            None => json!({"type": "pid"}),
        });
    }
    if plan.unified_cgroups && !plan.container.security.privileged {
        list.push(json!({"type": "cgroup"}));
    }
    Value::Array(list)
}

fn resources(plan: &Plan<'_>) -> Value {
    let limits: &Resources = &plan.container.resources;
    let mut value = json!({"devices": device_rules(plan)});
    let mut cpu = json!({});
    if let Some(shares) = limits.cpu_shares {
        cpu["shares"] = json!(shares.clamp(2, 262_144));
    }
    if let Some(quota) = limits.cpu_quota_micros.filter(|quota| *quota != 0) {
        cpu["quota"] = json!(quota);
    }
    if let Some(period) = limits.cpu_period_micros.filter(|period| *period != 0) {
        cpu["period"] = json!(period);
    }
    value["cpu"] = cpu;
    if let Some(bytes) = limits.memory_limit_bytes.filter(|bytes| *bytes > 0) {
        value["memory"] = json!({"limit": bytes});
        if plan.unified_cgroups {
            // No swap beyond the limit; and the whole container dies, not one process of it (kubelet since 1.28).
            value["memory"]["swap"] = json!(bytes);
            value["unified"] = json!({"memory.oom.group": "1"});
        }
    }
    if let Some(limit) = limits.pids_limit.filter(|limit| *limit > 0) {
        value["pids"] = json!({"limit": limit});
    }
    value
}

/// libcontainer adds the devices that every container has.
fn device_rules(plan: &Plan<'_>) -> Value {
    if plan.container.security.privileged {
        return json!([{"allow": true, "access": "rwm"}]);
    }
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(plan.devices.iter().map(|device| {
        let kind = if device.block { "b" } else { "c" };
        json!({"allow": true, "type": kind, "major": device.major, "minor": device.minor, "access": "rwm"})
    }));
    Value::Array(rules)
}

fn device(device: &Device) -> Value {
    json!({
        "path": device.path,
        "type": if device.block { "b" } else { "c" },
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    })
}

fn mounts(plan: &Plan<'_>) -> Value {
    let access = if plan.container.security.privileged { "rw" } else { "ro" };
    let own = &plan.container.mounts;
    let taken = |path: &str| own.iter().any(|mount| mount.container_path == Path::new(path));
    let special = |path: &str, kind: &str, source: &str, options: &[&str]| -> Option<Value> {
        let mount = json!({"destination": path, "type": kind, "source": source, "options": options});
        (!taken(path)).then_some(mount)
    };
    let shm = plan.shm.to_string_lossy();
    let mut list: Vec<Value> = [
        special("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        special("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        special(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        special("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        special("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        special("/dev/shm", "bind", &shm, &["rbind", "rw", "rprivate"]),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !taken(CGROUP_MOUNT) {
        list.extend(cgroup_mounts(plan));
    }
    let volumes = plan.volumes.iter().map(|(host, place)| Mount {
        host_path: host.clone(),
        container_path: place.clone(),
        ..Mount::default()
    });
    // Outer places before inner ones.
    let mut own: Vec<Mount> = volumes.chain(own.iter().cloned()).collect();
    own.sort_by_key(|mount| mount.container_path.components().count());
    list.extend(own.iter().map(bind));
    Value::Array(list)
}

/// libcontainer shows version 1 hierarchies writable, so that a container could lift its own limits: hence our own mounts.
fn cgroup_mounts(plan: &Plan<'_>) -> Vec<Value> {
    let mount = |kind: &str, options: &[&str]| json!({"destination": CGROUP_MOUNT, "type": kind, "source": kind, "options": options});
    if plan.container.security.privileged {
        return vec![mount("cgroup", &["nosuid", "noexec", "nodev", "relatime"])];
    }
    if plan.unified_cgroups {
        return vec![mount("cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])];
    }
    let own = plan.cgroup_dirs.iter().map(|(source, name)| {
        let place = Path::new(CGROUP_MOUNT).join(name);
        json!({"destination": place, "type": "bind", "source": source, "options": ["bind", "ro", "nosuid", "noexec", "nodev"]})
    });
    std::iter::once(mount("tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=4k"])).chain(own).collect()
}

fn bind(mount: &Mount) -> Value {
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = if mount.read_only { "ro" } else { "rw" };
    json!({
        "destination": mount.container_path,
        "type": "bind",
        "source": mount.host_path,
        "options": ["rbind", access, propagation],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn commands() {
        let image = RunConfig { entrypoint: strings(&["/entry"]), cmd: strings(&["serve"]), ..RunConfig::default() };
        for (command_line, args, expected) in [
            (&[][..], &[][..], &["/entry", "serve"][..]),
            (&[], &["a"], &["/entry", "a"]),
            (&["/x"], &[], &["/x"]),
            (&["/x"], &["a"], &["/x", "a"]),
        ] {
            let config =
                ContainerConfig { command: strings(command_line), args: strings(args), ..ContainerConfig::default() };
            assert_eq!(command(&config, &image), strings(expected));
        }
    }

    #[test]
    fn environments() {
        let image = RunConfig { env: strings(&["A=1", "PATH=/x", "E="]), ..RunConfig::default() };
        let own =
            vec![("B".to_owned(), "2".to_owned()), ("A".to_owned(), "3".to_owned()), ("AB".to_owned(), "4".to_owned())];
        let config = ContainerConfig { env: own, ..ContainerConfig::default() };
        let expected = strings(&["PATH=/x", "HOSTNAME=h", "A=3", "E=", "B=2", "AB=4", "HOME=/root"]);
        assert_eq!(environment(&config, &image, "h", "/root"), expected);
    }

    #[test]
    fn stop_signals() {
        for (text, expected) in [
            ("", 15),
            ("SIGQUIT", 3),
            ("quit", 3),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGNOPE", 15),
            ("0", 15),
        ] {
            assert_eq!(stop_signal(text), expected, "{text}");
        }
    }

    #[test]
    fn the_bundle_is_what_libcontainer_reads() {
        let sandbox = SandboxConfig { hostname: "web-0".to_owned(), ..SandboxConfig::default() };
        let mount = |host: &str, place: &str| Mount {
            host_path: host.into(),
            container_path: place.into(),
            propagation: Propagation::HostToContainer,
            read_only: true,
        };
        let container = ContainerConfig {
            mounts: vec![mount("/h/b", "/a/b"), mount("/h/a", "/a")],
            resources: Resources {
                cpu_shares: Some(0),
                cpu_quota_micros: Some(50_000),
                cpu_period_micros: Some(100_000),
                memory_limit_bytes: Some(1 << 20),
                pids_limit: Some(10),
                oom_score_adj: Some(1000),
            },
            ..ContainerConfig::default()
        };
        let payload = Payload { args: strings(&["sh"]), cwd: "/".to_owned(), ..Payload::default() };
        let plan = Plan {
            sandbox: &sandbox,
            container: &container,
            payload: &payload,
            cgroup: "stead/pod/x",
            unified_cgroups: true,
            cgroup_dirs: &[],
            shm: Path::new("/run/shm"),
            pause_pid: Some(7),
            devices: &[],
            volumes: &[],
        };
        let value = bundle(&plan);
        let spec: libcontainer::oci_spec::runtime::Spec = serde_json::from_value(value).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.resources().as_ref().unwrap().cpu().as_ref().unwrap().shares(), Some(2));
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 3);
        let places: Vec<_> = spec.mounts().as_ref().unwrap().iter().map(|m| m.destination().clone()).collect();
        assert_eq!(&places[places.len() - 2..], [PathBuf::from("/a"), PathBuf::from("/a/b")]);
        assert!(spec.process().as_ref().unwrap().capabilities().is_none());
    }
}
