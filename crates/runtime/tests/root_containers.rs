//! Containers by the embedded engine, as root on a real kernel.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests")]

mod support;

use std::time::Duration;

use stead_runtime::*;
use support::*;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn runs_logs_and_reports_the_exit() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let (exit, output) = world.run(&sandbox, script("a", "echo out; echo err >&2; printf half; exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed, exit.start_error.clone()), (7, None, false, None));
    assert!(exit.started_at_unix_nanos > 0 && exit.finished_at_unix_nanos > exit.started_at_unix_nanos);
    assert_eq!(output.lines().count(), 3, "{output}");
    let log = world.log("a");
    assert!(
        log.contains(" stdout F out\n") && log.contains(" stderr F err\n") && log.contains(" stdout P half\n"),
        "{log}"
    );
    world.engine().remove_sandbox(&sandbox).await.unwrap();
    world.engine().remove_sandbox(&sandbox).await.unwrap();
    assert!(world.engine().containers().await.unwrap().is_empty());
    assert!(world.engine().sandboxes().await.unwrap().is_empty());
}

/// What is seen from inside, one script line and its expected output each.
#[tokio::test]
async fn the_world_inside() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let plain = || script("x", "");
    let secured = |security: Security| ContainerConfig { security, ..plain() };
    let user = |uid| Security { run_as_user: Some(uid), supplemental_groups: vec![2000], ..Security::default() };
    let dir = world.dir.path().join("vol");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "from host\n").unwrap();
    let mount = |read_only| ContainerConfig {
        mounts: vec![Mount {
            host_path: dir.clone(),
            container_path: "/vol/deep".into(),
            read_only,
            ..Mount::default()
        }],
        ..plain()
    };
    let stories: Vec<(&str, ContainerConfig, &str, &str)> = vec![
        ("host name", plain(), "hostname; echo $HOSTNAME", "web-0\nweb-0\n"),
        ("pid 1 of its own", plain(), "echo $$", "1\n"),
        ("working directory is made", plain(), "pwd", "/work\n"),
        ("other working directory", ContainerConfig { working_dir: Some("/a/b".into()), ..plain() }, "pwd", "/a/b\n"),
        ("environment", plain(), "echo $FROM_IMAGE $HOME $PATH | cut -c1-20", "yes /root /usr/local\n"),
        (
            "environment of its own",
            ContainerConfig { env: vec![("FROM_IMAGE".into(), "no".into())], ..plain() },
            "echo $FROM_IMAGE",
            "no\n",
        ),
        ("root", plain(), "id", "uid=0(root) gid=0(root) groups=0(root)\n"),
        (
            "another user",
            secured(user(999)),
            "id; echo $HOME; touch /x || echo refused",
            "uid=999(redis) gid=998(redis) groups=50(staff),998(redis),2000\n/data\ntouch: /x: Permission denied\nrefused\n",
        ),
        (
            "unknown user and group",
            secured(Security { run_as_group: Some(7), ..user(1234) }),
            "id -u; id -g; id -G; echo $HOME",
            "1234\n7\n7 2000\n/\n",
        ),
        ("capabilities", plain(), "grep CapEff /proc/self/status", "CapEff:\t00000000a00425fb\n"),
        (
            "capabilities dropped and added",
            secured(Security {
                add_capabilities: strings(&["SYS_TIME"]),
                drop_capabilities: strings(&["ALL"]),
                ..Security::default()
            }),
            "grep -E 'Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status | cut -c8-",
            "\t0000000000000000\n\t0000000002000000\n\t0000000002000000\n\t0000000002000000\n\t0000000000000000\n",
        ),
        (
            "no new privileges by default",
            plain(),
            "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status",
            "NoNewPrivs:\t1\nSeccomp:\t2\n",
        ),
        (
            "privilege escalation allowed",
            secured(Security { allow_privilege_escalation: true, run_as_user: Some(999), ..Security::default() }),
            "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; unshare -U true || echo refused",
            "NoNewPrivs:\t0\nSeccomp:\t2\nunshare: unshare(0x10000000): Operation not permitted\nrefused\n",
        ),
        (
            "seccomp refuses unshare",
            plain(),
            "unshare -m true || echo refused",
            "unshare: unshare(0x20000): Operation not permitted\nrefused\n",
        ),
        (
            "seccomp refuses mount, even to those who could",
            secured(Security { add_capabilities: strings(&["DAC_READ_SEARCH"]), ..Security::default() }),
            "mount -t tmpfs none /tmp 2>/dev/null || echo refused",
            "refused\n",
        ),
        (
            "mount with the capability",
            secured(Security { add_capabilities: strings(&["SYS_ADMIN"]), ..Security::default() }),
            "mount -t tmpfs none /tmp && echo mounted",
            "mounted\n",
        ),
        (
            "unconfined",
            secured(Security { seccomp: Seccomp::Unconfined, ..Security::default() }),
            "grep Seccomp: /proc/self/status",
            "Seccomp:\t0\n",
        ),
        (
            "privileged",
            secured(Security { privileged: true, ..Security::default() }),
            "mount -t tmpfs none /tmp && echo mounted; touch /proc/sys/kernel/hostname && echo writable; ls /dev/vda",
            "mounted\nwritable\n/dev/vda\n",
        ),
        (
            "kernel settings are read-only",
            plain(),
            "touch /proc/sys/kernel/hostname 2>&1",
            "touch: /proc/sys/kernel/hostname: Read-only file system\n",
        ),
        ("masked", plain(), "wc -c < /proc/timer_list; ls /sys/firmware", "0\n"),
        ("no device nodes", plain(), "mknod /dev/x b 254 0 2>&1", "mknod: /dev/x: Operation not permitted\n"),
        ("devices", plain(), "ls /dev | tr '\\n' ' '", ""),
        (
            "shared memory",
            plain(),
            "grep ' /dev/shm ' /proc/mounts | cut -d' ' -f1,3; stat -c %a /dev/shm",
            "shm tmpfs\n1777\n",
        ),
        (
            "read-only cgroups",
            plain(),
            "cd /sys/fs/cgroup; ls memory/cgroup.procs; mkdir x 2>&1; mkdir memory/x 2>&1",
            "memory/cgroup.procs\nmkdir: can't create directory 'x': Read-only file system\nmkdir: can't create directory 'memory/x': Read-only file system\n",
        ),
        ("volume", mount(false), "cat /vol/deep/f; echo x >/vol/deep/g && echo written", "from host\nwritten\n"),
        (
            "read-only volume",
            mount(true),
            "cat /vol/deep/f; touch /vol/deep/h 2>&1",
            "from host\ntouch: /vol/deep/h: Read-only file system\n",
        ),
        (
            "read-only root, with the image's volume writable",
            secured(Security { read_only_rootfs: true, ..Security::default() }),
            "touch /x 2>&1; cat /data/seed; stat -c '%u:%g %a' /data; touch /data/x && echo written",
            "touch: /x: Read-only file system\nseed\n999:998 750\nwritten\n",
        ),
        ("umask and limits", plain(), "umask", "0022\n"),
        (
            "default signal handling",
            plain(),
            "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -c8-",
            "\t0000000000000000\n\t0000000000000000\n",
        ),
        ("open files", plain(), "ls /proc/self/fd | wc -l", "4\n"),
    ];
    for (at, (what, mut config, line, expected)) in stories.into_iter().enumerate() {
        config.name = format!("c{at}");
        config.log_path = format!("c{at}/0.log").into();
        config.command = strings(&["sh", "-c", &format!("exec 2>&1; {line}")]);
        let (exit, output) = world.run(&sandbox, config).await;
        assert_eq!(exit.start_error, None, "{what}");
        if !expected.is_empty() {
            assert_eq!(output, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn the_image_says_what_runs() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    for (at, (command, args, expected)) in [
        (&[][..], &[][..], "default\n"),
        (&[], &["echo args"], "args\n"),
        (&["echo"], &[], "\n"),
        (&["echo"], &["a", "b"], "a b\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("c{at}");
        let config = ContainerConfig { command: strings(command), args: strings(args), ..script(&name, "") };
        assert_eq!(world.run(&sandbox, config).await.1, expected, "{command:?} {args:?}");
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let prefix = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                  unable to start container process: ";
    for (at, (command, cause)) in [
        ("nothere", r#"exec: "nothere": executable file not found in $PATH: unknown"#),
        ("/nothere", r#"exec: "/nothere": stat /nothere: no such file or directory: unknown"#),
        ("/plain", r#"exec: "/plain": permission denied: unknown"#),
        ("/etc", r#"exec: "/etc": is a directory: unknown"#),
    ]
    .into_iter()
    .enumerate()
    {
        let mut events = world.engine().events();
        let config = ContainerConfig { command: strings(&[command]), ..script(&format!("c{at}"), "") };
        let id = world.engine().create_container(&sandbox, config).await.unwrap();
        let error = world.engine().start_container(&id).await.unwrap_err().to_string();
        assert_eq!(error, format!("{prefix}{cause}"));
        let exit = world.wait(&mut events, &id).await;
        assert_eq!((exit.code, exit.start_error), (128, Some(error)));
        world.engine().remove_container(&id).await.unwrap();
    }
    // The kernel's refusal comes after the start, as the program's own failure.
    let config = ContainerConfig { command: strings(&["/bin/broken"]), ..script("broken", "") };
    let archive = world.dir.path().join("broken.tar");
    let broken = Layer::new().entry(tar::EntryType::Regular, "bin/broken", 0o755, (0, 0), b"\x7fELFbroken").done();
    std::fs::write(&archive, oci_archive("broken:1", &[busybox_layer(), broken], TINY_CONFIG)).unwrap();
    world.engine().import(archive).await.unwrap();
    let (exit, output) = world.run(&sandbox, ContainerConfig { image: "broken:1".to_owned(), ..config }).await;
    assert_eq!((exit.code, output.as_str()), (255, "exec /bin/broken: exec format error\n"));

    let nobody =
        world.engine().create_container(&sandbox, ContainerConfig { image: "nosuch".into(), ..script("x", "") }).await;
    assert!(matches!(nobody, Err(EngineError::NotFound(_))));
    let security = Security { add_capabilities: strings(&["NOPE"]), ..Security::default() };
    let bad = world.engine().create_container(&sandbox, ContainerConfig { security, ..script("x", "") }).await;
    assert!(matches!(bad, Err(EngineError::Invalid(_))));
    assert_eq!(std::fs::read_dir(world.dir.path().join("root/containers")).unwrap().count(), 1, "halves are removed");
}

#[tokio::test]
async fn stops_by_signal_and_by_force() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let engine = world.engine();
    // The image says SIGUSR1.
    let polite = world
        .start(&sandbox, script("polite", "trap 'echo bye; exit 5' USR1; echo up; while :; do sleep 0.01; done"))
        .await;
    let stubborn =
        world.start(&sandbox, script("stubborn", "trap '' TERM USR1; echo up; while :; do sleep 1; done")).await;
    let mut session = engine.attach(&polite, AttachConfig { stdout: true, ..AttachConfig::default() }).await.unwrap();
    if !world.output("polite").contains("up") {
        read_until(session.stdout.as_mut().unwrap(), "up").await;
    }
    engine.stop_container(&polite, LONG).await.unwrap();
    let ContainerState::Exited(exit) = world.container(&polite).await.state else { panic!("runs") };
    assert_eq!((exit.code, exit.signal), (5, None));
    assert!(world.output("polite").ends_with("bye\n"));
    assert_eq!(session.exit.await.unwrap(), 5);

    assert!(matches!(engine.remove_container(&stubborn).await, Err(EngineError::WrongState(_))));
    engine.stop_container(&stubborn, Duration::from_millis(50)).await.unwrap();
    let ContainerState::Exited(exit) = world.container(&stubborn).await.state else { panic!("runs") };
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    engine.stop_container(&stubborn, LONG).await.unwrap();
    engine.remove_container(&stubborn).await.unwrap();
    engine.remove_container(&stubborn).await.unwrap();
    assert!(matches!(engine.start_container(&polite).await, Err(EngineError::WrongState(_))));
}

#[tokio::test]
async fn runs_out_of_memory() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let resources = Resources { memory_limit_bytes: Some(16 << 20), oom_score_adj: Some(1000), ..Resources::default() };
    let hog = "cat /proc/self/oom_score_adj; x=a; while :; do x=$x$x; done";
    let (exit, output) = world.run(&sandbox, ContainerConfig { resources, ..script("hog", hog) }).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
    assert_eq!(output, "1000\n");
    let pids = Resources { pids_limit: Some(5), oom_score_adj: Some(-999), ..Resources::default() };
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo done";
    let (exit, _) = world.run(&sandbox, ContainerConfig { resources: pids, ..script("forks", forks) }).await;
    assert!(!exit.oom_killed && exit.start_error.is_none());
    assert_ne!(exit.code, 0);
}

#[tokio::test]
async fn counts_what_it_uses() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox, script("a", "while :; do :; done")).await;
    let engine = world.engine();
    let mut stats = engine.stats(&id).await.unwrap();
    while stats.cpu_usage_nanos < 20_000_000 {
        exec(&engine, &id, &["true"]).await;
        stats = engine.stats(&id).await.unwrap();
    }
    assert!(stats.memory_usage_bytes > 0 && stats.memory_working_set_bytes <= stats.memory_usage_bytes);
    assert!(matches!(engine.stats("nosuch").await, Err(EngineError::NotFound(_))));
}

#[tokio::test]
async fn executes_commands() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let security = Security { run_as_user: Some(999), ..Security::default() };
    let config = ContainerConfig { security, env: vec![("A".into(), "b".into())], ..script("a", "sleep 1000") };
    let id = world.start(&sandbox, config).await;
    let engine = world.engine();
    for (command, expected) in [
        (&["sh", "-c", "echo hi; echo no >&2; exit 3"][..], (3, "hi\n", "no\n")),
        (&["hostname"], (0, "web-0\n", "")),
        (&["id"], (0, "uid=999(redis) gid=998(redis) groups=50(staff),998(redis)\n", "")),
        (&["sh", "-c", "echo $A $HOME; pwd"], (0, "b /data\n/work\n", "")),
        (&["sh", "-c", "kill -9 $$"], (137, "", "")),
        (&["unshare", "-U", "true"], (1, "", "unshare: unshare(0x10000000): Operation not permitted\n")),
        (&["grep", "CapEff", "/proc/self/status"], (0, "CapEff:\t0000000000000000\n", "")),
    ] {
        let (code, stdout, stderr) = exec(&engine, &id, command).await;
        assert_eq!((code, stdout.as_str(), stderr.as_str()), expected, "{command:?}");
    }
    let config = ExecConfig { command: strings(&["nosuch"]), ..ExecConfig::default() };
    let text = engine.exec(&id, config).await.unwrap_err().to_string();
    assert!(text.starts_with("failed to exec in container: failed to start exec \""), "{text}");
    assert!(
        text.ends_with(
            r#"": OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH: unknown"#
        ),
        "{text}"
    );
    let config = ExecConfig { command: strings(&["cat"]), stdin: true, stdout: true, ..ExecConfig::default() };
    let mut session = engine.exec(&id, config).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let big = "0123456789abcdef".repeat(64 << 10);
    let (written, read) = tokio::join!(
        async {
            stdin.write_all(big.as_bytes()).await.unwrap();
            drop(stdin);
        },
        read_all(session.stdout.take())
    );
    let () = written;
    assert!(read == big, "{} bytes came back", read.len());
    assert_eq!(session.exit.await.unwrap(), 0);

    let config = ExecConfig { command: strings(&["sleep", "1000"]), ..ExecConfig::default() };
    let session = engine.exec(&id, config).await.unwrap();
    session.kill.unwrap().send(9).await.unwrap();
    assert_eq!(tokio::time::timeout(LONG, session.exit).await.unwrap().unwrap(), 137);

    engine.stop_container(&id, Duration::ZERO).await.unwrap();
    let config = ExecConfig { command: strings(&["true"]), ..ExecConfig::default() };
    assert!(matches!(engine.exec(&id, config).await, Err(EngineError::WrongState(_))));
}

/// As a probe does that runs out of time: neither the command nor what was about to start it is left.
#[tokio::test]
async fn a_command_whose_caller_has_gone_is_ended() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox, script("a", "sleep 1000")).await;
    let engine = world.engine();
    let before = processes(&world);
    for patience in [0, 1, 2, 4, 8, 16, 32, 64, 128] {
        let config = ExecConfig { command: strings(&["sleep", "4711"]), ..ExecConfig::default() };
        let patience = Duration::from_millis(patience);
        if let Ok(session) = tokio::time::timeout(patience, engine.exec(&id, config)).await {
            session.unwrap().kill.unwrap().send(9).await.unwrap();
        }
    }
    let gone = async {
        while processes(&world) != before || exec(&engine, &id, &["ps"]).await.1.contains("4711") {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LONG, gone).await.is_ok(), "{:?}, at first {before:?}", processes(&world));
}

/// The shims of this world, and the helpers that they have forked.
fn processes(world: &World) -> Vec<u32> {
    let own = world.run_dir();
    let own = own.to_str().unwrap();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_own =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(own));
    all.filter(is_own).collect()
}

