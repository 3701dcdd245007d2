//! The default system call profile, with the same scope as the one of containerd and docker: an allow list, some of it tied to
//! capabilities.

use super::{Arg, Op, Profile, Rule, Verdict};
use nix::libc;

/// Flags of `clone` that make namespaces: user, pid, net, mount, uts, ipc, cgroup.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// Execution domains that change nothing but what `uname` says and address space randomisation; the last one asks.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Calls that need no capability, or where the kernel checks well enough by itself.
const ALLOWED: &str = "accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown \
    clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 \
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 \
    fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate \
    futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents \
    getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom \
    getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup \
    io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown \
    lgetxattr link linkat listen listmount listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack \
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync \
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal \
    pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease \
    process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2 restart_syscall rmdir rseq \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select \
    semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid \
    setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid \
    setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat \
    statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask \
    uname unlink unlinkat utime utimensat utimes vfork vmsplice wait4 waitid write writev";

/// Calls allowed with a capability (its number first).
const BY_CAPABILITY: &[(u32, &str)] = &[
    (2, "open_by_handle_at"),
    (16, "delete_module finit_module init_module"),
    (17, "ioperm iopl"),
    (18, "chroot"),
    (19, "kcmp pidfd_getfd process_madvise"),
    (20, "acct"),
    (
        21,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (25, "clock_settime settimeofday"),
    (26, "vhangup"),
    (34, "syslog"),
    (38, "perf_event_open"),
    (39, "bpf"),
];

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// The default profile for a process with these capabilities.
pub(super) fn default_profile(capabilities: u64) -> Profile {
    let mut rules =
        vec![allow(ALLOWED, vec![]), allow("socket", vec![Arg { index: 0, op: Op::NotEqual, value: AF_VSOCK }])];
    rules.extend(PERSONALITIES.map(|value| allow("personality", vec![Arg { index: 0, op: Op::Equal, value }])));
    rules.extend(
        BY_CAPABILITY
            .iter()
            .filter(|(capability, _)| capabilities & (1 << capability) != 0)
            .map(|(_, names)| allow(names, vec![])),
    );
    if capabilities & CAP_SYS_ADMIN == 0 {
        rules.push(allow("clone", vec![Arg { index: 0, op: Op::Masked(CLONE_NAMESPACES), value: 0 }]));
        // Its flags are in memory, out of a filter's reach; ENOSYS makes C libraries fall back to clone.
        rules.push(Rule {
            names: vec!["clone3".to_owned()],
            verdict: Verdict::Errno(libc::ENOSYS as u32),
            args: vec![],
        });
    }
    Profile { default: Verdict::Errno(libc::EPERM as u32), rules }
}

fn allow(names: &str, args: Vec<Arg>) -> Rule {
    Rule { names: names.split_whitespace().map(str::to_owned).collect(), verdict: Verdict::Allow, args }
}
