//! Control groups, version 1, 2 and hybrid: what libcontainer does not do for us (pod limits, killing, statistics, removal).
//!
//! A group is named by its path below every hierarchy's mount point, without a leading slash.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::{Resources, Stats};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    mount: PathBuf,
    /// Version 1: its controllers (or `name=...`); `None` for version 2.
    controllers: Option<Vec<String>>,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        self.controllers.as_ref().is_some_and(|list| list.iter().any(|name| name == controller))
    }

    /// Version 1 with controllers, not just a name.
    fn is_controlled(&self) -> bool {
        self.controllers.as_ref().is_some_and(|list| list.iter().all(|name| !name.starts_with("name=")))
    }
}

/// All hierarchies of this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

/// Version 1 controllers whose limits and figures programs look up (language runtimes size themselves by them).
const VISIBLE_CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
/// Rounds of killing before a group counts as not to be killed: each round waits for what it has killed, so more than one
/// is only needed against processes that fork meanwhile.
const KILL_ROUNDS_MAX: usize = 32;
/// How long a killed process may take to be gone.
const KILL_WAIT_MILLIS: u16 = 10_000;

impl Cgroups {
    pub(crate) fn read() -> io::Result<Cgroups> {
        Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Version 2 alone, with all controllers.
    pub(crate) fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|hierarchy| hierarchy.controllers.is_none())
    }

    fn dir(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let found = self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller));
        let found = if self.is_unified() { self.hierarchies.first() } else { found };
        found.map(|hierarchy| hierarchy.mount.join(group))
    }

    /// The hierarchy in which every process of a container is.
    fn process_dir(&self, group: &str) -> Option<PathBuf> {
        self.dir("memory", group).or_else(|| self.dir("devices", group)).or_else(|| self.dir("cpu", group))
    }

    /// Version 1: the directories of a container's group that it may see, with the names they have below `/sys/fs/cgroup`.
    pub(crate) fn visible(&self, group: &str) -> Vec<(PathBuf, String)> {
        let mut visible = Vec::new();
        for hierarchy in self.hierarchies.iter().filter(|h| h.controllers.is_some()) {
            let controllers = hierarchy.controllers.iter().flatten();
            let shown = controllers.filter(|name| VISIBLE_CONTROLLERS.contains(&name.as_str()));
            visible.extend(shown.map(|name| (hierarchy.mount.join(group), name.clone())));
        }
        visible
    }

    /// Makes the pod's group and sets its limits.
    pub(crate) fn limit(&self, group: &str, resources: &Resources) -> io::Result<()> {
        if self.is_unified() { self.limit_v2(group, resources) } else { self.limit_v1(group, resources) }
    }

    fn limit_v1(&self, group: &str, resources: &Resources) -> io::Result<()> {
        let set = |controller: &str, file: &str, value: Option<String>| -> io::Result<()> {
            let (Some(value), Some(dir)) = (value, self.dir(controller, group)) else { return Ok(()) };
            std::fs::create_dir_all(&dir)?;
            write_value(&dir.join(file), &value)
        };
        set("cpu", "cpu.shares", resources.cpu_shares.map(|value| value.to_string()))?;
        set("cpu", "cpu.cfs_period_us", resources.cpu_period_micros.map(|value| value.to_string()))?;
        set("cpu", "cpu.cfs_quota_us", resources.cpu_quota_micros.map(|value| value.to_string()))?;
        set("memory", "memory.limit_in_bytes", positive(resources.memory_limit_bytes))?;
        set("pids", "pids.max", positive(resources.pids_limit))
    }

    fn limit_v2(&self, group: &str, resources: &Resources) -> io::Result<()> {
        let Some(root) = self.hierarchies.first() else { return Ok(()) };
        let mut dir = root.mount.clone();
        for part in Path::new(group).components() {
            for controller in ["+cpu", "+memory", "+pids", "+io", "+cpuset"] {
                // A controller that the kernel lacks is no reason to fail; a limit that needs it then says so.
                let _ = std::fs::write(dir.join("cgroup.subtree_control"), controller);
            }
            dir.push(part);
            match std::fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let set = |file: &str, value: Option<String>| match value {
            Some(value) => write_value(&dir.join(file), &value),
            None => Ok(()),
        };
        set("cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()))?;
        set("cpu.max", cpu_max(resources))?;
        set("memory.max", positive(resources.memory_limit_bytes))?;
        set("pids.max", positive(resources.pids_limit))
    }

    /// Version 1: moves the calling process, which must have one thread, to the group in all hierarchies with controllers.
    ///
    /// By `tasks`, because a write to `cgroup.procs` waits for all forks of the machine to pause (an RCU grace period: 5 to 50
    /// milliseconds), which a thread that moves itself need not.
    pub(crate) fn enter_v1(&self, group: &str) -> io::Result<()> {
        for hierarchy in self.controlled() {
            let dir = hierarchy.mount.join(group);
            std::fs::create_dir_all(&dir)?;
            if hierarchy.has("cpuset") {
                fill_cpuset(&hierarchy.mount, group)?;
            }
            std::fs::write(dir.join("tasks"), "0")?;
        }
        Ok(())
    }

    /// Version 2: the group's directory, made with its controllers, for a child to be born in.
    pub(crate) fn birthplace(&self, group: &str) -> Option<File> {
        if !self.is_unified() || self.limit_v2(group, &Resources::default()).is_err() {
            return None;
        }
        File::open(self.hierarchies.first()?.mount.join(group)).ok()
    }

    /// Hides `cgroup.procs` of the group in the calling process's own mount namespace, so that libcontainer's writes to it,
    /// which would only move a process to where it is, cost nothing.
    pub(crate) fn cover_procs(&self, group: &str) -> io::Result<()> {
        let unified = self.is_unified();
        for hierarchy in self.hierarchies.iter().filter(|h| unified || h.is_controlled()) {
            let procs = hierarchy.mount.join(group).join("cgroup.procs");
            mount(Some("/dev/null"), &procs, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(())
    }

    fn controlled(&self) -> impl Iterator<Item = &Hierarchy> {
        self.hierarchies.iter().filter(|hierarchy| hierarchy.is_controlled())
    }

    /// Kills every process in the group and below it and waits until they are gone.
    pub(crate) fn kill(&self, group: &str) -> io::Result<()> {
        let Some(dir) = self.process_dir(group) else { return Ok(()) };
        for _ in 0..KILL_ROUNDS_MAX {
            let mut pids = Vec::new();
            collect_pids(&dir, &mut pids)?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids {
                kill_and_wait(pid)?;
            }
        }
        Err(io::Error::other(format!("processes in cgroup {group} cannot be killed")))
    }

    /// Sends SIGKILL to every process of the group without waiting.
    pub(crate) fn signal_kill(&self, group: &str) {
        let mut pids = Vec::new();
        if let Some(dir) = self.process_dir(group)
            && collect_pids(&dir, &mut pids).is_ok()
        {
            for pid in pids {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    /// Removes the (empty) group and the groups below it in all hierarchies.
    pub(crate) fn remove(&self, group: &str) {
        for hierarchy in &self.hierarchies {
            remove_tree(&hierarchy.mount.join(group));
        }
    }

    /// Processes of the group that the kernel has killed for want of memory.
    pub(crate) fn oom_kills(&self, group: &str) -> u64 {
        let Some(dir) = self.dir("memory", group) else { return 0 };
        let file = if self.is_unified() { "memory.events" } else { "memory.oom_control" };
        keyed(&dir.join(file), "oom_kill").unwrap_or(0)
    }

    pub(crate) fn stats(&self, group: &str) -> Stats {
        let number = |path: PathBuf| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let memory = self.dir("memory", group).unwrap_or_default();
        let details = std::fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
        let detail = |key: &str| keyed_in(&details, key).unwrap_or(0);
        let (cpu, usage, [inactive, rss, faults, major]) = if self.is_unified() {
            let cpu = keyed(&memory.join("cpu.stat"), "usage_usec").map(|micros| micros * 1000);
            let keys = ["inactive_file", "anon", "pgfault", "pgmajfault"];
            (cpu, number(memory.join("memory.current")), keys.map(detail))
        } else {
            let cpu = self.dir("cpuacct", group).and_then(|dir| number(dir.join("cpuacct.usage")));
            let keys = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"];
            (cpu, number(memory.join("memory.usage_in_bytes")), keys.map(detail))
        };
        let usage: u64 = usage.unwrap_or(0);
        Stats {
            cpu_usage_nanos: cpu.unwrap_or(0),
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(inactive),
            memory_rss_bytes: rss,
            page_faults: faults,
            major_page_faults: major,
        }
    }
}

/// Moves the calling process, which must have one thread, to the group in every hierarchy that lets it.
pub(crate) fn join_everywhere(group: &str) {
    let Ok(cgroups) = Cgroups::read() else { return };
    for hierarchy in &cgroups.hierarchies {
        let dir = hierarchy.mount.join(group);
        // A new cpuset group takes nobody before it is filled, and a shim needs none.
        if !hierarchy.has("cpuset") && std::fs::create_dir_all(&dir).is_ok() {
            let file = if hierarchy.controllers.is_some() { "tasks" } else { "cgroup.procs" };
            let _ = std::fs::write(dir.join(file), "0");
        }
    }
}

/// A new cpuset group is empty and takes no process: it gets what its parent has.
fn fill_cpuset(mount: &Path, group: &str) -> io::Result<()> {
    let mut dir = mount.to_owned();
    for part in Path::new(group).components() {
        let parent = dir.clone();
        dir.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if std::fs::read_to_string(dir.join(file))?.trim().is_empty() {
                std::fs::write(dir.join(file), std::fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

fn parse(mountinfo: &str) -> Cgroups {
    let mut hierarchies = Vec::new();
    for line in mountinfo.lines() {
        let Some((front, back)) = line.split_once(" - ") else { continue };
        let (Some(mount), mut back) = (front.split(' ').nth(4), back.split(' ')) else { continue };
        let controllers = match back.next() {
            Some("cgroup2") => None,
            Some("cgroup") => {
                let options = back.nth(1).unwrap_or("").split(',').filter(|name| *name != "rw" && *name != "ro");
                Some(options.map(str::to_owned).collect())
            }
            _ => continue,
        };
        let hierarchy = Hierarchy { mount: PathBuf::from(mount), controllers };
        if mount.starts_with("/sys/fs/cgroup") && !hierarchies.contains(&hierarchy) {
            hierarchies.push(hierarchy);
        }
    }
    Cgroups { hierarchies }
}

fn positive(value: Option<i64>) -> Option<String> {
    value.filter(|value| *value > 0).map(|value| value.to_string())
}

/// CPU shares (2..=262144) as version 2's weight (1..=10000), by the formula that runc and the kubelet use.
pub(crate) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn cpu_max(resources: &Resources) -> Option<String> {
    let quota = resources.cpu_quota_micros?;
    let period = resources.cpu_period_micros.unwrap_or(100_000);
    Some(if quota > 0 { format!("{quota} {period}") } else { format!("max {period}") })
}

fn write_value(path: &Path, value: &str) -> io::Result<()> {
    std::fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {value} to {}: {error}", path.display())))
}

fn keyed(path: &Path, key: &str) -> Option<u64> {
    keyed_in(&std::fs::read_to_string(path).ok()?, key)
}

fn keyed_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn collect_pids(dir: &Path, pids: &mut Vec<Pid>) -> io::Result<()> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).map(Pid::from_raw));
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn kill_and_wait(pid: Pid) -> io::Result<()> {
    // SAFETY: takes numbers only; a descriptor that is returned is ours.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Ok(()); // gone meanwhile
    }
    // SAFETY: the kernel has just given it to us.
    let pidfd = unsafe { crate::shim::own(fd as i32) };
    if kill(pid, Signal::SIGKILL).is_err() {
        return Ok(());
    }
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::from(KILL_WAIT_MILLIS))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, format!("process {pid} does not end"))),
        _ => Ok(()),
    }
}

fn remove_tree(dir: &Path) {
    if std::fs::remove_dir(dir).is_ok() {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_from_mountinfo() {
        let hybrid = "25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroups = parse(hybrid);
        assert!(!cgroups.is_unified());
        assert_eq!(cgroups.dir("cpuacct", "a/b").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(cgroups.dir("memory", "a"), None);
        let unified = parse("28 25 0:25 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(unified.is_unified());
        assert_eq!(unified.dir("memory", "a").unwrap(), Path::new("/sys/fs/cgroup/a"));
    }

    #[test]
    fn stats_of_both_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        let of = |controllers: Option<&str>, mount: &str| Hierarchy {
            mount: dir.path().join(mount),
            controllers: controllers.map(|names| names.split(',').map(str::to_owned).collect()),
        };
        let wanted = Stats {
            cpu_usage_nanos: 7_000_000,
            memory_usage_bytes: 1000,
            memory_working_set_bytes: 900,
            memory_rss_bytes: 600,
            page_faults: 12,
            major_page_faults: 3,
        };
        write("v2/a/cpu.stat", "usage_usec 7000\nuser_usec 5000\n");
        write("v2/a/memory.current", "1000\n");
        write("v2/a/memory.stat", "anon 600\nfile 300\ninactive_file 100\npgfault 12\npgmajfault 3\n");
        assert_eq!(Cgroups { hierarchies: vec![of(None, "v2")] }.stats("a"), wanted);
        write("cpu/a/cpuacct.usage", "7000000\n");
        write("mem/a/memory.usage_in_bytes", "1000\n");
        let own = "rss 1\ninactive_file 1\n";
        let all = "total_rss 600\ntotal_inactive_file 100\ntotal_pgfault 12\ntotal_pgmajfault 3\n";
        write("mem/a/memory.stat", &format!("{own}{all}"));
        let hierarchies = vec![of(Some("cpu,cpuacct"), "cpu"), of(Some("memory"), "mem"), of(None, "v2")];
        assert_eq!(Cgroups { hierarchies }.stats("a"), wanted);
        assert_eq!(Cgroups { hierarchies: vec![of(None, "v2")] }.stats("gone"), Stats::default());
    }

    #[test]
    fn weights() {
        for (shares, expected) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (1 << 40, 10_000)] {
            assert_eq!(weight(shares), expected);
        }
    }
}