#[tokio::test]
async fn executes_on_a_terminal() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox, script("a", "sleep 1000")).await;
    let config = ExecConfig { command: strings(&["sh"]), tty: true, stdin: true, stdout: true, stderr: true };
    let mut session = world.engine().exec(&id, config).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    session.resize.as_ref().unwrap().send((91, 17)).await.unwrap();
    stdin.write_all(b"tty; echo $TERM; until stty size | grep '17 91'; do :; done; exit 4\n").await.unwrap();
    let mut text = read_until(&mut stdout, "17 91").await;
    text.push_str(&read_all(Some(stdout)).await);
    assert!(text.contains("/dev/pts/") && text.contains("xterm"), "{text:?}");
    assert_eq!(session.exit.await.unwrap(), 4);
}

#[tokio::test]
async fn attaches_to_pipes() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    for (name, once) in [("once", true), ("many", false)] {
        let config = ContainerConfig { stdin: true, stdin_once: once, ..script(name, "cat; echo end >&2") };
        let id = world.start(&sandbox, config).await;
        let all = AttachConfig { stdin: true, stdout: true, stderr: true };
        let mut first = world.engine().attach(&id, all).await.unwrap();
        let mut second = world.engine().attach(&id, AttachConfig { stdin: false, ..all }).await.unwrap();
        let mut stdin = first.stdin.take().unwrap();
        stdin.write_all(b"line\n").await.unwrap();
        read_until(first.stdout.as_mut().unwrap(), "line\n").await;
        read_until(second.stdout.as_mut().unwrap(), "line\n").await;
        drop(stdin);
        if once {
            assert_eq!(read_all(first.stderr.take()).await, "end\n");
            assert_eq!(first.exit.await.unwrap(), 0);
            assert_eq!(world.output(name), "line\nend\n");
        } else {
            let mut third = world.engine().attach(&id, all).await.unwrap();
            third.stdin.as_mut().unwrap().write_all(b"again\n").await.unwrap();
            read_until(second.stdout.as_mut().unwrap(), "again\n").await;
        }
    }
}

