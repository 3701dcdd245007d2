//! Linux capabilities by name, and the set that a container gets.

use crate::engine::Security;

/// By number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// containerd's default set without MKNOD: where no device cgroup is in force (cgroup v2) a device node would be a way out.
const DEFAULT: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

const ALL: u64 = (1 << NAMES.len()) - 1;

/// The number of a capability; `CAP_` in front is accepted.
pub(crate) fn number(name: &str) -> Option<u32> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    NAMES.iter().position(|known| *known == short).map(|at| at as u32)
}

/// The capabilities of a container as bits: the default set (all when privileged), what is added, less what is dropped;
/// `ALL` first, then single names, so that "drop ALL, add one" works as upstream documents it.
///
/// # Errors
/// An unknown name.
pub(crate) fn of(security: &Security) -> Result<u64, String> {
    if security.privileged {
        return Ok(ALL);
    }
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
    let mut set = DEFAULT.iter().filter_map(|name| number(name)).fold(0u64, |set, number| set | 1 << number);
    if is_all(&security.add_capabilities) {
        set = ALL;
    }
    if is_all(&security.drop_capabilities) {
        set = 0;
    }
    set |= bits(&security.add_capabilities)?;
    Ok(set & !bits(&security.drop_capabilities)?)
}

fn bits(names: &[String]) -> Result<u64, String> {
    names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")).try_fold(0, |set, name| {
        let number = number(&name.to_ascii_uppercase()).ok_or_else(|| format!("unknown capability {name:?}"))?;
        Ok(set | 1 << number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let bit = |name: &str| 1u64 << number(name).unwrap();
        let default = of(&Security::default()).unwrap();
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (add, drop, privileged, expected) in [
            (&[][..], &[][..], false, Ok(default)),
            (&["SYS_TIME"], &[], false, Ok(default | bit("SYS_TIME"))),
            (&["CAP_SYS_TIME"], &["ALL"], false, Ok(bit("SYS_TIME"))),
            (&["ALL"], &["NET_RAW"], false, Ok(ALL & !bit("NET_RAW"))),
            (&[], &["all"], false, Ok(0)),
            (&[], &["CHOWN"], true, Ok(ALL)),
            (&["NOPE"], &[], false, Err("unknown capability \"NOPE\"".to_owned())),
        ] {
            let security = Security {
                add_capabilities: names(add),
                drop_capabilities: names(drop),
                privileged,
                ..Security::default()
            };
            assert_eq!(of(&security), expected, "{add:?} {drop:?}");
        }
        assert_eq!(default & bit("SYS_ADMIN"), 0);
    }
}
