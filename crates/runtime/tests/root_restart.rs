//! Containers outlive the engine, and nothing outlives its shim.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use stead_runtime::*;
use support::*;

fn state(container: &Container) -> &ContainerState {
    &container.state
}

fn shim_pid(world: &World, sandbox: &str) -> i32 {
    let needle = world.run_dir().join(sandbox);
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains(needle.to_str().unwrap())
    });
    found.expect("shim runs").file_name().to_str().unwrap().parse().unwrap()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
}

fn fifo(world: &World) -> (std::path::PathBuf, Mount) {
    let path = world.dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    (path.clone(), Mount { host_path: path, container_path: "/fifo".into(), ..Mount::default() })
}

#[tokio::test]
async fn containers_outlive_the_engine() {
    let mut world = World::new().await;
    let sandbox = world.sandbox().await;
    let (path, mount) = fifo(&world);
    let waits = ContainerConfig { mounts: vec![mount], ..script("waits", "read x </fifo; echo $x; exit 6") };
    let waits = world.start(&sandbox, waits).await;
    let stays = world.start(&sandbox, script("stays", "echo up; sleep 1000")).await;
    let before = world.container(&stays).await;
    let made = world.engine().create_container(&sandbox, script("made", "echo later")).await.unwrap();

    // Ends while nobody looks.
    world.engine = None;
    let mut shim_log = world.output("waits");
    assert_eq!(shim_log, "");
    std::fs::write(&path, "word\n").unwrap();
    while !shim_log.contains("word") {
        shim_log = world.output("waits");
        tokio::task::yield_now().await;
    }
    world.open().await;
    let engine = world.engine();
    let mut events = engine.events();
    let exit = world.wait(&mut events, &waits).await;
    assert_eq!(exit.code, 6);
    assert_eq!(state(&world.container(&stays).await), state(&before));
    assert_eq!(engine.sandboxes().await.unwrap()[0].state, SandboxState::Ready);
    assert_eq!(exec(&engine, &stays, &["hostname"]).await.1, "web-0\n");
    assert_eq!(world.container(&made).await.state, ContainerState::Created);
    engine.start_container(&made).await.unwrap();
    world.wait(&mut events, &made).await;
    assert_eq!(world.output("made"), "later\n");
    engine.stop_container(&stays, std::time::Duration::ZERO).await.unwrap();
    engine.remove_sandbox(&sandbox).await.unwrap();
    assert!(engine.containers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_start_that_outlives_its_server_is_known_to_the_next_one() {
    let mut world = World::new().await;
    let sandbox = world.sandbox().await;
    for number in 0..5 {
        let name = format!("late-{number}");
        let id = world.engine().create_container(&sandbox, script(&name, "exec sleep 1000")).await.unwrap();
        let (engine, started) = (world.engine(), id.clone());
        let start = tokio::spawn(async move { engine.start_container(&started).await });
        // The shim makes it when it is asked to start.
        while !world.dir.path().join("logs").join(&name).join("0.log").exists() {
            tokio::task::yield_now().await;
        }
        start.abort();
        let _ = start.await;
        world.engine = None;
        world.open().await;
        let mut events = world.engine().events();
        let mut state = world.container(&id).await.state;
        while state == ContainerState::Starting {
            let expected = EngineEvent::ContainerStarted { sandbox: sandbox.clone(), container: id.clone() };
            while tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() != expected {}
            state = world.container(&id).await.state;
        }
        assert!(matches!(state, ContainerState::Running { .. }), "{name}: {state:?}");
    }
    world.engine().remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn containers_outlive_a_killed_server() {
    let mut world = World::new().await;
    world.engine = None;
    let options = world.options();
    let mut server = Command::new(shim_program())
        .arg("hold")
        .args([&options.root, &options.run])
        .args([&options.cgroup_root, IMAGE, "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let refused = embedded::open(options).await;
    assert!(matches!(refused, Err(EngineError::WrongState(_))), "one process at a time");
    server.kill().unwrap();
    server.wait().unwrap();
    world.open().await;
    let engine = world.engine();
    let containers = engine.containers().await.unwrap();
    let ContainerState::Running { pid, .. } = containers[0].state else { panic!("{containers:?}") };
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(exec(&engine, &containers[0].id, &["echo", "hi"]).await, (0, "hi\n".into(), String::new()));
    let mut events = engine.events();
    engine.stop_container(&containers[0].id, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(world.wait(&mut events, &containers[0].id).await.code, 137);
}

#[tokio::test]
async fn a_killed_shim_ends_its_sandbox() {
    let mut world = World::new().await;
    let config = SandboxConfig { share_pid: true, ..world.sandbox_config() };
    let sandbox = world.engine().run_sandbox(config).await.unwrap();
    let done = world.start(&sandbox, script("done", "exit 3")).await;
    let mut events = world.engine().events();
    world.wait(&mut events, &done).await;
    let id = world.start(&sandbox, script("a", "sleep 1000 & sleep 1001")).await;
    let ContainerState::Running { pid, .. } = world.container(&id).await.state else { panic!("does not run") };
    kill(shim_pid(&world, &sandbox));
    let exit = world.wait(&mut events, &id).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(exit.started_at_unix_nanos > 0);
    let expected = EngineEvent::SandboxStopped { sandbox: sandbox.clone() };
    while tokio::time::timeout(LONG, events.recv()).await.unwrap().unwrap() != expected {}
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "still runs: {stat}");
    assert_eq!(world.engine().sandboxes().await.unwrap()[0].state, SandboxState::Stopped);
    let ContainerState::Exited(exit) = world.container(&done).await.state else { panic!("runs") };
    assert_eq!(exit.code, 3);

    // The same, seen by a later engine.
    let mut second = world.sandbox_config();
    second.cgroup_parent = "pod2".to_owned();
    let second = world.engine().run_sandbox(second).await.unwrap();
    let id = world.start(&second, script("b", "sleep 1000")).await;
    let pid = shim_pid(&world, &second);
    world.engine = None;
    kill(pid);
    world.open().await;
    let ContainerState::Exited(exit) = world.container(&id).await.state else { panic!("runs") };
    assert_eq!(exit.code, 137);
    for sandbox in [sandbox, second] {
        world.engine().remove_sandbox(&sandbox).await.unwrap();
    }
    assert!(!Path::new("/sys/fs/cgroup/memory").join(&world.cgroup).join("pod2").exists());
}

#[tokio::test]
async fn a_container_cannot_write_to_the_program() {
    let world = World::new().await;
    let sandbox = world.sandbox().await;
    let exe = format!("/proc/{}/exe", shim_pid(&world, &sandbox));
    let error = std::fs::File::options().write(true).truncate(true).open(exe).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EROFS), "{error}");
}

#[tokio::test]
async fn kill_all_needs_no_engine() {
    let mut world = World::new().await;
    let sandbox = world.sandbox().await;
    let id = world.start(&sandbox, script("a", "sleep 1000")).await;
    let ContainerState::Running { pid, .. } = world.container(&id).await.state else { panic!("does not run") };
    world.engine = None;
    let options = world.options();
    embedded::kill_all(&options.root, &options.run, &options.cgroup_root).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "still runs: {stat}");
    for hierarchy in ["memory", "cpu", "pids", "unified", ""] {
        assert!(!Path::new("/sys/fs/cgroup").join(hierarchy).join(&world.cgroup).exists(), "{hierarchy}");
    }
    embedded::kill_all(&options.root, &options.run, &options.cgroup_root).unwrap();
    world.open().await;
    assert!(matches!(world.container(&id).await.state, ContainerState::Exited(_)));
    assert!(world.engine().image(IMAGE).await.unwrap().is_some());
    world.engine().remove_sandbox(&sandbox).await.unwrap();
}