#[tokio::test]
async fn the_first_to_attach_sees_what_was_said_before() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..script("early", "echo early; >/dev/shm/said; read x; echo late")
    };
    let id = world.start(&sandbox, config).await;
    exec(&world.engine(), &id, &["sh", "-c", "until test -e /dev/shm/said; do :; done"]).await;
    let all = AttachConfig { stdin: true, stdout: true, stderr: true };
    let mut first = world.engine().attach(&id, all).await.unwrap();
    let mut second = world.engine().attach(&id, AttachConfig { stdin: false, ..all }).await.unwrap();
    first.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    assert_eq!(read_all(first.stdout.take()).await, "early\nlate\n");
    assert_eq!(read_all(second.stdout.take()).await, "late\n");
}

#[tokio::test]
async fn attaches_to_a_terminal() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let config = ContainerConfig { stdin: true, tty: true, ..script("t", "read x; stty size; echo got $x; exit 9") };
    let id = world.start(&sandbox, config).await;
    let all = AttachConfig { stdin: true, stdout: true, stderr: true };
    let mut session = world.engine().attach(&id, all).await.unwrap();
    session.resize.as_ref().unwrap().send((80, 24)).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"it\n").await.unwrap();
    let text = read_all(session.stdout.take()).await;
    assert!(text.contains("got it\r\n"), "{text:?}");
    assert_eq!(session.exit.await.unwrap(), 9);
    assert!(world.log("t").contains(" stdout F got it\r\n"));
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let config = ContainerConfig { stdin: true, ..script("big", "read x; seq 1 200000") };
    let id = world.start(&sandbox, config).await;
    let all = AttachConfig { stdin: true, stdout: true, stderr: false };
    let mut session = world.engine().attach(&id, all).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let text = read_all(session.stdout.take()).await;
    assert_eq!(text.lines().count(), 200_000);
    assert!(text.ends_with("\n200000\n"));
    assert_eq!(session.exit.await.unwrap(), 0);
    assert_eq!(world.output("big").lines().count(), 200_000);
}

