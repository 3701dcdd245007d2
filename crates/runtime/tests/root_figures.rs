//! Figures: how long a container takes to its first byte, and what a shim weighs. Printed, with generous bounds.

#![allow(clippy::unwrap_used, clippy::too_many_lines, reason = "tests")]

mod support;

use std::time::{Duration, Instant};

use stead_runtime::*;
use support::*;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

const ROUNDS: usize = 20;

/// Median and best.
fn figure(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[0])
}

/// A container that writes one line to a FIFO of the host, and the moment at which it comes.
async fn first_byte(world: &World, sandbox: &str, round: usize) -> (Duration, Duration, Duration) {
    let fifo = world.dir.path().join(format!("fifo-{round}"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let mut receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&fifo).unwrap();
    let reader = tokio::spawn(async move {
        receiver.read_u8().await.unwrap();
        Instant::now()
    });
    let mount = Mount { host_path: fifo, container_path: "/fifo".into(), ..Mount::default() };
    let name = format!("c{round}");
    let config = ContainerConfig { mounts: vec![mount], ..script(&name, "echo x >/fifo") };
    let begin = Instant::now();
    let id = world.engine().create_container(sandbox, config).await.unwrap();
    let created = begin.elapsed();
    world.engine().start_container(&id).await.unwrap();
    let started = begin.elapsed();
    (created, started, reader.await.unwrap() - begin)
}

fn rss_kib(pid: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures() {
    let world = World::new().await;
    let mut sandboxes = Vec::new();
    let mut last = String::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        last = world.sandbox().await;
        sandboxes.push(begin.elapsed());
    }
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        rounds.push(first_byte(&world, &last, round).await);
    }
    let of = |pick: fn(&(Duration, Duration, Duration)) -> Duration| figure(rounds.iter().map(pick).collect());
    println!("median and best: sandbox {:?}", figure(sandboxes));
    println!("create {:?}, start answered {:?}, first byte {:?}", of(|r| r.0), of(|r| r.1), of(|r| r.2));
    let needle = world.run_dir().join(&last);
    let shim = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains(needle.to_str().unwrap())
    });
    let rss = rss_kib(shim.unwrap().file_name().to_str().unwrap());
    println!("shim {rss} KiB after {ROUNDS} containers");
    assert!(of(|r| r.2).1 < Duration::from_millis(500));
}