#[tokio::test]
async fn containers_of_a_pod_share_what_they_should() {
    let world = World::new().await;
    let config = SandboxConfig { share_pid: true, ..world.sandbox_config() };
    let sandbox = world.engine().run_sandbox(config).await.unwrap();
    world.start(&sandbox, script("a", "echo here >/dev/shm/x; sleep 1001 & sleep 1000")).await;
    let mut config = script("b", "until grep -q here /dev/shm/x; do :; done; ps; cat /proc/1/comm");
    config.security.run_as_user = Some(0);
    let (_, output) = world.run(&sandbox, config).await;
    assert!(output.contains("sleep 1000") && output.ends_with("pause\n"), "{output}");
    let mut separate = world.sandbox_config();
    separate.cgroup_parent = "pod2".to_owned();
    let other = world.engine().run_sandbox(separate).await.unwrap();
    let (_, output) = world.run(&other, script("c", "ls /dev/shm; ps | grep -c '[s]leep'")).await;
    assert_eq!(output, "0\n");
    world.engine().stop_sandbox(&sandbox).await.unwrap();
    let states = world.engine().sandboxes().await.unwrap();
    assert_eq!(states.iter().find(|s| s.id == sandbox).unwrap().state, SandboxState::Stopped);
    assert!(world.engine().create_container(&sandbox, script("d", "")).await.is_err());
}

#[tokio::test]
async fn joins_its_network_and_sets_kernel_parameters() {
    let world = World::new().await;
    let name = world.cgroup.clone();
    let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    ip(&["netns", "add", &name]);
    let mut config = world.sandbox_config();
    config.netns = Some(format!("/run/netns/{name}").into());
    config.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())].into();
    let sandbox = world.engine().run_sandbox(config).await.unwrap();
    let line = "ip -o link | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net";
    let (_, output) = world.run(&sandbox, script("a", line)).await;
    let id = world.start(&sandbox, script("b", "sleep 1000")).await;
    let inside = exec(&world.engine(), &id, &["ls", "/sys/class/net"]).await.1;
    world.engine().remove_sandbox(&sandbox).await.unwrap();
    ip(&["netns", "del", &name]);
    assert!(output.contains("\n7\n") && output.contains("lo\n") && !output.contains("eth0"), "{output}");
    assert!(!inside.contains("eth0"), "{inside}");
    let mut config = world.sandbox_config();
    config.netns = Some("/run/netns/no-such-namespace".into());
    let error = world.engine().run_sandbox(config).await.unwrap_err().to_string();
    assert!(error.contains("cannot open network namespace /run/netns/no-such-namespace"), "{error}");
    assert!(world.engine().sandboxes().await.unwrap().is_empty());
}
